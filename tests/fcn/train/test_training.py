"""A stage runs, resumes to the same bits, and reports each error in one line."""

import json
import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import hashes, prototxt, weights
from reproduction.caffe.training.signals import Action
from reproduction.fcn.datasets import draw_order
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.manifest import EntryKind
from reproduction.fcn.nets import mini_nets
from reproduction.fcn.train import initial_weights, recipes, run_folder, training
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from tests.helpers import dataset_trees, small_trainings


@pytest.fixture
def plan(tmp_path):
    return TrainingOptions(tmp_path / "out", small_trainings.data(tmp_path / "data"))


@pytest.fixture
def tiny(tmp_path):
    return recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "tiny"))


def records(plan, kind, name="tiny"):
    """The records of a kind, without the times of validations, in which no two runs are alike."""
    found = [r for r in small_trainings.read_json_lines(plan.out / name / "log.jsonl") if r["record"] == kind]
    if kind == "validation":
        assert all(datetime.fromisoformat(r.pop("time")).tzinfo is UTC for r in found)
    return found


def error(stage, plan, starts=None, **watch):
    with pytest.raises(ReproductionError) as caught:
        training.train(stage, starts or {}, plan, TrainingCallbacks(**watch))
    return str(caught.value)


def ends(after, action=Action.STOP, at="step"):
    """A watch that asks for something after so many updates, or images of validations."""
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    def ask():
        nonlocal calls
        if calls != after:
            return Action.NONE
        calls += 1
        return action

    return TrainingCallbacks(**{at: count}, action=ask)


def test_a_run_leaves_weights_snapshots_and_a_log(tiny, plan):
    notes, begun, steps, found = [], [], [], []
    watch = TrainingCallbacks(
        notes.append,
        lambda recipe, iteration: begun.append((recipe.name, iteration)),
        steps.append,
        validated=found.append,
    )
    model = training.train(tiny, {}, plan, watch)
    folder = plan.out / "tiny"
    assert model == folder / "tiny.caffemodel"
    snapshots = {f"train_iter_{i}.{end}" for i in (2, 4, 6, 8) for end in ("caffemodel", "solverstate")}
    assert {path.name for path in (folder / "snapshot").iterdir()} == snapshots
    last, whole = (weights.read(path).arrays() for path in (folder / "snapshot/train_iter_8.caffemodel", model))
    assert all(np.array_equal(last[name], whole[name]) for name in whole)
    assert begun == [("tiny", 0)]
    assert [step.iteration for step in steps] == list(range(8))
    assert [validation.iteration for validation in found] == [4, 8]
    assert found[0].images == 3
    assert records(plan, "start")[0]["classes"]["label"][0] == "background"
    assert prototxt.load_solver(folder / "solver.prototxt").base_lr == tiny.solver_param.base_lr


def test_the_log_says_what_was_learnt_from_what(tiny, plan):
    training.train(tiny, {}, plan)
    (start,) = records(plan, "start")
    assert start["settings"]["data"].startswith("sbd train, 6 images, sha1 ")
    assert start["settings"]["seed"] == 1337
    assert start["versions"]["torch"] == torch.__version__
    logged = records(plan, "iteration")
    order = draw_order(6)
    assert [record["images"] for record in logged] == [[small_trainings.IDS[next(order)]] for _ in range(8)]
    assert [record["lr"] for record in logged] == [1e-7] * 3 + [5e-8] * 3 + [2.5e-8] * 2
    assert logged[0]["loss_per_pixel"] == pytest.approx(np.log(21), rel=1e-5)
    assert logged[0]["loss"] / logged[0]["loss_per_pixel"] == pytest.approx(32 * 26, rel=0.3)
    (first, last) = records(plan, "validation")
    assert (first["iteration"], last["iteration"], last["images"]) == (4, 8, 3)
    assert set(last["scores"]["label"]) == {"pixel_acc", "mean_acc", "mean_iu", "fw_iu", "class_iu"}


