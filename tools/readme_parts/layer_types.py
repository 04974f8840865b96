"""The table of layer types in docs/caffe_models.md."""

from __future__ import annotations

from reproduction.caffe.dialects import import_dialects
from reproduction.caffe.layers import UNSUPPORTED
from reproduction.caffe.layers.base import CLASSES, Layer
from reproduction.caffe.layers.data import BaseDataLayer
from reproduction.caffe.net.onnx_export import has_onnx_form
from reproduction.caffe.schema import V1LayerType

HEADER = ("type", "of", "since", "gradient", "ONNX", "compiled")
BVLC = "BVLC Caffe"
V1_YEAR, NEWER = "2014", "2015"


def layer_types_table() -> str:
    """Return a table of all layer types that run here: those of BVLC Caffe, then those of each fork."""
    import_dialects()
    kinds = [kind for classes in CLASSES.values() for kind in classes]
    kinds.sort(key=lambda kind: ("" if kind.dialect is None else kind.dialect.title.lower(), kind.__name__.lower()))
    rows = [HEADER, ("---",) * len(HEADER), *map(_row, kinds)]
    fed = ", ".join(sorted(UNSUPPORTED))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + (
        f"\n\n{len(kinds)} classes of {len(CLASSES)} types. Forward runs for all. Gradient: whether one passes through"
        " to a bottom. Compiled: whether `reproduction.compile` can do better than to run the layer as it is."
        f" {fed or 'No type'}: only if their tops are fed."
    )


def _row(kind: type[Layer]) -> tuple[str, ...]:
    name, dialect = kind.__name__, kind.dialect
    is_data = kind.bottoms == (0, 0) or issubclass(kind, BaseDataLayer)
    return (
        name,
        BVLC if dialect is None else dialect.title,
        (V1_YEAR if _is_in_v1(name) else NEWER) if dialect is None else str(dialect.since),
        "" if is_data else "no" if kind.differentiable == () else "yes",
        "yes" if has_onnx_form(kind) else "fed" if is_data else "no",
        "faster" if kind.compiled_form is not Layer.compiled_form else "as it is",
    )


def _is_in_v1(name: str) -> bool:
    """Return whether the V1 form of 2014 has a type, whose names differ by underscores and a word."""
    old_names = {old.replace("_", "").lower() for old in V1LayerType.__members__}
    return name.lower().replace("softmaxwithloss", "softmaxloss") in old_names
