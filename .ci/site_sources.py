"""The sources of the site, in build/docs: the pages, notebooks, reference and live explorers that Sphinx reads.

Pages of docs/, the notebooks and the changelog are copied with their links mended: a link to a file of the code leads
to the repository if pyproject.toml names one (`project.urls`, Source or Repository), and is its path as text if not.
Names of the package in code are linked to the reference. Files are written only where they change: Sphinx reads only
those again. Run from the root of a checkout: `python .ci/site_sources.py`, then `make docs` has the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from site_docstrings import first_sentence

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "docs"
SOURCE = BUILD / "source"
FENCED = re.compile(r"^(`{3,}|:{3,}).*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
HIDE_ANYWIDGET = (
    "# Nothing runs behind a published page: the explorer shows the page that it saves, not a widget.\n"
    'import sys\n\nsys.modules["anywidget"] = None\n'
)


def pages() -> dict[Path, str]:
    """File of the repository -> its path in the site's sources."""
    docs = ROOT / "docs"
    found = {path: path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md"))}
    found |= {path: f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        if (ROOT / name).exists():
            found[ROOT / name] = name.lower()
    return found


def generated() -> list[str]:
    """Pages of the site that no file of the repository holds, by their names in toctrees."""
    return ["notebooks/index", "reference/index"]


def write(path: Path, content: str | bytes) -> None:
    """Write a file unless it holds this already."""
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def kept_outputs() -> Path:
    """Where the outputs of notebooks are kept: for the package as it is now, so that a change of it runs them again."""
    found = hashlib.sha256()
    for path in sorted(path for path in (ROOT / "induction_kernel").rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return BUILD / "notebooks" / found.hexdigest()[:16]


def repository() -> str:
    """Where the code can be read, without a slash at its end; "" if pyproject.toml does not say."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    named = {name.lower(): url for name, url in urls.items()}
    return named.get("source", named.get("repository", "")).rstrip("/")


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with what is not in a fenced block changed."""
    parts, at = [], 0
    for block in FENCED.finditer(text):
        parts += [change(text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, change(text[at:])])


def with_links(text: str, path: Path) -> str:
    """A page's text with links that lead where the site has them."""
    places, here = pages(), Path(pages()[path]).parent

    def mended(found: re.Match[str]) -> str:
        label, link = found.groups()
        name, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:") or not name:
            return found[0]
        target = (path.parent / name).resolve()
        if target in places:
            inside = os.path.relpath(places[target], here)
            return f"[{label}]({inside}{'#' + anchor if anchor else ''})"
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        where = target.relative_to(ROOT).as_posix()
        if repository():
            return f"[{label}]({repository()}/blob/main/{where})"
        return f"`{where}`" if where.endswith(label.strip("`")) else f"{label} (`{where}`)"

    return outside_fences(text, lambda part: LINK.sub(mended, part))


def with_references(text: str, names: dict[str, str]) -> str:
    """Names of the package in code linked to the reference: all with a dot, each other one where it is first met.

    Args:
        text: of a page.
        names: what stands in code -> the object's full name in the reference.
    """
    met: set[str] = set()

    def linked(found: re.Match[str]) -> str:
        name = found[1].removeprefix("ik.")
        if name not in names or (name in met and "." not in found[1]):
            return found[0]
        met.add(name)
        return f"{{py:obj}}`{found[1]} <{names[name]}>`"

    def in_line(line: str) -> str:
        if line.startswith("#"):  # headings keep their anchors
            return line
        parts = re.split(rf"({LINK.pattern.replace('((?:', '(?:(?:', 1).replace('([^)', '(?:[^)', 1)})", line)
        return "".join(
            part if at % 2 else re.sub(r"(?<![`}])`((?:ik\.)?[A-Za-z_][\w.]*)`(?!`)", linked, part)
            for at, part in enumerate(parts)
        )

    return outside_fences(text, lambda part: "\n".join(in_line(line) for line in part.split("\n")))


def notebook_text(path: Path, change: Callable[[str], str]) -> str:
    """A notebook as JSON, without outputs, with the text of its Markdown cells changed."""
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = change("".join(cell["source"]))
        else:
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(content, indent=1, ensure_ascii=False)


def cards_of_notebooks() -> Iterator[str]:
    """The page that lists the notebooks: a card each, with its title and first sentence."""
    yield "# Notebooks\n\nEach was run to make this site. They need no network, and take a minute or two.\n"
    yield "::::{grid} 1 1 2 2\n:gutter: 3\n"
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in paths:
        text = "".join(json.loads(path.read_text())["cells"][0]["source"])
        title, said = text.split("\n\n")[:2]
        first = first_sentence(said, least=80)
        yield f":::{{grid-item-card}} {title.removeprefix('# ')}\n:link: {path.stem}\n:link-type: doc\n\n{first}\n:::\n"
    yield "::::\n\n```{toctree}\n:hidden:\n"
    yield from (path.stem for path in paths)
    yield "```\n"


def explorers() -> None:
    """The two explorers that pages show live: the embedded model on repeated tokens, and on a few-shot prompt."""
    import induction_kernel as ik

    model = ik.load("tiny")
    prompts = ik.repeated_tokens(model, prompts=8, period=12)
    scores = ik.observe(model, prompts, [ik.induction, ik.previous_token, ik.duplicate_token])
    live = BUILD / "extra" / "live"
    live.mkdir(parents=True, exist_ok=True)
    ik.explore(model, prompts[:2], scores=scores).save(live / "repeated.html")
    shots = ik.prompts.word_episodes(model, prompts=8)
    ik.explore(model, shots[:2], scores=ik.label_attention(model, shots)).save(live / "few_shot.html")


def main() -> None:
    """Write everything, and remove pages that are no more."""
    import plotly.offline
    import site_reference

    reference = site_reference.Reference(ROOT)
    names = reference.names()
    made: dict[str, Any] = {"notebooks/index.md": "\n".join(cards_of_notebooks())}
    made |= {f"reference/{name}.md": text for name, text in reference.pages().items()}
    for path, place in pages().items():
        if path.suffix == ".ipynb":
            made[place] = notebook_text(path, lambda text, path=path: with_links(text, path))
        else:
            made[place] = with_references(with_links(path.read_text(), path), names)
    made |= {path.name: path.read_bytes() for path in (ROOT / "docs").glob("*.png")}
    for place, content in made.items():
        write(SOURCE / place, content)
    for path in [path for path in SOURCE.rglob("*") if path.is_file()]:
        if path.relative_to(SOURCE).as_posix() not in made:
            path.unlink()
    for old in set((BUILD / "notebooks").glob("*")) - {kept_outputs()}:
        shutil.rmtree(old)
    write(BUILD / "static" / "plotly.min.js", plotly.offline.get_plotlyjs())
    write(BUILD / "ipython" / "profile_default" / "startup" / "no_widgets.py", HIDE_ANYWIDGET)
    explorers()


if __name__ == "__main__":
    main()