def whole(stage, plan, **changes):
    """The weights and the log's iterations of a run that nothing stopped."""
    plan = replace(plan, out=plan.out / "whole", **changes)
    return training.train(stage, {}, plan).read_bytes(), records(plan, "iteration"), records(plan, "validation")


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tiny, plan, after):
    want = whole(tiny, plan)
    assert training.train(tiny, {}, plan, ends(after)) is None
    assert run_folder.find_newest_snapshot(plan.out / "tiny").iteration == after
    assert not (plan.out / "tiny/tiny.caffemodel").exists()
    model = training.train(tiny, {}, plan)
    assert (model.read_bytes(), records(plan, "iteration"), records(plan, "validation")) == want
    assert [record["iteration"] for record in records(plan, "resume")] == [after]


class DiedError(Exception):
    pass


@pytest.mark.parametrize("place", ["step", "validated", "images", "note"])
def test_a_run_that_died_anywhere_goes_on_to_the_same_bits(tiny, plan, place):
    want = whole(tiny, plan)
    for after in (1, 2, 1, 3, 2):
        left = after

        def die(*_):
            nonlocal left
            left -= 1
            if left == 0:
                raise DiedError

        try:
            training.train(tiny, {}, plan, TrainingCallbacks(**{place: die}))
        except DiedError:
            continue
    model = training.train(tiny, {}, plan)
    assert (model.read_bytes(), records(plan, "iteration"), records(plan, "validation")) == want


@pytest.mark.slow
def test_fifty_kills_at_random_moments_lose_nothing(plan, tmp_path, request):
    solver = small_trainings.SOLVER.replace("max_iter: 8", "max_iter: 2000").replace("snapshot: 2", "snapshot: 10")
    solver = solver.replace("stepsize: 3", "stepsize: 500").replace("test_interval: 4", "test_interval: 100")
    path = small_trainings.tiny(tmp_path / "tiny", solver=solver)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: the number of threads changes the rounding of sums
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    want = whole(recipes.load_solver_recipe(path), plan)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.small_trainings"])
    rng = np.random.default_rng(0)
    kills, states = 0, set()
    while kills < 50:
        run = context.Process(target=small_trainings.learn, args=(path, plan.out, plan.data))
        run.start()
        run.join(rng.uniform(0.05, 0.5))
        assert run.exitcode in (None, 0)
        kills += run.exitcode is None
        run.kill()
        run.join()
        states.add(run_folder.find_newest_snapshot(plan.out / "tiny"))
    assert len(states) > 5
    model = training.train(recipes.load_solver_recipe(path), {}, plan)
    assert (model.read_bytes(), records(plan, "iteration"), records(plan, "validation")) == want


def test_a_stop_in_a_validation_costs_nothing(tiny, plan):
    tiny = tiny.with_solver(snapshot=100, test_interval=3)
    want = whole(tiny, plan)
    assert training.train(tiny, {}, plan, ends(2, at="images")) is None
    assert run_folder.find_newest_snapshot(plan.out / "tiny").iteration == 3
    model = training.train(tiny, {}, plan)
    assert (model.read_bytes(), records(plan, "iteration"), records(plan, "validation")) == want


@pytest.mark.parametrize(("at", "iteration"), [("step", 3), ("images", 4)])
def test_a_snapshot_may_be_asked_for_at_any_time(tiny, plan, at, iteration):
    tiny = tiny.with_solver(snapshot=100)
    assert training.train(tiny, {}, plan, ends(3, Action.SNAPSHOT, at))
    found = {path.name for path in (plan.out / "tiny/snapshot").glob("*.caffemodel")}
    assert found == {f"train_iter_{iteration}.caffemodel", "train_iter_8.caffemodel"}


