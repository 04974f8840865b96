"""fcn reproduce and `make reproduce-voc`: from files on a server to a table, and the errors on the way."""

import hashlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reproduction.caffe.errors import DataError, ReproductionError, WeightsError
from reproduction.caffe.formats import prototxt
from reproduction.fcn.nets import net_files, published_nets
from reproduction.fcn.reproduce import paper
from reproduction.fcn.reproduce.paper import PublishedNumber, PublishedRow
from reproduction.fcn.scoring import evaluate
from tests.helpers import http_servers, published_files, thin_nets
from tests.helpers.paths import ROOT

UNPUBLISHED = "its weights were not published; name your own with --model (make: MODEL=FILE)"
IDS = ["2007_000033", "2007_000042", "2007_000061"]
WEIGHTS = "fcn8s-heavy-pascal.caffemodel"
MB = 1_000_000


def count(labels, predictions, classes):
    """The confusion, counted here and not by the code under test: rows truth, columns prediction."""
    counts = np.zeros((classes, classes), np.int64)
    for image_id, truth in labels.items():
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                if truth[row, column] != 255:
                    counts[truth[row, column], predictions[image_id][row, column]] += 1
    return counts


def metrics(counts):
    """The paper's four metrics, in plain Python."""
    total = int(counts.sum())
    accuracies, ius, weighted = [], [], 0.0
    for k in range(len(counts)):
        truth, right = int(counts[k].sum()), int(counts[k, k])
        if truth:
            accuracies.append(right / truth)
            ius.append(right / (truth + int(counts[:, k].sum()) - right))
            weighted += truth * ius[-1] / total
    right = sum(int(counts[k, k]) for k in range(len(counts)))
    return {
        "pixel_acc": right / total,
        "mean_acc": sum(accuracies) / len(accuracies),
        "mean_iu": sum(ius) / len(ius),
        "fw_iu": weighted,
    }


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def large(tmp_path):
    """A folder for gigabytes, emptied whatever happens; pytest keeps its own for three runs."""
    yield tmp_path
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_reproduce_voc_goes_from_a_mirror_to_a_table_and_survives_a_bad_server_and_a_full_disk(large):
    """The whole way at full width: 540 MB of weights, real archives, one server that drops and one that lies."""
    with http_servers.serve() as site:
        host = published_files.Host(large, site)
        host.voc(IDS)
        host.net("voc-fcn8s", WEIGHTS, divisor=1)
        # The mirror drops the connection in the midst of the weights, and its VOC archive is damaged for good; the
        # origin has that archive.
        # Before each run's download, a HEAD request asks whether the file can be had.
        faults = (
            http_servers.headed(),
            http_servers.drop(180 * MB),
            http_servers.headed(),
            http_servers.drop(150 * MB),
        )
        site.add(WEIGHTS, host.site / WEIGHTS, *faults)
        site.add("VOCtrainval.tar", host.site / "VOCtrainval.tar", always=http_servers.corrupt)
        for name in ("benchmark.tgz", "seg11valid.txt"):
            site.add(name, host.site / name)
        site.add("origin/VOCtrainval.tar", host.site / "VOCtrainval.tar")
        (large / ".ready").touch()

        def make(**limits):
            settings = {
                "NETS": "voc-fcn8s", "DATA": large / "data", "WEIGHTS": large / "weights", "MIRROR": site.url,
                "MANIFEST": host.manifest, "REPORTS": large / "reports",
                # The interpreter of this test, instead of a virtual environment that make would set up.
                "RUN": sys.executable, "READY": large / ".ready",
            }  # fmt: skip
            return subprocess.run(
                ["make", "reproduce-voc", *(f"{key}={value}" for key, value in settings.items())],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
                **limits,
            )  # fmt: skip

        # A disk that takes 100 MB and no more of any file.
        full = make(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100 * MB, 100 * MB)))
        assert full.returncode == 2
        assert "it cannot be written" in full.stderr
        assert "Traceback" not in full.stderr
        assert not (large / "reports").exists()
        assert not (large / "weights" / WEIGHTS).exists()

        site.requests.clear()
        done = make()
        downloads = [request for request in site.requests if request.method == "GET"]
        part = [request.range for request in downloads if request.path == f"/{WEIGHTS}"]
        assert part[0] is not None, "what the full disk took is not fetched again"
        assert len(part) == 2, "one connection was dropped, and went on where it was"
        assert_measured(done, host, large)

        site.requests.clear()
        again = make()
        assert site.requests == [], "nothing is fetched twice"
        assert_measured(again, host, large)
    assert_an_independent_peer_predicts_the_same(host, large)


