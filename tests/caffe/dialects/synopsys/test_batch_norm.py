"""BatchNorm of synopsys' fork: eps inside or outside of the root."""

import numpy as np
import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.schema import NetParameter, Phase
from tests.caffe.layers.test_onnx_forms import run_onnx


@pytest.mark.parametrize(("inside", "phase"), [("true", Phase.TEST), ("false", Phase.TEST), ("false", Phase.TRAIN)])
def test_eps_is_added_where_the_field_says(inside, phase):
    fields = f"eps: 0.5 add_eps_before_sqrt: {inside}"
    text = f"layer {{ type: 'BatchNorm' bottom: 'x' top: 'y' batch_norm_param {{ {fields} }} }}"
    param = prototxt.loads(text, NetParameter).layer[0]
    x = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0)) * 2
    layer = find_class(param)(param, [tuple(x.shape)]).train(phase is Phase.TRAIN)
    for blob, values in zip(layer.blobs, ([2, 4, 6], [2, 8, 18], [2]), strict=True):
        blob.data.copy_(torch.tensor(values))
    mean, variance = np.array([1, 2, 3]), np.array([1, 4, 9])
    if phase is Phase.TRAIN:
        mean, variance = x.mean((0, 2, 3)).numpy(), x.var((0, 2, 3), correction=0).numpy()
    deviation = np.sqrt(variance + 0.5) if inside == "true" else np.sqrt(variance) + 0.5
    want = (x.numpy() - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(layer(x)[0].detach(), want, atol=1e-6)
    if phase is Phase.TEST:
        (exported,), _ = run_onnx(layer, [x])
        np.testing.assert_allclose(exported, want, atol=1e-6)