def test_a_finished_run_is_not_made_again_but_may_go_further(tiny, plan):
    want = whole(tiny, plan)
    training.train(tiny.with_solver(max_iter=5), {}, plan)
    notes = []
    training.train(tiny.with_solver(max_iter=5), {}, plan, TrainingCallbacks(notes.append))
    assert notes == ["tiny: already trained for 5 iterations"]
    assert training.train(tiny, {}, plan).read_bytes() == want[0]
    assert error(tiny.with_solver(max_iter=5), plan) == (
        f"{plan.out}/tiny: the run has more iterations already; got 8, want at most 5."
        " Ask for more iterations, or choose another output folder."
    )


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_snapshots_are_kept_if_so_wanted(tiny, plan, keep):
    want = whole(tiny, plan)
    plan = replace(plan, keep=keep)
    assert training.train(tiny, {}, plan, ends(5)) is None
    folder = plan.out / "tiny/snapshot"
    kept = [f"train_iter_{i}.{end}" for i in (5, 4)[:keep] for end in ("caffemodel", "solverstate")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    assert training.train(tiny, {}, plan).read_bytes() == want[0]
    assert len(list(folder.iterdir())) == 2 * keep
    assert (folder / "train_iter_8.solverstate").exists()


def test_a_snapshot_is_forgotten_with_its_state_first(tiny, plan, monkeypatch):
    training.train(tiny, {}, plan)
    removed, unlink = [], Path.unlink

    def recorded(path, **_):
        removed.append(path.suffix)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", recorded)
    run_folder.delete_old_snapshots(plan.out / "tiny", 3)
    assert removed == [".solverstate", ".caffemodel"]
    assert run_folder.find_newest_snapshot(plan.out / "tiny").iteration == 8


def test_another_run_is_not_gone_on_with(tiny, plan, tmp_path):
    training.train(tiny.with_solver(max_iter=2), {}, plan)
    remedy = " Repeat the options of that run, or choose another output folder."
    other = recipes.load_solver_recipe(
        small_trainings.tiny(tmp_path / "other", solver=small_trainings.SOLVER.replace("1e-7", "1e-8"))
    )
    assert error(replace(other, name="tiny"), plan) == (
        f"{plan.out}/tiny: the folder has a run with another base_lr;"
        f" got {other.solver_param.base_lr}, want {tiny.solver_param.base_lr}.{remedy}"
    )
    assert error(tiny, replace(plan, seed=3)) == (
        f"{plan.out}/tiny: the folder has a run with another seed; got 3, want 1337.{remedy}"
    )
    (plan.out / "tiny/log.jsonl").unlink()
    assert error(tiny, plan) == (f"{plan.out}/tiny: the folder has snapshots, but no log; want log.jsonl.{remedy}")


def test_a_broken_snapshot_is_named_and_the_one_before_is_gone_on_with(tiny, plan):
    want = whole(tiny, plan)
    training.train(tiny.with_solver(max_iter=4), {}, plan)
    model = plan.out / "tiny/snapshot/train_iter_4.caffemodel"
    model.write_bytes(model.read_bytes()[:500])
    said = error(tiny, plan)
    assert said.startswith(f"tiny: {model}")
    assert said.endswith(" Delete it to resume from the snapshot before it.")
    assert "\n" not in said
    for path in (plan.out / "tiny/snapshot").glob("train_iter_4.*"):
        path.unlink()
    assert training.train(tiny, {}, plan).read_bytes() == want[0]


def test_two_processes_do_not_train_in_one_folder(tiny, plan):
    (plan.out / "tiny").mkdir(parents=True)
    with locks.lock_folder(plan.out / "tiny", "busy"):
        assert error(tiny, plan) == (f"{plan.out}/tiny: another process is training here. Wait for it, or end it.")


def test_more_files_are_written_only_where_the_folder_is_this_run_s(tiny, plan):
    def written():
        (plan.out / "tiny" / "card.json").write_text("mine")

    training.train(tiny.with_solver(max_iter=2), {}, plan, prepare=written)
    assert (plan.out / "tiny" / "card.json").read_text() == "mine"
    with pytest.raises(DataError, match="the folder has a run with another"):
        training.train(tiny.with_solver(max_iter=2), {}, replace(plan, seed=7), prepare=pytest.fail)
    with (
        locks.lock_folder(plan.out / "tiny", "busy"),
        pytest.raises(DataError, match="another process is training here"),
    ):
        training.train(tiny.with_solver(max_iter=2), {}, plan, prepare=pytest.fail)
    assert not (plan.out / "tiny" / ".lock").exists()


WILD = small_trainings.SOLVER.replace("gamma: 0.5", "gamma: 1e30")  # from the fourth update on


def test_a_loss_that_is_no_number_ends_the_run_with_the_image_and_what_is_left(plan, tmp_path):
    wild = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "wild", solver=WILD))
    order = draw_order(6)
    fifth = [small_trainings.IDS[next(order)] for _ in range(5)][-1]
    assert error(wild.with_solver(snapshot=3, test_interval=100), plan) == (
        f"wild: iteration 4, draw 4, image {fifth}: the loss is nan. The learning rate is too high for this loss, or"
        f" the weights or the sample are broken. The last good weights are"
        f" {plan.out}/wild/snapshot/train_iter_3.caffemodel."
    )
    assert [record["iteration"] for record in records(plan, "iteration", "wild")] == [0, 1, 2, 3]