def assert_measured(done, host, folder):
    """What the run wrote and printed is what can be counted from the label maps."""
    # Seeded weights are far from the published scores: make says so.
    assert done.returncode == 2, done.stderr
    assert "error: off by more than 0.1 points: voc-fcn8s.\n" in done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads((folder / "reports/voc/scores.json").read_text())
    (net,) = report["nets"]
    (measured,) = net["measured"]
    (predictions,) = (folder / "reports/voc/predictions").glob("voc-fcn8s-*")
    predicted = {image_id: pixels(predictions / f"{image_id}.png") for image_id in IDS}
    counts = count({image_id: host.labels["voc"][image_id] for image_id in IDS}, predicted, 21)
    assert len(np.unique(np.concatenate([labels.ravel() for labels in predicted.values()]))) > 2
    np.testing.assert_array_equal(measured["confusion"], counts)
    for metric, value in metrics(counts).items():
        assert measured[metric] == pytest.approx(value, rel=1e-12)
    assert report["split"]["count"] == 3
    assert net["weights_sha256"] == file_hash(host.site / WEIGHTS)
    page = (folder / "reports/voc/scores.md").read_text()
    shown = f"{100 * measured['mean_iu']:.4f} |"
    assert next(line for line in page.splitlines() if "| mean IU" in line).endswith(shown)
    assert next(line for line in done.stdout.splitlines() if "| mean IU" in line).endswith(shown)


def file_hash(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_an_independent_peer_predicts_the_same(host, folder):
    """OpenCV reads the caffemodel itself and predicts one image."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install -e '.[test]'")
    prototxt.dump(net_files.build_deploy(published_nets.NETS["voc-fcn8s"]), folder / "deploy.prototxt")
    peer = cv2.dnn.readNetFromCaffe(str(folder / "deploy.prototxt"), str(folder / "weights" / WEIGHTS))
    (image,) = (folder / "data").rglob(f"JPEGImages/{IDS[0]}.jpg")
    data = pixels(image)[:, :, ::-1].astype(np.float32) - np.array((104.00699, 116.66877, 122.67892), np.float32)
    peer.setInput(data.transpose(2, 0, 1)[None].copy(), "data")
    scores = peer.forward("score")[0]
    best = np.sort(scores, axis=0)
    sure = best[-1] - best[-2] > 1e-3 * np.abs(scores).max()
    assert sure.mean() > 0.9
    (mine,) = (folder / "reports/voc/predictions").glob(f"voc-fcn8s-*/{IDS[0]}.png")
    np.testing.assert_array_equal(pixels(mine)[sure], scores.argmax(0)[sure])


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A server with the archives and narrow nets of three data sets."""
    with http_servers.serve() as site:
        host = published_files.Host(tmp_path_factory.mktemp("host"), site)
        host.voc(IDS, size=(24, 32))
        host.siftflow(["coast_a1", "coast_a2"])
        host.nyud(["5001", "5002"])
        for name in ("voc-fcn8s", "voc-fcn32s", "siftflow-fcn16s", "nyud-fcn32s-color", "nyud-fcn32s-color-hha"):
            host.net(name, f"{name}.caffemodel")
        for path in host.site.iterdir():
            site.add(f"origin/{path.name}", path)
        yield host


@pytest.fixture
def reproduce(host, tmp_path, monkeypatch, capsys):
    """Run the tool on narrow nets, in folders of its own; returns exit code and output."""
    thin_nets.patch(monkeypatch)
    # None of the real nets is narrow: their published scores are put aside.
    monkeypatch.setattr(paper, "find_rescored_row", lambda net: None)
    monkeypatch.setattr(paper, "find_readme_row", lambda net: None)
    monkeypatch.setattr(paper, "find_paper_row", lambda net: None)
    module = importlib.import_module("reproduction.commands.reproduce")
    host.server.requests.clear()

    def run(*args):
        folders = [f"--{name}={tmp_path / name}" for name in ("data", "weights", "report")]
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *args, *folders, f"--manifest={host.manifest}"])
        code = module.main()
        return code, capsys.readouterr()

    return run


