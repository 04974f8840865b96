"""Write a net as ONNX or as a program of torch.export, and check what was written.

    fcn export voc-fcn8s                              voc-fcn8s.onnx: from an image to its labels
    fcn export mini-fcn8s -o net.onnx --output scores     with the weights that come with this project
    fcn export runs/voc-fcn8s --format program        voc-fcn8s.pt2, of a net that fcn train --data trained
    fcn export voc-fcn8s --input blob --output scores     for OpenCV 5, which no longer reads Caffe's files
    fcn export voc-fcn8s --size 500x500                   for one image of this size, with less to compute
    fcn export deploy.prototxt --weights old.caffemodel       deploy.onnx: any Caffe net, as it is
    fcn export deploy.prototxt --weights old.caffemodel --outputs fc7,prob
    fcn export deploy.prototxt --weights old.caffemodel --input picture --mean 104,117,123

A prototxt is exported as it is: its inputs and outputs are Caffe's blobs, float32, under their names. Batch size and
image size are free where the net allows it. With --input picture, or with --output, it is exported as the nets of the
catalogue are, with the preprocessing that the options name; a classifier then returns one class or the scores.

--input picture, the default for all other nets, takes (N, H, W, 3) uint8 in the order R G B, with values 0 to 255; the
file itself subtracts the mean and reorders the channels. --input blob takes (N, 3, H, W) float32 in the order B G R,
minus the mean, as Caffe does. --output labels returns the class of each pixel, (N, H, W) uint8; --output scores returns
(N, classes, H, W) float32. A net of VGG16 takes about half a minute.

Exit code 3: the file was written but could not be checked, because all values of an output are equal.

    session = onnxruntime.InferenceSession("voc-fcn8s.onnx")
    labels, = session.run(None, {"data": np.array(Image.open("photo.jpg").convert("RGB"))[None]})

The file describes in JSON how to use it: "form" has the inputs and outputs, "card" the classes, the means, the source
and the licence of the weights. They are metadata of ONNX, and the files form.json and card.json of a program:

    said = session.get_modelmeta().custom_metadata_map
    classes = json.loads(said["card"])["labels"]["label"]["classes"]

With --size HxW, the ONNX file is for one image of this size. It contains what the image cannot change as constants:
the nets pad images by 100 pixels, so that every runtime needs less time for it.

A program needs only torch, not this project; its batch size is fixed. For the nets of the catalogue it is 1, and images
have 27 pixels or more:

    program = torch.export.load("voc-fcn8s.pt2").module()
    labels, = program(torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB")))[None])

OpenCV 5 reads all ONNX files; its function blobFromImage prepares --input blob, with the mean that "form" names. OpenCV
4 needs to know every size beforehand, but it reads prototxt and caffemodel:

    net = cv2.dnn.readNetFromONNX("voc-fcn8s.onnx")
    net.setInput(cv2.dnn.blobFromImage(cv2.imread("photo.jpg"), mean=(104.00699, 116.66877, 122.67892)))
    labels = net.forward()[0].argmax(axis=0)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reproduction.caffe.formats import files, hashes
from reproduction.caffe.net import export_net
from reproduction.caffe.net.export_net import BlobCheck, ExportPlan, ExportRunner
from reproduction.caffe.net.net import Net
from reproduction.commands.net_options import is_prototxt, load_described_net, read_net_options, require_weights
from reproduction.commands.parsers import make_parser
from reproduction.commands.start import NOT_CHECKED
from reproduction.commands.terminal import say, say_json
from reproduction.fcn.segment import any_net, card, export, segmenter
from reproduction.fcn.segment.export import ExportFormat, OutputCheck
from reproduction.fcn.segment.segmenter import Segmenter

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True)
class Report:
    """What was written and how it was checked.

    Attributes:
        name: The name of the net.
        form: The inputs and outputs, in one line.
        checked: A line for each output that was checked.
        says_little: Whether an output could not be checked, because all its values are equal.
        document: The same for ``--json``.
    """

    name: str
    form: str
    checked: list[str]
    says_little: bool
    document: dict[str, Any]


ENDINGS = {"onnx": ".onnx", "program": ".pt2"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and check the file, and print a report; return the exit code."""
    parser = make_parser("export")
    args = parser.parse_args(arguments)
    planned = None if is_prototxt(args.net) else args.size  # of a prototxt, it is a property of the net
    if planned:
        args.size = None
        if args.format != "onnx":
            parser.error("--size is for --format onnx, unless the net is a prototxt")
    require_weights(parser, args)
    as_blobs = is_prototxt(args.net) and args.input != "picture" and not args.output
    if args.outputs and not as_blobs:
        parser.error("--outputs is for a prototxt that is exported as it is, without --input picture and --output")
    path = output_path(args)
    with files.open_atomic(path) as file:  # before the net is loaded, so that an unwritable path fails at once
        report = write_blobs(args, file) if as_blobs else write_with_card(args, file, planned)
    size = path.stat().st_size
    if args.json:
        say_json({"file": str(path), "bytes": size, **report.document})
    else:
        checked = report.checked or ["not checked"]
        say(f"{path}: {report.name}, {size / 1e6:.1f} MB", f"  {report.form}", *(f"  {line}" for line in checked))
    return NOT_CHECKED if report.says_little else 0


def output_path(args: argparse.Namespace) -> Path:
    """Return the path of the file to write: ``--out``, or the net's name and the ending of its format.

    Raises:
        ReproductionError: If there is no such net.
    """
    if args.out:
        return Path(args.out)
    name = Path(args.net).stem if is_prototxt(args.net) else segmenter.find_card(args.net).net
    return Path(f"{name}{ENDINGS[args.format]}")


