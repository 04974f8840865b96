"""The text format: a corpus of texts with their values, comparison with protobuf, and files from users."""

import contextlib
import os
import random
import re
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproduction.caffe import schema
from reproduction.caffe.errors import NetError, PrototxtError, ReproductionError
from reproduction.caffe.formats import prototxt, text_reader
from reproduction.caffe.schema import (
    BlobProto,
    ConvolutionParameter,
    FillerParameter,
    LayerParameter,
    Message,
    NetParameter,
    PoolMethod,
    SolverParameter,
)
from tests.caffe.formats.test_caffemodel import said
from tests.helpers.paths import ROOT
from tests.helpers.protobuf_judge import MESSAGES, judge, octets, to_judge
from tests.helpers.random_messages import messages

CORPUS = Path(__file__).parent / "prototxt"
VALID = sorted(CORPUS.glob("valid/*.prototxt"))
INVALID = sorted(CORPUS.glob("invalid/*.prototxt"))
PUBLISHED = sorted(ROOT.glob("prototxt/*/*.prototxt"))
LEGACY = sorted(ROOT.glob("tests/golden/legacy/*.prototxt"))


def read(path: Path) -> tuple[str, type[Message]]:
    """Return a text of the corpus and the message that it is: a NetParameter, if its first line names no other."""
    text = path.read_bytes().decode()
    named = re.match(r"# message: (\w+)\n", text)
    return text, getattr(schema, named[1] if named else "NetParameter")


def test_the_corpus_was_found():
    assert len(VALID) > 15
    assert len(INVALID) > 60
    assert len(PUBLISHED) >= 45
    assert len(LEGACY) == 2


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_text_says_what_protobuf_reads_in_it(path):
    """The expected texts were printed by protobuf's C++ parser and printer."""
    text, message = read(path)
    want = path.with_suffix(".txt").read_bytes().decode()
    found = prototxt.loads(text, message)
    assert prototxt.dumps(found) == want
    assert prototxt.loads(want, message) == found


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_text_is_one_line_that_says_where_what_and_how(path):
    text, message = read(path)
    with pytest.raises(PrototxtError) as info:
        prototxt.loads(text, message, path.name)
    assert f"{info.value}\n" == path.with_suffix(".txt").read_text()
    assert (info.value.path, info.value.place) == (path.name, f"{path.name}:{info.value.line}:{info.value.column}")


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_writer_prints_a_published_file_as_it_stands(path):
    text = path.read_text()
    assert prototxt.dumps(prototxt.load(path, SolverParameter if path.stem == "solver" else NetParameter)) == text


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MESSAGES).flatmap(messages))
def test_what_is_written_is_read_back_and_protobuf_agrees(message):
    text = prototxt.dumps(message)
    assert prototxt.loads(text, type(message)) == message
    theirs = to_judge(message)
    assert octets(text_format.Parse(text, judge(type(message))())) == octets(theirs)
    assert prototxt.loads(text_format.MessageToString(theirs), type(message)) == message
    assert prototxt.loads(text_format.MessageToString(theirs, as_one_line=True), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_survives_the_text(message, data):
    found = data.draw(messages(message, max_fields=8))
    assert prototxt.loads(prototxt.dumps(found), message) == found


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="{}<>[]:;,-#\"'\\ \nx01.enamlyr"))
def test_any_text_is_read_or_is_a_prototxt_error(text):
    with contextlib.suppress(PrototxtError):
        prototxt.loads(text, NetParameter)


# What is put into texts: bits on which protobuf's C++ parser and its Python parser, the judge, do not differ.
_BITS = ["{", "}", "<", ">", "[", "]", ",", ";", ":", '"', "'", "#", "\n", " ", "0", "1", ".", "e", "x", "f", "inf"]
_BITS += ["true", "name", "layer", '"a"', "'b'", "0x", "08", "é", "\t", "//", "1.5", "MAX", "{}", "a"]
_WORD = re.compile(r'\w+|"[^"\n]*"|\S')


