"""Several processes train as one: the same samples, sums in the same order, the same weights to rounding."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.training import parallel, solver
from tests.helpers import tiny_training
from tests.helpers.parallel_worker import CASES, STEPS
from tests.helpers.paths import ROOT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(size: int, folder: Path) -> list[dict[str, np.ndarray]]:
    """Run the processes; return what each found."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}", "--master-addr=127.0.0.1"]
    done = subprocess.run(
        [*command, f"--master-port={free_port()}", "-m", "tests.helpers.parallel_worker", str(folder)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(size)]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request, tmp_path_factory):
    return start(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_one_process_to_rounding(case, ranks):
    run = tiny_training.built(f"random_seed: 7 {CASES[case]}")
    start = tiny_training.weights(run)
    losses = []
    for _ in range(STEPS):
        run.step()
        losses.append(run.sample_losses)
    np.testing.assert_allclose(ranks[0][f"{case}/losses"][0], losses[0], rtol=1e-6)
    np.testing.assert_allclose(ranks[0][f"{case}/losses"], losses, rtol=1e-5)
    for name, value in tiny_training.weights(run).items():
        change = np.abs(value - start[name]).max()
        for rank in ranks:
            np.testing.assert_array_equal(rank[f"{case}/{name}"], ranks[0][f"{case}/{name}"])
            assert np.abs(rank[f"{case}/{name}"] - value).max() <= 1e-4 * change


@pytest.mark.parametrize("case", CASES)
def test_together_they_draw_what_one_process_draws(case, ranks):
    drawn = [draw for rank in ranks for draw in rank[f"{case}/drawn"].tolist()]
    assert sorted(drawn) == list(range(len(drawn)))
    assert all(len(rank[f"{case}/drawn"]) >= STEPS for rank in ranks)


def test_all_begin_with_the_first_ones_weights(ranks):
    for rank in ranks[1:]:
        for name in ("first/conv.weight", "first/fc.weight"):
            np.testing.assert_array_equal(rank[name], ranks[0][name])


def test_they_go_on_from_a_snapshot_to_the_same_bits(ranks):
    for rank in ranks:
        assert rank["saved"].tolist() == [2, 4]
        assert rank["resumed"]


def test_a_stop_that_one_is_asked_for_stops_all(ranks):
    assert [int(rank["stopped"]) for rank in ranks] == [6] * len(ranks)


def test_a_loss_that_is_no_number_stops_all_and_names_the_first_draw(ranks):
    for rank in ranks:
        assert str(rank["error"]).startswith("iteration 1, draw 6: the loss is nan.")


def test_what_cannot_be_split_is_one_line(ranks):
    for rank in ranks:
        assert str(rank["few"]) == (
            f"solver: iter_size 1 cannot be split over {len(ranks)} processes. Raise iter_size, or start fewer."
        )


def test_sums_are_made_in_the_order_of_the_processes(ranks):
    total = ranks[0]["mine"]
    for rank in ranks[1:]:
        total = total + rank["mine"]
    for rank in ranks:
        np.testing.assert_array_equal(rank["sum"], total)


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (7, 3), (9, 3), (5, 1)])
def test_shares_are_even_and_whole(count, size):
    shares = [parallel.Ranks(rank, size).share(count) for rank in range(size)]
    assert [n for share in shares for n in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.join_processes() as ranks:
        assert (ranks.rank, ranks.size, ranks.is_first) == (0, 1, True)
        assert ranks.gather([1.5], 1) == [1.5]
        assert ranks.all_reduce_max(2) == 2


def test_processes_that_do_not_find_each_other_are_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ReproductionError) as caught, parallel.join_processes():
        pass
    assert str(caught.value).startswith("the 2 processes do not find each other: Error initializing torch.distributed")
    assert str(caught.value).endswith("Start them with torchrun.")
    assert "\n" not in str(caught.value)


class Own:
    """A Python layer with data of its own."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        for blob, value in zip(top, tiny_training.feed(0).values(), strict=True):
            blob.reshape(*value.shape)

    def forward(self, bottom, top):
        for blob, value in zip(top, tiny_training.feed(0).values(), strict=True):
            blob.data[...] = value


def test_the_data_of_a_python_layer_cannot_be_shared():
    start, end = tiny_training.NET.index('type: "Input"'), tiny_training.NET.index('layer { name: "conv"')
    param = tiny_training.param("iter_size: 2")
    param.net_param = tiny_training.net(
        tiny_training.NET[:start]
        + 'type: "Python" top: "data" top: "label" python_param { layer: "Own" } }'
        + tiny_training.NET[end:]
    )
    run = solver.build_solver(param, python_layers={"Own": Own})
    assert run.notes == ["layer 'data' (Python) restarts its data when a run is resumed."]
    run.step()
    with pytest.raises(ReproductionError) as caught:
        solver.build_solver(param, python_layers={"Own": Own}, ranks=parallel.Ranks(0, 2))
    assert str(caught.value) == ("layer 'data': processes cannot share the data of a Python layer. Feed its tops.")
