import hashlib
import json
from pathlib import Path

import pytest

from reproduction.caffe.errors import DataError, WeightsError
from reproduction.fcn.datasets import SPECS, layouts
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.fetch.manifest import Entry, EntryKind, Mirror, UnpackedArchive, read_manifest
from reproduction.fcn.nets import published_nets

COMMIT = "1305c7378a9f0ab44b2c936f4d60e4687e3d8743"
DATA = b"the file's bytes " * 40


@pytest.fixture(scope="module")
def published():
    return read_manifest(local_files.MANIFEST)


@pytest.fixture
def roots(tmp_path):
    return FileRoots(tmp_path / "weights", tmp_path / "data")


def entry(**fields):
    base = {"name": "voc-fcn8s", "kind": EntryKind.CAFFEMODEL, "url": "http://h/f.caffemodel", "path": "f.caffemodel"}
    return Entry(**{**base, "licence": "not stated", **fields})


def written(path, data=DATA):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# The project's manifest


def test_every_net_with_published_weights_is_there_under_its_name_and_file(published):
    for name, net in published_nets.NETS.items():
        if net.caffemodel is None:
            assert name in published.unpublished
        else:
            assert published[name].path == net.caffemodel
            assert published[name].url == f"http://dl.caffe.berkeleyvision.org/{net.caffemodel}"
            assert published[name].kind is EntryKind.CAFFEMODEL


def test_a_published_caffemodel_is_held_to_its_floats(published):
    fcn32s = published["voc-fcn32s"]
    assert fcn32s.size_bytes - fcn32s.payload_bytes == 3119
    fcn8s = published["voc-fcn8s"]
    assert (fcn8s.min_bytes, fcn8s.max_bytes) == (537_959_036, 537_959_036 + 65_536)
    assert local_files.format_size(fcn8s) == "537,959,036 to 538,024,572 bytes"


def test_the_net_that_was_never_published_says_so(published):
    with pytest.raises(DataError) as error:
        published["nyud-fcn32s-color-d"]
    assert str(error.value) == (
        f"{local_files.MANIFEST}: no caffemodel was published for nyud-fcn32s-color-d. It has to be trained."
    )


def test_a_misspelt_name_is_answered_with_the_nearest(published):
    with pytest.raises(DataError, match=r"there is no published file called 'voc-fcn8'\. Did you mean 'voc-fcn8s'\?"):
        published["voc-fcn8"]
    with pytest.raises(DataError, match=r"`fcn fetch --list` prints them all\.$"):
        published["zzzzzz"]


def test_split_lists_come_from_the_pinned_commit_with_their_hashes(published):
    lists = [item for item in published.entries.values() if COMMIT in item.url]
    assert len(lists) == 11
    for item in lists:
        assert item.sha1
        assert item.size_bytes
        assert item.path == "splits/" + item.url.partition("/data/")[2], "where no archive can overwrite it"
    assert published["seg11valid"].sha1 == "dc143d96cbef27941a92fe028359eb919ded5723"
    assert published["nyud-test"].sha1 == "ea2a0e505c795dfe044f047e0f508b12e1453fad"


def test_the_published_lists_of_ids_are_included_and_leave_nothing_to_fetch(published):
    included = {path.stem: path for path in layouts.PUBLISHED_SPLITS.iterdir()}
    lists = {item.name: item for item in published.entries.values() if COMMIT in item.url}
    assert {name for name in lists if "classes" not in name} == set(included)
    for name, path in included.items():
        assert hashlib.sha1(path.read_bytes()).hexdigest() == lists[name].sha1, name
    used = {member for members in published.sets.values() for member in members}
    assert not [name for name in used if published[name].kind is EntryKind.LIST]


LAYOUTS = {name: layout for spec in SPECS.values() for name, layout in spec.layouts.items()}


def test_every_archive_becomes_the_folder_in_which_the_data_sets_look_first(published):
    for item in published.entries.values():
        if item.archive:
            layout = LAYOUTS[{"pascal-context": "pascalcontext"}.get(item.name, item.name)]
            inside = "dataset" if item.name == "sbd" else ""
            assert layout.folders[0] == str(Path(item.archive.folder, inside))
            for need in layout.needs:
                assert any(pattern.startswith(str(Path(inside, need))) for pattern in item.archive.holds), item.name


