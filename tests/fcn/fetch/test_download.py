import contextlib
import dataclasses
import errno
import gzip
import hashlib
import io
import multiprocessing
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request

import pytest

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, WeightsError
from reproduction.fcn import datasets
from reproduction.fcn.fetch import local_files, partial_file, web
from reproduction.fcn.fetch.download import fetch_entry
from reproduction.fcn.fetch.file_sources import FileSource, list_sources
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.fetch.manifest import Entry, EntryKind, Mirror, UnpackedArchive
from reproduction.fcn.fetch.transfer import RetryPolicy
from tests.fcn.fetch.test_archives import tar, tgz, zipped
from tests.helpers import dataset_trees, http_servers
from tests.helpers.http_servers import corrupt, drop, headed, lie, no_range, page, redirect, slow, status, swap, without

DATA = random.Random(0).randbytes(300_000)
SHA1 = hashlib.sha1(DATA).hexdigest()
SHA256 = hashlib.sha256(DATA).hexdigest()
BY_HAND = (
    "Put it there by hand (`fcn fetch --offline-list` names all files), or name a mirror with --mirror "
    f"or REPRODUCTION_MIRROR. {local_files.WITHOUT_DOWNLOAD}"
)
KNOWN = {"sha1": SHA1, "size_bytes": len(DATA)}


def mirrored(*urls):
    return tuple(Mirror(url, "a test") for url in urls)


def fetch_file(item, root, *, progress=None, **options):
    """Fetch an entry below one folder; return its path."""
    if progress:
        options["progress"] = lambda what: progress
    return fetch_entry(item, FileRoots(root, root), **options).path


@pytest.fixture
def site():
    with http_servers.serve() as site:
        yield site


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch):
    monkeypatch.delenv("REPRODUCTION_MIRROR", raising=False)


class Pauses(list):
    """What a download would have slept."""

    def patience(self, **options):
        return RetryPolicy(**{"timeout_s": 5.0, "tries": 3, "sleep": self.append, **options})


@pytest.fixture
def pauses():
    return Pauses()


def entry(url, **fields):
    base = {"name": "net", "kind": EntryKind.CAFFEMODEL, "path": "f.caffemodel", "licence": "not stated"}
    return Entry(**{**base, "url": url, **fields})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def failure(tmp_path, pauses, item, **options):
    with pytest.raises((WeightsError, DataError)) as error:
        fetch_file(item, tmp_path, patience=pauses.patience(), **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def cannot(tmp_path, *problems):
    return f"{tmp_path}/f.caffemodel: it cannot be fetched; {'; '.join(problems)}. {BY_HAND}"


# What goes well


def test_a_file_is_fetched_checked_and_put_in_place_whole(site, tmp_path):
    seen = []
    item = entry(site.add("f", DATA), path="deep/er/f.caffemodel", **KNOWN)
    path = fetch_file(item, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "deep/er/f.caffemodel"
    assert path.read_bytes() == DATA
    assert names(path.parent) == ["f.caffemodel"]
    assert {total for _, total in seen} == {len(DATA)}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == len(DATA)


def test_a_file_that_is_there_is_checked_and_not_fetched_again(site, tmp_path):
    item = entry(site.add("f", DATA), **KNOWN)
    fetch_file(item, tmp_path)
    fetch_file(item, tmp_path)
    assert len(site.requests) == 1
    (tmp_path / "f.caffemodel").write_bytes(DATA[:-1] + b"x")
    with pytest.raises(WeightsError, match="its sha1 is wrong"):
        fetch_file(item, tmp_path)
    assert (tmp_path / "f.caffemodel").exists(), "what the user put there is the user's to delete"


def test_a_file_of_unknown_hash_is_recorded_and_held_to_it(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, swap(DATA), swap(b"published anew")))
    roots = FileRoots(tmp_path, tmp_path)
    got = fetch_entry(item, roots)
    assert (got.how, got.path) == ("fetched", tmp_path / "f.caffemodel")
    assert got.checked == f"no hash is published; sha256 {SHA256} recorded from now on"
    assert names(tmp_path) == ["f.caffemodel", "f.caffemodel.sha256"]
    got = fetch_entry(item, roots)
    assert (got.how, got.checked) == ("present", "sha256 as recorded")
    (tmp_path / "f.caffemodel").unlink()
    now = hashlib.sha256(b"published anew").hexdigest()
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path, f"{site.url}/f: its sha256 is wrong; got {now}, want {SHA256} (recorded in f.caffemodel.sha256)"
    )
    assert names(tmp_path) == ["f.caffemodel.sha256"]


