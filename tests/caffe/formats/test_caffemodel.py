import resource
import struct
import time
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import CaffemodelError, ReproductionError
from reproduction.caffe.formats import caffemodel, files, wire_reader
from reproduction.caffe.schema import (
    BlobProto,
    BlobShape,
    ClipParameter,
    ConvolutionParameter,
    Datum,
    LayerParameter,
    Message,
    NetParameter,
    NetState,
    Phase,
    SolverParameter,
    SolverState,
    V1LayerParameter,
)
from reproduction.caffe.schema.scalar_types import DOUBLE, FLOAT
from tests.helpers.paths import GOLDEN
from tests.helpers.protobuf_judge import MESSAGES, judge
from tests.helpers.random_messages import messages

CAFFES_OWN = [
    ("legacy/v0.caffemodel", NetParameter),
    ("legacy/v1_tiny_vgg.caffemodel", NetParameter),
    ("snapshot/snapshot_iter_3.caffemodel", NetParameter),
    ("snapshot/snapshot_iter_3.solverstate", SolverState),
]


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- values of the fields, one wire literal each

LITERALS = [
    ("0a 02 68 69", LayerParameter(name="hi")),
    ("0a 00", LayerParameter(name="")),
    ("50 01", LayerParameter(phase=Phase.TEST)),
    ("10 01", NetState(level=1)),
    ("10 ff ff ff ff ff ff ff ff ff 01", NetState(level=-1)),
    ("10 80 80 80 80 f8 ff ff ff ff 01", NetState(level=-(2**31))),
    ("a0 01 ff ff ff ff ff ff ff ff ff 01", SolverParameter(random_seed=-1)),
    ("08 ff ff ff ff 0f", ConvolutionParameter(num_output=2**32 - 1)),
    ("10 00", ConvolutionParameter(bias_term=False)),
    ("18 02 18 03", ConvolutionParameter(pad=[2, 3])),
    ("2d 00 00 80 3f 2d 00 00 00 40", LayerParameter(loss_weight=[1, 2])),
    ("2a 08 00 00 80 3f 00 00 00 40", BlobProto(data=[1, 2])),
    ("42 08 00 00 00 00 00 00 f0 3f", BlobProto(double_data=[1])),
    ("3a 04 0a 02 05 06", BlobProto(shape=BlobShape(dim=[5, 6]))),
    ("35 00 00 80 3f 35 00 00 00 40", Datum(float_data=[1, 2])),
    ("22 03 00 ff 80", Datum(data=b"\x00\xff\x80")),
    ("3a 00", BlobProto(shape=BlobShape())),
    ("a2 06 00", NetParameter(layer=[LayerParameter()])),
]