def test_weights_that_are_no_numbers_are_not_kept(plan, tmp_path):
    wild = recipes.load_solver_recipe(
        small_trainings.tiny(tmp_path / "wild", solver=small_trainings.SOLVER.replace("1e-7", "1e18"))
    )
    assert error(wild, replace(plan, force=True)) == (
        "wild: iteration 2: the weights of layer 'conv1' are not finite, so no snapshot is written. Resume from the"
        " last snapshot with a lower learning rate. There is no snapshot yet."
    )


def test_scores_that_are_no_numbers_end_the_run(plan, tmp_path):
    wild = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "wild", solver=WILD))
    said = error(wild.with_solver(snapshot=3), plan)
    assert said == "wild: blob 'score' is not a number (NaN) for image '2007_000033'. Check the weights."


def test_a_solver_that_does_not_say_how_long_is_refused(plan, tmp_path):
    stage = recipes.load_solver_recipe(
        small_trainings.tiny(tmp_path / "endless", solver=small_trainings.SOLVER.replace("max_iter: 8\n", ""))
    )
    assert error(stage, plan) == ("endless: max_iter is not set. Set it in the solver, or use --iterations.")
    assert not plan.out.exists()


def test_a_run_that_cannot_learn_is_refused_before_anything_is_written(tiny, plan, tmp_path):
    rate = small_trainings.SOLVER.replace("1e-7", "1e-2")
    said = error(recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "rate", solver=rate)), plan)
    assert said == (
        "rate: layer 'loss': the learning rate is too high for a loss that is summed over pixels;"
        " got base_lr 0.01, want at most 1e-06; published are 1e-10 to 1e-14."
        " Lower base_lr, or set loss_param { normalize: true }."
    )
    dead = small_trainings.NET.replace('weight_filler {{ type: "bilinear" }}', "")
    said = error(recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "dead", net=dead)), plan)
    assert said.startswith("dead: layer 'upscore' (Deconvolution), line 11: all weights are 0, so no gradient")
    zero = small_trainings.NET.replace('weight_filler {{ type: "gaussian" std: 0.02 }}', "")
    said = error(recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "zero", net=zero)), plan)
    assert said.startswith("zero: layer 'conv1' (Convolution), line 4: all weights are 0, so the layer cannot learn.")
    assert not any(plan.out.rglob("log.jsonl"))


def test_a_run_that_cannot_learn_may_be_forced(plan, tmp_path):
    zero = small_trainings.NET.replace('weight_filler {{ type: "gaussian" std: 0.02 }}', "")
    stage, notes = recipes.load_solver_recipe(small_trainings.tiny(tmp_path / "zero", net=zero)), []
    training.train(stage, {}, replace(plan, force=True), TrainingCallbacks(notes.append))
    assert notes[0].startswith("warning, because of --force: layer 'conv1'")
    assert notes[1] == (
        "after 4 iterations the net predicts class 0 (background) for every pixel: mean acc. is 1/13. If the next"
        " validation shows the same, stop: the pretrained weights are missing, or the learning rate does not fit the"
        " loss."
    )


