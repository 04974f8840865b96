"""The code of docs/layers.md runs as it is printed."""

import re
import subprocess
import sys

import pytest

from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema.field import Field, nested, uint32
from reproduction.caffe.schema.message import Message
from tests.helpers.paths import ROOT


def test_the_page_adds_a_layer_type_that_runs_is_compiled_exported_cropped_to_and_counted(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/layers.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    for name, code in zip(("blur", "run", "export", "crop", "count", "fork"), blocks, strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    # One process for all, since the later blocks use the names of the earlier ones.
    script = "\n".join(["from blur import *", *blocks[1:], "print('done')"])
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert (ran.stdout, ran.returncode) == ("done\n", 0), ran.stderr


def test_a_field_that_is_added_late_is_read_from_the_first_prototxt_that_uses_it(monkeypatch):
    class ToneParameter(Message):
        depth = uint32(1)

    class Tuned(Message):
        name = uint32(1)

    def add() -> None:
        Tuned.add_field("tone_param", nested(2, ToneParameter))

    monkeypatch.setattr(Message, "late_fields", add)
    read = prototxt.loads("tone_param { depth: 7 } name: 1", Tuned)
    field: Field[ToneParameter] = Tuned.fields["tone_param"]
    assert field.get(read).depth == 7
    assert prototxt.dumps(read) == "name: 1\ntone_param {\n  depth: 7\n}\n"
    with pytest.raises(TypeError, match="Tuned has a field 'other' or 2"):
        Tuned.add_field("other", nested(2, ToneParameter))


def test_layer_types_are_imported_when_a_net_has_a_field_that_caffe_does_not_know():
    code = """if True:
        import sys
        from reproduction.caffe.formats import prototxt
        from reproduction.caffe.schema import NetParameter
        prototxt.loads("layer { name: 'a' type: 'ReLU' }", NetParameter)
        assert "torch" not in sys.modules
        try:
            prototxt.loads("layer { no_param { } }", NetParameter)
        except prototxt.PrototxtError:
            assert "reproduction.caffe.layers.pooling" in sys.modules
            print("done")"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout == "done\n", ran.stderr


def test_the_page_names_every_fact_of_a_layer():
    page = (ROOT / "docs/layers.md").read_text()
    from reproduction.caffe.layers.base import Layer

    for fact in ("keeps_coordinates", "coord_map", "located_bottoms", "sliding_windows", "products", "compiled_form",
                 "to_onnx"):  # fmt: skip
        assert hasattr(Layer, fact)
        assert f"`{fact}`" in page


def test_each_file_of_layers_is_imported_with_the_package():
    import reproduction.caffe.layers as package

    files = (ROOT / "reproduction/caffe/layers").glob("[!_]*.py")
    assert {f"{package.__name__}.{path.stem}" for path in files} <= sys.modules.keys()
