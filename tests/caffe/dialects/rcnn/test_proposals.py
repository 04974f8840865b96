"""The layers that propose regions: their order, their suppression, and nets whose rows depend on the image."""

import numpy as np
import pytest
import torch

import reproduction
from reproduction import Net, pycaffe
from reproduction.caffe.dialects.faster_rcnn.boxes import make_anchors, suppress_overlaps
from reproduction.caffe.dialects.faster_rcnn.python_layers import parse_settings
from reproduction.caffe.dialects.pvanet.proposal import sort_boxes
from reproduction.caffe.dialects.synopsys.proposal import partial_order
from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter
from tests.helpers.single_layer import single

INPUTS = """
layer { name: "scores" type: "Input" top: "scores" input_param { shape { dim: 1 dim: 18 dim: 6 dim: 8 } } }
layer { name: "deltas" type: "Input" top: "deltas" input_param { shape { dim: 1 dim: 36 dim: 6 dim: 8 } } }
layer { name: "im_info" type: "Input" top: "im_info" input_param { shape { dim: 1 dim: 4 } } }
"""
HEAD = """
layer { name: "features" type: "Input" top: "features" input_param { shape { dim: 1 dim: 4 dim: 6 dim: 8 } } }
layer { name: "pool" type: "ROIPooling" bottom: "features" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
PVANET = """
layer { name: "p" type: "Proposal" bottom: "scores" bottom: "deltas" bottom: "im_info" top: "rois" top: "each"
  proposal_param { ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32 } }
"""
SYNOPSYS = """
layer { name: "p" type: "Proposal" bottom: "scores" bottom: "deltas" bottom: "im_info" top: "rois" top: "each"
  proposal_param { feat_stride: 16 } }
"""
PYTHON = """
layer { name: "p" type: "Python" bottom: "scores" bottom: "deltas" bottom: "im_info" top: "rois" top: "each"
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" } }
"""


def build(text):
    net_param = prototxt.loads(text, NetParameter)
    return Net(net_param, seed=1).eval()


def draw(seed, spread=0.3):
    rng = np.random.RandomState(seed)
    scores = rng.permutation(18 * 6 * 8).reshape(1, 18, 6, 8).astype(np.float32) / 1000
    deltas = (rng.randn(1, 36, 6, 8) * spread).astype(np.float32)
    return {"scores": scores, "deltas": deltas, "im_info": np.array([[96, 128, 1, 1]], np.float32)}


def quicksort(scores, most):
    """Return the order of PVANet's sort, written as the loops of a textbook."""
    items = list(zip(scores.tolist(), range(len(scores)), strict=True))

    def sort(start, end):
        pivot, left, right = items[start][0], start + 1, end
        while left <= right:
            while left <= end and items[left][0] >= pivot:
                left += 1
            while right > start and items[right][0] <= pivot:
                right -= 1
            if left <= right:
                items[left], items[right] = items[right], items[left]
                left, right = left + 1, right - 1
        items[start], items[right] = items[right], items[start]
        if start < right - 1:
            sort(start, right - 1)
        if right + 1 < min(most, end):
            sort(right + 1, end)

    sort(0, len(items) - 1)
    return [index for _, index in items][:most]


@pytest.mark.parametrize("distinct", [1, 2, 3, 7, 1000])
def test_boxes_of_equal_scores_are_sorted_as_by_the_quicksort(distinct):
    rng = np.random.RandomState(distinct)
    for size in (1, 2, 3, 10, 57, 120):
        for most in (1, 3, size, 500):
            scores = rng.randint(0, distinct, size).astype(np.float32)
            assert sort_boxes(scores, most)[:most].tolist() == quicksort(scores, most)


def test_the_rest_of_a_partial_sort_is_what_a_heap_leaves():
    # The heap holds the 2 best; each better one takes the place of the smallest, which stays where the better one was.
    scores = np.array([3, 1, 2, 0, 5, 2], np.float32)
    assert partial_order(scores, 2) == [4, 0, 1, 3, 2, 5]
    assert partial_order(np.array([1, 1, 1], np.float32), 3) == [2, 1, 0]
    assert partial_order(scores, 0) == [0, 1, 2, 3, 4, 5]


def test_overlaps_are_suppressed_greedily_with_both_corners_included():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 4], [0, 5, 9, 9], [10, 0, 19, 9], [9.5, 0, 19, 9]], np.float32)
    assert suppress_overlaps(boxes, 0.5, 9).tolist() == [0, 1, 2, 3]
    assert suppress_overlaps(boxes, 0.49, 9).tolist() == [0, 3]
    assert suppress_overlaps(boxes, 0.49, 1).tolist() == [0]
    near = np.array([[0, 0, 9, 9], [9.5, 0, 19, 9]], np.float32)  # half a pixel between them
    assert suppress_overlaps(near, 0.01, 9).tolist() == [0]
    assert suppress_overlaps(near, 0.01, 9, apart=True).tolist() == [0, 1]


