"""What tests of compiled nets share."""

import math

import pytest

from reproduction.fast import forms, plan


@pytest.fixture
def planned(monkeypatch):
    """Take every plan, and every form of weights that there is, also where the net as it is would be quicker."""
    monkeypatch.setattr(forms, "READ", 0)
    monkeypatch.setattr(plan, "WORTH", math.inf)