@pytest.mark.parametrize(("wire", "message"), LITERALS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_literal_reads_and_writes(wire, message):
    assert caffemodel.loads(octets(wire), type(message)) == message
    assert caffemodel.dumps(message) == octets(wire)
    assert judge(type(message)).FromString(octets(wire)).SerializeToString(deterministic=True) == octets(wire)


READ_ONLY = [
    ("unpacked floats of a packed field", "2d 00 00 80 3f 2d 00 00 00 40", BlobProto(data=[1, 2])),
    ("a packed part and single values", "2a 04 00 00 80 3f 2d 00 00 00 40 2d 00 00 40 40", BlobProto(data=[1, 2, 3])),
    ("two packed parts", "2a 04 00 00 80 3f 2a 04 00 00 00 40", BlobProto(data=[1, 2])),
    ("an empty packed part", "2a 00 2a 04 00 00 80 3f", BlobProto(data=[1])),
    ("unpacked integers of a packed field", "08 05 08 06", BlobShape(dim=[5, 6])),
    ("packed integers of an unpacked field", "1a 02 02 03", ConvolutionParameter(pad=[2, 3])),
    ("packed floats of an unpacked field", "2a 08 00 00 80 3f 00 00 00 40", LayerParameter(loss_weight=[1, 2])),
    ("values of two fields in turn", "2d 00 00 80 3f 35 00 00 00 40 2d 00 00 40 40", BlobProto(data=[1, 3], diff=[2])),
    ("the last of several scalars", "0a 01 61 0a 01 62", LayerParameter(name="b")),
    ("a sub-message in two parts", "3a 03 0a 01 05 3a 03 0a 01 06", BlobProto(shape=BlobShape(dim=[5, 6]))),
    ("a tag longer than need be", "8a 80 00 01 61", LayerParameter(name="a")),
    ("a length longer than need be", "0a 81 00 61", LayerParameter(name="a")),
    ("an int32 of more than 32 bits", "10 81 80 80 80 10", NetState(level=1)),
    ("a bool of more than one bit", "10 82 80 01", ConvolutionParameter(bias_term=True)),
    ("a number of ten bytes whose last is too large", "10 ff ff ff ff ff ff ff ff ff 7f", NetState(level=-1)),
]


@pytest.mark.parametrize(("what", "wire", "message"), READ_ONLY, ids=lambda value: str(value)[:50])
def test_every_form_that_protobuf_reads_is_read(what, wire, message):
    found = caffemodel.loads(octets(wire), type(message))
    assert found == message, what
    theirs = judge(type(message)).FromString(octets(wire))
    assert caffemodel.dumps(found) == theirs.SerializeToString(deterministic=True)


def test_required_fields_may_come_in_two_parts():
    number = LayerParameter.fields["clip_param"].number
    wire = _tagged(number, octets("0d 00 00 00 00")) + _tagged(number, octets("15 00 00 80 3f"))
    assert caffemodel.loads(wire, LayerParameter).clip_param == ClipParameter(min=0, max=1)
    judge(LayerParameter).FromString(wire)


def _tagged(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


# ---- what the schema does not know

UNKNOWN = [
    ("a number", "f8 01 05"),
    ("eight bytes", "f9 01 01 02 03 04 05 06 07 08"),
    ("a length", "fa 01 02 61 62"),
    ("four bytes", "fd 01 01 02 03 04"),
    ("a group", "fb 01 08 01 fc 01"),
    ("groups in a group", "fb 01 0b 0a 01 61 0c fc 01"),
    ("a known field of another wire type", "12 01 61"),
    ("a message where a number should be", "52 01 61"),
]


@pytest.mark.parametrize(("what", "wire"), UNKNOWN)
def test_unknown_fields_are_kept_and_written_after_the_known(what, wire):
    # NetState: level is field 2, a number; fields 10 and 31 are not known.
    known = octets("10 07")
    found = caffemodel.loads(octets(wire) + known, NetState)
    assert found.level == 7
    assert found.unknown == octets(wire)
    assert caffemodel.dumps(found) == known + octets(wire)
    theirs = judge(NetState).FromString(octets(wire) + known)
    assert theirs.SerializeToString() == known + octets(wire)


def test_an_unknown_value_of_an_enum_is_kept_as_unknown():
    found = caffemodel.loads(octets("50 09 0a 01 61"), LayerParameter)
    assert not found.has("phase")
    assert found.unknown == octets("50 09")
    assert judge(LayerParameter).FromString(octets("50 09")).SerializeToString() == octets("50 09")


def test_unknown_values_among_packed_enums_are_kept_one_by_one():
    wire = _tagged(1002, b"\x00\x09\x01")
    found = caffemodel.loads(wire, V1LayerParameter)
    assert list(found.blob_share_mode) == [0, 1]
    assert found.unknown == _varint(1002 << 3) + b"\x09"
    theirs = judge(V1LayerParameter).FromString(wire)
    assert theirs.SerializeToString() == caffemodel.dumps(found)


def test_text_that_is_not_utf8_is_kept_byte_for_byte():
    wire = octets("0a 03 61 ff 62")
    assert caffemodel.dumps(caffemodel.loads(wire, LayerParameter)) == wire


# ---- Caffe's own files


@pytest.mark.parametrize(("name", "message"), CAFFES_OWN)
def test_caffes_own_files_are_written_back_byte_for_byte(name, message, tmp_path):
    want = (GOLDEN / name).read_bytes()
    assert caffemodel.dumps(caffemodel.loads(want, message)) == want
    caffemodel.dump(caffemodel.load(GOLDEN / name, message), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == want


@pytest.mark.parametrize(("name", "message"), CAFFES_OWN)
def test_caffes_own_files_mean_what_protobuf_says(name, message):
    data = (GOLDEN / name).read_bytes()
    _assert_same(caffemodel.loads(data, message), judge(message).FromString(data))


def test_weights_are_views_of_the_file_and_cannot_be_written_to():
    net = caffemodel.load(GOLDEN / "snapshot/snapshot_iter_3.caffemodel")
    weights = next(layer for layer in net.layer if layer.name == "fc6").blobs[0].data
    assert weights.base is not None
    assert not weights.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        weights[0] = 1


def test_unpacked_floats_are_one_view_too():
    values = np.arange(100_000, dtype="<f4")
    rows = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "<f4")]))
    rows["tag"], rows["value"] = 0x2D, values
    found = caffemodel.loads(rows.tobytes(), BlobProto).data
    assert not found.flags.owndata
    assert found.strides == (5,)
    assert np.array_equal(found, values)
    assert caffemodel.dumps(BlobProto(data=found)) == caffemodel.dumps(BlobProto(data=values))


