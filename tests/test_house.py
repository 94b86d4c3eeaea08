"""The house rules a machine can check: who imports whom, where things lie, what the public names promise."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "induction_kernel"
FILES = house.files(ROOT)

# Imports go strictly down, also those inside functions; rooms on one line do not know each other.
FLOORS = [
    {"errors", "_lazy"},
    {"stats", "formats", "_given"},
    {"heads", "stores", "masks"},
    {"model"},
    {"prompts", "loading", "plots"},
    {"replay", "metrics", "data", "theory"},
    {"scorers", "interventions"},
    {"attention_explorer", "kernel", "training"},
    {"fewshot"},
    {"evidence", "head_census"},
    {"pages"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FREE = {"__version__"}  # may be taken from the package itself by anyone
DRAWERS = {"plots", "attention_explorer", "evidence", "pages", "cli"}


def own_imports(path: Path) -> set[str]:
    """The rooms a file imports, wherever in the file; "" stands for the package itself."""
    rooms = set()
    for module, name in house.imports(ROOT, path):
        if module != house.NAME:
            rooms.add(house.room_of(module))
        elif name not in FREE:
            rooms.add(name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "")
    return rooms


def top_level_imports(path: Path) -> set[str]:
    """The first names of what a file imports when it is loaded."""
    nodes = ast.parse(path.read_text()).body
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in plain | named}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_strictly_down(path):
    room = house.room_of(house.module_of(ROOT, path))
    if not room:
        return  # the table of contents names every room, and loads none
    assert room in FLOOR, f"{room} is not on the floor plan: add it here and to docs/architecture.md"
    for other in own_imports(path) - {room} - ({""} if room == "cli" else set()):
        assert other, f"{path.name} imports the package itself: import from the module that has the name"
        assert FLOOR[other] < FLOOR[room], f"{path.name} ({room}) must not import {other}"


def test_the_documentation_draws_the_house_as_it_is():
    text = (ROOT / "docs" / "architecture.md").read_text()
    said = re.findall(r"^ ?(\d+)  ([a-z_, ]+)$", text, re.MULTILINE)
    drawn = {int(floor): set(rooms.split(", ")) for floor, rooms in said}
    walked = {i: {room for room in rooms if room[0] != "_"} for i, rooms in enumerate(FLOORS[:-1])}
    assert drawn == walked
    tree = set(re.findall(r"^  ([a-z_]+)(?:/|\.py)  ", text, re.MULTILINE))
    assert tree - {"__init__", "assets"} == set().union(*walked.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_import_files_never_a_rooms_table_of_contents(path):
    """A room's `__init__` is for users: importing from it would load what its names need, or hide an arrow."""
    for module, name in house.imports(ROOT, path):
        folder = ROOT.joinpath(*module.split("."))
        if module == house.NAME or not folder.is_dir() or name == "attach":
            continue
        assert (folder / f"{name}.py").exists(), f"{path.name} imports {name} from {module}/__init__"


def test_only_interventions_drives_lanes():
    assert house.lanes_from_outside(ROOT) == []


def test_the_modules_of_lanes_are_there():
    for room, names in house.LANES.items():
        assert names <= {path.stem for path in FILES if path.parent.name == room}


def test_drawing_knows_data_only():
    for path in FILES:
        room = house.room_of(house.module_of(ROOT, path))
        if room == "plots":
            assert own_imports(path) <= {"plots", "heads", "stores", "_given", "errors", "stats", "_lazy"}
        elif room not in DRAWERS and room and path.name != "_vote_view.py":
            assert "plots" not in own_imports(path), (
                f"{path.name}: only arguments, pages and the command line draw"
            )


def test_there_are_no_import_circles():
    assert house.circles(house.imported_modules(ROOT)) == []
    assert house.circles(house.room_graph(ROOT)) == []


def test_circles_are_found():
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [("b", "c")]


def test_the_command_line_starts_at_once():
    """Nothing but typer is loaded before a command runs."""
    heavy = "{'torch', 'transformer_lens', 'numpy', 'pandas', 'xarray', 'plotly', 'jinja2'}"
    code = f"import sys, induction_kernel.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    for name in ("_app", "_census", "_checks", "_commands", "_explore", "_inputs", "_options", "_studies"):
        assert top_level_imports(PACKAGE / "cli" / f"{name}.py") <= {"typer", *sys.stdlib_module_names}


def test_folders():
    code = [path.relative_to(PACKAGE) for path in FILES]
    assert all(len(path.parts) <= 2 for path in code), "rooms have no rooms of their own"
    vague = {"core", "utils", "util", "common", "helpers", "misc"}
    assert not vague & {part.removesuffix(".py").strip("_") for path in code for part in path.parts}
    rooms = {path.parts[0] for path in code if len(path.parts) == 2}
    for room in rooms:
        assert len([path for path in code if path.parts[0] == room]) <= 21, f"{room} has more than 20 files"


def test_files_behind_a_public_package_are_private():
    """So no public name can be a module, and nobody wonders what may be imported."""
    for path in FILES:
        if path.parent != PACKAGE:
            assert path.name.startswith("_"), (
                f"{path.relative_to(ROOT)}: files in rooms start with an underscore"
            )


def test_files_are_of_one_sitting():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in long.items() if n > 280} == {}


def test_files_say_what_they_are_for():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


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
