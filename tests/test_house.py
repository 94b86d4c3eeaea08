"""The house rules a machine can check: who imports whom, where things lie, what the public names promise."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "induction_kernel"
FILES = sorted(PACKAGE.rglob("*.py"))

# Imports go strictly down, also those inside functions; rooms on one line do not know each other.
FLOORS = [
    {"errors"},
    {"stats"},
    {"given"},
    {"heads", "files", "text_files"},
    {"model"},
    {"prompts", "masks", "loading"},
    {"replay", "metrics"},
    {"scorers", "interventions"},
    {"kernel", "training", "plots"},
    {"evidence"},
    {"pages"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FREE = {"__version__"}  # may be taken from the package itself by anyone


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    """The rooms a file imports, wherever in the file; "" stands for the package itself."""
    package = ["induction_kernel", *path.relative_to(PACKAGE).parts[:-1]]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = {alias.name for alias in node.names} - FREE if module == "induction_kernel" else {""}
            targets |= {f"{module}.{name}" for name in names}
    split = [target.rstrip(".").split(".") for target in targets]
    return {(parts[1] if len(parts) > 1 else "") for parts in split if parts[0] == "induction_kernel"}


def top_level_imports(path: Path) -> set[str]:
    """The first names of what a file imports when it is loaded."""
    nodes = ast.parse(path.read_text()).body
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in plain | named}


def lazy_names() -> dict[str, str]:
    """Public name -> module, as the `__getattr__` of the package has them."""
    import induction_kernel

    return induction_kernel._HOME


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_strictly_down(path):
    room = room_of(path)
    if room == "__init__":
        return  # the table of contents names every room, and loads none
    assert room in FLOOR, f"{room} is not on the floor plan: add it here and to the README's tree"
    for other in own_imports(path) - {room} - ({""} if room == "cli" else set()):
        assert other, f"{path.name} imports the package itself: import from the module that has the name"
        assert FLOOR[other] < FLOOR[room], f"{path.name} ({room}) must not import {other}"


def test_drawing_knows_data_only():
    for path in FILES:
        if room_of(path) == "plots":
            assert own_imports(path) <= {"plots", "heads", "files", "given", "errors", "stats"}
        elif room_of(path) not in {"evidence", "pages", "cli", "__init__"}:
            assert "plots" not in own_imports(path), f"{path.name}: only arguments, pages and cli draw"


def test_the_command_line_starts_at_once():
    """Nothing but typer is loaded before a command runs."""
    heavy = "{'torch', 'transformer_lens', 'numpy', 'pandas', 'xarray', 'plotly', 'jinja2'}"
    code = f"import sys, induction_kernel.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    for name in ("app", "commands", "studies", "options"):
        assert top_level_imports(PACKAGE / "cli" / f"{name}.py") <= {"typer", *sys.stdlib_module_names}


def test_folders():
    code = [path.relative_to(PACKAGE) for path in FILES]
    assert all(len(path.parts) <= 2 for path in code), "rooms have no rooms of their own"
    vague = {"core", "utils", "util", "common", "helpers", "misc"}
    assert not vague & {part.removesuffix(".py") for path in code for part in path.parts}


def test_no_public_name_is_a_module():
    """With a lazy `__getattr__` such a name would be the function at first and the module later."""
    modules = {part.removesuffix(".py") for path in FILES for part in path.relative_to(PACKAGE).parts}
    rooms = [path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE]
    nodes = [node for path in rooms for node in ast.parse(path.read_text()).body]
    opened = {alias.asname for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not (set(lazy_names()) | opened) & modules


def test_the_two_lists_of_public_names_are_one():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    typed = next(block for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING")
    assert all(isinstance(node, ast.ImportFrom) and len(node.names) == 1 for node in typed.body)
    seen = {(node.module, node.names[0].name, node.names[0].asname) for node in typed.body}
    assert seen == {(module, name, name) for name, module in lazy_names().items()}


def test_import_is_instant():
    heavy = "{'torch', 'transformer_lens', 'numpy', 'plotly'}"
    code = f"import sys, induction_kernel; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_wrong_name_is_an_attribute_error():
    import induction_kernel

    with pytest.raises(AttributeError, match="'indution'"):
        induction_kernel.indution  # noqa: B018  # the look-up itself is tested
    assert set(induction_kernel.__all__) <= set(dir(induction_kernel))


@pytest.mark.parametrize("name", sorted(lazy_names()))
def test_every_public_name_is_there_and_documented(name):
    import induction_kernel

    value = getattr(induction_kernel, name)
    if isinstance(value, type) or inspect.isfunction(value):
        text = value.__doc__ or ""
    else:  # an object, such as a scorer: its docstring is the string after its assignment
        text = docstring_of_variable(import_module(f"induction_kernel.{lazy_names()[name]}"), name)
    assert len(text) > 20, f"{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{name} has only the docstring that dataclass makes up"


def docstring_of_variable(module, name: str) -> str:
    body = ast.parse(inspect.getsource(module)).body
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets) and isinstance(following, ast.Expr):
            return str(ast.literal_eval(following.value))
    return ""


def test_files_say_what_they_are_for():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


def test_the_version_is_one():
    import induction_kernel

    assert f"\nversion: {induction_kernel.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{induction_kernel.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_names_a_machine_or_a_package_index():
    """What is committed must work anywhere: no absolute path of one machine, no package server."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = r"(?<![\w.*])/(?:home|root|work|Users)/\w"
    bad = re.compile(paths + r"|index[-]url|find[-]links|pypi\.org|pythonhosted|pytorch\.org/whl")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".safetensors", ".gif"} or path == Path(__file__) or not path.exists():
            continue
        found = bad.search(path.read_text(errors="ignore"))
        assert not found, f"{name} has {found and found.group()!r}"


def test_shapes_are_checked_in_this_run():
    """The hook named in pyproject.toml is at work: a tensor of the wrong shape stops at the signature."""
    import torch
    from jaxtyping import TypeCheckError

    from induction_kernel import masks

    flat = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        masks.previous_key(flat, flat)


def test_no_test_module_is_imported_by_another():
    """What several need stands in tests/support."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(("test_", "tests"))], path.name
