"""Drawings of nets: Graphviz source, or an image rendered by Graphviz's program ``dot``.

Source: BVLC/caffe@9b89154 python/caffe/draw.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproduction.caffe.errors import ReproductionError, StrPath
from reproduction.pycaffe.proto import caffe_pb2

_COLOURS = {"Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
_COLOUR, _IN_PLACE, _BLOB = "#6495ED", "#90EE90", "#E0E0E0"
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct")
_TEXT = ("dot", "gv", "raw")


def get_pooling_types_dict() -> dict[int, str]:
    """Return a dict from the numbers of the pooling methods to their names, such as 0 to ``"MAX"``."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: Any) -> str:
    """Return the text for the edges from a layer to its tops in a drawing.

    It is the batch size of a Data layer, ``num_output`` of a convolution, deconvolution or InnerProduct layer, and
    empty for other types.
    """
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else ""


def get_layer_lr_mult(layer: Any) -> tuple[float, float]:
    """Return the ``lr_mult`` of a layer's weights and that of its bias; 1.0 where the layer sets none.

    Args:
        layer: A ``caffe_pb2.LayerParameter``.

    Raises:
        ReproductionError: If the layer is not a convolution, deconvolution or InnerProduct layer, or has more than two
            ``param`` messages.
    """
    if layer.type not in _LEARNING or len(layer.param) > 2:
        raise ReproductionError(f"layer {layer.name!r} ({layer.type}) does not have weights and a bias")
    weight, bias, *_ = [*(each.lr_mult for each in layer.param), 1.0, 1.0]
    return weight, bias


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """Return the text for a layer in a drawing: name, type, kernel size, stride and pad.

    Args:
        layer: A ``caffe_pb2.LayerParameter``.
        rankdir: The direction of the graph. In a vertical one (``TB`` or ``BT``) the label is a single line.
        display_lrm: Whether to add the ``lr_mult`` of weights and bias.
    """
    separator = " " if rankdir in ("TB", "BT") else "\n"
    kind = layer.type
    if kind == "Pooling":
        kind += f" {get_pooling_types_dict()[layer.pooling_param.pool]}"
    parts = [layer.name, f"({kind})"]
    if layer.type in ("Convolution", "Deconvolution", "Pooling"):
        param = layer.pooling_param if layer.type == "Pooling" else layer.convolution_param
        for words, field, default in (("kernel size", "kernel_size", 1), ("stride", "stride", 1), ("pad", "pad", 0)):
            value = getattr(param, field)
            parts.append(f"{words}: {value if isinstance(value, int) else [*value, default][0]}")
    if display_lrm and layer.type in _LEARNING and any(get_layer_lr_mult(layer)):
        parts.append("lr mult: {:.1f}, {:.1f}".format(*get_layer_lr_mult(layer)))
    return separator.join(parts)


def choose_color_by_layertype(layertype: str) -> str:
    """Return the fill colour of layers of this type in a drawing, as ``#RRGGBB``."""
    return _COLOURS.get(layertype, _COLOUR)


def get_dot(
    caffe_net: Any, rankdir: str = "LR", label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> str:
    """Return the drawing of a net as source text for Graphviz, in its DOT language.

    Args:
        caffe_net: A ``caffe_pb2.NetParameter``.
        rankdir: The direction of the graph: ``LR`` (left to right), ``TB`` (top to bottom), ``BT`` or ``RL``.
        label_edges: Whether to label the edges.
        phase: The phase whose layers to draw; None draws all layers.
        display_lrm: Whether to show the ``lr_mult`` of weights and bias.
    """
    lines = [f"digraph {_quote(caffe_net.name or 'Net')} {{", f"  rankdir={rankdir};"]
    for layer in caffe_net.layer:
        if phase is None or _is_in_phase(layer, phase):
            lines += _format_layer(layer, get_layer_label(layer, rankdir, display_lrm), label_edges)
    return "\n".join([*dict.fromkeys(lines), "}\n"])


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """Draw a net and return the bytes of the image.

    Args:
        caffe_net: A ``caffe_pb2.NetParameter``.
        rankdir: The direction of the graph: ``LR`` (left to right), ``TB`` (top to bottom), ``BT`` or ``RL``.
        ext: The format: ``png``, ``svg``, ``pdf`` or another one that Graphviz can write. ``dot``, ``gv`` and ``raw``
            return the source text of ``get_dot`` and do not need Graphviz.
        phase: The phase whose layers to draw; None draws all layers.
        display_lrm: Whether to show the ``lr_mult`` of weights and bias.

    Raises:
        ReproductionError: If Graphviz is not installed, or cannot draw the net in this format.
    """
    text = get_dot(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).encode()
    if ext in _TEXT:
        return text
    program = shutil.which("dot")
    if program is None:
        raise ReproductionError(
            "drawing an image of a net needs Graphviz, which is not installed",
            remedy="Install it, or draw to a file that ends in .dot.",
        )
    drawn = subprocess.run([program, f"-T{ext}"], input=text, capture_output=True, check=False)
    if drawn.returncode:
        raise ReproductionError(f"Graphviz could not draw the net: {drawn.stderr.decode(errors='replace').strip()}")
    return drawn.stdout


def draw_net_to_file(
    caffe_net: Any, filename: StrPath, rankdir: str = "LR", phase: int | None = None, display_lrm: bool = False
) -> None:
    """Draw a net to a file, in the format of the file name's extension; the arguments are those of ``draw_net``."""
    Path(filename).write_bytes(draw_net(caffe_net, rankdir, Path(filename).suffix[1:], phase, display_lrm))


def _is_in_phase(layer: Any, phase: int) -> bool:
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return not any(rule.phase == phase for rule in layer.exclude)


def _format_layer(layer: Any, label: str, label_edges: bool) -> Iterator[str]:
    """Yield the Graphviz lines of a layer, its blobs, and the edges between them."""
    in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
    colour = _IN_PLACE if in_place else choose_color_by_layertype(layer.type)
    node = _quote(f"{layer.name}_{layer.type}")
    yield f"  {node} [{_format_style(label, 'record', colour)}];"
    for blob in [*layer.bottom, *layer.top]:
        yield f"  {_quote(blob + '_blob')} [{_format_style(blob, 'octagon', _BLOB)}];"
    for bottom in layer.bottom:
        yield f"  {_quote(bottom + '_blob')} -> {node};"
    for top in layer.top:
        text = get_edge_label(layer) if label_edges else ""
        yield f"  {node} -> {_quote(top + '_blob')}{f' [label={_quote(text)}]' if text else ''};"


def _format_style(label: str, shape: str, colour: str) -> str:
    return f'label={_quote(label)}, shape={shape}, style=filled, fillcolor="{colour}"'


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
