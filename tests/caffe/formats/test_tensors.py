import collections
import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from reproduction.caffe.formats import tensors, torch_file, unpickle
from tests.caffe.formats.test_caffemodel import file_size_limit, said

DAMAGED = "The file is damaged: download or write it again."
ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv1.bias": np.array([0.1, 0.2]),
    "a.b/c d.2": np.array(3, np.float32),
    "none.weight": np.empty((0, 3), np.float32),
    "across.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "größe.weight": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
}
FORMATS = {
    ".safetensors": (tensors.write_safetensors, lambda path: tensors.read_safetensors(path)[0]),
    ".npz": (tensors.write_npz, tensors.read_npz),
    ".pt": (tensors.write_torch, torch_file.read),
}


def same(got, want) -> None:
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == want[name].dtype, name
        assert got[name].shape == want[name].shape, name
        assert got[name].tobytes() == want[name].tobytes(), name


@pytest.mark.parametrize("suffix", FORMATS)
def test_arrays_come_back_bit_by_bit_in_their_order(suffix, tmp_path):
    write, read = FORMATS[suffix]
    write(ARRAYS, tmp_path / "a")
    same(read(tmp_path / "a"), ARRAYS)


def test_the_formats_own_libraries_read_our_files(tmp_path):
    for suffix, (write, _) in FORMATS.items():
        write(ARRAYS, tmp_path / f"a{suffix}")
    same({name: safetensors.numpy.load_file(tmp_path / "a.safetensors")[name] for name in ARRAYS}, ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        same(dict(archive), ARRAYS)
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert type(state) is dict
    same({name: tensor.numpy() for name, tensor in state.items()}, ARRAYS)


def test_the_formats_own_files_are_read(tmp_path):
    plain = {name: np.ascontiguousarray(values).reshape(values.shape) for name, values in ARRAYS.items()}
    state = {name: torch.from_numpy(values.copy()) for name, values in plain.items()}
    safetensors.numpy.save_file(plain, tmp_path / "a.safetensors", {"format": "np"})
    arrays, metadata = tensors.read_safetensors(tmp_path / "a.safetensors")
    same({name: arrays[name] for name in plain}, plain)
    assert metadata == {"format": "np"}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **ARRAYS)
        same(tensors.read_npz(tmp_path / "a.npz"), ARRAYS)
    wrapped = {"epoch": 3, "model_state_dict": collections.OrderedDict(state)}
    for old in (False, True):
        for value in (state, wrapped):
            torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
            same(torch_file.read(tmp_path / "a.pt"), plain)


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_of_pytorch_fcn_gives_its_weights(old, tmp_path):
    plain = {name: np.ascontiguousarray(values).reshape(values.shape) for name, values in ARRAYS.items()}
    state = {name: torch.from_numpy(values.copy()) for name, values in plain.items()}
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=1e-10, momentum=0.99).state_dict()
    checkpoint = {"epoch": 3, "arch": "FCN8s", "optim_state_dict": optimiser, "model_state_dict": state}
    checkpoint["best_mean_iu"] = np.float64(0.5)  # as its trainer keeps it
    torch.save(checkpoint, tmp_path / "model_best.pth.tar", _use_new_zipfile_serialization=not old)
    same(torch_file.read(tmp_path / "model_best.pth.tar"), plain)


def test_shared_and_transposed_tensors_are_read(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a.weight": weight.T, "b.weight": weight, "c.weight": weight[1:]}, tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt")
    assert np.array_equal(found["a.weight"], found["b.weight"].T)
    assert np.array_equal(found["c.weight"], [[3, 4, 5]])


def test_the_same_arrays_are_the_same_file(tmp_path):
    for suffix, (write, _) in FORMATS.items():
        write(ARRAYS, tmp_path / f"a{suffix}")
        write(ARRAYS, tmp_path / f"b{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_safetensors_are_views_and_lie_aligned(tmp_path):
    tensors.write_safetensors(ARRAYS, tmp_path / "a.safetensors")
    for values in tensors.read_safetensors(tmp_path / "a.safetensors")[0].values():
        assert values.flags.aligned
        assert values.size == 0 or not values.flags.owndata


floats = npst.arrays(st.sampled_from([np.dtype("<f4"), np.dtype("<f8")]), npst.array_shapes(min_dims=0, max_side=3))


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), floats, max_size=3))
@settings(deadline=None, max_examples=50)
def test_any_arrays_come_back(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("any")
    for suffix, (write, read) in FORMATS.items():
        if suffix == ".npz" and any(name.endswith(".npy") for name in arrays):
            continue  # np.load would not tell such names apart
        write(arrays, folder / "a")
        same(read(folder / "a"), arrays)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["\udcff.weight", "a\0b.weight"])
