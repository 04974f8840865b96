"""Every layer that was recorded from BVLC Caffe, forward and backward."""

import pytest
import torch

from tests.helpers import parity

CASES = parity.layer_cases()
# Here double precision shows how much of Caffe's own result is single precision's rounding.
SINGLE_ONLY = {"elu_small", "lrn_across_loud", "softmax_negative_axis"}


def assert_within(errors: dict[str, float]) -> None:
    assert errors
    off = {name: f"{error:.1e}" for name, error in errors.items() if not error <= parity.LAYER_TOLERANCE}
    assert not off


def test_all_cases_are_there():
    assert len(CASES) == 68 + 109


@pytest.mark.parametrize("case", CASES)
def test_layer_equals_caffe_forward_and_backward(case):
    assert_within(parity.layer_errors(case))


@pytest.mark.parametrize("case", [case for case in CASES if case not in SINGLE_ONLY])
def test_layer_works_in_double_precision(case):
    assert_within(parity.layer_errors(case, torch.float64))
