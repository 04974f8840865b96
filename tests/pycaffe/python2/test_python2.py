"""Detection and translation of Python 2 sources; test_run compares them with Python 2.7.18."""

import importlib
import sys
import types

import numpy as np
import pytest

from reproduction.pycaffe.python2 import import_hook, python2_builtins, streams, translate, version_detection
from reproduction.pycaffe.run import run_script


@pytest.mark.parametrize(
    ("source", "python"),
    [
        ("print 1", 2),
        ("except_ = 1\ntry:\n    pass\nexcept E, e:\n    pass", 2),
        ("for k in xrange(3): pass", 2),
        ("d.iteritems()", 2),
        ("import cPickle", 2),
        ("from StringIO import StringIO", 2),
        ("x = unicode('a')", 2),
        ("execfile('a.py')", 2),
        ("class A(StandardError): pass", 2),
        ("import string\nx = string.join([])", 2),
        ("import string as s\nx = s.letters", 2),
        ("from string import maketrans", 2),
        ("from itertools import izip, count", 2),
        ("import sys\nx = sys.maxint", 2),
        ("import types\nx = types.StringType", 2),
        ("import urllib\nurllib.urlretrieve(x)", 2),
        ("import sets", 2),
        ("if a:\n        b\n\tc", 2),
        ("import string\nx = string.ascii_letters", None),
        ("import urllib.request\nurllib.request.urlopen(x)", None),
        ("try:\n    from itertools import izip\nexcept ImportError:\n    izip = zip", None),
        ("xrange = range\nxrange(3)", None),
        ("def f(long): return long", None),
        ("try:\n    import cPickle as pickle\nexcept ImportError:\n    import pickle", None),
        ("import sys\nif sys.version_info[0] == 2: x = unicode('a')", None),
        ("import six\nsix.iteritems({})", None),
        ("print('a')", None),
        ("x = f'{1}'", 3),
        ("def f(a: int): pass", 3),
        ("def f(*, a): pass", 3),
        ("class A(metaclass=B): pass", 3),
        ("raise A from B", 3),
        ("x = f'{unicode}'", 3),
        ("x: int = 1", 3),
        ("a @ b", 3),
    ],
)
def test_a_source_tells_its_python(source, python):
    assert version_detection.detect_version(source) == python


def test_a_program_is_python_2_when_anything_that_it_imports_is(tmp_path):
    (tmp_path / "main.py").write_text("import inner.deep, other\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__init__.py").write_text("")
    (tmp_path / "inner" / "deep.py").write_text("from . import last\n")
    (tmp_path / "inner" / "last.py").write_text("x = 1\n")
    assert version_detection.detect_program_version(tmp_path / "main.py", [tmp_path]) == 3
    (tmp_path / "inner" / "last.py").write_text("print 1\n")
    assert version_detection.detect_program_version(tmp_path / "main.py", [tmp_path]) == 2


def ran(source):
    """Run a Python 2 source and return its names."""
    module = types.ModuleType("old")
    module.__dict__["__builtins__"] = python2_builtins.BUILTINS
    exec(translate.compile_python2(source, "old.py"), module.__dict__)
    return vars(module)


def test_division_is_the_future_one_where_the_source_says_so():
    assert ran("x = 7 / 2")["x"] == 3
    assert ran("from __future__ import division\nx = 7 / 2")["x"] == 3.5


def test_arrays_of_integers_are_divided_to_integers():
    found = ran("import numpy as np\na = np.arange(4)\nb = a / 2\nc = a / 2.\nd = a.copy()\nd[1:] /= 3")
    assert found["b"].tolist() == [0, 0, 1, 1]
    assert found["c"].tolist() == [0, 0.5, 1, 1.5]
    assert found["d"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("x = sorted([(1, 'b'), (2, 'a')], lambda a, b: cmp(b, a), lambda pair: pair[1])", [(1, "b"), (2, "a")]),
        ("x = filter(lambda v: v > 1, (1, 2)), filter(None, 'ab'), filter(None, [0, 1])", ((2,), "ab", [1])),
        ("x = apply(max, (1, 2)), apply(dict, (), {'a': 1})", (2, {"a": 1})),
        ("x = round(float('inf')), round(0.5), round(-2.5)", (float("inf"), 1.0, -3.0)),
        ("import random\nx = len(random.sample({1: 2, 3: 4}, 2)), random.randrange(1 << 60) < 1 << 60", (2, True)),
        ("import numpy as np\nx = np.zeros(np.array([2., 1.9])).shape", (2, 1)),
        ("import numpy as np\na = np.zeros(1)\na.itemset(3)\nx = a.tolist()", [3.0]),
        ("x = []\nexec compile('x.append(7 / 2)', 'f', 'exec')\ny = compile('1', 'f', 'single')", [3]),
    ],
)
def test_builtins_and_arrays_mean_what_they_meant(source, want):
    assert ran(source)["x"] == want


def test_a_ragged_array_of_numbers_is_still_an_error():
    with pytest.raises(ValueError, match="inhomogeneous"):
        ran("import numpy as np\nnp.array([[1], [1, 2]], dtype=int)")


