"""The report: references, differences, verdicts and files."""

import dataclasses
import html
import json
import re

import numpy as np
import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.datasets import load_class_names
from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring.score import Scores, compute_scores
from reproduction.report import markdown, page, record
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport


def measured(net="voc-fcn8s", label="label", classes=None, **values):
    classes = classes or load_class_names("voc")
    counts = np.arange(len(classes) ** 2, dtype=np.int64).reshape(len(classes), -1)
    found = LabelScores.from_scores(label, compute_scores(counts), classes, record.find_references(net, label))
    return dataclasses.replace(found, **values)


# Within 0.1 points of wkentaro/fcn's figures for voc-fcn8s: 91.2212 77.6146 65.5126 84.5445.
GOOD = {"pixel_acc": 0.912213, "mean_acc": 0.776145, "mean_iu": 0.655126, "fw_iu": 0.845444}


def report(*results, limit=None, name="voc"):
    return ScoreReport(
        set=name,
        measured="2026-01-31T12:00:00+00:00",
        split=ScoredSplit("seg11valid", 736, "0" * 40),
        limit=limit,
        device="cpu",
        precision="float32",
        versions={"python": "3.11.0", "torch": "2.13.0"},
        nets=results,
    )


def voc(limit=None, **values):
    return report(NetResult("voc-fcn8s", "", "w", "f" * 64, 1.5, [measured(**values)]), limit=limit)


def test_scores_are_taken_over_with_what_was_published_of_the_net():
    counts = np.diag(np.arange(21)) + 1
    found = LabelScores.from_scores(
        "label", compute_scores(counts), load_class_names("voc"), record.find_references("voc-fcn8s")
    )
    assert found.mean_iu == compute_scores(counts).mean_iu
    assert found.confusion == counts.tolist()
    assert list(found.class_iu)[:2] == ["background", "aeroplane"]
    assert [row.column for row in found.references] == ["paper", "readme", "rescored"]
    assert found.references[1].values == {"mean_iu": 0.655}
    assert found.references[1].decimals == 1
    assert found.references[2].decimals == 4
    assert found.references[0].unverified == ["mean_acc", "fw_iu"]


def test_a_class_without_pixels_is_none_not_nan():
    counts = np.zeros((21, 21), np.int64)
    counts[0, 0] = counts[1, 0] = 1
    found = LabelScores.from_scores(
        "label", compute_scores(counts), load_class_names("voc"), record.find_references("voc-fcn8s")
    )
    assert found.class_iu["bicycle"] is None
    assert found.class_iu["aeroplane"] == 0
    nan = float("nan")
    nothing = Scores(nan, nan, nan, nan, (nan,) * 21, counts)
    assert LabelScores.from_scores("label", nothing, load_class_names("voc")).mean_iu is None


def test_geometry_is_compared_with_its_own_column():
    geo = measured("siftflow-fcn16s", "geo", load_class_names("siftflow-geo"))
    assert [(row.column, row.values) for row in geo.references] == [("paper", {"pixel_acc": pytest.approx(0.943)})]
    assert geo.compared_with.tolerance_points == 1
    sem = measured("siftflow-fcn16s", "sem", load_class_names("siftflow-sem"))
    assert sem.references[0].values["mean_iu"] == pytest.approx(0.395)


@pytest.mark.parametrize("name", published_nets.NETS)
def test_every_printed_number_comes_back_as_printed(name):
    rows = {
        "paper": paper.find_paper_row(name),
        "readme": paper.find_readme_row(name),
        "rescored": paper.find_rescored_row(name),
    }
    for reference in record.find_references(name):
        for metric, value in reference.values.items():
            printed = rows[reference.column][metric]
            assert float(f"{100 * value:.{reference.decimals}f}") == printed


def test_a_net_is_held_against_the_closest_measurement_of_the_same_weights():
    assert measured("voc-fcn8s").compared_with.column == "rescored"
    assert measured("voc-fcn-alexnet").compared_with.column == "readme"
    assert measured("nyud-fcn32s-color").compared_with.column == "paper"
    assert measured("siftflow-fcn32s", "sem").compared_with is None


