"""Time and memory of opening and converting models as large as the published ones."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reproduction.caffe.formats import blobs, caffemodel
from reproduction.caffe.schema import NetParameter
from tests.helpers.paths import ROOT

CONVOLUTIONS = {  # those of voc-fcn8s: outputs, inputs, kernel
    "conv1_1": (64, 3, 3), "conv1_2": (64, 64, 3), "conv2_1": (128, 64, 3), "conv2_2": (128, 128, 3),
    "conv3_1": (256, 128, 3), "conv3_2": (256, 256, 3), "conv3_3": (256, 256, 3),
    "conv4_1": (512, 256, 3), "conv4_2": (512, 512, 3), "conv4_3": (512, 512, 3),
    "conv5_1": (512, 512, 3), "conv5_2": (512, 512, 3), "conv5_3": (512, 512, 3),
    "fc6": (4096, 512, 7), "fc7": (4096, 4096, 1), "score_fr": (21, 4096, 1),
}  # fmt: skip

# Runs on its own, since a process's peak memory is that of all it ever did.
CONVERT = """
import json, re, sys, time, tracemalloc
from reproduction.caffe.formats import caffemodel, weights
source, target = sys.argv[1:]
start = time.perf_counter()
net = caffemodel.load(source)
opened = time.perf_counter() - start
tracemalloc.start()
net = caffemodel.load(source)
allocated = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
start = time.perf_counter()
weights.write(weights.read(source), target)
seconds = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"opened": opened, "allocated": allocated, "seconds": seconds, "peak": peak}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rng = np.random.default_rng(0)
    net = NetParameter(name="as large as voc-fcn8s")
    for name, (outputs, inputs, kernel) in CONVOLUTIONS.items():
        weight = rng.standard_normal((outputs, inputs, kernel, kernel), np.float32)
        arrays = (weight, rng.standard_normal(outputs, np.float32))
        net.layer.add(name=name, type="Convolution", blobs=[blobs.from_array(each) for each in arrays])
    folder = tmp_path_factory.mktemp("cost")
    caffemodel.dump(net, folder / "big.caffemodel")
    yield folder / "big.caffemodel"
    shutil.rmtree(folder)


def copied(source: Path, target: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".h5", ".caffemodel"])
def test_half_a_gigabyte_opens_in_no_memory_and_converts_in_its_own(model, suffix, tmp_path, capsys):
    size = model.stat().st_size
    assert size > 535e6
    target = tmp_path / f"out{suffix}"
    cp = copied(model, tmp_path / "cp")
    command = [sys.executable, "-c", CONVERT, str(model), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ROOT})
    target.unlink()
    cost = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{size / 1e6:.0f} MB to {suffix}: opened in {cost['opened'] * 1e3:.1f} ms with "
            f"{cost['allocated'] / 1e6:.2f} MB, converted in {cost['seconds']:.2f} s "
            f"({cost['seconds'] / cp:.1f} x cp), "
            f"peak {cost['peak'] / size:.2f} x the file"
        )
    assert cost["allocated"] < 5e6
    assert cost["peak"] < 1.3 * size
