"""Do the notebooks run from top to bottom, without a network and without a warning, as they are in git?"""

import functools
import re
from pathlib import Path

import pytest

import induction_kernel

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MOST_CELLS = 25

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    import nbformat  # takes seconds, also of runs that only collect

    return nbformat.read(path, as_version=4)


def test_there_are_notebooks():
    assert NOTEBOOKS


@each
def test_cells_are_few_named_and_without_outputs(path):
    import nbformat

    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    for cell in notebook.cells:
        assert re.search("[a-z]", cell.id), f"{cell.id}: a readable id keeps diffs readable"
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)


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
