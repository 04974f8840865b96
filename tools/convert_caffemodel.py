#!/usr/bin/env python3
"""List the weights of a Caffe net, and convert them between .caffemodel, .caffemodel.h5, .safetensors, .pt and .npz.

    tools/convert_caffemodel.py fcn8s.caffemodel                           the layers, their shapes, the file's format
    tools/convert_caffemodel.py fcn8s.caffemodel -o fcn8s.safetensors
    tools/convert_caffemodel.py fcn8s.caffemodel -o fcn8s.safetensors --net voc-fcn8s
    tools/convert_caffemodel.py fcn8s.caffemodel --prototxt prototxt/voc-fcn8s/deploy.prototxt
    tools/convert_caffemodel.py fcn8s.caffemodel -o fcn8s.npz --prototxt deploy.prototxt --verify photo.jpg
    tools/convert_caffemodel.py model_best.pth.tar -o fcn8s.caffemodel --net voc-fcn8s        from pytorch-fcn
    tools/convert_caffemodel.py fcn8s.caffemodel -o fcn8s.pth                                 for its modules
    tools/convert_caffemodel.py atonce.caffemodel -o atonce.pth --drop scale_pool4 scale_pool3

The float values are copied bit for bit. As in PyTorch, parameters are named LAYER.weight and LAYER.bias, then LAYER.2
and so on; .caffemodel.h5 has Caffe's layout. Nets in the old formats V0 and V1 are upgraded, and the tool reports it.

--prototxt checks that the file has every parameter of the net in the net's shape, and no others. --net does the same
for a net of this project, and adds the constant scales that other programs keep in their code. --verify runs the net on
an image with the weights of both files, and compares every blob bit by bit.

The metadata of a safetensors file state where its weights come from, as "source"; with --net, they hold a card with
all that using the weights needs: classes, means, order of the channels, source and licence. Both are JSON:

    with safetensors.safe_open("fcn8s.safetensors", "np") as file:
        card = json.loads(file.metadata()["card"])
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import PROTOTXT, Bars, add_legacy_crop, add_max_pixels, bar, run, say, say_json

import numpy as np

from reproduction.caffe.errors import ReproductionError, WeightsError, did_you_mean, printable
from reproduction.caffe.formats import blobs, prototxt, weights
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.schema import BlobShape, LayerParameter, NetParameter, Phase
from reproduction.caffe.typing import Float32

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net

Shape = tuple[int, ...]
Inputs = dict[str, Float32]

MEAN_BGR = (104.00699, 116.66877, 122.67892)
SIDE = 500  # height and width of an input whose data layer determines the size
DATA_LAYERS = ("Python", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData")
CHANNELS = {"data": 3, "color": 3, "hha": 3}  # of these inputs; others, such as labels, have one channel


def main() -> None:
    """Read, check, convert and verify the weights, and print a report."""
    parser = _parser()
    args = parser.parse_args()
    if args.net:
        args.prototxt = of_net(args.net)
    if args.verify and not (args.prototxt and args.output):
        parser.error("--verify needs --prototxt or --net, and -o OUT")
    if args.output:
        weights.format_for(args.output)
        if args.output.exists() and args.output.samefile(args.model):
            raise ReproductionError("this is the file to read", place=str(args.output), remedy="Name another with -o.")
    found = weights.read(args.model)
    drop(found, args.drop)
    if args.prototxt:
        net, shapes = check(args.prototxt, found, dict(args.input), legacy_crop=args.legacy_crop)
    inputs = pictures(args.verify, shapes) if args.verify else {}
    report = describe(found)
    if args.prototxt:
        report["prototxt"] = str(args.prototxt)
    if args.output:
        found.metadata |= said(args.net, args.model, found)
        write(found, args.output)
        report["written"] = str(args.output)
    if args.verify:
        report["equal_blobs"] = verify(net, inputs, found, weights.read(args.output))
    if args.json:
        say_json(report)
    else:
        say(*table(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file of weights, of any of the formats")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="where to write; the ending is the format")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--net", help="the net that the weights belong to, or the folder that a training left")
    what.add_argument("--prototxt", type=Path, metavar="FILE", help="the same, as any prototxt")
    parser.add_argument("--drop", nargs="+", default=[], metavar="LAYER", help="leave these layers' weights out")
    parser.add_argument("--verify", type=Path, metavar="IMAGE", help="run the net on it before and after; compare")
    parser.add_argument(
        "--input",
        type=_input,
        action="append",
        default=[],
        metavar="BLOB=NxCxHxW",
        help=f"the shape of an input that the net leaves to its data (default: pictures of {SIDE}x{SIDE})",
    )
    add_legacy_crop(parser)
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _input(text: str) -> tuple[str, Shape]:
    name, _, shape = text.partition("=")
    try:
        return name, tuple(int(dim) for dim in shape.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, want for example data=1x3x500x500") from None


def of_net(net: str) -> Path:
    """Return the path of the deploy.prototxt of a net of this project, or in the folder of a training.

    Raises:
        ReproductionError: If there is no such net or folder.
    """
    from reproduction.fcn.segment import segmenter

    name = segmenter.find_card(net).net
    return (Path(net) if Path(net).is_dir() else PROTOTXT / name) / "deploy.prototxt"


def drop(found: Weights, layers: list[str]) -> None:
    """Remove layers from the weights.

    Raises:
        WeightsError: If there is no such layer.
    """
    names = [name for name, _ in found]
    for layer in layers:
        if layer not in names:
            remedy = did_you_mean(layer, names)
            raise WeightsError(f"there is no layer {layer!r} to leave out", path=found.path, remedy=remedy)
    found.net.layer[:] = [layer for layer in found.net.layer if layer.name not in layers]


def said(net: str | None, model: Path, found: Weights) -> dict[str, str]:
    """Return the metadata for a safetensors file: the net's card, or else where the weights come from.

    They are empty if no net is named and the weights already have a card.
    """
    from reproduction.fcn.segment import card, segmenter

    if net:
        return {card.METADATA_KEY: card.format_card(card.add_source(segmenter.find_card(net), model))}
    if card.METADATA_KEY in found.metadata:
        return {}
    return {"source": json.dumps({"file": model.name, "sha256": card.sha256(model)})}


def describe(found: Weights) -> dict[str, Any]:
    """Return the content of a file of weights as plain data, for JSON."""
    types = {layer.name: layer.type for layer in found.net.layer}
    layers = [
        {
            "name": name,
            "type": types[name],
            "shapes": [list(values.shape) for values in arrays],
            "dtypes": [str(values.dtype) for values in arrays],
        }
        for name, arrays in found
    ]
    arrays = found.arrays().values()
    return {
        "file": found.path,
        "format": found.format,
        "net": found.net.name,
        "upgrades": found.notes,
        "layers": layers,
        "parameters": sum(values.size for values in arrays),
        "bytes": sum(values.nbytes for values in arrays),
    }


def table(report: dict[str, Any]) -> list[str]:
    """Format the report as lines of text."""
    net = f", net {report['net']!r}" if report["net"] else ""
    lines = [f"{report['file']}: {report['format']}{net}", *(f"  {note}" for note in report["upgrades"]), ""]
    rows = [("layer", "type", "blobs")]
    for layer in report["layers"]:
        shapes = zip(layer["shapes"], layer["dtypes"], strict=True)
        rows.append((printable(layer["name"]), printable(layer["type"]), "  ".join(_shape(*each) for each in shapes)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    count = len(report["layers"])
    lines += ["", f"{report['parameters']:,} parameters in {count} layers, {report['bytes'] / 1e6:.1f} MB"]
    if "prototxt" in report:
        lines.append(f"every parameter of {report['prototxt']} is met, and none is left over")
    if "written" in report:
        lines.append(f"wrote {report['written']}")
    if "equal_blobs" in report:
        lines.append(f"all {report['equal_blobs']} blobs of the net are equal bit by bit, before and after")
    return lines


def _shape(shape: list[int], dtype: str) -> str:
    text = "x".join(map(str, shape)) or "1 value"
    return text if dtype == "float32" else f"{text} ({dtype})"


def check(
    path: Path, found: Weights, given: dict[str, Shape], *, legacy_crop: bool = False
) -> tuple[NetParameter, dict[str, Shape]]:
    """Check the weights against a net, which is built on the meta device and uses no memory.

    Args:
        path: The net's prototxt.
        found: The weights; constant scales that they lack are added.
        given: Shapes of inputs that the net does not state itself, by name.
        legacy_crop: Whether Crop layers without an offset align their bottoms, as in the Caffe of 2015.

    Returns:
        The net, with Input layers in place of its data layers, and the shapes of its inputs by name.

    Raises:
        WeightsError: If a parameter of the net is missing, or if the file has weights of other layers.
    """
    import torch

    from reproduction.fcn.nets import surgery

    message = fed_by_hand(prototxt.load_net(path, legacy_crop=legacy_crop)[0])
    try:
        with torch.device("meta"):
            net = _net(message, given)
    except ReproductionError as error:
        raise error.at(str(path)) from None
    report = net.copy_from(found.net, found.path)
    given_by_net = [name for name in report.untouched if name in surgery.find_constant_scales(net)]
    missing = [name for name in report.untouched if name not in given_by_net]
    wrong = []
    if missing:
        wrong.append(f"no weights for {_few(missing)}")
    if report.ignored:
        wrong.append(f"weights left over of {_few(report.ignored)}")
    if wrong:
        raise WeightsError(f"these are not the weights of {path}", path=found.path, got="; ".join(wrong))
    add_constants(found, net, given_by_net)
    return message, {name: net.blob_shapes[name] for name in net.inputs}


def add_constants(found: Weights, net: Net, layers: list[str]) -> None:
    """Add the weights of layers whose values the prototxt states: Scale layers with a constant filler."""
    for name in layers:
        spec = net.layers[name].layer_param
        values = np.full(tuple(net.params[name][0].shape), spec.scale_param.filler.value, np.float32)
        found.net.layer.add(name=name, type=spec.type, blobs=[blobs.from_array(values)])
        found.notes.append(f"{name}: {spec.scale_param.filler.value:g} everywhere, as the prototxt says")


def fed_by_hand(message: NetParameter) -> NetParameter:
    """Return a copy of the net with its data layers replaced by Input layers of typical shapes."""
    net = message.copy()
    for i, layer in enumerate(net.layer):
        if layer.type in DATA_LAYERS and not layer.bottom:
            shapes = [BlobShape(dim=[1, CHANNELS.get(top, 1), SIDE, SIDE]) for top in layer.top]
            net.layer[i] = LayerParameter(name=layer.name, type="Input", top=layer.top, input_param={"shape": shapes})
            net.layer[i].include, net.layer[i].exclude = layer.include, layer.exclude
    return net


def _net(message: NetParameter, shapes: dict[str, Shape]) -> Net:
    from reproduction.caffe.net.net import Net

    return Net(message, Phase.TEST, inputs=shapes)


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def write(found: Weights, path: Path) -> None:
    """Write the weights, with a progress bar."""
    with Bars() as bars:
        weights.write(found, path, bars(path.name))


def verify(message: NetParameter, inputs: Inputs, before: Weights, after: Weights) -> int:
    """Run the net with the weights of both files, and return how many blobs were compared.

    Raises:
        WeightsError: If a blob differs.
    """
    import torch

    net = _net(message, {name: values.shape for name, values in inputs.items()}).eval()
    blobs_of_it = [blob for blobs in net.params.values() for blob in blobs]
    digests: list[dict[str, str]] = []
    with bar("run the net", 2, "run") as shown:
        for found in (before, after):
            with torch.no_grad():  # so that parameters that a file lacks are NaN, not the first file's
                for blob in blobs_of_it:
                    blob.fill_(float("nan"))
            net.copy_from(found.net, found.path)
            with torch.inference_mode():
                values = net(inputs, list(net.blob_shapes))
            digests.append({name: hashlib.blake2b(blob.numpy().tobytes()).hexdigest() for name, blob in values.items()})
            shown.update()
    different = [name for name in digests[0] if digests[0][name] != digests[1][name]]
    if different:
        raise WeightsError("the converted net computes something else", path=after.path, got=f"blobs {_few(different)}")
    return len(digests[0])


def pictures(image: Path, shapes: dict[str, Shape]) -> Inputs:
    """Return an array for every input, made from one image that is resized to the input's shape.

    Inputs of three channels get the colours in BGR minus the mean; other inputs get 1 for bright pixels and 0 for dark
    ones. Inputs that do not have four axes are zero.
    """
    from PIL import Image

    from reproduction.fcn.images import decode

    rgb = decode.read_rgb(image)
    inputs: Inputs = {}
    for name, shape in shapes.items():
        values = np.zeros(shape, np.float32)
        if len(shape) == 4:
            small = np.asarray(Image.fromarray(rgb).resize((shape[3], shape[2])), np.float32)
            bgr = small[:, :, ::-1] - np.array(MEAN_BGR, np.float32)
            values[:] = bgr.transpose(2, 0, 1) if shape[1] == 3 else small.mean(axis=2) > 127
        inputs[name] = values
    return inputs


if __name__ == "__main__":
    run(main)
