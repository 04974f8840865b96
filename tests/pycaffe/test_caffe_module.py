"""caffe._caffe: its names, its vectors, and the layers of Faster R-CNN's Caffe."""

import numpy as np
import pytest

from reproduction import pycaffe as caffe
from reproduction.pycaffe import _caffe
from tests.helpers.pycaffe_nets import INPUT, IP, LABEL, LOSS, layer, net, python, write
from tests.helpers.pycaffe_programs import run_program

#: BOOST_PYTHON_MODULE of BVLC/caffe@9b89154 python/caffe/_caffe.cpp, and Phase of Faster R-CNN's.
NAMES = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "NCCL",
    "NesterovSolver",
    "Net",
    "NetVec",
    "Phase",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "SolverParameter",
    "StringVec",
    "Timer",
    "__version__",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]


def test_it_has_caffes_names():
    assert set(NAMES) == {name for name in vars(_caffe) if name[0] != "_"} | {"__version__"}
    assert not hasattr(caffe, "BlobVec")  # it is in _caffe alone
    for name in ("_blob_loss_weights", "_bottom_ids", "_top_ids", "_blobs", "_blob_names", "_layer_names",
                 "_inputs", "_outputs", "_set_input_arrays", "_forward", "_backward", "_batch"):  # fmt: skip
        assert hasattr(_caffe.Net, name)


def test_what_a_net_and_a_solver_show_is_of_these_types(tmp_path):
    write(tmp_path, INPUT + LABEL + IP + LOSS, "net.prototxt")
    text = f'net: "{tmp_path}/net.prototxt" test_iter: 1 test_interval: 9 base_lr: 0.1 lr_policy: "fixed"'
    solver = caffe.get_solver(write(tmp_path, text, "solver.prototxt"))
    made = solver.net
    shown = {
        "BlobVec": [made.params["ip"], made.layers[2].blobs, made._blobs, made._blobs[1:]],
        "LayerVec": [made.layers],
        "NetVec": [solver.test_nets],
        "StringVec": [made._blob_names, made._layer_names, caffe.layer_type_list()],
        "IntVec": [made.blobs["x"].shape, made._inputs, made._outputs, made._top_ids(0), made._bottom_ids(2)],
        "DtypeVec": [made._blob_loss_weights],
        "Blob": [made.blobs["x"], made.params["ip"][0]],
        "Net": [made, solver.test_nets[0]],
        "Layer": [made.layers[0]],
    }
    for name, values in shown.items():
        assert all(type(value) is getattr(_caffe, name) for value in values), name
    assert isinstance(solver, _caffe.Solver)
    assert isinstance(solver.param, _caffe.SolverParameter)
    with pytest.raises(RuntimeError, match=r"the class Solver has no update rule. Use get_solver\(\)."):
        _caffe.Solver(str(tmp_path / "solver.prototxt"))


def test_a_vector_is_a_vector_of_boost_python():
    vector = _caffe.IntVec()
    vector.append(3)
    vector.extend((4, np.int64(5)))
    assert (len(vector), vector[0], vector[-1], 4 in vector, 9 in vector) == (3, 3, 5, True, False)
    assert type(vector[1:]) is _caffe.IntVec
    assert (list(vector[1:]), list(vector[9:]), vector == [3, 4, 5], tuple(vector)) == ([4, 5], [], True, (3, 4, 5))
    vector[0], vector[1:] = 7, [8]
    assert list(vector) == [7, 8]
    vector[1:1] = 9
    del vector[0], vector[1:]
    assert list(vector) == [9]
    assert list(reversed(vector)) == [9]
    for lost in ("insert", "pop", "index", "count", "remove", "sort", "reverse"):
        assert not hasattr(vector, lost)
    for error, text, call in (
        (IndexError, "Index out of range", lambda: vector[1]),
        (IndexError, "slice step size not supported.", lambda: vector[::2]),
        (TypeError, "Invalid index type", lambda: vector["a"]),  # type: ignore[call-overload] # the mistake
        (TypeError, "Invalid assignment", lambda: vector.__setitem__(0, "a")),
        (TypeError, "Attempting to append an invalid type", lambda: vector.append(1.5)),
        (TypeError, "Incompatible Data Type", lambda: vector.extend("ab")),
    ):
        with pytest.raises(error, match=text):
            call()
    assert not issubclass(_caffe.IntVec, (list, tuple))
    assert {(9,): 1}[vector] == 1


