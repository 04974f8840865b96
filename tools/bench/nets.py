"""The nets of the benchmark that have no folder in ``prototxt/``: classifiers, SegNet and PSPNet, from their tables.

Names of layers are this project's; types, shapes and the number of parameters are those of the published prototxts.
A net that ``tests.helpers.classifiers`` builds is not written a second time.

Source: forresti/SqueezeNet@51147dc SqueezeNet_v1.1/deploy.prototxt; shicai/MobileNet-Caffe@a0b0c46
mobilenet_v2_deploy.prototxt; shicai/DenseNet-Caffe@d47f7b7 DenseNet_121.prototxt; soeaver/caffe-model@49dc8e0
cls/inception/deploy_inception-v3.prototxt and -v4.prototxt; KaimingHe/deep-residual-networks@a7026cb
prototxt/ResNet-101-deploy.prototxt; alexgkendall/SegNet-Tutorial@bb68b64 Models/segnet_inference.prototxt;
hszhao/PSPNet@798bdc9 evaluation/prototxt/pspnet50_ADE20K_473.prototxt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from reproduction.caffe.net.netspec import Top, layers
from reproduction.caffe.schema import NetParameter
from tests.helpers import classifiers


class Builder(classifiers.Chain):
    """A chain of layers with convolutions that are normalized, and modules of parallel branches.

    Args:
        height: Height of the images in pixels.
        width: Width of the images; None for square ones.
        eps: What BatchNorm adds to the variance; None for Caffe's default.
    """

    def __init__(self, height: int, width: int | None = None, eps: float | None = None):
        super().__init__(3, height, 1)
        self.end.function.layer_param.input_param.shape[0].dim[3] = width or height
        self.eps = {} if eps is None else {"eps": eps}
        self.count = 0

    def norm(self, name: str, *, relu: bool = True, in_place: bool = True) -> Top:
        """Append BatchNorm with stored statistics, Scale and ReLU."""
        self.put(f"{name}_bn", "BatchNorm", in_place=in_place, use_global_stats=True, **self.eps)
        self.put(f"{name}_scale", "Scale", in_place=True, bias_term=True)
        if relu:
            self.relu(name)
        top: Top = self.end
        return top

    def normed(self, name: str, count: int, kernel: int = 1, relu: bool = True, **fields: Any) -> Top:
        """Append a convolution without bias that keeps the size at stride 1, and normalize it."""
        self.plain(name, count, kernel, **{"pad": kernel // 2, **fields})
        return self.norm(name, relu=relu)

    def plain(self, name: str, count: int, kernel: int = 1, **fields: Any) -> Top:
        """Append a convolution without bias."""
        top: Top = self.put(name, "Convolution", num_output=count, kernel_size=kernel, bias_term=False, **fields)
        return top

    def steps(self, text: str) -> None:
        """Append what the words of ``text`` say: ``64:3`` is a normalized convolution to 64 channels with a 3x3 kernel.

        ``64:1x7`` has a kernel of height 1 and width 7. Kernels are padded to keep the size, but not after ``v``.
        ``/2`` is the stride. ``max3/2`` and ``ave3`` are poolings; average pooling is padded.
        """
        for word in text.split():
            self.count += 1
            name = f"{word.partition('/')[0].replace(':', '_')}_{self.count}"
            match = re.fullmatch(r"(max|ave|(\d+):)(\d+)x?(\d*)(v?)/?(\d*)", word)
            assert match, word
            kind, count, height, width, bare, stride = match.groups()
            pads = {"pad_h": int(height) // 2, "pad_w": int(width or height) // 2}
            if count is None:
                pad = 1 if not stride else 0
                self.put(name, "Pooling", pool=kind.upper(), kernel_size=int(height), stride=int(stride or 1), pad=pad)
                continue
            kernel = {"kernel_h": int(height), "kernel_w": int(width or height)} | ({} if bare else pads)
            fields = {"num_output": int(count), "bias_term": False, "stride": int(stride or 1)}
            self.put(name, "Convolution", **fields, **kernel)
            self.norm(name)

    def branches(self, name: str, *paths: str) -> None:
        """Append parallel branches and concatenate them; ``|`` in the last word of a branch divides it once more."""
        bottom, tops = self.end, []
        for path in paths:
            *common, last = path.split()
            self.end = bottom
            self.steps(" ".join(common))
            fork = self.end
            for part in last.split("|"):
                self.end = fork
                self.steps(part)
                tops.append(self.end)
        self.put(name, "Concat", *tops)

    def classify_pooled(self, *, dropout: bool = False) -> NetParameter:
        """Append global average pooling and the 1000 classes of ImageNet."""
        self.put("pool", "Pooling", pool="AVE", global_pooling=True)
        if dropout:
            self.put("drop", "Dropout", in_place=True)
        self.dense("classifier", 1000)
        return self.finish("prob", "Softmax")

    def finish(self, name: str, kind: str, **fields: Any) -> NetParameter:
        """Append the last layer, and return the net."""
        self.put(name, kind, **fields)
        return self.net.to_proto()


def squeezenet() -> NetParameter:
    """Return SqueezeNet 1.1."""
    net = Builder(227)
    net.conv("conv1", 64, 3, stride=2)
    net.pool("pool1", 3, 2)
    for index, (squeezed, expanded) in enumerate([(16, 64), (32, 128), (48, 192), (64, 256)]):
        for number in (2 * index + 2, 2 * index + 3):
            bottom = net.conv(f"fire{number}/squeeze1x1", squeezed, 1)
            parts = [net.conv(f"fire{number}/expand1x1", expanded, 1)]
            parts.append(net.conv(f"fire{number}/expand3x3", expanded, 3, bottom=bottom, pad=1))
            net.put(f"fire{number}/concat", "Concat", *parts)
            if number in (3, 5):
                net.pool(f"pool{number}", 3, 2)
    net.put("drop9", "Dropout", in_place=True)
    net.conv("conv10", 1000, 1)
    net.put("pool10", "Pooling", pool="AVE", global_pooling=True)
    return net.finish("prob", "Softmax")


def mobilenet_v2() -> NetParameter:
    """Return MobileNet v2, with the strides of its publication for Caffe."""
    net = Builder(224, eps=1e-5)
    net.normed("conv1", 32, 3, stride=2)
    before = 32
    # Output channels, stride, and how many blocks there are of them.
    table = [(16, 1, 1), (24, 2, 1), (24, 1, 1), (32, 2, 1), (32, 1, 2), (64, 1, 4), (96, 2, 1), (96, 1, 2),
             (160, 2, 1), (160, 1, 2), (320, 1, 1)]  # fmt: skip
    for count, stride, _ in [row for row in table for _ in range(row[2])]:
        bottom, wide = net.end, before * (6 if count > 16 else 1)
        net.count += 1
        name = f"block{net.count}"
        net.normed(f"{name}/expand", wide)
        net.normed(f"{name}/dwise", wide, 3, stride=stride, group=wide)
        net.normed(f"{name}/linear", count, relu=False)
        if count == before:
            net.put(name, "Eltwise", bottom, net.end)
        before = count
    net.normed("conv_last", 1280)
    net.put("pool6", "Pooling", pool="AVE", global_pooling=True)
    net.put("fc7", "Convolution", num_output=1000, kernel_size=1)
    return net.finish("prob", "Softmax")


def densenet121() -> NetParameter:
    """Return DenseNet-121, whose layers normalize the concatenation of all before them."""
    net = Builder(224, eps=1e-5)
    net.normed("conv1", 64, 7, stride=2)
    net.pool("pool1", 3, 2, pad=1, ceil_mode=False)
    channels = 64
    for stage, blocks in enumerate((6, 12, 24, 16), 2):
        for block in range(1, blocks + 1):
            name, bottom = f"conv{stage}_{block}", net.end
            net.norm(f"{name}/x1", in_place=False)
            net.plain(f"{name}/x1", 128)
            net.norm(f"{name}/x2")
            net.plain(f"{name}/x2", 32, 3, pad=1)
            net.put(f"{name}/concat", "Concat", bottom, net.end)
            channels += 32
        net.norm(f"conv{stage}_blk", in_place=False)
        if stage < 5:
            channels //= 2
            net.plain(f"conv{stage}_blk", channels)
            net.pool(f"pool{stage}", 2, 2, pool="AVE")
    net.put("pool5", "Pooling", pool="AVE", global_pooling=True)
    return net.finish("fc6", "Convolution", num_output=1000, kernel_size=1)


def inception_v3() -> NetParameter:
    """Return Inception v3."""
    net = Builder(299, eps=0.001)
    net.steps("32:3v/2 32:3v 64:3 max3/2 80:1 192:3v max3/2")
    for index, count in enumerate((32, 64, 64), 1):
        net.branches(f"a{index}", "64:1", "48:1 64:5", "64:1 96:3 96:3", f"ave3 {count}:1")
    net.branches("reduction_a", "384:3v/2", "64:1 96:3 96:3v/2", "max3/2")
    for index, n in enumerate((128, 160, 160, 192), 1):
        deep = f"{n}:1 {n}:7x1 {n}:1x7 {n}:7x1 192:1x7"
        net.branches(f"b{index}", "192:1", f"{n}:1 {n}:1x7 192:7x1", deep, "ave3 192:1")
    net.branches("reduction_b", "192:1 320:3v/2", "192:1 192:1x7 192:7x1 192:3v/2", "max3/2")
    for index, pool in enumerate(("ave3", "max3"), 1):
        net.branches(
            f"c{index}", "320:1", "384:1 384:1x3|384:3x1", "448:1 384:3 384:1x3|384:3x1", f"{pool} 192:1"
        )  # fmt: skip
    return net.classify_pooled(dropout=True)


def inception_v4() -> NetParameter:
    """Return Inception v4."""
    net = Builder(299, eps=0.001)
    net.steps("32:3v/2 32:3v 64:3")
    net.branches("stem1", "max3/2", "96:3v/2")
    net.branches("stem2", "64:1 96:3v", "64:1 64:1x7 64:7x1 96:3v")
    net.branches("stem3", "192:3v/2", "max3/2")
    for index in range(4):
        net.branches(f"a{index + 1}", "96:1", "64:1 96:3", "64:1 96:3 96:3", "ave3 96:1")
    net.branches("reduction_a", "384:3v/2", "192:1 224:3 256:3v/2", "max3/2")
    for index in range(7):
        deep = "192:1 192:7x1 224:1x7 224:7x1 256:1x7"
        net.branches(f"b{index + 1}", "384:1", "192:1 224:1x7 256:7x1", deep, "ave3 128:1")
    net.branches("reduction_b", "192:1 192:3v/2", "256:1 256:1x7 320:7x1 320:3v/2", "max3/2")
    for index in range(3):
        deep = "384:1 448:3x1 512:1x3 256:1x3|256:3x1"
        net.branches(f"c{index + 1}", "256:1", "384:1 256:1x3|256:3x1", deep, "ave3 256:1")
    return net.classify_pooled(dropout=True)


def segnet() -> NetParameter:
    """Return SegNet for CamVid: VGG16's convolutions, and a decoder that puts values back where pooling took them."""
    net = Builder(360, 480)
    plan, masks = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], []

    def conv(name: str, count: int) -> None:
        net.put(name, "Convolution", num_output=count, kernel_size=3, pad=1)
        net.put(f"{name}_bn", "BN", in_place=True, bn_param={"bn_mode": "INFERENCE"})
        net.relu(name)

    for block, (count, convolutions) in enumerate(plan, 1):
        for index in range(convolutions):
            conv(f"conv{block}_{index + 1}", count)
        net.end, mask = layers("Pooling", net.end, ntop=2, pool="MAX", kernel_size=2, stride=2)
        net.net[f"pool{block}"], net.net[f"pool{block}_mask"] = net.end, mask
        masks.append(mask)
    sizes = [{}, {}, {}, {"upsample_w": 60, "upsample_h": 45}, {"upsample_w": 30, "upsample_h": 23}]
    for block in range(5, 0, -1):
        net.put(f"upsample{block}", "Upsample", net.end, masks[block - 1], scale=2, **sizes[block - 1])
        count, convolutions = plan[block - 1]
        narrow = plan[max(block - 2, 0)][0]
        for index in range(convolutions, 0, -1):
            if block > 1 or index > 1:
                conv(f"conv{block}_{index}_D", count if index > 1 else narrow)
    net.put("conv1_1_D", "Convolution", num_output=11, kernel_size=3, pad=1)
    return net.finish("prob", "Softmax")


