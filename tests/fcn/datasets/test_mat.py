"""The reader of MAT files, compared with scipy's writer and reader, and on broken files."""

import io
import os
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets import mat
from tests.helpers import dataset_trees

KINDS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool"]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
    compress=st.booleans(),
    name=st.sampled_from(["S", "LabelMap", "a_name_of_more_than_eight"]),
)
def test_matrices_are_read_as_scipy_reads_them(tmp_path_factory, kind, height, width, seed, compress, name):
    values = np.random.default_rng(seed).integers(0, 120, (height, width)).astype(kind)
    path = tmp_path_factory.mktemp("mat") / "x.mat"
    others = {"first": np.arange(3.0), "text": "labels", "cell": np.array([np.eye(2), "b"], object)}
    scipy.io.savemat(path, {**others, name: values, "zlast": {"a": 1}}, do_compression=compress)
    want = scipy.io.loadmat(path)[name]
    got = mat.read(path, name)
    np.testing.assert_array_equal(got, want)
    assert got.dtype.kind == want.dtype.kind or kind == "bool"


@pytest.mark.parametrize("compress", [False, True])
def test_a_field_of_a_structure_is_read_past_cells_and_sparse_matrices(tmp_path, compress):
    dataset_trees.sbd(tmp_path, {"train": ["a"]})
    whole = scipy.io.loadmat(tmp_path / "cls/a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"GTcls": whole["GTcls"]}, do_compression=compress)
    want = whole["GTcls"][0]["Segmentation"][0]
    np.testing.assert_array_equal(mat.read(tmp_path / "b.mat", "GTcls", "Segmentation"), want)


def test_the_other_byte_order_is_read(tmp_path):
    body = b"".join(
        [
            struct.pack(">II", 6, 8) + struct.pack(">II", 10, 0),
            struct.pack(">II", 5, 8) + struct.pack(">ii", 2, 3),
            struct.pack(">HH", 1, 1) + b"S\0\0\0",
            struct.pack(">II", 3, 12) + struct.pack(">6h", 1, 2, 3, 4, 5, -6) + b"\0" * 4,
        ]
    )
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    np.testing.assert_array_equal(mat.read(path, "S"), [[1, 3, 5], [2, 4, -6]])
    np.testing.assert_array_equal(mat.read(path, "S"), scipy.io.loadmat(path)["S"])


def saved(compress=True, **variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compress)
    return file.getvalue()


def header():
    return saved(S=1)[:128]


WANT = "want a MATLAB 5 file of at most 32 MB. MATLAB writes one by save -v7."
AGAIN = "Extract or fetch it again."
BAD = [
    (
        b"",
        f"not a label map; got an empty file, {WANT}",
    ),
    (
        b"<html>404</html>",
        f"not a label map; got a file that begins with b'<html>404</html>', {WANT}",
    ),
    (
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 384 + b"\x89HDF",
        f"not a label map; got a MATLAB 7.3 file, {WANT}",
    ),
    (saved(T=np.eye(2)), "the MAT file has no variable 'S'."),
    (saved(S="text"), "the MAT file's label map is not a matrix of real numbers; got shape (1, 4)."),
    (saved(S=np.eye(2) * 1j), "the MAT file's label map is not a matrix of real numbers; got shape (2, 2)."),
    (saved(S=np.zeros((0, 3))), "the MAT file's label map is not a matrix of real numbers; got shape (0, 3)."),
    (saved(S=np.zeros((2, 2, 2))), "the MAT file's label map is not a matrix of real numbers; got shape (2, 2, 2)."),
    (saved(S={"a": 1}), "the MAT file's label map is not a matrix of real numbers; got shape (1, 1)."),
    (
        saved(S=np.eye(50))[:-20],
        f"the MAT file is broken (the element at byte 128 reaches past its end). {AGAIN}",
    ),
    (saved(S=np.eye(2)) + b"\0" * 4, None),
    (
        header() + struct.pack("<II", 15, 8) + b"notzlib!",
        f"the MAT file is broken (Error -3 while decompressing data: incorrect header check). {AGAIN}",
    ),
    (
        header() + struct.pack("<II", 14, 16) + struct.pack("<IIII", 6, 8, 9, 0),
        f"the MAT file is broken (it ends within the tag at byte 16). {AGAIN}",
    ),
    (
        saved(False, S=np.eye(3, dtype=np.uint8)).replace(struct.pack("<ii", 3, 3), struct.pack("<ii", 30000, 30000)),
        f"the MAT file is broken (9 bytes do not make 30000 x 30000 of uint8). {AGAIN}",
    ),
]


@pytest.mark.parametrize(("data", "text"), BAD)
def test_bad_files_are_one_line(tmp_path, data, text):
    path = tmp_path / "x.mat"
    path.write_bytes(data)
    if text is None:
        np.testing.assert_array_equal(mat.read(path, "S"), np.eye(2))
        return
    with pytest.raises(DataError) as error:
        mat.read(path, "S")
    assert str(error.value) == f"{path}: {text}"


def test_structures_without_the_field_are_one_line(tmp_path):
    path = tmp_path / "x.mat"
    for variables, text in [
        ({"GTcls": {"Boundaries": 1}}, "the MAT file's 'GTcls' has no field 'Segmentation'."),
        ({"GTcls": np.eye(2)}, "the MAT file's 'GTcls' has no field 'Segmentation'; want a structure."),
    ]:
        scipy.io.savemat(path, variables)
        with pytest.raises(DataError) as error:
            mat.read(path, "GTcls", "Segmentation")
        assert str(error.value) == f"{path}: {text}"


def test_missing_files_and_folders_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, text in [
        (tmp_path / "x.mat", "the label map cannot be read (no such file or directory)."),
        (tmp_path, "this is not a file; got a folder. Name a file on a disk."),
        (tmp_path / "pipe", "this is not a file; got a pipe. Name a file on a disk."),
    ]:
        with pytest.raises(DataError) as error:
            mat.read(path, "S")
        assert str(error.value) == f"{path}: {text}"


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(mat, "_LIMIT_BYTES", 1 << 22)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    path = tmp_path / "bomb.mat"
    path.write_bytes(header() + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        mat.read(path, "S")
    assert tracemalloc.get_traced_memory()[1] < 3 * (1 << 22)
    tracemalloc.stop()
    assert str(error.value) == f"{path}: the MAT file unpacks to too much for a label map; want at most 4194304 bytes."


def test_many_variables_that_unpack_to_much_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mat, "_LIMIT_BYTES", 1 << 20)
    name = struct.pack("<IIIIIIIIII", 6, 8, 6, 0, 5, 8, 1, 1, 1, 0) + bytes(100_000)
    element = zlib.compress(struct.pack("<II", 14, len(name)) + name)
    (tmp_path / "many.mat").write_bytes(header() + (struct.pack("<II", 15, len(element)) + element) * 20)
    with pytest.raises(DataError, match="unpacks to too much for a label map; want at most 1048576 bytes"):
        mat.read(tmp_path / "many.mat", "S")


def mutants(count, seed):
    """Give files with a few bytes, sizes or lengths changed, and what to look for in them."""
    draw = random.Random(seed)
    seeds = []
    for compress in (False, True):
        seeds.append((saved(compress, S=np.eye(9, dtype=np.uint8), names=np.array(["a", "b"], object)), ("S",)))
        seeds.append((saved(compress, GTcls={"B": np.eye(3), "Segmentation": np.eye(9)}), ("GTcls", "Segmentation")))
    for _ in range(count):
        data, names = draw.choice(seeds)
        data = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(100, len(data))
            change = draw.randrange(5)
            if change == 0:
                data[at] = draw.randrange(256)
            elif change == 1:
                del data[max(at, 120) :]
            elif change == 2:
                data[at : at + 4] = struct.pack("<I", draw.choice((0, 1, 5, 14, 15, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF)))
            elif change == 3:
                data[at:at] = draw.randbytes(draw.randrange(1, 12))
            else:
                del data[at : at + draw.randrange(1, 12)]
        yield bytes(data), names


@pytest.mark.parametrize("count", [pytest.param(2_000), pytest.param(40_000, marks=pytest.mark.slow)])
def test_mutants_are_read_or_refused(tmp_path, count):
    path = tmp_path / "x.mat"
    outcomes = {"read": 0, "refused": 0}
    for data, names in mutants(count, seed=count):
        path.write_bytes(data)
        try:
            assert mat.read(path, *names).ndim == 2
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count // 50