def scores(folder, name):
    return json.loads((folder / "report" / name / "scores.json").read_text())


def test_both_labellings_of_sift_flow_are_scored_from_its_zip(reproduce, host, tmp_path):
    code, said = reproduce("siftflow", "--nets", "siftflow-fcn16s")
    assert code == 3
    assert said.err == "".join(
        f"not checked: siftflow-fcn16s, {label}; no score of it is known.\n" for label in ("sem", "geo")
    )
    (net,) = scores(tmp_path, "siftflow")["nets"]
    (predictions,) = (tmp_path / "report/siftflow/predictions").iterdir()
    for i, (label, classes) in enumerate((("sem", 33), ("geo", 3))):
        truth = {image_id: both[i] for image_id, both in host.labels["siftflow"].items()}
        predicted = {image_id: pixels(predictions / label / f"{image_id}.png") for image_id in truth}
        np.testing.assert_array_equal(net["measured"][i]["confusion"], count(truth, predicted, classes))
        assert net["measured"][i]["label"] == label


def test_a_net_without_published_weights_is_listed_as_such(reproduce, host, tmp_path):
    code, said = reproduce("nyud", "--nets", "nyud-fcn32s-color", "nyud-fcn32s-color-d", "nyud-fcn32s-color-hha")
    assert code == 3
    color, color_d, color_hha = scores(tmp_path, "nyud")["nets"]
    assert (color_d["note"], color_d["measured"]) == (UNPUBLISHED, [])
    assert f"nyud-fcn32s-color-d: not checked; {UNPUBLISHED}.\n" in said.out
    for net in (color, color_hha):
        (predictions,) = (tmp_path / "report/nyud/predictions").glob(f"{net['net']}-??????????")
        predicted = {image_id: pixels(predictions / f"{image_id}.png") for image_id in host.labels["nyud"]}
        np.testing.assert_array_equal(net["measured"][0]["confusion"], count(host.labels["nyud"], predicted, 40))


def test_nothing_is_written_when_there_is_nothing_to_measure(reproduce, host, tmp_path):
    code, said = reproduce("nyud", "--nets", "nyud-fcn32s-color-d")
    assert (code, said.err) == (3, f"not checked: nyud-fcn32s-color-d; {UNPUBLISHED}.\n")
    assert host.server.requests == []
    assert list(tmp_path.iterdir()) == []


def rescored(mean_iu):
    return lambda net: PublishedRow(
        paper.RESCORED, "README", net, "736 images", {"mean_iu": PublishedNumber(mean_iu, True)}, "somebody", net
    )


def test_within_a_tenth_of_a_point_is_success_and_beyond_it_is_not(reproduce, tmp_path, monkeypatch):
    reproduce("voc", "--nets", "voc-fcn8s")
    measured = 100 * scores(tmp_path, "voc")["nets"][0]["measured"][0]["mean_iu"]
    monkeypatch.setattr(paper, "find_rescored_row", rescored(measured + 0.09))
    code, said = reproduce("voc", "--nets", "voc-fcn8s")
    assert (code, said.err) == (0, "")
    assert "voc-fcn8s: within 0.1 points of re-scored elsewhere.\n" in said.out
    monkeypatch.setattr(paper, "find_rescored_row", rescored(measured - 0.11))
    code, said = reproduce("voc", "--nets", "voc-fcn8s")
    assert (code, said.err) == (1, "error: off by more than 0.1 points: voc-fcn8s.\n")
    assert "voc-fcn8s: **off** from re-scored elsewhere, more than 0.1 points: mean IU by +0.11.\n" in said.out


