"""The arguments of all commands, which are parsed before the modules of the commands are imported.

Most of these need torch, which takes seconds to import; ``--help`` and wrong usage do not wait for it.
"""

from __future__ import annotations

import ast
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from reproduction.commands.options import (
    add_net_options,
    add_shared,
    folder_option,
    parse_shape,
    parse_size,
    positive,
    split_counts,
    split_names,
)
from reproduction.commands.start import program_name
from reproduction.fcn import datasets, folders
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.datasets.custom import own_images
from reproduction.fcn.nets import mini_family, mini_nets, registry
from reproduction.fcn.segment import card

_FILE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
_FOLDER: dict[str, Any] = {"type": Path, "metavar": "DIR"}
_NUMBER: dict[str, Any] = {"type": positive, "metavar": "N"}
_FLAG: dict[str, Any] = {"action": "store_true"}

ALL = "all"  # experiments
FEW = 5  # files listed for each problem without --all
TABLES = ("shape", "time", "bound", "skip")


def make_parser(command: str) -> ArgumentParser:
    """Return the parser of a sub-command, whose help is the docstring of the command's module.

    Args:
        command: The name of the sub-command.
    """
    module = command.replace("-", "_")
    source = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(source))
    parser = ArgumentParser(prog=program_name(command), description=doc, formatter_class=RawDescriptionHelpFormatter)
    _ARGUMENTS[module](parser)
    return parser


