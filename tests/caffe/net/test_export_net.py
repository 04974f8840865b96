"""Any net is exported with its own blobs, for free axes where it allows them, and checked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import onnx_graph
from reproduction.caffe.net import export_net
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

CONV = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }"""
POOL = (
    'layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }'
)
FC = """layer { name: "fc" type: "InnerProduct" bottom: "%s" top: "fc"
    inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }"""


def net_of(layers, *shapes):
    declared = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in shape)
        + " } } }\n"
        for name, shape in shapes
    )
    return Net(prototxt.loads(declared + layers, NetParameter), seed=1)


def exported(net, outputs=None):
    model, plan = export_net.export_onnx(net, export_net.plan_export(net, outputs))
    return model, plan, export_net.onnx_runner(model.SerializeToString())


def axes(values):
    return {each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in values}


@pytest.mark.parametrize(
    ("layers", "free", "inputs", "outputs"),
    [
        (CONV, (True, True), ["N", 3, "H", "W"], {"conv": ["N", 4, "conv_axis2", "conv_axis3"]}),
        (CONV + POOL + FC % "pool", (True, True), ["N", 3, "H", "W"], {"fc": ["N", 3]}),
        (CONV + FC % "conv", (True, False), ["N", 3, 9, 8], {"fc": ["N", 3]}),
        (
            CONV
            + 'layer { name: "r" type: "Reshape" bottom: "conv" top: "r" reshape_param { shape { dim: [5, -1] } } }',
            (False, True),
            [5, 3, "H", "W"],
            {"r": [5, "r_axis1"]},
        ),
        (
            CONV + 'layer { name: "s" type: "SPP" bottom: "conv" top: "s" spp_param { pyramid_height: 2 } }',
            (True, False),
            ["N", 3, 9, 8],
            {"s": ["N", 20]},
        ),
    ],
    ids=["convolution", "global pooling", "fully connected", "reshape of the batch", "layer for one size"],
)  # fmt: skip
def test_axes_are_free_where_the_net_allows_it(layers, free, inputs, outputs):
    net = net_of(layers, ("data", (5, 3, 9, 8)))
    model, plan, run = exported(net)
    assert (plan.free_batch, plan.free_sizes) == free
    assert axes(model.graph.input) == {"data": inputs}
    assert axes(model.graph.output) == outputs
    checked = export_net.check_export(net, plan, run)
    assert len(checked) == 2
    assert all(each.worst < 2e-6 and not each.equal for each in checked)


def test_outputs_that_depend_on_values_have_no_fixed_size():
    net = net_of(
        'layer { name: "f" type: "Filter" bottom: "data" bottom: "keep" top: "f" }', ("data", (3, 2)), ("keep", (3,))
    )
    model, plan, run = exported(net)
    assert axes(model.graph.output) == {"f": ["f_axis0", "f_axis1"]}
    assert len(export_net.check_export(net, plan, run)) == 2


def test_several_inputs_and_chosen_outputs_keep_their_names():
    layers = (
        CONV
        + """layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "more" top: "sum" }
        layer { name: "prob" type: "Softmax" bottom: "sum" top: "prob" }"""
    )
    net = net_of(layers, ("data", (1, 3, 6, 6)), ("more", (1, 4, 6, 6)))
    model, plan, run = exported(net, ["conv", "prob"])
    assert axes(model.graph.input) == {
        "data": ["N", 3, "data_H", "data_W"],
        "more": ["N", 4, "more_H", "more_W"],
    }
    assert list(axes(model.graph.output)) == ["conv", "prob"]
    assert len(export_net.check_export(net, plan, run)) == 4
    _, plan, _ = exported(net, ["conv"])
    assert list(plan.shapes) == ["data"], "an input that no output needs is left out"


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [(CONV, [(2, 3, 9, 8), (2, 3, 73, 72)]), (CONV + POOL + FC % "pool", [(2, 3, 9, 8)])],
    ids=["free", "fixed by torch"],
)
def test_a_program_of_torch_export_has_free_sizes_where_torch_allows_it(layers, sizes):
    net = net_of(layers, ("data", (2, 3, 9, 8)))
    program, plan = export_net.export_program(net, export_net.plan_export(net))
    assert (plan.free_batch, plan.free_sizes) == (False, len(sizes) > 1)
    checked = export_net.check_export(net, plan, export_net.program_runner(program))
    assert [each.inputs["data"] for each in checked] == sizes