def test_a_name_that_is_no_text_is_one_line(suffix, name, tmp_path):
    text = said(FORMATS[suffix][0], {name: np.zeros(1, np.float32)}, tmp_path / "a")
    assert text == f"{tmp_path}/a: a file of this kind cannot hold the name {name!r}."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(suffix, tmp_path):
    with file_size_limit(100_000):
        text = said(FORMATS[suffix][0], {"a.weight": np.zeros(100_000, np.float32)}, tmp_path / "a")
    assert text == f"{tmp_path}/a: cannot be written: file too large."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_absent_or_cut_off_file_is_one_line(suffix, tmp_path):
    write, read = FORMATS[suffix]
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        read(path)
    path.touch()
    assert said(read, path) == f"{path}: the file is empty. Download or write it again."
    write(ARRAYS, path)
    whole = path.read_bytes()
    for size in (1, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert said(read, path).startswith(f"{path}")


# ---- safetensors that lie


def header(**entries) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype="F32", shape=(2,), data_offsets=(0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(data_offsets)}


CUT_OFF = "The file was cut off: download or copy it again."
ENTRY = f"tensor 'a': the header's entry is damaged. {DAMAGED}"
NOT_FLOATS = "want F32 or F64. Convert it with .float() and save it again."
BAD_HEADERS = [
    (header(a=entry()) + bytes(4), f": tensor 'a' runs past the end of the file; 4 bytes are missing. {CUT_OFF}"),
    (
        header(a=entry(shape=[2**40], data_offsets=[0, 2**42])),
        f": tensor 'a' runs past the end of the file; {2**42} bytes are missing. {CUT_OFF}",
    ),
    (
        header(a=entry(dtype="BF16", data_offsets=[0, 4])) + bytes(4),
        f": tensor 'a': the tensor is of a type that Caffe does not have; got BF16, {NOT_FLOATS}",
    ),
    (
        header(a=entry(dtype=[])) + bytes(8),
        f": tensor 'a': the tensor is of a type that Caffe does not have; got [], {NOT_FLOATS}",
    ),
    (header(a=7), f": tensor 'a': the tensor is of a type that Caffe does not have; {NOT_FLOATS}"),
    (header(a=entry(shape=[3])) + bytes(8), f": tensor 'a': shape and size disagree; got [3] at [0, 8]. {DAMAGED}"),
    (header(a=entry(shape=[-1, -2])) + bytes(8), f": {ENTRY}"),
    (header(a=entry(shape=[True, 2])) + bytes(8), f": {ENTRY}"),
    (header(a=entry(data_offsets=[0, 8, 9])) + bytes(8), f": {ENTRY}"),
    (header(a=entry(shape=[1] * 33, data_offsets=[0, 4])) + bytes(4), f": {ENTRY}"),
    (header(a=entry(), b=entry()) + bytes(8), f", byte 130: tensors overlap or leave a gap. {DAMAGED}"),
    (header(__metadata__={"a": 1}), f", byte 8: the metadata is not a table of strings. {DAMAGED}"),
    (header(__metadata__=[]), f", byte 8: the metadata is not a table of strings. {DAMAGED}"),
    (
        struct.pack("<Q", 16) + b'{"a":{},"a":{}} ',
        f', byte 8: the header is not JSON: the name "a" occurs twice. {DAMAGED}',
    ),
    (struct.pack("<Q", 2**63) + b"{}", f": this is not a safetensors file. {DAMAGED}"),
]
CAFFE_ALONE_REFUSES = ("BF16", "[1, 1,")  # a type that is no blob's, and more axes than a blob has


@pytest.mark.parametrize(("data", "text"), BAD_HEADERS, ids=range(len(BAD_HEADERS)))
def test_a_safetensors_header_that_lies_is_one_line(data, text, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert said(tensors.read_safetensors, path) == f"{path}{text}"
    if not any(word.encode() in data for word in CAFFE_ALONE_REFUSES):
        with pytest.raises(safetensors.SafetensorError):
            safetensors.numpy.load_file(path)


def test_json_without_end_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**21 + 8) + b'{"a":[' + b"[]," * 700_000)
    assert said(tensors.read_safetensors, path) == (
        f"{path}, byte 8: the header is too large; got 2097160, want at most 2097152 bytes."
    )


def test_json_nested_too_deep_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000)
    assert said(tensors.read_safetensors, path).startswith(f"{path}, byte 8: the header is not JSON: ")


# ---- archives that lie