def test_the_anchors_are_those_of_the_paper():
    want = [[-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200], [-55, -55, 72, 72],
            [-119, -119, 136, 136], [-247, -247, 264, 264], [-35, -79, 52, 96], [-79, -167, 96, 184],
            [-167, -343, 184, 360]]  # fmt: skip
    anchors = np.array(want) - 1  # the paper's program counts pixels from 1
    np.testing.assert_array_equal(make_anchors(16, [0.5, 1, 2], [8, 16, 32]), anchors)
    np.testing.assert_array_equal(make_anchors(16, [0.5, 1, 2], [8, 16, 32], np.rint, np.float64), anchors)


@pytest.mark.parametrize("seed", range(3))
def test_the_three_layers_agree_where_they_compute_the_same(seed):
    # No box is below the least size, no two scores are equal, and fewer are proposed than is allowed.
    nets = [build(INPUTS + layer) for layer in (PVANET, PYTHON, SYNOPSYS)]
    values = draw(seed, spread=0.1)
    pvanet, python, synopsys = (net(values, blobs=["rois", "each"]) for net in nets)
    torch.testing.assert_close(pvanet["rois"], python["rois"], rtol=0, atol=0)
    torch.testing.assert_close(pvanet["each"][:, None], python["each"], rtol=0, atol=0)
    torch.testing.assert_close(synopsys["rois"], python["rois"], rtol=0, atol=1e-4)
    assert 10 < len(python["rois"]) < 300


@pytest.mark.parametrize("layer", [PVANET, SYNOPSYS, PYTHON])
def test_the_number_of_proposals_follows_the_image(layer):
    net = build(INPUTS + layer + HEAD)
    compiled = reproduction.compile(net)
    counts = set()
    for seed, spread in ((0, 0.01), (1, 0.5), (2, 2.0), (3, 0.01)):
        values = {**draw(seed, spread), "features": np.random.RandomState(seed).randn(1, 4, 6, 8)}
        found = net(values, blobs=["rois", "each", "fc"])
        counts.add(len(found["rois"]))
        assert found["rois"].shape[1:] == (5,)
        assert len(found["each"]) == len(found["fc"]) == len(found["rois"])
        again = compiled(values, blobs=["rois", "fc"])
        torch.testing.assert_close(again["rois"], found["rois"])
        torch.testing.assert_close(again["fc"], found["fc"])
    assert len(counts) > 2


@pytest.mark.parametrize("layer", [PVANET, SYNOPSYS, PYTHON])
def test_the_number_of_proposals_follows_the_image_in_a_program_that_imports_caffe(layer, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(INPUTS + layer + HEAD)
    net, counts = pycaffe.Net(path, pycaffe.TEST), set()
    reference = build(INPUTS + layer)
    for seed, spread in ((0, 0.01), (1, 0.5), (2, 2.0)):
        values = draw(seed, spread)
        for name, value in values.items():
            net.blobs[name].data[...] = value
        net.forward()
        want = reference(values, blobs=["rois"])["rois"].numpy()
        np.testing.assert_array_equal(net.blobs["rois"].data, want)
        assert net.blobs["pool"].data.shape == (len(want), 4, 2, 2)
        assert net.blobs["fc"].data.shape == (len(want), 3)
        counts.add(len(want))
    assert len(counts) == 3


def test_small_boxes_are_scored_zero_or_removed_but_synopsys_keeps_the_last():
    values = draw(0, 0)
    values["deltas"][:, 2::4] = values["deltas"][:, 3::4] = -9  # all boxes are smaller than a pixel
    pvanet = build(INPUTS + PVANET)(values, blobs=["rois", "each"])
    assert len(pvanet["each"]) > 40
    assert not pvanet["each"].any()
    synopsys = build(INPUTS + SYNOPSYS)(values, blobs=["rois", "each"])
    assert synopsys["each"].tolist() == [[float(values["scores"][0, -1, -1, -1])]]
    assert build(INPUTS + PYTHON)(values, blobs=["rois"])["rois"].shape == (0, 5)


def test_the_size_of_synopsys_image_is_cut_to_an_integer():
    values = draw(0)
    values["im_info"][0, :2] = 60.9, 80.9
    rois = build(INPUTS + SYNOPSYS)(values, blobs=["rois"])["rois"]
    assert rois[:, 3].max() == 79
    assert rois[:, 4].max() == 59


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("'feat_stride': 16", {"feat_stride": 16}),
        ("{'feat_stride': 8, 'scales': [4, 8, 16]}", {"feat_stride": 8, "scales": [4, 8, 16]}),
        ("'feat_stride': 16 \n'scales': !!python/tuple [4, 8]", {"feat_stride": 16, "scales": [4, 8]}),
        ("feat_stride: 16", {"feat_stride": 16}),
    ],
)
def test_param_str_is_read_without_yaml(text, settings):
    assert parse_settings(text) == settings


