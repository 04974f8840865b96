"""The table of sub-commands, and the console command that runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module

from reproduction import __version__
from reproduction.commands import start
from reproduction.commands.terminal import fail, say
from reproduction.fcn import folders

#: What each sub-command does, by what the user types. Its module has ``main``, and the module's docstring is the help.
#: A module is imported when its sub-command runs, because most need torch.
COMMANDS = {
    "reproduce": "score the nets of a data set and compare them with the paper",
    "infer": "segment images: label map, overlay and legend",
    "evaluate": "score a net on a data set",
    "train": "train a net by its published recipe, on published data or your own images",
    "convert": "list the weights of a file, and convert them to another format",
    "export": "write a net as ONNX or as a program of torch.export, and check it",
    "info": "describe prototxts and caffemodels, and whether they run here",
    "fetch": "download published weights and data sets",
    "check-data": "check your own images and labels before a training",
    "page": "write the page of a training or of scores again",
    "verify": "check without a data set whether weights are those of a published net",
    "caffe": "make `import caffe` import this project, in every program of an environment",
    "compare": "train nets at an equal budget on drawn images, and compare them on a page",
    "tables": "compute the paper's other tables",
    "experiments": "run the paper's experiments, such as nets without skips or with masked images",
}
#: Earlier names, which still work but are not listed: the sub-command, and the arguments that precede the user's.
EARLIER = {
    "export-onnx": ("export", "--format", "onnx"),
    "export-program": ("export", "--format", "program"),
}
HELP, VERSION = ("-h", "--help"), "--version"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command and exit with its exit code, see ``start.run``; without one, print the list and exit with 2.

    Args:
        arguments: The name of a sub-command and its arguments; None for those of the process.
    """
    start.begin()
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    command, *first = EARLIER.get(name, (name,))
    if command in COMMANDS:
        from reproduction.commands import parsers  # here, since the list of commands needs no names of nets

        parsers.make_parser(command).parse_args([*first, *rest])  # help and wrong usage end here, without torch
        module = import_module(f"reproduction.commands.{command.replace('-', '_')}")
        start.run(partial(module.main, [*first, *rest]))
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
        *(f"  {command:{width}}  {summary}" for command, summary in COMMANDS.items()),
        "",
        f"`{program} COMMAND --help` explains a command, with examples.",
        f"weights/ and data/ are in {folders.find_home()}; {folders.HOME_VARIABLE} names another folder.",
        "runs/, reports/ and segmented/ are written to the current folder.",
    )
    return 0 if name else 2
