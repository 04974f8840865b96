"""Nets and weights in the formats V0 and V1, compared with Caffe, which upgraded, loaded and ran them."""

import pytest

from tests.helpers import parity


@pytest.mark.parametrize("path", parity.LEGACY, ids=lambda path: path.stem)
def test_an_old_model_gives_caffe_s_numbers(path):
    assert parity.legacy_parity(path) <= parity.LAYER_TOLERANCE