def _reproduce(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("set", choices=SPECS, help="the data set")
    add("--nets", nargs="+", default=[], metavar="NET", help="default: all of the data set")
    add_shared(parser, "--device", "--precision")
    add("--limit", **_NUMBER, help="score the first N images only; checks nothing")
    add_shared(parser, "--data", "--weights", "--report")
    add("--trained", **_FOLDER, help="score the weights that fcn train wrote to this --out")
    add("--model", **_FILE, help="your own weights of the net that --nets names")
    add("--record", **_FLAG, help="keep the scores in WEIGHTS/SET/scores.json")
    add("--by", metavar="NAME", help="add the scores to the ledger, WEIGHTS/results, under your name")
    add("--json", **_FLAG, help="print scores.json, and everything else on standard error")
    add_shared(parser, "--mirror", "--manifest")


def _infer(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="images, folders of images, or patterns")
    add("--net", default="voc-fcn8s", help="the name of a net, the folder that a training wrote, or a prototxt")
    add("--weights", **_FILE, help="default: the net's, in weights/; of a prototxt: required")
    add("-o", "--output", default=Path("segmented"), **_FOLDER, help="default: segmented/")
    add("--depth", **_FOLDER, help="depth images with the same names; for color-d")
    add("--hha", **_FOLDER, help="HHA images with the same names; for hha, color-hha")
    add("--scores", **_FLAG, help="write the scores of all classes too")
    add("--labels-only", **_FLAG, help="write the label maps without overlay, legend and overview")
    add("--overwrite", **_FLAG, help="also segment images whose results are there already")
    add(
        "--batch", **_NUMBER,
        help="compute up to N images of one size together; default: up to 8, with the pixels of one of 512 x 512",
    )  # fmt: skip
    add_shared(parser, "--max-pixels")
    add("--json", **_FLAG, help="print the results as JSON")
    add("-q", "--quiet", **_FLAG, help="print no results, and show no progress bar")
    add_shared(parser, "--device", "--precision", "--engine")
    add("--top", default=5, **_NUMBER, help="of a classifier: how many classes to print; default: 5")
    add_net_options(parser)


def _evaluate(parser: ArgumentParser) -> None:
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--net", help=f"one of {', '.join(registry.NETS)}; or the folder that a training of --data left")
    what.add_argument("--prototxt", **_FILE, help="a net of your own, without a data layer")
    add("--weights", **_FILE, help="default: the net's, in weights/")
    add_shared(parser, "--data")
    add("--dataset", help=f"with --prototxt: one of {', '.join(datasets.DATASETS)}")
    add("--split", help="default: what the net is scored on (VOC: seg11valid; your own images: val)")
    add(
        "--palette", type=Path, metavar="FILE|voc|indices",
        help="how palette images and labels in colours are read; default: as in training, or as DATA/palette.txt says",
    )  # fmt: skip
    add("--out", **_FOLDER, help="of the label maps; default: predictions in --report")
    add("--report", **_FOLDER, help="default: reports/NET")
    add("--state", **_FILE, help="how far the run is; default: state.jsonl in --out")
    add_shared(parser, "--device", "--precision", "--limit", "--max-pixels")
    add("--force", **_FLAG, help="also score images that the published nets were trained on")
    add("--json", **_FLAG, help="print the scores as JSON, with the confusion")
    add("-q", "--quiet", **_FLAG, help="no progress")
    add_net_options(parser)


def _train(parser: ArgumentParser) -> None:
    add = parser.add_argument
    own = "of your own images"
    side = f"shrink longer images of your own to N pixels, 0 for never; default: {own_images.SIDE}"
    iterations = "updates, for all stages or each; default: as published"
    what = parser.add_argument_group("what to train").add_mutually_exclusive_group()
    what.add_argument("--net", help=f"one of {', '.join((*registry.NETS, mini_nets.CLASSIFIER))}")
    what.add_argument("--stages", metavar="NET,NET", type=split_names, help="several, in this order")
    add("--solver", **_FILE, help="a solver's prototxt, whose nets are trained")
    add_shared(parser, "--legacy-crop")
    add("--init", **_FILE, nargs="+", default=[], help="weights to start from, one for each parent")
    scratch = "start from random weights, as the prototxt's fillers set them; BatchNorm normalizes by the batch"
    add("--scratch", **_FLAG, help=scratch)
    add("--data", **folder_option(f"the data root, or a folder {own}", folders.find_data_root()))
    add("--classes", **_FILE, help=f"names of the classes {own}")
    add("--palette", type=Path, metavar="FILE|voc|indices", help="colours of your own painted labels, or their indices")
    add("--side", type=int, default=own_images.SIDE, metavar="N", help=side)
    add("-o", "--out", default=Path("runs"), **_FOLDER, help="default: runs/")
    add_shared(parser, "--device")
    add("--iterations", type=split_counts, default=[], metavar="N[,N]", help=iterations)
    add("--snapshot", **_NUMBER, help="updates between snapshots")
    add("--keep", **_NUMBER, help="keep only the newest N snapshots of each net; default: all")
    validate = parser.add_mutually_exclusive_group()
    validate.add_argument("--validate", **_NUMBER, help="updates between validations")
    every = "as --validate, and keep the weights of the highest mean IU, too"
    validate.add_argument("--validate-every", **_NUMBER, help=every)
    add("--limit", **_NUMBER, help="validate on the first N images only")
    add("--seed", type=int, metavar="N", help="of dropout and the order of the images; default: 1337")
    augment = (
        "mirror and jitter training images at random, or one of them; default: neither, as the paper gained nothing"
    )
    add("--augment", nargs="?", type=split_names, const="mirror,jitter", metavar="mirror,jitter", help=augment)
    patches = "train on a random share P of the cells of 32 x 32 pixels, and on 1/P images an update"
    add("--patches", type=float, metavar="P", help=patches)
    add("--balance", **_FLAG, help="weigh each class by the inverse of its share of the training pixels")
    add("--tensorboard", **_FLAG, help="write events for TensorBoard, to NET/tensorboard in --out")
    add("--check", **_FLAG, help="check every label first, not only a few")
    add_shared(parser, "--max-pixels")
    add("--force", **_FLAG, help="train even if the checks before the start fail")
    add("-q", "--quiet", **_FLAG, help="no lines of iterations, and no progress bars")


def _convert(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a file of weights, in any of the formats")
    add("-o", "--output", type=Path, metavar="OUT", help="the file to write; the ending is its format")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--net", help="the net that the weights belong to: a name, or the folder of a training")
    what.add_argument("--prototxt", **_FILE, help="the net that the weights belong to: any prototxt")
    add("--drop", nargs="+", default=[], metavar="LAYER", help="omit the weights of these layers")
    add("--verify", type=Path, metavar="IMAGE", help="run the net on it with both files, and compare")
    add(
        "--input", type=parse_shape, action="append", default=[], metavar="BLOB=NxCxHxW",
        help="the shape of an input that the net leaves to its data (default: images of 500x500)",
    )  # fmt: skip
    add_shared(parser, "--legacy-crop", "--max-pixels", "--json")


def _export(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("net", metavar="NET", help="the name of a net, the folder that a training wrote, or a prototxt")
    add("--weights", **_FILE, help="default: the net's, in weights/; of a prototxt: required")
    add("-o", "--out", **_FILE, help="default: NET.onnx or NET.pt2")
    add("--format", choices=("onnx", "program"), default="onnx", help="onnx (default), or program: one of torch.export")
    add("--input", choices=card.INPUTS, help="default: picture; of a prototxt: blob")
    add("--output", choices=card.OUTPUTS, help="default: labels; of a prototxt: the blobs that it computes")
    add(
        "--outputs", type=split_names, metavar="NAMES", help="of a prototxt: the blobs to compute; default: its outputs"
    )
    add("--no-check", dest="check", action="store_false", help="write it without running it")
    add_shared(parser, "--json")
    add_net_options(parser)


def _info(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="prototxts, caffemodels, folders of them, and names of nets")
    add("--figure", type=Path, metavar="FILE.svg", help="draw the net")
    add(
        "--side", **_NUMBER,
        help="height and width of the images of the figure (default: that of the prototxt, or 500)",
    )  # fmt: skip
    add_shared(parser, "--dialect")
    add("--json", **_FLAG, help="print everything as JSON")


def _fetch(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="a net or a data set, as --list prints them")
    add("--set", action="append", default=[], help="all that a reproduction needs; may be given again")
    add("--list", **_FLAG, help="print what there is, and stop")
    add("--offline-list", **_FLAG, help="print what is missing, with URLs and places, and stop")
    add("--check", **_FLAG, help="ask every source for every file, print a table, and stop")
    add_shared(parser, "--mirror", "--manifest")
    add("--root", **_FOLDER, help="the folder that has weights/ and data/")
    add("--weights", **_FOLDER, help="the weights folder, if elsewhere")
    add("--data", **_FOLDER, help="the data folder, if elsewhere")
    add("--delete-archives", **_FLAG, help="delete archives when they are unpacked")
    add("--json", **_FLAG, help="print the results, or what is listed, as JSON")


def _check_data(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", **_FOLDER, help="images with labels, as docs/own_data.md lists")
    add("--classes", **_FILE, help="names of the classes; default: DIR/classes.txt")
    add(
        "--palette",
        type=Path,
        metavar="FILE|voc|indices",
        help="colours of the classes, or indices, where palettes have no meaning; default: DIR/palette.txt",
    )
    add("--write-palette", **_FILE, help="write the colours that were found there")
    add("--all", **_FLAG, help=f"name every file, not {FEW} for each problem")
    add_shared(parser, "--max-pixels", "--json")


def _page(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", **_FOLDER, help="of trainings, or of a report")
    add_shared(parser, "--data")
    add("-o", "--out", **_FILE, help="default: DIR/index.html")


def _verify(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("net", metavar="NET", help=f"one of {', '.join(registry.NETS)}")
    add("file", nargs="?", **_FILE, help="default: the net's, in weights/")
    add_shared(parser, "--manifest")
    add("--json", **_FLAG, help="print the results as JSON, with versions and date")
    add("-q", "--quiet", **_FLAG, help="no progress")


def _caffe(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("install", "status", "remove"))


def _compare(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--nets", nargs="+", default=[], metavar="NET", help="default: all")
    add("--seeds", nargs="+", default=list(mini_family.SEEDS), **_NUMBER, help="default: 1 2 3")
    default = mini_family.Budget()
    add("--iterations", **_NUMBER, default=default.iterations, help=f"of each net; default: {default.iterations}")
    of_each = f"of each classifier; default: {default.classifier_iterations}"
    add("--classifier-iterations", **_NUMBER, default=default.classifier_iterations, help=of_each)
    add("--processes", **_NUMBER, default=2, help="that train at the same time, with one thread each; default: 2")
    add_shared(parser, "--data", "--weights")
    add("-o", "--out", default=Path("runs/compare"), **_FOLDER, help="default: runs/compare")
    add_shared(parser, "--report")
    add("--record", **_FLAG, help="keep the scores in WEIGHTS/results/comparison")


def _tables(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("set", nargs="?", default="mini", choices=SPECS, help="the data set; default: mini")
    add("--only", nargs="+", choices=TABLES, metavar="TABLE", help=f"default: {', '.join(TABLES)}")
    add_shared(parser, "--data")
    add("--limit", **_NUMBER, help="of the labels, look at the first N only")
    add_shared(parser, "--device")
    add("--size", type=parse_size, default=(500, 500), metavar="HxW", help="of timed images; as the paper's")
    add("--trials", default=5, **_NUMBER, help="of each time; default: 5")
    add("--fixed", **_FLAG, help="train the net whose last layer alone learns, to runs/tables")
    add("--iterations", **_NUMBER, help="of that training; default: as its net's")
    add("--init", **_FILE, help="its first weights; default: the classifier's, in weights/")
    add("--out", default=Path("runs/tables"), **_FOLDER, help="of it; default: runs/tables")
    add_shared(parser, "--report")
    add("--json", **_FLAG, help="print JSON")


def _experiments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"experiments, or {ALL}; and the data set, if it is not mini")
    add_shared(parser, "--data", "--weights")
    add("-o", "--out", default=Path("runs/experiments"), **_FOLDER, help="default: runs/experiments")
    add_shared(parser, "--report")
    add("--record", **_FLAG, help="write the results next to the recorded scores of the data set instead")
    add("--seeds", default=1, **_NUMBER, help="train each net with the seeds 1 to N; default: 1")
    add("--iterations", **_NUMBER, help="updates of each training; default: those of the experiment")
    add_shared(parser, "--limit", "--device")


#: What adds the arguments of each command, by the name of its module.
_ARGUMENTS = {
    add_arguments.__name__[1:]: add_arguments
    for add_arguments in (
        _reproduce, _infer, _evaluate, _train, _convert, _export, _info, _fetch, _check_data, _page, _verify, _caffe,
        _compare, _tables, _experiments,
    )
}  # fmt: skip