@pytest.mark.parametrize(
    ("metric", "value", "off"),
    [("mean_iu", 0.656125, False), ("mean_iu", 0.656127, True), ("mean_iu", 0.654125, True), ("fw_iu", 0.84, True)],
)
def test_more_than_a_tenth_of_a_point_is_off(metric, value, off):
    found = voc(**GOOD | {metric: value}).mismatches()
    assert [entry[2] for entry in found] == ([metric] if off else [])


def test_a_part_of_the_split_is_compared_with_nothing():
    part = voc(limit=20, mean_iu=0.1)
    assert part.mismatches() == []
    document = json.loads(record.format_report(part))
    assert document["nets"][0]["measured"][0]["references"][2]["deltas_points"]["mean_iu"] is None
    text = markdown.format_markdown(part)
    assert "the first 20 of 736 images" in text
    assert "- voc-fcn8s: not checked; only 20 of 736 images were scored." in text
    assert "(" not in next(line for line in text.splitlines() if "| mean IU" in line)


def test_the_json_has_what_its_documentation_says():
    document = json.loads(record.format_report(voc(**GOOD)))
    assert list(document) == [
        "format", "set", "measured", "split", "limit", "device", "precision", "versions", "nets", "images",
        "by",
    ]  # fmt: skip
    assert document["split"] == {"name": "seg11valid", "count": 736, "sha1": "0" * 40}
    (net,) = document["nets"]
    assert (net["net"], net["weights_sha256"], net["seconds_per_image"]) == ("voc-fcn8s", "f" * 64, 1.5)
    (entry,) = net["measured"]
    assert entry["mean_iu"] == 0.655126
    assert entry["compared_with"] == "rescored"
    assert np.shape(entry["confusion"]) == (21, 21)
    deltas = entry["references"][2]["deltas_points"]
    assert deltas["pixel_acc"] == pytest.approx(0.0001)
    deltas = entry["references"][1]["deltas_points"]
    assert deltas["mean_iu"] == pytest.approx(0.0126)
    assert deltas["mean_iu_published_rule"] == pytest.approx(100 * (entry["mean_iu_published_rule"] - 0.655))


TABLE = """\
| net       | metric     |         paper | published README | re-scored elsewhere | measured here |
| --------- | ---------- | ------------: | ---------------: | ------------------: | ------------: |
| voc-fcn8s | pixel acc. |    91.2 (0.0) |                  |   91.2212 (+0.0001) |       91.2213 |
| voc-fcn8s | mean acc.  | 77.6\\* (-0.3) |                  |   77.6146 (-0.3001) |       77.3145 |
| voc-fcn8s | mean IU    |    65.5 (0.0) |       65.5 (0.0) |    65.5126 (0.0000) |       65.5126 |
| voc-fcn8s | f.w. IU    |  84.5\\* (0.0) |                  |   84.5445 (-0.0001) |       84.5444 |"""


def test_the_table_shows_percent_with_the_decimals_of_each_source():
    assert markdown.format_scores(voc(**GOOD | {"mean_acc": 0.773145})) == TABLE


def test_the_page_says_what_is_off_what_is_unchecked_and_where_numbers_come_from():
    text = markdown.format_markdown(voc(**GOOD | {"mean_acc": 0.773145}))
    assert text.startswith("# voc: its nets, measured here\n\nSplit seg11valid, all 736 images (sha1 of")
    assert "Measured 2026-01-31T12:00:00+00:00 on cpu, float32; python 3.11.0, torch 2.13.0." in text
    assert "\n- voc-fcn8s: **off** from re-scored elsewhere, more than 0.1 points: mean acc. by -0.30.\n" in text
    assert "\n\\* not checked: the text of its paper was not at hand.\n" in text
    assert "- published README, voc-fcn8s: published README, PASCAL VOC models, voc-fcn8s; " in text
    assert "\n## IU of each class\n" in text
    assert "| aeroplane   |" in text
    good = markdown.format_markdown(voc(**GOOD))
    assert "\n- voc-fcn8s: within 0.1 points of re-scored elsewhere.\n" in good


