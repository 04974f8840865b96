import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from reproduction.caffe.formats import blobs, caffemodel, hdf5
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter, ParamSpec
from tests.caffe.formats.test_caffemodel import file_size_limit, said
from tests.helpers import paths

GOLDEN = paths.GOLDEN / "snapshot"
MODEL = GOLDEN / "snapshot_iter_3.caffemodel"
MODEL_H5 = GOLDEN / "snapshot_iter_3.caffemodel.h5"
NOT_CAFFES = "Caffe writes no such file."


def tree(path: Path) -> dict[str, object]:
    """Everything in an HDF5 file: groups, and datasets with type, shape, layout and bytes."""
    found: dict[str, object] = {}

    def visit(name, member):
        found[name] = None
        if isinstance(member, h5py.Dataset):
            found[name] = (member.dtype.str, member.shape, member.chunks, member[()].tobytes(), dict(member.attrs))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def arrays(net: NetParameter) -> dict[str, list[tuple[tuple[int, ...], bytes]]]:
    found = {layer.name: [blobs.to_array(blob) for blob in layer.blobs] for layer in net.layer}
    return {name: [(values.shape, values.tobytes()) for values in each] for name, each in found.items()}


def net_of(*layers: LayerParameter) -> NetParameter:
    return NetParameter(layer=list(layers))


def layer_of(name: str, *values: object) -> LayerParameter:
    return LayerParameter(name=name, blobs=[blobs.from_array(np.asarray(each, np.float32)) for each in values])


def test_caffes_two_formats_hold_the_same():
    assert arrays(hdf5.load(MODEL_H5)) == arrays(caffemodel.load(MODEL))


def test_we_write_the_file_that_caffe_wrote(tmp_path):
    hdf5.dump(caffemodel.load(MODEL), tmp_path / "net.h5")
    assert tree(tmp_path / "net.h5") == tree(MODEL_H5)


def test_arrays_are_views_of_the_file():
    layer = next(layer for layer in hdf5.load(MODEL_H5).layer if layer.name == "fc6")
    assert not layer.blobs[0].data.flags.owndata
    assert not layer.blobs[0].data.flags.writeable


def test_names_with_slashes_and_doubles_come_back(tmp_path):
    net = net_of(layer_of("a/3x3", [1, 2]), layer_of("a", [[3.0]], 4), layer_of("b/c/x"), layer_of("b", 5))
    net.layer[0].blobs.append(blobs.from_array(np.array([0.1])))
    hdf5.dump(net, tmp_path / "net.h5")
    assert arrays(hdf5.load(tmp_path / "net.h5")) == arrays(net)


def test_a_shared_parameter_is_stored_with_its_owner_alone(tmp_path):
    net = net_of(layer_of("a", [1, 2], [3]), layer_of("b", [1, 2], [4]), layer_of("c", [9, 9]))
    for layer in net.layer:
        layer.param.append(ParamSpec(name="w"))
    hdf5.dump(net, tmp_path / "net.h5")
    assert [name for name in tree(tmp_path / "net.h5") if name[-1].isdigit()] == [
        "data/a/0",
        "data/a/1",
        "data/b/1",
        "data/c/0",  # of the same name, but not the same: Caffe cannot have made this, and nothing is lost
    ]
    found = hdf5.load(tmp_path / "net.h5").layer[1]
    assert found.blobs[0] == BlobProto()
    assert blobs.to_array(found.blobs[1]) == 4


def test_gradients_are_written_for_every_parameter_and_come_back(tmp_path):
    net = net_of(layer_of("a", [[1, 2]]), layer_of("b"))
    net.layer[0].blobs[0].diff = np.array([3, 4])
    hdf5.dump(net, tmp_path / "net.h5")
    assert {"diff", "diff/a", "diff/a/0", "diff/b"} < tree(tmp_path / "net.h5").keys()
    assert np.array_equal(hdf5.load(tmp_path / "net.h5").layer[0].blobs[0].diff, [3, 4])


def test_other_numbers_become_singles_as_in_caffe(tmp_path):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        group = file.create_group("data/a")
        for i, dtype in enumerate((">f4", ">f8", "<f2", "<i8", "u1")):
            group.create_dataset(str(i), data=np.array([1, 2], dtype))
    found = [blobs.to_array(blob) for blob in hdf5.load(tmp_path / "net.h5").layer[0].blobs]
    assert [values.dtype for values in found] == [np.float32, np.float64, np.float32, np.float32, np.float32]
    assert all(np.array_equal(values, [1, 2]) for values in found)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a", "a"], "two layers are called 'a'. Rename one."),
        (["a", "a/0"], "layer 'a/0' has the name of a parameter of layer 'a'."),
        (["a", "a/0/b"], "layer 'a/0/b' has the name of a parameter of layer 'a'."),
        ([""], "layer '' has a name that HDF5 cannot hold."),
        (["/a"], "layer '/a' has a name that HDF5 cannot hold."),
        (["a/./b"], "layer 'a/./b' has a name that HDF5 cannot hold."),
        (["a\0b"], "layer 'a\\x00b' has a name that HDF5 cannot hold."),
        (["\udcff"], "layer '\\udcff' has a name that HDF5 cannot hold."),
    ],
)
def test_a_name_that_hdf5_cannot_hold_is_one_line(names, text, tmp_path):
    net = net_of(*(layer_of(name, [1]) for name in names))
    assert said(hdf5.dump, net, tmp_path / "net.h5") == f"{tmp_path}/net.h5: {text}"
    assert list(tmp_path.iterdir()) == []