# ---- against protobuf: any message of the schema


def _assert_same(ours: Message, theirs) -> None:
    names = {field.name for field, _ in ours.set_fields()}
    assert names == {descriptor.name for descriptor, _ in theirs.ListFields()}
    for field, value in ours.set_fields():
        other = getattr(theirs, field.name)
        if field.message:
            for mine, its in zip(value, other, strict=True) if field.repeated else [(value, other)]:
                _assert_same(mine, its)
        elif field.kind in (FLOAT, DOUBLE):
            assert np.array_equal(value, other, equal_nan=True), field.name
        else:
            assert value == other, field.name


@given(st.sampled_from(MESSAGES).flatmap(messages))
@settings(deadline=None)
def test_any_message_is_written_as_protobuf_writes_it(message):
    data = caffemodel.dumps(message)
    theirs = judge(type(message)).FromString(data)
    assert theirs.SerializeToString(deterministic=True) == data
    _assert_same(message, theirs)
    assert caffemodel.dumps(caffemodel.loads(data, type(message))) == data


@given(st.data())
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_judged_as_protobuf_judges_them(data):
    """Fields in random order, of random wire types, some unknown, some cut off."""
    kind = data.draw(st.sampled_from(MESSAGES))
    number = st.one_of(st.sampled_from(sorted(kind.by_number)), st.integers(1, 50))
    field = st.tuples(number, st.sampled_from((0, 1, 2, 5)), st.binary(max_size=9)).map(_field)
    wire = b"".join(data.draw(st.lists(field, max_size=6)))
    wire = wire[: data.draw(st.integers(0, len(wire)))] if data.draw(st.booleans()) else wire
    theirs = judge(kind)()
    try:
        theirs.ParseFromString(wire)
        valid = True
    except Exception:
        valid = False
    try:
        ours = caffemodel.loads(wire, kind)
    except CaffemodelError:
        assert not valid or not theirs.IsInitialized(), wire.hex()
    else:
        assert valid or kind.shared_numbers, wire.hex()  # forks have other messages of these numbers
        if not valid:
            return
        again = judge(kind).FromString(caffemodel.dumps(ours))
        assert again.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def _field(parts: tuple[int, int, bytes]) -> bytes:
    number, wire, body = parts
    tag = _varint(number << 3 | wire)
    if wire == 0:
        return tag + _varint(int.from_bytes(body[:8], "little"))
    if wire == 2:
        return tag + _varint(len(body)) + body
    return tag + body.ljust(9, b"\0")[: 8 if wire == 1 else 4]


# ---- bad files: the text of each error


