"""Sources that fail in the ways of real hosts: the next one is used, and one line says so."""

import hashlib
import random

import pytest

from reproduction.caffe.errors import DataError, WeightsError
from reproduction.fcn.fetch import availability, google_drive
from reproduction.fcn.fetch.download import fetch_entry
from reproduction.fcn.fetch.file_sources import FileSource, check_source
from reproduction.fcn.fetch.local_files import WITHOUT_DOWNLOAD, FileRoots
from reproduction.fcn.fetch.manifest import Entry, EntryKind, Manifest, Mirror, UnpackedArchive
from reproduction.fcn.fetch.transfer import RetryPolicy
from tests.fcn.fetch.test_archives import tar
from tests.helpers import http_servers
from tests.helpers.http_servers import corrupt, drop, page, redirect, slow, status

DATA = random.Random(0).randbytes(30_000)
SHA1 = hashlib.sha1(DATA).hexdigest()
QUICK = RetryPolicy(timeout_s=0.3, sleep=lambda seconds: None)


@pytest.fixture
def site():
    with http_servers.serve() as site:
        yield site


@pytest.fixture
def roots(tmp_path):
    return FileRoots(tmp_path / "weights", tmp_path / "data")


def weights(url, *mirrors, **fields):
    base = {"name": "net", "kind": EntryKind.CAFFEMODEL, "path": "f.caffemodel", "licence": "none", "sha1": SHA1}
    return Entry(url=url, mirrors=tuple(Mirror(url, "a test") for url in mirrors), **{**base, **fields})


def archive(name, url):
    return Entry(
        name=name,
        kind=EntryKind.ARCHIVE,
        url=url,
        path=f"archives/{name}.tar",
        licence="none",
        archive=UnpackedArchive(f"pascal/{name}", ("JPEGImages/*.jpg",)),
    )


def manifest(tmp_path, *entries):
    return Manifest(tmp_path / "m.json", {entry.name: entry for entry in entries}, {}, frozenset())


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (page, "it answered with a web page, not the file"),
        (status(403), "the server answered 403 Forbidden"),
        (status(404), "the server answered 404 Not Found"),
        (redirect("/login"), "it answered with a web page, not the file"),
        (slow(5.0), "nothing arrived within 0.3 s"),
        (corrupt, "its sha1 is wrong; got "),
    ],
    ids=["firewall page", "403", "404", "login", "silent", "wrong bytes"],
)
def test_the_next_source_is_used_and_one_line_says_so(site, roots, fault, problem):
    site.add("login", b"<html>Sign in</html>", always=page)
    url, mirror = site.add("f", DATA, always=fault), site.add("m", DATA)
    notes = []
    found = fetch_entry(weights(url, mirror), roots, note=notes.append, patience=QUICK)
    assert found.path.read_bytes() == DATA
    (line,) = notes
    assert line.startswith(f"net: {url}: {problem}")
    assert line.endswith(f"; trying {mirror} (a test)")


def test_a_dead_host_is_passed_over(site, roots):
    notes = []
    entry = weights("http://127.0.0.1:9/f", site.add("m", DATA))
    assert fetch_entry(entry, roots, note=notes.append, patience=QUICK).path.read_bytes() == DATA
    assert notes[0].startswith("net: http://127.0.0.1:9/f: the server cannot be reached (connection refused); trying ")


def test_the_last_source_is_asked_again_when_it_is_silent(site, roots):
    url = site.add("f", DATA, slow(5.0))
    assert fetch_entry(weights(url), roots, patience=QUICK).path.read_bytes() == DATA


def test_what_works_without_a_download_is_said(site, roots):
    with pytest.raises(WeightsError) as error:
        fetch_entry(weights(site.url + "/none"), roots)
    assert str(error.value).endswith(f" {WITHOUT_DOWNLOAD}")


def test_an_entry_that_serves_as_well_is_fetched_when_no_source_has_the_first(site, roots):
    first = archive("VOC2011", site.add("2011.tar", b"", always=page))
    second = archive("VOC2012", site.add("2012.tar", tar(("VOC2012/JPEGImages/1.jpg", b"j"))))
    notes = []
    found = fetch_entry(first, roots, alternatives=[second], note=notes.append)
    assert (found.entry, found.path) == (second, roots.data / "pascal/VOC2012")
    assert notes == ["VOC2011: VOC2012 is used instead"]


