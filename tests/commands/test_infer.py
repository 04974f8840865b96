"""fcn infer: its files and output, and the errors that it raises before it writes anything."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduction.caffe.errors import DataError, ReproductionError, WeightsError
from reproduction.caffe.formats import prototxt, weights
from reproduction.commands import bars
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.images import palette
from reproduction.fcn.segment.segmenter import Segmenter
from tests.golden import seeded
from tests.helpers import dataset_trees, small_mini_voc, thin_nets
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Narrow nets, each as a folder with a deploy.prototxt and as a file of weights."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("voc-fcn8s", "siftflow-fcn32s", "nyud-fcn32s-color-hha"):
        (folder / name).mkdir()
        prototxt.dump(thin_nets.deploy(name), folder / name / "deploy.prototxt")
        thin_nets.write(folder / f"{name}.caffemodel", name)
    thin_nets.write(folder / "other.caffemodel", "voc-fcn8s", seed=2)
    return folder


@pytest.fixture
def infer(shelf, tmp_path, monkeypatch, capsys):
    """Run the tool in an empty folder, with a narrow net unless told otherwise; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("reproduction.commands.infer")

    def run(*args, net="voc-fcn8s"):
        model = ["--weights", str(shelf / f"{net}.caffemodel")]
        monkeypatch.setattr(sys, "argv", ["infer.py", "--net", str(shelf / net), *model, *map(str, args)])
        code = module.main()
        return code, capsys.readouterr()

    return run


