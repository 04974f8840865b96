"""Evaluation of small nets on small trees: scores, label maps, and resuming a run that was stopped."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.training.parallel import Ranks
from reproduction.fcn import datasets
from reproduction.fcn.scoring import evaluate, score
from tests.helpers import dataset_trees

IDS = [f"2007_{i:06d}" for i in range(9)]


class Fake(torch.nn.Module):
    """A net of one matrix: scores of a pixel are a linear function of its colour."""

    def __init__(self, seed=0, **classes):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.classes = classes or {"score": 21}
        for blob, count in self.classes.items():
            self.register_buffer(blob, torch.randn(count, 3, generator=draw))
        self.calls = 0

    def forward(self, inputs, blobs=None):
        self.calls += 1
        assert list(inputs) == ["data"]
        return {blob: torch.einsum("kc,nchw->nkhw", getattr(self, blob), inputs["data"]) for blob in blobs}


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "data"
    labels = dataset_trees.voc(root / "VOC2012", {"val": IDS})
    return datasets.open_split("voc", "val", root), labels


def independent(net, dataset, labels, blob="score"):
    """Count once more, without the code under test."""
    weight = getattr(net, blob).numpy()
    counts = np.zeros((len(weight), len(weight)), int)
    for i, image_id in enumerate(dataset.ids):
        guess = np.einsum("kc,chw->khw", weight, dataset[i]["data"]).argmax(0)
        keep = labels[image_id] < 255
        np.add.at(counts, (labels[image_id][keep], guess[keep]), 1)
    return counts


def test_scores_are_those_of_the_label_maps(voc):
    dataset, labels = voc
    net = Fake()
    result = evaluate.evaluate(net, dataset).scores
    assert list(result) == ["label"]
    np.testing.assert_array_equal(result["label"].confusion, independent(net, dataset, labels))
    assert result["label"] == score.compute_scores(result["label"].confusion)


def test_two_labellings_are_scored_in_one_pass(tmp_path):
    labels = dataset_trees.siftflow(tmp_path / "data/sift-flow", {"test": ["a", "b", "c"]})
    dataset = datasets.open_split("siftflow", "test", tmp_path / "data")
    net = Fake(score_sem=33, score_geo=3)
    result = evaluate.evaluate(net, dataset, out_dir=tmp_path / "out").scores
    assert net.calls == 3
    for top, i in (("sem", 0), ("geo", 1)):
        want = independent(net, dataset, {image_id: pair[i] for image_id, pair in labels.items()}, f"score_{top}")
        np.testing.assert_array_equal(result[top].confusion, want)
        assert sorted(path.name for path in (tmp_path / "out" / top).iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_real_net_fills_the_slot(voc):
    dataset, labels = voc
    message = prototxt.loads(
        """
        layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
        layer { name: "score" type: "Convolution" bottom: "data" top: "score"
                convolution_param { num_output: 21 kernel_size: 1 bias_term: false } }
        """,
        NetParameter,
    )
    net, fake = Net(message), Fake()
    with torch.no_grad():
        net.params["score"][0].copy_(fake.score[..., None, None])
    counts = evaluate.evaluate(net, dataset).scores["label"].confusion
    assert counts.sum() == independent(fake, dataset, labels).sum()
    assert np.abs(counts - independent(fake, dataset, labels)).sum() <= 2  # sums in another order


def test_equal_scores_go_to_the_first_class(voc):
    dataset, _ = voc
    net = Fake()
    net.score[:] = net.score[0]
    counts = evaluate.evaluate(net, dataset).scores["label"].confusion
    assert counts[:, 0].sum() == counts.sum()


def test_predictions_are_written_as_palette_pictures(voc, tmp_path):
    dataset, _ = voc
    net = Fake()
    evaluate.evaluate(net, dataset, out_dir=tmp_path / "out", limit=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{image_id}.png" for image_id in IDS[:2]]
    with Image.open(tmp_path / "out" / f"{IDS[1]}.png") as image:
        assert image.mode == "P"
        written = np.array(image)
    want = torch.einsum("kc,chw->khw", net.score, torch.from_numpy(dataset[1]["data"])).argmax(0)
    np.testing.assert_array_equal(written, want)


class Stop:
    """Progress that stops the run, as Ctrl-C does, after so many samples; None never does."""

    def __init__(self, after=None):
        self.after, self.seen = after, []

    def __call__(self, count, total, seconds):
        assert seconds >= 0
        self.seen.append((count, total))
        if count == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stops", [[4], [1, 2, 8], [3, 3]])
def test_a_run_that_is_stopped_goes_on_where_it_was(voc, tmp_path, stops):
    dataset, _ = voc
    state, out = tmp_path / "run/state.jsonl", tmp_path / "out"
    net = Fake()
    before = 0
    for after in stops:
        progress = Stop(after)
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(net, dataset, state=state, out_dir=out, progress=progress)
        assert progress.seen == [(i, 9) for i in range(before, after + 1)]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
        assert [path.name for path in state.parent.iterdir()] == ["state.jsonl"]
        before = after
    progress = Stop()
    resumed = evaluate.evaluate(net, dataset, state=state, out_dir=out, progress=progress).scores
    assert progress.seen == [(i, 9) for i in range(before, 10)]
    assert net.calls == 9
    assert resumed == evaluate.evaluate(net, dataset).scores
    assert len(list(out.iterdir())) == 9


@pytest.mark.parametrize("torn", [b"", b'{"id": "2007_0000'])
def test_a_run_that_is_killed_loses_at_most_an_image(voc, tmp_path, torn):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    kept = {}

    def progress(count, total, seconds):
        if count == 5:
            kept["state"] = state.read_bytes()  # what a machine that loses power now leaves behind

    whole = evaluate.evaluate(Fake(), dataset, state=state, progress=progress)
    state.write_bytes(kept["state"] + torn)
    assert kept["state"].count(b"\n") == 1 + 5
    net = Fake()
    resumed = evaluate.evaluate(net, dataset, state=state)
    assert (resumed.scores, net.calls) == (whole.scores, 4)
    assert [image.counts for image in resumed.images] == [image.counts for image in whole.images]
    assert state.read_bytes().count(b"\n") == 1 + 9


def test_a_limited_run_can_be_made_whole(voc, tmp_path):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    part = evaluate.evaluate(Fake(), dataset, state=state, limit=4).scores
    assert (
        part["label"].confusion.sum() < evaluate.evaluate(Fake(), dataset, state=state).scores["label"].confusion.sum()
    )
    assert evaluate.evaluate(Fake(), dataset, state=state).scores == evaluate.evaluate(Fake(), dataset).scores
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset, state=state, limit=4)
    assert str(error.value) == (
        f"{state}: the run is already further than the limit; got 9 samples, want at most 4. Delete it to start again."
    )


def test_the_state_of_another_run_is_refused(voc, tmp_path):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    evaluate.evaluate(Fake(), dataset, state=state, limit=2)
    dataset_trees.write_list(dataset.tree / "ImageSets/Segmentation/other.txt", IDS[:5])
    other_split = datasets.open_split("voc", "other", dataset.root)
    for net, other in ((Fake(seed=1), dataset), (Fake(), other_split)):
        with pytest.raises(DataError) as error:
            evaluate.evaluate(net, other, state=state)
        assert str(error.value) == (
            f"{state}: this is the state of another run; want the same weights, data and split."
            " Delete it to start again."
        )


HEADER = '{"format": 2, "run": "x"}\n'
SPOILT = [
    "",
    "{}",
    "[1, 2]",
    "nonsense",
    '{"format": 1, "run": "x", "samples": 2, "counts": {"label": [[1, 2], [3, 4]]}}',
    HEADER + '{"id": "a", "counts": {"label": [[1, 2, 3.5]]}, "void": {"label": 0}, "seconds": 1}\n',
    HEADER + '{"id": "a", "counts": {"label": [[1, 2]]}, "void": {"label": 0}, "seconds": 1}\n',
    HEADER + "[" * 100_000 + "\n",
    "[" * 100_000,
    "\ud800",
]


@pytest.mark.parametrize("text", SPOILT, ids=range(len(SPOILT)))
def test_a_spoilt_state_is_refused(voc, tmp_path, text):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    state.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset, state=state)
    said = str(error.value)
    assert said.startswith(f"{state}: not the state of an evaluation: ")
    assert said.endswith(" Delete it to start again.")
    assert "\n" not in said


def test_a_resumed_run_wants_its_earlier_pictures(voc, tmp_path):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    evaluate.evaluate(Fake(), dataset, state=state, limit=3, out_dir=tmp_path / "a")
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset, state=state, out_dir=tmp_path / "b")
    assert str(error.value) == (
        f"{tmp_path / 'b'}: the run resumes after 3 images, but 3 of their predictions are missing, the first is"
        f" {IDS[0]}.png. Name the folder of the first part, or delete the state file to start again."
    )


def test_a_broken_file_is_named_when_its_turn_comes_and_the_run_goes_on_once_mended(voc, tmp_path):
    dataset, _ = voc
    whole = evaluate.evaluate(Fake(), dataset).scores
    path, state, progress = dataset.file("label", IDS[5]), tmp_path / "state.jsonl", Stop()
    mended = path.read_bytes()
    path.write_bytes(mended[:60])
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset, state=state, progress=progress)
    assert str(error.value).startswith(f"{path}: ")
    assert progress.seen[-1] == (5, 9)
    path.write_bytes(mended)
    assert evaluate.evaluate(Fake(), dataset, state=state).scores == whole


def test_decoding_runs_ahead_but_not_away(voc, monkeypatch):
    dataset, _ = voc
    started, done, most = [], [], []
    read = type(dataset).__getitem__

    def counted(self, index):
        started.append(index)
        most.append(len(started) - len(done))
        return read(self, index)

    def progress(count, total, seconds):
        time.sleep(0.02)
        done.extend([None] * (count - len(done)))

    monkeypatch.setattr(type(dataset), "__getitem__", counted)
    evaluate.evaluate(Fake(), dataset, progress=progress)
    assert sorted(started) == list(range(9))
    assert 2 <= max(most) <= 5


def test_ids_that_were_trained_on_are_refused_unless_forced(voc):
    dataset, _ = voc
    dataset_trees.sbd(dataset.root / "sbdd/dataset", {"train": [IDS[3], IDS[4], "other"]})
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset)
    assert str(error.value) == (
        f"voc val: 2 of 9 images were in the training set of the published nets, the first is {IDS[3]!r}."
        " Score another split (seg11valid for VOC), or force it if the net was trained on others."
    )
    evaluate.evaluate(Fake(), dataset, force=True, limit=1)


def test_missing_files_are_counted_before_the_first_image(voc):
    dataset, _ = voc
    for image_id in IDS[3:5]:
        dataset.file("data", image_id).unlink()
    net = Fake()
    with pytest.raises(DataError) as error:
        evaluate.evaluate(net, dataset)
    first = dataset.file("data", IDS[3])
    assert str(error.value) == f"voc val: 2 files are missing, the first is {first}. Extract the data set again."
    assert net.calls == 0
    evaluate.evaluate(net, dataset, limit=3)


def test_a_net_of_other_classes_is_named(voc):
    dataset, _ = voc
    size = dataset[0]["label"].shape[1:]
    with pytest.raises(NetError) as error:
        evaluate.evaluate(Fake(score=40), dataset)
    assert str(error.value) == (
        f"blob 'score' does not fit the labels of image '{IDS[0]}'; got {(1, 40, *size)}, want {(1, 21, *size)}."
    )


def test_scores_that_are_not_numbers_are_an_error(voc, tmp_path):
    dataset, _ = voc
    net = Fake()
    net.score[3] = np.nan
    with pytest.raises(NetError) as error:
        evaluate.evaluate(net, dataset, state=tmp_path / "state.jsonl", out_dir=tmp_path / "out")
    assert str(error.value) == f"blob 'score' is not a number (NaN) for image '{IDS[0]}'. Check the weights."
    assert not (tmp_path / "state.jsonl").exists()
    assert not (tmp_path / "out").exists()


def test_nothing_to_score_is_an_error(voc):
    dataset, _ = voc
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), dataset, limit=0)
    assert str(error.value) == "voc val: there is no sample to score; got limit 0, want 1 or more."
    only_images = datasets.open_split("voc", "val", dataset.root, ["data"])
    with pytest.raises(DataError) as error:
        evaluate.evaluate(Fake(), only_images)
    assert str(error.value) == "voc val: there is no label to score against; got tops data."


class Part(Ranks):
    """One of several processes, which gathers from what ``sent`` holds of those before."""

    def __init__(self, rank, size, sent):
        super().__init__(rank, size)
        self.sent = sent

    def gather_objects(self, mine):
        self.sent.append(list(mine))
        return [image for part in self.sent for image in part]


@pytest.mark.parametrize("size", [2, 4, 9, 11])
def test_processes_count_together_what_one_counts(voc, tmp_path, size):
    dataset, _ = voc
    whole = evaluate.evaluate(Fake(), dataset).scores
    sent, calls = [], []
    for rank in range(size):
        net = Fake()
        try:
            found = evaluate.evaluate(net, dataset, out_dir=tmp_path / "png", ranks=Part(rank, size, sent)).scores
        except DataError:  # more processes than images: the first ones have counted nothing yet
            assert not any(sent)
        calls.append(net.calls)
    assert found == whole
    assert sum(calls) == len(IDS)
    assert max(calls) - min(calls) <= 1
    assert sorted(path.stem for path in (tmp_path / "png").iterdir()) == IDS


def test_each_process_keeps_a_state_of_its_own(voc, tmp_path):
    dataset, _ = voc
    state = tmp_path / "state.jsonl"
    for calls in (len(IDS), 0):
        sent, nets = [], [Fake(), Fake()]
        for rank, net in enumerate(nets):
            found = evaluate.evaluate(net, dataset, state=state, ranks=Part(rank, 2, sent)).scores
        assert sum(net.calls for net in nets) == calls
        assert found == evaluate.evaluate(Fake(), dataset).scores
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["state-1of2.jsonl", "state-2of2.jsonl"]
    (tmp_path / "state-1of2.jsonl").rename(tmp_path / "state-1of3.jsonl")
    with pytest.raises(DataError, match="this is the state of another run"):
        evaluate.evaluate(Fake(), dataset, state=state, ranks=Part(0, 3, []))


def test_two_at_once_do_not_mix_their_predictions(voc, tmp_path):
    """Neither in one folder nor in one state; the second is told and the first goes on."""
    dataset, _ = voc
    told = []

    def second(**places):
        try:
            evaluate.evaluate(Fake(seed=1), dataset, **places)
        except DataError as error:
            told.append(str(error))

    def progress(count, total, seconds):
        if count == 2:
            for places in ({"out_dir": tmp_path / "a"}, {"state": tmp_path / "state.jsonl"}):
                thread = threading.Thread(target=second, kwargs=places)
                thread.start()
                thread.join()

    found = evaluate.evaluate(
        Fake(), dataset, out_dir=tmp_path / "a", state=tmp_path / "state.jsonl", progress=progress
    ).scores
    end = "another process is evaluating here. Wait for it, or end it."
    assert told == [f"{tmp_path}/a: {end}", f"{tmp_path}/state.jsonl: {end}"]
    assert found == evaluate.evaluate(Fake(), dataset).scores
    assert not list(tmp_path.rglob(".*"))