def test_a_set_holds_what_a_reproduction_needs(published):
    names = [item.name for item in published.select("voc")]
    assert names[:5] == ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"]
    assert "voc2011" in names
    for name in ("nyud", "siftflow", "pascalcontext"):
        kinds = {item.kind for item in published.select(name)}
        assert {EntryKind.CAFFEMODEL, EntryKind.ARCHIVE} <= kinds <= set(EntryKind) - {EntryKind.COPY}


def test_an_unknown_set_and_a_net_without_weights_are_refused(published):
    with pytest.raises(DataError, match=r"there is no set called 'cityscapes'\. There are voc, nyud, siftflow"):
        published.select("cityscapes")
    with pytest.raises(DataError, match="no caffemodel was published for nyud-fcn32s-color-d"):
        published["nyud-fcn32s-color-d"]


def test_the_manifest_can_be_another_by_argument_or_environment(tmp_path, monkeypatch):
    path = written(tmp_path / "m.json", json.dumps({"format": 1, "entries": []}).encode())
    assert not local_files.load_manifest(path).entries
    monkeypatch.setenv("REPRODUCTION_MANIFEST", str(path))
    assert not local_files.load_manifest().entries
    monkeypatch.delenv("REPRODUCTION_MANIFEST")
    assert local_files.load_manifest().path == local_files.MANIFEST


# Manifests that are wrong

GOOD = {"name": "a", "kind": "list", "url": "http://h/a.txt", "path": "a.txt", "licence": "not stated"}
HEX = "0123456789abcdef" * 4


NO_URL = "want the URL of a file, http:// or https://."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Ünicode"}, ".name is \"Ünicode\"; want small letters, digits, '.', '_' and '-'."),
        ({"name": None}, ".name is null; want a string."),
        ({"sha_1": HEX}, ".sha_1 is not a known name; want name, kind, url, path, licence, mirrors, "),
        ({"url": ...}, ".url is missing."),
        ({"licence": 3}, ".licence is 3; want a string."),
        ({"layers": {"features.0": "conv1_1"}}, " is inconsistent; want 'layers' for copies with a hash, and for them"),
        ({"kind": "m"}, '.kind is "m"; want caffemodel or copy or archive or list.'),
        ({"url": "file:///etc/a"}, f'.url is "file:///etc/a"; {NO_URL}'),
        ({"url": "http://h/"}, f'.url is "http://h/"; {NO_URL}'),
        ({"url": "http://h/a b"}, f'.url is "http://h/a b"; {NO_URL}'),
        ({"url": "http://[::/a"}, f'.url is "http://[::/a"; {NO_URL}'),
        ({"mirrors": [{"url": "ftp://h/a", "vouched_by": "a"}]}, f'.mirrors[0].url is "ftp://h/a"; {NO_URL}'),
        ({"mirrors": [{"url": "http://h/a"}]}, ".mirrors[0].vouched_by is missing."),
        ({"mirrors": "http://h/a"}, '.mirrors is "http://h/a"; want a list.'),
        ({"mirrors": [1]}, ".mirrors[0] is 1; want an object."),
        ({"path": "../a"}, '.path is "../a"; want a path below a folder.'),
        ({"path": "."}, '.path is "."; want a path below a folder.'),
        ({"path": "x" * 201}, '.path is "xxxxxxxxx'),
        ({"size_bytes": "12"}, '.size_bytes is "12"; want an integer.'),
        ({"size_bytes": -1}, ".size_bytes is -1; want 1 or more."),
        ({"size_bytes": True}, ".size_bytes is true; want an integer."),
        ({"size_bytes": 3, "payload_bytes": 4}, " is inconsistent; want payload_bytes of at most 3, "),
        ({"md5": "abc"}, '.md5 is "abc"; want 32 hexadecimal digits.'),
        ({"sha256": HEX.upper()}, f'.sha256 is "{HEX[:56].upper()}...; want 64 hexadecimal digits.'),
        ({"kind": "archive"}, " is inconsistent; want 'archive' for archives, and for them alone."),
        ({"archive": {"folder": "x", "holds": []}}, " is inconsistent; want 'archive' for archives, "),
        ({"kind": "archive", "archive": {"folder": "/x", "holds": []}}, '.archive.folder is "/x"; want a path'),
        ({"kind": "archive", "archive": {"folder": "x"}}, ".archive.holds is missing."),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_its_field(tmp_path, change, message):
    item = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    path = written(tmp_path / "m.json", json.dumps({"format": 1, "entries": [item]}).encode())
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: the manifest is wrong: entries[0]{message}")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the manifest is wrong: it is []; want an object."),
        ({"format": 2}, "the manifest is wrong: format is 2; want 1."),
        ({"format": 1, "entries": {}}, "the manifest is wrong: entries is {}; want a list."),
        ({"format": 1, "entries": [3]}, "the manifest is wrong: entries[0] is 3; want an object."),
        ({"format": 1, "entries": [GOOD, GOOD]}, "entry 'a' occurs twice."),
        ({"format": 1, "entries": [GOOD, {**GOOD, "name": "b"}]}, "entries 'a' and 'b' have the same path; got a.txt."),
        ({"format": 1, "entries": [GOOD], "sets": {"s": ["c"]}}, "set 's' names an entry that does not exist; got "),
        ({"format": 1, "entries": [GOOD | {"alternatives": ["b"]}]}, "entry 'a' names an entry that does not exist;"),
        ({"format": 1, "entries": [GOOD], "sets": {"s": "a"}}, 'the manifest is wrong: sets.s is "a"; want a list.'),
        ({"format": 1, "entires": []}, "the manifest is wrong: entires is not a known name; want ent"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_says_what_is_wrong(tmp_path, document, message):
    path = written(tmp_path / "m.json", json.dumps(document).encode())
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"<html>", b"9" * 5000, b'{"path": "\\ud800"}']
)
def test_a_manifest_that_is_not_json_is_one_line(tmp_path, data):
    path = written(tmp_path / "m.json", data)
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}: the manifest is wrong: ")
    assert "want JSON" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_manifest_is_one_line(tmp_path):
    with pytest.raises(DataError) as error:
        read_manifest(tmp_path / "none.json")
    assert str(error.value) == (
        f"{tmp_path}/none.json: the manifest cannot be read (no such file or directory). "
        "Name one with --manifest or REPRODUCTION_MANIFEST."
    )


