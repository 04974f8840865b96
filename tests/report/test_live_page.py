"""The page of a running training: it is written at intervals, and reloads itself until the training is over."""

import re

import pytest

from reproduction.report import training
from reproduction.report.training import LivePage
from tests.helpers import report_runs


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which stands still; writing a page takes ``clock.cost``."""

    class Clock:
        now, cost = 1000.0, 0.0

        def monotonic(self):
            return self.now

    clock, write = Clock(), training.write_page

    def write_page(*arguments):
        clock.now += clock.cost
        write(*arguments)

    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(training, "write_page", write_page)
    return clock


@pytest.fixture
def runs(tmp_path):
    report_runs.log(tmp_path, "mini-vgg", 20, time="2026-01-31T12:00:00+00:00")
    return tmp_path


def text(runs):
    return (runs / "index.html").read_text() if (runs / "index.html").exists() else None


def test_a_page_is_written_at_intervals_and_reloads_itself(runs, clock):
    page = LivePage(runs, pytest.fail)
    page.step()
    assert text(runs) is None
    clock.now += 31
    page.step()
    assert '<meta http-equiv="refresh" content="30">' in text(runs)
    assert re.search(r"Written 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC while a training runs; the page reloads", text(runs))
    (runs / "index.html").unlink()
    clock.now += 29
    page.validated()
    assert text(runs) is None, "not before 30 seconds are over"
    clock.now += 2
    page.validated()
    assert text(runs)


def test_a_page_that_takes_long_is_written_less_often(runs, clock):
    page, clock.cost = LivePage(runs, pytest.fail), 2.0
    clock.now += 31
    page.step()
    (runs / "index.html").unlink()
    clock.now += 99
    page.step()
    assert text(runs) is None
    clock.now += 2
    page.step()
    assert '<meta http-equiv="refresh" content="100">' in text(runs)


def test_it_no_longer_reloads_itself_when_the_training_is_over(runs, clock):
    page = LivePage(runs, pytest.fail)
    clock.now += 31
    page.step()
    assert "refresh" in text(runs)
    with pytest.raises(KeyError), page:
        raise KeyError
    assert "refresh" not in text(runs)
    assert "UTC after the training; the page no longer reloads itself." in text(runs)


def test_a_page_that_cannot_be_written_does_not_stop_the_training(runs, clock):
    (runs / "mini-vgg/log.jsonl").write_text("{")
    notes = []
    with LivePage(runs, notes.append):
        pass
    assert notes[0].startswith("the page of this training was not written: ")


def test_without_a_training_there_is_no_page(tmp_path, clock):
    with LivePage(tmp_path, pytest.fail):
        pass
    assert text(tmp_path) is None
