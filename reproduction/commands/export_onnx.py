"""Write a net as ONNX, for any height and width, and check it with ONNX Runtime at three sizes.

    fcn export-onnx voc-fcn8s                                  voc-fcn8s.onnx: from an image to its labels
    fcn export-onnx mini-fcn8s -o net.onnx --output scores     with the weights that come with this project
    fcn export-onnx runs/voc-fcn8s                             a net that fcn train --data trained
    fcn export-onnx voc-fcn8s --input blob --output scores     for OpenCV 5, which no longer reads Caffe's files

Exit code 3: the file was written but could not be checked, because the net's scores are all equal.

--input picture takes (N, H, W, 3) uint8 in the order R G B, with values 0 to 255; the model itself subtracts the mean
and reorders the channels. --input blob takes (N, 3, H, W) float32 in the order B G R, minus the mean, as Caffe does.
--output labels returns the class of each pixel, (N, H, W) uint8; --output scores returns (N, classes, H, W) float32.
A net of VGG16 takes about half a minute.

    session = onnxruntime.InferenceSession("voc-fcn8s.onnx")
    labels, = session.run(None, {"data": np.array(Image.open("photo.jpg").convert("RGB"))[None]})

The model's metadata describe in JSON how to use it: "form" has the inputs and outputs, "card" the classes, the means,
the source and the licence of the weights:

    said = session.get_modelmeta().custom_metadata_map
    classes = json.loads(said["card"])["labels"]["label"]["classes"]

OpenCV 5 reads all of these; its function blobFromImage prepares --input blob, with the mean that "form" names. OpenCV 4
reads none of them, because it needs to know every size beforehand, but it reads prototxt and caffemodel:

    net = cv2.dnn.readNetFromONNX("voc-fcn8s.onnx")
    net.setInput(cv2.dnn.blobFromImage(cv2.imread("photo.jpg"), mean=(104.00699, 116.66877, 122.67892)))
    labels = net.forward()[0].argmax(axis=0)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from reproduction.caffe.formats import files
from reproduction.commands.options import make_parser
from reproduction.commands.start import NOT_CHECKED
from reproduction.commands.terminal import say
from reproduction.fcn.segment import card, export, segmenter
from reproduction.fcn.segment.card import Card
from reproduction.fcn.segment.export import ExportFormat, OutputCheck
from reproduction.fcn.segment.segmenter import Segmenter


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and check the model, and print a report; return the exit code."""
    args = make_export_parser("export-onnx", __doc__, ".onnx").parse_args(arguments)
    path = output_path(args, ".onnx")
    with files.open_atomic(path) as file:  # before the net is loaded, so that an unwritable path fails at once
        made, about, form = load_to_export(args, "N")
        model = export.export_onnx(made.net, about, form).SerializeToString()
        run_it = export.onnx_runner(model) if args.check else None
        checked = export.check_export(made.net, about, form, run_it) if run_it else []
        file.write(model)
    say(*format_result(path, about, form, checked, as_json=args.json).split("\n"))
    return exit_code(checked)


def exit_code(checked: Sequence[OutputCheck]) -> int:
    """Return 0, or ``NOT_CHECKED`` if the net's scores were all equal at one of the sizes."""
    return NOT_CHECKED if any(each.is_empty for each in checked) else 0


def make_export_parser(command: str, doc: str | None, ending: str) -> argparse.ArgumentParser:
    """Return a parser with the options that both exports have; ``ending`` is that of the default file name."""
    made = make_parser(command, doc)
    made.add_argument("net", metavar="NET", help="the name of a net, or the folder that a training wrote")
    made.add_argument("--weights", type=Path, metavar="FILE", help="default: the net's, in weights/")
    made.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"default: NET{ending}")
    made.add_argument("--input", choices=export.INPUTS, default="picture", help="default: picture")
    made.add_argument("--output", choices=export.OUTPUTS, default="labels", help="default: labels")
    made.add_argument("--no-check", dest="check", action="store_false", help="write it without running it")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def output_path(args: argparse.Namespace, ending: str) -> Path:
    """Return the path of the file to write: ``--out``, or the net's name and ``ending``.

    Raises:
        ReproductionError: If there is no such net.
    """
    return args.out or Path(f"{segmenter.find_card(args.net).net}{ending}")


def load_to_export(args: argparse.Namespace, batch: str) -> tuple[Segmenter, Card, ExportFormat]:
    """Load the net; return it with its card, which names the source of the weights, and its format.

    Raises:
        ReproductionError: If there is no such net, if its weights are missing, or if ``--input picture`` is chosen for
            a net that takes depth.
    """
    form = ExportFormat(args.input, args.output, batch)
    model = segmenter.locate_weights(args.net, args.weights)
    form.check(segmenter.find_card(args.net))
    made = Segmenter.load(args.net, model)
    return made, card.add_source(made.card, model), form


def format_result(path: Path, about: Card, form: ExportFormat, checked: Sequence[OutputCheck], *, as_json: bool) -> str:
    """Return the report as text, or as JSON if ``as_json``."""
    if as_json:
        found = [vars(each) for each in checked]
        return json.dumps({"file": str(path), "bytes": path.stat().st_size, "card": card.as_json(about),
                           "input": form.inputs, "output": form.outputs, "form": form.describe(about),
                           "checked": found}, indent=2)  # fmt: skip
    lines = [f"{path}: {about.net}, {path.stat().st_size / 1e6:.1f} MB"]
    lines.append(f"  {', '.join(about.inputs)} ({form.inputs}) -> {', '.join(form.output_names(about))}")
    for each in checked:
        if each.is_empty:
            lines.append(f"  not checked at {each.size[0]} x {each.size[1]}: the scores of {each.output} are all equal")
            continue
        differs = f"{100 * each.worst:.2g} % of pixels differ" if each.pixels else f"scores differ by {each.worst:.1g}"
        lines.append(f"  checked at {each.size[0]} x {each.size[1]}: {each.output}, {differs}")
    return "\n".join(lines if checked else [*lines, "  not checked"])
