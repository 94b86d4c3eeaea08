"""README and docs: links lead somewhere, names and commands exist, pages begin with what they contain."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
from public import public_values, verbs

import induction_kernel as ik
from induction_kernel.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_BYTES = 10_000  # of the README: what is read in one sitting

each = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT).with_suffix(""))
)


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a file in links."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(path: Path) -> list[list[str]]:
    """Every call of `induction-kernel` in a block of code or in a line of text, as words."""
    lines = re.findall(r"(?:^|`)induction-kernel ([^`\n]+)", path.read_text(), flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@each
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    for link in (link for link in links if not link.startswith("https://")):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{path.name} links to {link}: no such heading"


@each
def test_names_exist(path):
    for name in re.findall(r"\bik\.([a-zA-Z_][\w.]*)", path.read_text()):
        found = ik
        for part in name.rstrip(".").split("."):
            assert hasattr(found, part), f"{path.name} names ik.{name}"
            found = getattr(found, part)


def test_the_contents_name_what_is_public():
    text = (ROOT / "docs" / "index.md").read_text()
    table = text[text.index("## Names by question") : text.index("## Sources")]
    named = set(re.findall(r"`([A-Za-z_][\w.]*)`", table))
    assert set(verbs()) <= named <= set(public_values())


@each
def test_commands_exist(path):
    known = typer.main.get_command(app).commands
    for name, *words in commands(path):
        taken = {option for each in known[name].params for option in each.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= taken, f"{path.name}: induction-kernel {name} has no {given - taken}"


def test_there_are_commands_to_check():
    assert sum(len(commands(path)) for path in DOCUMENTS) >= 10


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES


def test_every_page_is_in_the_contents():
    """Those of a folder are listed by its own index; README names the main ones."""
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in DOCUMENTS[1:]}
    top = {page for page in pages if "/" not in page or page.endswith("/index.md")}
    readme, contents = (ROOT / "README.md").read_text(), (docs / "index.md").read_text()
    assert {"index.md", "start.md"} <= set(re.findall(r"\]\(docs/([\w/]+\.md)", readme))
    assert set(re.findall(r"\]\(([\w/]+\.md)", contents)) == top - {"index.md"}
    for page in pages - top:
        folder, _, name = page.rpartition("/")
        assert f"]({name})" in (docs / folder / "index.md").read_text()


@each
def test_a_page_begins_with_what_it_contains(path):
    title, said = path.read_text().split("\n\n")[:2]
    assert title.startswith("# ")
    assert said[0].isalpha(), f"{path.name} begins with {said[:30]!r}"
    assert said.endswith(".")


def test_tables_of_times_are_made_from_the_results():
    """`make bench` measures them and makes the tables; nothing in them is written by hand."""
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    text = (ROOT / "docs" / "performance.md").read_text()
    assert sorted(re.findall(r"<!-- table: (\w+) -->", text)) == sorted(tables["TABLES"])
    assert tables["with_tables"](text) == text
    assert tables["with_tables"](tables["BETWEEN"].sub(r"\1\3", text)) == text


def test_every_ratio_is_measured_on_the_same_numbers():
    """Ways that are compared compute the same, to 1e-5 in float32."""
    rows = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["results"]("sweeps")["rows"]
    assert len(rows) > 20
    assert all(row["apart"] < 1e-5 for row in rows)
