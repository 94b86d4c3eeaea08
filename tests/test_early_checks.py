"""Arguments of commands are checked before anything heavy is imported, and names of models without TransformerLens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import typer
from huggingface_hub import errors
from typer.testing import CliRunner

from induction_kernel.cli import _options as options
from induction_kernel.cli import app
from induction_kernel.errors import Refused
from induction_kernel.loading import _names as names
from induction_kernel.loading._lookup import check_source

ROOT = Path(__file__).resolve().parent.parent
PATCH = ["patch", "a b", "b a", "--answers", " x, y"]
# Command line -> words of its refusal; in this order in one process, so the first ones must import least.
AT_ONCE = [
    (["score", "gpt3-smal"], "did you mean gpt2"),
    (["score", "no/such.gguf"], "does not exist"),
    (["score", "."], "no config.json"),
    (["score", "words.txt"], "wanted a Hugging Face folder or a .gguf file"),
    (["score", "--dtype", "int8"], "wanted --dtype"),
    (["score", "--scorer", "indution"], "prefix_matching"),
    (["score", "--format", "netcdf"], "name a file"),
    (["score", "gpt3-smal", "--out", "no/such/a.csv"], "existing folder"),
    (["report", "gpt3-smal"], "did you mean gpt2"),
    (["report", "gpt3-smal", "--minutes", "0"], "--minutes above 0"),
    (["report", "gpt3-smal", "--out", "."], "existing folder"),
    (["report", "--prompts", "3"], "'--prompts'"),
    (["census", "gpt3-smal"], "did you mean gpt2"),
    (["census", "gpt3-smal", "no/such.txt"], "no/such.txt"),
    (["census", "gpt3-smal", "--out", "a.txt"], ".html"),
    (["census", "--prompts", "3"], "'--prompts'"),
    (["census", "--seed", "-1"], "'--seed'"),
    (["ablate", "gpt3-smal"], "did you mean gpt2"),
    (["ablate", "gpt3-smal", "--out", "a.txt"], ".html"),
    (["explore", "gpt3-smal"], "did you mean gpt2"),
    (["explore", "gpt3-smal", "no/such.txt"], "no/such.txt"),
    ([*PATCH[:1], "gpt3-smal", *PATCH[1:]], "did you mean gpt2"),
    ([*PATCH[:1], "gpt3-smal", *PATCH[1:], "--out", "a.txt"], ".html"),
    ([*PATCH[:-1], " x"], "right,wrong"),
    (["patch", "words.txt", "b a", *PATCH[3:]], "got 2 and 1"),
    (["fewshot", "gpt3-smal"], "did you mean gpt2"),
    (["fewshot", "--queries", "3"], "'--queries'"),
    (["fewshot", "--labels", "a,b"], "wanted DATA too"),
    (["evidence", "gpt3-smal"], "did you mean gpt2"),
    (["evidence", "gpt3-smal", "--out", "a.csv"], "ending .html"),
    (["evidence", "gpt3-smal", "--text", "no/such.txt"], "no/such.txt"),
    (["train", "--out", "run", "--text", "no/such.txt"], "no/such.txt"),
    (["families", "--out", "runs", "--seeds", "0"], "'--seeds'"),
    (["score", "EleutherAI/pythia-70n"], "cannot be reached"),  # asks the hub
    (["report", "gpt3-smal", "--heads", "X9"], '"L5H1"'),  # numpy from here on
    (["explore", "gpt3-smal", "--heads", "X9"], '"L5H1"'),
    (["ablate", "gpt3-smal", "--heads", ","], "at least one head"),
    (["train", "--out", "run", "--layers", "9"], "from 1 to 4"),
    (["fewshot", "gpt3-smal", "no/such.csv"], "no/such.csv"),  # pandas from here on
    (["fewshot", "gpt3-smal", "words.txt", "--demonstrations", "no/such.csv"], "no/such.csv"),
    (["score", "--device", "cudaa"], "device must be one torch knows"),  # torch from here on
    ([*PATCH, "--site", "resid_pots"], "resid_pots"),
    ([*PATCH, "--by", "layer,head"], "layer"),
    (["fewshot", "tiny", "words.txt", "--template", "{x}"], "{y}"),
]
HEAVY = [
    "transformer_lens",
    "transformers",
    "datasets",
    "sklearn",
    "torch",
    "pandas",
    "xarray",
    "plotly",
    "numpy",
]
ALLOWED = {
    "numpy": "X9",
    "pandas": "no/such.csv",
    "torch": "cudaa",
}  # library -> the first row that may load it
CODE = f"""
import json, sys
from typer.testing import CliRunner
from induction_kernel.cli import app
for row in json.loads(sys.argv[1]):
    said = CliRunner().invoke(app, row)
    loaded = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps([said.exit_code, " ".join(said.output.split()), loaded]))
