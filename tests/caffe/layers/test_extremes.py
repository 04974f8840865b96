"""Nets with extreme values: each is refused with the field's name, or computes what Caffe computes, quickly.

The recorded layers are an example of each type; the schema lists the fields and their extreme values.
"""

import math

import pytest
import torch

from reproduction.caffe import geometry
from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.net.graph import locate_errors
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase
from reproduction.caffe.schema.scalar_types import BOOL, DOUBLE, FLOAT, INT32, INT64, UINT32
from tests.helpers import parity
from tests.helpers.single_layer import single

INF = math.inf
EXTREMES = {
    UINT32: (0, 1, 2**31 - 1, 2**31, 2**32 - 1),
    INT32: (0, 1, -1, 2**31 - 1, -(2**31)),
    INT64: (0, 1, -1, 2**31, 2**62, -(2**63)),
    FLOAT: (INF, -INF, math.nan, 0, -1, 3e38, 1e-45),
    DOUBLE: (INF, math.nan, 0),
    BOOL: (True, False),
}
LARGEST = 2_000_000  # values in a net that is run here
FILES = {"Data", "HDF5Data", "HDF5Output", "ImageData", "WindowData", "Python"}


def examples():
    """Return an example of each type: the layer, and the shapes of its bottoms."""
    found = {}
    for case, text in parity.layer_cases().items():
        spec = prototxt.loads(text, NetParameter).layer[0]
        if spec.type not in FILES:
            found.setdefault(
                spec.type, (spec, [tuple(bottom.shape) for bottom in parity._recorded(case, "bottom").values()])
            )
    return found


EXAMPLES = examples()


def net_of(spec, shapes):
    net = NetParameter(force_backward=True)
    for i, shape in enumerate(shapes):
        net.layer.add(name=f"in{i}", type="Input", top=[f"in{i}"], input_param={"shape": [{"dim": list(shape)}]})
    net.layer.append(spec.copy())
    net.layer[-1].bottom = [f"in{i}" for i in range(len(shapes))]
    net.layer[-1].top = list(spec.top) or ["top"]
    return Net(net, spec.phase if spec.has("phase") else Phase.TEST, seed=1)


def attempt(spec, shapes):
    """Build, run and differentiate a net of one layer; return its outputs, or None where it is refused."""
    try:
        net = net_of(spec, shapes)
        if sum(map(math.prod, net.blob_shapes.values())) > LARGEST:
            return None
        inputs = {name: torch.ones(net.blob_shapes[name]).requires_grad_() for name in net.inputs}
        outputs = net(inputs)
        losses = [values.sum() for values in outputs.values() if values.requires_grad]
        if losses:
            sum(losses).backward()
    except ReproductionError as error:
        refusal = str(error)
    else:
        return outputs
    assert refusal.startswith("layer ")
    return None


def paths(message, depth=0):
    """Yield the fields of a message, and of those in it, as paths."""
    for field in message.by_number.values():
        if field.message and depth < 2:
            yield from ((field, *path) for path in paths(field.message, depth + 1))
        elif field.kind in EXTREMES and not field.array:
            yield (field,)


def extremes(kind):
    """Yield the example of a type with each of its fields at each extreme."""
    spec, shapes = EXAMPLES[kind]
    roots = {name.partition(".")[0] for name in LAYERS[kind].reads}
    for path in paths(LayerParameter):
        if path[0].name not in roots:
            continue
        for value in EXTREMES[path[-1].kind]:
            changed = spec.copy()
            target = changed
            for field in path[:-1]:
                held = getattr(target, field.name)
                if field.repeated and not held:
                    held.add()
                target = held[0] if field.repeated else held
            setattr(target, path[-1].name, [value] if path[-1].repeated else value)
            yield changed, shapes


@pytest.mark.parametrize("kind", EXAMPLES)
def test_empty_bottoms_are_refused_or_computed(kind):
    spec, shapes = EXAMPLES[kind]
    assert attempt(spec, shapes) is not None
    for i, shape in enumerate(shapes):
        for axis in range(len(shape)):
            attempt(spec, [*shapes[:i], (*shape[:axis], 0, *shape[axis + 1 :]), *shapes[i + 1 :]])
    for shape in ((0,), (), (0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2,) * 33, (2**31 - 1, 1, 1, 1), (65536, 65536)):
        attempt(spec, [shape] * len(shapes))


@pytest.mark.filterwarnings("ignore::reproduction.caffe.errors.ReproductionWarning")
@pytest.mark.parametrize("kind", EXAMPLES)
def test_extreme_fields_are_refused_or_computed(kind):
    for spec, shapes in extremes(kind):
        attempt(spec, shapes)


