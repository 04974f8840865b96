"""List the weights of a Caffe net, and convert them between .caffemodel, .caffemodel.h5, .safetensors, .pt and .npz.

    fcn convert fcn8s.caffemodel                           the layers, their shapes, the file's format
    fcn convert fcn8s.caffemodel -o fcn8s.safetensors
    fcn convert fcn8s.caffemodel -o fcn8s.safetensors --net voc-fcn8s
    fcn convert fcn8s.caffemodel --prototxt prototxt/voc-fcn8s/deploy.prototxt
    fcn convert fcn8s.caffemodel -o fcn8s.npz --prototxt deploy.prototxt --verify photo.jpg
    fcn convert model_best.pth.tar -o fcn8s.caffemodel --net voc-fcn8s        from pytorch-fcn
    fcn convert fcn8s.caffemodel -o fcn8s.pth                                 for its modules
    fcn convert atonce.caffemodel -o atonce.pth --drop scale_pool4 scale_pool3

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

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduction.caffe.errors import ReproductionError, printable
from reproduction.caffe.formats import hashes, weights
from reproduction.caffe.formats.weights import Weights
from reproduction.commands.bars import Bars, bar
from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import say, say_json
from reproduction.fcn.nets.registry import PROTOTXT


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, check, convert and verify the weights, and print a report."""
    parser = make_parser("convert")
    args = parser.parse_args(arguments)
    if args.net:
        from reproduction.fcn.segment import segmenter  # imports torch, which takes seconds

        folder = Path(args.net) if Path(args.net).is_dir() else PROTOTXT / segmenter.find_card(args.net).net
        args.prototxt = folder / "deploy.prototxt"
    if args.verify and not (args.prototxt and args.output):
        parser.error("--verify needs --prototxt or --net, and -o OUT")
    if args.output:
        weights.format_for(args.output)
        if args.output.exists() and args.output.samefile(args.model):
            raise ReproductionError("this is the file to read", place=str(args.output), remedy="Name another with -o.")
    found = weights.read(args.model)
    found.drop(args.drop)
    if args.prototxt:
        from reproduction.fcn.segment import convert

        net_param, shapes = convert.check_weights(args.prototxt, found, dict(args.input), legacy_crop=args.legacy_crop)
    inputs = convert.make_inputs(args.verify, shapes) if args.verify else {}
    report = found.summary() | ({"prototxt": str(args.prototxt)} if args.prototxt else {})
    if args.output:
        found.metadata |= make_metadata(args.net, args.model, found)
        with Bars() as bars:
            weights.write(found, args.output, bars(args.output.name))
        report["written"] = str(args.output)
    if args.verify:
        with bar("run the net", 2, "run") as shown:
            after = weights.read(args.output)
            report["equal_blobs"] = convert.compare_blobs(net_param, inputs, found, after, shown.update)
    if args.json:
        say_json(report)
    else:
        say(*table(report))


def make_metadata(net_name: str | None, path: Path, converted: Weights) -> dict[str, str]:
    """Return the metadata for a safetensors file: the net's card, or else where the weights come from.

    They are empty if no net is named and the weights already have a card.
    """
    from reproduction.fcn.segment import card, segmenter

    if net_name:
        return {card.METADATA_KEY: card.format_card(card.add_source(segmenter.find_card(net_name), path))}
    if card.METADATA_KEY in converted.metadata:
        return {}
    return {"source": json.dumps({"file": path.name, "sha256": hashes.hash_file(path)})}


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
        lines.append(f"every parameter of {report['prototxt']} is in the file, and no others")
    if "written" in report:
        lines.append(f"wrote {report['written']}")
    if "equal_blobs" in report:
        lines.append(f"all {report['equal_blobs']} blobs of the net are equal bit by bit, before and after")
    return lines


def _shape(shape: list[int], dtype: str) -> str:
    text = "x".join(map(str, shape)) or "1 value"
    return text if dtype == "float32" else f"{text} ({dtype})"