def test_vectors_take_items_of_their_kind():
    blob = _caffe.BlobVec()
    blob.add_blob(2, 3)
    assert list(blob[0].shape) == [2, 3]
    assert blob[0] in blob
    for kind, item in (("BlobVec", 1), ("RawBlobVec", "a"), ("StringVec", 1), ("DtypeVec", "a"), ("BoolVec", "a")):
        with pytest.raises(TypeError, match="Attempting to append an invalid type"):
            getattr(_caffe, kind)().append(item)


def test_the_shape_of_a_blob_is_a_copy_that_numpy_takes():
    blob = _caffe.Blob(2, 3)
    shape = blob.shape
    shape[0] = 9
    assert list(blob.shape) == [2, 3]
    rand = np.random.rand(*blob.shape)  # noqa: NPY002 - as scripts call it
    made = np.zeros(blob.shape)  # type: ignore[call-overload] # NumPy takes more than it declares
    reshaped = blob.data.reshape(blob.shape)  # type: ignore[call-overload] # as above
    assert made.shape == rand.shape == reshaped.shape


LAYERS = """
import caffe

class New(caffe.Layer):
    def setup(self, bottom, top):
        self.seen = [type(bottom), type(top), type(self.blobs)]
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.text = '%s %d' % (self.phase, self.phase)
    def backward(self, top, propagate_down, bottom):
        self.seen.append(type(propagate_down))

class Old(New):
    def setup(self, bottom, top):
        New.setup(self, bottom, top)
        self.stride = self.param_str_

if __name__ == '__main__':
    for kind in ('New', 'Old'):
        open('n.prototxt', 'w').write('force_backward: true layer { name: "x" type: "Input" top: "x" '
            'input_param { shape { dim: 2 } } } layer { name: "y" type: "Python" bottom: "x" top: "y" '
            'python_param { module: "layers" layer: "%s" param_str: "16" } }' % kind)
        for phase in (caffe.TRAIN, caffe.TEST):
            net = caffe.Net('n.prototxt', phase)
            net.forward()
            user = net.layers[1]
            print(user.text, user.phase == phase, type(user.phase), user.param_str_, user.param_str, repr(user.phase))
    net.backward()
    print(user.seen)
    for value in (net, net.blobs['x'], net.layers[0], net.params, caffe.SGDSolver, net.blobs['x'].shape):
        print(type(value))
    print(caffe._caffe.BlobVec is type(user.blobs), isinstance(user, caffe._caffe.Layer))
"""


def test_layers_for_faster_rcnn_find_param_str__and_a_phase_by_name(tmp_path):
    (tmp_path / "layers.py").write_text(LAYERS)
    code, out, err = run_program(tmp_path, "layers.py")
    assert (code, err) == (0, "")
    vectors = ", ".join(f"<class 'caffe._caffe.{name}'>" for name in ("RawBlobVec", "RawBlobVec", "BlobVec", "BoolVec"))
    assert out.splitlines() == [
        "0 0 True <class 'int'> 16 16 0",
        "1 1 True <class 'int'> 16 16 1",
        "TRAIN 0 True <class 'caffe._caffe.Phase'> 16 16 caffe._caffe.Phase.TRAIN",
        "TEST 1 True <class 'caffe._caffe.Phase'> 16 16 caffe._caffe.Phase.TEST",
        f"[{vectors}]",
        "<class 'caffe._caffe.Net'>",
        "<class 'caffe._caffe.Blob'>",
        "<class 'caffe._caffe.Layer'>",
        "<class 'collections.OrderedDict'>",
        "<class 'type'>",
        "<class 'caffe._caffe.IntVec'>",
        "True True",
    ]


def test_a_python_layers_vectors_hold_the_nets_blobs(tmp_path):
    made = net(tmp_path, INPUT + python("times", "Times", param_str="3") + layer("z", "TanH", "y", "z"))
    bottom, top = made.layers[1].seen
    assert (type(bottom), type(top)) == (_caffe.RawBlobVec, _caffe.RawBlobVec)
    assert bottom[0] is made.blobs["x"]
    assert top[0] is made.blobs["y"]