@pytest.mark.parametrize(
    "text",
    [
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 }',
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 group: 1 }',
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }',
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
        'type: "LRN" lrn_param { local_size: 3 }',
        'type: "InnerProduct" inner_product_param { num_output: 5 }',
        'type: "BatchNorm"',
        'type: "Softmax"',
    ],
)
def test_a_batch_of_nothing_gives_nothing_and_has_a_gradient(text):
    spec = prototxt.loads(f'layer {{ name: "a" {text} }}', NetParameter).layer[0]
    net = net_of(spec, [(2, 3, 6, 6)])
    x = torch.ones(0, 3, 6, 6, requires_grad=True)
    top = net(x)["top"]
    assert tuple(top.shape) == (0, *net.blob_shapes["top"][1:])
    top.sum().backward()
    assert x.grad.shape == x.shape


def test_an_empty_blob_may_have_any_number_of_rows():
    net = net_of(LayerParameter(name="a", type="ReLU"), [(0, 3, 2**31 - 1, 4)])
    assert net(torch.ones(0, 3, 2**31 - 1, 4))["top"].shape == (0, 3, 2**31 - 1, 4)


@pytest.mark.parametrize(
    ("text", "shape", "error"),
    [
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 4294967295 }',
            (1, 3, 9, 11),
            "pad is too large; got 4294967295, want at most 2147483647.",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 2147483647 }',
            (1, 3, 9, 11),
            (
                "the top has more values than Caffe supports; got (1, 4, 4294967301, 4294967303), "
                "want at most 2147483647."
            ),
        ),
        (
            'type: "Tile" tile_param { axis: 1 tiles: 2147483647 }',
            (1, 3, 9, 11),
            "the top has more values than Caffe supports; got (1, 6442450941, 9, 11), want at most 2147483647.",
        ),
        (
            'type: "InnerProduct" inner_product_param { num_output: 500000 axis: 0 }',
            (50000,),
            "the weight has more values than Caffe supports; got (500000, 50000), want at most 2147483647.",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 }',
            (1, 3, 0, 5),
            "the bottom has no pixels along a spatial axis; got length 0.",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
            (1, 0, 5, 5),
            "there are no values to fill; got shape (4, 0, 3, 3).",
        ),
    ],
)
def test_what_is_too_large_or_empty_is_named(text, shape, error):
    spec = prototxt.loads(f'layer {{ name: "a" {text} }}', NetParameter).layer[0]
    with pytest.raises(NetError) as caught:
        net_of(spec, [shape])
    assert str(caught.value).endswith(f": {error}")


def test_an_input_that_is_too_large_is_named():
    text = 'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 65536 dim: 65536 } } }'
    with pytest.raises(NetError, match="the top has more values than Caffe supports"):
        Net(prototxt.loads(text, NetParameter))
    with pytest.raises(NetError, match="the top has more values than Caffe supports"):
        Net(prototxt.loads(text.replace("65536", "1"), NetParameter), inputs={"a": (65536, 65536)})
    with pytest.raises(
        NetError, match=r"layer 'in' \(Input\), line 1: the top cannot have negative sizes; got \(-1, 3\)\.$"
    ):
        Net(prototxt.loads(text.replace("65536", "1"), NetParameter), inputs={"a": (-1, 3)})
    with pytest.raises(NetError, match=r"too many axes; got 33, want at most 32\.$"):
        geometry.check_shape((1,) * 33)


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_a_neighbourhood_far_larger_than_the_blob_is_all_of_it(region):
    x = torch.rand(2, 5, 6, 7)
    tops = [
        single(f'type: "LRN" lrn_param {{ local_size: {size} alpha: {size**power} norm_region: {region} }}', x.shape)(
            x
        )[0]
        for power in [1 if region == "ACROSS_CHANNELS" else 2]
        for size in (15, 101, 2**31 - 1)
    ]
    assert torch.allclose(tops[0], tops[1], rtol=1e-5)
    assert torch.allclose(tops[0], tops[2], rtol=1e-5)


@pytest.mark.parametrize("pool", ["MAX", "AVE", "STOCHASTIC"])
def test_a_stride_far_larger_than_the_blob_is_as_one_past_its_end(pool):
    x = torch.rand(2, 3, 7, 8)
    near, far = (
        single(f'type: "Pooling" pooling_param {{ pool: {pool} kernel_size: 2 stride: {stride} }}', x.shape)(x)[0]
        for stride in (12, 2**31 - 1)
    )
    assert torch.equal(near, far) or (near.isnan() == far.isnan()).all()
    assert near.shape == (2, 3, 2, 2)


def test_memory_that_is_not_there_is_named():
    net = net_of(LayerParameter(name="a", type="ReLU"), [(1, 1)])
    node = net.graph.nodes[-1]
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")):
        with (
            pytest.raises(NetError, match=r"layer 'a' \(ReLU\): there is not enough memory for the layer\."),
            locate_errors(node),
        ):
            raise error
    with pytest.raises(RuntimeError, match="another"), locate_errors(node):
        raise RuntimeError("another")