def said(call, *args) -> str:
    with pytest.raises(ReproductionError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


DAMAGED = "The file is damaged, or of another kind."
CUT_OFF = "The file was cut off or is damaged: download or copy it again."
PAST_FILE = "runs past the end of the file; got"
HUGE = 2**63 - 1
BAD_BYTES = [
    ("0a", f"byte 1: a number {PAST_FILE} 0 bytes, want 1 (1 are missing). {CUT_OFF}"),
    ("0a 05 61 62", f"byte 0: field 'name' {PAST_FILE} 2 bytes, want 5 (3 are missing). {CUT_OFF}"),
    ("2d 00 00", f"byte 0: field 'loss_weight' {PAST_FILE} 2 bytes, want 4 (2 are missing). {CUT_OFF}"),
    ("fa ff ff ff 0f 05 61", f"byte 0: unknown field 536870911 {PAST_FILE} 1 bytes, want 5 (4 are missing). {CUT_OFF}"),
    ("0a" + "ff" * 8 + "7f", f"byte 0: field 'name' {PAST_FILE} 0 bytes, want {HUGE} ({HUGE} are missing). {CUT_OFF}"),
    ("3a 02 2a 08 0a 01 61", f"byte 2: field 'data' runs past the end of its message; got 0 bytes, want 8. {DAMAGED}"),
    ("3a 05 2a 03 00 00 00", f"byte 2: field 'data' has 3 bytes, not a multiple of 4. {DAMAGED}"),
    ("00 01", f"byte 0: field number 0 is not possible. {DAMAGED}"),
    ("0e", f"byte 0: wire type 6 of field 1 is not possible. {DAMAGED}"),
    ("0c", f"byte 0: group 1 ends but did not begin. {DAMAGED}"),
    ("0b 14", f"byte 1: group 2 ends but did not begin. {DAMAGED}"),
    ("0b 08 01", f"byte 1: group 1 {PAST_FILE} 0 bytes, want 1 (1 are missing). {CUT_OFF}"),
    ("0b " * 101, f"byte 100: messages are nested more than 100 deep. {DAMAGED}"),
    ("50 ff ff ff ff ff ff ff ff ff ff 01", f"byte 1: a number is longer than 10 bytes. {DAMAGED}"),
    ("8a 80 80 80 80 00 01 61", f"byte 0: a number is longer than 5 bytes. {DAMAGED}"),
    ("ff ff ff ff 7f", f"byte 0: field number 4294967295 is not possible. {DAMAGED}"),
]


@pytest.mark.parametrize(("wire", "text"), BAD_BYTES, ids=lambda value: value[:24])
def test_bad_bytes_say_where_and_what(wire, text):
    assert said(caffemodel.loads, octets(wire), LayerParameter, "x.caffemodel") == f"x.caffemodel, {text}"
    with pytest.raises(Exception, match=r"Error parsing|decode"):
        judge(LayerParameter).FromString(octets(wire))


def test_groups_nest_as_deep_as_protobuf_lets_them():
    wire = b"\x0b" * 100 + b"\x0c" * 100
    assert caffemodel.loads(wire, LayerParameter).unknown == wire
    judge(LayerParameter).FromString(wire)


def test_a_lacking_required_field_is_an_error_both_ways():
    want = "ClipParameter lacks its required field 'max'"
    assert said(caffemodel.loads, octets("0d 00 00 00 00"), ClipParameter) == f"<bytes>, byte 0: {want}. {DAMAGED}"
    assert said(caffemodel.dumps, ClipParameter(min=0)) == f"{want}."


DOWNLOAD = "The download failed: open the file to read why, and fetch it again."
PROTOTXT = "Name the binary file; a prototxt contains no weights."
FOREIGN = [
    (b"\n\n<!DOCTYPE html>\n<html><head><title>404", "a web page", DOWNLOAD),
    (b"<html>quota exceeded", "a web page", DOWNLOAD),
    (b'name: "VGG"\nlayer {\n  name: "data"\n}\n', "text", PROTOTXT),
    (b"# a comment\ninput: 'data'\n", "text", PROTOTXT),
    (bytes(1000), "nothing but zeros at its start", "The download was cut off: fetch it again."),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file", ""),
    (b"PK\x03\x04" + bytes(100), "a zip archive", ""),
    (struct.pack("<Q", 2) + b"{}", "a safetensors file", ""),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "a torch pickle", ""),
    (b"\x1f\x8b\x08\x00" + bytes(100), "a gzip archive", ""),
    (b"version https://git-lfs.github.com/spec/v1\n", "a pointer that Git LFS left in place of the file", ""),
]


