"""Devices, seeds, the order of additions, and the stand-in for several processes."""

import re
import warnings

import numpy as np
import pytest
import torch

from reproduction import pycaffe as caffe
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.exact import blas
from reproduction.pycaffe.net import settings
from reproduction.pycaffe.net.errors import CaffeError
from tests.helpers.pycaffe_nets import INPUT, IP, LABEL, LOSS, net


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Set the modes back."""
    for name, value in {"device": torch.device("cpu"), "gpu": 0, "warned": False}.items():
        monkeypatch.setattr(settings._State, name, value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_without_cuda_there_is_one_warning_and_the_cpu():
    with pytest.warns(RuntimeWarning, match=r"^torch finds no CUDA device; nets compute on the CPU$"):
        caffe.set_device(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caffe.set_mode_gpu()
        caffe.set_device(1)
    assert settings.device() == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: run the tests where torch sees one")
def test_with_cuda_nets_compute_there_and_blobs_are_live(tmp_path):
    x = np.random.RandomState(0).randn(2, 3).astype(np.float32)
    made = net(tmp_path, "force_backward: true " + INPUT + IP)
    want = made.forward(x=x)["ip"].copy()
    caffe.set_device(0)
    caffe.set_mode_gpu()
    held = made.blobs["ip"].data
    held[...] = 0
    made.forward(x=x)
    assert np.allclose(held, want, atol=1e-5)
    made.backward(ip=np.ones((2, 4)))
    assert np.allclose(made.params["ip"][0].diff, np.ones((4, 2)) @ x, atol=1e-5)
    made.params["ip"][0].data[...] = 0
    assert np.allclose(made.forward()["ip"], 2)
    caffe.set_mode_cpu()
    assert np.allclose(made.forward()["ip"], 2)


def test_a_seed_fills_nets_alike(tmp_path):
    weights = []
    for seed in (1, 1, 2):
        caffe.set_random_seed(seed)
        weights.append(net(tmp_path, INPUT + IP).params["ip"][0].data.copy())
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_nets_with_a_loss_add_as_caffe_where_the_cpu_can(tmp_path, monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(settings, "uses_blas_order", lambda able=able: able)
        learning, looking = net(tmp_path, INPUT + LABEL + IP + LOSS), net(tmp_path, INPUT + IP)
        assert learning.module.layers["ip"].in_blas_order is able
        assert not looking.module.layers["ip"].in_blas_order


def test_the_order_can_be_chosen(monkeypatch):
    monkeypatch.setattr(blas, "adds_in_order", lambda: True)
    for value, want in ((None, True), ("1", True), ("0", False)):
        monkeypatch.delenv("CAFFE_ORDER", raising=False)
        if value is not None:
            monkeypatch.setenv("CAFFE_ORDER", value)
        settings.uses_blas_order.cache_clear()
        assert settings.uses_blas_order() is want
    settings.uses_blas_order.cache_clear()


def test_the_types_are_caffes():
    types = caffe.layer_type_list()
    assert types == sorted(types)
    assert set(LAYERS) < set(types)
    assert {"Data", "WindowData", "Python"} <= set(types)


def test_there_is_one_process():
    assert (caffe.has_nccl(), caffe.solver_count(), caffe.solver_rank()) == (False, 1, 0)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)
    text = "this interface trains with one process; got {}, want {}. Use fcn train, which trains with several."
    for call, got, want in (
        (caffe.set_solver_count, 2, 1),
        (caffe.set_solver_rank, 1, 0),
        (caffe.set_multiprocess, True, False),
    ):
        with pytest.raises(CaffeError, match=re.escape(text.format(got, want))):
            call(got)
    with pytest.raises(CaffeError, match=r"^this interface trains with one process"):
        caffe.NCCL(None, b"")


def test_a_timer_counts_milliseconds():
    timer = caffe.Timer()
    timer.start()
    timer.stop()
    assert 0 <= timer.ms < 1000
