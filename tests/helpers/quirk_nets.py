"""Weights, inputs and runs of small nets on which Caffe's numbers are peculiar.

``python tests/helpers/quirk_nets.py OUT.npz NET.prototxt ...`` records the results of the installed ``caffe``; it needs
only caffe and numpy. The first line of a net may be a comment with its phase, and with new shapes of its inputs for the
second pass: ``# phase TRAIN; reshape {"x": [3, 3, 4, 8]}``.
"""

import ast
import re
import sys
import zlib
from pathlib import Path

import numpy as np


def rng(*key):
    return np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()) & 0xFFFFFFFF)


def value(name, shape, number):
    """Return the input of a pass: normal numbers; classes for labels (lab...), rows (ix...), selectors (sel...)."""
    random = rng("in", name, number)
    for start, classes in (("lab", 3), ("ix", 4), ("sel", 2)):
        if name.startswith(start):
            return random.randint(0, classes, shape).astype(np.float32)
    return random.standard_normal(shape).astype(np.float32)


def weight(layer, kind, i, shape):
    """Return a parameter: mean, variance and factor 2 for BatchNorm, factors of either sign for Scale, else normal."""
    random = rng("w", layer, i)
    if kind == "BatchNorm" and i == 2:
        return np.full(shape, 2, np.float32)
    if kind == "BatchNorm":
        return (random.standard_normal(shape) * 0.3 if i == 0 else random.uniform(1, 3, shape)).astype(np.float32)
    if kind == "Scale" and i == 0:
        return random.uniform(0.5, 1.5, shape).astype(np.float32) * (1 if random.rand() < 0.7 else -1)
    scale = np.sqrt(2.0 / np.prod(shape[1:])) if i == 0 and len(shape) > 1 else 0.5
    return (random.standard_normal(shape) * scale).astype(np.float32)


def run(caffe, path, hold=False):
    """Run two passes forward and backward; the second adds to the gradients of the first.

    Args:
        caffe: The module, pycaffe or ours.
        path: The net.
        hold: Whether to hold references to every array during the passes, as programs may.

    Returns:
        Copies of ``NUMBER/data/BLOB``, ``NUMBER/grad/LAYER/i`` and, at the end, ``param/LAYER/i``.
    """
    head = Path(path).read_text().partition("\n")[0]
    net = caffe.Net(str(path), caffe.TEST if "phase TEST" in head else caffe.TRAIN)
    kinds = dict(zip(net._layer_names, (layer.type for layer in net.layers), strict=True))
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = weight(name, kinds[name], i, tuple(blob.data.shape))
    net.clear_param_diffs()
    held = [(blob.data, blob.diff) for blob in net.blobs.values()] if hold else []
    shapes = re.search(r"reshape (\{.*\})", head)
    found = {}
    for number in range(2):
        for name, shape in ast.literal_eval(shapes.group(1)).items() if number and shapes else ():
            net.blobs[name].reshape(*shape)
            net.reshape()
        for name in net.inputs:
            net.blobs[name].data[...] = value(name, tuple(net.blobs[name].data.shape), number)
        net.forward()
        for name, blob in net.blobs.items():
            if "_split_" not in name and name not in net.inputs:
                found[f"{number}/data/{name}"] = np.array(blob.data)
        net.backward()
        for name, blobs in net.params.items():
            for i, blob in enumerate(blobs):
                found[f"{number}/grad/{name}/{i}"] = np.array(blob.diff)
                found[f"param/{name}/{i}"] = np.array(blob.data)
    assert len(held) == (len(net.blobs) if hold else 0)
    return found


def main():
    import caffe

    arrays = {}
    for path in map(Path, sys.argv[2:]):
        name = path.stem
        arrays.update({f"{name}|{key}": array for key, array in run(caffe, path).items()})
    np.savez_compressed(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
