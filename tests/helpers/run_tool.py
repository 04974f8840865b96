"""Run a command in this process, as a shell would, but without the seconds that a new process imports torch for."""

import contextlib
import io
import os
import runpy
import signal
import sys
import warnings
from subprocess import CompletedProcess
from unittest import mock

from reproduction.commands import program, start
from tests.helpers.paths import ROOT


def run_tool(name: str, *args: object) -> CompletedProcess[str]:
    """Run a sub-command of ``fcn``, or else ``tools/NAME.py``; return its exit code and what it wrote."""
    arguments = [*map(str, args)]
    command = ["fcn", name, *arguments] if name in program.COMMANDS else [str(ROOT / f"tools/{name}.py"), *arguments]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ),
        mock.patch.object(warnings, "formatwarning"),  # which run() replaces
        mock.patch.object(warnings, "showwarning", _show),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _interrupts_restored(),
    ):
        warnings.simplefilter("default")
        try:
            if name in program.COMMANDS:
                program.main(command[1:])
            start.run(runpy.run_path(command[0])["main"])
        except SystemExit as end:
            return CompletedProcess(command, end.code, out.getvalue(), err.getvalue())
    raise AssertionError("a tool ends by SystemExit")


def _show(message, category, filename, lineno, file=None, line=None):
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


@contextlib.contextmanager
def _interrupts_restored():
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