def test_division_in_place_evaluates_its_target_once_and_keeps_the_object():
    found = ran(
        "import numpy as np\n"
        "calls = []\n"
        "def index():\n    calls.append(1)\n    return 0\n"
        "x = [np.array([4.]), 9]\nkept = x[0]\n"
        "x[index()] /= 2\n"
        "x[1] /= 2\n"
        "y = np.ones((2, 2)) * 8\n"
        "y[:, ::2] /= 4"
    )
    assert found["calls"] == [1]
    assert found["x"][0] is found["kept"]
    assert found["x"][1] == 4
    assert found["y"].tolist() == [[2, 8], [2, 8]]


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("if 1:\n\tx = 1\n        y = 2", 3),
        ("x = y = 1\nif 0:\n    x = 7\n    if x:\n\ty = 7", 2),
        ("if 1:\n    if 1:\n\tx = 1\n    y = 2", 3),
        ('def f():\n\treturn len("""a\n\tb""")\nx, y = f(), len(\'\t\')', 5),
        ("x = (1,\n\t2)[0]\nif x:\n\ty = 2 # \t", 3),
        ("class A:\n\n\t# \t\n  \n\tx = 1\n        y = 2\nx, y = A.x, A.y", 3),
    ],
)
def test_a_tab_goes_to_the_next_multiple_of_8_and_stays_in_strings(source, want):
    found = ran(source)
    assert found["x"] + found["y"] == want


def test_a_string_buffer_returns_what_was_put_in():
    text, data = streams.StringIO("a\nb"), streams.StringIO(b"\x89PNG\r\n")
    lines: list[object] = [text.readline(), *text]
    assert (lines, text.getvalue(), text.len) == (["a\n", "b"], "a\nb", 3)
    assert (data.read(2), data.readlines(), data.getvalue()) == (b"\x89P", [b"NG\r\n"], b"\x89PNG\r\n")
    both = streams.StringIO()
    assert both.getvalue() == ""
    both.writelines(["é", b"\xff"])
    assert both.getvalue() == b"\xc3\xa9\xff"
    assert streams.StringIO(streams.as_text(b"\x89PNG")).read() == b"\x89PNG"


@pytest.mark.parametrize("mode", ["r", "rb", "U", "r+", "rb+"])
def test_files_take_text_and_bytes(tmp_path, mode):
    path = tmp_path / "f"
    for way in ("w", "wb"):
        with streams.open_file(path, way) as file:
            file.write("a\r\n")
            file.write(b"\xff\n")
            assert file.mode == way
    with streams.open_file(path, mode) as file:
        lines = file.readlines()
    want = [b"a\n" if mode == "U" else b"a\r\n", b"\xff\n"]
    assert lines == (want if "b" in mode else [line.decode("utf-8", "surrogateescape") for line in want])
    with streams.open_file(path, "a") as file:
        print("end", file=file)
    with streams.open_file(path, "ab") as file:
        file.writelines(["text ", b"bytes"])
    with streams.open_file(path, "rb+") as file:
        file.write("A")
    assert path.read_bytes() == b"A\r\n\xff\nend\ntext bytes"


def test_what_a_text_executes_is_python_2_too():
    found = ran(
        "exec 'x = 7 / 2'\ny = eval(' 7 / 2')\nz = {}\nexec compile('x = `7 / 2`', 'f', 'exec') in z\nz = z['x']"
    )
    assert (found["x"], found["y"], found["z"]) == (3, 3, "3")
    assert ran("from __future__ import division\nx = eval('7 / 2')")["x"] == 3.5


def test_an_exception_has_a_message():
    source = "x = []\nclass A: message = 3\nfor e in (ValueError('no'), KeyError(1, 2), A()):\n    x.append(e.message)"
    assert ran(source)["x"] == ["no", "", 3]


def test_methods_that_were_renamed_are_found():
    assert ran("import numpy as np\nx = np.zeros(2, np.uint8).tostring()")["x"] == b"\0\0"


def test_lines_are_those_of_the_source_where_the_translation_has_more():
    source = "def f((a, b), (c, d)):\n    print a\n    return 1 / 0\n\n\nf((1, 2), (3, 4))\n"
    with pytest.raises(ZeroDivisionError) as error:
        ran(source)
    lines = [entry.lineno for entry in error.traceback if str(entry.path).endswith("old.py")]
    assert [line + 1 for line in lines] == [6, 3]


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("print 1\nx = = 2\n", 2, "invalid syntax"),
        ("print 1\nif x:\ny = 1\n", 3, "invalid syntax"),
        ("x = (1\n", 1, "'(' was never closed"),
    ],
)
def test_what_is_no_python_is_a_syntax_error_at_its_line(source, line, text):
    with pytest.raises(SyntaxError) as error:
        translate.compile_python2(source, "old.py")
    assert (error.value.filename, error.value.lineno, error.value.msg) == ("old.py", line, text)


def test_packages_find_their_own_modules_first(tmp_path, monkeypatch):
    (tmp_path / "oldpackage").mkdir()
    (tmp_path / "oldpackage" / "__init__.py").write_text("import nearby\nfrom nearby import x\nprint 1 / 2\n")
    (tmp_path / "oldpackage" / "nearby.py").write_text("x = 5 / 2\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(import_hook.Loader, "python2", True)
    import_hook.install()
    package = importlib.import_module("oldpackage")
    assert (package.x, package.nearby.x) == (2, 2)
    assert sys.modules.pop("oldpackage.nearby") is package.nearby
    assert sys.modules.pop("oldpackage") is package
    assert not list(tmp_path.rglob("*.pyc"))


def test_only_the_programs_own_folders_are_translated(tmp_path):
    assert import_hook.is_program_file(str(tmp_path))
    assert not import_hook.is_program_file(np.__file__)
    assert not import_hook.is_program_file(types.__file__)
    assert not import_hook.is_program_file(run_script.__file__)


def test_a_package_that_is_missing_is_named_as_it_is_installed():
    finder = run_script._MissingPackageFinder()
    assert finder.find_spec("anything", None) is None
    with pytest.raises(ModuleNotFoundError) as error:
        finder.find_spec("skimage", None)
    assert error.value.name == "skimage"
    assert str(error.value) == (
        "No module named 'skimage', which the program needs and this project does not. "
        "Install it: pip install scikit-image."
    )
