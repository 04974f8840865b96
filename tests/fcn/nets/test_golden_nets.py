"""The 15 published nets at full width, compared with Caffe, forward and backward."""

import pytest

from reproduction.caffe.layers.exact import blas
from tests.helpers import parity

#: One net of each structure: a skip to each stride, scaled skips, AlexNet, two streams, two label tops. The others are
#: the same layers with other numbers of classes, and are slow tests.
STRUCTURES = {"voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet", "nyud-fcn32s-color-hha", "siftflow-fcn8s"}


def net_name(path):
    return path.stem.rpartition("_")[0]


every_net = pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if net_name(path) in STRUCTURES else pytest.mark.slow) for path in parity.NETS],
    ids=net_name,
)


def test_all_golden_nets_are_here():
    assert len(parity.NETS) == 15
    assert {net_name(path) for path in parity.NETS} > STRUCTURES


@every_net
def test_every_blob_gradient_and_label_is_caffe_s(path):
    result = parity.net_parity(path, blas_order=True)
    assert not result.labels_off
    assert result.forward <= parity.FORWARD_TOLERANCE, result.off
    if blas.adds_in_order():
        assert not result.off
    else:  # another order of additions may put a unit on the other side of a kink, and its gradient with it
        assert result.backward <= parity.KINK_TOLERANCE


@every_net
def test_torch_s_own_order_of_additions_differs_by_rounding_alone(path):
    result = parity.net_parity(path, backward=False)
    assert not result.off
    assert not result.labels_off


@pytest.mark.slow
@pytest.mark.parametrize("path", parity.NETS, ids=net_name)
def test_gradients_in_torch_s_own_order_differ_by_no_more_than_a_unit_at_a_kink(path):
    assert parity.net_parity(path).backward <= parity.KINK_TOLERANCE
