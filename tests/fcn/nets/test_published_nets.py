"""The published nets: equal to the originals, aligned at every size, and listed in the table.

``prototxt_sha256.json`` has the SHA-256 of the 30 published files of nets, ``prototxt_digests.json`` the digests of
their content and of that of the 15 solvers (tests/helpers/canonical_prototxt.py); both were computed from
shelhamer/fcn.berkeleyvision.org@1305c73.
"""

from __future__ import annotations

import ast
import hashlib
import json

import pytest

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.geometry import Window, conv_size, conv_windows, deconv_size, pool_sizes, pool_windows
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter
from reproduction.fcn.datasets.spec import PublishedNet
from reproduction.fcn.nets import net_files, published_nets
from reproduction.fcn.nets.receptive_field import compute_net_figures
from tests.helpers import canonical_prototxt, thin_nets
from tests.helpers.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
SHA256 = json.loads((GOLDEN / "prototxt_sha256.json").read_text())
DIGESTS = json.loads((GOLDEN / "prototxt_digests.json").read_text())
ROWS = list(published_nets.NETS.values())

OFFSETS = {32: [19], 16: [5, 27], 8: [5, 9, 31]}

# Four bytes for each parameter of the 15 nets; voc-fcn32s's published file is 3,119 bytes longer.
PAYLOAD = {
    "voc-fcn32s": 544_611_668,
    "voc-fcn16s": 539_263_976,
    "voc-fcn8s": 537_959_036,
    "voc-fcn8s-atonce": 537_962_108,
    "voc-fcn-alexnet": 234_818_360,
    "nyud-fcn32s-color": 563_912_096,
    "nyud-fcn32s-color-d": 563_914_400,
    "nyud-fcn32s-hha": 563_912_096,
    "nyud-fcn32s-color-hha": 1_101_609_792,
    "siftflow-fcn32s": 555_621_776,
    "siftflow-fcn16s": 542_273_696,
    "siftflow-fcn8s": 539_007_920,
    "pascalcontext-fcn32s": 597_007_856,
    "pascalcontext-fcn16s": 553_124_576,
    "pascalcontext-fcn8s": 542_357_456,
}


def each_net(test):
    return pytest.mark.parametrize("published", ROWS, ids=lambda published: published.name)(test)


def named(net: NetParameter) -> dict[str, LayerParameter]:
    return {spec.name: spec for spec in net.layer}


# Word for word


def test_there_are_30_nets_and_15_solvers_to_match():
    assert len(SHA256) == 30
    assert len(DIGESTS) == 45
    assert len(ROWS) == 15


@pytest.mark.parametrize("name", SHA256)
def test_a_net_is_written_byte_for_byte_as_published(name: str):
    folder, file = name.split("/")
    text = prototxt.dumps(net_files.build_files(published_nets.NETS[folder])[file])
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_a_committed_prototxt_says_what_the_published_one_says(name: str):
    assert canonical_prototxt.digest(ROOT / "prototxt" / name) == DIGESTS[name]


@each_net
def test_a_committed_prototxt_reads_back_as_it_was_written(published: PublishedNet):
    for file, message in net_files.build_files(published).items():
        path = ROOT / "prototxt" / published.name / file
        assert prototxt.load(path, type(message)) == message
        if isinstance(message, NetParameter):
            assert prototxt.load_net(path) == (message, [])


# The table


@each_net
def test_the_table_says_what_the_net_says(published: PublishedNet):
    for data_layer in published.data_layers:
        net = net_files.build_net(published, data_layer)
        data = net.layer[0]
        assert tuple(data.top) == published.tops
        says = ast.literal_eval(data.python_param.param_str)
        assert says["split"] == data_layer.split
        assert says["seed"] == 1337
        if published.dataset.name == "nyud":
            assert says["tops"] == [*published.inputs.values(), "label"]
        firsts = [
            spec.name
            for spec in net.layer
            if spec.type == "Convolution" and set(spec.bottom) & {"data", *published.tops}
        ]
        assert firsts == (
            [f"{published.first}{name}" for name in published.inputs] if published.late else [published.first]
        )
        losses = [spec for spec in net.layer if spec.type == "SoftmaxWithLoss"]
        assert [spec.bottom for spec in losses] == [[head.score, head.label] for head in published.heads]
        last = {spec.top[0]: spec.convolution_param for spec in net.layer if spec.type == "Deconvolution"}
        for head in published.heads:
            param = last[named(net)[head.score].bottom[0]]
            assert (param.num_output, param.stride) == (len(head.classes), [published.stride])


@each_net
def test_offsets_come_out_as_published(published: PublishedNet):
    offsets = [spec.crop_param.offset for spec in net_files.build_deploy(published).layer if spec.type == "Crop"]
    want = [18] if published.trunk == "alexnet" else OFFSETS[published.stride]
    assert offsets == [[value] for _ in published.heads for value in want]


def test_training_starts_from_nets_whose_layers_fit():
    for published in ROWS:
        mine = named(net_files.build_deploy(published))
        for parent, suffix in published.parents.items():
            if parent not in published_nets.NETS:
                assert parent in {"vgg16", "caffenet"}
                continue
            theirs = named(net_files.build_deploy(published_nets.NETS[parent]))
            learned = [spec for spec in theirs.values() if spec.type == "Convolution"]
            assert learned
            for spec in learned:
                assert mine[spec.name + suffix].convolution_param == spec.convolution_param


def test_stages_go_from_coarse_to_fine():
    for family in ("voc", "siftflow", "pascalcontext"):
        assert published_nets.NETS[f"{family}-fcn8s"].parents == {f"{family}-fcn16s": ""}
        assert published_nets.NETS[f"{family}-fcn16s"].parents == {f"{family}-fcn32s": ""}


