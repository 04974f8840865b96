"""fcn verify: each damage of a weights file fails the check that looks for it, with the exit code for that."""

import hashlib
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.formats import blobs, caffemodel, weights
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.schema import NetParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.fetch.manifest import Entry, EntryKind
from reproduction.fcn.nets import registry
from reproduction.fcn.segment import any_net, card, segmenter, verify, verify_labels, verify_parameters
from reproduction.fcn.segment.verification import CheckResult
from tests.helpers import thin_nets
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

NET = "mini-fcn8s"
FILE = ROOT / "weights/mini/mini-fcn8s.caffemodel"
SCORES = ("score_fr", "score_pool4", "score_pool3")
ALL = ["hash", "size", "parameters", "finite", "learned", "fixed", "spread of scores", "classes", "OpenCV"]


def load(name=NET):
    path = segmenter.locate_weights(name)
    return any_net.load_net_with_weights(name, registry.load_net(name), path)


def write(path, change=lambda net: None, alter=lambda message: None):
    """Write the weights of mini-fcn8s, changed, to a file; a safetensors file has no recorded hash."""
    net = load()
    with torch.no_grad():
        change(net)
    message = net.to_proto()
    alter(message)
    weights.write(Weights(message, path=str(path)), path)
    return path


def verify_json(*args):
    """Run the tool; return its exit code and its checks by name."""
    done = run_tool("verify", *args, "--json", "-q")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    return done.returncode, {check["name"]: check for check in found["checks"]}, found


def results(checks, result):
    return [name for name, check in checks.items() if check["result"] == result]


def test_a_net_of_this_project_passes():
    done = run_tool("verify", NET)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == f"{NET}: {FILE}, caffemodel V2"
    assert lines[2] == "  origin: this project's weights"
    assert [line[2:18].strip() for line in lines[3:12]] == ALL
    assert all(line[19:23] == "pass" and " got " in line and "; want " in line for line in lines[3:12])
    assert lines[-1] == "pass"
    assert done.stderr == "classes in drawn images ...\nlabels of OpenCV ...\n"


def test_wrong_usage_and_a_file_without_weights_are_errors(tmp_path):
    assert run_tool("verify").returncode == 2
    page = tmp_path / "a.caffemodel"
    page.write_text("<!doctype html><html></html>")
    done = run_tool("verify", NET, page)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {page}: ")


