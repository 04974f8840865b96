"""tools/bench.py: turns, medians, ratios, and its files. A thin net replaces the published ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from tests.helpers import classifiers
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return run_tool("bench", *args)


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("bench_tool", ROOT / "tools/bench.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_plain_path_and_the_port_give_the_same(tmp_path):
    (tmp_path / "bench.json").write_text('{"train": {"kept": 1}}')
    done = run("--quick", "--net", "mini-fcn8s", "--only", "our Net", "PyTorch", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["train"] == {"kept": 1}, "what other runs measured stays"
    (section,) = report["forward"].values()
    ours, port = (section["contenders"][name] for name in ("our Net", "PyTorch"))
    assert port["error"] < 1e-5
    assert port["labels_off"] < 1e-3
    assert len(ours["rounds"]) == 1
    assert ours["rounds"][0]["seconds"]
    assert ours["times_pytorch"] == pytest.approx(port["seconds"] / ours["seconds"])
    assert section["measured"]["threads"] >= 1
    assert "x PyTorch" in done.stdout


def test_ncnn_computes_the_same_numbers_from_the_files_that_are_written_for_it(tmp_path):
    pytest.importorskip("ncnn", reason="ncnn is not installed: pip install -e '.[peers]'")
    sizes = ["--size", "48x64", "37x51"]  # of which the rows of the latter are not aligned
    done = run("--quick", "--net", "mini-fcn8s", "--batch", 2, *sizes, "--only", "ncnn", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    for section in json.loads((tmp_path / "bench.json").read_text())["forward"].values():
        assert section["contenders"]["ncnn"]["error"] < 1e-5


NCNN = """\
7767517
9 11
Input input 0 1 data
Split data_input_0_split 1 2 data data_input_0_split_0 data_input_0_split_1
Convolution conv 1 1 data_input_0_split_0 conv 0=2 1=3 11=3 2=1 12=1 3=1 13=1 4=100 14=100 5=1 6=54 9=1
Pooling pool 1 1 conv pool 0=0 1=2 2=2 3=0 5=0
Split pool_pool_0_split 1 2 pool pool_pool_0_split_0 pool_pool_0_split_1
Deconvolution up 1 1 pool_pool_0_split_0 up 0=2 1=4 11=4 2=1 12=1 3=2 13=2 4=0 14=0 5=0 6=64
Crop cut 2 1 up pool_pool_0_split_1 cut 0=5 1=5 2=0
ReLU relu 1 1 cut late
Crop score 1 1 late score 0=9 1=9 2=0 3={width} 4={height} 5=-233
"""


def test_a_net_is_written_as_ncnn_reads_it(tool, tmp_path):
    from bench import ncnn_files

    text = """
        layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
          convolution_param { num_output: 2 kernel_size: 3 pad: 100 } }
        layer { name: "relu1" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up"
          convolution_param { num_output: 2 kernel_size: 4 stride: 2 bias_term: false } }
        layer { name: "cut" type: "Crop" bottom: "up" bottom: "pool" top: "cut" crop_param { axis: 2 offset: 5 } }
        layer { name: "relu" type: "ReLU" bottom: "cut" top: "late" }
        layer { name: "score" type: "Crop" bottom: "late" bottom: "data" top: "score"
          crop_param { axis: 2 offset: 9 } }"""
    net = Net(prototxt.loads(text, NetParameter))
    ncnn_files.write(net, str(tmp_path / "net.param"))
    assert (tmp_path / "net.param").read_text() == NCNN
    written = np.fromfile(tmp_path / "net.bin", "<f4")
    kernel, bias = (blob.detach().numpy() for blob in net.params["conv"])
    (up,) = (blob.detach().numpy() for blob in net.params["up"])
    tag = np.zeros(1, np.float32)
    np.testing.assert_array_equal(written, np.concatenate([tag, kernel.ravel(), bias, tag, up.swapaxes(0, 1).ravel()]))
    more = Net(prototxt.loads(text + 'layer { name: "tanh" type: "TanH" bottom: "late" top: "tanh" }', NetParameter))
    with pytest.raises(NetError, match=r"^layer 'tanh': type 'TanH' cannot be written for ncnn\.$"):
        ncnn_files.write(more, str(tmp_path / "net.param"))


def test_ncnn_computes_folded_layers_as_the_net_does(tool, tmp_path):
    runtime = pytest.importorskip("ncnn", reason="ncnn is not installed: pip install -e '.[peers]'")
    from bench import ncnn_files, written_files

    for made in (classifiers.mobilenet(8), classifiers.googlenet(8), classifiers.resnet50(8)):
        net = Net(made)
        written_files.fill_with_seeded_weights(net)
        ncnn_files.write(net, str(tmp_path / "net.param"))
        assert "Scale " not in (tmp_path / "net.param").read_text()
        theirs = runtime.Net()
        theirs.opt.use_fp16_packed = theirs.opt.use_fp16_storage = theirs.opt.use_fp16_arithmetic = False
        theirs.opt.use_bf16_storage = theirs.opt.use_bf16_packed = False
        theirs.opt.num_threads = 1
        assert theirs.load_param(str(tmp_path / "net.param")) == theirs.load_model(str(tmp_path / "net.bin")) == 0
        extractor = theirs.create_extractor()
        images = np.random.default_rng(1).standard_normal((3, 224, 224), np.float32)
        extractor.input("data", runtime.Mat(images).clone())
        _, scores = extractor.extract("prob")
        want = net({"data": images[None]})["prob"].detach().numpy().ravel()
        np.testing.assert_allclose(np.array(scores).ravel(), want, rtol=0, atol=1e-3 * want.max())


# Source: the published prototxts that bench/nets.py names; the counts include BatchNorm's statistics.
PARAMETERS = {
    "lenet": 431080, "siamese": 431102, "cifar10_quick": 145578, "cifar10_full": 89578, "alexnet": 60965224,
    "caffenet": 60965224, "flickr_style": 56950164, "rcnn": 57687624, "caffenet_full_conv": 60965224,
    "single_conv": 78, "googlenet": 6998552, "resnet50": 25610269,
    "resnet101": 44654608, "mobilenet": 4253891, "mobilenet_v2": 3540189, "squeezenet": 1235496,
    "densenet121": 8062625, "inception_v3": 23869094, "inception_v4": 42743133, "segnet": 29449355,
    "pspnet50": 46841174,
}  # fmt: skip


def test_the_nets_have_as_many_parameters_as_those_that_were_published(tool, tmp_path):
    assert tool.nets.NETS.keys() == PARAMETERS.keys()
    for name, want in PARAMETERS.items():
        prototxt.dump(tool.nets.NETS[name](), tmp_path / "deploy.prototxt")
        net_param, _ = prototxt.load_net(tmp_path / "deploy.prototxt")
        for each in net_param.layer:
            for param in (each.convolution_param, each.inner_product_param):
                param.clear("weight_filler")
        with torch.device("meta"):  # no memory is taken
            net = Net(net_param)
        assert sum(blob.numel() for each in net.layers.values() for blob in each.blobs) == want, name


def test_seeded_weights_give_scores_that_are_finite_and_differ(tool):
    from bench import written_files

    net = Net(classifiers.resnet50(8))
    written_files.fill_with_seeded_weights(net)
    images = np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)
    scores = net({"data": images})["prob"].detach().numpy()
    assert np.isfinite(scores).all()
    assert 1.5 / 1000 < scores.max() < 0.5


class FakeWorker:
    """A process that answers at once, or fails if it runs our exact net."""

    def __init__(self, wanted, task):
        if wanted.get("contender") == "our exact":
            raise ReproductionError("the process ended with: out of memory", place="bench, 'our exact'")
        self.first = {"first_seconds": 2, "build_seconds": 1, "load_seconds": 3, "error": 0.0}

    def take_turn(self, seconds):
        return {"seconds": [0.5], "cpu_seconds": [1.0], "peak_bytes": 7}

    def close(self):
        pass


def test_a_contender_that_fails_is_a_row_with_its_reason_and_a_run_is_resumed(tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tool.results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(tool.rounds, "Worker", FakeWorker)
    monkeypatch.setattr(tool.rounds, "run_job", lambda wanted, task: {"onnx": "no such operator"})
    chosen = ["our Net", "our exact", "onnxruntime"]
    args = ["bench.py", "--nets", "mini-fcn8s", "--rounds", "2", "--only", *chosen, "--report", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*args, "--record"])
    with pytest.raises(
        ReproductionError, match=r"^1 of our own measurements failed: mini-fcn8s 500x500, our exact: be"
    ):
        tool.main()
    said = capsys.readouterr().out
    assert "our exact failed: bench, 'our exact': the process ended with: out of memory." in said
    assert "onnxruntime failed: no such operator" in said
    (section,) = json.loads((tmp_path / "bench.json").read_text())["forward"].values()
    assert section["contenders"]["our Net"]["seconds"] == 0.5, "the others are measured"
    assert len(section["contenders"]["our Net"]["rounds"]) == 2
    monkeypatch.setattr(sys, "argv", [*args, "--resume"])
    monkeypatch.setattr(tool.rounds, "Worker", None)
    tool.main()
    assert "mini-fcn8s 500x500 was measured at " in capsys.readouterr().out


def test_a_net_that_fails_does_not_keep_others_from_being_measured(tool, monkeypatch, tmp_path, capsys):
    def write_or_fail(wanted, task):
        if task.net == "mini-fcn16s":
            raise ReproductionError("the process ended with: no space left")
        return {}

    monkeypatch.setattr(tool.rounds, "Worker", FakeWorker)
    monkeypatch.setattr(tool.rounds, "run_job", write_or_fail)
    args = ["--nets", "mini-fcn16s,mini-fcn8s", "--rounds", "1", "--only", "our Net", "--report", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench.py", *args])
    with pytest.raises(ReproductionError, match=r"^1 of our own measurements failed: mini-fcn16s: the process ended"):
        tool.main()
    assert "mini-fcn16s failed: the process ended with: no space left." in capsys.readouterr().out
    assert list(json.loads((tmp_path / "bench.json").read_text())["forward"]) == ["mini-fcn8s 500x500"]


def test_a_contender_that_computes_something_else_has_no_time(tool):
    ours, half = (
        tool.rounds.Contender(name, "ours.compiled", ours=True, precision=precision)
        for name, precision in (("ours", "float32"), ("half", "bf16"))
    )
    ncnn = tool.rounds.Contender("ncnn", "runtimes.ncnn")
    for contender, error in ((ours, 9e-5), (half, 9e-2), (ncnn, 9e-5)):
        tool.rounds.check_scores(contender, {"error": error})
    tool.rounds.check_scores(ours, {"error": 5e-2, "scores_off": 0.009}, tool.rounds.UNSTABLE["segnet"])
    with pytest.raises(ReproductionError, match="computes other scores"):
        tool.rounds.check_scores(ours, {"error": float("nan"), "scores_off": 1.0}, tool.rounds.UNSTABLE["segnet"])
    for contender, error, want in ((ours, 1.1e-4, "0.0001"), (ncnn, float("nan"), "0.0001")):
        with pytest.raises(ReproductionError) as info:
            tool.rounds.check_scores(contender, {"error": error})
        said = f"bench: {contender.name} computes other scores than our Net; got an error of {error:.1e}"
        assert str(info.value) == f"{said}, want at most {want}."


def test_a_training_step_of_both(tmp_path):
    done = run("--train", "--quick", "--net", "mini-fcn32s", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads((tmp_path / "bench.json").read_text())["train"].values()
    assert section["contenders"]["our Solver"]["peak_bytes"] > 1e8


def test_scoring_is_timed_against_its_forwards(tmp_path):
    done = run("--evaluate", "--images", 3, "--net", "mini-fcn8s", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads((tmp_path / "bench.json").read_text())["evaluate"].values()
    found = section["contenders"]
    assert found["images"] == 3
    assert found["overhead"] == pytest.approx(found["seconds"] / found["forward_seconds"] - 1)
    assert f"{found['overhead']:.1%} more than the forward passes alone" in done.stdout


def test_sizes_are_plotted(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "SCALES", (48, 64))
    names = ["--only", "our exact", "--report", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench.py", "--scaling", "--quick", "--net", "mini-fcn8s", *names])
    tool.main()
    assert "<svg" in (tmp_path / "scaling.svg").read_text()
    sections = json.loads((tmp_path / "bench.json").read_text())["scaling"]
    assert list(sections) == ["mini-fcn8s 48x48", "mini-fcn8s 64x64"]


def test_medians_are_kept_for_the_readme(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool.results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(tool.rounds, "Worker", FakeWorker)
    monkeypatch.setattr(tool.rounds, "run_job", lambda wanted, task: {})
    names = ["--only", "our winograd", "PyTorch"]
    monkeypatch.setattr(
        sys, "argv", ["bench.py", "--quick", "--net", "mini-fcn8s", *names, "--report", str(tmp_path), "--record"]
    )
    tool.main()
    (section,) = json.loads(next((tmp_path / "results").iterdir()).read_text())["forward"].values()
    assert section["measured"]["threads"] >= 1
    row = section["contenders"]["our winograd"]
    assert row["ours"]
    assert {"seconds", "peak_bytes", "times_pytorch", "error"} <= set(row)
    assert "rounds" not in row


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--net", "voc-fcn9s"], "error: there is no net 'voc-fcn9s' in prototxt/. Name one of its folders.\n"),
        (
            ["--train", "--only", "Caffe"],
            (
                "error: no such contender; got ['Caffe'], "
                "want some of ['our Solver', 'PyTorch', 'PyTorch channels_last'].\n"
            ),
        ),
    ],
)
def test_mistakes_are_one_line(args, text):
    done = run(*args)
    assert (done.returncode, done.stderr) == (1, text)


def test_a_size_is_height_and_width():
    done = run("--size", "500")
    assert done.returncode == 2
    assert "want height x width in pixels, as 500x375, not '500'" in done.stderr


def test_what_is_not_installed_is_left_out_and_named(tool, capsys):
    peer = tool.rounds.Contender("Torch7", "runtimes.torch7", needs=("torch7_of_lua",))
    ours = tool.rounds.Contender("ours", "ours.compiled", ours=True)
    assert tool.rounds.choose([peer, ours], [], "cpu", "voc-fcn8s") == [ours]
    assert capsys.readouterr().out == "Torch7 is left out, since torch7_of_lua is not installed.\n"


def test_medians_and_ratios_within_the_rounds(tool):
    def turns(*seconds):
        return [
            {
                "seconds": [s, s, s],
                "cpu_seconds": [s],
                "first_seconds": 1,
                "build_seconds": 1,
                "load_seconds": 1,
                "peak_bytes": 5,
            }
            for s in seconds
        ]

    rounds = tool.rounds
    table = [
        rounds.Contender("ours", "ours.compiled", ours=True),
        rounds.Contender(rounds.BASELINE, "pytorch_port.inference"),
        rounds.Contender("quick", "pytorch_port.inference"),
        rounds.Contender("half", "pytorch_port.inference", precision="bf16"),
    ]
    broken = rounds.Contender("broken", "runtimes.openvino")
    found = {
        "ours": turns(1, 2, 3),
        rounds.BASELINE: turns(2, 8, 6),
        "quick": turns(1, 3, 6),
        "half": turns(1, 1, 1),
    }
    rows = rounds.summarize("forward", [*table, broken], found | {"broken": turns(1)}, {"broken": "no engine"})
    assert (rows["ours"]["seconds"], rows["ours"]["least"], rows["ours"]["greatest"]) == (2, 1, 3)
    assert rows["ours"]["times_pytorch"] == 2, "the median of 2, 4 and 2"
    assert rows["ours"]["times_best_peer"] == 1.5, "against the best of the same precision"
    assert "times_best_peer" not in rows["quick"]
    assert rows["broken"] == {"ours": False, "precision": "float32", "failed": "no engine"}