def test_labels_and_validation_pictures_are_looked_at_first(tiny, plan):
    dataset_trees.write_list(
        plan.data / "pascal/seg11valid.txt", [small_trainings.VALIDATED[0], small_trainings.IDS[0]]
    )
    (plan.data / "pascal/VOC2011/ImageSets/Segmentation/seg11valid.txt").unlink()
    dataset_trees.voc(
        plan.data / "pascal/VOC2011", {"seg11valid": [small_trainings.VALIDATED[0], small_trainings.IDS[0]]}
    )
    assert error(tiny, plan) == (
        "tiny: voc seg11valid: 1 of 2 validation images are also training images, the first is '2008_000000'."
        " Validate on another split."
    )


def test_weights_that_are_not_there_are_said(plan):
    missing = plan.out / "vgg16.caffemodel"
    stage = small_trainings.stage("voc-fcn32s")
    assert error(stage, plan, {"vgg16": missing}) == f"{missing}: there is no such weights file."


def test_a_stage_needs_the_weights_of_the_one_before(plan, tmp_path):
    vgg16 = small_trainings.imagenet(tmp_path / "vgg16.caffemodel")
    said = error(small_trainings.stage("voc-fcn16s"), plan, {"voc-fcn32s": vgg16})
    assert said == (
        "layer 'score_fr' of voc-fcn16s is not in the weights of voc-fcn32s; got conv1_1, conv1_2, conv2_1, conv2_2"
        " and 11 more. They belong to another net, or to an earlier stage."
    )


def test_the_chain_of_the_paper(plan, tmp_path):
    chain = [small_trainings.stage(name, max_iter=1) for name in ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s")]
    init = {"vgg16": small_trainings.imagenet(tmp_path / "vgg16.caffemodel")}
    plan, notes = replace(plan, limit=1), []
    for stage, starts in zip(chain, initial_weights.assign_weights(chain, init, plan.out), strict=True):
        training.train(stage, starts, plan, TrainingCallbacks(notes.append))
    assert notes[0] == (
        "voc-fcn32s starts from\n"
        "  vgg16: 15 layers copied; reshaped: fc6 0 (64, 392) -> (64, 8, 7, 7), fc7 0 (64, 64) -> (64, 64, 1, 1);"
        " untouched: score_fr, upscore\n"
        "  interpolated: upscore\n"
        "  new: score_fr"
    )
    first, last = (
        weights.read(recipes.final_model_path(name, plan.out)).arrays() for name in ("voc-fcn16s", "voc-fcn8s")
    )
    assert first["score_pool4.weight"].any()
    assert np.abs(first["score_pool4.weight"] - last["score_pool4.weight"]).max() < 1e-6
    losses = [records(plan, "iteration", stage.name)[0]["loss_per_pixel"] for stage in chain]
    assert losses[0] == pytest.approx(np.log(21), rel=1e-5)
    assert losses[0] > losses[1] > 3


def pytorch_copy(folder, monkeypatch, legacy=False):
    """Write a narrow VGG16 as a caffemodel and, with torchvision's names and a manifest with its md5, as the copy."""
    vgg16 = small_trainings.imagenet(folder / "vgg16.caffemodel")
    entry = local_files.load_manifest()["vgg16-pytorch"]
    theirs = {name: key for key, name in entry.layers.items()}
    state = {
        f"{theirs[layer]}.{kind}": torch.from_numpy(values.copy())
        for layer, arrays in weights.read(vgg16)
        for kind, values in zip(("weight", "bias"), arrays, strict=True)
    }
    copy = folder / "weights" / entry.path
    copy.parent.mkdir(parents=True)
    torch.save(state, copy, _use_new_zipfile_serialization=not legacy)
    text = local_files.MANIFEST.read_text().replace(entry.md5, hashes.compute_hashes(copy, {"md5"})["md5"])
    (folder / "manifest.json").write_text(text)
    monkeypatch.setenv(local_files.MANIFEST_VARIABLE, str(folder / "manifest.json"))
    return vgg16, copy


@pytest.mark.parametrize("legacy", [False, True])
def test_the_copy_of_vgg16_has_caffes_names(tmp_path, monkeypatch, legacy):
    vgg16, copy = pytorch_copy(tmp_path, monkeypatch, legacy)
    net_param, origin = initial_weights.read_parent("vgg16", copy)
    assert origin == "converted from pytorch-fcn's copy"
    mine, want = weights.Weights(net_param).arrays(), weights.read(vgg16).arrays()
    assert mine.keys() == want.keys()
    assert mine["fc6.weight"].shape == (64, 392)
    assert all(np.array_equal(mine[key], want[key]) for key in want)
    assert initial_weights.read_parent("vgg16", vgg16)[1] == ""


def test_the_names_of_the_copy_are_those_of_torchvisions_vgg16():
    (copy,) = local_files.find_copies("vgg16")
    assert (copy.name, copy.kind) == ("vgg16-pytorch", EntryKind.COPY)
    modules, index = {}, 0
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, depth + 1):
            modules[f"features.{index}"] = f"conv{block}_{i}"
            index += 2  # a convolution and a ReLU
        index += 1  # the pooling
    # Each of the first two is followed by a ReLU and a dropout.
    assert copy.layers == modules | {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}


