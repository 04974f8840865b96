import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.fcn import catalogue, mininets, nets


def test_it_holds_the_published_nets_and_those_of_mini_voc():
    assert [*catalogue.NETS] == [*nets.NETS, *mininets.NETS]
    assert all(row.name == name for name, row in catalogue.NETS.items())
    assert len({row.caffemodel for row in catalogue.NETS.values()}) == 18


def test_an_unknown_net_is_named_with_the_nearest():
    assert catalogue.net("voc-fcn8s") is nets.NETS["voc-fcn8s"]
    assert catalogue.net("mini-fcn8s") is mininets.NETS["mini-fcn8s"]
    with pytest.raises(ReproductionError) as error:
        catalogue.net("voc-fcn8")
    assert str(error.value) == "there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?"
    with pytest.raises(ReproductionError, match=r"^there is no net ''. There are voc-fcn32s, voc-fcn16s, "):
        catalogue.net("")