def picture(path, seed=1, size=(30, 41)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    Image.fromarray(seeded.synth_image(height, width, seed)).save(path)
    return path


def files(folder="."):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def read(path):
    with Image.open(path) as image:
        return np.array(image), image.mode


def test_a_picture_becomes_labels_an_overlay_and_a_legend(infer, shelf):
    picture("photo.jpg")
    code, said = infer("photo.jpg", "-o", "out")
    assert code == 0
    assert files("out") == ["photo.png", "photo_legend.png", "photo_overlay.png", "photo_overview.png"]
    want = Segmenter.load(shelf / "voc-fcn8s", shelf / "voc-fcn8s.caffemodel")("photo.jpg")
    labels, mode = read("out/photo.png")
    assert mode == "P"
    np.testing.assert_array_equal(labels, want.labels)
    rgb, _ = read("photo.jpg")
    np.testing.assert_array_equal(read("out/photo_overlay.png")[0], palette.overlay(rgb, labels))
    np.testing.assert_array_equal(read("out/photo_legend.png")[0], palette.draw_legend(want.shares))
    lines = said.out.splitlines()
    assert lines[0].startswith("photo.jpg: 41 x 30, ")
    assert lines[1:-1] == palette.format_legend(want.shares)
    assert lines[-1] == "  " + ", ".join(f"out/photo{part}.png" for part in ("", "_overlay", "_legend", "_overview"))
    assert said.err == ""


def test_folders_keep_their_order_patterns_lie_side_by_side_and_sizes_may_differ(infer):
    picture("trip/a.jpg")
    picture("trip/deep/a.png", size=(20, 50))
    picture("x1.tif", size=(61, 33))
    picture("x2.tif")
    Path("trip/notes.txt").write_text("no picture")
    code, _ = infer("trip", "x*.tif", "x1.tif", "-o", "out")
    assert code == 0
    assert [name for name in files("out") if "_" not in name] == ["a.png", "deep/a.png", "x1.png", "x2.png"]
    assert read("out/deep/a.png")[0].shape == (20, 50)
    assert read("out/x1.png")[0].shape == (61, 33)


def test_results_inside_a_folder_of_pictures_are_not_pictures_the_next_time(infer):
    picture("trip/a.jpg")
    for _ in range(2):
        assert infer("trip", "-o", "trip/out")[0] == 0
    assert files("trip") == ["a.jpg", "out/a.png", "out/a_legend.png", "out/a_overlay.png", "out/a_overview.png"]


def test_scores_are_those_that_the_labels_come_from(infer):
    picture("photo.jpg")
    infer("photo.jpg", "--scores", "-o", "out")
    with np.load("out/photo_scores.npz") as scores:
        assert scores.files == ["score"]
        assert scores["score"].dtype == np.float32
        np.testing.assert_array_equal(scores["score"].argmax(0), read("out/photo.png")[0])


def test_a_net_with_two_labellings_writes_both(infer):
    picture("photo.jpg")
    code, said = infer("photo.jpg", "--scores", "-o", "out", net="siftflow-fcn32s")
    assert code == 0
    parts = [f"{top}{part}" for top in ("", "_geo") for part in ("", "_legend", "_overlay", "_overview")]
    assert files("out") == sorted([*(f"photo{part}.png" for part in parts), "photo_scores.npz"])
    with np.load("out/photo_scores.npz") as scores:
        np.testing.assert_array_equal(scores["score_geo"].argmax(0), read("out/photo_geo.png")[0])
    assert "out/photo_geo.png" in said.out


def test_json_says_what_the_text_says(infer):
    picture("photo.jpg")
    _, said = infer("photo.jpg", "--json", "-o", "out")
    (report,) = json.loads(said.out)
    assert report["image"] == "photo.jpg"
    assert report["size"] == [30, 41]
    found = report["labels"]["label"]
    assert found["png"] == "out/photo.png"
    assert sum(share["pixels"] for share in found["shares"]) == 30 * 41
    assert found["shares"][0].keys() == {"label", "name", "pixels", "share"}


def test_how_far_it_is_is_shown_for_several_images(infer, monkeypatch):
    shown = []

    class Bars(bars.Bars):
        def __call__(self, what, unit="B"):
            return lambda done, total: None if self._quiet else shown.append((what, unit, done, total))

    monkeypatch.setattr(sys.modules["reproduction.commands.infer"], "Bars", Bars)
    picture("in/a.png")
    picture("in/b.png")
    infer("in", "--json")
    assert shown == [("images", "image", 1, 2), ("images", "image", 2, 2)]
    infer("in")
    assert len(shown) == 4
    infer("in", "-q")
    infer("in/a.png")
    assert len(shown) == 4


def test_quiet_prints_nothing_and_labels_only_draws_nothing(infer):
    picture("photo.jpg")
    code, said = infer("photo.jpg", "-q", "--labels-only", "-o", "out", net="siftflow-fcn32s")
    assert (code, said.out, said.err) == (0, "", "")
    assert files("out") == ["photo.png", "photo_geo.png"]
    _, said = infer("photo.jpg", "--labels-only", "-o", "out2")
    assert said.out.endswith("\n  out2/photo.png\n")


def stamps(folder="out"):
    return {name: (Path(folder) / name).stat().st_mtime_ns for name in files(folder)}


def test_what_is_there_is_skipped_and_said(infer):
    picture("in/a.png")
    picture("in/b.png", seed=2)
    _, first = infer("in", "--json", "-o", "out")
    before = stamps()
    code, said = infer("in", "--json", "-o", "out")
    assert code == 0
    assert said.err == "note: 2 of 2 images were segmented before; --overwrite segments again.\n"
    assert stamps() == before
    known = [result | {"seconds": 0.0, "skipped": True} for result in json.loads(first.out)]
    assert json.loads(said.out) == known
    _, said = infer("in/a.png", "--labels-only", "-o", "out")
    assert said.out.startswith("in/a.png: 41 x 30, segmented before\n")
    assert said.err == "note: the image was segmented before; --overwrite segments again.\n"
    _, said = infer("in", "--overwrite", "-o", "out")
    assert said.err == ""
    assert {name for name, stamp in stamps().items() if stamp == before[name]} == set()


def test_what_would_differ_is_segmented_again(infer, shelf):
    def changed(*args, **more):
        before = stamps()
        assert infer("a.png", "-o", "out", *args, **more)[0] == 0
        return {name for name, stamp in stamps().items() if stamp != before.get(name)}

    picture("a.png")
    infer("a.png", "-o", "out")
    parts = {"a.png", "a_legend.png", "a_overlay.png", "a_overview.png"}
    assert changed() == set()
    assert changed("--scores") == {*parts, "a_scores.npz"}
    assert changed() == set()
    assert changed("--precision", "plain") == parts
    assert changed("--precision", "plain", "--labels-only") == set()
    Path("out/a_legend.png").unlink()
    assert changed("--precision", "plain") == parts
    pytest.importorskip("openvino", reason="openvino is not installed: pip install -e '.[fast]'")
    assert changed("--engine", "openvino") == parts
    assert changed("--engine", "openvino") == set()
    picture("a.png", seed=3)
    assert changed() == parts
    assert changed("--weights", shelf / "other.caffemodel") == parts
    assert changed("--labels-only") == {"a.png"}
    assert changed() == parts, "the drawings are those of other weights"
    for broken in (b"", b"\x89PNG", Path("a.png").read_bytes()):
        Path("out/a.png").write_bytes(broken)
        assert changed() == parts


def test_images_are_computed_in_batches_of_one_size(infer, monkeypatch):
    sizes, segment = [], Segmenter.segment_batch

    def spy(self, inputs, **more):
        sizes.append(len(inputs))
        return segment(self, inputs, **more)

    monkeypatch.setattr(Segmenter, "segment_batch", spy)
    for number in range(5):
        picture(f"in/{number}.png", seed=number, size=(30, 41) if number % 2 else (41, 30))
    Path("in/6.png").write_bytes(b"broken")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(seeded.synth_image(41, 30, 7)).save("in/7.jpg", exif=turned)
    code, said = infer("in", "--json", "-o", "out")
    assert code == 1
    assert said.err.splitlines()[0].startswith("error: in/6.png: not an image in a known format")
    assert [Path(result["image"]).name for result in json.loads(said.out)] == [*(f"{i}.png" for i in range(5)), "7.jpg"]
    assert sorted(sizes) == [1, 2, 3]
    sizes.clear()
    infer("in", "--json", "-o", "out2", "--batch", 1)
    assert sizes == [1] * 6


def folder_bytes(folder):
    return {name: (Path(folder) / name).read_bytes() for name in files(folder)}


def test_processes_share_a_folder_and_resume_to_the_files_of_one(shelf, tmp_path, monkeypatch):
    for number in range(12):
        picture(tmp_path / f"in/{number % 3}/{number}.png", seed=number, size=(30, 41) if number % 4 else (45, 20))
    environment = dict(os.environ, OMP_NUM_THREADS="1", MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    model = [
        "--net",
        str(shelf / "voc-fcn8s"),
        "--weights",
        str(shelf / "voc-fcn8s.caffemodel"),
        "--scores",
        "--batch",
        "2",
    ]

    def start(*launcher, options=()):
        command = [sys.executable, *launcher, "-m", "reproduction", "infer", "in", *model, "-o", "two", *options]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    stopped = start()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module("reproduction.commands.infer").main(["in", *model, "-o", "one", "-q"]) == 0
    torch.set_num_threads(threads)
    while stopped.poll() is None and not list(tmp_path.glob("two/*/*.npz")):
        time.sleep(0.01)
    stopped.kill()
    stopped.communicate()
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two = start(*torchrun, options=["--json"])
    out, err = two.communicate()
    assert two.returncode == 0, err
    results = json.loads(out)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "in").rglob("*.png"))
    assert [result["image"] for result in results] == names
    want, got = folder_bytes(tmp_path / "one"), folder_bytes(tmp_path / "two")
    assert len(want) == 12 * 5
    differing = {name for name in want if got.get(name) != want[name]}
    assert not differing
    assert want.keys() == got.keys()