def test_the_manifest_has_the_published_weights_under_the_same_names():
    manifest = json.loads((ROOT / "weights" / "manifest.json").read_text())
    entries = {entry["name"]: entry for entry in manifest["entries"]}
    for published in ROWS:
        assert published.parents.keys() <= entries.keys()
        if published.caffemodel:
            assert entries[published.name]["url"].endswith(f"/{published.caffemodel}")
            assert entries[published.name]["payload_bytes"] == PAYLOAD[published.name]
        else:
            assert published.name not in entries


def test_only_the_early_fusion_of_depth_has_no_published_weights():
    assert [published.name for published in ROWS if published.caffemodel is None] == ["nyud-fcn32s-color-d"]
    assert len({published.caffemodel for published in ROWS}) == 15


# Deploy nets


@each_net
def test_a_deploy_net_is_the_test_net_without_labels_losses_and_dropout(published: PublishedNet):
    net, deploy = (
        named(net_files.build_net(published, published.data_layers[1])),
        named(net_files.build_deploy(published)),
    )
    assert {spec.type for name, spec in net.items() if name not in deploy} == {"Python", "SoftmaxWithLoss", "Dropout"}
    pictures = deploy.pop("input")
    assert pictures.type == "Input"
    assert list(pictures.top) == list(published.inputs)
    assert all(net[name] == spec for name, spec in deploy.items())
    made = {*pictures.top, *(top for spec in deploy.values() for top in spec.top)}
    assert {bottom for spec in deploy.values() for bottom in spec.bottom} <= made


def along_one_axis(net: NetParameter, size: int, windows: dict[str, Window]) -> dict[str, int]:
    """Work out every blob's length along one axis for pictures of this length."""
    sizes: dict[str, int] = {}
    for spec in net.layer:
        lengths = [sizes[bottom] for bottom in spec.bottom]
        if spec.type == "Input":
            length = size
        elif spec.type == "Convolution":
            length = conv_size(lengths[0], windows[spec.name])
        elif spec.type == "Deconvolution":
            length = deconv_size(lengths[0], windows[spec.name])
        elif spec.type == "Pooling":
            (length,) = pool_sizes(lengths, [windows[spec.name]])
        elif spec.type == "Crop":
            assert spec.crop_param.offset[0] + lengths[1] <= lengths[0], f"{spec.name} at {size}"
            length = lengths[1]
        else:
            assert len(set(lengths)) == 1, f"{spec.name} at {size}"
            length = lengths[0]
        sizes.update(dict.fromkeys(spec.top, length))
    return sizes


@each_net
def test_scores_are_as_large_as_the_picture_whatever_its_size(published: PublishedNet):
    net = net_files.build_deploy(published)
    windows = {
        spec.name: conv_windows(spec.convolution_param)[0] for spec in net.layer if spec.has("convolution_param")
    }
    windows |= {spec.name: pool_windows(spec.pooling_param, 1, 1)[0] for spec in net.layer if spec.has("pooling_param")}
    for size in (*range(1, 601), 1024, 2048, 4097):
        sizes = along_one_axis(net, size, windows)
        assert {sizes[head.score] for head in published.heads} == {size}


# Figures of the paper


@each_net
def test_parameters_are_those_of_the_published_weights(published: PublishedNet):
    assert 4 * compute_net_figures(net_files.build_deploy(published)).parameters == PAYLOAD[published.name]


def test_figures_are_those_of_table_1():
    alexnet, vgg16 = (
        compute_net_figures(net_files.build_deploy(published_nets.NETS[name]))
        for name in ("voc-fcn-alexnet", "voc-fcn32s")
    )
    assert (alexnet.convolutions, alexnet.receptive_field, alexnet.max_stride) == (8, 355, 32)
    assert (vgg16.convolutions, vgg16.receptive_field, vgg16.max_stride) == (16, 404, 32)
    assert round(alexnet.learned / 1e6) == 57
    assert round(vgg16.learned / 1e6) == 134


@each_net
def test_skips_and_fusions_widen_no_field(published: PublishedNet):
    figures = compute_net_figures(net_files.build_deploy(published))
    assert figures.receptive_field == (355 if published.trunk == "alexnet" else 404)
    assert figures.max_stride == 32


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            (
                'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }\n'
                'layer { name: "b" type: "Flatten" bottom: "a" top: "b" }'
            ),
            "layer 'b' (Flatten), line 2: these figures do not cover this layer.",
        ),
        (
            (
                'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }\n'
                'layer { name: "b" type: "Pooling" bottom: "a" top: "b" pooling_param { global_pooling: true } }'
            ),
            "layer 'b' (Pooling), line 2: these figures do not cover this layer.",
        ),
    ],
)
def test_a_net_that_the_figures_do_not_cover_is_an_error(text: str, problem: str):
    with pytest.raises(NetError) as error:
        compute_net_figures(prototxt.loads(text, NetParameter))
    assert str(error.value) == problem


def test_the_sizes_of_blobs_are_those_that_texts_print():
    """For an image of 500 x 500, texts about FCN-8s print 16, 34, 70 and 568."""
    blobs = Net(thin_nets.deploy("voc-fcn8s", 64)).blob_shapes
    sizes = {"pool5": 22, "fc7": 16, "score_fr": 16, "upscore2": 34, "score_pool4c": 34, "upscore_pool4": 70,
             "score_pool3c": 70, "upscore8": 568, "score": 500}  # fmt: skip
    assert {name: blobs[name][2:] for name in sizes} == {name: (size, size) for name, size in sizes.items()}
