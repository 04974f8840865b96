"""What tests of compiled nets share."""

import math

import pytest

from reproduction.fast import blob_regions, convolution


@pytest.fixture
def planned(monkeypatch):
    """Use every plan and every kernel, also where the uncompiled net would be faster."""
    monkeypatch.setattr(convolution, "READ_TIME", 0)
    monkeypatch.setattr(convolution, "TRANSFORM_TIME", 0)
    monkeypatch.setattr(blob_regions, "WORTHWHILE_FRACTION", math.inf)