def pspnet50() -> NetParameter:
    """Return PSPNet on ResNet-50 for ADE20K: dilated stages, and pooling over pyramids of regions."""
    net = Builder(473)

    def conv(name: str, count: int, kernel: int = 1, relu: bool = True, **fields: Any) -> Top:
        net.plain(name, count, kernel, **fields)
        net.put(f"{name}/bn", "BN", in_place=True, bn_param={"frozen": True})
        return net.relu(name) if relu else net.end

    for index, (count, stride) in enumerate([(64, 2), (64, 1), (128, 1)], 1):
        conv(f"conv1_{index}_3x3", count, 3, pad=1, stride=stride)
    net.pool("pool1", 3, 2, pad=1)
    for stage, (count, blocks, dilation) in enumerate([(64, 3, 1), (128, 4, 1), (256, 6, 2), (512, 3, 4)], 2):
        for block in range(1, blocks + 1):
            name, bottom = f"conv{stage}_{block}", net.end
            stride = 2 if stage == 3 and block == 1 else 1
            conv(f"{name}_1x1_reduce", count, stride=stride)
            conv(f"{name}_3x3", count, 3, pad=dilation, dilation=dilation)
            last = conv(f"{name}_1x1_increase", 4 * count, relu=False)
            if block == 1:
                net.end = bottom
                bottom = conv(f"{name}_1x1_proj", 4 * count, relu=False, stride=stride)
            net.put(name, "Eltwise", bottom, last)
            net.relu(name)
    bottom, levels = net.end, []
    for kernel in (10, 20, 30, 60):
        net.pool(f"pool{kernel}", kernel, kernel, bottom=bottom, pool="AVE")
        conv(f"pool{kernel}_conv", 512)
        levels.append(net.put(f"pool{kernel}_interp", "Interp", height=60, width=60))
    net.put("concat", "Concat", bottom, *levels)
    conv("conv5_4", 512, 3, pad=1)
    net.put("conv5_4_drop", "Dropout", in_place=True)
    net.put("conv6", "Convolution", num_output=150, kernel_size=1)
    return net.finish("conv6_interp", "Interp", zoom_factor=8)


#: The nets by name.
NETS: Mapping[str, Callable[[], NetParameter]] = {
    **{name: classifiers.NETS[name] for name in (*classifiers.BVLC, "resnet50", "resnet101", "mobilenet")},
    **{made.__name__: made for made in (mobilenet_v2, squeezenet, densenet121, inception_v3, inception_v4)},
    **{made.__name__: made for made in (segnet, pspnet50)},
}
