"""Each system, thin: it trains on a user's images, resumes, is scored, segments, is exported, and is compiled."""

import importlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.training.events import Step
from reproduction.fcn.nets import net_files, registry, surgery, systems
from reproduction.fcn.reproduce import net_to_score
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.segment import card, export
from reproduction.fcn.segment.export import ExportFormat
from reproduction.fcn.segment.segmenter import Segmenter
from reproduction.fcn.train import custom_nets, log_file, recipes, training
from reproduction.fcn.train.log_file import Validation
from reproduction.fcn.train.training import TrainingOptions

DIVISOR = 64
SIZES = ((41, 50), (48, 37))  # of the images, in turn: no side is a multiple of 32
NAMES = ("background", "disc")
ITERATIONS, SNAPSHOT = 2, 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of five images of a bright disc, with labels and class names."""
    root = tmp_path_factory.mktemp("systems") / "photos"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(5):
        height, width = SIZES[number % 2]
        y, x = np.mgrid[:height, :width]
        disc = (y - 20) ** 2 + (x - 18 - number) ** 2 < 120
        noise = np.random.default_rng(number).integers(0, 60, (height, width, 3))
        Image.fromarray((noise + 150 * disc[..., None]).astype(np.uint8)).save(root / f"images/{number}.png")
        Image.fromarray(disc.astype(np.uint8)).save(root / f"labels/{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


@pytest.fixture(params=list(systems.NETS))
def thin(request, monkeypatch):
    """The record of a system whose layers have few channels, which the registry has in place of the system."""
    record = replace(systems.NETS[request.param], divisor=DIVISOR)
    monkeypatch.setitem(registry.NETS, record.name, record)
    return record


def set_weights(net):
    """Set a net's weights at random, and its BatchNorm to no change."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for blobs in net.params.values():
            if blobs[0].dim() > 1:
                blobs[0].normal_(0, (2 / blobs[0][0].numel()) ** 0.5, generator=random)
            elif len(blobs) == 2:  # Scale, beside BatchNorm: less than 1, so that sums of many blocks stay small
                blobs[0].fill_(0.5)
            else:  # BatchNorm's mean, variance, and the factor by which both are divided
                blobs[0].zero_()
                blobs[1].fill_(1)
                blobs[2].fill_(1)


def write_parents(record, folder):
    """Write weights of a net's parents, which have its layers but for the new ones; return the paths by name."""
    net = Net(net_files.build_deploy(record), seed=3)
    set_weights(net)
    new = surgery.find_new_layers(record)
    known = [layer for layer in net.to_proto().layer if layer.type != "Deconvolution" and layer.name not in new]
    message = NetParameter(layer=known)
    paths = {name: folder / f"{name}.caffemodel" for name in record.parents}
    for path in paths.values():
        caffemodel.dump(message, path)
    return paths


def train(record, photos, parents, out):
    """Train a net on a user's images as ``fcn train --data`` does, or resume; return its folder."""
    custom = custom_nets.inspect_folder(photos)
    recipe = custom_nets.adapt_recipe(record.name, custom)
    recipe = recipe.with_solver(max_iter=ITERATIONS, iter_size=1, snapshot=SNAPSHOT, test_interval=ITERATIONS)
    assert all(line for line in custom_nets.describe_changes([recipe], custom))
    options = TrainingOptions(out, photos, check_all=True)
    assert training.train(recipe, parents, options) == recipes.final_model_path(record.name, out)
    return custom_nets.write_deploy_files(recipe, custom, out, list(parents.values()))


def test_a_system_trains_resumes_and_is_used(thin, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parents = write_parents(thin, tmp_path)
    folder = train(thin, photos, parents, tmp_path / "runs")
    records = list(log_file.read_log(folder / "log.jsonl"))
    losses = [record.loss for record in records if isinstance(record, Step)]
    assert len(losses) == ITERATIONS
    assert np.isfinite(losses).all()
    (validated,) = (record for record in records if isinstance(record, Validation))

    # Resumed from the snapshot before the last iteration, the training ends with the same weights, bit for bit.
    shutil.copytree(folder, tmp_path / "resumed" / thin.name)
    for path in [
        *(tmp_path / "resumed").rglob(f"*_iter_{ITERATIONS}.*"),
        tmp_path / "resumed" / thin.name / f"{thin.name}.caffemodel",
    ]:
        path.unlink()
    resumed = train(thin, photos, parents, tmp_path / "resumed")
    name = f"{thin.name}.caffemodel"
    assert (folder / name).read_bytes() == (resumed / name).read_bytes()

    scored = net_to_score.find_trained(folder, photos)
    segmenter = Segmenter.load(folder)
    found = evaluate.evaluate(segmenter.scorer, scored.dataset, force=True).scores["label"]
    assert found.confusion.sum() == np.prod(SIZES[int(scored.dataset.ids[0]) % 2])
    assert found.mean_iu == pytest.approx(validated.scores["label"].mean_iu, abs=0.02)

    image = photos / "images/1.png"
    compiled = segmenter(image, scores=True)
    assert compiled.labels.shape == SIZES[1]
    assert compiled.classes == NAMES
    segmenter.scorer = segmenter.net
    plain = segmenter(image, scores=True)
    assert np.abs(compiled.scores - plain.scores).max() <= 2e-5 * np.abs(plain.scores).max()

    infer = importlib.import_module("reproduction.commands.infer")
    assert infer.main([str(image), "--net", str(folder), "-o", "out", "--labels-only"]) in (0, None)
    assert np.array_equal(np.asarray(Image.open("out/1.png")), compiled.labels)

    form = ExportFormat(outputs="scores")
    run = export.onnx_runner(export.export_onnx(segmenter.net, segmenter.card, form).SerializeToString())
    assert [each.size for each in export.check_export(segmenter.net, segmenter.card, form, run, SIZES)] == [*SIZES]


@pytest.mark.slow  # torch takes minutes to trace the deepest nets for images of any size
def test_a_system_is_exported_as_a_program(thin):
    net, about, form = Net(net_files.build_deploy(thin), seed=3), card.published_card(thin), ExportFormat(batch="1")
    set_weights(net)
    run = export.program_runner(export.export_program(net, about, form))
    assert [each.size for each in export.check_export(net, about, form, run, SIZES)] == [*SIZES]


def test_a_net_without_a_data_set_is_scored_on_the_users_images(tmp_path):
    with pytest.raises(
        DataError, match=r"unet is trained and scored on your own images; got --net unet, want the folder"
    ):
        net_to_score.find_published("unet", tmp_path)


def test_a_net_without_a_data_set_asks_for_the_users_images(tmp_path):
    with pytest.raises(DataError, match=r"unet is trained on your own images; want --data FOLDER, with images and"):
        custom_nets.find_custom_data(tmp_path, None, None, 500, ["unet"], may_be_missing=True)
