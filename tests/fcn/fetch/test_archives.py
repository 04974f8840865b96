import errno
import gzip
import io
import os
import random
import shutil
import stat
import struct
import tarfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction.caffe.errors import DataError
from reproduction.fcn.fetch.archives import ArchiveLimits, contains, extract, plain_path

AGAIN = " Delete it and fetch it again; if that does not help, do not trust its source."
SMALL = ArchiveLimits(floor_bytes=1 << 20)


def tar(*members, format=tarfile.GNU_FORMAT, mode="w"):
    """A tar of (name, bytes), of names of folders, and of TarInfo objects."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format) as out:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                out.addfile(member)
            elif isinstance(member, str):
                info = tarfile.TarInfo(member)
                info.type = tarfile.DIRTYPE
                out.addfile(info)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                out.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def tgz(*members):
    return tar(*members, mode="w:gz")


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            out.writestr(name, data)
    return buffer.getvalue()


def special(name, type, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, linkname
    return info


@pytest.fixture
def unpack(tmp_path):
    """Write an archive, unpack it, and see that nothing is left over, in the folder or beside it."""

    def run(data, **options):
        path = tmp_path / "in" / "a.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        target = tmp_path / "out" / "set"
        before = tree(tmp_path / "out")
        try:
            return extract(path, target, **options)
        except DataError:
            assert tree(tmp_path / "out") == before
            raise
        finally:
            assert not list(tmp_path.rglob("*.unpacking"))

    return run


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(unpack, data, **options):
    with pytest.raises(DataError) as error:
        unpack(data, **options)
    assert "\n" not in str(error.value)
    return str(error.value).split("/in/a.bin: ", 1)[1]


FILES = ("top/a.txt", b"a" * 700), ("top/deep/b.txt", b"b")


@pytest.mark.parametrize("make", [tar, tgz, zipped])
def test_an_archive_is_told_by_its_first_bytes_and_unpacked(unpack, make):
    assert tree(unpack(make(*FILES))) == {"top/a.txt": b"a" * 700, "top/deep/b.txt": b"b"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_come_out(unpack, format):
    name = "ordner/" + "lang" * 50 + "/ä.txt"
    assert tree(unpack(tar((name, b"x"), format=format))) == {name: b"x"}


def test_the_folder_that_holds_what_is_wanted_becomes_the_destination(unpack):
    data = tar(("TrainVal/VOCdevkit/readme", b"r"), ("TrainVal/VOCdevkit/VOC2011/JPEGImages/1.jpg", b"j"))
    assert tree(unpack(data, holding=["JPEGImages/*.jpg"])) == {"JPEGImages/1.jpg": b"j"}


def test_files_that_are_there_already_stay(unpack, tmp_path):
    target = tmp_path / "out" / "set"
    (target / "data").mkdir(parents=True)
    (target / "test.txt").write_text("1\n")
    (target / "data" / "old.png").write_text("old")
    (target / "data" / "same.png").write_text("old")
    unpack(tar(("nyud/data/same.png", b"new"), ("nyud/seg/1.mat", b"m")), holding=["data/*.png"])
    assert tree(target) == {
        "test.txt": b"1\n",
        "data/old.png": b"old",
        "data/same.png": b"new",
        "seg/1.mat": b"m",
    }


def test_an_archive_without_what_is_wanted_is_refused(unpack):
    message = refused(unpack, tar(("docs/readme", b"r")), holding=["JPEGImages/*.jpg", "SegmentationClass/*.png"])
    assert message == (
        "it is not the archive that was expected; got docs, want JPEGImages/*.jpg and SegmentationClass/*.png."
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "//evil",
        "C:/evil",
        "c:evil",
        "a\\..\\evil",
        "a\nb",
        "x" * 256,
        "/".join(["x" * 200] * 6),
    ],
)
@pytest.mark.parametrize("make", [tar, tgz, zipped])
def test_a_name_that_leaves_the_folder_is_refused(unpack, tmp_path, make, name):
    message = refused(unpack, make(("fine", b""), (name, b"evil")))
    shown = repr(name if len(name) <= 120 else name[:117] + "...")
    assert message == f"a member's name is not a plain path below the archive's folder; got {shown}.{AGAIN}"
    assert not list(tmp_path.rglob("*evil*"))


def test_plain_names_pass():
    assert str(plain_path("./a//b/")) == "a/b"
    assert str(plain_path("..a/b..")) == "..a/b.."
    assert plain_path("") is None


@given(st.text(st.sampled_from("ab./\\\\: \0\nC~é"), max_size=12))
def test_a_plain_path_never_leaves_its_folder(name):
    path = plain_path(name)
    if path is not None:
        base = Path("/base/folder")
        assert Path(os.path.normpath(base / path)).is_relative_to(base)
        assert "\\" not in name


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        (special("a", tarfile.SYMTYPE, "/etc/passwd"), "link 'a'"),
        (special("a", tarfile.LNKTYPE, "b"), "link 'a'"),
        (special("a", tarfile.CHRTYPE), "device 'a'"),
        (special("a", tarfile.FIFOTYPE), "device 'a'"),
        (special("a", tarfile.GNUTYPE_SPARSE), "sparse file 'a'"),
        (special("a", b"V"), "member 'a'"),
    ],
)
def test_links_devices_and_sparse_files_are_refused(unpack, info, shown):
    assert refused(unpack, tar(info)) == f"a member is neither a file nor a folder; got {shown}.{AGAIN}"


def test_links_in_a_zip_are_refused(unpack):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        link = zipfile.ZipInfo("a")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    assert refused(unpack, buffer.getvalue()) == f"a member is neither a file nor a folder; got link 'a'.{AGAIN}"


def test_an_encrypted_zip_is_refused(unpack):
    data = bytearray(zipped(("a", b"x")))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refused(unpack, bytes(data)) == f"a member is encrypted; got 'a'.{AGAIN}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [tar, tgz, zipped])
@pytest.mark.parametrize("names", [("a/b", "a/b"), ("a", "a/b"), ("a/b", "a"), ("./a", "a")])
def test_a_name_given_twice_is_refused(unpack, make, names):
    message = refused(unpack, make(*((name, b"x") for name in names)))
    assert message == f"a member occurs twice; got {names[1]!r}.{AGAIN}"


@pytest.mark.parametrize("make", [tgz, zipped])
def test_a_bomb_is_stopped_when_it_swells(unpack, make):
    message = refused(unpack, make(("zeros", bytes(3 << 20))), limits=SMALL)
    assert message.startswith("it unpacks to more than a data set of its size could; got over 1,048,576 bytes, want")


def test_an_archive_may_hold_so_many_members(unpack):
    data = tar(*((f"{i}", b"") for i in range(11)))
    assert len(tree(unpack(data, limits=ArchiveLimits(members=11)))) == 11
    assert (
        refused(unpack, data, limits=ArchiveLimits(members=10)) == f"it has too many members; want at most 10.{AGAIN}"
    )


def test_headers_that_ask_for_memory_are_refused_before_they_get_it(unpack):
    name = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    name.size = 1 << 33
    message = refused(unpack, name.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert message == f"a member's headers are too large; want at most 65,536 bytes.{AGAIN}"


def test_a_chain_of_headers_ends(unpack):
    header = special("x", tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    assert "a member's headers are too large" in refused(unpack, gzip.compress(header * 100_000))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html></html>",
        bytes(100),
        b"PK\x03\x04 and no more",
        gzip.compress(b"no tar in here", mtime=0),  # or tests would have other names at every run
        random.Random(1).randbytes(5000),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(unpack, data):
    message = refused(unpack, data)
    assert message.startswith("it is damaged or not an archive; got ")
    assert message.endswith(AGAIN)


@pytest.mark.parametrize("make", [tar, tgz, zipped])
def test_an_archive_cut_short_leaves_nothing(unpack, make):
    data = make(("a", random.Random(2).randbytes(5000)), ("b", b"b" * 100))
    for length in range(0, len(data.rstrip(b"\0")), 97):
        refused(unpack, data[: length + 60 if length % 512 == 0 else length])


def test_a_header_that_cannot_be_read_is_not_taken_for_the_end(unpack):
    data = bytearray(tar(("a", b"a"), ("b", b"b")))
    data[1024 + 150] ^= 0xFF
    assert refused(unpack, bytes(data)) == f"it is damaged or not an archive; got an invalid header.{AGAIN}"


@pytest.mark.parametrize("rounds", [300, pytest.param(6_000, marks=pytest.mark.slow)])
def test_damaged_archives_end_in_one_kind_of_error(tmp_path, rounds):
    seeds = [tar(*FILES), tar(("ä" * 90, b"x"), format=tarfile.PAX_FORMAT), tgz(*FILES), zipped(*FILES)]
    chance = random.Random(rounds)
    path = tmp_path / "a"
    for number in range(rounds):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(len(data))] = chance.choice([0, 255, 0x80, 0x30, 0x37, chance.randrange(256)])
        if data[257:262] == b"ustar" and number % 2:
            data[148:156] = b" " * 8
            data[148:156] = b"%06o\0 " % sum(data[:512])
        path.write_bytes(data)
        target = tmp_path / "out" / str(number)
        message = attempt(path, target)
        assert message is None or ("\n" not in message and not target.exists())


def attempt(path, target):
    try:
        extract(path, target, limits=SMALL)
    except DataError as error:
        return str(error)
    return None


def test_a_full_disk_is_one_line_and_leaves_nothing(unpack, monkeypatch):
    class Full(io.BytesIO):
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", **kw: Full() if mode == "xb" else real(self, mode, **kw))
    message = refused(unpack, tar(*FILES))
    assert message.startswith("cannot unpack it into ")
    assert message.endswith(
        ": no space left on device. Free some space and run it again; what was unpacked so far has been removed."
    )


def test_an_archive_that_cannot_fit_is_not_begun(unpack, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    assert refused(unpack, tar(*FILES)) == (
        "the disk has too little space to unpack it; got 100 bytes free, want at least 10,240. "
        "Free some space, or put the data elsewhere with --data."
    )


class Stopped(BaseException):
    pass


def test_a_stopped_extraction_looks_like_none_and_is_done_again(unpack, tmp_path):
    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        unpack(tar(*FILES), progress=stop)
    assert not (tmp_path / "out" / "set").exists()
    # A run that was killed could not even tidy up.
    left = tmp_path / "out" / ".set.unpacking"
    (left / "top").mkdir(parents=True)
    (left / "top" / "a.txt").write_text("half")
    assert tree(unpack(tar(*FILES)))["top/a.txt"] == b"a" * 700


def test_two_at_once_do_not_lose_files(unpack, tmp_path):
    """The second process is told, and takes nothing away from the first."""
    told = []

    def again():
        try:
            extract(tmp_path / "in" / "a.bin", tmp_path / "out" / "set")
        except DataError as error:
            told.append(str(error))

    def second(done, total):
        thread = threading.Thread(target=again)
        thread.start()
        thread.join()

    members = [(f"{i}.txt", b"x") for i in range(9)]
    assert len(tree(unpack(tar(*members), progress=second))) == 9
    place = tmp_path / "out" / "set"
    assert set(told) == {f"{place}: another process is unpacking here. Wait for it, or end it."}
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_in_a_zip_is_told_as_damage(unpack, method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        out.writestr("a.txt", random.Random(1).randbytes(300))
    data = buffer.getvalue()
    for at in range(60, len(data) - 80, 7):
        with pytest.raises(DataError, match="damaged"):
            unpack(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])


def test_a_lone_surrogate_is_no_name():
    assert plain_path("a/\ud800") is None
    assert str(plain_path("a/\udcff")) == "a/\udcff", "a byte of a name that is not UTF-8"


def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match="this is not a file; got a pipe"):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_a_folder_stopped_half_way_of_moving_does_not_count(unpack, tmp_path, monkeypatch):
    target = tmp_path / "out" / "set"
    target.mkdir(parents=True)
    (target / "list.txt").write_text("x")
    real = Path.replace

    def replace(self, to):
        if self.name == "b":
            raise Stopped
        return real(self, to)

    monkeypatch.setattr(Path, "replace", replace)
    data = tar(("a/1.jpg", b"1"), ("b/2.jpg", b"2"))
    with pytest.raises(Stopped):
        unpack(data)
    assert (target / "a" / "1.jpg").exists()
    assert not contains(target, ["a/*.jpg"])
    monkeypatch.undo()
    unpack(data)
    assert contains(target, ["a/*.jpg", "b/*.jpg"])


def test_a_file_in_the_way_of_a_folder_is_named(unpack, tmp_path):
    target = tmp_path / "out" / "set"
    target.mkdir(parents=True)
    (target / "a").write_text("mine")
    with pytest.raises(DataError) as error:
        extract(written(tmp_path, tar(("a/1.jpg", b"1"))), target)
    assert (
        str(error.value)
        == f"{target}/a: the archive has a file instead of a folder here, or the reverse. Move it out of the way."
    )


def written(tmp_path, data):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    return path


def test_progress_counts_the_archives_bytes(tmp_path):
    seen = []
    path = written(tmp_path, tgz(("a", random.Random(4).randbytes(3 << 20)), ("b", b"b")))
    extract(path, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert {total for _, total in seen} == {size}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (size, size)
    assert len(seen) > 3


def test_modes_owners_and_times_of_the_archive_are_not_taken(unpack):
    info = tarfile.TarInfo("a")
    info.mode, info.mtime, info.uid = 0o6777, 0, 12345
    out = unpack(tar(info)) / "a"
    assert not out.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def test_zip_offsets_that_point_nowhere_are_damage(unpack):
    data = bytearray(zipped(("a", b"x" * 50)))
    at = data.index(b"PK\x01\x02")
    data[at + 42 : at + 46] = struct.pack("<I", 0xFFFFFF00)
    assert refused(unpack, bytes(data)).startswith("it is damaged or not an archive; got ")
