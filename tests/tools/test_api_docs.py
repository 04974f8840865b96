"""The reference of the library: a page for each module, built without a warning."""

import sys

import pytest


@pytest.mark.slow
def test_each_module_has_a_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pdoc", reason="pdoc is not installed: pip install -e '.[docs]'")
    import api_docs

    monkeypatch.setattr(sys, "argv", ["api_docs.py", "-o", str(tmp_path)])
    assert api_docs.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"
    pages = {".".join(path.relative_to(tmp_path).with_suffix("").parts) for path in tmp_path.rglob("*.html")}
    assert pages == {*api_docs.modules(), "index"}
    assert {"reproduction", "reproduction.fast", "reproduction.pycaffe.net.net"} < pages
    text = (tmp_path / "reproduction/caffe/geometry.html").read_text()
    assert 'id="conv_size"' in text


def test_a_missing_generator_is_one_line(monkeypatch):
    import api_docs

    from reproduction.caffe.errors import ReproductionError

    monkeypatch.setitem(sys.modules, "pdoc", None)
    monkeypatch.setattr(sys, "argv", ["api_docs.py"])
    with pytest.raises(ReproductionError, match=r"there is no pdoc\. Run `make docs`, which installs it\."):
        api_docs.main()
