"""GoogLeNet, ResNet-50 and FPN: their figures, sizes, thin forms, and the weights that they start from."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import WeightsError
from reproduction.caffe.net.net import Net
from reproduction.caffe.net.netspec import NetSpec, layer
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import net_files, parts, registry, surgery, systems
from reproduction.fcn.nets.receptive_field import compute_net_figures
from reproduction.fcn.nets.systems import googlenet, resnet50
from reproduction.fcn.train import initial_weights, preflight, recipes

GOOGLENET, RESNET, FPN = "voc-fcn-googlenet", "voc-fcn8s-resnet50", "voc-fpn-resnet50"
NAMES = (GOOGLENET, RESNET, FPN)
DIVISOR = 16
# Of Table 1 for GoogLeNet. ResNet-50 has 23,508,096 parameters without its classifier, and the scores 75,327. The
# pyramid and its head have 4,527,253, and two of its 3 x 3 convolutions widen the receptive field by 64 pixels each.
FIGURES = {  # learned parameters, convolutions, those on the longest path, receptive field, stride
    GOOGLENET: (5_995_077, 58, 22, 907, 32),
    RESNET: (23_583_423, 56, 50, 483, 32),
    FPN: (28_035_349, 66, 53, 611, 32),
}

each = pytest.mark.parametrize("name", NAMES)


def thin(name):
    """Return the record of a thin net on Mini-VOC."""
    record = systems.NETS[name]
    parents = dict.fromkeys(record.parents, "")
    solver = mini_voc.adam_fields(40)
    return replace(record, name=f"thin-{name}", dataset=mini_voc.SPEC, divisor=DIVISOR, parents=parents, solver=solver)


@cache
def classifier(name):
    """Return the weights of a thin classifier, with random values in every layer."""
    record, n = thin(name), NetSpec()
    n["data"] = layer("Input", input_param={"shape": {"dim": [1, 3, 224, 224]}})
    if "googlenet" in record.parents:
        top = googlenet.add_trunk(n, n["data"], record.thin, pad=3)
        n["loss3/classifier"] = layer("InnerProduct", top, num_output=10, param=parts.LEARN)
    else:
        taps = resnet50.add_trunk(n, n["data"], record.thin)
        n["pool5"] = layer("Pooling", taps["res5c"], pool="AVE", kernel_size=7, stride=1)
        n["fc1000"] = layer("InnerProduct", n["pool5"], num_output=10, param=parts.LEARN)
    net, random = Net(n.to_proto()), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for blob in net.parameters():
            blob.normal_(0, 0.1, generator=random)
    return net.to_proto()


@cache
def start(name):
    record = thin(name)
    net = Net(net_files.build_deploy(record), Phase.TRAIN)
    return net, record, surgery.initialize(net, record, dict.fromkeys(record.parents, classifier(name)))


@each
def test_figures_are_those_of_the_text(name):
    figures = compute_net_figures(registry.load_net(name))
    got = (figures.learned, figures.convolutions, figures.depth, figures.receptive_field, figures.max_stride)
    assert got == FIGURES[name]


@pytest.mark.parametrize(("name", "depth"), [("voc-fcn-alexnet", 8), ("voc-fcn32s", 16), ("voc-fcn8s", 16)])
def test_the_published_trunks_are_as_deep_as_table_1_says(name, depth):
    assert compute_net_figures(registry.load_net(name)).depth == depth


@pytest.mark.parametrize(("name", "smallest"), [(GOOGLENET, 29), (RESNET, 3), (FPN, 3)])
def test_scores_are_as_large_as_the_image_whatever_its_size(name, smallest):
    net_param = net_files.build_deploy(thin(name))
    for height, width in ((smallest, smallest), (97, 131), (160, 113), (191, 222)):
        with torch.device("meta"):
            net = Net(net_param, inputs={"data": (1, 3, height, width)})
        assert net.blob_shapes["score"] == (1, 7, height, width)


@each
def test_a_thin_net_has_the_layers_of_the_full_one(name):
    full, narrow = (net_files.build_deploy(record) for record in (systems.NETS[name], thin(name)))
    assert [part.name for part in full.layer] == [part.name for part in narrow.layer]
    widths = [
        (a.convolution_param.num_output, b.convolution_param.num_output)
        for a, b in zip(full.layer, narrow.layer, strict=True)
    ]
    assert all(b == max(4, a // DIVISOR) for a, b in widths if a not in (0, 21))
    assert {b for a, b in widths if a == 21} == {7}


@each
def test_all_but_the_new_layers_start_from_the_classifier(name):
    net, record, report = start(name)
    source = {part.name: part for part in classifier(name).layer}
    (copied,) = report.transplants.values()
    stated = [part for part in net.params if part.startswith("up") and part not in report.interpolated]
    assert bool(stated) == (name == FPN), "whose prototxt has a filler for what it upsamples"
    assert {*report.new} == {*record.new_layers, *stated}
    assert {*copied.copied} == net.params.keys() - {*report.new, *report.interpolated}
    assert copied.ignored == ["loss3/classifier" if name == GOOGLENET else "fc1000"]
    assert not net.params["score_fr"][0].any()
    for part in copied.copied:
        want = np.array(source[part].blobs[0].data, np.float32)
        assert np.array_equal(net.params[part][0].detach().numpy().reshape(-1), want), part
    assert all(net.params[part][0].any() for part in (*report.interpolated, *stated))


@each
def test_a_classifier_without_one_of_the_layers_is_rejected(name):
    record = thin(name)
    source = NetParameter(layer=[part for part in classifier(name).layer if "5b" not in part.name])
    net, _, _ = start(name)
    with pytest.raises(WeightsError, match=r"is not in the weights of (googlenet|resnet50)"):
        surgery.initialize(net, record, dict.fromkeys(record.parents, source))


@each
def test_what_starts_from_a_classifier_can_learn(name):
    net, record, _ = start(name)
    assert not preflight.check_weights(net, surgery.find_new_layers(record))


@each
def test_a_training_from_random_weights_needs_fillers(name):
    recipe = recipes.build_recipe(replace(thin(name), parents={}))
    net = Net(recipe.train_net_param, Phase.TRAIN, inputs={"data": (1, 3, 97, 131), "label": (1, 1, 97, 131)}, seed=1)
    surgery.initialize(net, recipe.record, {})
    problems = [str(problem) for problem in preflight.check_weights(net)]
    if name == GOOGLENET:  # as the paper's nets, it states none
        assert any("conv1/7x7_s2" in problem and "all weights are 0" in problem for problem in problems)
    else:
        assert not problems


def statistics(net_param):
    return {part.batch_norm_param.use_global_stats for part in net_param.layer if part.type == "BatchNorm"}


@pytest.mark.parametrize("name", [RESNET])
def test_batch_norm_keeps_its_statistics_in_fine_tuning_and_scoring(name):
    files = net_files.build_files(thin(name))
    assert files.pop("solver.prototxt").train_net == "finetune.prototxt"
    assert {file: statistics(net_param) for file, net_param in files.items()} == {
        "train.prototxt": {False}, "val.prototxt": {True}, "deploy.prototxt": {True}, "finetune.prototxt": {True},
    }  # fmt: skip
    recipe = recipes.build_recipe(thin(name))
    assert statistics(recipe.train_net_param) == {True}
    scratch = recipes.start_from_fillers(recipe)
    assert (scratch.parents, scratch.solver_param.train_net) == ((), "train.prototxt")
    assert statistics(scratch.train_net_param) == {False}


def test_the_solver_is_that_of_the_text():
    solver = registry.load_solver(GOOGLENET)
    got = f"{solver.base_lr:g} {solver.momentum:g} {solver.iter_size} {solver.weight_decay:g}"
    assert got == "5e-05 0.9 20 0.0005"
    assert solver.train_net == "train.prototxt"


def test_classifiers_without_a_published_hash_are_asked_for(tmp_path):
    stages = [recipes.find_recipe(RESNET)]
    with pytest.raises(WeightsError) as error:
        initial_weights.find_weights(stages, [], tmp_path / "runs", tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/ResNet-50-model.caffemodel: the training starts from the weights of resnet50, which are missing."
        " Download them from https://github.com/KaimingHe/deep-residual-networks, or name their file with --init."
    )
    path = tmp_path / "ResNet-50-model.caffemodel"
    path.write_bytes(b"")
    assert initial_weights.find_weights(stages, [], tmp_path / "runs", tmp_path) == [{"resnet50": path}]
    with pytest.raises(WeightsError, match="Fetch them with `fcn fetch googlenet`, or name"):
        initial_weights.find_weights([recipes.find_recipe(GOOGLENET)], [], tmp_path / "runs", tmp_path)
