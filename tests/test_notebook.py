"""The notebook of the documents runs from its first cell to its last, and shows what it shows in the repository."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def kinds(notebook):
    """Return the kinds of output of each cell that has any."""
    return {
        cell.id: [output.get("name") or sorted(output.data) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.outputs
    }


def text(notebook):
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.mark.filterwarnings("default")  # of the kernel's own packages
def test_the_notebook_runs_and_its_outputs_are_those_of_its_file():
    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(again, timeout=500, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert list(kinds(again)) == list(kinds(stored))
    for lines in (text(again), text(stored)):
        assert "SNR 20: found" in lines
        assert "SNR  3: not found" in lines
        assert "test_v1: threshold" in lines


def test_the_stored_outputs_are_small_and_hold_no_error_and_no_path():
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert NOTEBOOK.stat().st_size < 400_000
    outputs = [output for cell in stored.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "/tmp" not in NOTEBOOK.read_text(encoding="utf-8")
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")