"""
LINES = [" ".join(row) for row, _ in AT_ONCE]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Command line -> its exit status, what it said, and the heavy libraries loaded until then."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "words.txt").write_text("a b\nb a\n")
    command = [sys.executable, "-c", CODE, json.dumps([row for row, _ in AT_ONCE])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env=environment, timeout=600
    )
    assert [path.name for path in folder.iterdir()] == ["words.txt"]
    return dict(zip(LINES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("row", "message"), AT_ONCE, ids=LINES)
def test_a_wrong_argument_is_refused_before_anything_heavy_is_loaded(row, message, refused):
    status, said, loaded = refused[" ".join(row)]
    assert (status, message in said) == (2, True), said
    assert not {"transformer_lens", "transformers", "datasets"} & set(loaded)
    place = LINES.index(" ".join(row))
    for library, first in ALLOWED.items():
        if place < min(i for i, line in enumerate(LINES) if first in line and library in refused[line][2]):
            assert library not in loaded


def test_the_rows_load_what_they_are_sorted_by(refused):
    """Each library is first loaded where the table says so; what stands above did without."""
    for library, first in ALLOWED.items():
        loading = [line for line in LINES if library in refused[line][2]]
        assert first in loading[0], loading[0]


def test_every_command_has_rows():
    commands = set(typer.main.get_command(app).commands)
    assert commands == {row[0] for row, _ in AT_ONCE}
    with_model = {
        name
        for name, command in typer.main.get_command(app).commands.items()
        if "model" in {each.name for each in command.params}
    }
    mistyped = {row[0] for row, message in AT_ONCE if message == "did you mean gpt2"}
    assert with_model | {"patch"} == mistyped


def test_a_licence_is_a_sentence():
    """`load` raises PermissionError where a licence must be accepted first."""

    def gated():
        raise PermissionError('"m" is behind a licence: accept it')

    with pytest.raises(typer.Exit):
        options.said_if_refused(gated)


def test_names_are_those_of_transformer_lens():
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES
    from transformer_lens.tools.model_registry import api

    aliases = {alias.lower(): name for name, each in MODEL_ALIASES.items() for alias in each}
    assert names.official_names() == aliases | {name.lower(): name for name in OFFICIAL_MODEL_NAMES}
    register = {each.model_id.lower(): each.model_id for each in api.get_supported_models()}
    assert names._register() == register


def test_a_version_that_keeps_its_names_otherwise_is_asked(monkeypatch, tmp_path):
    wanted = names.official_names(), names._register()
    monkeypatch.setattr(names, "_transformer_lens", lambda: tmp_path)
    assert (names.official_names(), names._register()) == wanted
    (tmp_path / "supported_models.py").write_text("OFFICIAL_MODEL_NAMES: list[str] = listed()")
    assert names.official_names() == wanted[0]


def error_of(kind):
    import httpx

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/x"))
    return kind("planted", response=response)


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("gpt2", errors.GatedRepoError, PermissionError),
        ("owner/unlisted", errors.GatedRepoError, PermissionError),
        ("owner/unlisted", errors.RepositoryNotFoundError, Refused),
        ("owner/unlisted", errors.RemoteEntryNotFoundError, Refused),
        ("gpt2", errors.RemoteEntryNotFoundError, None),  # TransformerLens may know how to load it
    ],
)
def test_the_hub_is_asked_for_a_name(name, kind, wanted, monkeypatch):
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        raise error_of(kind)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    if wanted is None:
        check_source(name)
    else:
        with pytest.raises(wanted):
            check_source(name)
    assert asked == [(names.hub_spelling(name), "config.json")]


def test_what_is_here_or_has_no_configuration_is_not_asked_for(monkeypatch, llama):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", pytest.fail)
    for source in ("tiny", str(llama[0]), str(names.TINY), "attn-only-2l"):
        check_source(source)


def test_a_model_is_loaded_only_after_all_checks(monkeypatch):
    """The model's own part of the checks comes last: nothing else is left to be refused once it is loaded."""
    asked = []
    monkeypatch.setattr("induction_kernel.loading._sources.load", lambda *a, **k: asked.append(a))
    for row, _ in AT_ONCE:
        assert CliRunner().invoke(app, row).exit_code == 2, row
    assert asked == []
