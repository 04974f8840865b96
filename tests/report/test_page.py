"""The page of scores: its numbers are the report's, it needs no other file, and it names what it shows."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from reproduction.fcn.datasets import load_class_names
from reproduction.fcn.scoring.score import METRICS, compute_scores
from reproduction.report import page
from reproduction.report.record import LabelScores, NetResult
from tests.helpers import report_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    report, galleries = report_runs.run(tmp_path_factory.mktemp("run"))
    return report, page.format_page(report, galleries)


class Cells(html.parser.HTMLParser):
    """Collects each element's text by its attributes, and every attribute that names another place."""

    VOID = frozenset({"meta", "link", "input", "image", "use"})

    def __init__(self, text):
        super().__init__()
        self.found, self.ids, self.links, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        entry = {"tag": tag, "text": "", **dict(attributes)}
        self.found.append(entry)
        self.ids += [entry["id"]] if "id" in entry else []
        self.links += [entry[name] for name in ("href", "src", "xlink:href", "action", "srcset") if entry.get(name)]
        if tag not in self.VOID:
            self._open.append(entry)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop()["tag"] == tag, "every element is closed"

    def handle_data(self, data):
        for entry in self._open:
            entry["text"] += data

    def having(self, **attributes):
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [entry for entry in self.found if all(entry.get(name) == value for name, value in wanted.items())]

    def classed(self, name):
        return [entry for entry in self.found if name in (entry.get("class") or "").split()]


def test_every_score_is_that_of_the_report(run):
    report, text = run
    cells = Cells(text)
    for net in report.nets:
        for metric in METRICS:
            (cell,) = cells.having(data_net=net.net, data_metric=metric)
            assert cell["text"] == f"{100 * getattr(net.measured[0], metric):.4f}"
        (card,) = cells.having(data_score=net.net)
        assert card["text"] == f"{100 * net.measured[0].mean_iu:.2f}"


def test_published_scores_stand_beside_them_with_differences_and_sources(run):
    report, text = run
    measured = report.nets[0].measured[0]
    row = text[text.index('data-metric="mean_iu">') :].partition(">")[2]
    row = re.sub(r"<[^>]+>", " ", row[: row.index("</tr>")])
    delta = 100 * measured.mean_iu - 50
    sign = "+" if delta > 0 else "\N{MINUS SIGN}"
    assert row.split()[1:] == [
        "65.5", "1", page.format_delta(100 * measured.mean_iu - 65.5, 1), "50.0000", "2", f"{sign}{abs(delta):.4f}",
    ]  # fmt: skip
    assert '<li id="source-1"><b>paper.</b> a paper, unread.</li>' in text
    assert '<li id="source-2"><b>re-scored elsewhere.</b> somebody.</li>' in text
    assert "* not checked: the text of its paper was not at hand." in text


def test_a_net_that_is_off_and_one_that_is_not_are_told_apart():
    counts = np.eye(21, dtype=np.int64) * 7
    good = LabelScores.from_scores(
        "label",
        compute_scores(counts),
        load_class_names("voc"),
        [dataclasses.replace(report_runs.HELD, values={"mean_iu": 1})],
    )
    bad = LabelScores.from_scores("label", compute_scores(counts), load_class_names("voc"), [report_runs.HELD])
    text = page.format_page(report_runs.report(NetResult("a", measured=[good]), NetResult("b", measured=[bad])))
    badges = [entry["text"] for entry in Cells(text).classed("badge")]
    assert badges == ["✓ within 0.1 points", "✗ mean IU off by +50.00"]
    assert "<li>b: <strong>off</strong> from re-scored elsewhere, more than 0.1 points: mean IU by +50.00.</li>" in text


def test_a_part_of_the_split_is_compared_with_nothing(run):
    report, _ = run
    text = page.format_page(dataclasses.replace(report, limit=5))
    assert "the first 5" in re.sub(r"\s+", " ", text)
    assert {entry["text"] for entry in Cells(text).classed("badge")} == {"partial run, not checked"}
    assert not Cells(text).classed("delta")


