"""Where the documentation uses a public name: the statements of its pages and notebooks, all of which tests run."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_LINES = 12  # of a statement that is shown


class Use(NamedTuple):
    """A statement that uses a name, and where it stands: the page, seen from the reference, and its title."""

    code: str
    page: str
    title: str

    def text(self) -> str:
        """For the reference."""
        return (
            f"**Example**, from [{self.title}]({self.page}), where the lines before it are:\n\n"
            f"```python\n{self.code}\n```"
        )


def uses(root: Path, names: dict[str, str]) -> dict[str, Use]:
    """Full name -> a statement that uses it; a short one of a page where there are several.

    Args:
        root: of the checkout.
        names: what is written after `ik.` -> full name.
    """
    found: dict[str, Use] = {}
    for code, page, title in blocks(root):
        for statement in ast.parse(code).body:
            written = ast.get_source_segment(code, statement) or ""
            if isinstance(statement, ast.Import | ast.ImportFrom) or written.count("\n") >= MOST_LINES:
                continue
            for name in named(statement):
                if name in names:
                    use = Use(written, page, title)
                    found.setdefault(names[name], use)
    return found


def named(statement: ast.stmt) -> Iterator[str]:
    """What a statement writes after `ik.`: "sweep", "kernel.vote"."""
    for node in ast.walk(statement):
        parts, at = [], node
        while isinstance(at, ast.Attribute):
            parts.append(at.attr)
            at = at.value
        if parts and isinstance(at, ast.Name) and at.id == "ik":
            yield from (".".join(parts[::-1][:n]) for n in (1, 2) if n <= len(parts))


def blocks(root: Path) -> Iterator[tuple[str, str, str]]:
    """Code of every Python block of the pages, then of the notebooks' cells; its page and the page's title."""
    docs = root / "docs"
    for path in sorted(docs.rglob("*.md")):
        text = path.read_text()
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield code, f"../{path.relative_to(docs).as_posix()}", title_of(text)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        title = title_of("".join(cells[0]["source"]))
        for cell in cells:
            if cell["cell_type"] == "code" and not re.search(
                r"^\s*[%!]", "".join(cell["source"]), re.MULTILINE
            ):
                yield "".join(cell["source"]), f"../notebooks/{path.name}", title


def title_of(text: str) -> str:
    return text.split("\n", 1)[0].removeprefix("# ")