def in_table(mean_iu):
    return lambda net: PublishedRow(
        paper.PAMI, "a table", net, "images", {"mean_iu": PublishedNumber(mean_iu, False)}, "somebody", net
    )


def test_a_net_of_which_only_the_papers_table_is_known_must_match_it_within_a_point(reproduce, tmp_path, monkeypatch):
    reproduce("nyud", "--nets", "nyud-fcn32s-color")
    measured = 100 * scores(tmp_path, "nyud")["nets"][0]["measured"][0]["mean_iu"]
    remark = "paper (not checked against the paper's text)"
    monkeypatch.setattr(paper, "find_paper_row", in_table(measured + 0.99))
    code, said = reproduce("nyud", "--nets", "nyud-fcn32s-color")
    assert (code, said.err) == (0, "")
    assert f"nyud-fcn32s-color: within 1 point of {remark}.\n" in said.out
    monkeypatch.setattr(paper, "find_paper_row", in_table(measured + 1.01))
    code, said = reproduce("nyud", "--nets", "nyud-fcn32s-color")
    assert (code, said.err) == (1, "error: off by more than 1 point: nyud-fcn32s-color.\n")
    assert f"nyud-fcn32s-color: **off** from {remark}, more than 1 point: mean IU by -1.01.\n" in said.out


def test_weights_of_ones_own_measure_the_net_whose_weights_were_not_published(reproduce, tmp_path, monkeypatch):
    mine = tmp_path / "mine.caffemodel"
    thin_nets.write(mine, "nyud-fcn32s-color-d", 32)
    args = ("nyud", "--nets", "nyud-fcn32s-color-d", "--model", str(mine))
    monkeypatch.setattr(paper, "find_paper_row", in_table(90.0))
    code, said = reproduce(*args)
    assert (code, said.err) == (1, "error: off by more than 1 point: nyud-fcn32s-color-d.\n")
    (net,) = scores(tmp_path, "nyud")["nets"]
    assert (net["weights"], net["weights_sha256"]) == ("mine.caffemodel", file_hash(mine))
    assert not mine.with_suffix(".safetensors").exists(), "nothing is written beside a file of the user's"
    monkeypatch.setattr(paper, "find_paper_row", in_table(100 * net["measured"][0]["mean_iu"]))
    assert reproduce(*args)[0] == 0


def test_a_file_of_ones_own_is_looked_for_before_anything_is_fetched(reproduce, host, tmp_path):
    with pytest.raises(WeightsError) as info:
        reproduce("nyud", "--nets", "nyud-fcn32s-color-d", "--model", str(tmp_path / "no.caffemodel"))
    assert str(info.value) == f"{tmp_path}/no.caffemodel: there is no such weights file."
    assert host.server.requests == []


def test_a_file_of_ones_own_is_of_one_net(reproduce, capsys):
    for args in (["nyud"], ["nyud", "--nets", "nyud-fcn32s-color", "nyud-fcn32s-hha"]):
        with pytest.raises(SystemExit) as info:
            reproduce(*args, "--model", "mine.caffemodel")
        assert info.value.code == 2
        assert "--model is for one net: name it with --nets" in capsys.readouterr().err