def test_nets_without_weights_and_numbers_that_cannot_be_checked_are_said_to_be_so():
    sem = measured("siftflow-fcn32s", "sem", load_class_names("siftflow-sem"))
    stranger = NetResult("siftflow-fcn32s", measured=[sem])
    none = NetResult("nyud-fcn32s-color-d", note="its weights were not published")
    text = markdown.format_markdown(report(stranger, none, name="nyud"))
    assert "- siftflow-fcn32s: not checked; no score of it is known.\n" in text
    assert "- nyud-fcn32s-color-d: not checked; its weights were not published." in text
    assert "| nyud-fcn32s-color-d | not measured |" in text
    assert report(stranger, none, name="nyud").mismatches() == []


def test_two_labellings_have_rows_and_classes_of_their_own():
    net = NetResult(
        "siftflow-fcn16s",
        measured=[
            measured("siftflow-fcn16s", "sem", load_class_names("siftflow-sem"), mean_iu_published_rule=0.36),
            measured("siftflow-fcn16s", "geo", load_class_names("siftflow-geo")),
        ],
    )
    text = markdown.format_markdown(report(net, name="siftflow"))
    assert "| siftflow-fcn16s, geo | pixel acc. |" in text
    mean_iu = 100 * net.measured[0].mean_iu
    assert (
        f"- siftflow-fcn16s, sem: mean IU is {mean_iu:.4f} ({mean_iu - 39.5:+.2f}) with absent classes left out and"
        " 36.0000 (-3.50) as the published score.py counts them.\n"
    ) in text
    assert "## IU of each class, sem" in text
    assert "## IU of each class, geo" in text


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    record.write_report(voc(), tmp_path / "scores.json")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    with pytest.raises(ReproductionError) as info:
        record.write_report(voc(), tmp_path / "no" / "scores.json")
    assert str(info.value) == f"{tmp_path}/no/scores.json: cannot be written: no such file or directory."


HOSTILE = "a|b<script>*c*`d`[e](f)\n# g\x1b[31m\u202e_h_"
SHOWN = r"a\|b&lt;script&gt;\*c\*\`d\`\[e\](f)\\n# g\\x1b\[31m\\u202e_h\_"


def test_names_from_elsewhere_are_no_markdown_and_no_html():
    plain = voc(**GOOD)
    (net, *_) = plain.nets
    (measured, *_) = net.measured
    classes = {HOSTILE if name == "cat" else name: iu for name, iu in measured.class_iu.items()}
    named = dataclasses.replace(net, net=HOSTILE, measured=[dataclasses.replace(measured, class_iu=classes)])
    noted = dataclasses.replace(net, note=HOSTILE, measured=[])
    text = markdown.format_markdown(dataclasses.replace(plain, nets=[named, noted], device=HOSTILE, set=HOSTILE))
    assert SHOWN in text
    assert not {"\x1b", "\u202e"} & set(text)
    assert "<script" not in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert len(set(widths)) == 2, "two tables, each of one width"


def test_names_as_they_are_usually_stay_as_they_are():
    for name in ("mini-fcn8s", "potted_plant", "f.w. IU", "2.13.0+cpu", "cpu, x86_64, 2 threads", "dining table"):
        assert markdown.escape(name) == name


def test_the_report_says_which_images_and_which_weights_were_used(tmp_path):
    plain = voc()
    net = dataclasses.replace(plain.nets[0], weights_origin="converted from pytorch-fcn's copy")
    told = dataclasses.replace(plain, nets=[net], images="VOC2012")
    text = markdown.format_markdown(told)
    assert "all 736 images of VOC2012 (sha1" in text
    assert "Weights of voc-fcn8s: converted from pytorch-fcn's copy.\n" in text
    record.write_report(told, tmp_path / "scores.json")
    loaded = record.load_report(tmp_path / "scores.json")
    assert (loaded.images, loaded.nets[0].weights_origin) == (told.images, net.weights_origin)
    shown = html.unescape(page.format_page(told))
    assert "w, converted from pytorch-fcn's copy" in shown
    assert "<dd>VOC2012</dd>" in shown
    assert "converted from" not in page.format_page(plain) + markdown.format_markdown(plain)
