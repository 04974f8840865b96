"""The project's rules that a program can check."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

SOURCES = sorted((ROOT / "reproduction").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))

# The rooms, and the others that each may import. A module that stands by itself in caffe/ is a room too. A room is
# listed after all that it imports: the order of this table is the way that the data flow, and there is no circle.
CAFFE = ("caffe.errors", "caffe.typing", "caffe.schema", "caffe.geometry", "caffe.formats")
ROOMS = {
    "caffe.errors": (),
    "caffe.typing": (),
    "caffe.locks": ("caffe.errors",),
    "caffe.schema": ("caffe.errors", "caffe.typing"),
    "caffe.geometry": ("caffe.errors", "caffe.schema"),
    "caffe.fillers": ("caffe.errors", "caffe.schema"),
    "caffe.formats": ("caffe.errors", "caffe.typing", "caffe.locks", "caffe.schema", "caffe.geometry"),
    "caffe.tested_devices": ("caffe.errors",),
    "caffe.devices": ("caffe.errors", "caffe.tested_devices"),
    "caffe.layers.quick": ("caffe.errors", "caffe.typing", "caffe.geometry"),
    "caffe.layers.exact": ("caffe.errors", "caffe.typing", "caffe.geometry"),
    "caffe.layers": (*CAFFE, "caffe.fillers", "caffe.layers.exact", "caffe.layers.quick"),
    "caffe.net": (*CAFFE, "caffe.fillers", "caffe.layers", "caffe.layers.quick"),
    "caffe.dialects": (*CAFFE, "caffe.layers", "caffe.layers.quick", "caffe.net"),
    "caffe": ("caffe.dialects",),
    "caffe.training": (*CAFFE, "caffe.devices", "caffe.layers", "caffe.layers.quick", "caffe.net"),
    "fast": (
        *CAFFE, "caffe.fillers", "caffe.layers", "caffe.layers.quick", "caffe.net",
    ),
    "fcn": (),
    "fcn.folders": (),
    "fcn.images": ("caffe.errors", "caffe.typing", "caffe.formats"),
    "fcn.datasets": (*CAFFE, "caffe.locks", "fcn.images"),
    "fcn.nets": (*CAFFE, "caffe.layers", "caffe.net", "fcn.folders", "fcn.images", "fcn.datasets"),
    "figure": (*CAFFE, "caffe.layers", "caffe.net", "fcn.datasets", "fcn.nets"),
    "fcn.fetch": ("caffe.errors", "caffe.typing", "caffe.locks", "caffe.formats", "fcn.folders", "fcn.datasets"),
    "fcn.scoring": (*CAFFE, "caffe.locks", "caffe.training", "fcn.images", "fcn.datasets"),
    "fcn.segment": (
        *CAFFE, "caffe.devices", "caffe.fillers", "caffe.layers", "caffe.net", "fast",
        "fcn.nets", "fcn.images", "fcn.fetch", "fcn.datasets", "fcn.scoring",
    ),
    "fcn.train": (
        *CAFFE, "caffe.devices", "caffe.locks", "caffe.layers", "caffe.net", "caffe.training",
        "fcn.nets", "fcn.images", "fcn.fetch", "fcn.datasets", "fcn.scoring", "fcn.segment",
    ),
    "fcn.reproduce": (
        *CAFFE, "caffe.locks", "caffe.net",
        "fcn.nets", "fcn.fetch", "fcn.datasets", "fcn.scoring", "fcn.segment", "fcn.train",
    ),
    "fcn.experiments": (
        *CAFFE, "caffe.net",
        "fcn.nets", "fcn.fetch", "fcn.datasets", "fcn.scoring", "fcn.segment", "fcn.train", "fcn.reproduce",
    ),
    "report": (
        *CAFFE, "caffe.training", "fast",
        "fcn.nets", "fcn.images", "fcn.fetch", "fcn.datasets", "fcn.scoring", "fcn.segment", "fcn.train",
        "fcn.reproduce", "fcn.experiments",
    ),
    "cv2dnn": (*CAFFE, "caffe.devices", "caffe.fillers", "caffe.net"),
    "pycaffe.proto": CAFFE,
    "pycaffe.python2": ("caffe.errors",),
    "pycaffe.net": (
        *CAFFE, "caffe.devices", "caffe.fillers", "caffe.layers", "caffe.layers.exact", "caffe.net", "caffe.training",
        "pycaffe.proto",
    ),
    "pycaffe.extras": (*CAFFE, "pycaffe.proto", "pycaffe.net"),
    "pycaffe": ("caffe.layers", "caffe.schema", "pycaffe.proto", "pycaffe.net", "pycaffe.extras"),
    "pycaffe.run": (*CAFFE, "pycaffe.proto", "pycaffe.python2", "pycaffe.net", "pycaffe"),
    "pycaffe.__main__": ("pycaffe.run",),
    "": ("caffe.formats", "caffe.net", "fast", "fcn.segment"),  # the public names, imported at first use
    "commands": (
        *CAFFE, "caffe.devices", "caffe.locks", "caffe.tested_devices", "caffe.training", "caffe.net", "fast",
        "fcn.folders", "fcn.nets", "fcn.images", "fcn.fetch", "fcn.datasets", "fcn.scoring", "fcn.segment", "fcn.train",
        "fcn.reproduce", "fcn.experiments", "report", "figure", "pycaffe.run",
    ),
    "__main__": ("commands",),
}  # fmt: skip

# Readers and writers of files must not import torch when they are imported: a prototxt is loaded in milliseconds.
WITHOUT_TORCH = (
    "caffe", "caffe.errors", "caffe.typing", "caffe.locks", "caffe.tested_devices", "caffe.schema", "caffe.geometry",
    "caffe.formats", "caffe.dialects", "caffe.net.netspec",
)  # fmt: skip


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a source, which several tests read."""
    return ast.parse(path.read_text())


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = parse(path)
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(path: Path) -> str:
    """Return the module's name below ``reproduction``, such as ``caffe.net.graph``."""
    return ".".join(path.relative_to(ROOT / "reproduction").with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {dotted(path): path for path in SOURCES}


def room(module: str) -> str:
    """Return the room of a module: the longest of the names above that its own begins with."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in ROOMS), "")


def imported(path: Path) -> set[str]:
    """Return the modules of this project that a file imports, by their names below ``reproduction``."""
    names = {name.removeprefix("reproduction").lstrip(".") for name in imports(path) if name.startswith("reproduction")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {""}


def test_the_sources_were_found():
    assert len(SOURCES) > 20
    assert TOOLS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_between_rooms_go_one_way(path):
    here = room(dotted(path))
    used = {room(name) for name in imported(path)} - {here}
    assert used <= {*ROOMS[here]}, f"the room {here!r} imports {used - {*ROOMS[here]}}"


def test_the_table_of_rooms_has_no_circle():
    seen = set()
    for name, below in ROOMS.items():
        assert {*below} <= seen, f"{name!r} is listed before what it imports"
        seen.add(name)


def test_no_arrow_of_the_table_is_unused():
    used = {(room(dotted(path)), room(name)) for path in SOURCES for name in imported(path)}
    wide = {"caffe.errors", "caffe.locks", *CAFFE}  # which any room above may need at any time
    assert not {(here, there) for here, below in ROOMS.items() for there in below if there not in wide} - used


def test_every_room_says_what_it_is_for():
    for name in ROOMS:
        path = MODULES.get(name) or ROOT / "reproduction/__init__.py"
        assert ast.get_docstring(parse(path)), name


def test_only_the_package_itself_imports_the_dialects():
    for path in SOURCES:
        parts = path.relative_to(ROOT / "reproduction").parts
        if parts != ("caffe", "__init__.py") and "dialects" not in parts:
            assert not any("dialects" in name for name in imports(path)), path


def imported_at_once() -> set[Path]:
    """Return the modules of dialects that are imported with the package."""
    package = MODULES["caffe.dialects"]
    return {package, *(MODULES[name] for name in imported(package) if name.startswith("caffe.dialects"))}


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_formats_are_read_without_torch(name):
    for path in (path for module, path in MODULES.items() if module == name or room(module) == name):
        if name == "caffe.dialects" and path not in imported_at_once():
            continue  # the modules of layer types, which are imported when a net first needs one of them
        used = {module.split(".")[0] for module in imports(path, top_level_only=True)}
        assert not used & {"torch", "scipy", "h5py", "safetensors"}, path


def test_a_public_class_name_stands_once():
    """``pycaffe`` has the names of Caffe's and protobuf's interfaces, and a dialect those of its fork."""
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        if not module.startswith(("pycaffe", "caffe.dialects")):
            for node in ast.walk(parse(path)):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


def test_the_classes_of_the_glossary_are_there():
    text = (ROOT / "docs/glossary.md").read_text()
    named = set(re.findall(r"`(?:\w+: )?([A-Z][a-z]\w+)`", text)) - {"Path"}
    defined = {node.name for path in SOURCES for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)}
    assert len(named) > 15
    assert named <= defined


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_the_eye(path):
    text = path.read_text()
    assert text.count("\n") <= 450, "a file has at most 450 lines"
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 70, f"{node.name} fits on a screen"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_executed_from_a_file(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "__import__"}, path
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert not called.startswith("pickle."), path
            assert called != "torch.load", path  # it runs constructors of NumPy that allocate what a file asks for
            if called == "np.load":
                assert keywords.get("allow_pickle", "False") == "False", path


@pytest.mark.parametrize("path", [*SOURCES, *TOOLS], ids=lambda path: str(path.relative_to(ROOT)))
def test_printing_goes_through_one_module(path):
    """``commands.terminal`` escapes foreign text; tools for this project's makers print what they make themselves.

    ``import caffe`` prints what Caffe prints.
    """
    if path.stem not in {"bench", "exactness", "gpu", "readme", "terminal"} and "pycaffe" not in path.parts:
        called = {ast.unparse(node.func) for node in ast.walk(parse(path)) if isinstance(node, ast.Call)}
        assert not called & {"print", "sys.stdout.write", "sys.stderr.write"}


def test_nothing_but_a_command_imports_the_room_that_prints():
    for module, path in MODULES.items():
        if room(module) not in ("commands", "__main__"):
            assert not any(name.startswith("reproduction.commands") for name in imports(path)), path


def test_json_is_parsed_in_one_place():
    """Where it is bounded and checked; see ``reproduction.caffe.formats.json_file``."""
    parsing = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads", "load_json")
    }
    assert parsing == {"reproduction/caffe/formats/json_file.py"}


# The code that a layer type follows: ``Source: owner/repository@commit file, lines``; a fork's is as good as BVLC's.
SOURCE = re.compile(r"\bSource: [\w.-]+/[\w.-]+@[0-9a-f]{7,40}\s+\S+\.\w+\s+L\d+")


def test_every_layer_type_names_its_source():
    from reproduction.caffe.layers import CLASSES
    from reproduction.caffe.schema import Message

    Message.import_late_fields()
    for name, kinds in CLASSES.items():
        for kind in kinds:
            assert kind.__name__ == name
            assert SOURCE.search(kind.__doc__ or ""), kind


def test_every_tool_has_a_docstring_and_goes_through_run():
    for path in TOOLS:
        assert ast.get_docstring(parse(path)), path
        if path.stem != "common":
            assert re.search(r"^    run(\(main\)|_command\(.*\))$", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tools").rglob("*.py"))], ids=str)
def test_image_files_are_opened_in_one_place(path):
    """There the formats are listed, and the pixels limited."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "Image.open",
            "PIL.Image.open",
            "ImageFile.Parser",
        }:
            assert path.name == "image_files.py", path
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("registered_extensions"):
            raise AssertionError(f"{path}: image_files.ENDINGS are those of the formats that are opened")
