import errno
import multiprocessing
import os
import socket
import threading
from pathlib import Path

import pytest

from reproduction.caffe import locks
from reproduction.caffe.errors import CaffemodelError, DataError, ReproductionError, WeightsError
from reproduction.caffe.formats import files

PART = ".0123456789abcdef.part"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- reading


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def bound(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("make", "got"),
    [(os.mkdir, "a folder"), (pipe, "a pipe"), (bound, "a socket"), (device, "a device")],
)
@pytest.mark.parametrize("error", [DataError, WeightsError, CaffemodelError])
@pytest.mark.parametrize("read", [files.open_regular, lambda path, error: files.read_regular(path, 9, error)])
def test_only_regular_files_are_read(make, got, error, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = Path("x")
    make(path)
    with pytest.raises(error) as caught:
        read(path, error)
    assert str(caught.value) == f"x: this is not a file; got {got}. Name a file on a disk."


def test_a_pipe_is_not_mapped(tmp_path):
    pipe(tmp_path / "x")
    with pytest.raises(CaffemodelError, match="this is not a file; got a pipe"):
        files.map_file(tmp_path / "x")


def test_a_file_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf12345")
    assert files.read_regular(path, 8) == path.read_bytes()
    assert files.read_text(path) == "12345"
    with pytest.raises(DataError, match=r"x: the file is too large; want at most 7 bytes\."):
        files.read_regular(path, 7)
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"x: this is not a text file; got byte 0xff at 2, want UTF-8\."):
        files.read_text(path)


# ---- writing


def test_parts_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path):
    old = [f".a.npz{PART}", f".b.png{PART}"]
    others = ["a.part", ".a.part", f".folder{PART}"]
    for name in (*old, *others[:2]):
        (tmp_path / name).touch()
    (tmp_path / others[2]).mkdir()
    with files.open_atomic(tmp_path / "c") as file:
        assert not set(old) & set(names(tmp_path))
        files.remove_parts(tmp_path)
        file.write(b"c")
    assert names(tmp_path) == sorted([*others, "c"])


def test_a_part_that_was_taken_for_an_old_one_is_made_again(tmp_path, monkeypatch):
    removed = []

    def first_swept(descriptor):
        if not removed:
            (part,) = tmp_path.glob(".*.part")
            removed.append(part)
            part.unlink()
        return True

    monkeypatch.setattr(locks, "try_lock", first_swept)
    with files.open_atomic(tmp_path / "c") as file:
        file.write(b"c")
    assert names(tmp_path) == ["c"]
    assert (tmp_path / "c").read_bytes() == b"c"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 256, "file name too long"), ("no/x", "no such file or directory"), ("a/x", "not a directory")],
)
def test_what_cannot_be_written_is_one_line_before_anything_is(name, reason, tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ReproductionError) as caught, files.open_atomic(tmp_path / name):
        pytest.fail("the file was opened")
    assert str(caught.value) == f"{tmp_path / name}: cannot be written: {reason}."


def test_a_loop_of_links_is_no_place_to_write(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(ReproductionError, match="cannot be written"), files.open_atomic(tmp_path / "a" / "b"):
        pass


# ---- locks


def hold_until_told(path, line):
    with locks.lock_file(path, "busy"):
        line.send("held")
        line.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock ``tmp_path/lock`` until it is told to end, or is killed."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=hold_until_told, args=(tmp_path / "lock", theirs))
    process.start()
    mine.recv()
    yield process, mine
    process.kill()
    process.join()


def test_a_second_process_is_told(other, tmp_path):
    with pytest.raises(DataError) as caught, locks.lock_file(tmp_path / "lock", "someone is here", place="there"):
        pass
    assert str(caught.value) == "there: someone is here. Wait for it, or end it."
    other[1].send("end")
    other[0].join()
    with locks.lock_file(tmp_path / "lock", "busy"):
        pass
    assert names(tmp_path) == []


def test_a_second_process_waits_if_it_wants_to(other, tmp_path):
    threading.Timer(0.2, other[1].send, ["end"]).start()
    with locks.lock_file(tmp_path / "lock", "busy", wait=True):
        other[0].join()
        assert names(tmp_path) == ["lock"]


def test_a_lock_of_a_killed_process_is_free(other, tmp_path):
    other[0].kill()
    other[0].join()
    assert names(tmp_path) == ["lock"]
    with locks.lock_file(tmp_path / "lock", "busy"):
        pass
    assert names(tmp_path) == []


def test_a_lock_is_reentrant_for_the_thread_that_holds_it_and_no_other(tmp_path):
    failures = []

    def second(*, reentrant):
        try:
            with locks.lock_folder(tmp_path, "busy", reentrant=reentrant):
                pass
        except DataError as error:
            failures.append(error.problem)

    with locks.lock_folder(tmp_path, "busy"), locks.lock_folder(tmp_path, "busy", reentrant=True):
        second(reentrant=False)
        thread = threading.Thread(target=second, kwargs={"reentrant": True})
        thread.start()
        thread.join()
    assert failures == ["busy", "busy"]
    assert names(tmp_path) == []


def test_a_lock_that_was_removed_meanwhile_is_not_the_lock(tmp_path, monkeypatch):
    """The process before removes the file between our open and our lock."""
    real, seen = locks.try_lock, []

    def late(descriptor):
        if not seen:
            (tmp_path / "lock").unlink()
        seen.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(locks, "try_lock", late)
    with locks.lock_file(tmp_path / "lock", "busy"):
        assert names(tmp_path) == ["lock"]
    assert len(seen) == 2


def test_a_folder_that_was_made_for_a_lock_goes_with_it_unless_something_is_in_it(tmp_path):
    with locks.lock_folder(tmp_path / "a" / "b", "busy"):
        assert names(tmp_path / "a" / "b") == [".lock"]
    assert names(tmp_path) == []
    with locks.lock_folder(tmp_path / "a" / "b", "busy"):
        (tmp_path / "a" / "x").touch()
    assert names(tmp_path / "a") == ["x"]


def test_where_nothing_can_be_written_a_lock_says_so(tmp_path):
    with pytest.raises(ReproductionError) as caught, locks.lock_path(tmp_path / "no" / "x", "busy"):
        pass
    assert str(caught.value) == f"{tmp_path}/no/x: cannot be written: no such file or directory."


def test_a_file_system_without_locks_is_used_as_it_is(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locks.lock_folder(tmp_path, "busy"):
        pass
    (tmp_path / f".a{PART}").touch()
    files.remove_parts(tmp_path)
    assert names(tmp_path) == [f".a{PART}"], "it may be another process's"


def test_staging_is_empty_whatever_was_there(tmp_path):
    left = tmp_path / ".set.unpacking"
    left.mkdir()
    (left / "x").touch()
    with files.staging_folder(tmp_path / "set", "unpacking") as folder:
        assert names(folder) == []
    left.write_text("a file")
    with files.staging_folder(tmp_path / "set", "unpacking") as folder:
        assert folder == left
    assert names(tmp_path) == []
