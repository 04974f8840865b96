"""The trainings as data: length, initial weights and solver."""

from pathlib import Path

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.fcn.nets import mini_nets, net_files, published_nets, systems
from reproduction.fcn.train import initial_weights, recipes
from tests.helpers import small_trainings
from tests.helpers.paths import ROOT

# What the published solve.py files do: rounds times updates of a round, at the end of which they validate.
ROUNDS = {
    **dict.fromkeys(["voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn-alexnet"], (25, 4000)),
    "voc-fcn8s-atonce": (75, 4000),
    **dict.fromkeys([name for name in published_nets.NETS if name.startswith(("nyud", "siftflow"))], (50, 2000)),
    **dict.fromkeys([name for name in published_nets.NETS if name.startswith("pascalcontext")], (50, 8000)),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_a_training_is_as_long_as_the_published_one(name):
    stage = recipes.find_recipe(name)
    rounds, updates = ROUNDS[name]
    assert (stage.solver_param.max_iter, stage.solver_param.test_interval) == (rounds * updates, updates)
    snapshot = net_files.build_solver(published_nets.NETS[name]).snapshot
    assert stage.solver_param.snapshot == (snapshot or 2000)
    assert snapshot or name.startswith("siftflow")
    assert stage.parents == tuple(stage.record.parents)


def test_every_net_can_be_trained():
    assert {*ROUNDS, "mini-vgg", *mini_nets.NETS, *systems.NETS} == set(recipes.NAMES)
    classifier = recipes.find_recipe("mini-vgg")
    assert (classifier.parents, classifier.record) == ((), None)
    solver = mini_nets.build_classifier_solver()
    assert classifier.solver_param == solver


@pytest.mark.parametrize("name", mini_nets.NETS)
def test_a_mini_net_is_validated_where_a_snapshot_is_made(name):
    stage = recipes.find_recipe(name)
    solver = net_files.build_solver(mini_nets.NETS[name])
    assert (stage.solver_param.max_iter, stage.solver_param.test_interval) == (solver.max_iter, solver.snapshot)
    assert stage.parents == tuple(mini_nets.NETS[name].parents)


def test_the_solver_and_the_nets_are_the_published_ones():
    stage = recipes.find_recipe("voc-fcn8s")
    folder = ROOT / "prototxt/voc-fcn8s"
    assert prototxt.dumps(stage.train_net_param) == prototxt.dumps(prototxt.load_net(folder / "train.prototxt")[0])
    assert prototxt.dumps(stage.test_net_param) == prototxt.dumps(prototxt.load_net(folder / "val.prototxt")[0])
    assert stage.solver_param.base_lr == prototxt.load_solver(folder / "solver.prototxt").base_lr


def test_a_name_that_is_none_is_said():
    with pytest.raises(ReproductionError) as caught:
        recipes.find_recipe("voc-fcn8")
    assert str(caught.value) == "there is no net 'voc-fcn8' to train. Did you mean 'voc-fcn8s'?"


def test_each_stage_of_a_chain_starts_from_the_one_before():
    chain = [recipes.find_recipe(name) for name in ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s")]
    assert initial_weights.find_external_parents(chain) == ["vgg16"]
    assert initial_weights.assign_weights(chain, {"vgg16": Path("v")}, Path("out")) == [
        {"vgg16": Path("v")},
        {"voc-fcn32s": Path("out/voc-fcn32s/voc-fcn32s.caffemodel")},
        {"voc-fcn16s": Path("out/voc-fcn16s/voc-fcn16s.caffemodel")},
    ]


def test_a_chain_may_have_two_ends():
    names = ("nyud-fcn32s-color", "nyud-fcn32s-hha", "nyud-fcn32s-color-hha")
    chain = [recipes.find_recipe(name) for name in names]
    assert initial_weights.find_external_parents(chain) == ["vgg16"]
    assert list(initial_weights.assign_weights(chain, {"vgg16": Path("v")}, Path("out"))[2]) == list(names[:2])
    assert initial_weights.find_external_parents(chain[1:]) == ["vgg16", "nyud-fcn32s-color"]


def test_a_stage_before_its_parent_needs_a_file():
    chain = [recipes.find_recipe(name) for name in ("voc-fcn16s", "voc-fcn32s")]
    assert initial_weights.find_external_parents(chain) == ["voc-fcn32s", "vgg16"]


def test_a_solver_file_is_a_training(tmp_path):
    stage = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "mine"))
    assert stage.name == "mine"
    solver_param = stage.solver_param
    assert (solver_param.max_iter, solver_param.snapshot, solver_param.test_interval) == (8, 2, 4)
    assert (stage.parents, stage.record) == ((), None)
    assert stage.train_net_param.name == stage.test_net_param.name == "tiny"


def test_a_solver_file_may_follow_a_recipe():
    stage = recipes.load_solver_recipe(ROOT / "prototxt/voc-fcn16s/solver.prototxt", "voc-fcn16s")
    assert (stage.name, stage.parents) == ("voc-fcn16s", ("voc-fcn32s",))
    assert stage.record is published_nets.NETS["voc-fcn16s"]


def test_nets_are_found_where_the_program_runs(tmp_path, monkeypatch):
    path = small_trainings.tiny(tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere/solver.prototxt")
    monkeypatch.chdir(tmp_path / "mine")
    assert recipes.load_solver_recipe(moved).train_net_param.name == "tiny"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReproductionError) as caught:
        recipes.load_solver_recipe(moved)
    assert str(caught.value) == (
        f"{moved}: the net 'train.prototxt' of this solver does not exist."
        " Paths of nets are relative to the solver's folder, or to the working directory."
    )


def test_the_net_that_is_missing_is_the_one_that_is_named(tmp_path):
    path = small_trainings.tiny(tmp_path / "mine")
    (tmp_path / "mine/val.prototxt").unlink()
    with pytest.raises(
        ReproductionError, match=r"mine/solver\.prototxt: the net 'val\.prototxt' of this solver does not exist\."
    ):
        recipes.load_solver_recipe(path)


def test_a_net_given_as_a_solver_is_said(tmp_path):
    small_trainings.tiny(tmp_path)
    with pytest.raises(ReproductionError, match="this is a net, not a solver"):
        recipes.load_solver_recipe(tmp_path / "train.prototxt")


def test_a_training_by_name_says_of_what_data():
    assert {name: recipes.find_recipe(name).dataset for name in ("mini-vgg", "mini-fcn8s", "nyud-fcn32s-hha")} == {
        "mini-vgg": "mini",
        "mini-fcn8s": "mini",
        "nyud-fcn32s-hha": "nyud",
    }
    solver = ROOT / "prototxt/mini-fcn16s/solver.prototxt"
    assert (recipes.load_solver_recipe(solver).dataset, recipes.load_solver_recipe(solver, "mini-fcn16s").dataset) == (
        "",
        "mini",
    )