ONE_CELL = """layer { name: "score" type: "Convolution" bottom: "data" top: "score"
    convolution_param { num_output: 2 kernel_size: 16 stride: 16 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "up" type: "Deconvolution" bottom: "score" top: "up"
      convolution_param { num_output: 2 kernel_size: 32 stride: 16 weight_filler { type: "bilinear" } } }
    layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "crop" crop_param { axis: 2 offset: 3 } }"""


def test_a_program_takes_images_with_a_single_score():
    net = net_of(ONE_CELL, ("data", (1, 3, 17, 20)))
    program, plan = export_net.export_program(net, export_net.plan_export(net))
    assert plan.free_sizes
    checked = export_net.check_export(net, plan, export_net.program_runner(program))
    assert [each.inputs["data"] for each in checked] == [(1, 3, 17, 20), (1, 3, 81, 84)]


def test_a_size_that_a_program_does_not_take_is_an_error_in_one_sentence():
    net = net_of(ONE_CELL, ("data", (1, 3, 17, 20)))
    program, _ = export_net.export_program(net, replace(export_net.plan_export(net), free_sizes=False))
    with pytest.raises(NetError, match=r"^the program does not take this size; got data \(1, 3, 40, 20\), want .* 17"):
        export_net.program_runner(program)({"data": np.zeros((1, 3, 40, 20), np.float32)})


def test_a_program_that_computes_something_else_is_refused():
    net = net_of(CONV, ("data", (1, 3, 9, 8)))
    _, plan, run = exported(net)
    with pytest.raises(NetError) as error:
        export_net.check_export(net, plan, lambda inputs: [2 * each for each in run(inputs)])
    assert str(error.value) == (
        "output 'conv' of the exported program is not that of the net; got a difference of 1 for"
        " {'data': (1, 3, 9, 8)}, want at most 2e-05."
    )
    with pytest.raises(NetError, match="has another shape"):
        export_net.check_export(net, plan, lambda inputs: [each[:, :1] for each in run(inputs)])
    with pytest.raises(NetError, match="a difference of nan"):
        export_net.check_export(net, plan, lambda inputs: [each * np.nan for each in run(inputs)])


def test_outputs_of_whole_numbers_may_differ_in_a_thousandth_of_their_values():
    net = net_of(
        CONV + 'layer { name: "best" type: "ArgMax" bottom: "conv" top: "best" argmax_param { axis: 1 } }',
        ("data", (1, 3, 40, 40)),
    )
    _, plan, run = exported(net)

    def off(count):
        def changed(inputs):
            (labels,) = run(inputs)
            labels.flat[:count] += 1
            return [labels]

        return changed

    assert export_net.check_export(net, plan, off(1))[0].worst == pytest.approx(1 / 1600)
    with pytest.raises(NetError, match=r"at most 0\.001"):
        export_net.check_export(net, plan, off(2))


def test_equal_values_are_reported_since_they_check_little():
    net = net_of(CONV, ("data", (1, 3, 9, 8)))
    with torch.no_grad():
        net.params["conv"][0].zero_()
    _, plan, run = exported(net)
    assert all(each.equal for each in export_net.check_export(net, plan, run))


def test_what_is_no_computed_blob_is_refused():
    net = net_of(CONV, ("data", (1, 3, 9, 8)))
    with pytest.raises(NetError, match="'data' is an input, which a program cannot compute; want some of"):
        export_net.plan_export(net, ["data"])
    with pytest.raises(NetError, match=r"the net has no blob 'cone'\. Did you mean 'conv'"):
        export_net.plan_export(net, ["cone"])
    constant = net_of('layer { name: "c" type: "Parameter" top: "c" parameter_param { shape { dim: 2 } } }')
    with pytest.raises(NetError, match="these blobs need no input"):
        export_net.plan_export(constant)


def test_a_net_that_is_too_large_for_a_file_of_onnx_is_refused(monkeypatch):
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 100)
    net = net_of(CONV, ("data", (1, 3, 9, 8)))
    with pytest.raises(ReproductionError, match=r"less than 2 GiB; got .* Export a program of torch"):
        exported(net)
