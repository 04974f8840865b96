"""The rules of the house that a program can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "reproduction").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))

# Which rooms each room may import from, itself aside. Arrows go one way.
MAY_IMPORT = {
    "__init__": {"caffe", "fast", "fcn"},  # the public names, imported at first use
    "caffe": set(),
    "fast": {"caffe"},
    "fcn": {"caffe", "fast"},
    "report": {"caffe", "fcn"},
    "pycaffe": {"caffe"},
}

# Inside caffe, each floor imports only from floors below it.
FLOORS = [
    {"errors"},
    {"schema", "files", "locks", "jsonfile", "tested"},
    {"imagefiles", "imageheaders"},
    {
        "geometry",
        "blobs",
        "prototxt",
        "textreader",
        "caffemodel",
        "wirereader",
        "hdf5",
        "hdf5heap",
        "hdf5messages",
        "hdf5objects",
        "hdf5values",
        "kinds",
        "tensors",
        "torchfile",
        "unpickle",
        "upgrade",
        "crops",
        "ziparchive",
        "fillers",
        "devices",
    },
    {"weights", "netspec", "layers", "transfer", "dialects"},
    {"graph", "inputs", "processes"},
    {"need", "overwriting"},
    {"net"},
    {"rules", "snapshot", "signals", "parallel", "onnxnet", "accumulation"},
    {"updates", "events", "solvernets"},
    {"solver"},
]

# What reads and writes files must not need torch: a prototxt is looked at in milliseconds.
LIGHT = {
    "errors",
    "jsonfile",
    "schema",
    "geometry",
    "blobs",
    "prototxt",
    "textreader",
    "caffemodel",
    "wirereader",
    "files",
    "kinds",
    "locks",
    "tested",
    "torchfile",
    "unpickle",
    "upgrade",
    "crops",
    "ziparchive",
    "netspec",
    "dialects",
}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "reproduction").with_suffix("").parts
    return parts[0]


def test_the_sources_were_found():
    assert len(SOURCES) > 20
    assert TOOLS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_between_rooms_go_one_way(path):
    here = room(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("reproduction.")}
    assert used - {here} <= MAY_IMPORT.get(here, set()), f"{path.name} imports {used}"


@pytest.mark.parametrize("path", sorted((ROOT / "reproduction/caffe").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_inside_caffe_go_down(path):
    parts = path.relative_to(ROOT / "reproduction/caffe").with_suffix("").parts
    if parts[0] == "__init__":
        pytest.skip("the map of the room imports nothing")
    floor = next(i for i, names in enumerate(FLOORS) if parts[0] in names)
    allowed = set().union(*FLOORS[: floor + 1])
    prefix = "reproduction.caffe."
    used = {name[len(prefix) :].split(".")[0] for name in imports(path) if name.startswith(prefix)}
    assert used <= allowed, f"{parts[0]} stands on {used - allowed}"


def test_only_the_package_itself_imports_the_dialects():
    for path in SOURCES:
        parts = path.relative_to(ROOT / "reproduction").parts
        if parts != ("caffe", "__init__.py") and "dialects" not in parts:
            assert not any("dialects" in name for name in imports(path)), path


@pytest.mark.parametrize("name", sorted(LIGHT))
def test_formats_are_read_without_torch(name):
    base = ROOT / "reproduction/caffe" / name
    files = sorted(base.glob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    for path in files:
        used = {module.split(".")[0] for module in imports(path, top_level_only=True)}
        assert not used & {"torch", "scipy", "h5py", "safetensors"}, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_the_eye(path):
    text = path.read_text()
    assert text.count("\n") <= 450, "a file has at most 450 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 70, f"{node.name} fits on a screen"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_executed_from_a_file(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "__import__"}, path
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert not called.startswith("pickle."), path
            assert called != "torch.load", path  # it runs constructors of NumPy that allocate what a file asks for
            if called == "np.load":
                assert keywords.get("allow_pickle", "False") == "False", path


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_tools_print_through_one_function(path):
    """``common.say`` shows foreign text; tools for this project's makers alone print what they make themselves."""
    if path.stem not in {"common", "bench", "exactness", "readme"}:
        called = {
            ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        }
        assert "print" not in called


def test_json_is_parsed_in_one_place():
    """Where it is bounded and checked; see ``reproduction.caffe.jsonfile``."""
    parsing = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads", "load_json")
    }
    assert parsing == {"reproduction/caffe/jsonfile.py"}


def test_every_layer_type_names_its_source():
    from reproduction.caffe.layers import LAYERS

    for name, kind in LAYERS.items():
        assert kind.__name__ == name
        assert "Source: BVLC/caffe@9b89154" in (kind.__doc__ or ""), name


def test_every_tool_has_a_docstring_and_goes_through_run():
    for path in TOOLS:
        if path.stem == "common":
            continue
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert "run(main)" in path.read_text(), path


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tools").rglob("*.py"))], ids=lambda path: str(path))
def test_image_files_are_opened_in_one_place(path):
    """There the formats are listed, and the pixels limited."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "Image.open",
            "PIL.Image.open",
            "ImageFile.Parser",
        }:
            assert path.name == "imagefiles.py", path
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("registered_extensions"):
            raise AssertionError(f"{path}: imagefiles.ENDINGS are those of the formats that are opened")