def test_a_training_starts_from_the_copy_of_vgg16_when_there_is_no_caffemodel(plan, tmp_path, monkeypatch):
    vgg16, copy = pytorch_copy(tmp_path, monkeypatch)
    stage = small_trainings.stage("voc-fcn32s", max_iter=1)
    (starts,) = initial_weights.find_weights([stage], [], plan.out, tmp_path / "weights")
    assert starts == {"vgg16": copy}
    notes, plans = [], (plan, replace(plan, out=tmp_path / "other"))
    for each, path in zip(plans, (copy, vgg16), strict=True):
        training.train(stage, {"vgg16": path}, replace(each, limit=1), TrainingCallbacks(notes.append))
    assert notes[0].startswith("voc-fcn32s starts from\n  vgg16: converted from pytorch-fcn's copy\n  vgg16: 15 layers")
    one, two = (weights.read(recipes.final_model_path(stage.name, each.out)).arrays() for each in plans)
    assert all(np.array_equal(one[key], two[key]) for key in two)


def test_torchvisions_own_vgg16_is_not_taken_for_the_copy(plan, tmp_path, monkeypatch):
    _, copy = pytorch_copy(tmp_path, monkeypatch)
    state = torch.load(copy, weights_only=True)
    state["features.0.bias"] += 1
    torch.save(state, copy)
    said = error(small_trainings.stage("voc-fcn32s"), plan, {"vgg16": copy})
    assert said == (
        "layer 'conv1_2' of voc-fcn32s is not in the weights of vgg16; got classifier.0, classifier.3, features.0,"
        " features.10 and 11 more. They belong to another net, or to an earlier stage."
    )


PARENTS = {"vgg16": "voc-fcn32s", "caffenet": "voc-fcn-alexnet"}