def test_json_has_the_checks_and_where_they_were_made():
    code, checks, found = verify_json(NET)
    assert (code, found["result"], found["kind"], found["file_format"]) == (0, "pass", "verification", "caffemodel V2")
    assert list(checks) == ALL
    assert found["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert found["versions"]["torch"] == torch.__version__
    assert "cpu" in found["device"]


def test_a_copy_passes_all_checks_but_the_hash_which_is_not_checked(tmp_path):
    copy = tmp_path / "copy.safetensors"
    assert run_tool("convert", FILE, "-o", copy, "--net", NET).returncode == 0
    code, checks, found = verify_json(NET, copy)
    assert code == 3
    assert results(checks, "not checked") == ["hash"]
    assert results(checks, "fail") == []
    assert found["origin"] == "converted from mini-fcn8s.caffemodel"


def fill_nan(net):
    net.params["conv1_1"][0][0, 0, 0, 0] = float("nan")
    net.params["fc7"][1][3] = float("inf")


def test_nan_fails_and_nothing_is_computed_with_it(tmp_path):
    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", fill_nan))
    assert code == 1
    assert results(checks, "fail") == ["finite"]
    assert checks["finite"]["got"] == "1 in conv1_1.weight, 1 in fc7.bias"
    assert results(checks, "not checked") == ["hash", "classes", "OpenCV"]


def test_a_score_row_of_zeros_fails_and_names_the_class(tmp_path):
    def change(net):
        net.params["score_pool4"][0][5] = 0

    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", change))
    assert code == 1
    assert results(checks, "fail") == ["spread of scores"]
    assert checks["spread of scores"]["got"] == "score_pool4: 0 for 'kite'"


def test_a_score_layer_that_was_never_trained_fails(tmp_path):
    def change(net):
        for blob in net.params["score_pool3"]:
            blob.zero_()

    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", change))
    assert code == 1
    assert results(checks, "fail") == ["learned", "spread of scores"]
    assert checks["learned"]["got"] == "0 everywhere in score_pool3.weight, 0 everywhere in score_pool3.bias"
    assert checks["spread of scores"]["got"] == "score_pool3: the median spread is 0"


def test_upsampling_that_is_not_exactly_bilinear_fails(tmp_path):
    def change(net):
        net.params["upscore8"][0][2, 2, 5, 5] *= 1 + 1e-6
        net.params["upscore8"][0][0, 1, 0, 0] = 1e-9

    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", change))
    assert code == 1
    assert results(checks, "fail") == ["fixed"]
    assert checks["fixed"]["got"] == "2 other values in upscore8"


def reshape(message):
    layer = next(layer for layer in message.layer if layer.name == "fc7")
    layer.blobs[0] = blobs.from_array(np.ones((96, 95, 1, 1), np.float32))


def test_another_shape_fails_and_leaves_the_rest_unchecked(tmp_path):
    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", alter=reshape))
    assert code == 1
    assert results(checks, "fail") == ["size", "parameters"]
    assert checks["parameters"]["got"].startswith("layer 'fc7' blob 0 has another shape; got (96, 95, 1, 1)")
    assert results(checks, "not checked") == ["hash", *ALL[3:]]


def remove(message):
    message.layer = [layer for layer in message.layer if layer.name != "conv2_1"]


def add(message):
    message.layer.add(name="extra", blobs=[blobs.from_array(np.ones(3, np.float32))])


def test_a_missing_layer_fails(tmp_path):
    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", alter=remove))
    assert code == 1
    assert checks["parameters"]["got"] == "no weights for conv2_1"
    assert results(checks, "fail") == ["size", "parameters"]


def test_a_surplus_layer_fails_and_the_rest_is_checked(tmp_path):
    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", alter=add))
    assert code == 1
    assert checks["parameters"]["got"] == "surplus weights for extra"
    assert results(checks, "fail") == ["size", "parameters"]
    assert results(checks, "not checked") == ["hash"]


def test_a_class_that_can_never_win_fails(tmp_path):
    def change(net):
        net.params["score_fr"][1][5] -= 1e6

    code, checks, _ = verify_json(NET, write(tmp_path / "a.safetensors", change))
    assert code == 1
    assert results(checks, "fail") == ["classes"]
    assert checks["classes"]["got"].endswith("0 more by gradient ascent; not reached: kite")


def test_a_class_that_wins_in_none_of_the_images_is_found_by_gradient_ascent():
    net, about = load(), card.published_card(registry.NETS[NET])
    images = [mini_voc.draw_scenes(1)[0].rgb]
    tried = []
    (check,) = verify_labels.check_classes(net, about, images, tried.append)
    assert tried, "one scene does not have all classes"
    assert check.result is CheckResult.PASS
    assert check.got == f"{7 - len(tried)} classes in 1 drawn images, {len(tried)} more by gradient ascent"


def test_classes_in_another_order_are_not_seen_and_the_output_says_so(tmp_path):
    def change(net):
        for blob in (blob for layer in SCORES for blob in net.params[layer]):
            blob.copy_(blob[[1, 2, 3, 4, 5, 6, 0]].clone())

    path = write(tmp_path / "a.safetensors", change)
    code, checks, found = verify_json(NET, path)
    assert code == 3
    assert results(checks, "fail") == []
    assert found["limits"][0].startswith("Classes in another order")


def test_another_hash_fails(tmp_path):
    def change(net):
        net.params["conv1_1"][1][0] += 1e-7

    path = write(tmp_path / "a.caffemodel", change)
    entry = {
        "name": NET, "kind": "caffemodel", "url": "http://a.b/c", "path": "c", "licence": "none", "sha1": "1" * 40,
    }  # fmt: skip
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"format": 1, "entries": [entry]}))
    code, checks, _ = verify_json(NET, path, "--manifest", manifest)
    assert code == 1
    assert results(checks, "fail") == ["hash"]
    assert f"sha1 {hashlib.sha1(path.read_bytes()).hexdigest()}" in checks["hash"]["got"]
    assert f"sha1 {'1' * 40} of {NET}" in checks["hash"]["want"]


KNOWN = {"md5": "a" * 32, "sha256": "b" * 64}


def check_hash(tmp_path, *entries, form="caffemodel V1", recorded=None):
    path = tmp_path / "model"
    return verify.check_hash(Weights(None, format=form, path=str(path)), list(entries), KNOWN, recorded)


def published(**fields):
    more = {"kind": EntryKind.CAFFEMODEL} | fields
    return Entry("voc-fcn8s", url="http://a.b/fcn8s.caffemodel", path="x", licence="", **more)


@pytest.mark.parametrize(
    ("entries", "form", "result", "origin"),
    [
        ([published(sha256="b" * 64)], "caffemodel V1", "pass", "the published file, fcn8s.caffemodel"),
        ([published(sha256="c" * 64)], "caffemodel V1", "fail", ""),
        ([published(sha256="c" * 64)], "PyTorch", "not checked", ""),
        ([published()], "caffemodel V1", "not checked", ""),
        ([], "caffemodel V1", "not checked", ""),
        (
            [published(sha256="c" * 64), published(kind=EntryKind.COPY, md5="a" * 32, origin="converted")],
            "PyTorch", "pass", "converted",
        ),
    ],
)  # fmt: skip
def test_a_hash_is_compared_with_those_of_the_file_and_of_its_copies(tmp_path, entries, form, result, origin):
    check, found = check_hash(tmp_path, *entries, form=form)
    assert (check.result, found) == (result, origin)


