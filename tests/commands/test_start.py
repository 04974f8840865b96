"""What all commands share: the list, start, exit codes, help, and that the scripts in tools/ are the same."""

import ast
import io
import os
import re
import subprocess
import sys

import pytest

import reproduction
from reproduction.caffe import tested_devices
from reproduction.caffe.errors import DataError
from reproduction.commands import bars, parsers, program, start, terminal
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

COMMANDS = {name: ROOT / f"reproduction/commands/{name.replace('-', '_')}.py" for name in program.COMMANDS}
SCRIPTS = [path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "common"]
OWN = [path for path in SCRIPTS if "run_command" not in path.read_text()]  # those that only a checkout needs
HELPS = list(COMMANDS.items()) + [(path.stem, path) for path in OWN]


def python(*args, **env):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, env=os.environ | env)


def test_an_environment_that_is_not_set_up_is_one_line():
    done = python("-S", "-E", str(ROOT / "tools/infer.py"), "photo.jpg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: this environment is not set up; got no tqdm. Run `make setup`, then `. .venv/bin/activate`.\n"
    )


def test_a_warning_is_one_line_on_standard_error():
    code = """from reproduction.caffe.errors import NetError, warn
from reproduction.commands import start
start.run(lambda: warn(NetError("it has no effect", layer="a", line=3, remedy="Remove it.")))"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "warning: layer 'a', line 3: it has no effect. Remove it.\n"


WITH_DEVICE = [name for name in COMMANDS if "--device" in parsers.make_parser(name).format_usage()]
WITH_DEVICE += [path.stem for path in OWN if '"--device"' in path.read_text()]


def test_a_device_is_offered_in_one_way():
    assert len(WITH_DEVICE) >= 7
    for path in (ROOT / "reproduction/commands/parsers.py", *OWN):  # options.shared_options says what was not tested
        for line in path.read_text().splitlines():
            if '"--device"' in line:
                assert "add_shared(parser, " in line or '**shared_options()["--device"]' in line


@pytest.mark.skipif(tested_devices.RECORD.is_file(), reason="CUDA was tested")
@pytest.mark.parametrize("name", WITH_DEVICE)
def test_the_help_says_that_cuda_is_untested(name):
    assert "cuda (untested on CUDA)" in " ".join(run_tool(name, "--help").stdout.split())


@pytest.mark.skipif(tested_devices.RECORD.is_file(), reason="CUDA was tested")
def test_who_chooses_cuda_is_told_that_it_is_untested():
    done = python("-m", "reproduction", "infer", "--net", "mini-fcn8s", "--device", "cuda", str(ROOT / "README.md"))
    assert "warning: untested on CUDA: no run on device 'cuda' is recorded. " in done.stderr
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "(DEVICE=cuda is untested on CUDA)" in done.stdout
    assert " are untested on CUDA" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "code",
    [
        "from reproduction.commands import program\nprogram.import_module = stop\nprogram.main(['infer', 'a.jpg'])",
        "import pathlib\nsys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))\nimport common\nstop()",
    ],
    ids=["fcn", "tools"],
)
def test_ctrl_c_is_quiet_while_modules_are_loaded(code):
    stop = "import os, signal, sys\nstop = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    stop += f"sys.argv[0] = {str(ROOT / 'tools/bench.py')!r}\n"
    done = python("-c", stop + code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def end(capsys, main):
    with pytest.raises(SystemExit) as ended:
        start.run(main)
    return ended.value.code, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


def test_each_way_to_end_has_its_exit_code(capsys):
    assert end(capsys, lambda: None) == (0, "")
    assert end(capsys, lambda: 3) == (3, "")
    assert end(capsys, raising(DataError("it is wrong", path="a"))) == (1, "error: a: it is wrong.\n")
    assert end(capsys, raising(PermissionError(13, "Permission denied", "x"))) == (
        1, "error: x: permission denied.\n",
    )  # fmt: skip
    assert end(capsys, raising(KeyboardInterrupt())) == (130, "error: stopped.\n")
    with pytest.raises(ZeroDivisionError):
        start.run(raising(ZeroDivisionError()))


def test_colour_is_for_terminals_alone(capsys, monkeypatch):
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
            start.run(raising(DataError("a")))
        assert screen.getvalue() == want


@pytest.mark.parametrize(("name", "path"), HELPS, ids=[name for name, _ in HELPS])
def test_every_help_says_what_the_command_does_by_examples_that_it_understands(name, path):
    done = run_tool(name, "--help")
    assert done.returncode == 0
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc.splitlines()[0].endswith("."), "it begins with one sentence"
    assert doc in done.stdout
    options = set(re.findall(r"^ +(?:(?:-\w)[^-]*, )?(--?[a-z][a-z-]*)", done.stdout, re.MULTILINE)) | set(
        re.findall(r"^ +(-\w)\b", done.stdout, re.MULTILINE)
    )
    program = f"fcn {name}" if name in COMMANDS else f"tools/{path.name}"
    assert done.stdout.startswith(f"usage: {program.removeprefix('tools/')} ")
    examples = re.findall(rf"^ *{program} *(.*)$", doc, re.MULTILINE)
    assert examples
    for line in examples:
        example = re.split(r" {2,}", line)[0]  # what comes after is a remark
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", f" {example}")) <= options, line


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_can_be_typed(path):
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path not in OWN], ids=lambda path: path.stem)
def test_a_script_of_a_checkout_is_the_same_as_its_command(path):
    (name,) = re.findall(r'^    run_command\("(.*)"\)$', path.read_text(), re.MULTILINE)
    assert name in program.COMMANDS | program.EARLIER
    assert ast.get_docstring(ast.parse(path.read_text())) == f"The same as ``fcn {name}``."


def test_each_command_that_was_a_script_first_still_is_one():
    scripts = {path.stem for path in SCRIPTS if path not in OWN}
    assert scripts == {
        "check_data", "convert_caffemodel", "evaluate", "export_onnx", "export_program", "fetch", "infer", "page",
        "reproduce", "tables", "train", "verify",
    }  # fmt: skip


def test_the_list_names_every_command_and_needs_no_torch():
    code = "import sys; from reproduction.commands import program; program.start.sys.exit = lambda code: None\n"
    done = python("-c", code + "program.main(['--help']); print('torch' in sys.modules, 'PIL' in sys.modules)")
    assert (done.returncode, done.stderr) == (0, "")
    for name, summary in program.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", done.stdout, re.MULTILINE), name
    assert done.stdout.endswith("False False\n")


def test_help_and_wrong_usage_need_no_torch():
    code = "import sys; from reproduction.commands import parsers, program\n"
    code += "for name in program.COMMANDS: assert parsers.make_parser(name).format_help()\n"
    code += "try: program.main(['train', '--no-such-option'])\nfinally: print('torch' in sys.modules)"
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--version"], 0, f"fcn {reproduction.__version__}\n", ""),
        (["infr"], 2, "", "error: there is no command 'infr'. Did you mean `fcn infer`?\n"),
        (["x\x1b"], 2, "", "error: there is no command 'x\\x1b'. `fcn --help` lists all.\n"),
        (["--versoin"], 2, "", "error: there is no option '--versoin'. `fcn --help` lists all.\n"),
    ],
)
def test_other_words_have_an_answer(arguments, code, out, err, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert (ended.value.code, *capsys.readouterr()) == (code, out, err)


def test_without_a_command_it_prints_the_list_and_the_exit_code_is_that_of_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        program.main([])
    assert (ended.value.code, capsys.readouterr().out.splitlines()[0]) == (2, "usage: fcn COMMAND [ARGUMENTS]")


def test_the_module_is_the_same_program():
    done = python("-m", "reproduction", "fetsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no command 'fetsh'. Did you mean `python -m reproduction fetch`?\n"


def test_a_log_file_has_lines_of_progress_where_a_terminal_is_drawn_over(monkeypatch):
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


def test_whatever_is_said_is_one_line_each(capsys):
    terminal.say("a\x1b[31m", "b\nc", "\u202egpj", "\udcff", "ö", 7)
    terminal.note("x\r\ny")
    terminal.fail("z\x07", code=2)
    out, err = capsys.readouterr()
    assert out == "a\\x1b[31m\nb\\nc\n\\u202egpj\n\\udcff\nö\n7\n"
    assert err == "x\\r\\ny\nerror: z\\x07\n"
