"""Every layer type with learned weights, compiled in every precision and compared with the net."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import compiler, precisions
from tests.helpers.parity import relative

pytestmark = pytest.mark.usefixtures("always_winograd")

ALLOWED = {"exact": 2e-5, "winograd": 1e-4, "tf32": 1e-4, "bf16": 0.1}

# Images x and y, 8 channels; rows v and w, 5 numbers of each image. All follow layers that compute in place.
BEGIN = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 12 dim: 12 } } }
layer { name: "x" type: "Convolution" bottom: "data" top: "x"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "relux" type: "ReLU" bottom: "x" top: "x" relu_param { negative_slope: 0.5 } }
layer { name: "y" type: "Convolution" bottom: "data" top: "y"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "reluy" type: "ReLU" bottom: "y" top: "y" }
layer { name: "v" type: "InnerProduct" bottom: "x" top: "v" inner_product_param { num_output: 5 } }
layer { name: "reluv" type: "ReLU" bottom: "v" top: "v" }
layer { name: "dropv" type: "Dropout" bottom: "v" top: "v" }
layer { name: "w" type: "InnerProduct" bottom: "y" top: "w" inner_product_param { num_output: 5 } }
layer { name: "sigmoidw" type: "Sigmoid" bottom: "w" top: "w" }
"""
INPUTS = {
    "pick": (2,),
    "cont": (2, 8),
    "cell": (1, 3, 4),
    "gates": (1, 3, 16),
    "row": (1, 3),
    "matrix": (1, 1, 5, 5),
    "label": (2, 1),
    "map": (2, 1, 12, 12),
}
RECURRENT = 'recurrent_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } }'

# Layer type -> bottoms and parameters, once or several times.
CASES = {
    "AbsVal": ["x"],
    "Accuracy": ["v label"],
    "ArgMax": ["v", "x argmax_param { axis: 1 }"],
    "BNLL": ["x"],
    "BatchNorm": ["x", "x batch_norm_param { use_global_stats: false }"],
    "BatchReindex": ["x pick"],
    "Bias": ["x", "x bias_param { axis: 0 num_axes: 2 }", "v"],
    "Clip": ["x clip_param { min: -0.5 max: 0.5 }"],
    "Concat": ["x y", "v w", "x y concat_param { axis: 2 }"],
    "ContrastiveLoss": ["v w pick"],
    "Convolution": [
        "x convolution_param { num_output: 6 kernel_size: 1 }",
        "x convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 8 }",
        "x convolution_param { num_output: 6 kernel_size: 5 pad: 9 stride: 2 dilation: 2 }",
        "x convolution_param { num_output: 40 kernel_h: 1 kernel_w: 3 axis: 1 bias_term: false }",
        "x convolution_param { num_output: 6 kernel_size: 3 axis: 2 }",
    ],
    "Crop": ["x y crop_param { axis: 3 offset: 0 }", "x map crop_param { axis: 2 offset: 0 }"],
    "Deconvolution": [
        "x convolution_param { num_output: 6 kernel_size: 4 stride: 2 }",
        "x convolution_param { num_output: 8 kernel_size: 4 stride: 2 pad: 1 group: 8 }",
    ],
    "Dropout": ["x"],
    "DummyData": ["dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 3 } }"],
    "ELU": ["x"],
    "Eltwise": ["x y", "v w eltwise_param { operation: PROD }", "x y eltwise_param { operation: MAX }"],
    "Embed": ["pick embed_param { num_output: 3 input_dim: 2 }"],
    "EuclideanLoss": ["v w", "x y"],
    "Exp": ["x exp_param { scale: 0.1 }"],
    "Filter": ["x pick"],
    "Flatten": ["x", "x flatten_param { axis: 2 }"],
    "HingeLoss": ["v label"],
    "Im2col": ["x convolution_param { kernel_size: 3 }"],
    "InfogainLoss": ["w label matrix"],
    "InnerProduct": ["x inner_product_param { num_output: 4 }", "x inner_product_param { num_output: 4 axis: 3 }"],
    "LRN": ["x", "x lrn_param { norm_region: WITHIN_CHANNEL }"],
    "LSTM": [f"x cont {RECURRENT}"],
    "LSTMUnit": ["cell gates row"],
    "Log": ["x log_param { scale: 0.01 shift: 9 }"],
    "MVN": ["x", "x mvn_param { across_channels: true }"],
    "MultinomialLogisticLoss": ["w label"],
    "PReLU": ["x", "v"],
    "Parameter": ["parameter_param { shape { dim: 2 dim: 3 } }"],
    "Pooling": [
        "x pooling_param { kernel_size: 3 stride: 2 }",
        "x pooling_param { kernel_size: 3 pad: 1 pool: AVE }",
        "x pooling_param { global_pooling: true pool: AVE }",
        "y pooling_param { kernel_size: 2 stride: 2 pool: STOCHASTIC }",
    ],
    "Power": ["x power_param { power: 2 scale: 0.1 shift: 9 }"],
    "RNN": [f"x cont {RECURRENT}"],
    "ReLU": ["x", "v relu_param { negative_slope: 0.2 }"],
    "Reduction": ["x", "x reduction_param { axis: 2 operation: MEAN }"],
    "Reshape": ["x reshape_param { shape { dim: 0 dim: -1 } }"],
    "SPP": ["x spp_param { pyramid_height: 2 }"],
    "Scale": ["x", "x scale_param { bias_term: true axis: 0 }", "v", "x y scale_param { axis: 0 }"],
    "Sigmoid": ["x", "v"],
    "SigmoidCrossEntropyLoss": ["v w"],
    "Silence": ["x y"],
    "Slice": ["x slice_param { axis: 1 }", "v slice_param { slice_point: 2 }"],
    "Softmax": ["x", "v"],
    "SoftmaxWithLoss": ["v label", "x map"],
    "Split": ["x", "v"],
    "Swish": ["x"],
    "TanH": ["x", "v"],
    "Threshold": ["x"],
    "Tile": ["x tile_param { tiles: 2 }"],
}
# They read files, arrays or a class of the caller, or the caller feeds their tops.
WITHOUT = {"Data", "HDF5Data", "HDF5Output", "ImageData", "Input", "MemoryData", "Python"}
JUMPS = {"Accuracy", "ArgMax", "Threshold"}  # rounding may change an output by 1
TOPS = {"LSTMUnit": 2, "Slice": 2, "Silence": 0, "Split": 2}