@pytest.mark.parametrize(("data", "kind", "remedy"), FOREIGN, ids=lambda value: str(value)[:20])
def test_a_file_of_another_kind_is_called_by_its_name(data, kind, remedy, tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    want = f"{path}: this is not a caffemodel; got {kind}. {remedy}".strip()
    assert said(caffemodel.load, path) == want


def test_a_file_cut_off_says_how_much_is_missing(tmp_path):
    whole = (GOLDEN / "snapshot/snapshot_iter_3.caffemodel").read_bytes()
    path = tmp_path / "net.caffemodel"
    path.write_bytes(whole[: len(whole) // 2])
    assert said(caffemodel.load, path) == (
        f"{path}, byte 60542: field 'layer' runs past the end of the file; "
        f"got 257738 bytes, want 402017 (144279 are missing). {CUT_OFF}"
    )


def test_an_empty_file_and_a_folder_are_no_models(tmp_path):
    (tmp_path / "empty").touch()
    assert said(caffemodel.load, tmp_path / "empty") == (
        f"{tmp_path}/empty: the file is empty. Download or write it again."
    )
    with pytest.raises(FileNotFoundError):
        caffemodel.load(tmp_path / "absent")
    assert said(caffemodel.load, "/dev/null") == ("/dev/null: this is not a file; got a device. Name a file on a disk.")


@pytest.mark.parametrize("piece", [b"\xa2\x06\x00", b"\x1a\x01a", b"\x20\x7f\x20\x80\x10"], ids=lambda b: b.hex())
def test_millions_of_tiny_values_do_not_fill_the_memory(piece, monkeypatch):
    monkeypatch.setattr(wire_reader, "_SPARE_BYTES", 2**20)
    data = piece * (300_000 // len(piece))
    tracemalloc.start()
    text = said(caffemodel.loads, data, NetParameter)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text.endswith(f": too many messages, strings and numbers for {len(data)} bytes. {DAMAGED}")
    assert peak < 2 * len(data) + 2**21


PARTS = 20_000
UNKNOWN_FIELD = b"\xc2\x3e\x28" + b"x" * 40  # field 1000


@pytest.mark.parametrize(
    ("part", "check"),
    [
        (b"\x32" + bytes([len(UNKNOWN_FIELD)]) + UNKNOWN_FIELD, lambda net: net.state.unknown == UNKNOWN_FIELD * PARTS),
        (
            b"\x32\x02\x10\x01" + UNKNOWN_FIELD,
            lambda net: net.unknown == UNKNOWN_FIELD * PARTS and net.state.level == 1,
        ),
    ],
    ids=["in a message of many parts", "between known fields"],
)
def test_time_and_memory_are_linear_in_the_parts_of_a_message(part, check):
    data = part * PARTS
    start = time.process_time()
    assert check(caffemodel.loads(data, NetParameter))
    assert time.process_time() - start < 2
    tracemalloc.start()
    caffemodel.loads(data[: len(data) // 10], NetParameter)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data) // 10
    tracemalloc.stop()


def test_arrays_in_parts_of_a_message_in_parts_are_joined_once():
    """A blob's shape in many parts, and its data in each of them, as its owner may have cut it."""
    part = b"\x3a\x02\x0a\x00" + b"\x2d\x00\x00\x80\x3f\x35\x00\x00\x00\x40"
    start = time.process_time()
    blob = caffemodel.loads(part * PARTS, BlobProto)
    assert time.process_time() - start < 2
    assert blob.data.tolist() == [1] * PARTS
    assert blob.diff.tolist() == [2] * PARTS
    history = b"\x1a" + bytes([len(part)]) + part
    assert [blob.data.tolist() for blob in caffemodel.loads(history * 3, SolverState).history] == [[1]] * 3


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        (BlobProto, b"\x2a\x04\x00\x00\x80\x3f"),
        (BlobProto, b"\x2d\x00\x00\x80\x3f\x35\x00\x00\x80\x3f"),
        (BlobProto, b"\xf8\x01\x01"),
        (BlobShape, b"\x08\x01"),
        (BlobShape, b"\x08\xff\xff\xff\x7f"),
    ],
)
def test_memory_stays_in_proportion_to_the_file(kind, piece):
    data = piece * (100_000 // len(piece))
    tracemalloc.start()
    caffemodel.loads(data, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * len(data)


# ---- writing


@contextmanager
def file_size_limit(size: int):
    """Let no file grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"before")
    net = NetParameter(layer=[LayerParameter(blobs=[BlobProto(data=np.zeros(500_000))])])
    with file_size_limit(1_000_000):
        text = said(caffemodel.dump, net, path)
    assert text == f"{path}: cannot be written: file too large."
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_no_part_of_a_file(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caffemodel.dump(NetParameter(name="a" * 100_000), tmp_path / "net.caffemodel", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    path = tmp_path / "no/net.caffemodel"
    assert said(caffemodel.dump, NetParameter(), path) == f"{path}: cannot be written: no such file or directory."
    assert said(caffemodel.dump, NetParameter(), tmp_path) == f"{tmp_path}: this is not a file. Name a file to write."


def test_a_link_is_followed_and_progress_counts_the_bytes(tmp_path):
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    steps = []
    caffemodel.dump(NetParameter(name="x" * 1000), tmp_path / "link", lambda done, total: steps.append((done, total)))
    assert (tmp_path / "link").is_symlink()
    assert steps[-1] == (1003, None)
    assert (tmp_path / "real").stat().st_size == 1003


def test_text_that_cannot_be_written_is_one_line():
    assert (
        said(caffemodel.dumps, LayerParameter(name="\ud800")) == "field 'name': '\\ud800' cannot be written as UTF-8."
    )


def test_writing_makes_no_second_copy_of_the_weights(tmp_path):
    values = np.zeros(4_000_000, np.float32)
    net = NetParameter(layer=[LayerParameter(blobs=[BlobProto(data=values)])])
    tracemalloc.start()
    caffemodel.dump(net, tmp_path / "net.caffemodel")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_a_file_is_told_by_its_first_bytes_alone():
    assert files.kind((GOLDEN / "snapshot/snapshot_iter_3.caffemodel").read_bytes()) is None
    assert files.kind((GOLDEN / "snapshot/snapshot_iter_3.caffemodel.h5").read_bytes()) == files.HDF5
    assert files.kind(b"") is None