# Files on this machine


def test_caffemodels_lie_below_weights_and_the_rest_below_data(roots):
    archive = entry(
        kind=EntryKind.ARCHIVE, path="archives/a.tar", archive=UnpackedArchive("pascal/VOC2011", ("J/*.jpg",))
    )
    assert roots.file_path(entry()) == roots.weights / "f.caffemodel"
    assert roots.file_path(archive) == roots.data / "archives/a.tar"
    assert roots.used_path(archive) == roots.data / "pascal/VOC2011"
    assert not local_files.is_present(archive, roots)
    written(roots.used_path(archive) / "J/1.jpg")
    assert local_files.is_present(archive, roots)
    assert local_files.find_missing([entry(), archive], roots) == [entry()]


def test_a_file_is_held_to_every_hash_that_was_published(tmp_path):
    path = written(tmp_path / "f.caffemodel")
    good = {kind: hashlib.new(kind, DATA).hexdigest() for kind in ("md5", "sha1", "sha256")}
    assert local_files.check_file(entry(**good), path).text == "md5 and sha1 and sha256 as published"
    for kind, right in good.items():
        wrong = "0" * len(right)
        with pytest.raises(WeightsError) as error:
            local_files.check_file(entry(**{**good, kind: wrong}), path)
        assert str(error.value) == (
            f"{path}: its {kind} is wrong; got {right}, want {wrong}. "
            "Delete it and fetch it again: fcn fetch voc-fcn8s."
        )