def archive(path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def npy(shape=(2,), dtype="<f4", data=bytes(8)) -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"a.npy": npy((2**40,))}, "array 'a': shape and size disagree; got (1099511627776,)."),
        ({"a.npy": npy((3,))}, "array 'a': shape and size disagree; got (3,)."),
        ({"a.npy": npy((-1, -2))}, "array 'a': shape and size disagree; got (-1, -2)."),
        ({"a.npy": npy(dtype="<i8", data=bytes(16))}, "array 'a' is not weights; got int64, want float32 or float64."),
        ({"a.npy": npy(dtype="|O")}, "array 'a' is not weights; got object, want float32 or float64."),
        ({"readme.txt": b"x"}, "'readme.txt' is not an array; want NAME.npy."),
        ({"a.npy": b"junk and more junk"}, "array 'a' cannot be read: the magic string is not correct;"),
        ({"a.npy": bytes(200_000_000)}, "the file declares 200000000 bytes of weights; got"),
    ],
)
def test_an_archive_that_lies_is_one_line(members, text, tmp_path):
    path = tmp_path / "a.npz"
    archive(path, **members)
    assert said(tensors.read_npz, path).startswith(f"{path}: {text}")


class Exploit:
    def __reduce__(self):
        return (print, ("this was run",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2], "this is not a state dict; got list, want a dict of tensors."),
        ({1: torch.zeros(1)}, "this is not a state dict; got dict, want a dict of tensors."),
        ({"a.weight": 3}, "entry 'a.weight' is not weights; got int, want a tensor of float32 or float64."),
        (
            {"a.weight": torch.zeros(1, dtype=torch.int64)},
            "entry 'a.weight' is not weights; got torch.int64, want a tensor of float32 or float64.",
        ),
        (
            {"a.weight": torch.zeros(1).expand(2**40)},
            "the file declares 4398046511104 bytes of weights; got",
        ),
        ({"a.weight": Exploit()}, "entry 'a.weight' is not weights; got __builtin__.print, want a tensor of"),
    ],
)
def test_a_torch_file_that_is_no_state_dict_is_one_line(value, text, tmp_path, capsys):
    path = tmp_path / "a.pt"
    torch.save(value, path)
    assert said(torch_file.read, path).startswith(f"{path}: {text}")
    assert capsys.readouterr().out == ""


def test_a_bare_pickle_is_not_run(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Exploit(), protocol=2))
    assert said(torch_file.read, tmp_path / "a.pt").startswith(f"{tmp_path}/a.pt: the PyTorch file cannot be read")
    assert capsys.readouterr().out == ""


# ---- pickles that lie: the machine that reads them runs nothing and takes little memory


