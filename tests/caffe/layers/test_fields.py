"""Fields that a layer type does not read: a warning if Caffe ignores them, an error if Caffe refuses them."""

import re
import warnings

import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionWarning
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import COMMON
from reproduction.caffe.layers.fork_fields import NO_EFFECT
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Field, LayerParameter, NetParameter
from tests.helpers.single_layer import single

MEMORY = "memory_data_param { batch_size: 1 channels: 1 height: 2 width: 3 }"


@pytest.mark.parametrize(
    ("text", "shapes", "ignored"),
    [
        ('type: "Input" input_param { shape { dim: 1 } } transform_param { scale: 2 }', [], "'transform_param'"),
        (f'type: "MemoryData" top: "a" top: "b" {MEMORY} transform_param {{ mirror: true }}', [], "'transform_param'"),
        ('type: "DummyData" dummy_data_param { shape { dim: 1 } } transform_param { scale: 2 }', [],
         "'transform_param'"),
        ('type: "Im2col" convolution_param { kernel_size: 1 num_output: 3 bias_term: false }', [(1, 3, 4, 4)],
         "'convolution_param.num_output', 'convolution_param.bias_term'"),
        ('type: "Pooling" pooling_param { kernel_size: 2 } relu_param { negative_slope: 1 engine: CAFFE }',
         [(1, 1, 4, 4)], "'relu_param'"),
        ('type: "TanH" elu_param { alpha: 2 } convolution_param { pad: 1 stride: 2 }', [(2,)],
         "'convolution_param', 'elu_param'"),
        ('type: "Softmax" loss_param { ignore_label: 2 }', [(1, 3)], "'loss_param'"),
        ('type: "EuclideanLoss" loss_param { normalization: FULL }', [(1, 3), (1, 3)], "'loss_param'"),
        ('type: "Split" dropout_param { dropout_ratio: 0.1 }', [(1, 3)], "'dropout_param'"),
    ],
)  # fmt: skip
def test_a_field_that_caffe_ignores_is_one_warning_for_each_layer(text, shapes, ignored):
    kind = re.search(r'type: "(\w+)"', text)[1]
    remedy = f"Remove {'them' if ',' in ignored else 'it'}, or check the layer's type."
    with pytest.warns(ReproductionWarning) as caught:
        single(f'name: "x" {text}', *shapes)
    assert [str(warning.message) for warning in caught] == [
        f"layer 'x' ({kind}), line 1: {kind} layers do not read {ignored}, here and in Caffe. {remedy}"
    ]


def test_an_ignored_field_changes_no_number():
    plain = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } %s } '
    plain += 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } %s }'
    x = torch.rand(1, 2, 3, 3)
    expected = Net(prototxt.loads(plain % ("", ""), NetParameter))({"x": x})["y"]
    with pytest.warns(ReproductionWarning, match="'transform_param'"):
        net = Net(prototxt.loads(plain % (("transform_param { scale: 2 }",) * 2), NetParameter))
    assert torch.equal(net({"x": x})["y"], expected)


@pytest.mark.parametrize(
    "text",
    [
        'type: "Input" input_param { shape { dim: 1 } } transform_param { }',  # set, but empty
        'type: "Pooling" pooling_param { kernel_size: 2 engine: CUDNN } convolution_param { engine: CAFFE }',
    ],
)
def test_an_empty_message_and_the_choice_of_an_engine_are_no_warning(text):
    single(text, *[(1, 1, 4, 4)] * text.count("Pooling"))


@pytest.mark.parametrize(
    ("text", "shapes", "field"),
    [
        ('type: "HDF5Data" transform_param { }', [], "transform_param"),
        ('type: "InfogainLoss" loss_param { normalize: false }', [(2, 3), (2,), (3, 3)], "loss_param.normalize"),
    ],
)
def test_a_field_that_caffe_refuses_is_an_error(text, shapes, field):
    with pytest.raises(NetError, match=f"layers take no '{field}'. Remove it, as in Caffe."):
        single(text, *shapes)


def value(field: Field):
    """A value that the field can hold."""
    if field.message:
        inner = field.message()
        inner.present = True
        return [inner] if field.repeated else inner
    one = next(iter(field.enum)) if field.enum else field.kind.check(field.kind.zero)
    return [one] if field.repeated else one


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
def test_no_field_of_caffe_that_it_ignores_stops_a_layer(kind):
    for param in LayerParameter.by_number.values():
        if param.name in COMMON:
            continue
        for field in param.message.by_number.values():
            layer = kind.__new__(kind)
            spec = LayerParameter(name="x", type=kind.__name__)
            setattr(getattr(spec, param.name), field.name, value(field))
            object.__setattr__(layer, "layer_param", spec)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    layer._check_fields()
                except NetError:
                    assert {param.name, f"{param.name}.{field.name}"} & kind.refuses
                    continue
            read = f"{param.name}.{field.name}" in kind.reads or field.name in NO_EFFECT
            assert len(caught) == (not read), (param.name, field.name)
