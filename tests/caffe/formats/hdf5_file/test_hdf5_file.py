"""The HDF5 reader returns the same values as the HDF5 library, and checks all that a file states."""

import random
import re
import struct
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from reproduction.caffe.formats import hdf5
from reproduction.caffe.formats.hdf5_file.messages import HDF5Dataset
from reproduction.caffe.formats.hdf5_file.values import read_values
from reproduction.caffe.training import snapshot
from tests.caffe.formats.test_caffemodel import said

NEVER_RETURNS = Path(__file__).parent / "hostile/never_returns.h5"
VERSIONS = ("earliest", "v108", "latest")
TYPES = ("f4", "f8", "f2", ">f4", ">f8", "i1", "u1", "i4", ">i4", "u2", "i8", "u8")


def values(path, name):
    file = hdf5.HDF5Reader(path).file
    found = file.member(file.root, name)
    assert isinstance(found, HDF5Dataset)
    return read_values(file, found, found.dtype)


def drawn(file, rng):
    """Write a data set of any type, shape and layout; return its name."""
    name = rng.choice(("a", "b/c", "d/e/f")) + str(len(file) + rng.randrange(100))
    dtype, shape = rng.choice(TYPES), tuple(rng.randrange(1, 9) for _ in range(rng.randrange(5)))
    extras: dict[str, object] = {"fillvalue": 7} if rng.random() < 0.3 else {}
    if shape and rng.random() < 0.7:
        extras["chunks"] = tuple(rng.randrange(1, size + 1) for size in shape)
        extras |= {"compression": "gzip"} if rng.random() < 0.5 else {}
        extras |= {"shuffle": True} if rng.random() < 0.5 else {}
        extras |= {"fletcher32": True} if rng.random() < 0.3 else {}
    made = file.require_dataset(name, shape, dtype, **extras)
    content = np.random.default_rng(rng.randrange(10**6)).integers(0, 100, shape).astype(dtype)
    if shape and rng.random() < 0.2:
        made[: shape[0] // 2] = content[: shape[0] // 2]
    else:
        made[...] = content
    return name


@pytest.mark.parametrize("version", VERSIONS)
def test_values_are_those_of_the_hdf5_library(version, tmp_path):
    rng, path = random.Random(version), tmp_path / "a.h5"
    for _ in range(25):
        with h5py.File(path, "w", libver=version) as file:
            want = {}
            for _ in range(rng.choice((1, 3, 12))):
                try:
                    name = drawn(file, rng)
                except TypeError:  # the name is taken
                    continue
                want[name] = file[name][...]
        for name, array in want.items():
            got = values(path, name)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            assert np.array_equal(got, array), name


@pytest.mark.parametrize("version", VERSIONS)
def test_large_groups_and_many_chunks_are_read(version, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
        group = file.create_group("data")
        for i in range(1500):
            group.create_group(f"layer_{i}_{'x' * (i % 60)}")
        group["layer_7_xxxxxxx"]["0"] = np.arange(3, dtype=np.float32)
        rows = np.arange(6000).reshape(3000, 2)
        file.create_dataset("rows", data=rows, chunks=(1, 2))
        file.create_dataset("packed", data=rows, chunks=(1, 1), compression="gzip")
    reader = hdf5.HDF5Reader(tmp_path / "a.h5")
    names = [name for name, _ in reader.members(reader.member("data"))]
    assert names == sorted(f"layer_{i}_{'x' * (i % 60)}" for i in range(1500))
    assert np.array_equal(values(tmp_path / "a.h5", "rows"), rows)
    assert np.array_equal(values(tmp_path / "a.h5", "packed"), rows)
    assert values(tmp_path / "a.h5", "data/layer_7_xxxxxxx/0").tolist() == [0, 1, 2]


def test_chunks_that_grow_are_read_of_all_versions_but_the_newest(tmp_path):
    rows = np.arange(24.0).reshape(8, 3)
    for version in VERSIONS:
        with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
            file.create_dataset("two", data=rows, maxshape=(None, None), chunks=(3, 2))
            file.create_dataset("one", data=rows, maxshape=(None, 3), chunks=(3, 2))
        assert np.array_equal(values(tmp_path / "a.h5", "two"), rows)
        if version == "latest":
            assert said(values, tmp_path / "a.h5", "one") == (
                f"{tmp_path}/a.h5: the HDF5 file has /one in chunks with an extensible index, which is not supported. "
                "Copy it by `h5repack -f NONE -l CONTI OLD NEW`, or write it again with the default settings."
            )
        else:
            assert np.array_equal(values(tmp_path / "a.h5", "one"), rows)


def test_a_file_on_which_the_hdf5_library_never_returns_is_one_line():
    assert said(hdf5.load, NEVER_RETURNS).startswith(f"{NEVER_RETURNS}: ")


# ---- files that state more than they hold


def state(path, version="earliest", **members):
    """Write a solver's state, with some members of another kind: a function of the file and the name."""
    with h5py.File(path, "w", libver=version) as file:
        for name, value in {"iter": np.int32([3]), "current_step": np.int32([0]), "learned_net": b"no"}.items():
            if name in members:
                members.pop(name)(file, name)
            else:
                file[name] = value
        group = file.create_group("history")
        for name, make in members.items():
            make(group, name)
    return path


def chunked(shape, dtype="u1"):
    return lambda file, name: file.create_dataset(name, shape, dtype, chunks=True, compression="gzip")


def of(value):
    return lambda file, name: file.__setitem__(name, value)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"learned_net": chunked((3 << 30,))}, "/learned_net: this is not a string; got uint8."),
        ({"learned_net": lambda file, name: file.create_dataset(name, (), "S2147483646")}, "not stored in one piece"),
        (
            {"learned_net": of(np.bytes_(b"x" * 70_000))},
            "/learned_net: this is not a string; want one of at most 65536 bytes.",
        ),
        ({"learned_net": of("x" * 70_000)}, "/learned_net: this is not a string; want one of at most 65536 bytes."),
        ({"learned_net": of("of any length")}, ": the model 'of any length' of this state is not there."),
        ({"learned_net": of("")}, ": the model '' of this state is not there."),
        ({"learned_net": lambda file, name: file.create_group(name)}, "this is not a string; got a group"),
        ({"iter": chunked((10**9,), "i4")}, "/iter: this is not stored in one piece"),
        ({"iter": of(np.float32([np.nan]))}, "/iter: this is not an iteration; got nan, want one integer."),
        ({"iter": of(np.zeros(0, np.int32))}, "/iter: this is not an iteration; got 0 values, want one integer."),
        ({"iter": of(np.int64([2**40]))}, "/iter: this is not an iteration; got 1099511627776, want one integer."),
        ({"x": of(np.ones(3))}, "/history/x: the name of a parameter must be its number."),
        ({"9" * 5000: of(np.ones(3))}, "the HDF5 file cannot be read: group "),
        ({"9" * 900: of(np.ones(3))}, "the name of a parameter must be its number."),
        (
            {"0": lambda group, name: group.create_group(name)},
            "/history/0: this is not a dataset of numbers; got a group.",
        ),
    ],
)
def test_a_state_that_lies_is_one_line_and_takes_no_memory(members, text, tmp_path):
    path = state(tmp_path / "s_iter_3.solverstate.h5", **members)
    tracemalloc.start()
    assert text in said(snapshot.load, path, [])
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_an_iteration_is_exact(tmp_path):
    path = state(tmp_path / "s_iter_3.solverstate.h5", iter=of(np.int32([2**24 + 1])))
    assert said(snapshot.load, path, []).startswith(f"{path}: the model 'no' of this state is not there.")
    reader = hdf5.HDF5Reader(path)
    assert reader.integer(reader.member("iter")) == 2**24 + 1


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\udcff", "a\nb"])
def test_a_model_of_an_impossible_name_is_one_line(name, tmp_path):
    value = np.array(name.encode("utf-8", "surrogateescape"))
    path = state(tmp_path / "s_iter_3.solverstate.h5", learned_net=of(value))
    assert "of this state is not there" in said(snapshot.load, path, [])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda file: file.create_dataset("x", (2**30,), "f4"), "the file declares 4294967296 bytes of weights"),
        (lambda file: file.create_dataset("x", (2**30,), "f4", chunks=(2**20,)), "the file declares 4294967296 bytes"),
        (
            lambda file: file.create_dataset("x", data=np.zeros(2**25, "u1"), chunks=(2**20,), compression="gzip"),
            "the file declares 134217728 bytes",  # as floats
        ),
        (lambda file: file.create_dataset("x", (2**40, 0), "f4"), "/x has the shape (1099511627776, 0)"),
        (
            lambda file: file.create_dataset("x", data=np.zeros(9), chunks=(3,), compression="lzf"),
            "passed filter 32000",
        ),
        (lambda file: file.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)]), "in another file or"),
    ],
)
def test_rows_that_are_not_there_take_no_memory(make, text, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    tracemalloc.start()
    file = hdf5.HDF5Reader(tmp_path / "a.h5").file
    assert text in said(read_values, file, file.member(file.root, "x"), np.float32)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_rows_that_were_never_written_take_the_memory_of_their_values(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("x", (2**19, 3), "f4", chunks=(1, 1))
    tracemalloc.start()
    assert not values(tmp_path / "a.h5", "x").any()
    assert tracemalloc.get_traced_memory()[1] < 2 * 2**19 * 3 * 4
    tracemalloc.stop()


def test_blocks_that_are_parts_of_themselves_are_one_line(tmp_path):
    """Loops in the tree of a group, in a header that goes on, and in a tree of chunks."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("data")
        for i in range(200):
            group.create_group(f"layer{i}")
        file.create_dataset("x", data=np.zeros((200, 1)), chunks=(1, 1))
    data = (tmp_path / "a.h5").read_bytes()
    trees = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"TREE" and data[at + 5]]
    assert len(trees) == 2
    for at in trees:
        size = 8 if data[at + 4] == 0 else 32
        loop = data[: at + 24 + size] + struct.pack("<Q", at) + data[at + 32 + size :]
        (tmp_path / "loop.h5").write_bytes(loop)
        name = "x" if data[at + 4] else "data/0"
        assert re.search(
            f"byte {at} is (part of itself|does not belong to its tree)", said(values, tmp_path / "loop.h5", name)
        )
