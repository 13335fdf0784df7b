"""The notebook runs from its first to its last cell."""

import pytest
from helpers import ROOT

NOTEBOOK = ROOT / "notebooks" / "analysis.ipynb"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_plots(monkeypatch, tmp_path):
    nbformat, nbclient = map(pytest.importorskip, ("nbformat", "nbclient"))
    pytest.importorskip("ipykernel")
    book = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUN", str(ROOT / "pretrained" / "point-vel"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    (tmp_path / "pretrained").mkdir()
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=300, resources=resources).execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 4
    assert (tmp_path / "episode.html").stat().st_size > 5000
    text = "".join(out.get("text", "") for out in outputs)
    assert "quick: " in text
