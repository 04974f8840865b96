"""Trained nets, compiled, on images that they were not trained on."""

import numpy as np
import pytest
import torch

from reproduction.fast import compiler, precisions
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import net_files, registry
from reproduction.fcn.scoring.score import compute_scores, confusion_matrix
from reproduction.fcn.segment import any_net
from tests.helpers.parity import relative

# precision -> error of the scores, share of other labels, points of mean IU.
ALLOWED = {"exact": (2e-5, 1e-4, 0.01), "winograd": (1e-4, 1e-4, 0.01), "bf16": (3e-2, 5e-3, 0.2)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TRAIN": 2, "VAL": 16, "IN_BOTH": 1, "OBJECTS": {"train": 2, "val": 2}}.items():
            patch.setattr(mini_voc, name, value)
        mini_voc.generate(root)
        dataset = registry.open_test_split(registry.find_net("mini-fcn8s"), root)
        return [dataset[i] for i in range(len(dataset))]


@pytest.fixture(scope="module")
def net():
    row = registry.find_net("mini-fcn8s")
    return any_net.load_net_with_weights(
        row.name, net_files.build_deploy(row), local_files.INCLUDED_WEIGHTS / row.caffemodel
    )


def run(net, pictures):
    with torch.inference_mode():
        found = [net({"data": torch.from_numpy(one["data"])[None]}, blobs=["score"])["score"] for one in pictures]
    labels = [one[0].argmax(0).numpy().astype(np.uint8) for one in found]
    truth = zip(pictures, labels, strict=True)
    counts = sum(confusion_matrix(one["label"][0], guess, found[0].shape[1]) for one, guess in truth)
    return found, labels, compute_scores(counts).mean_iu


@pytest.fixture(scope="module")
def plain(net, pictures):
    return run(net, pictures)


@pytest.mark.parametrize("precision", ALLOWED)
def test_a_compiled_net_scores_as_the_net(monkeypatch, net, pictures, plain, precision):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)  # torch supports it, if not the processor
    error, off, points = ALLOWED[precision]
    compiled = compiler.compile(net, precision)
    assert compiled.precision == precision
    found, labels, mean_iu = run(compiled, pictures)
    want, right, plain_iu = plain
    assert max(relative(a.numpy(), b.numpy()) for a, b in zip(found, want, strict=True)) < error
    assert np.mean([(a != b).mean() for a, b in zip(labels, right, strict=True)]) <= off
    assert 100 * abs(mean_iu - plain_iu) < points
    assert plain_iu > 0.4