def test_the_page_needs_nothing_but_itself(run):
    _, text = run
    cells = Cells(text)
    assert {link.partition(":")[0] for link in cells.links if not link.startswith("#")} == {"data"}
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    policy = next(entry for entry in cells.found if entry.get("http-equiv"))
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_its_names_are_unique_and_its_links_lead_somewhere(run):
    cells = Cells(run[1])
    assert len(cells.ids) == len(set(cells.ids))
    assert {link[1:] for link in cells.links if link.startswith("#")} <= set(cells.ids)


def test_each_bar_is_as_long_as_its_number(run):
    report, text = run
    panel = text[text.index('data-panel="voc-fcn8s"') :]
    cells = Cells(
        panel[panel.index('<div class="bars"') : panel.index("<h3>Confusion matrix")].partition("</section>")[0]
    )
    iu = report.nets[1].measured[0].class_iu
    names = [entry["text"] for entry in cells.classed("bar-name")]
    assert names == list(iu)
    widths = [float(re.search(r"[\d.]+", entry["style"])[0]) for entry in cells.classed("fill")]
    shown = [entry["text"] for entry in cells.classed("bar-value")]
    assert shown == [page.format_percent(value) for value in iu.values()]
    assert [f"{width:.2f}" for width in widths] == [text for text in shown if text != "\N{EN DASH}"]
    others = report.nets[0].measured[0].class_iu
    assert [entry["title"] for entry in cells.classed("tick")] == [
        f"voc-fcn32s: {100 * value:.2f}" for value in others.values() if value is not None
    ]


def test_the_confusion_matrix_has_every_count_and_its_rows_are_named(run):
    report, text = run
    counts = report.nets[0].measured[0].confusion
    matrix = text[text.index('<table class="matrix') :].partition("</table>")[0]
    rows = re.findall(r'<tr data-total="(\d+)"[^>]*><th scope="row">([^<]+)</th>(.*?)</tr>', matrix, re.DOTALL)
    assert [name for _, name, _ in rows] == list(load_class_names("voc"))
    for (total, _, row), line in zip(rows, counts, strict=True):
        assert int(total) == sum(line)
        found = re.findall(r'<td(?: class="[^"]*")?(?: style="[^"]*" data-n="(\d+)")?>', row)
        assert [int(count or 0) for count in found] == list(line)
    assert re.findall(r'<th scope="col"><span>([^<]+)', matrix) == list(load_class_names("voc"))


def test_the_most_frequent_mistakes_are_said_in_words():
    counts = np.eye(21, dtype=np.int64) * 100
    counts[8, 12] = 300
    counts[12, 0] = 50
    measured = LabelScores.from_scores("label", compute_scores(counts), load_class_names("voc"))
    text = page.format_page(report_runs.report(NetResult("n", measured=[measured])))
    said = [
        entry["text"]
        for entry in Cells(text[text.index('<ol class="mistakes">') :].partition("</ol>")[0]).having(tag="li")
    ]
    assert said == ["75.0 % of cat is predicted as dog", "33.3 % of dog is predicted as background"]


def test_void_is_shown_apart(run):
    report, text = run
    void = report.nets[0].measured[0].void_pixels
    share = 100 * void / (void + np.sum(report.nets[0].measured[0].confusion))
    assert f"Void: {void:,} pixels, {share:.1f} % of all, have no class. They do not count" in text


def test_a_class_that_is_nowhere_has_a_dash_and_an_empty_row():
    counts = np.zeros((21, 21), np.int64)
    counts[0, 0], counts[1, 0] = 3, 1
    measured = LabelScores.from_scores("label", compute_scores(counts), load_class_names("voc"))
    text = page.format_page(report_runs.report(NetResult("n", measured=[measured])))
    assert [entry["text"] for entry in Cells(text).classed("bar-value")][:3] == ["75.00", "0.00", "\N{EN DASH}"]
    assert "neither in the truth nor predicted" in text
    assert text.count('class="empty"') == 19


def test_a_matrix_of_many_classes_has_no_numbers_in_its_cells():
    names = load_class_names("pascalcontext")
    measured = LabelScores.from_scores("label", compute_scores(np.eye(60, dtype=np.int64)), names)
    text = page.format_page(report_runs.report(NetResult("n", measured=[measured]), name="pascalcontext"))
    assert '<table class="matrix dense" style="--classes:60">' in text
    assert ">100</td>" not in text


