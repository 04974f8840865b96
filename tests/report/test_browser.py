"""The pages in a real browser: no errors, every control works, and the numbers are those of scores.json."""

import json
import os
import shutil

import pytest

from reproduction.fcn.scoring.score import METRICS, compute_scores
from reproduction.report import page, record, training, training_history
from reproduction.report.record import LabelScores, NetResult
from tests.helpers import report_runs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
pytestmark = pytest.mark.skipif(FOUND is None, reason=f"no browser: none of {', '.join(BROWSERS)} is on PATH")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Writes a page of scores and one of trainings."""
    folder = tmp_path_factory.mktemp("pages")
    report, galleries = report_runs.run(folder)
    record.write_report(report, folder / "scores.json")
    page.write_page(report, folder / "index.html", galleries)
    for name, parents, minute in (("mini-fcn32s", [], 0), ("mini-fcn16s", ["mini-fcn32s"], 1)):
        time = f"2026-01-31T12:0{minute}:00+00:00"
        report_runs.log(folder, name, 40, parents=parents, classes=["background", "cat", "dog"], time=time)
    training.write_page(training_history.find_run_folders(folder), folder / "training.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # Its sandbox refuses to run as root, as containers do.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = play.chromium.launch(executable_path=FOUND, args=arguments)
        yield running
        running.close()


@pytest.fixture
def visit(browser, pages):
    """Opens a page; at the end of the test nothing may have gone wrong there, and nothing been asked of a network."""
    opened, wrong = [], []

    def go(name="index.html", viewport=WIDE, **context):
        tab = browser.new_page(viewport=viewport, reduced_motion="reduce", **context)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        tab.goto((pages / name.partition("#")[0]).as_uri() + "".join(name.partition("#")[1:]))
        opened.append(tab)
        return tab

    yield go
    for tab in opened:
        tab.close()
    assert wrong == []


def test_every_number_is_that_of_scores_json(visit, pages):
    tab = visit()
    report = json.loads((pages / "scores.json").read_text())
    for net in report["nets"]:
        (measured,) = net["measured"]
        for metric in METRICS:
            shown = tab.inner_text(f"[data-net={net['net']}][data-metric={metric}]")
            assert shown == f"{100 * measured[metric]:.4f}"
        panel = tab.locator(f"[data-panel={net['net']}]")
        values = panel.locator(".bar-value").all_text_contents()
        assert values == [page.format_percent(iu) for iu in measured["class_iu"].values()]
        cells = panel.locator(".matrix tbody td").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.n || 0))"
        )
        assert cells == [count for row in measured["confusion"] for count in row]


def test_one_net_is_shown_at_a_time_and_an_address_leads_to_it(visit, pages):
    nets = json.loads((pages / "scores.json").read_text())["nets"]
    best, other = sorted((net["net"] for net in nets), key=lambda name: mean_iu(nets, name), reverse=True)
    tab = visit()
    shown, hidden = (tab.locator(f"[data-panel={net}]") for net in (best, other))
    assert (shown.is_visible(), hidden.is_visible()) == (True, False)
    tab.get_by_role("radio", name=other).check(force=True)
    assert (shown.is_visible(), hidden.is_visible()) == (False, True)
    assert tab.url.endswith(f"#{other}")
    assert visit(f"index.html#{other}").locator(f"[data-panel={other}]").is_visible()
    card = visit()
    card.click(f".card >> text={other}")
    assert card.locator(f"[data-panel={other}]").is_visible()


def mean_iu(nets, name):
    return next(net["measured"][0]["mean_iu"] for net in nets if net["net"] == name)


def shown(shot):
    return [view for view in ("photo", "truth", "prediction", "errors") if shot.locator(f".v-{view}").is_visible()]


def test_pictures_are_toggled_by_mouse_and_by_keyboard(visit):
    tab = visit("index.html#voc-fcn32s")
    shots = tab.locator("[data-panel=voc-fcn32s] .shots")
    first = shots.locator(".shot").first
    assert shots.locator(".shot").count() == 9
    assert shown(first) == ["photo", "truth", "prediction", "errors"]
    shots.get_by_label("truth", exact=True).check(force=True)
    assert shown(first) == ["truth"]
    tab.keyboard.press("ArrowRight")
    assert shown(first) == ["prediction"]
    tab.keyboard.press("ArrowRight")
    assert shown(first) == ["errors"]
    outline = shots.locator("input[value=errors] + span").evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid", "what has the focus is seen"


def test_a_slider_parts_truth_and_prediction(visit):
    tab = visit("index.html#voc-fcn32s")
    shots = tab.locator("[data-panel=voc-fcn32s] .shots")
    shots.get_by_label("slider").check(force=True)
    first = shots.locator(".shot").first
    assert shown(first) == ["truth", "prediction"]
    top, under = first.locator(".v-prediction").bounding_box(), first.locator(".v-truth").bounding_box()
    assert top == under, "they lie one on the other"
    slider = first.locator("[data-cut]")
    slider.focus()
    clip = "each => getComputedStyle(each).clipPath"
    before = first.locator(".v-prediction").evaluate(clip)
    tab.keyboard.press("ArrowRight")
    after = first.locator(".v-prediction").evaluate(clip)
    assert "50%" in before
    assert "49%" in after


def test_the_map_of_errors_is_seen(visit):
    """Where the prediction is wrong the screen shows the colour of errors, and nowhere else."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    tab = visit("index.html#voc-fcn32s")
    shots = tab.locator("[data-panel=voc-fcn32s] .shots")
    worst = shots.locator("h4:has-text('Worst') + .shelf .shot").first
    for view, least, most in (("errors", 0.05, 0.6), ("photo", 0, 0.01)):
        picture = np.array(Image.open(BytesIO(worst.locator(f".v-{view} svg").screenshot())).convert("RGB")).astype(int)
        near = (abs(picture - (224, 24, 104)).max(-1) < 12).mean()
        assert least <= near <= most, view


