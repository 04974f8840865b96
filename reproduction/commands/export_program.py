"""Write a net as a program of torch.export, for any height and width from 27 pixels on, and check it at three sizes.

    fcn export-program voc-fcn8s                      voc-fcn8s.pt2: from an image to its labels
    fcn export-program mini-fcn8s -o net.pt2          with the weights that come with this project
    fcn export-program runs/voc-fcn8s --output scores

The file needs only torch, not this project:

    program = torch.export.load("voc-fcn8s.pt2").module()
    labels, = program(torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB")))[None])

The file also describes the inputs and outputs, and holds the classes, the means, the source and the licence of the
weights:

    said = {"form.json": "", "card.json": ""}
    torch.export.load("voc-fcn8s.pt2", extra_files=said)

--input and --output are those of fcn export-onnx. The batch size is 1. A net of VGG16 takes about a minute.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from reproduction.caffe.formats import files
from reproduction.commands.export_onnx import (
    exit_code,
    format_result,
    load_to_export,
    make_export_parser,
    output_path,
)
from reproduction.commands.terminal import say
from reproduction.fcn.segment import card, export


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and check the program, and print a report; return the exit code."""
    import torch

    args = make_export_parser("export-program", __doc__, ".pt2").parse_args(arguments)
    path = output_path(args, ".pt2")
    with files.open_atomic(path) as file:
        made, about, form = load_to_export(args, "1")
        program = export.export_program(made.net, about, form)
        checked = export.check_export(made.net, about, form, export.program_runner(program)) if args.check else []
        extra = {card.CARD_FILE: card.format_card(about), export.FORMAT_FILE: json.dumps(form.describe(about))}
        torch.export.save(program, file, extra_files=extra)
    say(*format_result(path, about, form, checked, as_json=args.json).split("\n"))
    return exit_code(checked)
