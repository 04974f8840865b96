"""Changes of samples: patch sampling drops whole cells of labels, masks hide objects or background in images."""

import numpy as np
import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.scoring.evaluate import fingerprint
from reproduction.fcn.train.sample_changes import SHAPE_VALUE, ChangedDataset, CueMask, PatchSampling
from tests.helpers import small_mini_voc


def sample(height=70, width=100):
    image = np.full((3, height, width), 7, np.float32)
    return {"data": image, "label": np.ones((1, height, width), np.uint8)}


def test_patch_sampling_keeps_the_expected_share_of_whole_cells():
    before = sample(320, 640)
    change = PatchSampling(0.25, cell=32)
    kept = []
    for draw in range(40):
        found = change(before, ["label"], 1, draw)
        assert found["data"] is before["data"]
        assert found["label"].dtype == np.uint8
        cells = found["label"].reshape(10, 32, 20, 32).transpose(0, 2, 1, 3).reshape(200, -1)
        assert (cells == cells[:, :1]).all(), "a cell is kept or dropped as a whole"
        assert set(np.unique(cells)) <= {1, VOID}
        kept.append((cells[:, 0] == 1).mean())
    assert np.mean(kept) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 8000) ** 0.5)
    assert (before["label"] == 1).all(), "the sample itself does not change"


def test_a_draw_drops_the_same_cells_again_and_another_seed_drops_others():
    change = PatchSampling(0.5)
    first = change(sample(), ["label"], 1, 3)["label"]
    assert np.array_equal(first, change(sample(), ["label"], 1, 3)["label"])
    assert not np.array_equal(first, change(sample(), ["label"], 2, 3)["label"])
    assert (PatchSampling(1)(sample(), ["label"], 1, 0)["label"] == 1).all()


@pytest.mark.parametrize(("share", "cell"), [(0, 32), (1.5, 32), (-1, 32), (float("nan"), 32), (0.5, 0)])
def test_impossible_patches_are_refused(share, cell):
    with pytest.raises(ReproductionError):
        PatchSampling(share, cell)


@pytest.mark.parametrize(
    ("mask", "background", "objects", "void"),
    [
        (CueMask(), 7, 7, 7),
        (CueMask(foreground=True), 7, 0, 0),
        (CueMask(background=True), 0, 7, 0),
        (CueMask(foreground=True, background=True), 0, SHAPE_VALUE, 0),
    ],
)
def test_a_mask_hides_objects_or_background_and_void_with_either(mask, background, objects, void):
    before = sample(1, 3)
    before["label"][0, 0] = [0, 4, VOID]
    found = mask(before, ["label"], None, 0)
    assert found["label"] is before["label"]
    assert found["data"].dtype == np.float32
    assert (found["data"][:, 0] == [background, objects, void]).all()
    assert (before["data"] == 7).all()


def test_a_net_is_scored_on_masked_images_of_the_same_data_set(tmp_path, monkeypatch):
    small_mini_voc.shrink(monkeypatch)
    mini_voc.generate(tmp_path)
    dataset = mini_voc.Mini("val", tmp_path)
    masked = ChangedDataset(dataset, CueMask(foreground=True))
    assert (masked.ids, masked.classes, len(masked)) == (dataset.ids, dataset.classes, len(dataset))
    assert masked.missing() == []
    assert masked.overlap() == dataset.overlap()
    plain = dataset[0]
    (found, *_) = masked[0:2]
    top = next(iter(dataset.label_classes))
    image = next(name for name in plain if name != top)
    assert np.array_equal(found[top], plain[top])
    assert not found[image][:, plain[top][0] > 0].any()
    assert np.array_equal(found[image][:, plain[top][0] == 0], plain[image][:, plain[top][0] == 0])

    class Weightless:
        def state_dict(self):
            return {}

    assert fingerprint(Weightless(), masked) == fingerprint(Weightless(), dataset), "masks have states of their own"
