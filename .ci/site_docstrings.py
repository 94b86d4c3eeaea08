"""What Python objects say of themselves, for the reference: docstrings and their sections, signatures, members."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import house


def docstring(root: Path, room: str, leaf: str, value: Any) -> str:
    """What stands below the name in the code; for an object that is called, what its call takes and returns too."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return inspect.getdoc(value) or ""
    own = inspect.cleandoc(of_variable(root, room, leaf))
    if not callable(value):
        return own
    said = inspect.getdoc(type(value).__call__) or ""
    cited = ": ".join(filter(None, [getattr(value, "title", ""), getattr(value, "paper", "")]))
    heading = own or (cited[:1].upper() + cited[1:] + "." if cited else "")
    return f"{heading}\n\n{said[said.index('Args:') :] if 'Args:' in said else said}"


def of_variable(root: Path, room: str, leaf: str) -> str:
    """The string after the assignment of an object."""
    stub = root / house.NAME / room / "__init__.pyi"
    module = f"{house.NAME}.{room}"
    if stub.exists():
        for node in ast.parse(stub.read_text()).body:
            if isinstance(node, ast.ImportFrom) and any(alias.name == leaf for alias in node.names):
                module = f"{module}.{node.module}"
    body = ast.parse(inspect.getsource(import_module(module))).body
    for statement, after in pairwise(body):
        targets = [getattr(statement, "target", None), *getattr(statement, "targets", [])]
        if any(getattr(each, "id", None) == leaf for each in targets) and isinstance(after, ast.Expr):
            return str(ast.literal_eval(after.value))
    return ""


def members(value: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with a docstring of their own, in the order they are written."""
    found: dict[str, Any] = {}
    for base in reversed([each for each in value.__mro__ if each.__module__.startswith(house.NAME)]):
        for name, each in vars(base).items():
            inner = getattr(each, "__func__", each)
            written = isinstance(each, property) or inspect.isfunction(inner)
            if written and not name.startswith("_") and inspect.getdoc(inner):
                found[name] = each if isinstance(each, property) else getattr(value, name)
    yield from found.items()


def body_and_rest(body: str) -> tuple[str, str]:
    """The indented block of a section, without its indent, and what follows it."""
    lines = body.split("\n")
    end = next((at for at, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return textwrap.dedent("\n".join(lines[:end])).strip(), "\n".join(lines[end:])


def items(block: str) -> Iterator[tuple[str, str]]:
    """`name: text` of a section, with the lines that belong to each."""
    for each in re.split(r"\n(?=\S)", block):
        name, _, said = each.partition(":")
        first, *more = said.strip().split("\n")
        yield name.strip(), "\n".join([first, *textwrap.dedent("\n".join(more)).split("\n")]).strip()


def kind(value: Any) -> str:
    """The directive for a value."""
    if inspect.isclass(value):
        return "py:exception" if issubclass(value, BaseException) else "py:class"
    return "py:function" if callable(value) else "py:data"


def signature(value: Any, *, bound: bool = False) -> str:
    """Names and defaults, without types: what each argument takes is said in words."""
    if not callable(value) or not (
        inspect.isclass(value) or inspect.isroutine(value) or kind(value) == "py:function"
    ):
        return ""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return ""
    try:
        found = inspect.signature(value)
    except ValueError:
        return ""
    parameters = [
        each.replace(annotation=each.empty, default=shown(each.default)) for each in found.parameters.values()
    ]
    parameters = (
        parameters[1:] if bound and parameters and parameters[0].name in ("self", "cls") else parameters
    )
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


class Shown(str):
    """A default as it is written in a signature."""

    def __repr__(self) -> str:
        return str(self)


def shown(default: Any) -> Any:
    """A default whose repr is short and means something to a reader."""
    if default is inspect.Parameter.empty or isinstance(default, str | int | float | bool | tuple | None):
        return default
    return Shown(getattr(default, "name", None) or getattr(default, "__name__", None) or "...")


def first_sentence(text: str, least: int = 0) -> str:
    """The first sentence, for tables; with `least`, the first sentences that have so many letters together."""
    found = ""
    for sentence in re.split(r"(?<=[.?])(?<!al\.)\s", " ".join(text.split("\n\n")[0].split())):
        found = f"{found} {sentence}".strip()
        if len(found) >= least:
            break
    return found.replace("|", r"\|")
