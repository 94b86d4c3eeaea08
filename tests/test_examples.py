"""The examples a reader copies are run as they stand: those of every docstring, README and docs."""

import ast
import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def examples() -> list:
    """Every string statement of the package with a `>>>`: docstrings, also those that follow an assignment.

    doctest's own search would miss the functions that are wrapped to have their shapes checked.
    """
    found = []
    for path in sorted((ROOT / "induction_kernel").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = node.value.value
                if isinstance(text, str) and ">>>" in text:
                    found.append(pytest.param(module, text, id=f"{path.name}-{node.lineno}"))
    return found


@pytest.mark.parametrize(("module", "text"), examples())
def test_the_docstring_runs(module, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what the examples save lands here
    names = dict(vars(import_module(module)))
    test = doctest.DocTestParser().get_doctest(inspect.cleandoc(text), names, module, None, 0)
    lines = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=lines.append)
    assert not runner.failures, "".join(lines)


SLOW = {"census", "kernel_regression", "six_arguments"}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=str(path.relative_to(ROOT).with_suffix("")),
            marks=[pytest.mark.slow] * (path.stem in SLOW),
        )
        for path in DOCUMENTS
        if blocks(path)
    ],
)
def test_the_document_runs(path, tmp_path, monkeypatch):
    """From its first Python block to its last, as a reader would who begins with an empty session."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": path.stem}
    for number, block in enumerate(blocks(path), start=1):
        exec(compile(block, f"{path.name}, Python block {number}", "exec"), namespace)
