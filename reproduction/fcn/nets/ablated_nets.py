"""Records of nets that the paper compares its nets with, derived from the published ones; no weights of them exist."""

from __future__ import annotations

from dataclasses import fields, replace

from reproduction.caffe.net.netspec import NetSpec
from reproduction.fcn.datasets.spec import NetRecord, PublishedNet
from reproduction.fcn.nets import parts, published_nets, registry
from reproduction.fcn.nets.systems.system import System


def score_pool(set_name: str, number: int) -> System:
    """Return the record of a net that predicts from one pooling alone, without the layers after it.

    Args:
        set_name: the data set, whose net of stride 32 has the layers up to the pooling.
        number: of the pooling, 1 to 5; the net's stride is 2 to that power.

    Source: Shelhamer et al., PAMI 2016 (FCN-pool5, -pool4 and -pool3 in the table on VOC 2011 val).
    """
    base = find_net(set_name, 32)
    pool = f"pool{number}"

    def add_layers(n: NetSpec, record: System) -> None:
        (head,) = record.heads
        last = published_nets.vgg16_blocks(n, replace(base, blocks=base.blocks[:number]), "data")
        scores = n[f"score_{pool}"] = parts.score(last, len(head.classes))
        parts.add_dense_scores(n, head, record, scores, 2**number)

    values = {field.name: getattr(base, field.name) for field in fields(NetRecord)}
    values |= {"name": f"{set_name}-{pool}", "stride": 2**number, "caffemodel": None}
    return System(**values, add_layers=add_layers, new_layers=(f"score_{pool}",), follows="Shelhamer et al., PAMI 2016")


def add_skip(set_name: str, stride: int) -> PublishedNet:
    """Return the record of a net with more skips than FCN-8s, which starts from the net with one less.

    Args:
        set_name: the data set, which has an FCN-8s.
        stride: 4 or 2.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.2 (fusing even lower layers).
    """
    base = find_net(set_name, 8)
    return replace(
        base,
        name=f"{set_name}-fcn{stride}s",
        stride=stride,
        parents={f"{set_name}-fcn{2 * stride}s": ""},
        caffemodel=None,
    )


def upsample_nearest(set_name: str) -> PublishedNet:
    """Return the record of an FCN-8s that repeats scores, instead of interpolating them bilinearly.

    Args:
        set_name: the data set, which has an FCN-8s.
    """
    return replace(find_net(set_name, 8), name=f"{set_name}-fcn8s-nearest", nearest=True, caffemodel=None)


def find_net(set_name: str, stride: int) -> PublishedNet:
    """Return the record of the published net of a data set and stride, such as ``voc-fcn8s``.

    Raises:
        ReproductionError: If there is no such net.
    """
    record = registry.find_net(f"{set_name}-fcn{stride}s")
    assert isinstance(record, PublishedNet)
    return record