def test_a_cell_of_the_matrix_tells_its_values(visit, pages):
    tab = visit("index.html#voc-fcn32s")
    counts = json.loads((pages / "scores.json").read_text())["nets"][0]["measured"][0]["confusion"]
    box = tab.locator("[data-panel=voc-fcn32s] .matrix-box")
    box.locator("tbody tr").nth(2).locator("td").nth(3).hover()
    share = 100 * counts[2][3] / sum(counts[2])
    assert tab.inner_text("#tip") == f"bicycle as bird: {share:.2f} %, {counts[2][3]:,} of {sum(counts[2]):,} pixels"
    tab.mouse.move(0, 0)
    assert not tab.locator("#tip").is_visible()
    box.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        tab.keyboard.press(key)
    assert tab.inner_text("#tip").startswith("aeroplane as itself: ")
    tab.keyboard.press("Escape")
    assert not tab.locator("#tip").is_visible()


def test_bars_are_put_in_the_order_of_their_values(visit):
    tab = visit("index.html#voc-fcn32s")
    panel = tab.locator("[data-panel=voc-fcn32s]")
    places = "bars => bars.map(bar => [bar.getBoundingClientRect().left, bar.getBoundingClientRect().top])"
    panel.get_by_label("by IU").check(force=True)
    order = sorted(
        zip(panel.locator(".bar").evaluate_all(places), panel.locator(".bar-value").all_text_contents(), strict=True)
    )
    values = [float(value) for _, value in order if value != "\N{EN DASH}"]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("name", ["index.html", "training.html"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_is_no_wider_than_the_screen(visit, name, viewport):
    tab = visit(name, viewport)
    assert tab.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    small = tab.evaluate(
        """() => [...document.querySelectorAll("p, td, th, li, dd, dt, span, text, figcaption, code")]
            .filter(each => each.getBoundingClientRect().width && parseFloat(getComputedStyle(each).fontSize) < 10)
            .map(each => each.outerHTML)"""
    )
    assert small == [], "no text is too small to read"


@pytest.mark.parametrize("name", ["index.html", "training.html"])
def test_no_common_name_is_broken_on_a_phone(visit, name):
    tab = visit(name, NARROW)
    lines = tab.locator(".bar-name").evaluate_all(
        """names => names.filter(each => each.getBoundingClientRect().height)
            .map(each => [each.textContent.trim(),
                each.getBoundingClientRect().height / parseFloat(getComputedStyle(each).lineHeight)])"""
    )
    high = {text: round(height) for text, height in lines}
    assert high["background"] == 1


CONTRAST = """(selectors) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour, under) => {
    for (const each of [under, colour]) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
    const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  return selectors.map((selector) => {
    const each = document.querySelector(selector);
    let at = each;
    while (at !== document.body && getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)") at = at.parentElement;
    const [text, ground] = [getComputedStyle(each).color, getComputedStyle(at).backgroundColor]
      .map((colour) => light(colour, paper));
    return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(visit, scheme):
    tab = visit(color_scheme=scheme)
    selectors = [
        "h1", ".lead", "nav a", ".card-name", ".badge", ".delta", ".bar-value", ".key", ":checked + span", ".note",
        ".shot header", "figcaption", ".sources", ".facts dt",
    ]  # fmt: skip
    for selector, contrast in zip(selectors, tab.evaluate(CONTRAST, selectors), strict=True):
        assert contrast >= 4.5, selector
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 22)"
    assert dark == (scheme == "dark")


def test_it_prints_light_and_without_what_can_only_be_clicked(visit, tmp_path):
    tab = visit(color_scheme="dark")
    tab.emulate_media(media="print")
    assert not tab.locator(".views").first.is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(format="A4").startswith(b"%PDF-")


def test_without_scripts_every_net_is_shown(visit):
    tab = visit(java_script_enabled=False)
    assert all(tab.locator(f"[data-panel={net}]").is_visible() for net in report_runs.NETS)


def test_sixty_classes_can_be_read(browser, tmp_path):
    import numpy as np

    from reproduction.fcn.datasets import load_class_names

    counts = np.eye(60, dtype=np.int64) * 90 + 1
    measured = LabelScores.from_scores("label", compute_scores(counts), load_class_names("pascalcontext"))
    page.write_page(
        report_runs.report(NetResult("n", measured=[measured]), name="pascalcontext"), tmp_path / "index.html"
    )
    tab = browser.new_page(viewport=WIDE)
    tab.goto((tmp_path / "index.html").as_uri())
    box, table = tab.locator(".matrix-box").bounding_box(), tab.locator(".matrix").bounding_box()
    assert table["width"] <= box["width"], "all of it is on a wide screen"
    rows = tab.locator(".matrix tbody th").evaluate_all(
        "each => each.map(one => [one.scrollWidth - one.clientWidth, one.getBoundingClientRect().height])"
    )
    assert max(over for over, _ in rows) <= 0, "no name is cut off"
    assert min(height for _, height in rows) >= 13
    tab.close()


def test_curves_tell_their_values_by_mouse_and_by_keyboard(visit):
    tab = visit("training.html")
    chart = tab.locator(".chart").nth(1)
    svg = chart.locator("svg.wide")
    box = svg.bounding_box()
    svg.hover(position={"x": box["width"] - 16, "y": box["height"] / 2})
    assert tab.inner_text("#tip") == (
        "mini-fcn16s, iteration 40 · pixel acc. 90.00 · mean acc. 60.00 · mean IU 50.00 · f.w. IU 80.00"
    )
    assert chart.locator(".dot").count() == 4
    tab.mouse.move(0, 0)
    assert not tab.locator("#tip").is_visible()
    chart.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#tip").startswith("mini-fcn32s, iteration 20 · pixel acc. 45.00")


def test_curves_have_a_drawing_of_their_own_for_narrow_screens(visit):
    for viewport, name, other in ((WIDE, "wide", "narrow"), (NARROW, "narrow", "wide")):
        chart = visit("training.html", viewport).locator(".chart").first
        assert chart.locator(f"svg.{name}").is_visible()
        assert not chart.locator(f"svg.{other}").is_visible()


def test_the_page_of_a_running_training_reloads_itself_until_the_training_is_over(visit, pages):
    folders, path = training_history.find_run_folders(pages), pages / "live.html"
    training.write_page(folders, path, training.Written("at noon", 1))
    tab = visit("live.html")
    training.write_page(folders, path, training.Written("at one", None))
    tab.get_by_text("Written at one after the training").wait_for(timeout=20_000)
    assert "refresh" not in tab.content()
