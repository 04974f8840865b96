#!/usr/bin/env python3
"""Write the prototxts of the published nets, of Mini-VOC's and of the systems, with solvers and tables, to prototxt/.

Takes a second; ``make prototxt`` runs it.

    tools/make_prototxt.py            write the files that are not current, and list them
    tools/make_prototxt.py --check    only list them; exit with 1 if there are any
    tools/make_prototxt.py -o DIR     write to another folder
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from common import run

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import files, prototxt
from reproduction.commands.terminal import say
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.nets import mini_nets, net_files, published_nets, receptive_field, systems
from reproduction.fcn.nets.registry import PROTOTXT

INTRO = """\
# The published nets

Written by `make prototxt` from `reproduction/fcn/nets/published_nets.py`. The train, val, trainval and test nets are
those of shelhamer/fcn.berkeleyvision.org@1305c73, byte for byte; the solvers say the same as its solvers; a
`deploy.prototxt` takes images of any size and has neither labels nor losses.

The first convolution pads by 100 pixels, so that a net takes an image of any size. The crops undo the shift that the
padding and the windows cause: their offsets follow from the layers alone, for any image size and number of classes.

"""
MINI = """
## Mini-VOC

From `reproduction/fcn/nets/mini_nets.py`: thin copies of voc-fcn32s, -16s and -8s for a data set that is drawn, and
mini-vgg, the classifier with fully connected layers that mini-fcn32s starts from.

"""
SYSTEMS = """
## Systems

From `reproduction/fcn/nets/systems/`: nets of other trunks and texts. No weights of them were published. A net with
BatchNorm also has a `finetune.prototxt`, which its solver names: it normalizes by the statistics of the weights that it
starts from, and `train.prototxt` by those of the batch, for a training from the start.

"""
HEAD = ("net", "classes", "stride", "crop offsets", "parameters", "base_lr", "momentum", "iter_size", "iterations")


def main() -> int:
    """Write or compare every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("-o", "--output", type=Path, default=PROTOTXT, metavar="DIR", help="default: prototxt/")
    args = parser.parse_args()
    stale = {name: text for name, text in render().items() if not is_current(args.output / name, text)}
    for name, text in stale.items():
        path = args.output / name
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.open_atomic(path) as file:
                file.write(text)
        say(path)
    if args.check and stale:
        raise ReproductionError(
            f"{len(stale)} of {len(render())} files are not current",
            place=str(args.output),
            remedy="Run `make prototxt` and commit the result.",
        )
    return 0


def render() -> dict[str, bytes]:
    """Return the content of every file, by path below prototxt/."""
    pages = [INTRO, table(published_nets.NETS), MINI, table(mini_nets.NETS), SYSTEMS, table(systems.NETS)]
    texts = {"README.md": "".join(pages)}
    written = {name: net_files.build_files(row) for name, row in [*published_nets.NETS.items(), *systems.NETS.items()]}
    written |= {name: mini_nets.build_files(name) for name in (mini_nets.CLASSIFIER, *mini_nets.NETS)}
    for name, messages in written.items():
        texts |= {f"{name}/{file}": prototxt.dumps(message) for file, message in messages.items()}
    return {name: text.encode() for name, text in texts.items()}


def is_current(path: Path, text: bytes) -> bool:
    """Return whether the file exists and holds exactly ``text``."""
    return path.is_file() and path.read_bytes() == text


def table(rows_by_name: Mapping[str, NetRecord]) -> str:
    """Return a Markdown table of nets."""
    rows = [HEAD, ("---", *["--:"] * (len(HEAD) - 1))]
    for name, row in rows_by_name.items():
        deploy, solver = net_files.build_deploy(row), net_files.build_solver(row)
        # Both tasks of SIFT Flow crop by the same offsets, which are listed once.
        offsets = dict.fromkeys(offset for spec in deploy.layer for offset in spec.crop_param.offset)
        rows.append(
            (
                f"[{name}]({name})",
                " + ".join(str(len(head.classes)) for head in row.heads),
                str(row.stride),
                ", ".join(map(str, offsets)),
                f"{receptive_field.compute_net_figures(deploy).parameters:,}",
                f"{solver.base_lr:.0e}",
                f"{solver.momentum:.2f}",
                str(solver.iter_size),
                f"{solver.max_iter:,}",
            )
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    run(main)
