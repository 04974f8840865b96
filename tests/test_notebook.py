"""docs/fcn.ipynb runs from top to bottom, shows what it says, and its stored output is that of its code."""

import ast
import importlib.util
import json

import pytest

import reproduction
from tests.helpers.paths import ROOT

PATH = ROOT / "docs/fcn.ipynb"
NOTEBOOK = json.loads(PATH.read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
OUTPUTS = [cell["outputs"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
LIBRARIES = {"copy", "matplotlib", "numpy", "torch", "reproduction"}


def tool():
    spec = importlib.util.spec_from_file_location("notebook_tool", ROOT / "tools/notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(cells):
    """Execute cells as Jupyter does; return the names that they define and the values of their last lines."""
    names, values = {"__name__": "__main__"}, []
    for source in cells:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, PATH.name, "exec"), names)
        values.append(eval(compile(ast.Expression(last.value), PATH.name, "eval"), names) if last else None)
    return names, values


def test_it_runs_and_shows_what_it_says(capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed: pip install -e '.[test]'")
    pyplot.switch_backend("agg")
    names, values = run(
        [source.replace("draw_scenes(20)", "draw_scenes(8)").replace("(5, 12)", "(5,)") for source in CODE]
    )
    said = capsys.readouterr().out
    pyplot.close("all")
    assert "receptive field 404 pixels, stride 32 pixels" in said
    scores = [float(line.split()[1]) for line in said.splitlines() if "mean IU" in line]
    assert len(scores) == 3
    assert scores[0] + 5 < scores[1] < scores[2] - 3
    result, table = values[1], values[2]
    assert len(result.shares) > 3
    assert table is names["segmenter"].net
    assert [title.split(":")[0] for title in names["titles"]] == [
        "FCN-8s",
        *[f"without {x}" for x in ("pool3", "pool4", "both")],
    ]
    without = [float(title.split()[-2]) for title in names["titles"]]
    assert min(without[1:]) + 5 < scores[0] < without[0]


def test_it_uses_public_names_of_few_libraries():
    for source in CODE:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= LIBRARIES
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in LIBRARIES
                assert not any(alias.name.startswith("_") for alias in node.names)
    accessed = [node for source in CODE for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in accessed if ast.unparse(node.value) == "reproduction"}
    assert used <= {*reproduction.__all__}


def test_the_stored_output_is_of_this_code():
    module = tool()
    assert NOTEBOOK["metadata"][module.KEY] == module.hash_code(NOTEBOOK["cells"]), "run tools/notebook.py"
    kinds = [[output["output_type"] for output in outputs] for outputs in OUTPUTS]
    assert not any("error" in kind for kind in kinds)
    assert sum(bool(kind) for kind in kinds) == len(CODE) - 1, "every cell but the imports shows something"
    assert not [text for outputs in OUTPUTS for output in outputs if output.get("name") == "stderr" for text in output]


def test_it_is_small_and_its_cells_are_short():
    assert PATH.stat().st_size < 1_500_000
    assert max(source.count("\n") for source in CODE) < 25


def test_its_links_lead_to_files():
    text = "".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [link for link in links if not link.startswith("https://")]
    assert len(local) >= 3
    for link in local:
        assert (PATH.parent / link).is_file(), link
