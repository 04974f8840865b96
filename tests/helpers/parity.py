"""Errors relative to the results of Caffe, for the tests and for `make exactness`.

The golden files were recorded by BVLC/caffe 1.0 (commit 9b89154, CPU, single precision) on inputs and weights that
`tests/golden/seeded.py` generates. An error is the largest difference divided by the largest magnitude of the array.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from reproduction.caffe.formats import prototxt, weights
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from tests.golden import seeded
from tests.helpers.paths import GOLDEN, ROOT

NETS = sorted((GOLDEN / "nets").glob("*.npz"))
LEGACY = sorted((GOLDEN / "legacy").glob("*.npz"))
LAYER_TOLERANCE, FORWARD_TOLERANCE, BACKWARD_TOLERANCE = 1e-5, 2e-5, 2e-4
KINK_TOLERANCE = 2e-2  # of a gradient, if rounding moves a unit to the other side of a ReLU's or pooling's kink
# The recorder of layers.npz set the gradient of the tops and then cleared that of the bottoms. In Caffe's Reshape both
# share memory (reshape_layer.cpp L90), so that the recorded gradient is zero.
CLEARED = {"reshape"}
CLASSES = {"voc": 21, "nyud": 40, "siftflow": 33, "pascalcontext": 60}


@dataclass
class Parity:
    """The largest errors of a net, the number of values equal to Caffe's bit for bit, and the arrays that are off."""

    forward: float = 0.0
    backward: float = 0.0
    values: int = 0
    same: int = 0
    labels_off: int = 0
    off: list[str] = field(default_factory=list)

    def compare(self, golden: dict[str, np.ndarray], key: str, got: np.ndarray) -> float:
        """Compare an array with its recorded sample and return the error; infinity if the shapes differ."""
        if tuple(golden[f"{key}/shape"]) != got.shape:
            return float("inf")
        _, deviation, greatest = (golden[f"{key}/stat"][i] for i in range(3))
        values = got.reshape(-1)[golden[f"{key}/idx"]]
        self.values += values.size
        self.same += int((values == golden[f"{key}/val"]).sum())
        error = np.abs(values.astype(np.float64) - golden[f"{key}/val"]).max() / max(greatest, 1e-12)
        if got.size > 1:
            error = max(error, abs(got.std(dtype=np.float64) - deviation) / max(deviation, 1e-12))
        return float(error)


@dataclass
class Parities:
    """The errors of all cases, by name; nets are computed in the order of Caffe's BLAS and in torch's order."""

    layers: dict[str, float]
    nets: dict[str, Parity]
    nets_in_torch_order: dict[str, Parity]
    legacy: dict[str, float]


@lru_cache(maxsize=1)
def layer_cases() -> dict[str, str]:
    """Return the prototxt of every recorded layer, of layers.npz and more_layers.npz."""
    return {case: str(arrays["text"]) for case, arrays in _layer_files().items()}


