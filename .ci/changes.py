"""The small changes that mutation testing makes of a file: operators, constants, calls, arguments, conditions.

No change is made of docstrings, annotations, imports, assertions, messages of what is raised, and `__all__` (nobody
imports everything of a file: what is public stands in the `.pyi`).
"""

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "induction_kernel"
SWAPPED = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin"}
TYPES = set(dir(builtins)) - {"abs", "sorted", "round", "set"}  # without these calls nothing would run
UNSEEN = ("strict", "progress", "desc", "unit")  # of zip where nothing is wrong, of progress bars
UNTOUCHED = (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)
Node = ast.expr | ast.stmt


@dataclass(frozen=True)
class Change:
    """`new` instead of the bytes `start:stop` of a file."""

    path: Path
    line: int
    start: int
    stop: int
    kind: str
    old: str
    new: str

    @property
    def room(self) -> str:
        """The folder, or the file's own name."""
        return self.path.relative_to(PACKAGE).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        old, new = (re.sub(r"\s+", " ", text)[:90] for text in (self.old, self.new))
        return f"{self.path.relative_to(ROOT)}:{self.line} {self.kind}: {old}  ->  {new}"


def changes_of(path: Path) -> Iterator[Change]:
    """Every change of a file."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in touched(ast.parse(source)):
        for kind, place, new in variants(node):
            start = starts[place.lineno - 1] + place.col_offset
            stop = starts[place.end_lineno - 1] + place.end_col_offset
            text = f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
            yield Change(path, place.lineno, start, stop, kind, source[start:stop].decode(), text)


def touched(node: ast.AST) -> Iterator[Node]:
    """The nodes that may change."""
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    exports = isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
    if isinstance(node, UNTOUCHED) or typing_only or exports:
        return
    if isinstance(node, Node):
        yield node
    if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg in UNSEEN):
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            prose = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not prose:
                yield from touched(child)


def variants(node: Node) -> Iterator[tuple[str, Node, Node]]:
    """(kind, the node that is replaced, what takes its place)."""
    match node:
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            yield "negated condition", test, ast.UnaryOp(ast.Not(), test)
        case ast.Expr(ast.Call()) | ast.Raise() | ast.AugAssign():
            yield "dropped statement", node, ast.Pass()
        case ast.Return(ast.expr() as value) if ast.unparse(value) != "None":
            yield "returned", value, ast.Constant(None)
        case ast.expr():
            for kind, new in changed_expressions(node):
                yield kind, node, new


def changed_expressions(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare(left, [op, *ops], comparators) if type(op) in SWAPPED:
            yield "comparison", ast.Compare(left, [SWAPPED[type(op)](), *ops], comparators)
        case ast.BinOp(left, op, right) if type(op) in SWAPPED:
            yield "arithmetic", ast.BinOp(left, SWAPPED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield "boolean", ast.BoolOp(SWAPPED[type(op)](), values)
            yield "dropped condition", ast.BoolOp(op, values[:-1]) if len(values) > 2 else values[0]
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield "dropped sign", operand
        case ast.Constant(bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", ast.Constant(value + 1)
        case ast.Constant(str() as value) if value and not re.search(r"\s", value):
            yield "string", ast.Constant(f"{value}x")
        case ast.Subscript(value, ast.Slice(lower, upper)):
            if lower is not None:
                yield "slice", ast.Subscript(value, ast.Slice(None, upper))
            if upper is not None:
                yield "slice", ast.Subscript(value, ast.Slice(lower, None))
        case ast.Call():
            yield from changed_calls(node)


def changed_calls(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    match node.func:
        case ast.Attribute(value, name) if name in OPPOSITE:
            yield "opposite", ast.Call(ast.Attribute(value, OPPOSITE[name]), node.args, node.keywords)
        case ast.Name(name) if name in OPPOSITE:
            yield "opposite", ast.Call(ast.Name(OPPOSITE[name]), node.args, node.keywords)
        case ast.Attribute(value, name) if name != "items" and (
            not node.args or not isinstance(value, ast.Name)
        ):
            yield "dropped call", value
        case ast.Name(name) if len(node.args) == 1 and not node.keywords and name not in TYPES:
            if not isinstance(node.args[0], ast.Starred):
                yield "dropped call", node.args[0]
    for i, keyword in enumerate(node.keywords):
        kept = node.keywords[:i] + node.keywords[i + 1 :]
        if keyword.arg not in UNSEEN:
            yield "dropped argument", ast.Call(node.func, node.args, kept)