def test_a_limit_scores_the_first_images_and_compares_nothing(reproduce, host, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "find_rescored_row", rescored(99.0))
    code, said = reproduce("voc", "--nets", "voc-fcn8s", "--limit", "2")
    assert (code, said.err) == (3, "not checked: voc-fcn8s; only 2 of 3 images were scored.\n")
    assert "voc-fcn8s: not checked; only 2 of 3 images were scored.\n" in said.out
    report = scores(tmp_path, "voc")
    assert report["limit"] == 2
    truth = [host.labels["voc"][image_id] for image_id in IDS[:2]]
    assert np.sum(report["nets"][0]["measured"][0]["confusion"]) == sum((labels != 255).sum() for labels in truth)
    assert reproduce("voc", "--nets", "voc-fcn8s", "--limit", "3")[0] == 1, "all three are the whole split"
    assert scores(tmp_path, "voc")["limit"] is None


def test_a_run_that_is_stopped_goes_on_where_it_was(reproduce, tmp_path, monkeypatch):
    reproduce("voc", "--nets", "voc-fcn8s")
    whole = scores(tmp_path, "voc")["nets"][0]["measured"]
    shutil.rmtree(tmp_path / "report")
    predict, predicted = evaluate._predict, []

    def recorded(*args):
        predicted.append(args[-1])
        return predict(*args)

    def stopping(*args):
        if len(predicted) == 2:
            raise KeyboardInterrupt
        return recorded(*args)

    monkeypatch.setattr(evaluate, "_predict", stopping)
    with pytest.raises(KeyboardInterrupt):
        reproduce("voc", "--nets", "voc-fcn8s")
    assert not (tmp_path / "report/voc/scores.json").exists()
    monkeypatch.setattr(evaluate, "_predict", recorded)
    reproduce("voc", "--nets", "voc-fcn8s")
    assert predicted == IDS
    assert scores(tmp_path, "voc")["nets"][0]["measured"] == whole


def test_one_net_whose_weights_are_wrong_does_not_stop_the_others(reproduce, host, tmp_path):
    site = host.server
    site.add("origin/voc-fcn32s.caffemodel", host.site / "voc-fcn32s.caffemodel", always=http_servers.corrupt)
    try:
        code, said = reproduce("voc", "--nets", "voc-fcn32s", "voc-fcn8s")
    finally:
        site.add("origin/voc-fcn32s.caffemodel", host.site / "voc-fcn32s.caffemodel")
    assert code == 1
    broken, whole = scores(tmp_path, "voc")["nets"]
    assert whole["measured"]
    assert not broken["measured"]
    assert broken["note"].startswith(f"it cannot be fetched; {site.url}/origin/voc-fcn32s.caffemodel: its sha1 is wr")
    assert said.err.splitlines()[0].startswith(f"error: {tmp_path}/weights/voc-fcn32s.caffemodel: it cannot be fetc")
    assert said.err.splitlines()[1] == "error: 1 of 2 nets could not be scored."
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["voc-fcn8s.caffemodel"]


def test_without_data_there_is_no_report(reproduce, host, tmp_path):
    site = host.server
    site.add("origin/VOCtrainval.tar", host.site / "VOCtrainval.tar", always=http_servers.page)
    try:
        with pytest.raises(DataError) as info:
            reproduce("voc", "--nets", "voc-fcn8s")
    finally:
        site.add("origin/VOCtrainval.tar", host.site / "VOCtrainval.tar")
    assert str(info.value).startswith(f"{tmp_path}/data/archives/VOCtrainval.tar: it cannot be fetched; {site.url}/or")
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("voc", "--nets", "nyud-fcn32s-color"), "nyud-fcn32s-color is not a net of voc. It belongs to nyud."),
        (("voc", "--nets", "voc-fcn8"), "there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?"),
        (
            ("voc", "--device", "gpu0"),
            "device 'gpu0' cannot be used (Invalid device string: 'gpu0'). Use cpu, or cuda.",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_is_fetched(reproduce, host, args, text):
    with pytest.raises(ReproductionError) as info:
        reproduce(*args)
    assert str(info.value) == text
    assert host.server.requests == []


def test_a_limit_below_one_is_wrong_usage(reproduce, capsys):
    with pytest.raises(SystemExit) as info:
        reproduce("voc", "--limit", "0")
    assert info.value.code == 2
    assert "argument --limit: 0 is not 1 or more" in capsys.readouterr().err
