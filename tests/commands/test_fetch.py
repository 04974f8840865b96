import hashlib
import json
import os

import pytest

from reproduction.commands import bars as bars_module
from reproduction.fcn.fetch.local_files import WITHOUT_DOWNLOAD
from tests.fcn.fetch.test_archives import tgz
from tests.helpers import http_servers
from tests.helpers.run_tool import run_tool

DATA = b"floats" * 1000


@pytest.fixture
def site():
    with http_servers.serve() as site:
        yield site


@pytest.fixture
def fetch(site, tmp_path, monkeypatch):
    """Run fcn fetch on a manifest of one net, one data set and one list, served from loopback."""
    voc = tgz(("TrainVal/VOCdevkit/VOC2011/JPEGImages/1.jpg", b"jpeg"))
    entries = [
        {
            "name": "voc-fcn8s",
            "kind": "caffemodel",
            "url": site.add("fcn8s.caffemodel", DATA),
            "path": "fcn8s.caffemodel",
            "sha1": hashlib.sha1(DATA).hexdigest(),
            "licence": "unrestricted",
        },
        {
            "name": "voc2011",
            "kind": "archive",
            "url": site.add("voc.tgz", voc),
            "path": "archives/voc.tgz",
            "licence": "see its site",
            "archive": {"folder": "pascal/VOC2011", "holds": ["JPEGImages/*.jpg"]},
        },
        {
            "name": "seg11valid",
            "kind": "list",
            "url": site.add("seg11valid.txt", b"1\n"),
            "path": "pascal/seg11valid.txt",
            "size_bytes": 2,
            "licence": "BSD-2-Clause",
        },
    ]
    sets = {"voc": [entry["name"] for entry in entries]}
    manifest = {"format": 1, "sets": sets, "unpublished": ["nyud-fcn32s-color-d"], "entries": entries}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    for name in os.environ:
        if name.startswith("REPRODUCTION_"):
            monkeypatch.delenv(name)

    def run(*arguments):
        return run_tool("fetch", "--manifest", tmp_path / "manifest.json", "--root", tmp_path, *arguments)

    return run


def test_a_set_is_fetched_unpacked_and_reported(fetch, site, tmp_path):
    done = fetch("--set", "voc")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"voc-fcn8s: fetched, {tmp_path}/weights/fcn8s.caffemodel; sha1 as published"
    unpacked = f"voc2011: unpacked, {tmp_path}/data/pascal/VOC2011; no hash is published; sha256 "
    assert lines[1].startswith(unpacked)
    assert lines[1].endswith(" recorded from now on")
    assert lines[2].startswith(f"seg11valid: fetched, {tmp_path}/data/pascal/seg11valid.txt; no hash is published")
    assert (tmp_path / "data/pascal/VOC2011/JPEGImages/1.jpg").read_bytes() == b"jpeg"
    again = fetch("--set", "voc")
    assert again.stdout.splitlines() == [
        f"voc-fcn8s: present, {tmp_path}/weights/fcn8s.caffemodel; sha1 as published",
        f"voc2011: present, {tmp_path}/data/pascal/VOC2011",
        f"seg11valid: present, {tmp_path}/data/pascal/seg11valid.txt; sha256 as recorded",
    ]
    assert len(site.requests) == 3


def test_one_file_that_fails_does_not_stop_the_others(fetch, site, tmp_path):
    url = site.add("fcn8s.caffemodel", DATA, always=http_servers.corrupt)
    done = fetch("voc-fcn8s", "seg11valid")
    assert done.returncode == 1
    wrong = bytearray(DATA)
    wrong[len(wrong) // 2] ^= 0xFF
    right = hashlib.sha1(DATA).hexdigest()
    assert done.stderr == (
        f"error: {tmp_path}/weights/fcn8s.caffemodel: it cannot be fetched; {url}: its sha1 is wrong; "
        f"got {hashlib.sha1(wrong).hexdigest()}, want {right}. "
        "Put it there by hand (`fcn fetch --offline-list` names all files), or name a mirror with "
        f"--mirror or REPRODUCTION_MIRROR. {WITHOUT_DOWNLOAD}\n"
    )
    assert "seg11valid: fetched" in done.stdout
    assert done.stdout.endswith(
        "1 of 2 are missing. To put them there by hand:\n\n"
        f"voc-fcn8s: size not published, sha1 {right}\n"
        f"  from {url}\n"
        f"  to   {tmp_path}/weights/fcn8s.caffemodel\n"
    )
    assert not (tmp_path / "weights/fcn8s.caffemodel").exists()


def test_results_are_json_on_request(fetch, tmp_path):
    done = fetch("seg11valid", "voc-fcn8s", "--json", "--weights", tmp_path / "w")
    assert [(row["name"], row["how"]) for row in json.loads(done.stdout)] == [
        ("seg11valid", "fetched"),
        ("voc-fcn8s", "fetched"),
    ]
    assert (tmp_path / "w/fcn8s.caffemodel").read_bytes() == DATA


def test_mirrors_come_from_the_command_line_and_the_environment(fetch, site, tmp_path, monkeypatch):
    site.add("/m/weights/fcn8s.caffemodel", DATA)
    assert fetch("voc-fcn8s", "--mirror", f"{site.url}/m").returncode == 0
    assert [request.path for request in site.requests] == ["/m/weights/fcn8s.caffemodel"]
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "voc.tgz").write_bytes(tgz(("x/JPEGImages/2.jpg", b"two")))
    monkeypatch.setenv("REPRODUCTION_MIRROR", str(stick))
    assert fetch("voc2011", "--delete-archives").returncode == 0
    assert (tmp_path / "data/pascal/VOC2011/JPEGImages/2.jpg").read_bytes() == b"two"
    assert not (tmp_path / "data/archives/voc.tgz").exists()
    assert len(site.requests) == 1


