"""Device names, and torch settings for single precision."""

import warnings

import pytest
import torch

from reproduction.caffe import devices, tested_devices
from reproduction.caffe.errors import ReproductionError, ReproductionWarning


def test_a_device_that_there_is_is_given_back():
    assert devices.select_device("cpu") == torch.device("cpu")
    assert devices.select_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_a_device_that_there_is_not_is_one_line(name):
    with pytest.raises(ReproductionError) as caught:
        devices.select_device(name)
    assert str(caught.value).startswith(f"device {name!r} cannot be used (")
    assert str(caught.value).endswith("). Use cpu, or cuda.")
    assert "\n" not in str(caught.value)


def test_cuda_is_untested_until_a_record_says_otherwise(monkeypatch, tmp_path):
    record = tmp_path / "tested_on_cuda.json"
    monkeypatch.setattr(tested_devices, "RECORD", record)
    assert [tested_devices.untested_note(name) for name in ("cuda", "cuda:1", "cpu")] == ["untested on CUDA"] * 2 + [""]
    with pytest.warns(ReproductionWarning, match=r"^untested on CUDA: no run on device 'cuda:99' is recorded\. "):
        use_a_device_that_is_not_there("cuda:99")
    record.write_text("{}")
    assert tested_devices.untested_note("cuda") == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_a_device_that_is_not_there("cuda:99")


def use_a_device_that_is_not_there(name):
    with pytest.raises(ReproductionError, match="cannot be used"):
        devices.select_device(name)


@pytest.fixture
def switches():
    """The switches of torch, which have no room for what monkeypatch does."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = True, False, True, True
    yield cudnn, matmul
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before


def test_cuda_computes_in_single_precision_the_same_at_every_run(switches, monkeypatch):
    cudnn, matmul = switches
    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", lambda *_, **__: None)  # as if there were such a device
        devices.select_device("cuda")
    assert (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32) == (False, True, False, False)
