#!/usr/bin/env python3
"""Write a net as a program of torch.export, for any height and width from 27 pixels on, and check it at three sizes.

    tools/export_program.py voc-fcn8s                      voc-fcn8s.pt2: from an image to its labels
    tools/export_program.py mini-fcn8s -o net.pt2          with the weights that come with this project
    tools/export_program.py runs/voc-fcn8s --output scores

The file needs only torch, not this project:

    program = torch.export.load("voc-fcn8s.pt2").module()
    labels, = program(torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB")))[None])

The file also describes the inputs and outputs, and holds the classes, the means, the source and the licence of the
weights:

    said = {"form.json": "", "card.json": ""}
    torch.export.load("voc-fcn8s.pt2", extra_files=said)

--input and --output are those of tools/export_onnx.py. The batch size is 1. A net of VGG16 takes about a minute.
"""

from __future__ import annotations

import json

from common import run, say

from export_onnx import exit_code, format_result, load_to_export, make_parser, output_path

from reproduction.caffe.formats import files
from reproduction.fcn.segment import card, export


def main() -> int:
    """Write and check the program, and print a report; return the exit code."""
    import torch

    args = make_parser(__doc__, ".pt2").parse_args()
    path = output_path(args, ".pt2")
    with files.open_atomic(path) as file:
        made, about, form = load_to_export(args, "1")
        program = export.export_program(made.net, about, form)
        checked = export.check_export(made.net, about, form, export.program_runner(program)) if args.check else []
        extra = {card.CARD_FILE: card.format_card(about), export.FORMAT_FILE: json.dumps(form.describe(about))}
        torch.export.save(program, file, extra_files=extra)
    say(*format_result(path, about, form, checked, as_json=args.json).split("\n"))
    return exit_code(checked)


if __name__ == "__main__":
    run(main)
