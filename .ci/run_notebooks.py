"""Run the notebooks and keep what they show: tables, text and pictures, for readers on GitHub.

From the root of a checkout: `python .ci/run_notebooks.py [NAME ...]` (`make notebooks`), with kaleido and a browser.
Interactive figures, widgets and progress are left out: they are megabytes, and a notebook that is run has them.
`--first` only writes the install line and the badge into the first cells.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
MARK = "code_that_made_the_outputs"
KEPT = ("image/png", "text/html", "text/plain")
INSTALL = """\
import importlib.util

if importlib.util.find_spec("induction_kernel") is None:  # in Colab, say
    %pip install -q "induction-kernel[widget]"

"""


def paths(names: list[str]) -> list[Path]:
    """The notebooks whose names begin so; all without names."""
    return [path for path in sorted(FOLDER.glob("*.ipynb")) if path.name.startswith(tuple(names) or "")]


def code_of(notebook: nbformat.NotebookNode) -> str:
    """A mark of the code, by which outputs that are older than it are noticed."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()[:16]


def with_first_cells(notebook: nbformat.NotebookNode, name: str) -> None:
    """The install line on top of the first code cell, and the badge below the title where the repository is known."""
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if not code.source.startswith(INSTALL):
        code.source = INSTALL + code.source
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    found = re.search(r"github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?$", urls.get("Repository", ""))
    title = notebook.cells[0]
    if found and "colab-badge" not in title.source:
        where = f"https://colab.research.google.com/github/{found[1]}/blob/main/notebooks/{name}"
        badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({where})"
        first, _, rest = title.source.partition("\n")
        title.source = f"{first}\n\n{badge}\n{rest}"


def run(notebook: nbformat.NotebookNode) -> None:
    """Run it in an empty folder, and keep what a reader without scripts sees."""
    notebook.metadata.pop("widgets", None)
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})"]
        extra = [f"--IPKernelApp.exec_lines={line}" for line in lines]
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=900, resources=where, extra_arguments=extra).execute()
    notebook.metadata.pop("widgets", None)
    for count, cell in enumerate((each for each in notebook.cells if each.cell_type == "code"), 1):
        cell.outputs = [kept for output in cell.outputs if (kept := _kept(output)) is not None]
        cell.execution_count = count
        cell.metadata.pop("execution", None)  # times
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata[MARK] = code_of(notebook)


def _kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The output without what only a script shows; None where nothing is left."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if "application/vnd.jupyter.widget-view+json" in output.data:
        return None
    drawn = "application/vnd.plotly.v1+json" in output.data
    if drawn and "image/png" not in output.data:
        raise SystemExit(f"a figure has no picture: {output.data.get('text/plain', '')}")
    output.data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
    return output if output.data else None


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01")
    parser.add_argument("--first", action="store_true", help="only the install line and the badge")
    asked = parser.parse_args()
    for path in paths(asked.names):
        notebook = nbformat.read(path, as_version=4)
        with_first_cells(notebook, path.name)
        if not asked.first:
            run(notebook)
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