def test_both_labellings_of_sift_flow_are_shown():
    nets = [
        LabelScores.from_scores(top, compute_scores(np.eye(len(names), dtype=np.int64)), names)
        for top, names in (("sem", load_class_names("siftflow-sem")), ("geo", load_class_names("siftflow-geo")))
    ]
    text = page.format_page(report_runs.report(NetResult("siftflow-fcn16s", measured=nets), name="siftflow"))
    panels = [entry["data-panel"] for entry in Cells(text).classed("panel")]
    assert panels == ["siftflow-fcn16s-sem", "siftflow-fcn16s-geo"]
    assert "<h1>SIFT Flow</h1>" in text


def test_of_nets_of_which_nothing_was_published_no_source_is_named():
    measured = LabelScores.from_scores("label", compute_scores(np.eye(21, dtype=np.int64)), load_class_names("voc"))
    text = page.format_page(report_runs.report(NetResult("n", measured=[measured])))
    assert "#sources" not in text
    assert '<h2 id="scores-title">Scores</h2>' in text


def test_a_net_that_was_not_measured_says_why():
    text = page.format_page(
        report_runs.report(NetResult("nyud-fcn32s-color-d", note="no caffemodel was published"), name="nyud")
    )
    assert "not measured: no caffemodel was published" in text


def test_names_cannot_break_the_page(tmp_path):
    names = ["background", "<script>alert(1)</script>", '"&', *(f"class {k}" for k in range(3, 21))]
    report, galleries = report_runs.run(tmp_path, report_runs.IDS[:3], names)
    text = page.format_page(report, galleries)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    Cells(text)


def test_pictures_have_alternative_texts_that_name_their_classes(run):
    report, text = run
    pictures = [entry for entry in Cells(text).found if entry["tag"] == "svg" and entry.get("role") == "img"]
    assert len(pictures) == 2 * 9 * 4 + 4  # one image above the table: itself, its truth, and what both nets predict
    truth = next(entry["aria-label"] for entry in pictures if entry["aria-label"].startswith("Truth of"))
    named = truth.partition(": ")[2].split(", ")
    assert named
    assert set(named) <= set(report.nets[0].measured[0].class_iu)


def test_the_page_begins_with_an_image_and_opens_on_the_best_net(run):
    report, text = run
    cells = Cells(text)
    start = text[text.index('<div class="glance">') :].partition("</div>")[0]
    captions = [entry["text"] for entry in Cells(start + "</div>").having(tag="figcaption")]
    assert captions[1:] == ["truth", "voc-fcn32s", "voc-fcn8s"]
    assert captions[0].partition(" ")[2] in {image.id for image in report.nets[0].measured[0].images}
    assert text.index('<div class="glance">') < text.index('<table class="scores"')
    best = max(report.nets, key=lambda net: net.measured[0].mean_iu)
    assert [entry["value"] for entry in cells.having(name="net") if "checked" in entry] == [best.net]
    assert "IU is intersection over union" in text


def test_each_column_of_the_table_has_its_header(run):
    heads = [entry["text"] for entry in Cells(run[1]).having(role="columnheader")]
    assert heads == ["net", "metric", "measured here", "paperdifference", "re-scored elsewheredifference"]


def test_what_ran_is_said(run):
    _, text = run
    for said in ("f" * 64, "0" * 40, "torch 2.13.0", "voc-fcn8s.caffemodel", "float32", "1.25", "val, 12 images"):
        assert said in text
    report, _ = run
    exact = page.format_page(dataclasses.replace(report, precision="exact"))
    assert "<dd>exact: float32, compiled, the same but for rounding</dd>" in exact


def test_the_file_is_written_whole(run, tmp_path):
    report, _ = run
    page.write_page(report, tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text().endswith("</html>")


@pytest.mark.parametrize(
    ("delta", "text"), [(0.04, "0.0"), (-0.04, "0.0"), (0.06, "+0.1"), (-1.26, "\N{MINUS SIGN}1.3")]
)
def test_a_difference_has_its_sign(delta, text):
    assert page.format_delta(delta, 1) == text
