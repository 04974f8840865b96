"""Only regular files are opened, and opening never blocks."""

import os
import socket

import pytest

from reproduction.caffe.errors import DataError, WeightsError
from reproduction.caffe.formats import files


def test_a_regular_file_is_opened_also_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    with files.open_regular(tmp_path / "b") as file:
        assert file.read() == b"abc"


def test_pipes_sockets_devices_and_folders_are_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, got in (("pipe", "a pipe"), ("socket", "a socket"), ("/dev/zero", "a device"), (".", "a folder")):
            with pytest.raises(WeightsError) as error:
                files.open_regular(path, WeightsError)
            assert str(error.value) == f"{path}: this is not a file; got {got}. Name a file on a disk."


def test_a_file_above_the_limit_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"abcd")
    assert files.read_regular(tmp_path / "a", 4) == b"abcd"
    with pytest.raises(DataError, match=r"a: the file is too large; want at most 3 bytes\.$"):
        files.read_regular(tmp_path / "a", 3)


def test_text_is_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfabc")
    assert files.read_text(tmp_path / "a") == "abc"
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"a: this is not a text file; got byte 0xff at 2, want UTF-8\.$"):
        files.read_text(tmp_path / "a")