def parsed(kind, case):
    """Return bottoms and parameters of a case."""
    head, _, _ = case.partition("_param")
    names = head.split() if "_param" not in case else head.split()[:-1]
    return names, case[len(" ".join(names)) :].strip()


def layer(name, kind, bottoms, param, *, in_place=False):
    tops = [name] if TOPS.get(kind, 1) == 1 else [f"{name}{i}" for i in range(TOPS[kind])]
    places = [f'bottom: "{bottom}"' for bottom in bottoms] + [
        f'top: "{bottoms[0] if in_place else top}"' for top in tops
    ]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(places)} {param} }}'


def feeds(names):
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{'
        f" {' '.join(f'dim: {size}' for size in INPUTS[name])} }} }} }}\n"
        for name in names
    )


def learned(text, seed):
    """Build a net, every parameter drawn: of batch norm positive, and of all others of either sign."""
    net = Net(prototxt.loads(text, NetParameter), seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for found in net.layers.values():
            for blob in found.blobs:
                blob.normal_(0, (1 / max(1, blob[0].numel())) ** 0.5 if blob.dim() else 0.5)
                if found.layer_param.type == "BatchNorm":
                    blob.abs_().add_(0.5)
    return net


def whole_numbers(shape):
    """Return 0 and 1 in turn along the last axis; 0 alone first, where no recurrent layer goes on with a sequence."""
    made = torch.arange(shape[-1]).remainder(2).float().expand(shape).clone()
    if len(shape) > 1:
        made[0] = 0
    return made


def drawn_inputs(net, rng):
    return {
        name: torch.from_numpy(rng.standard_normal(net.blob_shapes[name], np.float32))
        if name not in INPUTS or name in ("cell", "gates")
        else whole_numbers(net.blob_shapes[name])
        for name in net.inputs
    }


def check(net, precision, rng):
    compiled, inputs = compiler.compile(net, precision), drawn_inputs(net, rng)
    names = [name for name in net.blob_shapes if "_split" not in name]
    for _ in range(2):
        with torch.inference_mode():
            want = net(inputs, names)
        got = compiled(inputs, names)
        for name in names:
            assert got[name].shape == want[name].shape, name
            if compiled.precision != "bf16" or not any(kind.lower() in name for kind in JUMPS):
                assert (
                    relative(got[name].detach().numpy(), want[name].detach().numpy()) < ALLOWED[compiled.precision]
                ), name


def test_every_layer_type_has_a_case():
    assert set(CASES) | WITHOUT == {name for name, kind in LAYERS.items() if kind.dialect is None}


@pytest.mark.parametrize("kind", CASES)
def test_every_layer_type_computes_the_same_in_every_precision(monkeypatch, kind):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)
    for seed, case in enumerate(CASES[kind]):
        bottoms, param = parsed(kind, case)
        text = BEGIN + feeds(name for name in bottoms if name in INPUTS) + layer(kind.lower(), kind, bottoms, param)
        for precision in ALLOWED:
            check(learned(text, seed), precision, np.random.default_rng(seed))


@pytest.mark.filterwarnings("ignore::reproduction.caffe.errors.ReproductionWarning")  # gradients are not compared
@pytest.mark.parametrize("seed", range(24))
def test_nets_of_any_layer_types_compute_the_same(monkeypatch, seed):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)
    rng = np.random.default_rng(seed)
    text, grown = BEGIN + feeds(INPUTS), 0
    kinds = sorted(CASES)
    while grown < 6:
        kind = kinds[rng.integers(len(kinds))]
        bottoms, param = parsed(kind, CASES[kind][rng.integers(len(CASES[kind]))])
        built = Net(prototxt.loads(text, NetParameter), seed=0)
        blobs = [name for name in built.blob_shapes if "_split" not in name]
        chosen = [str(rng.choice(blobs)) if name in "xyvw" else name for name in bottoms]
        in_place = bool(chosen) and rng.random() < 0.4 and chosen[0] not in INPUTS and chosen.count(chosen[0]) == 1
        tried = text + layer(f"{kind.lower()}{grown}", kind, chosen, param, in_place=in_place and kind not in TOPS)
        try:
            net = Net(prototxt.loads(tried, NetParameter), seed=0)
            with torch.inference_mode():
                found = net(drawn_inputs(net, np.random.default_rng(0)), list(net.blob_shapes))
        except (NetError, RuntimeError):  # these do not fit together
            continue
        if in_place and net.blob_shapes != built.blob_shapes:
            continue  # in place, and not of the shape: Caffe reshapes it under its other readers
        if all(blob.isfinite().all() and blob.abs().max() < 1e3 for blob in found.values() if blob.numel()):
            text, grown = tried, grown + 1
    for precision in ("exact", "winograd"):
        check(learned(text, seed), precision, rng)
