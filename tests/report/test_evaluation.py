"""The report of an evaluation: files, and how often an image is decoded for it."""

from collections import Counter

import pytest
import torch

from reproduction.caffe.schema import NetParameter
from reproduction.fcn import datasets
from reproduction.fcn.images import decode
from reproduction.fcn.reproduce.net_to_score import NetToScore
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.report import evaluation, gallery, record
from tests.helpers import dataset_trees

IDS = [f"2007_{number:06d}" for number in range(14)]


class Fake(torch.nn.Module):
    """Scores of a pixel are a linear function of its colour."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(21, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, inputs, blobs=None):
        return {"score": torch.einsum("kc,nchw->nkhw", self.weight, inputs["data"])}


@pytest.fixture
def scored(tmp_path):
    dataset_trees.voc(tmp_path / "data/VOC2012", {"val": IDS})
    (tmp_path / "w").write_bytes(b"weights")
    dataset = datasets.open_split("voc", "val", tmp_path / "data")
    return NetToScore("mine", NetParameter(), tmp_path / "w", dataset, "voc")


def test_each_image_is_decoded_once_and_again_only_if_it_is_displayed(scored, tmp_path, monkeypatch):
    decoded = Counter()
    read, photo = type(scored.dataset).read, decode.read_rgb

    def counted(self, kind, path):
        decoded[path] += 1
        return read(self, kind, path)

    def counted_photo(path):
        decoded[path] += 1
        return photo(path)

    monkeypatch.setattr(type(scored.dataset), "read", counted)
    monkeypatch.setattr(decode, "read_rgb", counted_photo)
    found = evaluate(Fake(), scored.dataset, out_dir=tmp_path / "maps")
    everything = {scored.dataset.file(kind, image_id) for kind in ("data", "label") for image_id in IDS}
    assert decoded == Counter(everything)
    evaluation.write_evaluation(scored, found, tmp_path / "maps", tmp_path, "cpu", "plain", {"torch": "2"})
    (scores,) = record.load_report(tmp_path / "scores.json").nets[0].measured
    displayed = [image.id for kind in gallery.choose_images(scores.images).values() for image in kind]
    again = {scored.dataset.file(kind, image_id) for kind in ("data", "label") for image_id in displayed}
    assert 0 < len(displayed) < len(IDS)
    assert decoded == Counter(everything) + Counter(again)


def test_the_report_has_the_scores_and_the_time_of_each_image(scored, tmp_path):
    found = evaluate(Fake(), scored.dataset, out_dir=tmp_path / "maps", limit=4)
    evaluation.write_evaluation(scored, found, tmp_path / "maps", tmp_path, "cpu", "plain", {"torch": "2"})
    report = record.load_report(tmp_path / "scores.json")
    (net,) = report.nets
    assert (report.limit, report.split.count, net.predictions) == (4, len(IDS), "maps")
    assert [image.id for image in net.measured[0].images] == IDS[:4]
    assert net.seconds_per_image == pytest.approx(sum(image.seconds for image in found.images) / 4)
    assert net.measured[0].void_pixels == sum(image.void["label"] for image in found.images) > 0
    assert {path.name for path in tmp_path.iterdir()} >= {"index.html", "scores.md", "scores.json"}
