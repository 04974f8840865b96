"""DetectionOutput: its settings, compared with a plain loop and with OpenCV, and its ONNX form."""

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.dialects.ssd import boxes
from reproduction.caffe.dialects.ssd.messages import CodeType
from reproduction.caffe.errors import NetError, ReproductionWarning
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import single

PRIORS, CLASSES = 30, 4


def build(fields, *shapes):
    text = f'name: "d" type: "DetectionOutput" detection_output_param {{ num_classes: {CLASSES} {fields} }}'
    return single(text, *(shapes or [(2, PRIORS * 4), (2, PRIORS * CLASSES), (1, 2, PRIORS * 4)]))


def random_bottoms(images=2, locations=1, seed=0, corner=False):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.7, (PRIORS, 2))
    priors = np.concatenate([low, low + rng.uniform(0.1, 0.3, (PRIORS, 2))], 1)
    variances = np.broadcast_to([0.1, 0.1, 0.2, 0.2], priors.shape)
    loc = rng.normal(size=(images, PRIORS * locations * 4)) * (0.3 if corner else 1)
    conf = np.exp(2 * rng.normal(size=(images, PRIORS, CLASSES)))
    conf = (conf / conf.sum(-1, keepdims=True)).reshape(images, -1)
    arrays = (loc, conf, np.stack([priors.reshape(-1), variances.reshape(-1)])[None])
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


def loop(bottoms, code_type, threshold=0.45, least=0.05, top_k=-1, keep=-1, background=0):
    """Return the rows of detections of one image after the other, class by class."""
    loc, conf, priors = (bottom.numpy() for bottom in bottoms)
    prior, variances = priors.reshape(2, PRIORS, 4)
    rows = []
    for image in range(len(loc)):
        places = loc[image].reshape(PRIORS, -1, 4)
        scores = conf[image].reshape(PRIORS, CLASSES)
        found = []
        for label in (each for each in range(CLASSES) if each != background):
            decoded = boxes.decode(places[:, label if places.shape[1] > 1 else 0], prior, variances, code_type)
            order = [i for i in np.argsort(-scores[:, label], kind="stable") if scores[i, label] > least]
            kept = []
            for i in order if top_k < 0 else order[:top_k]:
                if all(boxes.compute_overlaps(decoded[[i]], decoded[[j]]) <= threshold for j in kept):
                    kept.append(i)
            found += [[image, label, scores[i, label], *decoded[i]] for i in kept]
        best = sorted(range(len(found)), key=lambda i: -found[i][2])
        rows += [found[i] for i in sorted(best if keep < 0 else best[:keep])]
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ("", {"least": -1, "threshold": 0.3}),
        ("confidence_threshold: 0.2", {"least": 0.2, "threshold": 0.3}),
        (
            "confidence_threshold: 0.05 nms_param { nms_threshold: 0.45 top_k: 5 } keep_top_k: 7",
            {"top_k": 5, "keep": 7},
        ),
        ("confidence_threshold: 0.05 nms_param { nms_threshold: 0.45 } background_label_id: 2", {"background": 2}),
        ("confidence_threshold: 0.05 nms_param { nms_threshold: 0.45 } background_label_id: 9", {"background": 9}),
        ("confidence_threshold: 0.05 nms_param { nms_threshold: 0 }", {"threshold": 0}),
    ],
)
@pytest.mark.parametrize("code_type", CodeType)
@pytest.mark.parametrize("shared", [True, False])
def test_rows_are_those_of_a_plain_loop(fields, options, code_type, shared):
    bottoms = random_bottoms(locations=1 if shared else CLASSES, corner=code_type is not CodeType.CENTER_SIZE)
    fields += f" code_type: {code_type.name} share_location: {str(shared).lower()}"
    layer = build(fields, *(tuple(x.shape) for x in bottoms))
    want = loop(bottoms, code_type, **options)
    (top,) = layer(*bottoms)
    assert top.shape == (1, 1, len(want), 7)
    np.testing.assert_allclose(top[0, 0], want, atol=1e-6)
    (exported,), _ = run_onnx(layer, bottoms)
    np.testing.assert_allclose(exported[0, 0], want, atol=1e-6)


def test_images_without_detections_have_no_rows_unless_all_have_none():
    loc, conf, priors = random_bottoms()
    conf[1] = 0
    layer = build("code_type: CENTER_SIZE confidence_threshold: 0.3")
    (top,) = layer(loc, conf, priors)
    assert set(top[0, 0, :, 0].tolist()) == {0}
    (none,) = layer(loc, conf * 0, priors)
    assert none.tolist() == [[[[i, -1, -1, -1, -1, -1, -1] for i in range(2)]]]
    (exported,), _ = run_onnx(layer, [loc, conf * 0, priors])
    np.testing.assert_array_equal(exported, none)


def test_boxes_of_equal_score_keep_the_order_of_the_priors():
    loc, conf, priors = random_bottoms()
    layer = build("code_type: CENTER_SIZE nms_param { nms_threshold: 0.9 top_k: 6 } keep_top_k: 8")
    conf = torch.full_like(conf, 0.25)
    want = loop([loc, conf, priors], CodeType.CENTER_SIZE, threshold=0.9, top_k=6, keep=8)
    np.testing.assert_allclose(layer(loc, conf, priors)[0][0, 0], want, atol=1e-6)
    (exported,), _ = run_onnx(layer, [loc, conf, priors])
    np.testing.assert_allclose(exported[0, 0], want, atol=1e-6)


def test_the_image_that_the_fork_draws_on_is_not_read():
    bottoms = random_bottoms()
    shapes = [tuple(x.shape) for x in bottoms]
    (want,) = build("code_type: CENTER_SIZE")(*bottoms)
    (top,) = build("code_type: CENTER_SIZE", *shapes, (2, 3, 8, 8))(*bottoms, torch.rand(2, 3, 8, 8))
    assert torch.equal(top, want)