def test_a_net_of_an_old_format_is_not_written_as_an_empty_file(tmp_path):
    net = caffemodel.load(GOLDEN.parent / "legacy/v0.caffemodel")
    text = said(hdf5.dump, net, tmp_path / "net.h5")
    assert text == f"{tmp_path}/net.h5: the net is of an old format. Upgrade it first."


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with file_size_limit(100_000):
        text = said(hdf5.dump, net_of(layer_of("a", np.zeros(100_000))), tmp_path / "net.h5")
    assert text == f"{tmp_path}/net.h5: cannot be written: file too large."
    assert list(tmp_path.iterdir()) == []


# ---- files that no Caffe wrote


def external(file):
    file.create_group("data")["a"] = h5py.ExternalLink("/etc/passwd", "/data")


def soft(file):
    file.create_group("data/a")["0"] = h5py.SoftLink("/data/b")


def cycle(file):
    group = file.create_group("data/a")
    group["b"] = group


def twice(file):
    group = file.create_group("data/a")
    group["0"] = np.zeros(3, np.float32)
    group["1"] = group["0"]


def outside(file):
    file.create_group("data/a").create_dataset("0", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def compressed(file):
    file.create_group("data/a").create_dataset("0", data=np.zeros(1000, "f4"), compression="gzip")


def declared(file):
    file.create_group("data/a").create_dataset("0", (2**30, 2**10), "f4")


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_group("data/a").create_virtual_dataset("0", layout)


def text(file):
    file.create_group("data/a")["0"] = "text"


def mixed(file):
    file.create_group("data/a").create_dataset("0", data=np.zeros(2, [("x", "f4"), ("y", "f4")]))


def null(file):
    file.create_group("data/a")["0"] = h5py.Empty("f4")


def bare(file):
    file["data"] = np.zeros(3)


def no_group(file):
    file.create_group("data")["a"] = np.zeros(3)


def misnamed(file):
    file.create_group("data/a")["weight"] = np.zeros(3)


def far(file):
    file.create_group("data/a")["1000000"] = np.zeros(3)


def nothing(file):
    file.create_group("model_weights")


ONE_PIECE = "this is not stored in one piece, as Caffe stores it. Run `h5repack -l CONTI -f NONE` on the file first."
HOSTILE = [
    (external, ": /data/a: this is a link to another place. Copy its target into the file."),
    (soft, ": /data/a/0: this is a link to another place. Copy its target into the file."),
    (cycle, f": /data/a/b: this is not a group or dataset, or it has a second name. {NOT_CAFFES}"),
    (twice, f": /data/a/1: this is not a group or dataset, or it has a second name. {NOT_CAFFES}"),
    (outside, f": /data/a/0: {ONE_PIECE}"),
    (compressed, f": /data/a/0: {ONE_PIECE}"),
    (declared, f": /data/a/0: {ONE_PIECE}"),
    (virtual, f": /data/a/0: {ONE_PIECE}"),
    (text, f": /data/a/0: this is not a dataset of numbers; got a string of any length. {NOT_CAFFES}"),
    (mixed, f": /data/a/0: this is not a dataset of numbers; got records. {NOT_CAFFES}"),
    (null, f": /data/a/0: this is not a dataset of numbers; got float32. {NOT_CAFFES}"),
    (bare, f": /data: this is a dataset, not a group of layers. {NOT_CAFFES}"),
    (no_group, f": /data/a: this is a dataset, not a group of one layer's parameters. {NOT_CAFFES}"),
    (misnamed, f": /data/a/weight: the name of a parameter must be its number. {NOT_CAFFES}"),
    (far, ": data/a: parameter 1000000 is present, but most of those before it are missing."),
    (
        nothing,
        ": the HDF5 file has no group 'data'; got 'model_weights'. Caffe stores weights in data/LAYER/0, 1 and so on.",
    ),
]


@pytest.mark.parametrize(("make", "text"), HOSTILE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_no_caffe_wrote_is_one_line(make, text, tmp_path):
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        make(file)
    assert said(hdf5.load, path) == f"{path}{text}"


def test_a_file_cut_off_is_one_line(tmp_path):
    whole = MODEL_H5.read_bytes()
    path = tmp_path / "net.h5"
    for size in (8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert said(hdf5.load, path).startswith(f"{path}: ")


def test_a_dataset_past_the_end_of_the_file_is_one_line(tmp_path):
    """The file's size is checked when it is opened; every dataset is checked as well."""
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.create_group("data/a")["0"] = np.zeros(1000, "f4")
    data = (tmp_path / "net.h5").read_bytes()
    at = data.index(struct.pack("<QQQ", 1000, 1000, 0)[:8])  # the dataset's length
    (tmp_path / "net.h5").write_bytes(data[:at] + struct.pack("<Q", 2000) + data[at + 8 :])
    text = said(hdf5.load, tmp_path / "net.h5")
    assert "/data/a/0 runs past the end of the file by" in text


def test_a_caffemodel_given_as_hdf5_is_one_line():
    assert said(hdf5.load, MODEL) == f"{MODEL}: this is not an HDF5 file; got something else."