def test_a_hash_that_changed_since_the_first_download_fails(tmp_path):
    note = tmp_path / "model.sha256"
    note.write_text(f"{'b' * 64}  model\n")
    check, _ = check_hash(tmp_path, published())
    assert (check.result, check.got[-26:]) == ("not checked", "; as at the first download")
    note.write_text(f"{'c' * 64}  model\n")
    check, _ = check_hash(tmp_path, published())
    assert (check.result, check.want) == ("fail", f"sha256 {'c' * 64}, recorded at the first download")


def test_the_size_of_a_caffemodel_is_that_of_its_parameters(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(FILE.read_bytes() + b"\0" * 70_000)
    check = verify.check_size(Weights(None, format="caffemodel V2", path=str(path)), load(), [])
    assert (check.result, check.got) == ("fail", "1,657,440 bytes")


def test_without_opencv_4_its_labels_are_not_checked(monkeypatch):
    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    code, checks, _ = verify_json(NET)
    assert (code, results(checks, "not checked"), results(checks, "fail")) == (3, ["OpenCV"], [])
    assert checks["OpenCV"]["got"] == "OpenCV 5.0.0, and only 4 reads these files"
    monkeypatch.setitem(sys.modules, "cv2", None)
    code, checks, _ = verify_json(NET)
    assert code == 3
    assert checks["OpenCV"]["got"] == "no OpenCV; install 'opencv-python-headless<5'"


def test_other_labels_than_opencvs_fail(monkeypatch):
    read = cv2.dnn.readNetFromCaffe

    def read_other(text, model):
        other = caffemodel.loads(model.tobytes(), NetParameter)
        fc7 = next(layer for layer in other.layer if layer.name == "fc7")
        fc7.blobs[0] = blobs.from_array(-blobs.to_array(fc7.blobs[0], ""))
        return read(text, np.frombuffer(caffemodel.dumps(other), np.uint8))

    monkeypatch.setattr(cv2.dnn, "readNetFromCaffe", read_other)
    code, checks, _ = verify_json(NET)
    assert code == 1
    assert results(checks, "fail") == ["OpenCV"]


@pytest.mark.parametrize("name", [name for name in datasets.NETS if name != "voc-fcn-alexnet"])
def test_the_parameters_of_every_net_can_be_checked(name):
    published = registry.NETS[name]
    net = load(name) if name.startswith("mini") else thin_nets.net(name)
    assert verify_parameters.check_fixed(net).result is CheckResult.PASS
    assert verify_parameters.check_learned(net).result is CheckResult.PASS
    assert verify_parameters.check_spread(net, published).result is CheckResult.PASS
    scored = verify_parameters.find_score_layers(net, published)
    assert {len(head.classes) for head in published.heads} == {len(net.params[layer][0]) for layer in scored}
    net.params[scored[-1]][0].data[0] *= 100
    assert verify_parameters.check_spread(net, published).result is CheckResult.FAIL


@pytest.mark.parametrize("name", ["nyud-fcn32s-color-d", "nyud-fcn32s-color-hha", "siftflow-fcn16s"])
def test_nets_with_several_inputs_or_labels_run_on_drawn_images_and_in_opencv(name, tmp_path, monkeypatch):
    thin_nets.patch(monkeypatch)
    monkeypatch.setattr(verify_labels, "STEPS", 2)
    climb, climbed = verify_labels._climb, []

    def climb_once(*args):
        if not climbed:
            climbed.append(climb(*args))
        return True

    monkeypatch.setattr(verify_labels, "_climb", climb_once)
    found = weights.read(thin_nets.write(tmp_path / "a.caffemodel", name))
    net, about = thin_nets.net(name), card.published_card(registry.NETS[name])
    images = [mini_voc.draw_scenes(1)[0].rgb]
    checks = list(verify_labels.check_classes(net, about, images))
    assert len(climbed) == 1
    assert len({check.name for check in checks}) == len(about.labels)
    check = verify_labels.check_opencv(net, registry.load_net(name), about, found, images[0])
    assert check.result is CheckResult.PASS, check


def test_a_copy_may_lack_the_constant_scales_but_no_other_layer(tmp_path):
    message = thin_nets.net("voc-fcn8s-atonce").to_proto()
    message.layer[:] = [layer for layer in message.layer if not layer.name.startswith("scale_")]
    path = tmp_path / "a.safetensors"
    weights.write(Weights(message, path=str(path)), path)
    found, net = weights.read(path), thin_nets.net("voc-fcn8s-atonce")
    absent = verify_parameters.find_absent_scales(net, found)
    assert len(absent) == 2
    check, is_complete = verify_parameters.copy_parameters(net, found)
    assert (check.result, is_complete) == ("pass", True)
    assert verify.check_size(found, net, []).result is CheckResult.PASS
    assert verify_parameters.check_fixed(net).result is CheckResult.PASS
    net.params[absent[0]][0].data[0] *= 2
    assert verify_parameters.check_fixed(net).got == f"1 other values in {absent[0]}"