def test_a_record_that_is_no_hash_is_found_before_the_bytes_are_fetched(site, tmp_path, pauses):
    (tmp_path / "f.caffemodel.sha256").write_text("?")
    assert failure(tmp_path, pauses, entry(site.add("f", DATA))).startswith(
        f"{tmp_path}/f.caffemodel.sha256: it does not contain a SHA-256"
    )
    assert not site.requests


def test_redirects_are_followed(site, tmp_path):
    url = site.add("old", b"", redirect("/new", 301))
    site.add("new", DATA, redirect(f"{site.url}/newer", 308))
    site.add("newer", DATA)
    assert fetch_file(entry(url, **KNOWN), tmp_path).read_bytes() == DATA


# Connections that break


def test_a_dropped_connection_goes_on_where_it_broke(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, drop(after=100_000), drop(after=50_000)), **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.range for request in site.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert all(request.if_range for request in site.requests[1:])
    assert pauses == [1.0, 2.0]


def test_a_run_that_was_stopped_goes_on_where_it_was(site, tmp_path, pauses):
    class Stopped(BaseException):
        pass

    def stop(done, total):
        if done > 100_000:
            raise Stopped

    item = entry(site.add("f", DATA, slow(0.0, chunk=1 << 14)))
    with pytest.raises(Stopped):
        fetch_file(item, tmp_path, progress=stop)
    assert names(tmp_path) == ["f.caffemodel.part", "f.caffemodel.part.json"]
    have = (tmp_path / "f.caffemodel.part").stat().st_size
    assert fetch_file(item, tmp_path).read_bytes() == DATA
    assert site.requests[-1].range == f"bytes={have}-"
    assert names(tmp_path) == ["f.caffemodel", "f.caffemodel.sha256"]


def test_a_server_that_ignores_range_starts_anew(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, drop(after=100_000), no_range), **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert site.requests[1].range == "bytes=100000-"


def test_a_file_that_changed_in_between_starts_anew(site, tmp_path, pauses):
    def changed(answer):
        swap(DATA[::-1])(answer)
        drop(50_000)(answer)

    item = entry(site.add("f", DATA, changed))
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert site.requests[1].range == "bytes=50000-"
    assert site.requests[1].if_range is not None


def test_without_a_validator_only_a_hash_makes_resuming_safe(site, tmp_path, pauses):
    def anonymous(answer):
        without("ETag")(answer)
        drop(50_000)(answer)

    url = site.add("f", DATA, anonymous, without("ETag"), anonymous, without("ETag"))
    fetch_file(entry(url), tmp_path / "a", patience=pauses.patience())
    assert [request.range for request in site.requests] == [None, None]
    fetch_file(entry(url, **KNOWN), tmp_path / "b", patience=pauses.patience())
    assert [request.range for request in site.requests[2:]] == [None, "bytes=50000-"]


def test_bytes_that_do_not_fit_together_are_fetched_once_more(site, tmp_path, pauses):
    (tmp_path / "f.caffemodel.part").write_bytes(b"x" * 1000)
    item = entry(site.add("f", DATA), **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.range for request in site.requests] == ["bytes=1000-", None]


def test_a_part_that_is_longer_than_the_file_starts_anew(site, tmp_path, pauses):
    (tmp_path / "f.caffemodel.part").write_bytes(DATA + b"x")
    assert fetch_file(entry(site.add("f", DATA), sha1=SHA1), tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.range for request in site.requests] == [f"bytes={len(DATA) + 1}-", None]


def test_a_part_that_is_whole_is_not_fetched_again(site, tmp_path):
    (tmp_path / "f.caffemodel.part").write_bytes(DATA)
    assert fetch_file(entry(site.add("f", DATA), **KNOWN), tmp_path).read_bytes() == DATA
    assert not site.requests


def test_tries_are_bounded_and_what_came_is_kept(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, always=drop(after=1000)), **KNOWN)
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path, f"{site.url}/f: the connection ended at 3,000 of 300,000 bytes, 3 times"
    )
    assert pauses == [1.0, 2.0]
    assert (tmp_path / "f.caffemodel.part").stat().st_size == 3000


def test_tries_that_bring_much_do_not_count(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, always=drop(after=30_000)), **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience(worth_bytes=20_000)).read_bytes() == DATA
    assert len(site.requests) == 10
    assert set(pauses) == {1.0}


