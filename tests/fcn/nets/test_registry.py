import pytest

from reproduction.caffe.errors import ReproductionError, WeightsError
from reproduction.fcn import datasets
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import mini_nets, published_nets, registry, systems
from reproduction.fcn.reproduce import pipeline


def test_it_holds_the_published_nets_those_of_mini_voc_and_the_systems():
    assert [*registry.NETS] == [*published_nets.NETS, *mini_nets.NETS, *systems.NETS]
    assert all(row.name == name for name, row in registry.NETS.items())
    assert len({row.caffemodel for row in datasets.NETS.values()}) == 18


def test_only_nets_of_the_paper_and_of_mini_voc_have_published_weights():
    assert not any(row.caffemodel for row in systems.NETS.values())
    with pytest.raises(WeightsError, match=r"^no weights of voc-fcn-googlenet were published. Name your own with"):
        local_files.find_weights(registry.find_net("voc-fcn-googlenet"))
    assert all(row.name not in systems.NETS for row in pipeline.select_nets("voc"))
    assert pipeline.select_nets("voc", ["voc-fcn-googlenet"]) == [systems.NETS["voc-fcn-googlenet"]]


def test_an_unknown_net_is_named_with_the_nearest():
    assert registry.find_net("voc-fcn8s") is published_nets.NETS["voc-fcn8s"]
    assert registry.find_net("mini-fcn8s") is mini_nets.NETS["mini-fcn8s"]
    with pytest.raises(ReproductionError) as error:
        registry.find_net("voc-fcn8")
    assert str(error.value) == "there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?"
    with pytest.raises(ReproductionError, match=r"^there is no net ''. There are voc-fcn32s, voc-fcn16s, "):
        registry.find_net("")
