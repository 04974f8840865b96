"""Small copies of the published files as their hosts serve them (archives, lists, caffemodels), and their manifest.

Real formats in the published layouts: VOC as tar, SBD as tgz, SIFT Flow as zip, NYUDv2 as tar.gz.
"""

import hashlib
import json
from pathlib import Path

from tests.helpers import dataset_trees, thin_nets
from tests.helpers.http_servers import Site

SIZE = (60, 80)


class Host:
    """A folder to serve, and a manifest whose URLs point to it.

    Args:
        folder: The folder for all files.
        server: The server; the manifest says that the files are published below ``server.url/origin``.

    Attributes:
        site: The folder to serve.
        labels: The labels of each data set, as its writer in ``dataset_trees`` returned them.
        manifest: The path of the manifest.
    """

    def __init__(self, folder: Path, server: Site):
        self.folder, self.server = folder, server
        self.site = folder / "site"
        self.site.mkdir()
        self.manifest = folder / "manifest.json"
        self.labels = {}
        self._entries, self._sets = [], {}

    def voc(self, ids, trained=("2007_000032",), size=SIZE):
        """Add VOC 2011, SBD, and the list of images that are in VOC's val but not in SBD's train."""
        tree = self.folder / "voc"
        self.labels["voc"] = dataset_trees.voc(
            tree / "TrainVal" / "VOCdevkit" / "VOC2011", {"val": sorted([*ids, *trained])}, size=size
        )
        dataset_trees.sbd(
            self.folder / "sbd" / "benchmark_RELEASE" / "dataset", {"train": trained, "val": ["2008_000002"]}
        )
        dataset_trees.write_list(self.site / "seg11valid.txt", ids)
        holds = ["JPEGImages/*.jpg", "SegmentationClass/*.png", "ImageSets/Segmentation/*.txt"]
        self.archive("voc", "voc2011", tree, "VOCtrainval.tar", "pascal/VOC2011", holds)
        holds = ["dataset/img/*.jpg", "dataset/cls/*.mat", "dataset/train.txt"]
        self.archive("voc", "sbd", self.folder / "sbd", "benchmark.tgz", "sbdd", holds)
        self.add("voc", "seg11valid", "list", "seg11valid.txt", "splits/pascal/seg11valid.txt")

    def siftflow(self, ids, size=(40, 40)):
        """Add SIFT Flow and its lists."""
        tree = self.folder / "sift"
        self.labels["siftflow"] = dataset_trees.siftflow(tree / "SiftFlowDataset", {"test": ids}, size=size)
        (tree / "SiftFlowDataset" / "test.txt").rename(self.site / "test.txt")
        dataset_trees.write_list(self.site / "trainval.txt", ["coast_arnat59"])
        holds = [f"{kind}/{dataset_trees.SCENES}/*" for kind in ("Images", "SemanticLabels", "GeoLabels")]
        self.archive("siftflow", "siftflow", tree, "SiftFlowDataset.zip", "sift-flow", holds)
        for name in ("test", "trainval"):
            self.add("siftflow", f"siftflow-{name}", "list", f"{name}.txt", f"splits/sift-flow/{name}.txt")

    def nyud(self, ids, size=(40, 50)):
        """Add NYUDv2 and its lists."""
        tree = self.folder / "nyu"
        self.labels["nyud"] = dataset_trees.nyud(tree / "nyud", {"test": ids}, size=size)
        self.archive("nyud", "nyud", tree, "nyud.tar.gz", "nyud", ["data/images/*.png", "segmentation/*.mat"])

    def archive(self, name, entry, tree, file, place, holds):
        """Pack a folder and add the archive."""
        dataset_trees.pack(tree, self.site / file)
        self.add(name, entry, "archive", file, f"archives/{file}", archive={"folder": place, "holds": holds})

    def net(self, name, file, divisor=32):
        """Write a net's seeded weights and add the file."""
        thin_nets.write(self.site / file, name, divisor)
        self.add(name.split("-")[0], name, "caffemodel", file, file)

    def add(self, name, entry, kind, file, path, **more):
        """Add a file of ``site`` to the manifest, with its size and its SHA-1."""
        found = self.site / file
        with found.open("rb") as opened:
            digest = {"sha1": hashlib.file_digest(opened, "sha1").hexdigest()}
        url = f"{self.server.url}/origin/{file}"
        fields = {"name": entry, "kind": kind, "url": url, "path": path, "licence": "none"}
        self._entries.append(fields | {"size_bytes": found.stat().st_size} | digest | more)
        self._sets.setdefault(name, []).append(entry)
        unpublished = ["nyud-fcn32s-color-d"]
        text = {"format": 1, "sets": self._sets, "unpublished": unpublished, "entries": self._entries}
        self.manifest.write_text(json.dumps(text))