@pytest.mark.parametrize(
    "name",
    [
        *("voc-fcn8s-atonce", "voc-fcn-alexnet", "siftflow-fcn32s", "pascalcontext-fcn32s"),
        *("nyud-fcn32s-color", "nyud-fcn32s-color-d", "nyud-fcn32s-hha"),
    ],
)
def test_other_published_nets_learn(name, tmp_path):
    stage = small_trainings.stage(name, max_iter=1)
    (parent,) = stage.parents
    starts = {parent: small_trainings.imagenet(tmp_path / "parent.caffemodel", PARENTS.get(parent, name))}
    root = tmp_path / "data"
    size = (30, 40)
    dataset_trees.sbd(root / "sbdd/dataset", {"train": small_trainings.IDS}, size=size)
    dataset_trees.voc(root / "pascal/VOC2011", {"seg11valid": small_trainings.VALIDATED}, size=size)
    dataset_trees.nyud(root / "nyud", {"train": ["5001"], "val": ["5002"], "test": ["5003"]}, size=size)
    dataset_trees.siftflow(root / "sift-flow", {"trainval": ["a", "b"], "test": ["c"]}, size=size)
    dataset_trees.voc(root / "pascal/VOC2010", {}, main={"train": ["d", "e"], "val": ["f"]}, size=size)
    dataset_trees.context(root / "pascal-context", ["d", "e", "f"], size=size)
    plan = TrainingOptions(tmp_path / "out", root, limit=1)
    training.train(stage, starts, plan)
    (logged,) = records(plan, "iteration", name)
    classes = [len(head.classes) for head in stage.record.heads]
    assert len(logged["images"]) == stage.solver_param.iter_size
    assert min(np.log(classes)) - 0.01 < logged["loss_per_pixel"] < max(np.log(classes)) + 0.01
    (validation,) = records(plan, "validation", name)
    assert list(validation["scores"]) == [head.label for head in stage.record.heads]


def test_late_fusion_starts_from_two_nets(tmp_path):
    root, out = tmp_path / "data", tmp_path / "out"
    dataset_trees.nyud(root / "nyud", {"train": ["5001"], "val": ["5002"], "test": ["5003"]}, size=(30, 40))
    names = ("nyud-fcn32s-color", "nyud-fcn32s-hha", "nyud-fcn32s-color-hha")
    chain = [small_trainings.stage(name, max_iter=1) for name in names]
    init = {"vgg16": small_trainings.imagenet(tmp_path / "vgg16.caffemodel", divisor=64)}
    plan = TrainingOptions(out, root)
    for stage, starts in zip(chain, initial_weights.assign_weights(chain, init, out), strict=True):
        training.train(stage, starts, plan)
    fused, color = (weights.read(recipes.final_model_path(name, out)).arrays() for name in (names[2], names[0]))
    assert np.abs(fused["conv1_1color.weight"] - color["conv1_1.weight"]).max() < 1e-6
    assert json.dumps(records(plan, "start", names[2])[0]["initialised"]).count("layers copied") == 2


def test_a_classifier_learns_by_the_same_way(tmp_path):
    folder = tmp_path / "data/mini/objects"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {"train": 20, "val": 84}
    for split, count in lists.items():
        lines = [f"images/{split}_{i}.png {i % 7}" for i in range(count)]
        dataset_trees.write_list(folder / f"{split}.txt", lines)
        for line in lines[:7] if split == "val" else lines:
            Image.fromarray(rng.integers(0, 256, (136, 136, 3), dtype=np.uint8)).save(folder / line.split()[0])
    dataset_trees.write_list(folder / "val.txt", [f"images/val_{i % 7}.png {i % 7}" for i in range(84)])
    stage = recipes.find_recipe("mini-vgg").with_solver(max_iter=1)
    plan, found = TrainingOptions(tmp_path / "out", tmp_path / "data"), []
    training.train(stage, {}, plan, TrainingCallbacks(validated=found.append))
    (logged,) = records(plan, "iteration", "mini-vgg")
    assert len(logged["images"]) == len(set(logged["images"])) == mini_nets.BATCH["train"]
    assert logged["loss_per_pixel"] is None
    assert 0 < logged["loss"] < 10 * np.log(7)
    (validation,) = records(plan, "validation", "mini-vgg")
    assert validation["outputs"] == found[0].outputs
    assert (set(found[0].outputs), found[0].images, found[0].scores) == ({"loss", "accuracy"}, 84, {})
    dataset_trees.write_list(folder / "train.txt", [f"images/train_{i}.png {i % 8}" for i in range(20)])
    assert error(stage, replace(plan, out=tmp_path / "other")) == (
        f"mini-vgg: {folder}/images/train_7.png: the label is out of range; got 7, want 0 to 6."
    )
