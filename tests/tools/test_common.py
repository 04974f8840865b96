"""The shared behaviour of the tools: start, exit codes and help."""

import ast
import importlib
import io
import os
import re
import runpy
import subprocess
import sys

import pytest

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import DataError
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("common")


@pytest.fixture
def bars(common):
    return importlib.import_module("common.bars")


def python(*args, **env):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, env=os.environ | env)


def test_an_environment_that_is_not_set_up_is_one_line():
    done = python("-S", "-E", str(ROOT / "tools/infer.py"), "photo.jpg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: this environment is not set up; got no tqdm. Run `make setup`, then `. .venv/bin/activate`.\n"
    )


def test_a_warning_is_one_line_on_standard_error():
    code = f"""import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import common
from reproduction.caffe.errors import NetError, warn
common.run(lambda: warn(NetError("it has no effect", layer="a", line=3, remedy="Remove it.")))"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "warning: layer 'a', line 3: it has no effect. Remove it.\n"


def offers_a_device(path):
    return "add_device(parser" in path.read_text()


def test_a_device_is_offered_in_one_way():
    assert len([path for path in TOOLS if offers_a_device(path)]) >= 7
    for path in TOOLS:
        assert '"--device"' not in path.read_text(), "options.add_device says what was not tested"


@pytest.mark.skipif(tested_devices.RECORD.is_file(), reason="CUDA was tested")
@pytest.mark.parametrize("path", [path for path in TOOLS if offers_a_device(path)], ids=lambda path: path.stem)
def test_the_help_says_that_cuda_is_untested(path):
    assert "cuda (untested on CUDA)" in " ".join(run_tool(path.stem, "--help").stdout.split())


@pytest.mark.skipif(tested_devices.RECORD.is_file(), reason="CUDA was tested")
def test_who_chooses_cuda_is_told_that_it_is_untested():
    done = python(str(ROOT / "tools/infer.py"), "--net", "mini-fcn8s", "--device", "cuda", str(ROOT / "README.md"))
    assert "\nwarning: untested on CUDA: no run on device 'cuda' is recorded. " in done.stderr
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "(DEVICE=cuda is untested on CUDA)" in done.stdout
    assert " are untested on CUDA" in (ROOT / "README.md").read_text()


def test_ctrl_c_is_quiet_while_modules_are_loaded():
    code = f"""import os, signal, sys
sys.argv[0] = {str(ROOT / "tools/infer.py")!r}
sys.path.insert(0, {str(ROOT / "tools")!r})
import common
os.kill(os.getpid(), signal.SIGINT)
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def end(common, capsys, main):
    with pytest.raises(SystemExit) as ended:
        common.run(main)
    return ended.value.code, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


def test_each_way_to_end_has_its_exit_code(common, capsys):
    assert end(common, capsys, lambda: None) == (0, "")
    assert end(common, capsys, lambda: 3) == (3, "")
    assert end(common, capsys, raising(DataError("it is wrong", path="a"))) == (1, "error: a: it is wrong.\n")
    assert end(common, capsys, raising(PermissionError(13, "Permission denied", "x"))) == (
        1, "error: x: permission denied.\n",
    )  # fmt: skip
    assert end(common, capsys, raising(KeyboardInterrupt())) == (130, "error: stopped.\n")
    with pytest.raises(ZeroDivisionError):
        common.run(raising(ZeroDivisionError()))


def test_colour_is_for_terminals_alone(common, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for no_colour, want in ((None, "\033[31merror:\033[0m a.\n"), ("1", "error: a.\n")):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_colour:
            monkeypatch.setenv("NO_COLOR", no_colour)
        with pytest.raises(SystemExit):
            common.run(raising(DataError("a")))
        assert screen.getvalue() == want


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_every_help_says_what_the_tool_does_by_examples_that_it_understands(path, common, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path))["main"]()
    said = capsys.readouterr().out
    assert ended.value.code == 0
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc.splitlines()[0].endswith("."), "it begins with one sentence"
    assert os.access(path, os.X_OK), "its examples can be typed"
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    assert doc in said
    options = set(re.findall(r"^ +(?:(?:-\w)[^-]*, )?(--?[a-z][a-z-]*)", said, re.MULTILINE)) | set(
        re.findall(r"^ +(-\w)\b", said, re.MULTILINE)
    )
    examples = re.findall(rf"^ *tools/{path.name} *(.*)$", doc, re.MULTILINE)
    assert examples
    for line in examples:
        example = re.split(r" {2,}", line)[0]  # what comes after is a remark
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", f" {example}")) <= options, line


def test_a_log_file_has_lines_of_progress_where_a_terminal_is_drawn_over(bars, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with bars.bar("drawing", 4, "picture") as shown:
        shown.update()
        assert log.getvalue() == "", "what is done soon is not shown"
        shown.start_t -= 60
        shown.last_print_t -= 60
        shown.update()
        shown.update()
    assert log.getvalue().count("\n") == 1, "one line in half a minute"
    assert re.fullmatch(r"drawing:  50%\|#+ +\| 2/4 \[01:00<01:00, .*/picture\]\n", log.getvalue())
    with bars.bar("drawing", 4, quiet=True) as shown:
        shown.start_t = shown.last_print_t = -60
        shown.update()
    assert log.getvalue().count("\n") == 1


def test_whatever_is_said_is_one_line_each(common, capsys):
    common.say("a\x1b[31m", "b\nc", "\u202egpj", "\udcff", "ö", 7)
    common.note("x\r\ny")
    common.fail("z\x07", code=2)
    out, err = capsys.readouterr()
    assert out == "a\\x1b[31m\nb\\nc\n\\u202egpj\n\\udcff\nö\n7\n"
    assert err == "x\\r\\ny\nerror: z\\x07\n"
