"""Old nets with old weights, V0 and V1, that Caffe upgraded, loaded and ran."""

import pytest

from tests.helpers import parity


@pytest.mark.parametrize("path", parity.LEGACY, ids=lambda path: path.stem)
def test_an_old_model_gives_caffe_s_numbers(path):
    assert parity.legacy_parity(path) <= parity.LAYER_TOLERANCE
