"""The public names: loaded lazily, documented, listed by `dir`, and the nearest suggested for a mistyped one."""

import ast
import importlib
import inspect
import json
import pydoc
import re
import runpy
import subprocess
import symtable
import sys
from itertools import pairwise
from pathlib import Path

import defaults
import house
import pytest

import induction_kernel as ik

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "induction_kernel"
NAMES = [
    f"{room}.{name}" if room else name for room, names in house.public_names(ROOT).items() for name in names
]


def value_of(name: str):
    """A public name's value, from "room.name" or "name"."""
    value = ik
    for part in name.split("."):
        value = getattr(value, part)
    return value


def stub_imports(path: Path) -> dict[str, str]:
    """Name -> module (relative to the folder) of what an `__init__.pyi` lists."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def test_import_is_instant():
    heavy = "{'torch', 'transformer_lens', 'numpy', 'plotly'}"
    code = f"import sys, induction_kernel as ik; dir(ik); ik.kernel; dir(ik.kernel); print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "unwanted"),
    [
        ("Head", {"torch", "plotly", "circuitsvis", "transformer_lens"}),
        ("top_heads", {"plotly", "circuitsvis", "transformer_lens"}),
        ("head_map", {"circuitsvis", "transformer_lens"}),
        ("induction", {"plotly", "circuitsvis"}),
    ],
)
def test_a_name_loads_what_it_needs(name, unwanted):
    loaded, libraries = house.loaded_by(ROOT, name)
    assert not unwanted & set(libraries), libraries
    assert loaded < 60


@pytest.mark.in_turn  # like `induction` above, in one more process that loads all
def test_the_explorer_loads_no_circuitsvis():
    """Its page shares a policy with views that are drawn by circuitsvis."""
    assert "circuitsvis" not in house.loaded_by(ROOT, "explore")[1]


@pytest.mark.in_turn  # likewise
def test_namespaces_are_always_there():
    code = "import induction_kernel as ik; print(ik.kernel.vote.__name__, ik.theory, ik.masks.previous_key.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vote ")


def test_a_mistyped_name_suggests_the_nearest():
    with pytest.raises(AttributeError, match=r"'indution'.*did you mean .*'induction'"):
        ik.indution  # noqa: B018  # the look-up itself is tested
    with pytest.raises(AttributeError, match=r"'induction_kernel.kernel'.*'vot'.*'vote'"):
        ik.kernel.vot  # noqa: B018  # likewise
    with pytest.raises(AttributeError, match=r"'vote': did you mean 'kernel.vote'\?$"):
        ik.vote  # noqa: B018  # likewise
    with pytest.raises(AttributeError, match=r"'heads' or 'Head' or 'head_map'\?$"):  # three at most
        ik.head  # noqa: B018  # likewise
    with pytest.raises(AttributeError, match=r"has no attribute 'zzzzzzzz'$"):
        ik.zzzzzzzz  # noqa: B018  # likewise


def test_dir_shows_public_names_alone():
    assert all(not name.startswith("_") for name in [*dir(ik), *dir(ik.kernel), *dir(ik.scorers)])
    assert {"induction", "sweep", "kernel", "fewshot"} <= set(dir(ik))
    assert len([name for name in dir(ik) if not inspect.ismodule(getattr(ik, name))]) <= 60


def test_what_files_list_as_theirs_is_there():
    for path in house.files(ROOT):
        text = path.read_text()
        names = symtable.symtable(text, path.name, "exec")
        for listed in re.findall(r"^__all__ = (\[.*?\])", text, re.MULTILINE | re.DOTALL):
            for name in ast.literal_eval(listed):
                assert name in names.get_identifiers(), f"{path}: {name}"
                assert names.lookup(name).is_assigned() or names.lookup(name).is_imported(), f"{path}: {name}"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there_and_documented(name):
    value, leaf = value_of(name), name.split(".")[-1]
    if (
        isinstance(value, type)
        or inspect.isfunction(value)
        or not hasattr(value, "__module__")
        or inspect.ismodule(value)
    ):
        text = value.__doc__ or ""
    else:  # an object, such as a scorer: its docstring is the string after its assignment
        text = docstring_of_variable(home_of(name), leaf) or value.__doc__ or ""
    assert len(text) > 20, f"{name} has no docstring"
    assert not text.startswith(f"{leaf}("), f"{name} has only the docstring that dataclass makes up"


def home_of(name: str):
    """The module that a public name is defined in."""
    room, _, leaf = name.rpartition(".")
    stub = PACKAGE / room / "__init__.pyi"
    if not stub.exists():
        return importlib.import_module(f"induction_kernel.{room}")
    module = stub_imports(stub)[leaf]
    return importlib.import_module(".".join(part for part in ("induction_kernel", room, module) if part))


def docstring_of_variable(module, name: str) -> str:
    body = ast.parse(inspect.getsource(module)).body
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets) and isinstance(following, ast.Expr):
            return str(ast.literal_eval(following.value))
    return ""


def test_help_on_a_scorer_shows_how_to_call_it():
    shown = pydoc.render_doc(ik.induction, renderer=pydoc.plaintext)
    assert "induction(model" in shown
    assert "prompts: anything `as_prompts` takes" in shown
    assert "score[prompt, layer, head]" in shown


def test_help_on_label_attention_says_what_is_pooled_and_returned():
    shown = pydoc.render_doc(ik.label_attention, renderer=pydoc.plaintext)
    arguments, returned = shown.split("Args:")[1].split("Raises:")[0].split("Returns:")
    for name in ('"label"', '"max"', '"sum"', '"mean"', '"demonstration"', '"words"'):
        assert name in arguments
    for name in (
        "`score[prompt, layer, head]`",
        "`right`",
        "`right_control`",
        "`chance[prompt]`",
        "summarise(",
    ):
        assert name in returned


def test_every_scorer_says_what_it_scores_and_after_whom():
    public = [each for each in map(value_of, NAMES) if isinstance(each, ik.AttentionScorer)]
    assert len(public) >= 4
    for scorer in [*public, *(other for each in public for other in each.compat.values())]:
        assert scorer.title, scorer.name
        assert scorer.paper, scorer.name
        assert f": {scorer.title} ({scorer.paper})." in pydoc.render_doc(scorer, renderer=pydoc.plaintext)


@pytest.mark.parametrize("name", ["loss", "repeat_loss", "label_accuracy", "logit_difference", "probability"])
def test_help_on_a_metric_shows_how_to_call_it(name):
    shown = pydoc.render_doc(getattr(ik, name), renderer=pydoc.plaintext)
    assert f"{name}(model, prompts=None" in shown
    assert getattr(ik, name).title in shown
    assert "`value[prompt]`" in shown


@pytest.mark.parametrize("name", "Add FromRun KnockOut Mean Resample Scale Zero ZeroValues".split())
def test_help_on_an_edit_shows_how_to_use_it(name):
    shown = pydoc.render_doc(getattr(ik, name), renderer=pydoc.plaintext)
    assert re.search(rf"edit=ik\.{name}\(", shown)


def test_defaults_are_as_written_down():
    """`defaults.json`, which `defaults.py` writes: a default that changes is one that somebody has read."""
    assert defaults.defaults() == json.loads(defaults.FILE.read_text())


def test_the_version_is_one():
    assert f"\nversion: {ik.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{ik.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["anything", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("induction_kernel", run_name="__main__")
    assert ended.value.code == 0
    assert "Usage: induction-kernel [OPTIONS] COMMAND" in capsys.readouterr().out