def write_with_card(args: argparse.Namespace, file: IO[bytes], planned: tuple[int, int] | None = None) -> Report:
    """Write a net with its preprocessing and argmax, as its card says, and check it.

    Args:
        args: The arguments of the program.
        file: The file to write.
        planned: Write the plan of a compiled net for images of this (height, width); see ``export.export_onnx``.

    Raises:
        ReproductionError: If there is no such net, if its weights are missing, or if ``--input picture`` is chosen for
            a net that takes depth.
    """
    batch = "N" if args.format == "onnx" and not planned else "1"
    form = ExportFormat(args.input or "picture", args.output or "labels", batch)
    if is_prototxt(args.net):
        about, net, _ = load_described_net(args, quiet=args.json)
        about = card.add_source(about, args.weights)
    else:
        model = segmenter.locate_weights(args.net, args.weights)
        form.check(segmenter.find_card(args.net))
        made = Segmenter.load(args.net, model)
        about, net = card.add_source(made.card, model), made.net
        about = export.set_size(about, planned) if planned else about
    if args.format == "onnx":
        run = _save_onnx(export.export_onnx(net, about, form, planned=planned is not None), file, args)
    else:
        notes = {card.CARD_FILE: card.format_card(about), export.FORMAT_FILE: json.dumps(form.describe(about))}
        run = _save_program(export.export_program(net, about, form), file, notes, args)
    checked = export.check_export(net, about, form, run) if run else []
    document = {"card": card.as_json(about), "input": form.inputs, "output": form.outputs,
                "form": form.describe(about), "checked": [vars(each) for each in checked]}  # fmt: skip
    line = f"{', '.join(about.inputs)} ({form.inputs}) -> {', '.join(form.output_names(about))}"
    empty = any(each.is_empty for each in checked)
    return Report(about.net, line, [_format_check(each) for each in checked], empty, document)


def _format_check(check: OutputCheck) -> str:
    height, width = check.size
    if check.is_empty:
        return f"not checked at {height} x {width}: the scores of {check.output} are all equal"
    differs = f"{100 * check.worst:.2g} % of pixels differ" if check.pixels else f"scores differ by {check.worst:.1g}"
    return f"checked at {height} x {width}: {check.output}, {differs}"


def write_blobs(args: argparse.Namespace, file: IO[bytes]) -> Report:
    """Write a net of any prototxt with its own inputs and outputs, and check it.

    Raises:
        ReproductionError: If a file is missing, broken or of another net, or if layers have no ONNX form; the error
            lists all of them.
    """
    net, _, _ = any_net.load_bare_net(args.net, args.weights, read_net_options(args))
    plan = export_net.plan_export(net, args.outputs)
    source = {"prototxt": Path(args.net).name, "file": args.weights.name, "sha256": hashes.hash_file(args.weights)}
    if args.format == "onnx":
        model, plan = export_net.export_onnx(net, plan)
        form = describe_plan(net, plan)
        for key, value in {export.FORMAT_KEY: form, "source": source}.items():
            model.metadata_props.add(key=key, value=json.dumps(value))
        run = _save_onnx(model, file, args)
    else:
        program, plan = export_net.export_program(net, plan)
        form = describe_plan(net, plan)
        notes = {export.FORMAT_FILE: json.dumps(form), "source.json": json.dumps(source)}
        run = _save_program(program, file, notes, args)
    checked = export_net.check_export(net, plan, run) if run else []
    line = " -> ".join(", ".join(f"{name} {text}" for name, text in form[side].items()) for side in form)
    document = {"form": form, "source": source, "checked": [vars(each) for each in checked]}
    name = net.graph.name or Path(args.net).stem
    return Report(name, line, [_format_blob_check(each) for each in checked], any(c.equal for c in checked), document)


def _save_onnx(model: onnx.ModelProto, file: IO[bytes], args: argparse.Namespace) -> ExportRunner | None:
    """Write a model, and return the function that runs it; None if it is not to be checked."""
    data = model.SerializeToString()
    file.write(data)
    return export_net.onnx_runner(data) if args.check else None


def _save_program(
    program: torch.export.ExportedProgram, file: IO[bytes], notes: dict[str, str], args: argparse.Namespace
) -> ExportRunner | None:
    """Write a program with notes as extra files, and return the function that runs it; None if it is not checked."""
    import torch

    torch.export.save(program, file, extra_files=notes)
    return export_net.program_runner(program) if args.check else None


def describe_plan(net: Net, plan: ExportPlan) -> dict[str, dict[str, str]]:
    """Return the shapes of a program's inputs and outputs as text, by name."""
    outputs = export_net.output_axes(net, plan)
    return {
        "inputs": {name: _format_axes(plan.axes(name)) for name in plan.shapes},
        "outputs": {name: _format_axes(axes) for name, axes in outputs.items()},
    }


def _format_axes(axes: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, axes))})"


def _format_blob_check(check: BlobCheck) -> str:
    shapes = ", ".join(f"{name} {_format_axes(shape)}" for name, shape in check.inputs.items())
    if check.equal:
        return f"not checked for {shapes}: all values of {check.output} are equal"
    differs = f"{100 * check.worst:.2g} % of values differ" if check.whole else f"differs by {check.worst:.1g}"
    return f"checked for {shapes}: {check.output}, {differs}"
