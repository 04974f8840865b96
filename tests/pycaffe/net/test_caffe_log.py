"""Caffe's log through `logging`."""

import logging

import pytest

from reproduction import pycaffe as caffe
from reproduction.pycaffe.net import caffe_log


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(caffe_log.logger, "handlers", [])
    monkeypatch.setattr(caffe_log.logger, "propagate", False)
    level = caffe_log.logger.level
    yield
    caffe_log.logger.setLevel(level)


def test_nothing_is_printed_before_it_is_asked_for(capsys):
    caffe.log("quiet")
    assert capsys.readouterr() == ("", "")


def test_init_log_shows_the_log_on_stderr_once(capsys):
    caffe.init_log()
    caffe.init_log(0, True)
    caffe.log("Hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert err[0] == "I"
    assert err.endswith(" Hello\n")
    assert err.count("Hello") == 1


def test_a_program_may_set_glogs_level(capsys, monkeypatch):
    caffe.init_log()
    for level, lines in (("2", 0), ("odd", 1), ("0", 1)):
        monkeypatch.setenv("GLOG_minloglevel", level)
        caffe.log("info")
        assert capsys.readouterr().err.count("\n") == lines


def test_a_level_leaves_the_rest_out(capsys):
    caffe.init_log(1)
    caffe.log("info")
    caffe_log.logger.warning("a warning")
    assert capsys.readouterr().err.count("\n") == 1
    caffe.init_log(9)
    assert caffe_log.logger.level == logging.CRITICAL