def test_an_entry_that_serves_as_well_and_is_present_is_used(site, roots):
    images = roots.data / "pascal/VOC2012/JPEGImages"
    images.mkdir(parents=True)
    (images / "1.jpg").touch()
    first, second = archive("VOC2011", site.url + "/2011.tar"), archive("VOC2012", site.url + "/2012.tar")
    assert fetch_entry(first, roots, alternatives=[second]).path == roots.data / "pascal/VOC2012"
    assert site.requests == []


def test_a_wrong_file_on_this_machine_is_not_replaced_by_another(site, roots):
    roots.weights.mkdir()
    (roots.weights / "f.caffemodel").write_bytes(b"wrong")
    copy = weights(site.add("c", DATA), name="copy", kind=EntryKind.COPY, path="c.pth")
    with pytest.raises(WeightsError, match="its sha1 is wrong"):
        fetch_entry(weights(site.url + "/f"), roots, alternatives=[copy])
    assert site.requests == []


def test_the_table_says_what_is_present_what_will_be_fetched_and_what_cannot_be_had(site, roots, tmp_path):
    roots.weights.mkdir()
    (roots.weights / "here.caffemodel").write_bytes(DATA)
    here = weights("http://h/here", name="here", path="here.caffemodel")
    near = weights(site.add("a", DATA, always=status(403)), site.add("b", DATA), name="near", path="near.caffemodel")
    lost = weights(site.add("c", DATA, always=page), name="lost", path="lost.caffemodel")
    copied = weights(site.url + "/d", name="copied", path="d.caffemodel", alternatives=("copied-pth",))
    copy = weights(site.add("e", DATA), name="copied-pth", kind=EntryKind.COPY, path="e.pth")
    known = manifest(tmp_path, here, near, lost, copied, copy)
    found = availability.check_availability([here, near, lost, copied], known, roots)
    host = site.url.removeprefix("http://")
    assert availability.format_availability(found) == [
        "file                    size          where",
        f"here                                  present, {roots.weights}/here.caffemodel",
        f"near                    30,000 bytes  will be fetched from {host}",
        f"lost                                  cannot be had; {site.url}/c: it answered with a web page, not the file",
        f"copied (as copied-pth)  30,000 bytes  will be fetched from {host}",
    ]
    assert not [path for path in roots.weights.iterdir() if path.name != "here.caffemodel"]


def test_a_server_that_refuses_head_is_asked_for_the_first_bytes(site):
    url = site.add("f", DATA)
    answer = site.answer
    site.answer = lambda request: (
        http_servers.Answer(b"", status=405, headers={"Content-Length": "0"})
        if request.method == "HEAD"
        else answer(request)
    )
    check = check_source(weights(url), FileSource(url, "a test"))
    assert (check.is_ok, check.text) == (True, "30,000 bytes")


@pytest.mark.parametrize(
    ("fields", "size"), [({"size_bytes": 29_999}, "29,999 bytes"), ({"size_bytes": 30_001}, "30,001 bytes")]
)
def test_a_source_with_a_file_of_another_size_does_not_count(site, fields, size):
    url = site.add("f", DATA)
    check = check_source(weights(url, **fields), FileSource(url, "a test"))
    assert (check.is_ok, check.text) == (False, f"its size is wrong; got 30,000 bytes, want {size}")


def test_a_folder_as_mirror_is_checked_too(tmp_path):
    entry = weights("http://h/f")
    assert not check_source(entry, FileSource(tmp_path / "f", "your mirror")).is_ok
    (tmp_path / "f").write_bytes(DATA)
    assert check_source(entry, FileSource(tmp_path / "f", "your mirror")).text == "30,000 bytes"


def test_a_copy_is_below_the_weights_folder_and_an_archive_is_not(roots):
    assert roots.file_path(weights("http://h/f", kind=EntryKind.COPY)) == roots.weights / "f.caffemodel"
    assert isinstance(archive("a", "http://h/a").error("it is wrong", "a"), DataError)


FORM = (
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<form action="/search"><input type="hidden" name="other" value="1"></form>'
    '<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>'
    '<input type="hidden" name="id" value="1a_B-c"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="5d6e &amp; 7"></form>'
    '<input type="hidden" name="outside" value="1"></body></html>'
)


