"""HDF5Data and HDF5Output."""

import os

import h5py
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import CaffemodelError, DataError, NetError, ReproductionError
from tests.helpers.single_layer import single


def write(folder, *counts, **columns):
    """Files with data sets ``x`` (rows 10 f + i, twice) and ``y``, and the list of them."""
    names = []
    for f, count in enumerate(counts):
        names.append(str(folder / f"{f}.h5"))
        with h5py.File(names[-1], "w") as file:
            rows = 10 * f + np.arange(count)
            for name, values in (columns or {"x": np.stack([rows, rows], 1), "y": rows.astype(np.float64)}).items():
                file[name] = values
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    return folder / "list.txt"


def reader(source, batch_size, fields="", tops="xy", seed=0):
    tops = " ".join(f'top: "{top}"' for top in tops)
    return single(
        f'type: "HDF5Data" {tops} hdf5_data_param {{ source: "{source}" batch_size: {batch_size} {fields} }}', seed=seed
    )


def test_rows_come_file_after_file_and_again_from_the_first(tmp_path):
    layer = reader(write(tmp_path, 3, 2), 4)
    assert layer.shapes([]) == [(4, 2), (4,)]
    batches = [layer() for _ in range(3)]
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2, 10], [11, 0, 1, 2], [10, 11, 0, 1]]
    assert all(torch.equal(x, torch.stack([y, y], 1)) and x.dtype == torch.float32 for x, y in batches)


def test_a_batch_may_be_longer_than_all_files(tmp_path):
    assert reader(write(tmp_path, 2), 5, tops="y")()[0].tolist() == [0, 1, 0, 1, 0]


