"""Errors of the layers of Caffe forks, relative to what the forks' own code computed.

See tests/golden/forks/README.md.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from reproduction import pycaffe as caffe
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase
from reproduction.pycaffe.net import net as pycaffe_net
from tests.helpers.parity import relative
from tests.helpers.paths import GOLDEN

FORKS = GOLDEN / "forks"


@lru_cache(maxsize=1)
def fork_cases() -> dict[str, str]:
    """Return the text of each recorded layer."""
    with np.load(FORKS / "fork_layers.npz") as file:
        return json.loads(bytes(file["prototxt.json"]))


@lru_cache(maxsize=1)
def _recorded() -> tuple[dict[str, dict], dict[str, dict[str, np.ndarray]]]:
    """Return the facts and the arrays of each case."""
    arrays: dict[str, dict[str, np.ndarray]] = {case: {} for case in fork_cases()}
    with np.load(FORKS / "fork_layers.npz") as file:
        for key in file.files:
            case, _, name = key.partition("|")
            if name:
                arrays[case][name] = file[key]
        return json.loads(bytes(file["meta.json"])), arrays


def layer_type(case: str) -> str:
    """Return the layer type of a case."""
    return re.search(r'type:"(\w+)"', fork_cases()[case])[1]


def fork_net(case: str, folder: Path) -> tuple[pycaffe_net.Net, list[str]]:
    """Build the net of a case, with its inputs and parameters; return it and the names of the blobs that it reads."""
    facts, arrays = _recorded()
    text, part = fork_cases()[case], arrays[case]
    bottoms = _numbered(part, "bottom")
    head = "force_backward: true\n" if facts[case].get("force_backward", True) else ""
    for i, bottom in bottoms.items():
        dims = " ".join(f"dim: {size}" for size in bottom.shape)
        head += f'layer {{ name: "in{i}" type: "Input" top: "in{i}" input_param {{ shape {{ {dims} }} }} }}\n'
    read = [f"in{i}" for i in bottoms]
    for i in facts[case].get("through_scale", []):  # Caffe computes the gradient of these alone, as a Scale needs it
        scale = "scale_param { axis: 0 num_axes: 0 }"
        head += f'layer {{ name: "s{i}" type: "Scale" bottom: "in{i}" top: "x{i}" {scale} }}\n'
        text, read[i] = text.replace(f'"in{i}"', f'"x{i}"'), f"x{i}"
    (folder / "net.prototxt").write_text(head + text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    for i, bottom in bottoms.items():
        net.blobs[f"in{i}"].data[...] = bottom
    params = net.params.get(case, [])
    assert len(params) == len(_numbered(part, "param"))
    for i, param in _numbered(part, "param").items():
        params[i].data[...] = param
    return net, read


def fork_layer_errors(case: str, folder: Path) -> dict[str, float]:
    """Run a recorded layer forward and backward, and return the error of each array that its fork computed."""
    part = _recorded()[1][case]
    net, read = fork_net(case, folder)
    params = net.params.get(case, [])
    net.forward()
    pairs = {f"top {i}": (np.array(net.blobs[f"out{i}"].data), want) for i, want in _numbered(part, "top").items()}
    pairs |= {
        f"param after {i}": (np.array(params[i].data), want) for i, want in _numbered(part, "param_after").items()
    }
    diffs = _numbered(part, "top_diff")
    for i, diff in diffs.items():
        net.blobs[f"out{i}"].diff[...] = diff
    if diffs:
        for name in read:
            net.blobs[name].diff[...] = 0
        for param in params:
            param.diff[...] = 0
        net.backward()
        pairs |= {
            f"gradient of bottom {i}": (net.blobs[read[i]].diff, want)
            for i, want in _numbered(part, "bottom_diff").items()
        }
        pairs |= {f"gradient of param {i}": (params[i].diff, want) for i, want in _numbered(part, "param_diff").items()}
    return {name: relative(np.asarray(got), want) for name, (got, want) in pairs.items()}


def _numbered(arrays: dict[str, np.ndarray], kind: str) -> dict[int, np.ndarray]:
    prefix = f"{kind}/"
    return {int(key[len(prefix) :]): array for key, array in arrays.items() if key.startswith(prefix)}


def plain_net(case: str, folder: Path) -> tuple[Net, dict[str, np.ndarray]]:
    """Return the net of a case as a module of torch, with its parameters, and its inputs."""
    module = fork_net(case, folder)[0].module
    net = Net(prototxt.load_net(folder / "net.prototxt")[0], Phase.TEST).eval()
    net.load_state_dict(module.state_dict())
    return net, {f"in{i}": bottom for i, bottom in _numbered(_recorded()[1][case], "bottom").items()}
