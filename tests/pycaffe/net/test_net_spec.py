"""Nets written as with pycaffe: names, order, keywords, and errors."""

import pytest

import reproduction.pycaffe as caffe
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import LayerParameter, Message, NetParameter
from reproduction.pycaffe import layers as L
from reproduction.pycaffe import params as P
from reproduction.pycaffe.net.net_spec import Top, assign_proto, param_name_dict
from reproduction.pycaffe.proto import caffe_pb2


def spec():
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 3, 8, 8]}, {"dim": 2}], ntop=2)
    n.conv = L.Convolution(
        n.data,
        kernel_size=3,
        num_output=4,
        bias_term=0,
        weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1}, {"lr_mult": 2}],
    )
    n.relu = L.ReLU(n.conv, in_place=True)
    n["up"] = L.Deconvolution(n.relu, convolution_param={"num_output": 4, "kernel_size": 4, "stride": 2})
    n.loss = L.SoftmaxWithLoss(n.up, n.label, loss_param={"normalize": False, "ignore_label": 255}, loss_weight=2)
    n.silence = L.Silence(L.Pooling(n.conv, pool=P.Pooling.AVE, kernel_size=2), ntop=0)
    return n


WANTED = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 bias_term: false kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "up" bottom: "label" top: "loss" loss_weight: 2
  loss_param { normalize: false ignore_label: 255 } }
layer { name: "Pooling1" type: "Pooling" bottom: "conv" top: "Pooling1" pooling_param { pool: AVE kernel_size: 2 } }
layer { name: "silence" type: "Silence" bottom: "Pooling1" }
"""


def test_a_spec_becomes_the_net_that_it_says():
    proto = spec().to_proto()
    assert isinstance(proto, caffe_pb2.NetParameter)
    assert str(proto) == prototxt.dumps(prototxt.loads(WANTED, NetParameter))


def test_tops_without_a_spec_are_called_by_type_and_number():
    data = L.Input(shape={"dim": [1, 1, 4, 4]})
    pooled = L.Pooling(L.Pooling(data, kernel_size=2), kernel_size=2)
    assert [layer.name for layer in pooled.to_proto().layer] == ["Input1", "Pooling1", "Pooling2"]
    assert caffe.to_proto(pooled, data) == pooled.to_proto()


def test_tops_know_their_layers_and_the_layers_their_parameters():
    n = spec()
    assert isinstance(n.label, Top)
    assert (n.label.n, n.label.fn.type_name, n.label.fn.ntop) == (1, "DummyData", 2)
    assert n.label.fn is n.data.fn
    assert n.conv.fn.inputs == (n.data,)
    assert list(n.tops) == ["data", "label", "conv", "relu", "up", "loss", "silence"]
    n.tops["conv"].fn.params["num_output"] = 7
    assert n.to_proto().layer[1].convolution_param.num_output == 7


def test_a_type_that_only_a_fork_knows_can_be_written():
    net = L.ROIPooling(L.Input(), name="roi").to_proto()
    assert [(layer.name, layer.type) for layer in net.layer] == [
        ("Input1", "Input"),
        ("roi", "ROIPooling"),
    ]


def test_param_names_lead_from_types_to_fields():
    Message.import_late_fields()
    names = param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["HDF5Data"] == "hdf5_data"
    assert names["ReLU"] == "relu"  # and not relu6, the field of a fork
    of_bvlc = {field.name for field in LayerParameter.fields.values() if field.dialect is None}
    assert sum(f"{name}_param" in of_bvlc for name in names.values()) == 49


def test_assigning_merges_dicts_and_extends_lists():
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "convolution_param", {"kernel_size": [3, 5]})
    assign_proto(layer, "convolution_param", {"num_output": 2})
    assign_proto(layer, "bottom", "a")
    assign_proto(layer, "bottom", ("b", "c"))
    assert layer.convolution_param.kernel_size == [3, 5]
    assert layer.convolution_param.num_output == 2
    assert layer.bottom == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        (lambda n: L.Silence((n.data,)), TypeError, "Silence input 0 is not a Top (type is <class 'tuple'>)"),
        (
            lambda n: L.Convolution(n.data, kernal_size=3),
            AttributeError,
            "Convolution: unknown field 'kernal_size'. Did you mean 'kernel_size'?",
        ),
        (
            lambda n: L.Convolutoin(n.data, kernel_size=3),
            AttributeError,
            "Convolutoin: unknown field 'kernel_size'. Did you mean 'Convolution'?",
        ),
        (
            lambda n: L.Convolution(n.data, kernel_size="3"),
            TypeError,
            "Convolution: wrong value for ConvolutionParameter.kernel_size; got '3', want a uint32.",
        ),
        (
            lambda n: L.Convolution(n.data, weight_filler={"typ": "xavier"}),
            AttributeError,
            "Convolution: FillerParameter has no field 'typ'. Did you mean 'type'?",
        ),
        (
            lambda n: L.ReLU(in_place=True),
            ValueError,
            "ReLU: in_place needs a bottom for each top; got 0, want 1.",
        ),
        (lambda n: n.dat, KeyError, "the net has no top 'dat' yet. Did you mean 'data'?"),
        (
            lambda n: setattr(n, "x", L.DummyData(ntop=2)),
            ValueError,
            ("'x' must be assigned a top; got TOPS. A layer with several tops returns a tuple: assign each of them."),
        ),
        (
            lambda n: P.Poling,
            AttributeError,
            "caffe_pb2 has no message or enum 'PolingParameter'. Did you mean 'PoolingParameter'?",
        ),
    ],
)
def test_wrong_nets_are_refused_where_they_are_written(wrong, kind, text):
    n = spec()
    with pytest.raises(kind) as error:
        wrong(n)
    tops = "(<top 0 of DummyData>, <top 1 of DummyData>)"
    assert str(error.value) == text.replace("TOPS", tops)