def test_a_server_that_falls_silent_is_left(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, always=slow(0.5)), **KNOWN)
    with pytest.raises(WeightsError) as error:
        fetch_file(item, tmp_path, patience=pauses.patience(timeout_s=0.05, tries=2))
    assert str(error.value) == cannot(tmp_path, f"{site.url}/f: the connection broke at 0 bytes (timed out), 2 times")
    assert names(tmp_path) == []


def test_passing_errors_are_tried_again_and_lasting_ones_are_not(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, status(503), status(429)), **KNOWN)
    assert fetch_file(item, tmp_path / "a", patience=pauses.patience()).read_bytes() == DATA
    assert pauses == [1.0, 2.0]
    item = entry(site.add("g", DATA, status(404)), **KNOWN)
    assert failure(tmp_path, pauses, item) == cannot(tmp_path, f"{site.url}/g: the server answered 404 Not Found")
    assert len(pauses) == 2


def test_a_host_that_is_not_there_is_not_waited_for(tmp_path, pauses):
    with http_servers.serve() as site:
        url = site.add("f", DATA)
    assert failure(tmp_path, pauses, entry(url)) == cannot(
        tmp_path, f"{url}: the server cannot be reached (connection refused)"
    )
    assert not pauses


# Bytes that are wrong


def test_wrong_bytes_are_removed_and_the_next_source_is_asked(site, tmp_path, pauses):
    item = entry(
        site.add("f", DATA, always=corrupt),
        mirrors=mirrored(
            site.add("mirror/f", DATA),
        ),
        **KNOWN,
    )
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.path for request in site.requests] == ["/f", "/mirror/f"]
    assert names(tmp_path) == ["f.caffemodel"]


def test_when_every_source_is_wrong_all_of_them_are_named(site, tmp_path, pauses):
    wrong = bytearray(DATA)
    wrong[len(wrong) // 2] ^= 0xFF
    item = entry(site.add("f", DATA, corrupt), mirrors=mirrored(site.add("m", DATA, page), site.url + "/none"), **KNOWN)
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path,
        f"{site.url}/f: its sha1 is wrong; got {hashlib.sha1(wrong).hexdigest()}, want {SHA1}",
        f"{site.url}/m: it answered with a web page, not the file",
        f"{site.url}/none: the server answered 404 Not Found",
    )
    assert names(tmp_path) == []


def test_a_web_page_is_recognised_by_its_bytes_too(site, tmp_path, pauses):
    def disguised(answer):
        page(answer)
        answer.headers["Content-Type"] = "application/octet-stream"

    item = entry(site.add("f", DATA, disguised))
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path, f"{site.url}/f: it answered with a web page, not the file"
    )