def test_hha_pictures_are_found_by_name(infer):
    dataset_trees.nyud(Path("nyud"), {"test": ["5001"]})
    args = ("nyud/data/images", "--hha", "nyud/data/hha", "-o", "out")
    assert infer(*args, net="nyud-fcn32s-color-hha")[0] == 0
    assert files("out") == ["img_5001.png", *(f"img_5001_{part}.png" for part in ("legend", "overlay", "overview"))]
    Path("nyud/data/hha/img_5001.png").unlink()
    code, said = infer(*args, net="nyud-fcn32s-color-hha")
    assert code == 1
    assert said.err == (
        "error: nyud/data/hha: no image here belongs to nyud/data/images/img_5001.png; want img_5001.png.\n"
    )


def test_a_net_that_needs_more_than_a_photograph_says_so_first(infer):
    picture("photo.jpg")
    with pytest.raises(ReproductionError) as info:
        infer("photo.jpg", net="nyud-fcn32s-color-hha")
    assert str(info.value) == (
        "nyud-fcn32s-color-hha needs HHA images (disparity, height, angle). Name their folder with --hha DIR."
    )
    assert files() == ["photo.jpg"]


def test_pictures_that_a_net_does_not_take_are_not_ignored(infer):
    picture("photo.jpg")
    with pytest.raises(ReproductionError) as info:
        infer("photo.jpg", "--depth", "depths")
    assert str(info.value) == "voc-fcn8s does not use depth images (16-bit millimetres). Leave --depth out."


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("one/a.jpg", "two/a.jpg"), "out/a.png: one/a.jpg and two/a.jpg would both be written here"),
        (("a.jpg", "a.tif"), "out/a.png: a.jpg and a.tif would both be written here"),
        (("a.jpg", "a_overlay.jpg"), "out/a_overlay.png: a.jpg and a_overlay.jpg would both be written here"),
        (("a.jpg", "two/A.jpg"), "out/A.png: a.jpg and two/A.jpg would both be written here"),
    ],
)
def test_two_pictures_are_never_written_to_one_place(infer, names, problem):
    for name in names:
        picture(name)
    before = files()
    with pytest.raises(DataError) as info:
        infer(*names, "-o", "out")
    assert str(info.value) == f"{problem}. Rename one, or segment them into two folders."
    assert files() == before


def test_a_picture_is_never_replaced_by_its_result(infer):
    picture("a.png")
    with pytest.raises(DataError) as info:
        infer("a.png", "-o", ".")
    assert str(info.value) == "a.png: the result would replace the image a.png. Choose another folder with -o."


