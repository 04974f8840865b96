"""The files that contenders read: the net with seeded weights as a caffemodel, and the same as ONNX and for ncnn."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from bench import nets as own_nets
from bench.contenders import Task
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net import export_net
from reproduction.caffe.net import net as nets
from reproduction.caffe.net.net import Net
from tests.golden import seeded


def write_files(task: Task, files: Collection[str]) -> dict[str, Any]:
    """Write the files, and return a message for each that cannot be written, by its name.

    Args:
        task: The net and the paths; the prototxt is written if it is a net of ``bench.nets``.
        files: Which files to write besides the caffemodel: ``onnx`` and ``ncnn``.
    """
    if task.net in own_nets.NETS:
        Path(task.deploy).write_text(prototxt.dumps(own_nets.NETS[task.net]()))
    torch.set_num_threads(task.threads)
    net = nets.load(task.deploy)
    fill_with_seeded_weights(net)
    caffemodel.dump(net.to_proto(), task.weights)
    failed = {}
    for name in files:
        try:
            _WRITERS[name](net, task)
        except Exception as error:  # a contender that lacks its file is a row with this reason
            failed[name] = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
    return failed


def _write_onnx(net: Net, task: Task) -> None:
    plan = export_net.plan_export(net, [task.output])
    Path(task.onnx).write_bytes(export_net.export_onnx(net, plan)[0].SerializeToString())


def _write_ncnn(net: Net, task: Task) -> None:
    from bench import ncnn_files

    ncnn_files.write(net, task.ncnn)


_WRITERS = {"onnx": _write_onnx, "ncnn": _write_ncnn}


def fill_with_seeded_weights(net: Net) -> None:
    """Replace the weights of a net by seeded ones that keep the spread of its blobs near 1.

    The scores of a deep net would otherwise be all alike, or infinite. Each layer is scaled by what it computes from a
    seeded image, and stored statistics are those of that image. Deconvolutions without bias upsample bilinearly.
    """
    height, width = net.blob_shapes[net.inputs[0]][2:]
    image = seeded.inputs(["data"], height, width, 1, 0)["data"]
    values = {name: torch.from_numpy(image[:, : net.blob_shapes[name][1]]) for name in net.inputs}
    with torch.no_grad():
        for node in net.graph.nodes:
            layer = net.layer_at(node)
            if layer is None:
                continue
            bottoms = [values.pop(bottom) for bottom in node.bottoms]  # each is read once, since Split makes copies
            if layer.blobs:
                _fill(layer, node.name, bottoms[0])
            tops = net.run(node, bottoms)
            if node.type in ("Convolution", "InnerProduct") or (node.type == "Deconvolution" and len(layer.blobs) > 1):
                spread = tops[0].std()
                for blob in layer.blobs:
                    blob.div_(spread)
                tops = tuple(top.div_(spread) for top in tops)
            values.update(zip(node.tops, tops, strict=True))


def _fill(layer: Layer, name: str, x: torch.Tensor) -> None:
    """Fill the blobs of a layer; x is its bottom."""
    kind, blobs = layer.layer_param.type, layer.blobs
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    made = [0.1 * torch.randn(blob.shape, generator=random) for blob in blobs]
    if kind == "Deconvolution" and len(blobs) == 1:
        made = [torch.from_numpy(seeded.make_weight(name, 0, tuple(blobs[0].shape), bilinear=True))]
    if kind in ("BatchNorm", "BN"):
        # Statistics of all channels together: a channel of one image varies little around its mean, and to subtract
        # that and divide by the deviation would amplify rounding in each layer, as no trained net does.
        spread, middle = torch.std_mean(x, correction=0)
        mean, variance = middle + spread * made[0].flatten(), spread**2 * (1 + made[1].flatten().abs())
        if kind == "BatchNorm":
            made = [mean, variance, torch.ones(1)]
        elif len(blobs) == 4:  # PSPNet's: slope, bias, mean and variance
            made = [torch.ones_like(mean), made[2], mean, variance]
        else:  # SegNet's: scale and shift
            made = [variance.rsqrt(), -mean * variance.rsqrt()]
    elif kind == "Scale":
        made[0] += 1
    for blob, values in zip(blobs, made, strict=True):
        blob.copy_(values.reshape(blob.shape))