def pickled(body: bytes, **storages: bytes) -> bytes:
    """Return a PyTorch file whose pickle is of protocol 2 and these instructions."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + body)
        for key, data in storages.items():
            file.writestr(f"a/data/{key}", data)
    return out.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(offset=0, shape=(2,), strides=(1,), count=2, kind=b"FloatStorage", key="0") -> bytes:
    """Return the instructions that make one tensor."""
    number = pickle.dumps  # of protocol 2, without its head and its stop
    parts = [number(value, 2)[2:-1] for value in (offset, shape, strides)]
    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu")
    storage += number(count, 2)[2:-1] + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"".join(parts) + b"\x89N" + b"tR"


def one(value: bytes) -> bytes:
    return b"}" + text("a.weight") + value + b"s."


SCALAR = b"cnumpy.core.multiarray\nscalar\n"
WANT = "want a tensor of float32 or float64."
BROKEN_PICKLES = [
    (one(SCALAR + b"cnumpy\ndtype\n" + text("O") + b"\x85R\x85R"), "is not weights; got numpy.core.multiarray.scalar"),
    (one(b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\1\x85R"), "is not weights; got builtins.bytearray"),
    (one(b"cos\nsystem\n" + text("true") + b"\x85R"), "is not weights; got os.system"),
    (one(tensor(offset=1)), "entry 'a.weight' reaches past the end of its storage"),
    (one(tensor(shape=(3,))), "entry 'a.weight' reaches past the end of its storage"),
    (one(tensor(strides=(2**40,))), "entry 'a.weight' reaches past the end of its storage"),
    (one(tensor(count=3, shape=(3,))), "entry 'a.weight' reaches past the end of its storage"),
    (one(tensor(strides=(-1,))), "entry 'a.weight' has an invalid shape"),
    (one(tensor(shape=(1,) * 40, strides=(1,) * 40)), "entry 'a.weight' has an invalid shape"),
    (one(tensor(shape=(2**30, 2**30), strides=(0, 0))), f"the file declares {2**62} bytes of weights"),
    (one(tensor(key="1")), "the storage of entry 'a.weight' is missing"),
    (one(tensor(count=True)), "it refers to something that is not a storage"),
    (one(tensor(kind=b"LongStorage")), "is not weights; got torch.int64"),
    (one(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "entry 'a.weight' is not a tensor"),
    (b"csome.module\nNet\n)\x81.", "this is not a state dict; got some.module.Net, want a dict of tensors. Save the"),
    (b"N0" * 600 + b"N.", "the pickle has more than 1000 instructions"),
    (b"(\x8b\0\0\1\0" + bytes(2**16) + b".", "the pickle has an integer of 65541 bytes"),
    (b"X\xff\xff\xff\xff.", "the pickle is damaged at byte"),
    (b"h\7.", "the pickle is damaged at byte"),
    (b"(0t.", "the pickle is damaged at byte"),
    (b"N(00t.", "the pickle is damaged at byte"),
    (b"\xfe", "the pickle is damaged at byte"),
    (b"", "the pickle is damaged at byte"),
    (b")" + b"\x85" * 900 + b"}\x86.", "this is not a state dict; got tuple"),
    (b"})" + b"\x85" * 900 + b"Ns.", "this is not a state dict; got dict"),
]


@pytest.mark.parametrize(("body", "text"), BROKEN_PICKLES, ids=range(len(BROKEN_PICKLES)))
def test_a_pickle_that_lies_is_one_line(body, text, tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "_MAX_STEPS", 1000)
    path = tmp_path / "a.pth"
    path.write_bytes(pickled(body, **{"0": bytes(8)}))
    assert text in said(torch_file.read, path)


def test_a_pickle_of_many_objects_takes_no_more_memory_than_its_size_allows(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(pickled(b"}" * 600_000 + b"."))
    tracemalloc.start()
    assert "the pickle creates more objects than its size allows" in said(torch_file.read, path)
    assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size + (64 << 20)
    tracemalloc.stop()
    path.write_bytes(pickled(one(b")" + b"\x85" * 200_000)))  # what is nested is neither hashed nor compared
    assert "is not weights; got tuple" in said(torch_file.read, path)


def test_what_a_checkpoint_has_beside_its_state_may_be_anything(tmp_path):
    import argparse

    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3, track_running_stats=False))
    checkpoint = {
        "hyper_parameters": argparse.Namespace(lr=1e-3, big=10**2000),
        "history": [np.arange(3), {1, 2}, frozenset({3}), (1, (2,)), b"raw", 1.5, True, None],
        "when": Exploit(),
        "state_dict": module.state_dict(),
    }
    for protocol in (2, 3, 4, 5):
        for new in (True, False):
            torch.save(checkpoint, tmp_path / "a.ckpt", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
            found = torch_file.read(tmp_path / "a.ckpt")
            same(found, {name: values.numpy() for name, values in module.state_dict().items()})


def test_parameters_and_tensors_with_attributes_are_read(tmp_path):
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    vars(weight)["note"] = "kept"
    torch.save({"a.weight": weight, "a.bias": torch.nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt")
    assert np.array_equal(found["a.weight"], weight.detach())
    assert not found["a.weight"].flags.owndata


def test_storages_of_the_other_byte_order_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + one(tensor()))
        file.writestr("a/byteorder", b"big")
        file.writestr("a/data/0", np.array([1, 2], ">f4").tobytes())
    same(torch_file.read(tmp_path / "a.pt"), {"a.weight": np.array([1, 2], np.float32)})


def test_an_archive_of_too_many_members_or_of_overlapping_ones_is_one_line(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, **{"a.npy": npy(), "b.npy": npy()})
    data = path.read_bytes()
    first, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    path.write_bytes(data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :])  # both at the first
    assert len(tensors.read_npz(path)) == 2
    entry = data[first:second]
    many = b"".join(entry.replace(b"a.npy", b"%05d" % i) for i in range(90_000))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, len(many), first, 0)
    path.write_bytes(data[:first] + many[: 51 * 40_000] + end[:12] + struct.pack("<2IH", 51 * 40_000, first, 0))
    assert said(tensors.read_npz, path) == (
        f"{path}: the zip archive cannot be read: its members overlap. It was cut off or is damaged."
    )
    path.write_bytes(data[:first] + many + end)
    assert said(tensors.read_npz, path) == (
        f"{path}: the zip archive cannot be read: its directory has 4590000 bytes, more than 4194304. "
        "It was cut off or is damaged."
    )