def test_without_a_published_hash_the_first_one_is_recorded_and_kept(tmp_path):
    path = written(tmp_path / "f.caffemodel")
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert local_files.check_file(entry(), path).text == "no hash is known"
    assert local_files.check_file(entry(), path).sha256 == sha256
    assert local_files.record_hash(entry(), path, sha256)
    assert (tmp_path / "f.caffemodel.sha256").read_text() == f"{sha256}  f.caffemodel\n"
    assert not local_files.record_hash(entry(), path, sha256)
    assert local_files.check_file(entry(), path).text == "sha256 as recorded"
    written(path, DATA + b"x")
    with pytest.raises(WeightsError) as error:
        local_files.check_file(entry(), path)
    assert str(error.value) == (
        f"{path}: its sha256 is wrong; got {hashlib.sha256(DATA + b'x').hexdigest()}, "
        f"want {sha256} (recorded in f.caffemodel.sha256). Delete it and fetch it again: fcn fetch voc-fcn8s."
    )


def test_nothing_is_recorded_where_a_hash_was_published(tmp_path):
    path = written(tmp_path / "f.caffemodel")
    assert not local_files.record_hash(entry(md5=hashlib.md5(DATA).hexdigest()), path, "0" * 64)
    assert not local_files.record_path(path).exists()


def test_a_record_that_is_no_hash_is_said_to_be_none(tmp_path):
    path = written(tmp_path / "f.caffemodel")
    written(local_files.record_path(path), b"nonsense\n")
    with pytest.raises(DataError) as error:
        local_files.check_file(entry(), path)
    assert (
        str(error.value)
        == f"{path}.sha256: it does not contain a SHA-256; want 64 hexadecimal digits and a file name. Delete it."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size_bytes": 700}, "its size is wrong; got 680 bytes, want 700 bytes."),
        ({"payload_bytes": 681}, "its size is wrong; got 680 bytes, want 681 to 66,217 bytes."),
        ({"size_bytes": 600}, "its size is wrong; got 680 bytes, want 600 bytes."),
    ],
)
def test_a_size_that_cannot_be_is_refused(tmp_path, fields, message):
    path = written(tmp_path / "f.caffemodel")
    with pytest.raises(WeightsError) as error:
        local_files.check_file(entry(**fields), path)
    assert str(error.value) == f"{path}: {message} Delete it and fetch it again: fcn fetch voc-fcn8s."


def test_a_caffemodel_may_have_some_bytes_besides_its_floats(tmp_path):
    assert local_files.check_file(entry(payload_bytes=600), written(tmp_path / "f")).text == "no hash is known"


@pytest.mark.parametrize("head", [b"<!DOCTYPE html>", b"\n <html lang=en>", b"\xef\xbb\xbf<HTML>", b"<head>"])
def test_a_web_page_is_not_taken_for_a_file(tmp_path, head):
    path = written(tmp_path / "f", head + DATA)
    with pytest.raises(DataError) as error:
        local_files.check_file(entry(kind=EntryKind.LIST), path)
    assert str(error.value) == (
        f"{path}: it is a web page, not the file. Delete it and fetch it again: fcn fetch voc-fcn8s."
    )


def test_the_list_for_a_machine_without_a_network_names_files_urls_and_places(roots):
    lines = local_files.format_offline_list(
        [entry(size_bytes=1234, sha1="0" * 40, mirrors=(Mirror("http://m/f", "a test"),))], roots
    )
    text = "\n".join([*lines, ""])
    assert text == (
        f"voc-fcn8s: 1,234 bytes, sha1 {'0' * 40}\n"
        "  from http://h/f.caffemodel\n"
        "  from http://m/f\n"
        f"  to   {roots.weights}/f.caffemodel\n"
    )
    archive = entry(name="sbd", kind=EntryKind.ARCHIVE, path="archives/a.tar", archive=UnpackedArchive("sbdd", ()))
    assert "\n".join([*local_files.format_offline_list([archive], roots), ""]).endswith(
        f"  to   {roots.data}/archives/a.tar, which `fcn fetch sbd` unpacks\n"
    )


def test_a_copy_of_the_weights_is_found_where_the_caffemodel_is_missing(tmp_path):
    net = published_nets.NETS["voc-fcn8s"]
    with pytest.raises(WeightsError, match="the weights of voc-fcn8s are missing"):
        local_files.find_weights(net, tmp_path)
    copy = written(tmp_path / "pytorch-fcn/fcn8s_from_caffe.pth")
    assert local_files.find_weights(net, tmp_path) == copy
    caffemodel = written(tmp_path / net.caffemodel)
    assert local_files.find_weights(net, tmp_path) == caffemodel