def mutate(text: str, chance: random.Random) -> str:
    """Change a text in a few places: a bit put in, taken out or replaced, a stretch lost, a word in another's place."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at, other, what = chance.randrange(len(text) + 1), chance.randrange(len(text) + 1), chance.randrange(5)
        if what == 0:
            text = text[:at] + chance.choice(_BITS) + text[at:]
        elif what == 1:
            text = text[:at] + text[at + chance.choice([1, 1, 2, 5]) :]
        elif what == 2:
            text = text[:at] + chance.choice(_BITS) + text[at + 1 :]
        elif what == 3:
            text = text[: min(at, other)] + text[max(at, other) :]
        elif words := list(_WORD.finditer(text)):
            one, two = chance.choice(words), chance.choice(words)
            text = text[: one.start()] + two[0] + text[one.end() :]
    return text


def check_mutations(seed: int, count: int) -> int:
    """Read mutated texts; return how many are still prototxts. Protobuf must agree on each."""
    chance = random.Random(seed)
    nets = [path for path in VALID if read(path)[1] is NetParameter and "\\" not in read(path)[0]]
    texts = [path.read_text() for path in [*nets, *LEGACY]]
    valid = 0
    for _ in range(count):
        text = mutate(chance.choice(texts), chance)
        if re.search(r"-[\s#]|(?<![\w.])0[0-7]", text):
            continue  # a space after a sign, an octal enum: protobuf's C++ parser takes them, the judge's does not
        try:
            theirs = octets(text_format.Parse(text, judge(NetParameter)()))
        except text_format.ParseError:
            theirs = None
        try:
            ours = octets(to_judge(prototxt.loads(text, NetParameter)))
        except PrototxtError as error:
            if "is required" in str(error):
                continue  # the judge's parser lets it pass; Caffe does not
            ours = None
        assert ours == theirs, text
        valid += ours is not None
    return valid


def test_mutated_nets_are_read_exactly_when_protobuf_reads_them():
    assert check_mutations(seed=1, count=800) > 40


@pytest.mark.slow
def test_many_mutated_nets_are_read_exactly_when_protobuf_reads_them():
    assert check_mutations(seed=2, count=30_000) > 1500


def test_messages_know_the_lines_at_which_they_began():
    net = prototxt.loads('name: "x"\n\nlayer {\n}\n layer\n{ pooling_param { } }\nlayer: [{},\n{}]', NetParameter)
    assert net.line == 1
    assert [layer.line for layer in net.layer] == [3, 5, 7, 8]
    assert net.layer[1].pooling_param.line == 6


def test_carriage_returns_and_a_byte_order_mark_do_not_matter(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbflayer {\r\n  name: "x" # windows\r\n}\r\n')
    net, notes = prototxt.load_net(path)
    assert prototxt.dumps(net) == 'layer {\n  name: "x"\n}\n'
    assert notes == []


def test_a_comment_may_be_in_any_encoding(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes("# 数据层\n".encode("gbk") + b'name: "x"')
    assert prototxt.load(path, NetParameter).name == "x"


def test_a_string_in_another_encoding_is_an_error(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'layer {\n  name: "caf\xe9"\n}\n')
    with pytest.raises(PrototxtError) as info:
        prototxt.load(path, NetParameter)
    assert str(info.value) == f"{path}:2:9: the string is not UTF-8. Save the file as UTF-8."


REMEDY = "A caffemodel contains weights; their net is in a prototxt."
BINARY = f"a binary file. {REMEDY}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty."),
        (b" \n\t\n" * 5000, "the file is empty."),
        (b"\0" * 9000, "this is not a prototxt; got nothing but zeros at its start."),
        (b"\0", f"this is not a prototxt; got {BINARY}"),
        (b"\n<!DOCTYPE html><html>404</html>", "this is not a prototxt; got a web page."),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "this is not a prototxt; got an HDF5 file."),
        (b"PK\x03\x04" + bytes(100), "this is not a prototxt; got a zip archive."),
        ('name: "x"'.encode("utf-16"), "the file is UTF-16; want UTF-8. Save it as UTF-8."),
        (random.Random(0).randbytes(5000), f"this is not a prototxt; got {BINARY}"),
    ],
    ids=["empty", "blank", "zeros", "zero", "web page", "hdf5", "zip", "utf-16", "random"],
)
def test_a_file_that_is_no_text_is_named(tmp_path, content, problem):
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(PrototxtError) as info:
        prototxt.load_net(path)
    assert str(info.value) == f"{path}: {problem}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/golden/legacy/*.caffemodel")), ids=lambda path: path.stem)
def test_a_caffemodel_given_as_a_prototxt_is_named(path):
    with pytest.raises(PrototxtError) as info:
        prototxt.load_net(path)
    assert str(info.value) == f"{path}: this is not a prototxt; got a caffemodel. {REMEDY}"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('net: "train_val.prototxt"\nbase_lr: 0.1', "Its net is 'train_val.prototxt'."),
        ('train_net: "a"\ntest_net: "b"\ntest_net: "c"', "Its net is 'a' or 'b' or 'c'."),
        ('base_lr: 0.1 net_param { name: "inline" }', "Give the file of its net."),
    ],
)
def test_a_solver_given_as_a_net_names_its_net(tmp_path, text, remedy):
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    with pytest.raises(PrototxtError) as info:
        prototxt.load_net(path)
    assert str(info.value) == f"{path}: this is a solver, not a net. {remedy}"


def test_a_net_given_as_a_solver_is_named(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('name: "VGG"\nlayer { name: "x" }')
    with pytest.raises(PrototxtError) as info:
        prototxt.load_solver(path)
    assert str(info.value) == f"{path}: this is a net, not a solver. A solver names its net in 'net:'."


def test_a_mistake_in_a_net_is_told_as_a_mistake_in_a_net(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('name: "VGG"\nlayer { nam: "x" }')
    with pytest.raises(PrototxtError) as info:
        prototxt.load_net(path)
    assert str(info.value) == f"{path}:2:9: unknown field 'nam' in LayerParameter. Did you mean 'name'?"


def test_a_net_that_cannot_be_upgraded_names_its_file_too(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layers {\n  layer { name: "x" type: "convolution" }\n}')
    with pytest.raises(NetError) as info:
        prototxt.load_net(path)
    assert str(info.value) == f"{path}: layer 'x' (convolution), line 1: unknown type."


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        prototxt.load_net(tmp_path / "none.prototxt")


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("", "DIR/solver"), ('snapshot_prefix: "DIR"', "DIR/solver"), ('snapshot_prefix: "DIR/x"', "DIR/x")],
)
def test_the_snapshot_prefix_comes_from_the_solvers_path(tmp_path, text, prefix):
    path = tmp_path / "solver.prototxt"
    path.write_text(f"base_lr: 1\n{text.replace('DIR', str(tmp_path))}")
    assert prototxt.load_solver(path).snapshot_prefix == prefix.replace("DIR", str(tmp_path))


def test_an_old_solver_type_is_upgraded(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text("solver_type: NESTEROV")
    assert prototxt.load_solver(path).type == "Nesterov"
    path.write_text('solver_type: NESTEROV type: "SGD"')
    with pytest.raises(NetError) as info:
        prototxt.load_solver(path)
    assert str(info.value) == (
        f"{path}: the solver has both 'solver_type', the older form, and 'type'; got NESTEROV and 'SGD'. "
        "Remove 'solver_type'."
    )


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        # what protobuf's C++ printer prints for these
        (0.1, "0.1"),
        (1 / 3, "0.333333343"),
        (1e-5, "1e-05"),
        (123456, "123456"),
        (1234567, "1234567"),
        (16777216, "16777216"),
        (1e10, "1e+10"),
        (104.00699, "104.006989"),
        (-0.0, "-0"),
        (3.4028234663852886e38, "3.40282347e+38"),
        (1e39, "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
        (2.0**-126, "1.17549435e-38"),
        (2.0**-149, "1.40129846e-45"),
    ],
)
def test_single_precision_is_printed_as_caffe_prints_it(value, printed):
    assert prototxt.dumps(FillerParameter(value=value)) == f"value: {printed}\n"


@pytest.mark.parametrize(
    ("value", "printed"),
    [(0.1, "0.1"), (0.1 + 0.2, "0.30000000000000004"), (1e16, "1e+16"), (5e-324, "4.94065645841247e-324")],
)
def test_double_precision_is_printed_as_caffe_prints_it(value, printed):
    assert prototxt.dumps(BlobProto(double_data=[value])) == f"double_data: {printed}\n"


def test_fields_that_the_schema_does_not_know_leave_a_comment():
    layer = LayerParameter(name="x")
    layer.unknown = b"\xf8\x07\x01"
    text = prototxt.dumps(NetParameter(layer=[layer]))
    assert text == 'layer {\n  name: "x"\n  # and 3 bytes of fields that Caffe does not know\n}\n'
    assert prototxt.loads(text, NetParameter).layer[0].name == "x"


def test_a_string_that_is_no_text_cannot_be_written():
    with pytest.raises(ReproductionError) as info:
        prototxt.dumps(NetParameter(name="\ud800"))
    assert str(info.value) == "wrong value for NetParameter.name; got '\\ud800', want text that UTF-8 can hold."


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "net.prototxt"
    prototxt.dump(NetParameter(name="first"), path)
    with pytest.raises(ReproductionError):
        prototxt.dump(NetParameter(name="\ud800"), path)
    assert path.read_text() == 'name: "first"\n'
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ReproductionError, match="cannot be written"):
        prototxt.dump(NetParameter(), tmp_path / "no folder" / "net.prototxt")


def test_a_net_of_three_thousand_lines_is_read_in_a_moment():
    lines = [
        "layer {",
        'name: "conv"',
        'bottom: "a"',
        "param {",
        "lr_mult: 1",
        "}",
        "pooling_param {",
        "pad: 1",
        "}",
        "}",
    ]
    start = time.perf_counter()
    assert len(prototxt.loads("\n".join(lines * 300), NetParameter).layer) == 300
    assert time.perf_counter() - start < 0.5  # it takes 0.01 s; the rest is for a machine with other work


@pytest.mark.parametrize(
    "bomb", ["layer {", "layer: [", "[", "-", "#", '"', "'", "0", "\\", "input: 'a' ", " ", "state <"]
)
def test_a_long_or_deep_text_ends_soon(bomb):
    start = time.perf_counter()
    for text in ("{}", "name: {}", "input_dim: {}", "layer {{ loss_weight: {}", 'name: "{}'):
        with contextlib.suppress(PrototxtError):
            prototxt.loads(text.format(bomb * 10**5), NetParameter)
    assert time.perf_counter() - start < 5


def test_many_numbers_make_one_array():
    blob = prototxt.loads(f"data: [{', '.join(map(str, range(1000)))}] data: 7", BlobProto)
    assert blob.data.dtype == "float32"
    assert blob.data.tolist() == [*range(1000), 7]


def test_reading_makes_enums_and_lists_of_the_schema():
    net = prototxt.loads("layer { pooling_param { pool: AVE } }", NetParameter)
    assert net.layer[0].pooling_param.pool is PoolMethod.AVE
    assert net.layer.add(name="y") is net.layer[1]


# ---- texts that want more than they have


@pytest.mark.parametrize("digits", ["0x" + "f" * 5000, "0" + "7" * 5000, "9" * 5000, "-0x" + "f" * 5000])
@pytest.mark.parametrize("field", ["num_output", "pad", "engine", "bias_term", "axis"])
def test_an_integer_of_thousands_of_digits_is_one_line(digits, field):
    text = said(prototxt.loads, f"layer {{ convolution_param {{ {field}: {digits} }} }}", NetParameter)
    assert text.startswith("<prototxt>:1:")
    assert f"wrong value for ConvolutionParameter.{field}; got {digits[:20]!r}"[:-1] in text
    assert len(text) < 250


@pytest.mark.parametrize("field", ["num_output", "pad", "engine", "axis"])
def test_so_it_is_in_python(field):
    value = [10**5000] if field == "pad" else -(10**5000)
    text = said(lambda: ConvolutionParameter(**{field: value}))
    assert "got an integer of thousands of digits, want" in text


def test_a_name_without_end_is_one_line():
    for text in ("x" * 100_000, f"layer {{ phase: {'x' * 257} }}"):
        assert said(prototxt.loads, text, NetParameter).endswith(": a name is too long; want at most 256 characters.")


@pytest.mark.parametrize("piece", ["layer{}", "input:''", "input_dim:9 "])
def test_values_of_a_few_letters_do_not_fill_the_memory(piece, monkeypatch):
    monkeypatch.setattr(text_reader, "_SPARE_BYTES", 2**17)
    text = piece * 20_000
    tracemalloc.start()
    assert "the text has too many values for its size; got" in said(prototxt.loads, text, NetParameter)
    assert tracemalloc.get_traced_memory()[1] < 2 * len(text) + 2**18
    tracemalloc.stop()


def test_an_array_takes_the_memory_of_its_values():
    text = f"data: [{'1,' * 100_000}2] data: 3"
    tracemalloc.start()
    found = prototxt.loads(text, BlobProto).data
    assert tracemalloc.get_traced_memory()[1] < 6 * len(text)
    tracemalloc.stop()
    assert found.dtype == np.float32
    assert found.tolist() == [1.0] * 100_000 + [2, 3]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("load", [prototxt.load_net, prototxt.load_solver])
def test_a_pipe_a_folder_and_a_text_without_end_are_one_line(load, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    assert said(load, tmp_path / "pipe") == f"{tmp_path}/pipe: this is not a file; got a pipe. Name a file on a disk."
    assert said(load, tmp_path).startswith(f"{tmp_path}: this is not a file; got a folder.")
    assert said(load, tmp_path / "huge") == f"{tmp_path}/huge: the file is too large; want at most 64 MiB of text."
