"""``fcn caffe`` says what it did, and what ``import caffe`` imports."""

import pytest

from reproduction.pycaffe.run import environment
from tests.helpers.run_tool import run_tool


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_site_folders", lambda: [tmp_path])
    return tmp_path


def test_install_status_and_remove(site):
    path = site / environment.FILE_NAME
    assert run_tool("caffe", "status").stdout.startswith("import caffe imports nothing here.")
    assert run_tool("caffe", "install").stdout == f"{path}: import caffe now imports this project.\n"
    assert path.read_text() == f"{environment.IMPORT_PATH}\n"
    assert run_tool("caffe", "status").stdout == f"{path}: import caffe imports this project.\n"
    assert run_tool("caffe", "remove").stdout == f"{path}: removed.\n"
    assert run_tool("caffe", "remove").stdout == "import caffe was not installed here.\n"


def test_a_real_caffe_is_an_error(monkeypatch):
    monkeypatch.setattr(environment, "find_other_caffe", lambda: "/opt/caffe/python/caffe/__init__.py")
    ended = run_tool("caffe", "install")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: another package named caffe is installed; got /opt/caffe/python/caffe")
    assert "which is not this project" in run_tool("caffe", "status").stdout
