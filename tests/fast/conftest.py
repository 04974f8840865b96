"""What tests of compiled nets share."""

import numpy as np
import pytest
import torch

from reproduction.caffe.net.net import Net
from reproduction.fast import convolution
from tests.helpers import thin_nets


@pytest.fixture
def always_winograd(monkeypatch):
    """Use Winograd's method also where it is slower."""
    monkeypatch.setattr(convolution, "READ_TIME", 0)
    monkeypatch.setattr(convolution, "TRANSFORM_TIME", 0)


def draw_image(net, height, width, batch=1):
    shape = (batch, net.blob_shapes["data"][1], height, width)
    return {"data": torch.from_numpy(np.random.default_rng(3).standard_normal(shape, np.float32))}


@pytest.fixture
def net():
    """A thin voc-fcn8s with biases, so that the pixels around the image are not zero."""
    made = Net(thin_nets.deploy("voc-fcn8s", 16), seed=1).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for blob in made.parameters():
            if blob.dim() == 1:
                blob.normal_(0, 0.3, generator=generator)
            elif not blob.any():
                blob.normal_(0, 0.1, generator=generator)
    return made
