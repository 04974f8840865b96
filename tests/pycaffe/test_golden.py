"""Caffe's recorded results through pycaffe: every layer, old models, and one whole net."""

import json

import numpy as np
import pytest

from reproduction import pycaffe as caffe
from reproduction.pycaffe.net import settings
from tests.golden import seeded
from tests.helpers import parity
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.pycaffe_nets import write


def golden(path):
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


LAYERS = golden(GOLDEN / "layers.npz")
CASES = json.loads(bytes(LAYERS["prototxt.json"]))


def parts(case, kind):
    prefix = f"{case}|{kind}/"
    return {int(key[len(prefix) :]): array for key, array in LAYERS.items() if key.startswith(prefix)}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_gives_caffes_values_and_gradients(tmp_path, case):
    bottoms = parts(case, "bottom")
    text = "force_backward: true\n"
    for i, bottom in bottoms.items():
        dims = " ".join(f"dim: {size}" for size in bottom.shape)
        text += f'layer {{ name: "in{i}" type: "Input" top: "in{i}" input_param {{ shape {{ {dims} }} }} }}\n'
    net = caffe.Net(write(tmp_path, text + CASES[case]), caffe.TEST)
    for i, bottom in bottoms.items():
        net.blobs[f"in{i}"].data[...] = bottom
    for i, param in parts(case, "param").items():
        net.params[case][i].data[...] = param
    net.forward()
    pairs = [(net.blobs[f"out{i}"].data, want) for i, want in parts(case, "top").items()]
    diffs = parts(case, "top_diff")
    if diffs:
        for i, diff in diffs.items():
            net.blobs[f"out{i}"].diff[...] = diff
        for i in bottoms:
            net.blobs[f"in{i}"].diff[...] = 0  # which clears the top's too where Caffe shares it, as the recorder did
        net.backward()
        pairs += [(net.blobs[f"in{i}"].diff, want) for i, want in parts(case, "bottom_diff").items()]
        pairs += [(net.params[case][i].diff, want) for i, want in parts(case, "param_diff").items()]
    assert max(parity.relative(got, want) for got, want in pairs) <= parity.LAYER_TOLERANCE


@pytest.mark.parametrize("path", parity.LEGACY, ids=lambda path: path.stem)
def test_an_old_model_in_another_size_gives_caffes_blobs(path):
    recorded = golden(path)
    net = caffe.Net(str(path.with_suffix(".prototxt")), str(path.with_suffix(".caffemodel")), caffe.TEST)
    net.blobs["data"].reshape(*recorded["input"].shape)
    net.reshape()
    net.forward(data=recorded["input"])
    for key, want in recorded.items():
        if key.startswith("blob/"):
            assert parity.relative(net.blobs[key[5:]].data, want) <= parity.LAYER_TOLERANCE, key


def test_a_published_net_gives_caffes_blobs_and_gradients(tmp_path):
    (path,) = (each for each in parity.NETS if each.stem.startswith("voc-fcn-alexnet"))
    recorded = golden(path)
    meta = json.loads(bytes(recorded["meta"]))
    inputs = seeded.inputs(["data", "label"], meta["h"], meta["w"], 21, meta["seed"])
    text = (ROOT / "prototxt" / meta["net"] / f"{meta['split']}.prototxt").read_text()
    begin = text.index("layer")
    rest = text[text.index("\n}\n", begin) + 3 :]
    tops = "".join(
        f'layer {{ name: "{top}" type: "Input" top: "{top}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in value.shape)
        + " } } }\n"
        for top, value in inputs.items()
    )
    net = caffe.Net(write(tmp_path, text[:begin] + tops + rest), caffe.TEST)
    for layer, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = parity.weight(layer, i, blob.shape)
    net.forward(**inputs)
    net.backward()
    found = parity.Parity()
    backward = parity.BACKWARD_TOLERANCE if settings.uses_blas_order() else parity.KINK_TOLERANCE
    for key in [key[:-4] for key in recorded if key.endswith("/val") and "_split_" not in key]:
        kind, _, name = key.partition("/")
        layer, _, i = name.rpartition("/")
        got = net.blobs[name].data if kind == "blob" else net.params[layer][int(i)].diff
        assert found.compare(recorded, key, got) <= (parity.FORWARD_TOLERANCE if kind == "blob" else backward), key
    assert found.values > 1000
    if settings.uses_blas_order():
        assert found.same == found.values
