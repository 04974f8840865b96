"""Programs in the style of the published ones, also in Python 2, run by ``python -m reproduction.pycaffe``."""

import ast
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net import net
from tests.helpers.paths import ROOT
from tests.helpers.pycaffe_programs import run_program

SCRIPTS = ROOT / "tests/pycaffe/scripts"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with the scripts and five pictures, where net.py and solve.py have run; and what they printed."""
    folder = tmp_path_factory.mktemp("toy")
    for script in SCRIPTS.iterdir():
        shutil.copy(script, folder)
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (12 + i, 14, 3), dtype=np.uint8)).save(folder / "data" / f"{i}.png")
    (folder / "data" / "train.txt").write_text("0\n1\n2\n")
    (folder / "data" / "val.txt").write_text("3\n4\n")
    written, solved = run_program(folder, "net.py"), run_program(folder, "solve.py", 2)
    return folder, written, solved


def test_a_warning_is_one_line(tmp_path):
    net = 'layer { name: "i" type: "Input" top: "x" transform_param { scale: 2 } input_param { shape { dim: 1 } } }'
    (tmp_path / "n.prototxt").write_text(net)
    (tmp_path / "s.py").write_text("import caffe\ncaffe.Net('n.prototxt', caffe.TEST)\n")
    text = "Input layers do not read 'transform_param', here and in Caffe. Remove it, or check the layer's type."
    assert run_program(tmp_path, "s.py") == (0, "", f"warning: layer 'i' (Input), line 1: {text}\n")


def test_a_net_is_written_its_integers_divided_as_by_python_2(toy):
    folder, (code, out, _), _ = toy
    assert (code, out) == (0, "wrote train\nwrote val\n")
    assert "num_output: 4\n" in (folder / "train.prototxt").read_text()
    assert "offset: 10\n" in (folder / "val.prototxt").read_text()


def test_it_is_trained_and_scored_in_the_order_that_python_2_drew(toy):
    _, _, (code, out, err) = toy
    assert code == 0, err
    draw = random.Random(1337).random
    order = [str(int(draw() * 3)) for _ in range(6)]
    pixels = 15 * 14 + 16 * 14
    assert out.splitlines() == [
        "interpolating upscore",
        f"Iteration 3 pixels {pixels} loss fell below 2: True",
        f"Iteration 6 pixels {pixels} loss fell below 2: True",
        f"draws {order}",
        "fixed True steps 3",
    ]


def test_inference_writes_the_labels_that_the_module_gives(toy):
    folder, _, _ = toy
    code, _, err = run_program(folder, "infer.py", 3)
    assert code == 0, err
    module = net.load(folder / "deploy.prototxt", folder / "toy.caffemodel")
    picture = np.array(Image.open(folder / "data" / "3.png"), np.float32)[:, :, ::-1].transpose(2, 0, 1) / 255
    with torch.no_grad():
        score = module({"data": torch.from_numpy(picture.copy())[None]})["score"]
    assert np.array_equal(np.array(Image.open(folder / "labels.png")), score[0].argmax(0).numpy())


def test_nothing_is_written_beside_the_sources(toy):
    folder, _, _ = toy
    assert not list(folder.rglob("*.pyc"))
    assert (folder / "surgery.py").read_bytes() == (SCRIPTS / "surgery.py").read_bytes()


def test_python_2_means_what_it_meant():
    code, out, err = run_program(SCRIPTS, "meaning.py", "a", "b")
    assert (code, err) == (0, "")
    assert out == (SCRIPTS / "meaning.txt").read_text()


def test_python_2s_library_and_numpy_are_what_they_were(tmp_path):
    shutil.copy(SCRIPTS / "library.py", tmp_path)
    code, out, err = run_program(tmp_path, "library.py")
    assert (code, err) == (0, "")
    assert out == (SCRIPTS / "library.txt").read_text()


ABOUT = """
import sys, os, caffe, google.protobuf
from caffe.proto import caffe_pb2
import caffe.proto.caffe_pb2 as again, caffe.io, caffe.draw
from caffe import layers as L
from caffe.pycaffe import Net
from caffe._caffe import Layer
import numpy as np
assert __name__ == '__main__' and sys.modules['__main__'].L is L
assert again is caffe_pb2 is caffe.proto.caffe_pb2 is caffe.io.caffe_pb2
assert Net is caffe.Net and Layer is caffe.Layer
assert (np.float, np.int, np.object) == (float, int, object)
assert np.fromstring(b'ab', dtype=np.uint8).tolist() == [97, 98]
print(sys.argv, sys.path[0] == os.path.realpath('inner'), __file__, isinstance(1 / 2, float), sep='|')
try:
    caffe.Net('none.prototxt', caffe.TEST)