def layer_errors(case: str, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Run one layer forward and backward, and return the error of each array that Caffe recorded."""
    layer = _layer(case).to(dtype)
    bottoms = [bottom.to(dtype) for bottom in _recorded(case, "bottom").values()]
    diffs = _recorded(case, "bottom_diff")
    for i in diffs:
        bottoms[i].requires_grad_()
    tops = layer(*bottoms)
    if layer.layer_param.type != "Filter":  # its top's size depends on the data
        assert layer.shapes([tuple(bottom.shape) for bottom in bottoms]) == [tuple(top.shape) for top in tops]
    assert all(top.dtype == dtype for top in tops)
    pairs = {f"top {i}": (tops[i], want) for i, want in _recorded(case, "top").items()}
    top_diffs = _recorded(case, "top_diff")
    if top_diffs:
        param_diffs = _recorded(case, "param_diff")
        sources = {f"bottom_diff {i}": (bottoms[i], want) for i, want in diffs.items()}
        sources |= {f"param_diff {i}": (layer.blobs[i], want) for i, want in param_diffs.items()}
        live = {i: top for i, top in enumerate(tops) if top.requires_grad}
        grads = torch.autograd.grad(
            list(live.values()),
            [source for source, _ in sources.values()],
            [top_diffs[i].to(dtype) * (case not in CLEARED) for i in live],
            materialize_grads=True,
        )
        pairs |= {name: (grad, want) for grad, (name, (_, want)) in zip(grads, sources.items(), strict=True)}
    return {name: relative(got.detach().numpy(), want.numpy()) for name, (got, want) in pairs.items()}


def layer_parity(case: str) -> float:
    """Run one layer forward and backward, and return the largest error."""
    return max(layer_errors(case).values())


@lru_cache(maxsize=1)
def _layer_files() -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of each case by kind and number, with its text."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in ("layers.npz", "more_layers.npz"):
        with np.load(GOLDEN / name) as file:
            for case, text in json.loads(bytes(file["prototxt.json"])).items():
                assert case not in found
                found[case] = {"text": np.array(text)}
            for key in file.files:
                case, _, array = key.partition("|")
                if array:
                    found[case][array] = file[key]
    return found


def _recorded(case: str, kind: str) -> dict[int, torch.Tensor]:
    """Return the arrays of one kind by number; numbers of gradients may have gaps."""
    prefix = f"{kind}/"
    arrays = {int(key[len(prefix) :]): array for key, array in _layer_files()[case].items() if key.startswith(prefix)}
    return {i: torch.tensor(arrays[i]) for i in sorted(arrays)}


def _layer(case: str) -> Layer:
    """Build a layer with its recorded parameters, in phase TEST unless its text names another."""
    spec = prototxt.loads(layer_cases()[case], NetParameter).layer[0]
    if not spec.has("phase"):
        spec.phase = Phase.TEST
    layer = LAYERS[spec.type](spec, [tuple(bottom.shape) for bottom in _recorded(case, "bottom").values()])
    with torch.no_grad():
        for blob, value in zip(layer.blobs, _recorded(case, "param").values(), strict=True):
            assert blob.shape == value.shape
            blob.copy_(value)
    return layer.train(spec.phase == Phase.TRAIN)


@lru_cache(maxsize=64)
def weight(layer: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return a seeded parameter of the golden nets, cached because most nets have the same trunk."""
    return seeded.make_weight(layer, index, shape, "up" in layer, 1)


Seeded = Callable[[str, int, tuple[int, ...]], np.ndarray]


def published_inputs(name: str, split: str, height: int, width: int, seed: int) -> dict[str, np.ndarray]:
    """Return the seeded images and labels of a published net."""
    tops = _data_tops(name, split)
    arrays: dict[str, np.ndarray] = seeded.inputs(tops, height, width, CLASSES[name.split("-", maxsplit=1)[0]], seed)
    return arrays


def seed_weights(net: Net, made: Seeded = weight) -> None:
    """Set a net's weights by a seeded recipe; layers named ``scale_*`` keep the constants of the published fillers."""
    with torch.no_grad():
        for layer, blobs in net.params.items():
            if made is not weight or not layer.startswith("scale_"):
                for index, blob in enumerate(blobs):
                    blob.copy_(torch.from_numpy(made(layer, index, tuple(blob.shape))))


def net_parity(
    path: Path,
    *,
    backward: bool = True,
    blas_order: bool = False,
    device: str = "cpu",
    make_inputs: Callable[..., dict[str, np.ndarray]] = published_inputs,
    make_weight: Seeded = weight,
) -> Parity:
    """Run one golden net forward and, if ``backward``, backward; return its parity."""
    with np.load(path) as file:
        golden = {key: file[key] for key in file.files}
    meta = json.loads(bytes(golden["meta"]))
    inputs = make_inputs(meta["net"], meta["split"], meta["h"], meta["w"], meta["seed"])
    message, _ = prototxt.load_net(ROOT / "prototxt" / meta["net"] / f"{meta['split']}.prototxt")
    shapes = {top: value.shape for top, value in inputs.items()}
    net = Net(message, Phase.TEST, inputs=shapes, blas_order=blas_order)
    seed_weights(net, make_weight)
    net.to(device)
    named = [key[5:-4] for key in golden if key.startswith("blob/") and key.endswith("/val") and "_split_" not in key]
    with torch.set_grad_enabled(backward):
        blobs = net(inputs, {*named, *net.loss_weights})
    if backward:
        net.loss(blobs).backward()
    result = Parity()
    for blob in named:
        error = result.compare(golden, f"blob/{blob}", blobs[blob].detach().cpu().numpy())
        result.forward = max(result.forward, error)
        if not error <= FORWARD_TOLERANCE:
            result.off.append(f"blob {blob} {error:.1e}")
    for layer, params in net.params.items():
        for index, param in enumerate(params):
            if backward and f"grad/{layer}/{index}/val" in golden:
                gradient = torch.zeros_like(param) if param.grad is None else param.grad
                error = result.compare(golden, f"grad/{layer}/{index}", gradient.cpu().numpy())
                result.backward = max(result.backward, error)
                if not error <= BACKWARD_TOLERANCE:
                    result.off.append(f"gradient of {layer} {index} {error:.1e}")
    for score in ("score", "score_sem", "score_geo"):
        if f"argmax/{score}" in golden:
            labels = blobs[score].detach().cpu().numpy()[0].argmax(0)
            sure = golden[f"margin/{score}"] > 1e-3 * golden[f"blob/{score}/stat"][2]
            result.labels_off += int((labels != golden[f"argmax/{score}"])[sure].sum())
    return result


def legacy_parity(path: Path) -> float:
    """Load an old net with old weights, run it, and return the largest error of its blobs."""
    with np.load(path) as file:
        golden = {key: file[key] for key in file.files}
    message, _ = prototxt.load_net(path.with_suffix(".prototxt"))
    net = Net(message, Phase.TEST)
    net.copy_from(weights.read(path.with_suffix(".caffemodel")).net)
    names = [key[5:] for key in golden if key.startswith("blob/") and "_split_" not in key]
    with torch.no_grad():
        blobs = net({"data": golden["input"]}, names)
    return max(relative(blobs[name].numpy(), golden[f"blob/{name}"]) for name in names)


def measure_all(*, is_ordered: bool) -> Parities:
    """Measure all golden cases; the gradients of nets only if BLAS adds in the order of Caffe's."""
    names = {path: path.stem.rpartition("_")[0] for path in NETS}
    return Parities(
        layers={case: layer_parity(case) for case in layer_cases()},
        nets={name: net_parity(path, blas_order=is_ordered, backward=is_ordered) for path, name in names.items()},
        nets_in_torch_order={name: net_parity(path, backward=False) for path, name in names.items()},
        legacy={path.stem: legacy_parity(path) for path in LEGACY},
    )


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference divided by the largest magnitude; infinity if shapes or NaNs differ."""
    if got.shape != want.shape or not np.array_equal(np.isnan(got), np.isnan(want)):
        return float("inf")
    got, want = got[~np.isnan(want)], want[~np.isnan(want)]
    if not want.size:
        return 0.0
    return float(np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-6))


def _data_tops(name: str, split: str) -> list[str]:
    message, _ = prototxt.load_net(ROOT / "prototxt" / name / f"{split}.prototxt")
    return list(message.layer[0].top)
