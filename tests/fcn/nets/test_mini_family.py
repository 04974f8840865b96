"""The nets of the comparison: thin, but otherwise those that they are copies of, and trained at one budget."""

import pytest

from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.fcn.nets import mini_family, mini_nets, net_files, systems
from reproduction.fcn.nets.mini_family import Budget
from reproduction.fcn.train import comparison, jobs

BUDGET = Budget(41, 30)
MEMBERS = {member.record.name: member for member in mini_family.list_thin_nets(BUDGET)}


def test_every_net_is_given_the_same_number_of_updates_after_its_classifier():
    given = {name: sum(stage.solver["max_iter"] for stage in member.stages) for name, member in MEMBERS.items()}
    assert given.pop("mini-unet") == BUDGET.iterations + BUDGET.classifier_iterations
    assert set(given.values()) == {BUDGET.iterations}
    assert [name for name, member in MEMBERS.items() if not member.classifier] == ["mini-unet"]


def test_each_stage_starts_from_the_one_before_and_the_first_from_the_classifier():
    for member in MEMBERS.values():
        before = member.classifier
        for stage in member.stages:
            assert list(stage.parents) == ([before] if before else [])
            before = stage.name


def test_nets_of_one_trunk_and_seed_share_a_classifier_and_first_stages():
    listed = jobs.collect_jobs(comparison.list_jobs(BUDGET, [1, 2]))
    names = [key.removeprefix("seed1/") for key in listed if key.startswith("seed1/")]
    assert {*names} == {
        "mini-vgg-30", "mini-googlenet-30", "mini-resnet50-30", "mini-fcn32s-41", "mini-fcn32s-21",
        "mini-fcn16s-20", "mini-fcn16s-10", "mini-fcn8s-10", "mini-fcn8s-atonce-41", "mini-fcn-googlenet-41",
        "mini-fcn8s-resnet50-41", "mini-fpn-resnet50-41", "mini-unet-71", "mini-keras-fcn8-41",
    }  # fmt: skip
    assert len(listed) == 2 * len(names)
    assert [key for key, job in listed.items() if job.scored] == [
        comparison.job_key(member, seed) for seed in (1, 2) for member in MEMBERS.values()
    ]


def layers_but_widths(net_param):
    """Return the layers of a net without what a thin form may change: channels, groups, fillers and the data."""
    found = []
    for layer in net_param.copy().layer:
        for field in ("num_output", "group", "weight_filler", "bias_filler"):
            layer.convolution_param.clear(field)
        layer.clear("python_param")
        layer.dropout_param.clear("dropout_ratio")
        layer.loss_param.clear("normalize")
        found.append(layer)
    return found


@pytest.mark.parametrize("name", ["fcn8s-resnet50", "fpn-resnet50", "keras-fcn8", "unet", "fcn-googlenet"])
def test_a_thin_net_has_the_layers_of_the_whole_one(name):
    full = systems.NETS.get(f"voc-{name}") or systems.NETS[name]
    thin = MEMBERS[f"mini-{name}"].record
    assert isinstance(thin, systems.System)
    mine, theirs = (layers_but_widths(net_files.build_net(net, net.dataset.train)) for net in (thin, full))
    differing = [a.name for a, b in zip(mine, theirs, strict=True) if a != b]
    assert differing == (["pool5/7x7_s1", "score"] if name == "fcn-googlenet" else [])  # the crop follows the pooling
    widths = [
        (a.convolution_param.num_output, b.convolution_param.num_output)
        for a, b in zip(*(net_files.build_deploy(net).layer for net in (thin, full)), strict=True)
        if a.type == "Convolution" and "score" not in a.name
    ]
    assert all(4 <= a <= b // thin.divisor + 4 for a, b in widths)


@pytest.mark.parametrize("name", mini_family.CLASSIFIER_RATES)
def test_a_classifier_has_every_layer_that_its_nets_start_from(name):
    net = Net(mini_family.build_classifier(name, "val"), Phase.TEST, inputs={"data": (2, 3, 96, 96), "label": (2,)})
    assert net.blob_shapes["loss"] == ()
    for member in MEMBERS.values():
        if member.classifier == name:
            mine = {
                layer.name for layer in net_files.build_deploy(member.stages[0]).layer if layer.type == "Convolution"
            }
            new = set(getattr(member.stages[0], "new_layers", ()))
            assert {layer for layer in mine - new if "score" not in layer} <= set(net.layers)


def test_batch_statistics_are_of_the_batch_while_a_classifier_is_trained_and_stored_ones_afterwards():
    for split, stored in (("train", False), ("val", True)):
        norms = [
            layer.batch_norm_param
            for layer in mini_family.build_classifier("mini-resnet50", split).layer
            if layer.type == "BatchNorm"
        ]
        assert norms
        assert {norm.use_global_stats for norm in norms} == {stored}
    (member,) = (member for name, member in MEMBERS.items() if name == "mini-fcn8s-resnet50")
    tuned = net_files.build_files(member.record)[net_files.FINETUNE]
    assert {layer.batch_norm_param.use_global_stats for layer in tuned.layer if layer.type == "BatchNorm"} == {True}


def test_the_classifier_of_mini_vgg_is_that_of_the_other_recipes():
    assert mini_family.build_classifier("mini-vgg", "train") == mini_nets.build_classifier("train")