@pytest.mark.parametrize(
    ("fields", "length", "want"),
    [
        ({"size_bytes": 300_000}, 299_999, "300,000 bytes"),
        ({"size_bytes": 300_000}, 10**15, "300,000 bytes"),
        ({"payload_bytes": 299_000}, 298_999, "299,000 to 364,536 bytes"),
        ({"payload_bytes": 299_000}, 364_537, "299,000 to 364,536 bytes"),
        ({}, 10**15, "size not published"),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_the_bytes_come(site, tmp_path, pauses, fields, length, want):
    item = entry(site.add("f", DATA, always=lie(length)), **fields)
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path, f"{site.url}/f: its size is wrong; got {length:,} bytes, want {want}"
    )
    assert names(tmp_path) == []


def test_a_length_that_promises_too_much_ends(site, tmp_path, pauses):
    item = entry(site.add("f", DATA, always=lie(len(DATA) + 5)))
    assert "300,000 of 300,005 bytes" in failure(tmp_path, pauses, item)


def test_a_server_that_never_stops_is_cut_off(site, tmp_path, pauses):
    item = entry(
        site.add("f", DATA + b"more", without("Content-Length"), without("Content-Length")), size_bytes=len(DATA)
    )
    assert failure(tmp_path, pauses, item) == cannot(tmp_path, f"{site.url}/f: it sends more than 300,000 bytes")
    assert names(tmp_path) == []


def test_a_server_that_promises_nothing_is_believed_at_its_end(site, tmp_path):
    item = entry(site.add("f", DATA, without("Content-Length")))
    assert fetch_file(item, tmp_path).read_bytes() == DATA


def test_another_part_than_was_asked_for_is_not_added(site, tmp_path, pauses):
    def shifted(answer):
        answer.status, answer.ranges = 206, False
        answer.headers["Content-Range"] = f"bytes 0-299999/{len(DATA)}"

    item = entry(site.add("f", DATA, drop(1000), shifted), **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.range for request in site.requests] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/f", "gopher://x/y", "http://[/"])
def test_redirects_lead_to_the_web_alone(site, tmp_path, pauses, location):
    message = failure(tmp_path, pauses, entry(site.add("f", DATA, always=redirect(location))))
    assert message.startswith(f"{tmp_path}/f.caffemodel: it cannot be fetched; {site.url}/f: ")
    assert not pauses
    assert names(tmp_path) == []


def test_a_redirect_in_circles_ends_in_one_line(site, tmp_path, pauses):
    message = failure(tmp_path, pauses, entry(site.add("f", DATA, always=redirect("/f"))))
    assert "the server answered 302 The HTTP server returned a redirect error" in message


def test_what_is_no_http_server_is_said_to_be_none(tmp_path, pauses):
    def serve(listener):
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"220 smtp ready\r\n\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        message = failure(tmp_path, pauses, entry(url))
        thread.join()
    assert message == cannot(tmp_path, f"{url}: the server does not speak HTTP (BadStatusLine)")


@pytest.fixture
def talker(monkeypatch):
    """Start a server that is nothing but a function of its connection, called for each; returns its URL."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listeners = []

    def start(talk):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/f"

    yield start
    for listener in listeners:
        listener.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nConnection: close\r\n\r\n"


def interim_for_ever(connection):
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def headers_for_ever(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n" * 100)


def trickled(data):
    def talk(connection):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
        time.sleep(5)

    return talk


def frames_for_ever(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    while True:
        connection.sendall(b"X: y\r\n" * 100)


def redirect_with_a_body_for_ever(connection):
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/f\r\n\r\n")
    while True:
        connection.sendall(b"x" * 1000)


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (interim_for_ever, "the server does not speak HTTP (HTTPException)"),
        (headers_for_ever, "the server does not speak HTTP (HTTPException)"),
        (trickled(OK), "the connection broke (timed out), 2 times"),
        (trickled(OK[:-2] + b"\r\n" * 999), "the connection broke (timed out), 2 times"),
        (lambda c: c.sendall(OK) or trickled(DATA)(c), "it sends less than 1,024 bytes in 0.3 s, 2 times"),
        (frames_for_ever, "the connection broke at 0 bytes (HTTPException), 2 times"),
        (redirect_with_a_body_for_ever, "the server cannot be reached (connection refused)"),
    ],
    ids=["interim", "headers", "trickled", "trickled blank", "trickled body", "frames", "redirect"],
)
def test_a_server_that_never_ends_is_given_up(talker, tmp_path, pauses, talk, why):
    item = entry(talker(talk))
    began = time.monotonic()
    with pytest.raises(WeightsError) as error:
        fetch_file(item, tmp_path, patience=pauses.patience(timeout_s=0.3, tries=2))
    assert f"/f: {why}." in str(error.value)
    assert time.monotonic() - began < 4


def test_interim_answers_are_skipped(talker, tmp_path):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    item = entry(talker(lambda connection: connection.sendall(early + OK + DATA)), **KNOWN)
    assert fetch_file(item, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_an_encoding_that_was_not_asked_for_is_not_the_file(site, tmp_path, pauses, encoding):
    packed = gzip.compress(DATA)
    item = entry(site.add("f.bin", packed, always=headed(**{"Content-Encoding": encoding})))
    assert failure(tmp_path, pauses, item) == cannot(
        tmp_path, f"{site.url}/f.bin: it sends the file in an encoding that was not asked for ({encoding!r})"
    )
    item = entry(site.add("f.tgz", packed, always=headed(**{"Content-Encoding": "x-gzip"})))
    assert fetch_file(item, tmp_path).read_bytes() == packed, "a compressed file under the name of its compression"


def stubborn(body, **headers):
    """Serve a range of this file whatever If-Range asks for."""

    def fault(answer):
        answer.body, answer.ignore_if_range = body, True
        answer.headers.update(headers)

    return fault


@pytest.mark.parametrize(
    "second",
    [
        stubborn(DATA[::-1], ETag='"2"'),
        stubborn(DATA[::-1], ETag=""),
        stubborn(DATA[::-1] + b"x", ETag='"1"'),
    ],
    ids=["another tag", "no tag", "another size"],
)
def test_a_file_that_changes_while_it_is_fetched_is_fetched_again(site, tmp_path, pauses, second):
    def first(answer):
        answer.headers["ETag"] = '"1"'
        drop(after=1000)(answer)

    item = entry(site.add("f", DATA, first, second))
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [request.range for request in site.requests] == [None, "bytes=1000-", None]


def test_a_redirect_never_leaves_encryption():
    request = Request("https://h/f")
    with pytest.raises(web.RefusedRedirectError, match="it redirects from https to 'http://h/f'"):
        web._Redirect().redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://h/f")


# Everything at once

OTHER = random.Random(9).randbytes(len(DATA) // 10)
SMALL = DATA[: len(OTHER)]


def chaos(chance, *faults):
    """Choose faults for a few requests, now and then two at once."""

    def both(first, second):
        def fault(answer):
            first(answer)
            second(answer)

        return fault

    chosen = []
    for _ in range(chance.randrange(5)):
        fault = chance.choice(faults)
        if chance.random() < 0.3:
            fault = both(fault, drop(chance.randrange(len(SMALL))))
        chosen.append(fault)
    return chosen


def test_whatever_servers_do_only_the_right_file_takes_the_name(tmp_path):
    chance = random.Random(5)
    ended = {True: 0, False: 0}
    for number in range(120):
        with http_servers.serve() as site:
            faults = (
                corrupt,
                page,
                no_range,
                status(404),
                status(503),
                swap(OTHER),
                without("ETag"),
                lie(len(SMALL) + 9),
            )
            urls = [site.add(f"{i}", SMALL, *chaos(chance, *faults, drop(chance.randrange(9999)))) for i in range(2)]
            size = {"size_bytes": len(SMALL)} if chance.random() < 0.5 else {}
            item = entry(
                urls[0],
                mirrors=mirrored(
                    urls[1],
                ),
                sha1=hashlib.sha1(SMALL).hexdigest(),
                **size,
            )
            target = tmp_path / str(number) / "f.caffemodel"
            done = attempt(item, target.parent)
            ended[done] += 1
            assert target.exists() == done
            assert not done or target.read_bytes() == SMALL
    assert ended[True] > 40
    assert ended[False] > 5


def test_without_a_hash_two_versions_are_never_put_together(tmp_path):
    chance = random.Random(6)
    seen = set()
    for number in range(60):
        with http_servers.serve() as site:
            faults = (swap(OTHER), no_range, without("ETag"), drop(chance.randrange(len(SMALL))))
            item = entry(site.add("f", SMALL, *chaos(chance, *faults)))
            target = tmp_path / str(number) / "f.caffemodel"
            if attempt(item, target.parent):
                seen.add(target.read_bytes())
    assert seen == {SMALL, OTHER}


def attempt(item, folder):
    try:
        fetch_file(item, folder, patience=RetryPolicy(tries=4, sleep=lambda seconds: None))
    except WeightsError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return False
    return True


# Mirrors


def test_a_mirror_is_asked_first_as_the_project_lies_then_by_name(monkeypatch):
    item = entry(
        "http://h/x/f%20g.caffemodel",
        path="a b.caffemodel",
        mirrors=mirrored(
            "http://m/f",
        ),
    )
    assert [source.place for source in list_sources(item, "http://mirror/base/")] == [
        "http://mirror/base/weights/a%20b.caffemodel",
        "http://mirror/base/f%20g.caffemodel",
        "http://h/x/f%20g.caffemodel",
        "http://m/f",
    ]
    monkeypatch.setenv("REPRODUCTION_MIRROR", "http://env")
    assert list_sources(entry("http://h/test.txt", kind=EntryKind.LIST, path="nyud/test.txt")) == [
        FileSource("http://env/data/nyud/test.txt", "your mirror"),
        FileSource("http://env/test.txt", "your mirror"),
        FileSource("http://h/test.txt", "the publisher"),
    ]


REPOSITORY = "hf:owner/name or hf:datasets/owner/name"
MIRRORS = "http://, https://, hf:owner/name or a folder"


@pytest.mark.parametrize("repository", ["lab/fcn", "datasets/lab/fcn-2.0"])
def test_a_repository_of_hugging_face_is_a_mirror(monkeypatch, repository):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    item = entry("http://h/f.caffemodel")
    assert [source.place for source in list_sources(item, f"hf:{repository}")] == [
        f"https://huggingface.co/{repository}/resolve/main/weights/f.caffemodel",
        f"https://huggingface.co/{repository}/resolve/main/f.caffemodel",
        "http://h/f.caffemodel",
    ]


def test_a_repository_on_the_hub_is_fetched_from_its_storage_and_resumed(site, tmp_path, pauses, monkeypatch):
    # As the hub does: large files are elsewhere, at addresses that differ from one request to the next.
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/hub/")
    monkeypatch.setenv("REPRODUCTION_MIRROR", "hf:lab/fcn")
    site.add("storage/1", DATA, drop(after=100_000))
    site.add("storage/2", DATA)
    asked = site.add("hub/lab/fcn/resolve/main/f.caffemodel", b"", redirect("/storage/1"), redirect("/storage/2"))
    item = entry("http://unreachable.invalid/f.caffemodel", **KNOWN)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert [(request.path, request.range) for request in site.requests] == [
        ("/hub/lab/fcn/resolve/main/weights/f.caffemodel", None),
        (asked.removeprefix(site.url), None),
        ("/storage/1", None),
        (asked.removeprefix(site.url), "bytes=100000-"),
        ("/storage/2", "bytes=100000-"),
    ]


def test_a_wrong_file_on_the_hub_is_passed_over(site, tmp_path, pauses, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    site.add("lab/fcn/resolve/main/weights/f.caffemodel", DATA, always=corrupt)
    item = entry(site.add("f", DATA), **KNOWN)
    assert fetch_file(item, tmp_path, mirror="hf:lab/fcn", patience=pauses.patience()).read_bytes() == DATA


def test_a_mirror_that_lacks_the_file_is_passed_over(site, tmp_path, pauses):
    item = entry(site.add("f", DATA), **KNOWN)
    assert fetch_file(item, tmp_path, mirror=f"{site.url}/mirror", patience=pauses.patience()).read_bytes() == DATA
    assert [request.path for request in site.requests] == ["/mirror/weights/f.caffemodel", "/mirror/f", "/f"]


@pytest.mark.parametrize("place", ["weights/f.caffemodel", "g.caffemodel"])
def test_a_folder_can_be_a_mirror(tmp_path, place):
    source = tmp_path / "stick" / place
    source.parent.mkdir(parents=True)
    source.write_bytes(DATA)
    seen = []
    item = entry("http://unreachable.invalid/g.caffemodel", **KNOWN)
    target = fetch_file(
        item, tmp_path / "w", mirror=str(tmp_path / "stick"), progress=lambda done, total: seen.append((done, total))
    )
    assert target.read_bytes() == DATA
    assert source.exists()
    assert seen[-1] == (len(DATA), len(DATA))


def test_a_folder_with_wrong_bytes_or_none_is_passed_over_and_keeps_what_came(site, tmp_path, pauses):
    (tmp_path / "stick").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "f.caffemodel.part").write_bytes(DATA[:1000])
    item = entry(site.add("f", DATA), **KNOWN)
    mirror = str(tmp_path / "stick")
    assert fetch_file(item, tmp_path / "w", mirror=mirror).read_bytes() == DATA
    assert site.requests[0].range == "bytes=1000-"
    (tmp_path / "stick" / "f.caffemodel").write_bytes(DATA[:-1])
    item = entry(site.url + "/none", path="g.caffemodel", **KNOWN)
    (tmp_path / "stick" / "none").write_bytes(DATA[:-1] + b"x")
    wrong = hashlib.sha1(DATA[:-1] + b"x").hexdigest()
    assert f"{mirror}/none: its sha1 is wrong; got {wrong}, want {SHA1}" in failure(
        tmp_path / "w", pauses, item, mirror=mirror
    )


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("file:///mnt", f"the mirror is not an http address; got 'file:///mnt', want {MIRRORS}."),
        ("/no/such", f"/no/such: the mirror is not a folder; want {MIRRORS}."),
        *(
            (
                text,
                f"the mirror is not a repository of Hugging Face; got {text!r}, want {REPOSITORY}.",
            )
            for text in ("hf:", "hf:fcn", "hf:a/b/c", "hf:a/b?c", "hf://a/b")
        ),
    ],
)
def test_a_mirror_that_is_none_is_refused(tmp_path, pauses, mirror, message):
    assert failure(tmp_path, pauses, entry("http://unreachable.invalid/f"), mirror=mirror) == message
    assert names(tmp_path) == []


# Disks


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(site, tmp_path, pauses, monkeypatch):
    real = partial_file.PartialFile.write

    class Full:
        def __init__(self, file, room):
            self.file, self.room = file, room

        def write(self, view):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(view[: self.room])
            self.room -= taken
            return taken

        def __getattr__(self, name):
            return getattr(self.file, name)

    def write(self, block, total):
        if not isinstance(self._file, Full):
            self._file = Full(self._file, room=123_456)
        real(self, block, total)

    item = entry(
        site.add("f", DATA),
        mirrors=mirrored(
            site.add("m", DATA),
        ),
        **KNOWN,
    )
    with monkeypatch.context() as patch:
        patch.setattr(partial_file.PartialFile, "write", write)
        assert failure(tmp_path, pauses, item) == (
            f"{tmp_path}/f.caffemodel.part: it cannot be written (no space left on device); 123,456 bytes are here, "
            "176,544 are missing. Free some space and run it again to resume."
        )
    assert len(site.requests) == 1, "another mirror would not help"
    assert fetch_file(item, tmp_path).read_bytes() == DATA
    assert site.requests[-1].range == "bytes=123456-"


def test_a_limit_on_file_sizes_is_met_the_same_way(site, tmp_path):
    script = f"""
        from pathlib import Path
        from reproduction.fcn.fetch.download import fetch_entry
        from reproduction.fcn.fetch.local_files import FileRoots
        from reproduction.fcn.fetch.manifest import Entry, EntryKind
        item = Entry("net", EntryKind.CAFFEMODEL, {site.add("f", DATA)!r}, "f", "", size_bytes={len(DATA)})
        try:
            fetch_entry(item, FileRoots(Path({str(tmp_path)!r}), Path({str(tmp_path)!r})))
        except ValueError as error:
            print(error, end="")
    """
    limit = (100_000, 100_000)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(Path(local_files.__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        f"{tmp_path}/f.part: it cannot be written (file too large); 100,000 bytes are here, 200,000 are missing. "
        "Free some space and run it again to resume."
    )


def test_what_cannot_fit_is_not_begun(site, tmp_path, pauses, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert failure(tmp_path, pauses, entry(site.add("f", DATA))) == (
        f"{tmp_path}/f.caffemodel: the disk has too little space for it; got 1,000 bytes free, want 300,000. "
        "Free some space, or choose another folder with --weights or --data."
    )


def test_two_at_once_do_not_write_one_file(site, tmp_path, pauses):
    item = entry(site.add("f", DATA), **KNOWN)
    with partial_file.PartialFile(tmp_path / "f.caffemodel", item):
        assert failure(tmp_path, pauses, item) == (
            f"{tmp_path}/f.caffemodel.part: another process is fetching it. Wait for it."
        )
    assert fetch_file(item, tmp_path).read_bytes() == DATA


def test_a_process_that_comes_late_to_the_lock_takes_nothing_from_the_finished_file(
    site, tmp_path, pauses, monkeypatch
):
    """Another process fetches the file between our opening of the lock and our locking."""
    item = entry(site.add("f", DATA, swap(DATA), swap(DATA[::-1])))
    real, calls = locks.try_lock, []

    def late(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            fetch_file(item, tmp_path, patience=pauses.patience())
        return real(descriptor)

    monkeypatch.setattr(locks, "try_lock", late)
    assert fetch_file(item, tmp_path, patience=pauses.patience()).read_bytes() == DATA
    assert len(site.requests) == 1
    assert names(tmp_path) == ["f.caffemodel", "f.caffemodel.sha256"]


def fetched(name, queue, item, folder):
    try:
        queue.put((name, fetch_entry(item, FileRoots(folder, folder)).how))
    except DataError as error:
        queue.put((name, error.problem))


def test_two_processes_provide_one_archive(site, tmp_path):
    data = tar(*((f"top/{i}.txt", b"x" * 500) for i in range(300)))
    url = site.add("a.tar", data, slow(0.01, chunk=10_000))
    item = entry(url, kind=EntryKind.ARCHIVE, path="a.tar", archive=UnpackedArchive("set", ("*.txt",)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=fetched, args=(name, queue, item, tmp_path)) for name in "ab"]
    for process in both:
        process.start()
    said = sorted(queue.get()[1] for _ in both)
    for process in both:
        process.join()
    assert said == ["another process is fetching or unpacking it", "unpacked"]
    assert len(names(tmp_path / "set")) == 300
    assert names(tmp_path) == ["a.tar", "a.tar.sha256", "set"]
    assert fetch_entry(item, FileRoots(tmp_path, tmp_path)).how == "present"


# Archives


@pytest.mark.parametrize("make", [tar, tgz, zipped])
def test_an_archive_is_fetched_and_unpacked_once(site, tmp_path, make):
    roots = FileRoots(tmp_path / "weights", tmp_path / "data")
    unpacked = UnpackedArchive("pascal/VOC2011", ("JPEGImages/*.jpg",))
    url = site.add("voc", make(("VOCdevkit/VOC2011/JPEGImages/1.jpg", b"jpeg")))
    item = entry(url, name="voc2011", kind=EntryKind.ARCHIVE, path="archives/voc", archive=unpacked)
    doing = []

    def progress(what):
        doing.append(what)
        return lambda done, total: None

    got = fetch_entry(item, roots, progress=progress)
    assert (got.how, got.path) == ("unpacked", tmp_path / "data/pascal/VOC2011")
    assert "recorded from now on" in got.checked
    assert (got.path / "JPEGImages/1.jpg").read_bytes() == b"jpeg"
    assert doing == ["voc", "unpacking voc"]
    assert fetch_entry(item, roots).how == "present"
    assert len(site.requests) == 1
    assert (tmp_path / "data/archives/voc").exists()


def test_an_archive_can_be_deleted_when_it_is_unpacked(site, tmp_path):
    unpacked = UnpackedArchive("set", ("*.txt",))
    item = entry(site.add("a", tar(("a.txt", b"a"))), kind=EntryKind.ARCHIVE, path="archives/a.tar", archive=unpacked)
    fetch_entry(item, FileRoots(tmp_path, tmp_path), keep_archive=False)
    assert names(tmp_path / "archives") == ["a.tar.sha256"]
    assert names(tmp_path / "set") == ["a.txt"]


def test_a_tree_that_the_user_has_is_taken_as_it_is(site, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("x")
    item = entry(site.url + "/none", kind=EntryKind.ARCHIVE, path="a.tar", archive=UnpackedArchive("set", ("*.txt",)))
    assert fetch_entry(item, FileRoots(tmp_path, tmp_path)).how == "present"
    assert not site.requests


IDS = ["2007_000033", "2007_000042"]
PUBLISHED = {
    # entry: what its archive holds, and how the data set is then opened
    "voc2011": (lambda at: dataset_trees.voc(at / "TrainVal/VOCdevkit/VOC2011", {"val": IDS}), "voc2011", "val"),
    "voc2012": (lambda at: dataset_trees.voc(at / "VOCdevkit/VOC2012", {"val": IDS}), "voc2012", "val"),
    "sbd": (lambda at: dataset_trees.sbd(at / "benchmark_RELEASE/dataset", {"train": IDS}), "sbd", "train"),
    "nyud": (lambda at: dataset_trees.nyud(at / "nyud", {"test": IDS}), "nyud", "test"),
    "siftflow": (lambda at: dataset_trees.siftflow(at, {"test": IDS}), "siftflow", "test"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_manifest_unpacks_is_where_the_data_sets_look(site, tmp_path, name):
    published = local_files.load_manifest(local_files.MANIFEST)[name]
    write, dataset, split = PUBLISHED[name]
    write(tmp_path / "tree")
    archive = dataset_trees.pack(tmp_path / "tree", tmp_path / published.file_name)
    item = dataclasses.replace(
        published,
        url=site.add(published.file_name, archive),
        mirrors=(),
        size_bytes=None,
        md5=None,
        sha1=None,
        sha256=None,
    )
    fetch_entry(item, FileRoots(tmp_path / "weights", tmp_path / "data"))
    samples = datasets.open_split(dataset, split, tmp_path / "data")
    assert len(samples) == 2
    assert len(samples[0]) >= 2, "an image and its labels"


def test_pascal_context_is_found_with_its_images(site, tmp_path):
    manifest = local_files.load_manifest(local_files.MANIFEST)
    dataset_trees.voc(tmp_path / "voc/VOCdevkit/VOC2010", {"val": IDS}, main={"val": IDS})
    dataset_trees.context(tmp_path / "context", IDS)
    for name, tree in (("voc2010", "voc"), ("pascal-context", "context")):
        archive = dataset_trees.pack(tmp_path / tree, tmp_path / manifest[name].file_name)
        item = dataclasses.replace(manifest[name], url=site.add(name, archive), mirrors=(), md5=None)
        fetch_entry(item, FileRoots(tmp_path / "weights", tmp_path / "data"))
    assert len(datasets.open_split("pascalcontext", "val", tmp_path / "data")[0]) == 2


def test_urls_of_the_machine_itself_are_never_opened(tmp_path):
    for scheme in ("file", "ftp", "data"):
        with pytest.raises(Exception, match="unknown url type"):
            web.build_opener().open(f"{scheme}:///etc/passwd")