def test_a_broken_picture_does_not_stop_the_others(infer):
    picture("a.jpg")
    Path("b.jpg").write_text("<html>")
    picture("c.jpg")
    code, said = infer("a.jpg", "b.jpg", "c.jpg", "-o", "out")
    assert code == 1
    assert said.err == (
        "error: b.jpg: not an image in a known format; got a file that begins with b'<html>', want"
        " one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP.\n"
        "error: 1 of 3 images could not be segmented.\n"
    )
    assert [name for name in files("out") if "_" not in name] == ["a.png", "c.png"]


def test_nothing_to_segment_is_an_error(infer):
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"^empty: there is no image in this folder\.$"):
        infer("empty")
    with pytest.raises(DataError, match=r"^no\*\.jpg: no file matches this pattern\.$"):
        infer("no*.jpg")
    with pytest.raises(DataError, match=r"^no\.jpg: the image cannot be read \(no such file or directory\)\.$"):
        infer("no.jpg", "--weights", "missing-too.caffemodel")


def test_an_output_folder_that_cannot_be_is_an_error(infer):
    picture("a.jpg")
    Path("out").write_text("a file")
    with pytest.raises(FileExistsError, match="'out'"):
        infer("a.jpg", "-o", "out")


def test_weights_that_are_not_here_come_with_the_command_that_fetches_them(infer, monkeypatch):
    module = sys.modules["reproduction.commands.infer"]
    picture("a.jpg")
    monkeypatch.setenv("REPRODUCTION_HOME", ".")
    monkeypatch.setattr(sys, "argv", ["infer.py", "a.jpg"])
    with pytest.raises(WeightsError) as info:
        module.main()
    assert str(info.value) == (
        "weights/fcn8s-heavy-pascal.caffemodel: the weights of voc-fcn8s are missing."
        " Fetch them with `fcn fetch voc-fcn8s`, or name yours with --weights."
        " Without any download: `fcn reproduce mini`, or `fcn infer photo.jpg --net mini-fcn8s`."
    )
    monkeypatch.setattr(sys, "argv", ["infer.py", "--net", "nyud-fcn32s-color-d", "--depth", "d", "a.jpg"])
    with pytest.raises(WeightsError) as info:
        module.main()
    assert str(info.value) == "no weights of nyud-fcn32s-color-d were published. Name your own with --weights."


def test_fetched_and_converted_weights_are_found_without_being_named(infer, shelf, monkeypatch):
    module = sys.modules["reproduction.commands.infer"]
    picture("a.jpg")
    Path("weights").mkdir()
    monkeypatch.setenv("REPRODUCTION_HOME", ".")
    model = weights.read(shelf / "voc-fcn8s.caffemodel")
    for name in ("fcn8s-heavy-pascal.safetensors", "fcn8s-heavy-pascal.caffemodel"):
        weights.write(model, Path("weights") / name)
        monkeypatch.setattr(sys, "argv", ["infer.py", "--net", str(shelf / "voc-fcn8s"), "a.jpg"])
        assert module.main() == 0
    assert "segmented/a.png" in files()


def test_a_mini_net_says_its_own_classes_and_that_it_knows_no_photographs(infer, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRODUCTION_HOME", str(small_mini_voc.weights(tmp_path / "weights").parent))
    picture("photo.jpg", size=(60, 70))
    monkeypatch.setattr(sys, "argv", ["infer.py", "photo.jpg", "--net", "mini-fcn8s", "--json"])
    assert sys.modules["reproduction.commands.infer"].main() == 0
    said = capsys.readouterr()
    assert said.err == (
        "note: mini-fcn8s recognizes drawn things only, no photographs; its results on other images mean nothing.\n"
    )
    assert json.loads(said.out)[0]["knows"] == "drawn things only, no photographs"
    made = Segmenter.load("mini-fcn8s", "weights/mini/mini-fcn8s.caffemodel")
    names = {share.name for share in made("photo.jpg").shares}
    assert len(names) > 1
    assert names <= set(mini_voc.CLASSES)
    dataset_mean = np.array((104.00699, 116.66877, 122.67892))
    data = (read("photo.jpg")[0][:, :, ::-1] - dataset_mean).astype(np.float32).transpose(2, 0, 1)[None].copy()
    with torch.no_grad():
        labels = made.net({"data": data}, ["score"])["score"][0].argmax(0)
    np.testing.assert_array_equal(read("segmented/photo.png")[0], labels.numpy())
    legend = palette.draw_legend(
        made("photo.jpg").shares, note="mini-fcn8s recognizes drawn things only, no photographs"
    )
    np.testing.assert_array_equal(read("segmented/photo_legend.png")[0], legend)


def test_from_the_shell_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    command = [sys.executable, str(ROOT / "tools/infer.py"), "--net", "voc-fcn8", "a.jpg"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: there is no net 'voc-fcn8'. Did you mean 'voc-fcn8s'?\n"
