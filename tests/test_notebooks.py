"""Do the notebooks run from top to bottom, without a network and without a warning, as they are in git?"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import induction_kernel

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MOST_CELLS, MOST_BYTES, MOST_LETTERS = 25, 3_000_000, 112

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    import nbformat  # takes seconds, also of runs that only collect

    return nbformat.read(path, as_version=4)


@functools.cache
def runner():
    import run_notebooks  # and Jupyter, likewise

    return run_notebooks


def test_there_are_notebooks():
    assert NOTEBOOKS


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each
def test_cells_are_few_named_and_no_wider_than_a_page(path):
    import nbformat

    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    for cell in notebook.cells:
        assert re.search("[a-z]", cell.id), f"{cell.id}: a readable id keeps diffs readable"
    for cell in code_cells(notebook):
        assert max(map(len, cell.source.splitlines())) <= MOST_LETTERS, cell.id


@each
def test_outputs_are_small_and_made_by_this_code(path):
    """Tables, text and pictures, which `make notebooks` keeps; or none at all."""
    notebook = read(path)
    if not any(cell.outputs for cell in code_cells(notebook)):
        assert all(cell.execution_count is None for cell in code_cells(notebook))
        return
    assert notebook.metadata.get(runner().MARK) == runner().code_of(notebook), (
        f"the code of {path.name} has changed since it was run: `make notebooks NOTEBOOKS={path.stem[:2]}`"
    )
    assert path.stat().st_size <= MOST_BYTES
    shown = {kind for cell in code_cells(notebook) for each in cell.outputs for kind in each.get("data", {})}
    assert "image/png" in shown
    assert shown <= set(runner().KEPT)


def made_of(path, *, there):
    """What the first lines of a notebook ask of pip, in an interpreter that has only the standard library."""
    from IPython.core.inputtransformer2 import TransformerManager

    (first, *_) = code_cells(read(path))
    assert first.source.startswith(runner().INSTALL)
    lines = TransformerManager().transform_cell(runner().INSTALL)
    fake = "class Shell:\n def run_line_magic(self, *asked): print(*asked)\nget_ipython = Shell\n"
    found = f"import sys; sys.path.insert(0, {str(path.parent.parent)!r})\n" if there else ""
    command = [sys.executable, "-I", "-S", "-c", found + fake + lines]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@each
def test_the_first_cell_installs_the_package_where_it_is_missing(path):
    assert made_of(path, there=False) == 'pip install -q "induction-kernel[widget]"'
    assert made_of(path, there=True) == ""


@each
def test_every_code_cell_follows_its_reason(path):
    kinds = [cell.cell_type for cell in read(path).cells]
    assert all(
        before == "markdown" for before, kind in zip(["", *kinds], kinds, strict=False) if kind == "code"
    )


@each
def test_text_names_only_what_exists(path):
    text = "\n".join(cell.source for cell in read(path).cells)
    for name in set(re.findall(r"\bik((?:\.\w+)+)", text)):
        assert functools.reduce(getattr, name.strip(".").split(".")[:2], induction_kernel)


@pytest.mark.slow
@each
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    """In an empty folder, in this interpreter; what a cell prints to stderr (a warning, a log line) is a failure."""
    work = tmp_path / "work"
    work.mkdir()
    ran(path, work, monkeypatch)
    assert not list(work.iterdir()), "a notebook leaves nothing behind"


@pytest.mark.real("smollm2", "shared")
def test_the_real_part_runs_where_its_files_are(smollm2, shared, tmp_path, monkeypatch):
    """Kernel regression in SmolLM2 on a few reviews: a map of its 270 heads and a table with the explicit kernels."""
    work = tmp_path / "work"
    work.mkdir()
    (work / smollm2.name).symlink_to(smollm2)
    (work / "sst2.tsv").symlink_to(shared / "data" / "sst2.validation.tsv")
    notebook = ran(NOTEBOOKS[0].parent / "03_kernel_regression.ipynb", work, monkeypatch)
    (cell,) = (cell for cell in notebook.cells if cell.id == "smollm2")
    shown = [output.get("data", {}).get("application/vnd.plotly.v1+json") for output in cell.outputs]
    heads, table = filter(None, shown)  # the others are progress bars
    assert heads["layout"]["title"]["text"].startswith("SmolLM2-135M")
    assert {"best head", "last label", "TF-IDF kernel"} <= set(table["layout"]["yaxis"]["ticktext"])
    assert len(list(work.iterdir())) == 2


def ran(path, work, monkeypatch):
    """The notebook as it is after it ran in the folder `work`, without network and without a warning."""
    from own_kernel import run_here

    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(work.parent / name))
    notebook = read(path)
    run_here(notebook, work)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                said = re.sub(r"\r?.*\d+%\|.*", "", output.text)  # a progress bar, on a slow machine
                assert not said.strip(), f"cell {cell.id!r}: {said}"
    return notebook
