"""Lists, names and palettes from any source: each defect is an error of one line, and reading never blocks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction.caffe.errors import DataError
from reproduction.caffe.layers.data import read_file_list
from reproduction.caffe.layers.image_data import read_image_list
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets import layouts, pascalcontext
from reproduction.fcn.datasets.custom import color_labels
from tests.helpers import custom_folders

READERS = {
    "palette": color_labels.load,
    "classes": layouts.read_class_names,
    "split": layouts.read_ids,
    "list of files": lambda path: read_file_list(str(path)),
    "labels of images": lambda path: read_image_list(str(path)),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_pipes_and_devices_are_refused_without_waiting(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    for path, got in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(DataError) as error:
            reader(path)
        assert str(error.value) == f"{path}: this is not a file; got {got}. Name a file on a disk."


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "data",
    [
        b"\xed\xa0\x80 1\n",
        b"\xff\xfe1\0",
        b"9" * 5000 + b" 0 0 a\n",
        b"a " + b"9" * 5000 + b"\n",
        b"a\0b 1\n",
        b"\n" * 99,
    ],
    ids=["half a character", "UTF-16", "5,000 digits first", "5,000 digits last", "a zero byte", "blank lines"],
)
def test_odd_text_is_read_or_is_one_line_of_error(tmp_path, reader, data):
    (tmp_path / "a.txt").write_bytes(data)
    try:
        found = reader(tmp_path / "a.txt")
    except DataError as error:
        found = str(error)
    assert "\n" not in str(found)[:-1] or found == data.decode()
    assert len(str(found)) < 6000


def test_lists_of_names_that_are_too_long_are_refused_at_once(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"class{i}\n" for i in range(60_000)))
    with pytest.raises(DataError, match=r"not a list of classes; got 60000 names, want"):
        layouts.read_class_names(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"a" * (1 << 20) + b"\n")
    for reader in (layouts.read_class_names, color_labels.load):
        with pytest.raises(DataError, match=r"a.txt: the file is too large; want at most 1,048,576 bytes\.$"):
            reader(tmp_path / "a.txt")


def test_a_label_that_fits_no_blob_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a.jpg 4294967296\n")
    with pytest.raises(DataError) as error:
        read_image_list(str(tmp_path / "a.txt"))
    assert str(error.value) == (
        f"{tmp_path}/a.txt:1: this line is not valid; got 'a.jpg 4294967296', want 'path label'."
    )


def test_a_list_of_labels_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "59_labels.txt")
    assert pascalcontext._names(tmp_path / "59_labels.txt", ["a b"]) == ["ab"]  # as if it were not there


HUGE = "0x" + "f" * 5000


@pytest.mark.parametrize(
    "param",
    [
        f"'seed': {HUGE}",
        f"'side': {HUGE}",
        f"'mean': ({HUGE}, 1, 1)",
        f"'randomize': {HUGE}",
        f"'classes': [{HUGE}]",
        f"'palette': {{'a': ({HUGE}, 0, 0)}}",
        "'palette': {'a': (1.0, 0, 0)}",
        r"'palette': {'\ud800': (1, 0, 0)}",
        r"'classes': ['\ud800', 'b']",
        r"'split': '\ud800'",
    ],
)
def test_odd_values_of_a_data_layer_are_one_line_of_error(tmp_path, param):
    custom_folders.write(tmp_path)
    layer = PythonParameter(layer="FolderSegDataLayer", param_str=f"{{'split': 'train', {param}}}")
    with pytest.raises(DataError) as error:
        datasets.from_layer(layer, ["data", "label"], tmp_path)
    assert str(error.value).encode()
    assert len(str(error.value)) < 400


def test_files_whose_names_are_not_text_are_listed(tmp_path):
    custom_folders.write(tmp_path)
    name = os.fsencode(tmp_path / "labels") + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-m", "reproduction", "check-data", tmp_path],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"labels/\udcff.png" in done.stdout
