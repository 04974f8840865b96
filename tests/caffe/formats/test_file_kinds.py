"""A file of the wrong kind is named by its kind in the error."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import PrototxtError, ReproductionError
from reproduction.caffe.formats import caffemodel, file_kinds, hdf5, prototxt, weights
from reproduction.caffe.schema import BlobProto, BlobShape, LayerParameter, NetParameter, SolverState, V1LayerParameter
from reproduction.caffe.training import snapshot
from tests.helpers import paths

GOLDEN = paths.GOLDEN / "snapshot"
STEM = "snapshot_iter_3"
BLOB = BlobProto(shape=BlobShape(dim=[2]), data=[1.0, 2.0])


def v1(path: Path) -> None:
    caffemodel.dump(NetParameter(layers=[V1LayerParameter(name="a", blobs=[BLOB])]), path)


def save_image(form: str, path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, form)


MAKE: dict[str | None, dict[str, Callable[[Path], object]]] = {
    file_kinds.WEIGHTS: {
        "model": lambda path: caffemodel.dump(
            NetParameter(name="n", layer=[LayerParameter(name="a", blobs=[BLOB])]), path
        ),
        "v1": v1,
        "h5": lambda path: hdf5.dump(NetParameter(layer=[LayerParameter(name="a", blobs=[BLOB])]), path),
    },
    file_kinds.STATE: {
        "state": lambda path: caffemodel.dump(SolverState(iter=7, learned_net="a.caffemodel", history=[BLOB]), path),
        "first state": lambda path: caffemodel.dump(SolverState(iter=0), path),
        "h5": lambda path: path.write_bytes((GOLDEN / f"{STEM}.solverstate.h5").read_bytes()),
    },
    file_kinds.MEAN: {
        "mean": lambda path: caffemodel.dump(BLOB, path),
        "old mean": lambda path: caffemodel.dump(BlobProto(num=1, channels=2, height=1, width=1, data=[1, 2]), path),
    },
    file_kinds.NET: {
        "net": lambda path: path.write_text('# a net\nname: "a"\nlayer { name: "x" type: "TanH" }\n'),
        "v1": lambda path: path.write_text('layers {\n  name: "x"\n  type: TANH\n}\n'),
        "input": lambda path: path.write_text('input: "data"\ninput_dim: 1\n'),
    },
    file_kinds.SOLVER: {
        "solver": lambda path: path.write_text('net: "a.prototxt"\nbase_lr: 1\n'),
        "inside": lambda path: path.write_text("net_param {\n  layer { }\n}\n"),
        "rate": lambda path: path.write_text('# x\n\n  lr_policy : "fixed"'),
    },
    "a NumPy array": {"npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00")},
    "an image": {form: partial(save_image, form) for form in ("png", "jpeg", "bmp", "gif", "tiff")},
    None: {
        "bytes": lambda path: path.write_bytes(bytes(range(255, 0, -1))),
        "labels": lambda path: path.write_text("cat\ndog\n"),
        "broken h5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        "empty": lambda path: path.write_bytes(b""),
    },
}
CASES = [pytest.param(kind, make, id=f"{kind} {name}") for kind, made in MAKE.items() for name, make in made.items()]


@pytest.mark.parametrize(("kind", "make"), CASES)
@pytest.mark.parametrize("name", ["x", "x.caffemodel", "x.solverstate"])
def test_a_file_is_told_by_its_content_whatever_it_is_called(kind, make, name, tmp_path):
    path = tmp_path / name
    make(path)
    assert file_kinds.recognize(path) == kind


@pytest.mark.parametrize(("kind", "make"), CASES)
def test_each_reader_names_what_it_was_given(kind, make, tmp_path):
    path = tmp_path / "x"
    make(path)
    found = {}
    for reader in (
        weights.read,
        lambda path: snapshot.load(path, [torch.zeros(2)]),
        prototxt.load_net,
        prototxt.load_solver,
    ):
        try:
            reader(path)
            found[reader] = ""
        except ReproductionError as error:
            found[reader] = str(error)
    for wanted, text in zip((file_kinds.WEIGHTS, file_kinds.STATE), found.values(), strict=False):
        named = f"{path}: this is {kind}, not {'weights' if wanted == file_kinds.WEIGHTS else wanted}."
        assert text.startswith(named) == (kind not in (None, wanted)), text
    for text in list(found.values())[2:]:
        if kind not in (None, file_kinds.NET, file_kinds.SOLVER):
            assert text.startswith(f"{path}: this is not a prototxt; got {kind}.")
            assert ("their net is in a prototxt" in text) == (kind == file_kinds.WEIGHTS)


def test_a_cut_file_keeps_its_own_error(tmp_path):
    for name, reader in (("caffemodel", weights.read), ("solverstate", lambda path: snapshot.load(path, []))):
        path = tmp_path / f"x.{name}"
        path.write_bytes((GOLDEN / f"{STEM}.{name}").read_bytes()[:-9])
        with pytest.raises(ReproductionError, match=rf"^{re.escape(str(path))}, byte \d+"):
            reader(path)


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_a_model_given_as_a_state_names_the_state_beside_it(ending, tmp_path):
    for name in ("caffemodel", "solverstate"):
        (tmp_path / f"x.{name}{ending}").write_bytes((GOLDEN / f"{STEM}.{name}{ending}").read_bytes())
    path = tmp_path / f"x.caffemodel{ending}"
    text = (
        f"{path}: this is a caffemodel, not a solver's state. The state is 'x.solverstate{ending}', in the same folder."
    )
    with pytest.raises(ReproductionError, match=re.escape(text)):
        snapshot.load(path, [])
    (tmp_path / f"x.solverstate{ending}").unlink()
    with pytest.raises(ReproductionError, match=r"A state is in the \.solverstate of the same name; weights without"):
        snapshot.load(path, [])


def test_a_state_without_an_iteration_is_none(tmp_path):
    path = tmp_path / "x"
    caffemodel.dump(SolverState(current_step=1), path)
    with pytest.raises(ReproductionError, match="this is not a solver state"):
        snapshot.load(path, [])


def test_a_prototxt_of_the_other_kind_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_text('net: "a.prototxt"\n')
    with pytest.raises(PrototxtError, match=r"this is a solver, not a net\. Its net is 'a\.prototxt'\."):
        prototxt.load_net(path)
