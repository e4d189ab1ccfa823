"""The notebooks run from a clean kernel, prove what they claim, and are stored with their outputs, small and quiet."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

_NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
_ABSOLUTE = r"(?<![\w.:/<)\]}])/[\w.-]+/[\w./-]*"
_ANY = pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)


def _code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def _outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in _code(path) for output in cell.outputs]


def test_there_are_notebooks():
    assert len(_NOTEBOOKS) >= 3


def test_absolute_paths_are_told_from_quotients():
    assert re.findall(_ABSOLUTE, "saved\n/some/place.png and '/else/where/'") == ["/some/place.png", "/else/where/"]
    assert not re.findall(_ABSOLUTE, "a/b/c https://host/page ./here/it/is time (s)/frames/s 1.0/n/m")


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path.stem.startswith("01") else pytest.mark.slow)
    for path in _NOTEBOOKS
])
def test_it_runs_from_a_clean_kernel(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # No directories to look for kernels in: what is left is ipykernel's own, which is this very Python.
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    where = {"metadata": {"path": str(tmp_path)}}
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "IPYTHONDIR": str(tmp_path)}
    NotebookClient(notebook, km=kernel, timeout=300, resources=where).execute(env=environment, cleanup_kc=True)
    said = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in said if output.output_type == "stream" and output.name == "stderr"]


@_ANY
def test_its_outputs_are_stored(path):
    cells = _code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in _outputs(path) if output.output_type == "error"]
    figures = [kind for output in _outputs(path) for kind in output.get("data", {}) if kind.startswith("image/")]
    assert len(figures) >= 2
    assert any("assert" in cell.source for cell in cells)


@_ANY
def test_it_is_small_and_quiet(path):
    assert path.stat().st_size < 300_000
    said = [output.text for output in _outputs(path) if output.output_type == "stream"]
    said += [text for output in _outputs(path) for kind, text in output.get("data", {}).items() if "text" in kind]
    assert not [text for text in said if "warning" in text.lower()]
    notebook = nbformat.read(path, as_version=4)
    stored = "\n".join([*(cell.source for cell in notebook.cells), *said, str(notebook.metadata)])
    assert not re.findall(_ABSOLUTE, stored), "a path of the machine it ran on"
    assert "site-packages" not in stored
    assert not [output for output in _outputs(path) if output.get("name") == "stderr"]
