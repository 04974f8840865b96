import numpy as np
import pytest

from reproduction.caffe.errors import CaffemodelError
from reproduction.caffe.formats import blobs, caffemodel
from reproduction.caffe.schema import BlobProto, BlobShape
from tests.helpers.paths import GOLDEN

REMEDY = "The file is damaged, or was not written by Caffe."


def test_the_old_shape_wins_when_any_part_of_it_is_there():
    assert blobs.shape(BlobProto(num=2, channels=3, height=4, width=5, shape=BlobShape(dim=[9]))) == (2, 3, 4, 5)
    assert blobs.shape(BlobProto(width=5, shape=BlobShape(dim=[5]))) == (0, 0, 0, 5)
    assert blobs.shape(BlobProto(num=0, shape=BlobShape(dim=[5]))) == (0, 0, 0, 0)
    assert blobs.shape(BlobProto(shape=BlobShape(dim=[2, 3]))) == (2, 3)
    assert blobs.shape(BlobProto()) == ()


def test_values_come_in_shape_as_a_view():
    blob = BlobProto(shape=BlobShape(dim=[2, 3]), data=np.arange(6))
    found = blobs.to_array(blob)
    assert found.shape == (2, 3)
    assert found.dtype == np.float32
    assert np.shares_memory(found, blob.data)
    assert blobs.to_array(BlobProto(data=[7])).shape == ()
    assert blobs.to_array(BlobProto(shape=BlobShape(dim=[0, 3]))).shape == (0, 3)


def test_doubles_stay_doubles_and_win_over_singles():
    blob = BlobProto(shape=BlobShape(dim=[1]), data=[1], double_data=[0.1])
    assert blobs.to_array(blob).dtype == np.float64
    assert blobs.to_array(blob)[0] == 0.1


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (
            BlobProto(shape=BlobShape(dim=[2, 3]), data=[1, 2, 3, 4]),
            f"blob: the shape (2, 3) and the data disagree; got 4 values, want 6. {REMEDY}",
        ),
        (
            BlobProto(num=1, channels=3, data=[1, 2, 3]),
            f"blob: the shape (1, 3, 0, 0) and the data disagree; got 3 values, want 0. {REMEDY}",
        ),
        (BlobProto(), f"blob: the shape () and the data disagree; got 0 values, want 1. {REMEDY}"),
        (
            BlobProto(shape=BlobShape(dim=[-1, -4]), data=[1, 2, 3, 4]),
            f"blob: the shape is out of range; got (-1, -4). {REMEDY}",
        ),
        (
            BlobProto(shape=BlobShape(dim=[2**31 - 1, 2**31 - 1])),
            f"blob: the shape is out of range; got (2147483647, 2147483647). {REMEDY}",
        ),
        (BlobProto(shape=BlobShape(dim=[1] * 33), data=[1]), "blob: the blob has too many axes; got 33, want <= 32."),
    ],
)
def test_a_shape_that_caffe_would_refuse_is_an_error(blob, text):
    with pytest.raises(CaffemodelError) as error:
        blobs.to_array(blob)
    assert str(error.value) == text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4, 5, 6)])
def test_an_array_becomes_a_blob_and_comes_back(dtype, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    blob = caffemodel.loads(caffemodel.dumps(blobs.from_array(values)), BlobProto)
    found = blobs.to_array(blob)
    if values.size:  # a blob of no values does not say of which type they would be
        assert found.dtype == dtype
    assert found.shape == shape
    assert found.tobytes() == values.tobytes()


def test_a_blob_keeps_a_view_of_what_it_was_made_from():
    values = np.zeros((2, 3), np.float32)
    assert np.shares_memory(blobs.from_array(values).data, values)
    across = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(blobs.to_array(blobs.from_array(across)), across)


def test_only_floats_become_blobs():
    with pytest.raises(CaffemodelError) as error:
        blobs.from_array(np.zeros(3, np.int64))
    assert str(error.value) == "blob: a blob holds floats; got int64, want float32 or float64."


@pytest.mark.parametrize(
    ("layer", "index", "old", "new"),
    [
        ("Convolution", 0, (64, 3, 3, 3), (64, 3, 3, 3)),
        ("Convolution", 0, (1, 1, 3, 3), (1, 1, 3, 3)),
        ("Deconvolution", 0, (1, 1, 1, 4), (1, 1, 1, 4)),
        ("Convolution", 1, (1, 1, 1, 64), (64,)),
        ("InnerProduct", 0, (1, 1, 4096, 25088), (4096, 25088)),
        ("InnerProduct", 1, (1, 1, 1, 4096), (4096,)),
        ("Other", 0, (1, 1, 1, 8), (8,)),
        ("Other", 0, (1, 8, 1, 1), (1, 8, 1, 1)),
    ],
)
def test_old_shapes_have_a_modern_form(layer, index, old, new):
    num, channels, height, width = old
    blob = BlobProto(num=num, channels=channels, height=height, width=width)
    assert blobs.modern_shape(blob, layer, index) == new
    assert blobs.modern_shape(BlobProto(shape=BlobShape(dim=list(old))), layer, index) == old


def test_a_mean_image_loads(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    blob = BlobProto(num=1, channels=3, height=2, width=2, data=values.ravel())
    caffemodel.dump(blob, tmp_path / "mean.binaryproto")
    assert np.array_equal(blobs.load_mean(tmp_path / "mean.binaryproto"), values)


def test_a_model_given_as_a_mean_image_is_an_error():
    path = GOLDEN / "snapshot/snapshot_iter_3.caffemodel"
    with pytest.raises(CaffemodelError) as error:
        blobs.load_mean(path)
    assert str(error.value) == f"{path}: the shape () and the data disagree; got 0 values, want 1. {REMEDY}"