def drive_page(action):
    def fault(answer):
        answer.body, answer.ranges = FORM.format(action=action).encode(), False
        answer.headers["Content-Type"] = "text/html; charset=utf-8"

    return fault


@pytest.fixture
def drive(site, monkeypatch):
    """The loopback server as if it was Google Drive."""
    monkeypatch.setattr(google_drive, "ORIGINS", (*google_drive.ORIGINS, site.url))
    return site


@pytest.mark.parametrize("is_relative", [False, True])
def test_google_drives_confirmation_page_is_confirmed(drive, roots, is_relative):
    file = drive.add("download", DATA)
    url = drive.add("uc", b"", always=drive_page("/download" if is_relative else file))
    notes = []
    assert fetch_entry(weights(url), roots, note=notes.append).path.read_bytes() == DATA
    assert notes == []
    assert [request.path for request in drive.requests] == ["/uc", "/download"]
    answer = check_source(weights(url), FileSource(url, "the publisher"))
    assert (answer.is_ok, answer.size) == (True, len(DATA))


def test_a_confirmed_download_is_resumed(drive, roots):
    file = drive.add("download", DATA, drop(after=10_000))
    url = drive.add("uc", b"", always=drive_page(file))
    assert fetch_entry(weights(url), roots, patience=QUICK).path.read_bytes() == DATA
    paths = [(request.path, request.range) for request in drive.requests]
    assert paths == [("/uc", None), ("/download", None), ("/uc", "bytes=10000-"), ("/download", "bytes=10000-")]


def test_the_confirmed_url_has_the_hidden_inputs_of_the_form():
    page = FORM.format(action="https://drive.usercontent.google.com/download?x=1").encode()
    found = google_drive.find_confirmed_url(page, "https://drive.google.com/uc?id=1a_B-c")
    query = "id=1a_B-c&export=download&confirm=t&uuid=5d6e+%26+7"
    assert found == f"https://drive.usercontent.google.com/download?{query}"


@pytest.mark.parametrize("page", [b"", b"<html>", b"<![x", b'<form id="download-form" method="post" action="/d">'])
def test_a_page_without_the_form_has_no_confirmed_url(page):
    assert google_drive.find_confirmed_url(page, "https://drive.google.com/uc") is None


@pytest.mark.parametrize(
    ("url", "is_drive"),
    [
        ("https://drive.google.com/uc?id=1", True),
        ("https://drive.usercontent.google.com/download", True),
        ("http://drive.google.com/uc", False),
        ("https://drive.google.com@example.org/uc", False),
        ("https://drive.google.com.example.org/uc", False),
        ("https://[/uc", False),
    ],
)
def test_only_googles_hosts_are_google_drive(url, is_drive):
    assert google_drive.is_drive_url(url) is is_drive


CONFIRMED = "https://example.org/download?id=1a_B-c&export=download&confirm=t&uuid=5d6e+%26+7"


@pytest.mark.parametrize(
    ("fault", "problem", "requests"),
    [
        (page, "it answered with a web page, not the file", 1),
        (
            drive_page("https://example.org/download"),
            f"its page asks for a confirmation at '{CONFIRMED}', which is not Google Drive",
            1,
        ),
        (drive_page("/uc"), "it answered with a web page, not the file", 2),
    ],
    ids=["no form", "another host", "second page"],
)
def test_any_other_page_of_google_drive_leads_to_the_next_source(drive, roots, fault, problem, requests):
    url, mirror = drive.add("uc", b"", always=fault), drive.add("m", DATA)
    notes = []
    assert fetch_entry(weights(url, mirror), roots, note=notes.append, patience=QUICK).path.read_bytes() == DATA
    assert notes == [f"net: {url}: {problem}; trying {mirror} (a test)"]
    assert [request.path for request in drive.requests] == ["/uc"] * requests + ["/m"]


def test_the_form_of_another_host_is_not_used(site, roots):
    url, mirror = site.add("uc", b"", always=drive_page("/download")), site.add("m", DATA)
    site.add("download", DATA)
    assert fetch_entry(weights(url, mirror), roots, patience=QUICK).path.read_bytes() == DATA
    assert [request.path for request in site.requests] == ["/uc", "/m"]