def test_shuffle_mixes_rows_and_files_but_shows_each_once_an_epoch(tmp_path):
    layer = reader(write(tmp_path, 5, 5, 5), 15, "shuffle: true", tops="y")
    epochs = [layer()[0].tolist() for _ in range(3)]
    want = sorted(10 * f + i for f in range(3) for i in range(5))
    assert all(sorted(epoch) == want and epoch != want for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert all({int(row // 10) for row in epoch[:5]} <= {int(epoch[0] // 10)} for epoch in epochs)


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
@pytest.mark.parametrize("counts", [(7,), (3, 1, 4)])
def test_any_batch_can_be_asked_for(tmp_path, counts, shuffle):
    source = write(tmp_path, *counts)
    layer, other = (reader(source, 3, shuffle, tops="y", seed=2) for _ in range(2))
    batches = [layer()[0].tolist() for _ in range(12)]
    for draw in (0, 11, 3, 4, 5, 0, 8):
        other.seek(draw)
        assert other()[0].tolist() == batches[draw]


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"x": np.zeros(3), "z": np.zeros(3)}, "there is no data set 'y'; got ['x', 'z']."),
        (
            {"x": np.zeros(3), "y": np.zeros(2)},
            "the data sets must have as many rows, and at least one; got {'x': 3, 'y': 2}.",
        ),
        (
            {"x": np.zeros(0), "y": np.zeros(0)},
            "the data sets must have as many rows, and at least one; got {'x': 0, 'y': 0}.",
        ),
        ({"x": np.zeros(3), "y": np.float32(1)}, "data set 'y' cannot be used; got float32 (), want rows of numbers."),
        (
            {"x": np.zeros(3), "y": np.array([b"a"] * 3)},
            "data set 'y' cannot be used; got |S1 (3,), want rows of numbers.",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, columns, error):
    with pytest.raises(DataError) as caught:
        reader(write(tmp_path, 3, **columns), 1)
    assert str(caught.value) == f"{tmp_path / '0.h5'}: {error}"


def test_files_must_have_rows_of_one_shape(tmp_path):
    source = write(tmp_path, 1, 1)
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["x"], file["y"] = np.zeros((1, 3)), np.zeros(1)
    with pytest.raises(DataError) as caught:
        reader(source, 2)()
    problem = "the rows differ in shape from those of the files before; got [(3,), ()], want [(2,), ()]."
    assert str(caught.value) == f"{tmp_path / '1.h5'}: {problem}"


def test_missing_empty_and_broken_files_are_one_line_each(tmp_path):
    with pytest.raises(DataError) as caught:
        reader(tmp_path / "no.txt", 1)
    assert str(caught.value) == f"{tmp_path / 'no.txt'}: the list of files cannot be read (no such file or directory)."
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"empty\.txt: the list names no HDF5 files\.$"):
        reader(tmp_path / "empty.txt", 1)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.txt: this is not a text file; got byte 0xff at 0, want UTF-8\.$"):
        reader(tmp_path / "binary.txt", 1)
    (tmp_path / "list.txt").write_text("gone.h5")
    with pytest.raises(DataError, match=r"^gone\.h5: there is no such file\. .*list\.txt names it\.$"):
        reader(tmp_path / "list.txt", 1)
    (tmp_path / "broken.h5").write_text("<html></html>")
    (tmp_path / "list.txt").write_text(str(tmp_path / "broken.h5"))
    with pytest.raises(CaffemodelError, match=r"broken\.h5: this is not an HDF5 file; got a web page\.$"):
        reader(tmp_path / "list.txt", 1)
    with pytest.raises(NetError, match=r"^batch_size must be positive; got 0\.$"):
        reader(write(tmp_path, 1), 0)


@pytest.fixture
def output(tmp_path):
    from reproduction.caffe.layers.hdf5_data import HDF5Output
    from reproduction.caffe.schema import LayerParameter

    def make(*shapes, path=tmp_path / "out.h5"):
        spec = LayerParameter(type="HDF5Output", bottom=["a", "b"], hdf5_output_param={"file_name": str(path)})
        return HDF5Output(spec, list(shapes))

    return make


def test_output_writes_two_blobs_with_four_axes(output, tmp_path):
    layer = output((2, 3), (2,))
    data, label = torch.randn(2, 3, requires_grad=True), torch.tensor([1.0, 2.0])
    assert layer.shapes([(2, 3), (2,)]) == []
    assert not (tmp_path / "out.h5").exists()
    assert layer(data, label) == ()
    with h5py.File(tmp_path / "out.h5") as file:
        assert sorted(file) == ["data", "label"]
        assert np.array_equal(file["data"][...], data.detach().numpy().reshape(2, 3, 1, 1))
        assert file["label"].shape == (2, 1, 1, 1)
        assert file["label"].dtype == np.float32
    with pytest.raises(NetError, match=r"out\.h5 holds an earlier batch already\. Run the net once"):
        layer(data, label)


def test_output_that_cannot_be_written_leaves_nothing_behind(output, tmp_path):
    layer = output((2, 3), (2,), path=tmp_path / "no" / "out.h5")
    with pytest.raises(ReproductionError, match=r"out\.h5: cannot be written: no such file or directory\.$"):
        layer(torch.zeros(2, 3), torch.zeros(2))
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        NetError, match=r"^data and label must have the same first dimension; got \(2, 3\) and \(3,\)\.$"
    ):
        layer.shapes([(2, 3), (3,)])
    with pytest.raises(NetError, match=r"^hdf5_output_param\.file_name is missing\.$"):
        output((2, 3), (2,), path="")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_a_folder_and_an_impossible_name_are_one_line_each(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source, got in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(DataError) as caught:
            reader(source, 1)
        assert str(caught.value) == f"{source}: this is not a file; got {got}. Name a file on a disk."
    with pytest.raises(DataError, match="this cannot be the name of a file"):
        reader("a\\000b", 1)
    for name in (tmp_path / "pipe", tmp_path, "a\0b"):
        (tmp_path / "list.txt").write_text(str(name))
        with pytest.raises(DataError, match="there is no such file"):
            reader(tmp_path / "list.txt", 1)
