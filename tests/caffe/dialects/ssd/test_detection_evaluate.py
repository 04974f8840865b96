"""DetectionEvaluate: right and wrong detections."""

import pytest
import torch

from reproduction.caffe.errors import DataError, NetError
from tests.helpers.single_layer import single


def evaluate(fields, found, true, layer=None):
    bottoms = [torch.tensor(rows, dtype=torch.float32)[None, None] for rows in (found, true)]
    layer = layer or build(fields, *(tuple(x.shape) for x in bottoms))
    return layer(*bottoms)[0][0, 0].tolist()


def build(fields, *shapes):
    shapes = shapes or ((1, 1, 3, 7), (1, 1, 3, 8))
    return single(f'type: "DetectionEvaluate" detection_evaluate_param {{ num_classes: 3 {fields} }}', *shapes)


BOX, NEAR, FAR = [0, 0, 0.4, 0.4], [0, 0, 0.4, 0.3], [0.5, 0.5, 0.9, 0.9]
COUNTS = [[-1, 1, 1, -1, -1], [-1, 2, 0, -1, -1]]


def test_the_best_detection_of_a_true_box_is_right():
    found = [[0, 1, 0.5, *BOX], [0, 1, 0.75, *NEAR], [0, 1, 0.25, *FAR], [0, 2, 1, *BOX], [1, 1, 0.5, *BOX]]
    assert evaluate("", found, [[0, 1, 0, *BOX, 0]]) == [
        *COUNTS, [0, 1, 0.75, 1, 0], [0, 1, 0.5, 0, 1], [0, 1, 0.25, 0, 1], [0, 2, 1, 0, 1], [1, 1, 0.5, 0, 1]
    ]  # fmt: skip


def test_difficult_boxes_may_not_count():
    found, true = [[0, 1, 0.5, *BOX], [0, 1, 0.25, *FAR]], [[0, 1, 0, *BOX, 1], [0, 1, 1, *FAR, 0]]
    assert evaluate("evaluate_difficult_gt: false", found, true) == [*COUNTS, [0, 1, 0.5, 0, 0], [0, 1, 0.25, 1, 0]]
    assert evaluate("", found, true)[0] == [-1, 1, 2, -1, -1]


def test_true_boxes_end_at_the_first_row_without_an_image():
    true = [[0, 1, 0, *BOX, 0], [-1] * 8, [0, 1, 1, *FAR, 0]]
    assert evaluate("", [[0, 1, 0.5, *FAR]], true) == [*COUNTS, [0, 1, 0.5, 0, 1]]


def test_detections_without_a_label_are_dropped_and_without_an_image_leave_zeros():
    rows = [[0, -1, -1, -1, -1, -1, -1], [-1, 1, 0.5, *BOX], [0, 1, 0.5, *BOX]]
    assert evaluate("", rows, [[0, 1, 0, *BOX, 0]]) == [*COUNTS, [0, 1, 0.5, 1, 0], [0] * 5]


def test_an_overlap_equal_to_the_threshold_is_right():
    true = [[0, 1, 0, 0, 0, 0.5, 0.5, 0]]
    found = [[0, 1, 0.5, 0, 0, 0.5, 0.25]]
    assert evaluate("overlap_threshold: 0.5", found, true)[-1] == [0, 1, 0.5, 1, 0]
    assert evaluate("overlap_threshold: 0.51", found, true)[-1] == [0, 1, 0.5, 0, 1]


def test_with_the_sizes_of_images_overlaps_are_those_of_pixels(tmp_path):
    sizes = tmp_path / "sizes.txt"
    sizes.write_text("one 10 10\n\ntwo 1000 1000\n")
    # In an image of 10 x 10 pixels, [0, 4] x [0, 4] and [0, 4] x [0, 1] share 10 of 25 pixels instead of a quarter.
    found, true = [[0, 1, 0.5, 0, 0, 0.4, 0.1]], [[0, 1, 0, *BOX, 0]]
    fields = f'overlap_threshold: 0.4 name_size_file: "{sizes}"'
    layer = build(fields, (1, 1, 1, 7), (1, 1, 1, 8))
    assert evaluate("", found, true, layer)[-1] == [0, 1, 0.5, 1, 0]
    assert evaluate("", found, true, layer)[-1] == [0, 1, 0.5, 0, 1]  # the second image of the file
    assert evaluate("", found, true, layer)[-1] == [0, 1, 0.5, 1, 0]  # the first again
    sizes.write_text("one 10\n")
    with pytest.raises(DataError, match="line 1 has no size of an image"):
        build(fields)
    with pytest.raises(DataError):
        build('name_size_file: "no such file"')


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("overlap_threshold: 0", "overlap_threshold must be positive"),
        ("resize_param { resize_mode: FIT_SMALL_SIZE }", "boxes of padded or cut images are not supported"),
    ],
)
def test_it_refuses_settings(fields, problem):
    with pytest.raises(NetError, match=problem):
        build(fields)


def test_it_refuses_other_bottoms_and_the_label_of_the_background():
    with pytest.raises(NetError, match="a bottom must be a list of boxes"):
        build("").shapes([(1, 1, 3, 7), (1, 1, 3, 7)])
    with pytest.raises(NetError, match="a box has the label of the background; got 0"):
        evaluate("", [[0, 0, 0.5, *BOX]], [[0, 1, 0, *BOX, 0]])
    with pytest.raises(NetError, match="num_classes is missing"):
        single('type: "DetectionEvaluate" detection_evaluate_param { }', (1, 1, 3, 7), (1, 1, 3, 8))