except RuntimeError as error:
    print(error)
try:
    import lmdb_is_not_this, lmdb
except ImportError as error:
    print(error)
sys.modules['lmdb'] = None
sys.exit(7)
"""


def test_a_python_3_script_runs_as_python_runs_it(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "about.py").write_text(ABOUT)
    code, out, err = run_program(tmp_path, "inner/about.py", "-x", "--help")
    assert (code, err) == (7, "")
    assert out.splitlines() == [
        "['inner/about.py', '-x', '--help']|True|inner/about.py|True",
        "none.prototxt: the file cannot be opened: no such file or directory.",
        "No module named 'lmdb_is_not_this'",
    ]


ERRORS = """
import caffe
import sys, traceback

class Bad(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(2)
    def forward(self, bottom, top):
        raise KeyError('no such thing')

def divide(a, (b, c)):
    return a / b / c

def tried(function, *args):
    try:
        function(*args)
    except Exception:
        sys.excepthook(*sys.exc_info())

def wants_a_package():
    import setproctitle_is_not_this
    import skimage

if __name__ == '__main__':
    tried(divide, 1, (0, 2))
    tried(caffe.Net, 'none.prototxt', caffe.TEST)
    layer = 'layer { name: "b" type: "Python" top: "b" python_param { module: "bad" layer: "Bad" } }'
    print >>open('bad.prototxt', 'w'), layer
    sys.stderr.flush()
    caffe.Net('bad.prototxt', caffe.TEST).forward()
"""


def test_tracebacks_show_the_programs_own_lines(tmp_path):
    (tmp_path / "bad.py").write_text(ERRORS)
    code, _, err = run_program(tmp_path, "bad.py")
    assert code == 1
    assert (
        err
        == f"""Traceback (most recent call last):
  File "bad.py", line 18, in tried
    function(*args)
  File "bad.py", line 14, in divide
    return a / b / c
ZeroDivisionError: integer division or modulo by zero
Traceback (most recent call last):
  File "bad.py", line 18, in tried
    function(*args)
reproduction.pycaffe.net.errors.CaffeError: none.prototxt: the file cannot be opened: no such file or directory.
Traceback (most recent call last):
  File "{tmp_path}/bad.py", line 11, in forward
    raise KeyError('no such thing')
KeyError: 'no such thing'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "bad.py", line 32, in <module>
    caffe.Net('bad.prototxt', caffe.TEST).forward()
KeyError: layer 'b' (Python), line 1: forward() of Bad raised KeyError: 'no such thing'.
"""
    )


PREPARED = """
import sys
sys.modules["google"] = None
from reproduction.pycaffe.run import run_script
run_script.prepare()
run_script.prepare()
from google.protobuf import text_format
import google.protobuf.message as message
import caffe.proto.caffe_pb2 as pb
net = text_format.Parse('name: "n"', pb.NetParameter())
assert isinstance(net, message.Message)
try:
    net.ParseFromString(b"no")
except message.DecodeError as error:
    print(error)
try:
    text_format.Merge("", object())
except ValueError as error:
    print(error)
import collections, inspect, time, unittest, PIL.Image
import numpy as np
assert (np.NaN is np.nan) and np.asscalar(np.ones(1)) == 1.0 and np.float_ is np.float64
assert np.fromstring("1 2", sep=" ").tolist() == [1, 2]
assert np.bool is np.bool_  # what is there stays
assert collections.Iterable and inspect.getargspec and time.clock() > 0
assert PIL.Image.ANTIALIAS == PIL.Image.LANCZOS
unittest.TestCase().assertEquals(1, 1)
"""


def test_a_process_is_prepared_without_protobuf_and_given_lost_names():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREPARED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "<bytes>, byte 0: wire type 6 of field 13 is not possible. The file is damaged, or of another kind.",
        (
            "this is not one of Caffe's messages, and Google's protobuf is not installed. "
            "Install it: pip install protobuf."
        ),
    ]


def test_a_script_that_is_missing_is_said_in_one_line(tmp_path):
    assert run_program(tmp_path, "none.py") == (
        2,
        "",
        "error: none.py: the program cannot be read: no such file or directory.\n",
    )


def test_a_source_of_neither_python_is_a_syntax_error(tmp_path):
    (tmp_path / "bad.py").write_text("print 'a'\ndef f(:\n    pass\n")
    code, _, err = run_program(tmp_path, "bad.py")
    assert code == 1
    assert err.splitlines() == ['  File "bad.py", line 2', "    def f(:", "          ^", "SyntaxError: invalid syntax"]


def test_the_scripts_are_python_2():
    for script in ("net.py", "surgery.py", "score.py", "meaning.py", "library.py"):
        with pytest.raises(SyntaxError):
            ast.parse((SCRIPTS / script).read_text())


DEPLOY = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "u" type: "Deconvolution" bottom: "c" top: "u" convolution_param {
  num_output: 4 kernel_size: 4 stride: 2 bias_term: false weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "score" type: "Crop" bottom: "u" bottom: "data" top: "score" crop_param { axis: 2 offset: 1 } }
"""
HELPER = """
from collections import namedtuple
Label = namedtuple('Label', 'id train')
labels = [Label(i, i if i < 4 else 255) for i in range(6)]
"""


@pytest.mark.parametrize("python", ["3", "2"])
def test_generated_pictures_are_judged_on_the_cpu_with_one_warning(python, tmp_path):
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    module = net.load(tmp_path / "deploy.prototxt")
    caffemodel.dump(module.to_proto(), tmp_path / "fcn.caffemodel")
    (tmp_path / "data" / "helpers").mkdir(parents=True)
    (tmp_path / "data" / "helpers" / "labels.py").write_text(HELPER)
    rng = np.random.default_rng(0)
    right = counted = 0
    for name in "ab":
        picture, label = rng.integers(0, 256, (12, 10, 3), np.uint8), rng.integers(0, 6, (10, 14), np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / f"{name}.png")
        Image.fromarray(label).save(tmp_path / "data" / f"{name}_label.png")
        resized = np.array(Image.fromarray(picture).resize((14, 10), Image.Resampling.BILINEAR), np.float32)
        values = (resized[:, :, ::-1] - np.array((72.5, 83.25, 73.5), np.float32)).transpose(2, 0, 1)
        with torch.no_grad():
            labels = module({"data": torch.from_numpy(values.copy())[None]})["score"][0].argmax(0).numpy()
        right += (labels == label)[label < 4].sum()
        counted += (label < 4).sum()
    shutil.copy(SCRIPTS / "evaluate.py", tmp_path)
    switch = ["-2"] if python == "2" else []
    asked = ["--data", "data", "--output", "out", "--model", "./"]
    code, out, err = run_program(tmp_path, *switch, "evaluate.py", *asked, CUDA_VISIBLE_DEVICES="")
    assert (code, out) == (0, ""), err
    assert err.count("RuntimeWarning") == 1
    assert "torch finds no CUDA device; nets compute on the CPU" in err
    assert (tmp_path / "out" / "results.txt").read_text() == f"accuracy: {right / counted:f}\n"
    with Image.open(tmp_path / "out" / "0.png") as image:
        assert image.size == (14, 10)
