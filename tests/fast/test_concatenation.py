"""Concat layers, against the net."""

import pytest

from reproduction.fast import compiler
from tests.fast.test_folding import build, check, conv, layer

POINT = "kernel_size: 1"
NETS = {
    "branches": conv("a", param=POINT) + layer("r", "ReLU", "a") + conv("b") + layer("k", "Concat", "r b"),
    "a part twice": conv("a", param=POINT) + layer("k", "Concat", "a a"),
    "a part of two": conv("a") + conv("b", param=POINT) + layer("j", "Concat", "a b") + layer("k", "Concat", "b a"),
    "an input": conv("a", param=POINT + " bias_term: false") + layer("k", "Concat", "data a"),
    "pooled": conv("a")
    + layer("p", "Pooling", "a", param="pooling_param { kernel_size: 3 stride: 1 pad: 1 }")
    + layer("k", "Concat", "p a"),
    "a view": conv("a")
    + layer("s", "Slice", "a").replace('top: "s"', 'top: "s" top: "t"')
    + layer("k", "Concat", "t s"),
    "layers of a block": "".join(
        conv(f"c{i}", f"k{i - 1}" if i else "data", POINT if i % 2 else "kernel_size: 3 pad: 1")
        + layer(f"k{i}", "Concat", f"k{i - 1} c{i}" if i else "data c0")
        for i in range(4)
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_parts_of_a_concatenation_are_those_of_the_net(name):
    net = build(NETS[name])
    last = list(net.blob_shapes)[-1]
    check(net, compiler.compile(net), None, [last], [*net.blob_shapes], None)


def test_a_border_may_surround_the_parts():
    parts = conv("a", param=POINT) + conv("b")
    net = build((parts + layer("k", "Concat", "a b") + conv("c", "k")).replace("num_output: 8", "num_output: 24"))
    check(net, compiler.compile(net), None, ["k"], ["a", "c"])
