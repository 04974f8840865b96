import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.nets import mini_nets, published_nets, registry


def test_it_holds_the_published_nets_and_those_of_mini_voc():
    assert [*registry.NETS] == [*published_nets.NETS, *mini_nets.NETS]
    assert all(row.name == name for name, row in registry.NETS.items())
    assert len({row.caffemodel for row in registry.NETS.values()}) == 18


def test_an_unknown_net_is_named_with_the_nearest():
    assert registry.find_net("voc-fcn8s") is published_nets.NETS["voc-fcn8s"]
    assert registry.find_net("mini-fcn8s") is mini_nets.NETS["mini-fcn8s"]
    with pytest.raises(ReproductionError) as error:
        registry.find_net("voc-fcn8")
    assert str(error.value) == "there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?"
    with pytest.raises(ReproductionError, match=r"^there is no net ''. There are voc-fcn32s, voc-fcn16s, "):
        registry.find_net("")