def test_the_list_shows_what_is_there_and_what_is_known(fetch, tmp_path):
    fetch("seg11valid")
    lines = fetch("--list").stdout.splitlines()
    later = ["recorded", "on", "first", "download"]
    assert [line.split() for line in lines[:4]] == [
        ["name", "kind", "size", "there", "hash", "licence"],
        ["voc-fcn8s", "caffemodel", "not", "known", "no", "sha1", "unrestricted"],
        ["voc2011", "archive", "not", "known", "no", *later, "see", "its", "site"],
        ["seg11valid", "list", "2", "bytes", "yes", *later, "BSD-2-Clause"],
    ]
    assert lines[4:] == ["", "sets: voc", "never published: nyud-fcn32s-color-d"]


def test_a_list_for_a_machine_has_numbers_and_nulls(fetch, site, tmp_path):
    fetch("seg11valid")
    rows = json.loads(fetch("--list", "--json").stdout)
    assert [row["there"] for row in rows] == [False, False, True]
    assert rows[0] == {
        "name": "voc-fcn8s",
        "kind": "caffemodel",
        "url": f"{site.url}/fcn8s.caffemodel",
        "path": f"{tmp_path}/weights/fcn8s.caffemodel",
        "there": False,
        "size_bytes": None,
        "payload_bytes": None,
        "md5": None,
        "sha1": hashlib.sha1(DATA).hexdigest(),
        "sha256": None,
        "licence": "unrestricted",
    }
    assert rows[2]["size_bytes"] == 2
    assert json.loads(fetch("--offline-list", "--json").stdout) == rows[:2]


def test_the_offline_list_names_what_is_missing(fetch, site, tmp_path):
    fetch("voc2011", "seg11valid")
    assert fetch("seg11valid", "--offline-list").stdout == "Nothing is missing.\n"
    assert fetch("--set", "voc", "--offline-list").stdout == (
        f"voc-fcn8s: size not published, sha1 {hashlib.sha1(DATA).hexdigest()}\n"
        f"  from {site.url}/fcn8s.caffemodel\n"
        f"  to   {tmp_path}/weights/fcn8s.caffemodel\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "fcn fetch: error: name what to fetch, or a --set; --list prints them\n"),
        (["voc-fcn9s"], 1, "there is no published file called 'voc-fcn9s'. Did you mean 'voc-fcn8s'?\n"),
        (["nyud-fcn32s-color-d"], 1, "no caffemodel was published for nyud-fcn32s-color-d. It has to be trained.\n"),
        (["--set", "coco"], 1, "there is no set called 'coco'. There are voc.\n"),
        (
            ["voc-fcn8s", "--mirror", "/no/such"],
            1,
            "/no/such: the mirror is not a folder; want http://, https://, hf:owner/name or a folder.\n",
        ),
    ],
)
def test_mistakes_are_one_line(fetch, arguments, code, message):
    done = fetch(*arguments)
    assert done.returncode == code
    assert done.stderr.endswith(message)
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(fetch, tmp_path):
    (tmp_path / "weights").write_text("a file")
    done = fetch("voc-fcn8s")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path}/weights")


def test_a_bar_starts_where_a_resumed_download_does_and_one_is_shown_at_a_time(monkeypatch):
    made = []

    class Bar:
        def __init__(self, **options):
            self.n, self.options, self.closed = options["initial"], options, False
            assert all(bar.closed for bar in made)
            made.append(self)

        def update(self, n):
            self.n += n

        def close(self):
            self.closed = True

    monkeypatch.setattr(bars_module, "tqdm", Bar)
    with bars_module.Bars() as bars:
        move = bars("a")
        assert not made, "what does not move needs no bar"
        move(300, 500)
        move(450, 500)
        move(100, 500)
        bars("b")(1, None)
    assert [(bar.options["desc"], bar.options["initial"], bar.n, bar.closed) for bar in made] == [
        ("a", 300, 100, True),
        ("b", 1, 1, True),
    ]


def test_the_projects_own_manifest_is_the_default():
    done = run_tool("fetch", "--list", "--json")
    assert done.returncode == 0
    assert {"voc-fcn8s", "voc2011", "sbd", "nyud", "siftflow", "pascal-context"} <= {
        row["name"] for row in json.loads(done.stdout)
    }


def test_the_hosts_are_checked_one_by_one(fetch, site, tmp_path):
    site.add("seg11valid.txt", b"1\n", always=http_servers.page)
    site.add("voc.tgz", b"", always=http_servers.status(403))
    done = fetch("--check")
    host = site.url.removeprefix("http://")
    assert done.stdout.splitlines() == [
        f"file        source{' ' * (len(host) - 4)}vouched by     answer",
        f"voc-fcn8s   {host}  the publisher  6,000 bytes",
        f"voc2011     {host}  the publisher  failed: the server answered 403 Forbidden",
        f"seg11valid  {host}  the publisher  failed: it answered with a web page, not the file",
    ]
    assert (done.returncode, done.stderr) == (1, "error: no source of seg11valid, voc2011 answers.\n")
    assert not (tmp_path / "weights").exists(), "nothing is downloaded"
    assert fetch("voc-fcn8s", "--check").returncode == 0
