"""MultiBoxLoss: its settings, compared with a plain implementation in double precision."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.helpers import multibox_reference as reference
from tests.helpers.single_layer import single


def build(fields, bottoms, extra=""):
    text = f'name: "l" type: "MultiBoxLoss" multibox_loss_param {{ {fields} }} {extra}'
    return single(text, *(x.shape for x in bottoms))


def run(bottoms, extra="", nms=None, normalization="VALID", **options):
    settings = {"num_classes": reference.CLASSES, **options}
    fields = " ".join(
        f"{name}: {str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()
    )
    if nms:
        fields += f" nms_param {{ nms_threshold: {nms[0]} top_k: {nms[1]} }}"
    layer = build(fields, bottoms, f"loss_param {{ normalization: {normalization} }} {extra}")
    leaves = [torch.from_numpy(x).requires_grad_(i < 2) for i, x in enumerate(bottoms)]
    (loss,) = layer(*leaves)
    loss.backward()
    return loss.item(), leaves[0].grad, leaves[1].grad


CASES = [
    {},
    {"code_type": "CENTER_SIZE"},
    {"code_type": "CORNER_SIZE", "loc_loss_type": "L2", "loc_weight": 2.5},
    {"conf_loss_type": "LOGISTIC", "overlap_threshold": 0.3, "neg_overlap": 0.2},
    {"match_type": "BIPARTITE", "neg_pos_ratio": 1.5},
    {"neg_pos_ratio": 100, "use_difficult_gt": False},
    {"ignore_cross_boundary_bbox": True, "overlap_threshold": 0.2},
    {"bp_inside": True, "overlap_threshold": 0.2},
    {"bp_inside": True, "use_prior_for_matching": False, "overlap_threshold": 0.1},
    {"use_prior_for_matching": False, "code_type": "CENTER_SIZE", "overlap_threshold": 0.1},
    {"mining_type": "NONE"},
    {"mining_type": "NONE", "share_location": False, "overlap_threshold": 0.2},
    {"mining_type": "NONE", "share_location": False, "use_prior_for_matching": False, "overlap_threshold": 0.1},
    {"mining_type": "NONE", "map_object_to_agnostic": True, "num_classes": 2},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 6, "overlap_threshold": 0.2},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 5, "nms": (0.3, 10), "overlap_threshold": 0.2},
    {
        "mining_type": "HARD_EXAMPLE",
        "sample_size": 5,
        "nms": (0.3, 10),
        "use_prior_for_nms": True,
        "loc_loss_type": "L2",
    },
    {"mining_type": "HARD_EXAMPLE", "sample_size": 6, "bp_inside": True, "overlap_threshold": 0.2},
    {"nms": (0.4, 8), "overlap_threshold": 0.2},
    {"normalization": "FULL"},
    {"normalization": "BATCH_SIZE"},
    {"normalization": "NONE"},
    {"encode_variance_in_target": True, "code_type": "CENTER_SIZE"},
    {
        "encode_variance_in_target": True,
        "mining_type": "HARD_EXAMPLE",
        "sample_size": 6,
        "use_prior_for_matching": False,
    },
]


@pytest.mark.parametrize(
    "options", CASES, ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()) or "default"
)
def test_loss_and_gradient_are_those_of_a_plain_implementation(options):
    locations = 1 if options.get("share_location", True) else reference.CLASSES
    for seed in range(3):
        bottoms = reference.random_bottoms(seed, 2 + seed % 2, locations, options.get("num_classes", reference.CLASSES))
        loss, *gradients = run(bottoms, **options)
        want, count = reference.compute(*bottoms, **options)
        assert count > 0
        assert loss == pytest.approx(want, rel=1e-5)
        if not options.get("encode_variance_in_target"):  # whose gradient is not that of the loss
            check_slope(bottoms, gradients, options)


def check_slope(bottoms, gradients, options):
    """Compare the gradient with the difference of two losses, along a direction in which no choice changes."""
    rng = np.random.default_rng(0)
    step = 1e-5
    ways = [rng.normal(size=x.shape) for x in bottoms[:2]]
    sides = [
        reference.compute(
            *(x + sign * step * way for x, way in zip(bottoms, ways, strict=False)), *bottoms[2:], **options
        )[0]
        for sign in (1, -1)
    ]
    slope = (sides[0] - sides[1]) / (2 * step)
    got = sum(float((g.double().numpy() * way).sum()) for g, way in zip(gradients, ways, strict=True))
    assert got == pytest.approx(slope, rel=2e-3, abs=2e-4)


def test_the_gradient_lacks_the_variances_that_the_loss_is_divided_by():
    bottoms = reference.random_bottoms(0)
    bottoms[0] *= 0.01
    _, plain, _ = run(bottoms, code_type="CORNER", loc_loss_type="L2")
    _, coded, _ = run(bottoms, code_type="CORNER", loc_loss_type="L2", encode_variance_in_target=True)
    variances = torch.from_numpy(bottoms[2]).reshape(2, -1)[1]
    target = bottoms[0] - plain.numpy() * (n := (plain != 0).sum().item() // 4)
    np.testing.assert_allclose(coded * n, (bottoms[0] / variances.numpy() - target) * (plain != 0).numpy(), atol=1e-4)


def test_targets_of_logistic_losses_without_mining_are_where_the_fork_puts_them():
    bottoms = reference.random_bottoms(1)
    _, _, gradient = run(bottoms, conf_loss_type="LOGISTIC", mining_type="NONE", normalization="NONE")
    scores = torch.from_numpy(bottoms[1])
    target = (scores.sigmoid() - gradient).round().flatten()
    _, _, softmax = run(bottoms, mining_type="NONE", normalization="NONE")
    label = (scores.reshape(2, -1, 3).softmax(-1) - softmax.reshape(2, -1, 3)).round().argmax(-1)
    want = torch.zeros_like(target)
    for image, prior in (label > 0).nonzero().tolist():
        want[image * reference.PRIORS + prior * 3 + label[image, prior]] = 1
    assert torch.equal(target, want)


def test_without_top_k_the_suppression_finds_no_negatives():
    bottoms = reference.random_bottoms(2)
    loss, _, gradient = run(bottoms, nms=(0.5, 0))
    positives = reference.compute(*bottoms, neg_pos_ratio=0)[0]
    assert loss == pytest.approx(positives, rel=1e-5)
    assert (gradient.reshape(2, -1, 3) != 0).any(-1).sum() < 10


def test_a_part_whose_bottom_gets_no_gradient_is_left_out():
    bottoms = reference.random_bottoms(0)
    whole = run(bottoms)[0]
    locations, scores = (
        run(bottoms, f"propagate_down: {a} propagate_down: {b} propagate_down: false propagate_down: false")[0]
        for a, b in (("true", "false"), ("false", "true"))
    )
    assert locations + scores == pytest.approx(whole)
    assert min(locations, scores) > 0


def test_images_without_true_boxes_have_no_loss():
    bottoms = reference.random_bottoms(0)
    bottoms[3] = bottoms[3][:, :, :1]
    loss, *gradients = run(bottoms)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)
    assert run(bottoms, mining_type="NONE")[0] == pytest.approx(reference.compute(*bottoms, mining_type="NONE")[0])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "num_classes must be set and positive; got 0."),
        ("num_classes: 3 do_neg_mining: false", "do_neg_mining and mining_type disagree. Remove do_neg_mining."),
        (
            "num_classes: 3 share_location: false",
            "mining needs share_location; got mining_type MAX_NEGATIVE, want NONE.",
        ),
        ("num_classes: 3 background_label_id: 3", "background_label_id is out of range; got 3, want 0..2."),
        ("num_classes: 3 mining_type: HARD_EXAMPLE sample_size: 0", "sample_size must be positive; got 0."),
        ("num_classes: 3 map_object_to_agnostic: true", "map_object_to_agnostic needs two classes; got 3."),
    ],
)
def test_it_refuses_settings(fields, problem):
    with pytest.raises(NetError) as error:
        build(fields, reference.random_bottoms(0))
    assert str(error.value).endswith(problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: b[3].__setitem__((0, 0, 1, 1), 0), "a true box has the label of the background; got 0."),
        (lambda b: b[3].__setitem__((0, 0, 1, 1), 7), "out of range"),
        (lambda b: b[2].__setitem__((0, 1), 0), "variances must be positive; got 0.0."),
    ],
)
def test_it_refuses_values(change, problem):
    bottoms = reference.random_bottoms(0)
    change(bottoms)
    with pytest.raises(NetError) as error:
        run(bottoms)
    assert problem in str(error.value)


def test_it_refuses_bottoms_that_do_not_fit():
    bottoms = reference.random_bottoms(0)
    shapes = [x.shape for x in bottoms]
    layer = build("num_classes: 3", bottoms)
    for index, shape, problem in (
        (0, (2, 44), "the number of locations must fit the 12 prior boxes; got (2, 44), want 48."),
        (1, (2, 35), "the number of scores must fit the 12 prior boxes; got (2, 35), want 36."),
        (3, (1, 1, 4, 7), "the last bottom must be a list of true boxes"),
    ):
        with pytest.raises(NetError) as error:
            layer.shapes([shape if i == index else each for i, each in enumerate(shapes)])
        assert problem in str(error.value)