def test_predictions_may_stay_in_a_blob_for_each_feature_map():
    """Synopsys' fork, with ``no_permute`` in the order of convolutions: two maps with 2 and 3 boxes in a cell."""
    rng = torch.Generator().manual_seed(3)
    maps = [(2, 3, 3), (3, 2, 2)]  # boxes in a cell, rows, columns: 18 + 12 prior boxes
    loc = [torch.randn(2, boxes_ * 4, h, w, generator=rng) for boxes_, h, w in maps]
    conf = [torch.randn(2, CLASSES, boxes_, h * w, generator=rng).softmax(1) for boxes_, h, w in maps]
    priors = random_bottoms()[2]
    fields = "code_type: CENTER_SIZE confidence_threshold: 0.1"
    flat_loc = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in loc], 1)
    flat_conf = torch.cat([x.permute(0, 3, 2, 1).flatten(1) for x in conf], 1)
    (want,) = build(fields)(flat_loc, flat_conf, priors)
    bottoms = [*conf, *loc, priors]
    shapes = [tuple(x.shape) for x in bottoms]
    (top,) = build(f"{fields} no_permute: true nbottom: 2", *shapes)(*bottoms)

    def ordered(rows):
        return rows[0, 0][np.lexsort(rows[0, 0].numpy().T)]

    torch.testing.assert_close(ordered(top), ordered(want))
    flat = [*(x.permute(0, 3, 2, 1).flatten(1) for x in conf), *(x.permute(0, 2, 3, 1).flatten(1) for x in loc), priors]
    (top,) = build(f"{fields} nbottom: 2", *(tuple(x.shape) for x in flat))(*flat)
    assert torch.equal(top, want)
    apart = [*flat[:4], priors[:, :, : 18 * 4], priors[:, :, 18 * 4 :]]
    (top,) = build(f"{fields} nbottom: 2", *(tuple(x.shape) for x in apart))(*apart)
    assert torch.equal(top, want)


@pytest.mark.parametrize("code_type", ["CORNER", "CENTER_SIZE"])
def test_opencv_finds_the_same_boxes(code_type):
    bottoms = random_bottoms(images=1, corner=code_type == "CORNER")
    fields = (
        f"share_location: true background_label_id: 0 nms_param {{ nms_threshold: 0.45 top_k: 20 }}"
        f" code_type: {code_type} keep_top_k: 200 confidence_threshold: 0.05"
    )
    names = ("loc", "conf", "prior")
    inputs = "".join(
        f'input: "{name}" ' + " ".join(f"input_dim: {size}" for size in (*x.shape, 1, 1)[:4]) + "\n"
        for name, x in zip(names, bottoms, strict=True)
    )
    layer = f'layer {{ name: "d" type: "DetectionOutput" {" ".join(f"bottom: {n!r}" for n in names)} top: "d" '
    net = cv2.dnn.readNetFromCaffe(
        np.frombuffer(
            f"{inputs}{layer} detection_output_param {{ num_classes: {CLASSES} {fields} }} }}".replace(
                "'", '"'
            ).encode(),
            np.uint8,
        )
    )
    for name, x in zip(names, bottoms, strict=True):
        net.setInput(x.numpy(), name)
    theirs = net.forward("d")[0, 0]
    theirs = theirs[theirs[:, 1] > 0]  # padded with rows of zeros
    (top,) = build(fields, *(tuple(x.shape) for x in bottoms))(*bottoms)
    mine = top[0, 0].numpy()
    assert len(mine) == len(theirs) > 10
    np.testing.assert_allclose(mine[np.lexsort(mine.T[1:4])], theirs[np.lexsort(theirs.T[1:4])], atol=2e-6)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("nms_param { nms_threshold: -1 }", "nms_threshold must not be negative; got -1.0."),
        ("nms_param { eta: 0 }", "eta must be above 0 and at most 1; got 0.0."),
        ("background_label_id: -1", "locations that all classes share need a background class, in the fork as well"),
        ("ratio_permute: true", "the form with ratio_permute is not supported"),
        ("no_permute: true", "no_permute needs the scores and locations of each map"),
    ],
)
def test_it_refuses_invalid_settings(fields, problem):
    with pytest.raises(NetError) as error:
        build(fields)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ([(1, 116), (1, 120), (1, 2, 120)], "the number of locations must fit the 30 prior boxes; got 116, want 120."),
        ([(1, 120), (1, 90), (1, 2, 120)], "the number of scores must fit the 30 prior boxes; got 90, want 120."),
        ([(1, 120), (2, 120), (1, 2, 120)], "scores and locations must have the same first dimension"),
        ([(1, 120)] * 6, "wrong number of bottoms; got 6, want 3, 4, 13 or 18 for nbottom 6."),
    ],
)
def test_it_refuses_bottoms_that_do_not_fit(shapes, problem):
    with pytest.raises(NetError) as error:
        build("", *shapes).shapes(shapes)
    assert problem in str(error.value)


def test_saving_and_drawing_are_left_out_with_a_warning():
    for fields, what in (("visualize: true", "drawn"), ('save_output_param { output_directory: "out" }', "saved")):
        with pytest.warns(ReproductionWarning, match=f"detections are not {what} by this layer"):
            build(fields)


@pytest.mark.parametrize("fields", ["nms_param { eta: 0.5 }", "keep_top_k: 0", "nms_param { top_k: 0 }"])
def test_what_onnx_does_not_have_is_refused(fields):
    with pytest.raises(NetError, match="ONNX has no such suppression of boxes"):
        run_onnx(build(fields), random_bottoms())
