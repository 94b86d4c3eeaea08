"""The reference of the site: a page a namespace, made of the `__init__.pyi` lists and the docstrings, in Markdown.

Docstrings are Markdown in Google's style, which Sphinx' autodoc would read as reStructuredText: their tables, lists and
code would not survive. So the pages are written here, with the directives of Sphinx' Python domain around each object.
Every name has an example: that of its docstring, or the first lines of the documentation that use it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import house
import site_examples
from site_docstrings import (
    body_and_rest,
    docstring,
    first_sentence,
    items,
    kind,
    members,
    signature,
)

import induction_kernel as ik

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples")
TITLES = {"Args": "Arguments", "Example": "Example", "Examples": "Example"}
LISTED = ("Args", "Attributes", "Raises")
SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*\n", re.MULTILINE)


class Entry(NamedTuple):
    """A public name: `path` as after `ik.`, the folder whose page it stands on, and its value."""

    path: str
    room: str
    value: Any

    @property
    def leaf(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def full(self) -> str:
        return f"ik.{self.path}"


class Reference:
    """All public names, and their pages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.public = house.public_names(root)

    @cached_property
    def entries(self) -> list[Entry]:
        """Every name once: an everyday name by its short path, on the page of its namespace."""
        flat = {
            name: getattr(ik, name) for name in self.public[""] if not inspect.ismodule(getattr(ik, name))
        }
        found = []
        for room, names in self.public.items():
            for name in names if room else ():
                value = getattr(getattr(ik, room), name)
                found.append(Entry(name if flat.get(name) is value else f"{room}.{name}", room, value))
        placed = {each.path for each in found}
        return found + [Entry(name, "", value) for name, value in flat.items() if name not in placed]

    def names(self) -> dict[str, str]:
        """What documentation writes after `ik.` -> the full name in the reference."""
        short = {each.path: each.full for each in self.entries}
        bare = {each.leaf: each.full for each in self.entries if "_" in each.leaf}  # cannot be another word
        return bare | short | {f"{each.room}.{each.leaf}": each.full for each in self.entries if each.room}

    @cached_property
    def used(self) -> dict[str, site_examples.Use]:
        """Full name -> where documentation that is run uses it first."""
        return site_examples.uses(self.root, self.names())

    def docstring(self, entry: Entry) -> str:
        """What stands below the name in the code."""
        return docstring(self.root, entry.room, entry.leaf, entry.value)

    def without_example(self) -> list[str]:
        """Names that neither their docstring nor the documentation shows at work."""
        return sorted(
            each.path
            for each in self.entries
            if ">>>" not in self.docstring(each) and each.full not in self.used
        )

    def pages(self) -> dict[str, str]:
        """Name of the page -> its text."""
        rooms = [room for room in self.public if room]
        found = {room: "\n\n".join(self.page(room)) + "\n" for room in rooms}
        return {"index": "\n\n".join(self.index(rooms)) + "\n", **found}

    def index(self, rooms: list[str]) -> Iterator[str]:
        """The first page: what there is, by namespace."""
        yield "# Reference"
        yield (
            "Every public name, by namespace. Everyday names are in the package itself: "
            "`import induction_kernel as ik`, then `ik.sweep`. [Names by question]"
            "(../index.md#names-by-question) has them by what they answer."
        )
        lines = ["| namespace | what is in it | names |", "|---|---|---|"]
        for room in rooms:
            here = [each for each in self.entries if each.room == room]
            said = first_sentence(module_text(room))
            lines.append(f"| [`ik.{room}`]({room}.md) | {said} | {', '.join(link(each) for each in here)} |")
        yield "\n".join(lines)
        yield "## In the package itself"
        for each in self.entries:
            if not each.room:
                yield self.object(each)
        yield "```{toctree}\n:hidden:\n\n" + "\n".join(f"ik.{room} <{room}>" for room in rooms) + "\n```"

    def page(self, room: str) -> Iterator[str]:
        """One namespace: what it is for, its names, and each with its docstring."""
        here = [each for each in self.entries if each.room == room]
        yield f"# ik.{room}"
        yield self.linked(module_text(room))
        lines = ["| name | |", "|---|---|"]
        lines += [f"| {link(each)} | {self.linked(first_sentence(self.docstring(each)))} |" for each in here]
        yield "\n".join(lines)
        for each in here:
            yield self.object(each)

    def object(self, entry: Entry) -> str:
        """One name with its docstring, its members if it is a class, and an example."""
        parts = [*self.text(self.docstring(entry))]
        if inspect.isclass(entry.value):
            parts += [self.member(entry, *each) for each in members(entry.value)]
        if ">>>" not in parts[0] + "".join(parts) and entry.full in self.used:
            parts.append(self.used[entry.full].text())
        return directive(kind(entry.value), entry.full + signature(entry.value), parts)

    def member(self, entry: Entry, name: str, value: Any) -> str:
        """A method or property of a class."""
        text = inspect.getdoc(value) or ""
        if isinstance(value, property):
            return directive("py:property", f"{entry.full}.{name}", [*self.text(text)])
        return directive(
            "py:method", f"{entry.full}.{name}{signature(value, bound=True)}", [*self.text(text)]
        )

    def text(self, doc: str) -> Iterator[str]:
        """A docstring as Markdown: its sections as lists of definitions and paragraphs."""
        parts = SECTION.split(doc)
        yield self.linked(parts[0].strip())
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            block, rest = body_and_rest(body)
            yield f"**{TITLES.get(name, name)}**"
            if name in LISTED:
                yield "\n\n".join(f"`{what}`\n: {indented(self.linked(said))}" for what, said in items(block))
            elif ">>>" in block:
                yield f"```pycon\n{block}\n```"
            else:
                yield self.linked(block)
            if rest.strip():
                yield self.linked(rest.strip())

    def linked(self, text: str) -> str:
        """Names of the package in code linked to where they stand."""
        names = self.names()

        def found(match: re.Match[str]) -> str:
            name = match[1].removeprefix("ik.")
            return f"{{py:obj}}`{match[1]} <{names[name]}>`" if name in names else match[0]

        parts = re.split(r"(^```.*?^```$|^(?: {4}.*\n?)+)", text, flags=re.MULTILINE | re.DOTALL)
        return "".join(
            part if at % 2 else re.sub(r"(?<![`}])`((?:ik\.)?[A-Za-z_][\w.]*)`(?!`)", found, part)
            for at, part in enumerate(parts)
        )


def indented(text: str) -> str:
    """Lines after the first moved below the definition's text."""
    return text.replace("\n", "\n  ")


def directive(name: str, argument: str, parts: list[str]) -> str:
    """A directive around text that may hold others."""
    body = "\n\n".join(part for part in parts if part)
    longest = max((len(found) for found in re.findall(r"^:{3,}|^`{3,}", body, re.MULTILINE)), default=2)
    fence = "`" * max(longest + 1, 4)
    return f"{fence}{{{name}}} {argument}\n\n{body}\n{fence}"


def link(entry: Entry) -> str:
    """A link to a name."""
    return f"{{py:obj}}`{entry.leaf} <{entry.full}>`"


def module_text(room: str) -> str:
    """The docstring of a namespace, without the names of its private files."""
    return inspect.getdoc(getattr(ik, room)) or ""