@pytest.mark.parametrize("text", ["", "[1]", "__import__('os')", "'feat_stride': f(1)"])
def test_a_param_str_of_another_form_is_an_error(text):
    layer = PYTHON.replace("\"'feat_stride': 16\"", repr(text).replace("'", '"') if "'" not in text else f'"{text}"')
    with pytest.raises(NetError, match="param_str"):
        build(INPUTS + layer)


def test_the_class_of_the_caller_comes_before_the_published_one():
    class ProposalLayer:
        def setup(self, bottom, top):
            pass

        def reshape(self, bottom, top):
            top[0].reshape(1, 5)
            top[1].reshape(1, 1)

        def forward(self, bottom, top):
            top[0].data[...] = 7

    net_param = prototxt.loads(INPUTS + PYTHON, NetParameter)
    net = Net(net_param, python_layers={"ProposalLayer": ProposalLayer}).eval()
    assert net(draw(0), blobs=["rois"])["rois"].tolist() == [[7.0] * 5]


def test_text_proposals_are_the_boxes_of_all_anchors():
    text = PYTHON.replace("rpn.proposal_layer", "layers.text_proposal_layer")
    text = INPUTS.replace("dim: 36", "dim: 20").replace("dim: 18", "dim: 20") + text
    rng = np.random.RandomState(0)
    values = {name: rng.randn(1, 20, 6, 8).astype(np.float32) for name in ("scores", "deltas")}
    values["im_info"] = np.array([[90, 120, 0, 0]], np.float32)
    found = build(text)(values, blobs=["rois", "each"])
    assert found["rois"].shape == (480, 4)
    row = (3 * 8 + 5) * 10 + 2  # the anchor of 23 pixels, whose corners are 7.5 -+ 11, in row 3 and column 5
    top, bottom = 3 * 16 - 3, 3 * 16 + 18
    shift, stretch = values["deltas"][0, 4:6, 3, 5]
    height = (bottom - top + 1) * np.exp(stretch)
    above = (top + bottom) / 2 + shift * (bottom - top + 1) - height / 2
    want = [80, np.clip(above, 0, 89), 95, np.clip(above + height, 0, 89)]
    np.testing.assert_allclose(found["rois"][row], want, rtol=1e-5)
    assert found["each"][row] == values["scores"][0, 12, 3, 5]


def test_bottoms_that_do_not_fit_the_anchors_are_an_error():
    shapes = [(1, 18, 6, 8), (1, 36, 6, 8), (1, 4)]
    layer = single('type: "Proposal" proposal_param { ratio: 1 scale: 8 }', *shapes)
    with pytest.raises(NetError) as error:
        layer.shapes(shapes)
    want = "scores and deltas must be those of one image; got (1, 18, 6, 8) and (1, 36, 6, 8), want (1, 2, 6, 8) and "
    assert str(error.value) == want + "(1, 4, 6, 8)."
    with pytest.raises(NetError, match=r"^there are no anchors; got 1 ratios and 0 scales\.$"):
        single('type: "Proposal" proposal_param { ratio: 1 base_size: 8 }', *shapes, dialect="pvanet")


def test_pvanet_needs_the_scales_of_both_axes():
    with pytest.raises(NetError, match=r"im_info has too few values; got \(1, 3\), want \(1, 4\)\."):
        build(INPUTS.replace("dim: 4 }", "dim: 3 }") + PVANET)
