"""Small runs for the tests of pages: a VOC tree, predictions with known errors, scores, and training logs."""

import json

import numpy as np

from reproduction.fcn import datasets
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.results import Evaluation, ImageResult
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport
from reproduction.report.reference import Reference
from tests.helpers import dataset_trees

IDS = [f"2007_{number:06d}" for number in range(12)]
NETS = {"voc-fcn32s": 0.4, "voc-fcn8s": 0.1}  # and the largest share of an image's rows that is wrong

HELD = Reference("rescored", "somebody", 4, {"mean_iu": 0.5}, (), 0.1)
LOOSE = Reference("paper", "a paper, unread", 1, {"pixel_acc": 0.9, "mean_iu": 0.655}, ["pixel_acc"])


def run(root, ids=IDS, classes=None):
    """Write a tree with predictions of two nets; return the report and the galleries."""
    tree = root / "VOCdevkit" / "VOC2012"
    truth = dataset_trees.voc(tree, {"val": ids}, size=(40, 56))
    if classes:
        (tree / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    dataset = datasets.open_split("voc", "val", root)
    results, galleries = [], {}
    for net, wrong in NETS.items():
        folder = root / "predictions" / net
        folder.mkdir(parents=True)
        images = []
        for number, image_id in enumerate(ids):
            predicted = np.where(truth[image_id] == 255, 0, truth[image_id])
            rows = int(wrong * truth[image_id].shape[0] * number / len(ids))
            predicted[:rows] = (predicted[:rows] + 1) % 21
            palette.write_png(predicted, folder / f"{image_id}.png")
            labels = {"label": truth[image_id]}, {"label": predicted}
            images.append(ImageResult.from_labels(image_id, *labels, {"label": 21}, 1.25))
        galleries[net] = Gallery(dataset, folder)
        scores = Evaluation.from_images(images, {"label": 21}).scores["label"]
        measured = LabelScores.from_scores("label", scores, dataset.classes, [LOOSE, HELD], images)
        results.append(NetResult(net, "", f"{net}.caffemodel", "f" * 64, 1.25, [measured]))
    return report(*results, count=len(ids)), galleries


def report(*results, count=12, limit=None, name="voc"):
    return ScoreReport(
        set=name,
        measured="2026-01-31T12:00:00+00:00",
        split=ScoredSplit("val", count, "0" * 40),
        limit=limit,
        device="cpu",
        precision="float32",
        versions={"python": "3.11.0", "torch": "2.13.0"},
        nets=results,
    )


def log(
    folder,
    name,
    planned,
    *,
    made=None,
    parents=(),
    time="2026-01-31T12:00:00+00:00",
    classes=None,
    resumed=(),
    ended="",
):
    """Write a training log with falling losses and a validation after each quarter; return the folder.

    ``ended`` is the time of the validations.
    """
    made = planned if made is None else made
    records = [
        {
            "record": "start", "iteration": 0, "stage": name, "time": time, "device": "cpu", "processes": 1,
            "versions": {"python": "3.11.0", "torch": "2.13.0"}, "solver": f"max_iter: {planned}\nbase_lr: 0.5\n",
            "classes": {"label": list(classes)} if classes else {},
            "settings": {"seed": 1337, **{f"weights of {parent}": "sha256 00" for parent in parents}},
            "initialised": "conv1_1: copied",
        }
    ]  # fmt: skip
    for i in range(made):
        if i in resumed:
            records.append(records[0] | {"record": "resume", "iteration": i})
        loss = 2.0 / (1 + i)
        records.append({"record": "iteration", "iteration": i, "loss": 1000 * loss, "loss_per_pixel": loss, "lr": 0.5})
        if (i + 1) % max(1, planned // 4) == 0:
            part = (i + 1) / planned
            found = {"pixel_acc": 0.9 * part, "mean_acc": 0.6 * part, "mean_iu": 0.5 * part, "fw_iu": 0.8 * part}
            scores = (
                {"label": found | {"class_iu": [0.5 * part, None, *[0.25 * part] * (len(classes) - 2)]}}
                if classes
                else {}
            )
            what = {"images": 12, "scores": scores} if classes else {"outputs": {"accuracy": part, "loss": loss}}
            what |= {"time": ended} if ended else {}
            records.append({"record": "validation", "iteration": i + 1, **what})
    (folder / name).mkdir(parents=True)
    (folder / name / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name
