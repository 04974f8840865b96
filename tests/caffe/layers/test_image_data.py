"""ImageData: images are read, resized and transformed as by OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import blobs, caffemodel
from reproduction.caffe.layers.image_data import read_image, resize
from reproduction.caffe.schema import Phase
from tests.helpers.single_layer import single


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))


def folder_of(path, sizes, kind="png"):
    """Images of these (height, width) and their list, labelled 0, 1 ..."""
    for i, (height, width) in enumerate(sizes):
        picture(height, width, i).save(path / f"{i}.{kind}")
    (path / "list.txt").write_text("".join(f"{i}.{kind} {i}\n" for i in range(len(sizes))))
    return f'source: "{path}/list.txt" root_folder: "{path}/"'


def images(fields, transform="", phase=Phase.TEST, seed=0):
    text = (
        f'type: "ImageData" top: "data" top: "label" image_data_param {{ {fields} }} transform_param {{ {transform} }}'
    )
    return single(text, phase=phase, seed=seed)


# ---- reading and resizing


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
def test_colour_images_are_read_as_opencv_reads_them(tmp_path, kind):
    picture(37, 53).save(tmp_path / f"a.{kind}")
    want = cv2.imread(str(tmp_path / f"a.{kind}"), cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(str(tmp_path / f"a.{kind}")), want)


@pytest.mark.parametrize(("kind", "off"), [("jpg", 0), ("png", 1)])
def test_grey_images_are_read_as_opencv_reads_them(tmp_path, kind, off):
    picture(37, 53).save(tmp_path / f"a.{kind}")
    want = cv2.imread(str(tmp_path / f"a.{kind}"), cv2.IMREAD_GRAYSCALE)
    got = read_image(str(tmp_path / f"a.{kind}"), color=False)
    assert got.shape == (37, 53, 1)
    assert abs(got[:, :, 0].astype(int) - want).max() <= off


def test_alpha_grey_sixteen_bits_and_turned_images_are_read_as_opencv_reads_them(tmp_path):
    colour = picture(9, 7)
    colour.putalpha(100)
    colour.save(tmp_path / "alpha.png")
    picture(9, 7).convert("L").save(tmp_path / "grey.png")
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9, 7).save(tmp_path / "turned.jpg", exif=exif)
    for path in sorted(tmp_path.iterdir()):
        want = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert np.array_equal(read_image(str(path)), want), path.name


@pytest.mark.parametrize("size", [(50, 40), (20, 91), (74, 106), (18, 26), (224, 224), (1, 1), (37, 53), (37, 20)])
def test_resizing_is_opencvs_to_a_level(size):
    image = np.asarray(picture(37, 53))
    off = abs(resize(image, *size).astype(int) - cv2.resize(image, size[::-1]))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


# ---- batches


def test_batches_go_around_the_list_and_take_the_size_of_their_first_image(tmp_path):
    layer = images(folder_of(tmp_path, [(5, 6), (5, 6), (3, 4)]))
    assert layer.shapes([]) == [(1, 3, 5, 6), (1,)]
    batches = [layer() for _ in range(4)]
    assert [label.tolist() for _, label in batches] == [[0], [1], [2], [0]]
    assert [tuple(data.shape) for data, _ in batches] == [(1, 3, 5, 6)] * 2 + [(1, 3, 3, 4), (1, 3, 5, 6)]
    want = cv2.imread(str(tmp_path / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(batches[1][0][0].numpy(), want)


def test_new_height_and_width_let_images_of_all_sizes_into_a_batch(tmp_path):
    layer = images(folder_of(tmp_path, [(5, 6), (9, 8)]) + " batch_size: 2 new_height: 7 new_width: 5 is_color: false")
    data, label = layer()
    assert data.shape == (2, 1, 7, 5)
    assert label.tolist() == [0, 1]


def test_paths_may_hold_spaces(tmp_path):
    picture(2, 2).save(tmp_path / "a b.png")
    (tmp_path / "list.txt").write_text("a b.png 7\n")
    assert images(f'source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/"')()[1].tolist() == [7]


def test_shuffle_and_skip_move_the_beginning(tmp_path):
    fields = folder_of(tmp_path, [(2, 2)] * 20) + " batch_size: 20 "
    mixed = images(fields + "shuffle: true")
    epochs = [mixed()[1].tolist() for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1] != list(range(20))
    labels = images(fields + "rand_skip: 20", seed=3)()[1].tolist()
    assert labels == [(labels[0] + i) % 20 for i in range(20)]
    assert labels[0] > 0


@pytest.mark.parametrize("more", ["", "shuffle: true", "shuffle: true rand_skip: 4"])
def test_any_batch_can_be_asked_for(tmp_path, more):
    fields = folder_of(tmp_path, [(2, 2)] * 5) + f" batch_size: 2 {more}"
    layer, other = images(fields, seed=1), images(fields, seed=1)
    batches = [layer()[1].tolist() for _ in range(9)]
    for draw in (0, 8, 3, 4, 0):
        other.seek(draw)
        assert other()[1].tolist() == batches[draw]


# ---- transform_param


def test_mean_and_scale(tmp_path):
    fields = folder_of(tmp_path, [(4, 5)])
    raw = images(fields)()[0]
    layer = images(fields, "mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5")
    torch.testing.assert_close(layer()[0], (raw - torch.tensor([1.0, 2, 3]).reshape(1, 3, 1, 1)) * 0.5)
    torch.testing.assert_close(images(fields, "mean_value: 9")()[0], raw - 9)
    mean = np.random.default_rng(0).random((1, 3, 4, 5)).astype(np.float32)
    caffemodel.dump(blobs.from_array(mean), tmp_path / "mean.binaryproto")
    torch.testing.assert_close(
        images(fields, f'mean_file: "{tmp_path}/mean.binaryproto"')()[0], raw - torch.tensor(mean)
    )


def test_crops_are_central_in_testing_and_anywhere_in_training(tmp_path):
    fields = folder_of(tmp_path, [(8, 9)])
    raw = images(fields)()[0]
    assert torch.equal(images(fields, "crop_size: 5")()[0], raw[:, :, 1:6, 2:7])
    layer = images(fields, "crop_size: 5", phase=Phase.TRAIN)
    assert layer.shapes([])[0] == (1, 3, 5, 5)
    windows = [raw[:, :, y : y + 5, x : x + 5] for y in range(4) for x in range(5)]
    crops = [layer()[0] for _ in range(60)]
    seen = [next(i for i, window in enumerate(windows) if torch.equal(window, crop)) for crop in crops]
    assert len(set(seen)) > 10


def test_mirror_turns_about_half_of_the_images(tmp_path):
    fields = folder_of(tmp_path, [(4, 5)])
    raw = images(fields)()[0]
    layer = images(fields, "mirror: true")
    tops = [layer()[0] for _ in range(40)]
    turned = [torch.equal(top, raw.flip(3)) for top in tops]
    assert 8 < sum(turned) < 32
    assert all(torch.equal(top, raw) for top, is_turned in zip(tops, turned, strict=True) if not is_turned)


# ---- errors


@pytest.mark.parametrize(
    ("more", "transform", "error"),
    [
        ("batch_size: 0", "", "batch_size must be positive; got 0."),
        ("new_height: 3", "", "new_height and new_width must be set together; got 3 and 0."),
        ("", 'mean_value: 1 mean_file: "m"', "mean_file and mean_value are both set; want one of them."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(tmp_path, more, transform, error):
    with pytest.raises(NetError) as caught:
        images(f"{folder_of(tmp_path, [(4, 5)])} {more}", transform)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("more", "transform", "error"),
    [
        ("", "crop_size: 5", "the image is smaller than crop_size; got (4, 5), want (5, 5)."),
        ("", "mean_value: 1 mean_value: 2", "the image does not fit the mean; got (3, 4, 5), want 2 channels."),
        ("batch_size: 2", "",
         ("the images of a batch must have one size; got (3, 6, 5), want (3, 4, 5). "
          "Set new_height and new_width, crop_size, or batch_size: 1.")),
    ],
)  # fmt: skip
def test_an_image_that_does_not_fit_is_named(tmp_path, more, transform, error):
    fields = folder_of(tmp_path, [(4, 5), (6, 5)])
    with pytest.raises(DataError) as caught:
        images(f"{fields} {more}", transform)()
    assert str(caught.value) == f"{tmp_path}/{int('batch' in more)}.png: {error}"


def test_a_mean_image_of_another_size_is_an_error(tmp_path):
    fields = folder_of(tmp_path, [(4, 5)])
    caffemodel.dump(blobs.from_array(np.zeros((1, 3, 5, 5), np.float32)), tmp_path / "mean.binaryproto")
    with pytest.raises(
        DataError, match=r"0\.png: the image does not fit the mean; got \(3, 4, 5\), want \(3, 5, 5\)\.$"
    ):
        images(fields, f'mean_file: "{tmp_path}/mean.binaryproto"')()


def test_missing_and_broken_images_are_named(tmp_path):
    fields = folder_of(tmp_path, [(4, 5)])
    picture = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(picture[:60])
    with pytest.raises(DataError, match=r"0\.png: the image cannot be decoded \(.+\)\.$"):
        images(fields)()
    (tmp_path / "0.png").write_text("no picture")
    with pytest.raises(DataError, match=r"0\.png: not an image in a known format; got .+\.$"):
        images(fields)()
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png: the image cannot be read \(no such file or directory\)\.$"):
        images(fields)()


@pytest.mark.parametrize("line", ["0.png", "0.png one", "", " 3"])
def test_a_line_without_path_and_label_is_named(tmp_path, line):
    fields = folder_of(tmp_path, [(4, 5)])
    (tmp_path / "list.txt").write_text(f"0.png 0\n{line}\n")
    with pytest.raises(DataError) as caught:
        images(fields)
    assert str(caught.value) == f"{tmp_path}/list.txt:2: this line is not valid; got {line!r}, want 'path label'."


def test_an_empty_list_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(DataError, match=r"list\.txt: the list names no images\.$"):
        images(f'source: "{tmp_path}/list.txt"')
