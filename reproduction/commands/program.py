"""The table of sub-commands, and the console command that runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import NamedTuple

from reproduction import __version__
from reproduction.commands import start
from reproduction.commands.terminal import fail, say
from reproduction.fcn import folders


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        module: Its module in this package; it has ``main``, and its docstring is the help.
        summary: What it does, in one line.
    """

    module: str
    summary: str


#: The sub-commands, by what the user types. A module is imported when its sub-command runs, because most need torch.
COMMANDS = {
    "reproduce": Command("reproduce", "score the nets of a data set and compare them with the paper"),
    "infer": Command("infer", "segment images: label map, overlay and legend"),
    "evaluate": Command("evaluate", "score a net on a data set"),
    "train": Command("train", "train a net by its published recipe, on published data or your own images"),
    "convert": Command("convert", "list the weights of a file, and convert them to another format"),
    "export": Command("export", "write a net as ONNX or as a program of torch.export, and check it"),
    "info": Command("info", "describe prototxts and caffemodels, and whether they run here"),
    "fetch": Command("fetch", "download published weights and data sets"),
    "check-data": Command("check_data", "check your own images and labels before a training"),
    "page": Command("page", "write the page of a training or of scores again"),
    "verify": Command("verify", "check without a data set whether weights are those of a published net"),
    "caffe": Command("caffe", "make `import caffe` import this project, in every program of an environment"),
    "compare": Command("compare", "train nets at an equal budget on drawn images, and compare them on a page"),
    "tables": Command("tables", "compute the paper's other tables"),
    "experiments": Command(
        "experiments", "run the paper's experiments, such as nets without skips or with masked images"
    ),
}
#: Earlier names, which still work but are not listed.
EARLIER = {
    "export-onnx": Command("export_onnx", "the same as export"),
    "export-program": Command("export_program", "the same as export --format program"),
}
HELP, VERSION = ("-h", "--help"), "--version"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command and exit with its exit code, see ``start.run``; without one, print the list and exit with 2.

    Args:
        arguments: The name of a sub-command and its arguments; None for those of the process.
    """
    start.begin()
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    if found := COMMANDS.get(name) or EARLIER.get(name):
        module = import_module(f"reproduction.commands.{found.module}")
        start.run(partial(module.main, rest))
    start.run(partial(_describe, name))


def _describe(name: str) -> int:
    """Print the version or the list of sub-commands, or that there is no such sub-command; return the exit code."""
    program = start.program_name()
    if name == VERSION:
        say(f"fcn {__version__}")
        return 0
    if name and name not in HELP:
        near = get_close_matches(name, COMMANDS, n=1)
        what = "option" if name.startswith("-") else "command"
        remedy = f"Did you mean `{program} {near[0]}`?" if near else f"`{program} --help` lists all."
        return fail(f"there is no {what} {name!r}. {remedy}", code=2)
    width = max(map(len, COMMANDS))
    say(
        f"usage: {program} COMMAND [ARGUMENTS]",
        "",
        "Fully convolutional networks, reproduced from Caffe in PyTorch.",
        "",
        *(f"  {command:{width}}  {about.summary}" for command, about in COMMANDS.items()),
        "",
        f"`{program} COMMAND --help` explains a command, with examples.",
        f"weights/ and data/ are in {folders.find_home()}; {folders.HOME_VARIABLE} names another folder.",
        "runs/, reports/ and segmented/ are written to the current folder.",
    )
    return 0 if name else 2
