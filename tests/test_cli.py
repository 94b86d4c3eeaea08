"""The command line, in process."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner
from unpacked import ReadPage

import induction_kernel as ik
from induction_kernel.cli import _output as output
from induction_kernel.cli import app
from induction_kernel.prompts._word_task import TOPICS

CLEAN, CORRUPTED = "fox dax ; apple wug ; fox", "apple dax ; fox wug ; fox"
ANSWERS = ("--answers", " dax, wug")

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_help_has_examples():
    for command in ([], ["report"], ["score"], ["ablate"], ["patch"], ["fewshot"], ["train"], ["explore"]):
        result = run(*command, "--help")
        assert result.exit_code == 0
        if command:
            assert "Example" in result.output
    assert run("--version").output.startswith("induction_kernel 0.")


def test_a_table_of_scores():
    result = run("score", "tiny", "--scorer", "induction", "--scorer", "ov_eigenvalues", "--top", "3")
    assert result.exit_code == 0, result.output
    blocks = result.output.strip().split("\n\n")
    assert [block.split(":")[0] for block in blocks] == ["induction", "ov_eigenvalues"]
    assert all(len(block.splitlines()) == 5 for block in blocks)
    assert "L1H" in blocks[0]


def test_csv_and_json_have_every_head(tmp_path):
    written = tmp_path / "heads.csv"
    assert run("score", "--format", "csv", "--out", written).exit_code == 0
    table = pd.read_csv(written)
    rows = json.loads(run("score", "--format", "json").output)
    assert len(rows) == len(table) == 2 * table["head"].nunique()
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert rows[0]["name"] == table["name"][0]
    assert list(rows[0]) == list(table)


def test_netcdf_keeps_every_prompt(tmp_path):
    one, several = tmp_path / "one.nc", tmp_path / "several.nc"
    assert run("score", "--format", "netcdf", "--out", one).exit_code == 0
    with xr.open_dataset(one, engine="h5netcdf") as scores:
        assert dict(scores["score"].sizes)["prompt"] == 32
    result = run(
        "score", "--scorer", "induction", "--scorer", "copying", "--format", "netcdf", "--out", several
    )
    assert result.exit_code == 0, result.output
    with xr.open_datatree(several, engine="h5netcdf") as tree:
        assert set(tree.children) == {"induction", "copying"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "--format", "netcdf"], "--out"),
        (["score", "no/such/model"], "no/such/model"),
        (["score", "--dtype", "int8"], "float32"),
        (["score", "--out", "no/such/folder/a.csv"], "existing folder"),
        (["report", "--out", "no/such/folder/a.html"], "existing folder"),
        (["report", "--heads", "L7H7", "--out", "a.html"], "L7H7"),
        (["report", "--minutes", "0", "--out", "a.html"], "minutes above 0"),
        (["explore", "--out", "no/such/folder/a.html"], "existing folder"),
        (["explore", "tiny", "no/such/text.txt"], "no/such/text.txt"),
        (["explore", "tiny", " "], "empty text"),
        (["explore", "tiny", "zyzzyva"], "zyzzyva"),
        (["explore", "--heads", "L7H7"], "L7H7"),
        (["ablate", "--heads", "L7H7"], "L7H7"),
        (["ablate", "--heads", ","], "at least one head"),
        (["ablate", "--out", "a.txt"], ".html"),
        (["ablate", "--out", "no/such/folder/a.csv"], "existing folder"),
        (["patch", CLEAN, *ANSWERS], "[MODEL] CLEAN CORRUPTED"),
        (["patch", CLEAN, "fox dax", *ANSWERS], "wanted equal"),
        (["patch", CLEAN, CORRUPTED, "--answers", " dax"], "right,wrong"),
        (["patch", CLEAN, CORRUPTED, "--answers", " dax, wug fox"], "wanted one"),
        (["patch", CLEAN, CORRUPTED, *ANSWERS, "--site", "resid_pots"], "resid_pots"),
        (["patch", CLEAN, CORRUPTED, *ANSWERS, "--by", "layer,head"], "head"),
        (["fewshot", "--out", "a.txt"], ".html"),
        (["fewshot", "--out", "no/such/folder/a.html"], "existing folder"),
        (["fewshot", "--queries", "3"], "--queries"),
        (["fewshot", "--labels", "a,b"], "wanted DATA too"),
        (["fewshot", "tiny", "no/such/file.csv"], "no/such/file.csv"),
        (["evidence", "--out", "a.csv"], "ending .html"),
        (["evidence", "--out", "no/such/folder/a.html"], "existing folder"),
        (["evidence", "--text", "no/such/file.txt"], "no/such/file.txt"),
        (["evidence", "./no/such/model"], "no/such/model"),
    ],
)
def test_refusals_are_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_tables_are_drawn_on_a_terminal_and_complete_in_a_pipe(monkeypatch, capsys):
    """Text that looks like markup stays as it is; a pipe gets every column on one line."""
    wide = pd.DataFrame({f"column {i}": ["[bold]x[/bold]", f"{i}.5"] for i in range(20)})
    wide["number"] = [0.25, float("nan")]
    parts = ["[red]said[/red]", wide, pd.DataFrame({"a": [1.0]}, index=["row"])]
    output.echo(parts)
    said, header, *rows = capsys.readouterr().out.splitlines()
    assert said == "[red]said[/red]"
    assert all(name in header for name in wide)
    assert [row.split()[-1] for row in rows] == ["0.250", "19.5", "a", "1.000"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "600")
    output.echo(parts)
    drawn = capsys.readouterr().out
    assert drawn.splitlines()[0] == said
    assert drawn.count("[bold]x[/bold]") == 20
    assert "─" in drawn
    assert "0.250" in drawn


def test_an_unknown_scorer_is_refused_with_the_known_ones():
    result = run("score", "--scorer", "indution")
    assert result.exit_code == 2
    assert "prefix_matching" in result.output


def test_ablate_prints_the_strongest_of_every_head():
    result = run("ablate", "--prompts", 6, "--top", 3)
    assert result.exit_code == 0, result.output
    title, _, *rows = result.stdout.strip().splitlines()
    assert title.startswith(
        "tiny: effect of mean ablation of head outputs on the loss on the repeat, each head alone (nats, 6 prompts)"
    )
    model = ik.load("tiny")
    effect = ik.sweep(model, ik.repeated_tokens(model, prompts=6), progress=False)["effect"].mean("prompt")
    best = np.unravel_index(np.abs(effect.values).argmax(), effect.shape)
    assert len(rows) == 3
    assert rows[0].split()[:4] == ["L{}H{}".format(*best), *map(str, best), f"{float(effect[best]):.3f}"]


def test_ablate_with_heads_removes_them_together_beside_random_ones():
    result = run("ablate", "--heads", "L1H7,L1H1", "--seed", 3)
    assert result.exit_code == 0, result.output
    model = ik.load("tiny")
    curve = ik.ablation_curve(
        model,
        ik.repeated_tokens(model, prompts=16, seed=3),
        ["L1H7", "L1H1"],
        ks=[1, 2],
        seed=3,
        progress=False,
    )
    _, header, *rows, note = result.stdout.strip().splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert note == f"note: {curve.attrs['cautions']}"
    assert f"above the {np.log(model.cfg.d_vocab):.2f} of guessing uniformly" in note
    named = dict(zip(header.split(), rows[1].split(maxsplit=len(header.split()) - 1), strict=True))
    for key, wanted in {
        "share": curve["share"][1],
        "share_low": curve["share_low"][1],
        "random_share_high": curve["control_share"][1].max(),
        "random": curve["control_effect"].mean(("prompt", "draw"))[1],
    }.items():
        assert named[key] == f"{float(wanted):.3f}"
    assert named["heads"] == "L1H7 L1H1"


def test_ablate_says_what_there_is_not():
    result = run("ablate", "--heads", "L1H7 L1H1 L1H2 L1H3 L1H4", "--edit", "zero", "--prompts", 4)
    assert result.exit_code == 0, result.output
    assert "no random controls" in result.output
    assert "random_share" not in result.output
    assert "L1H7 L1H1 L1H2 L1H3 L1H4" in result.output
    early = run("ablate", "--heads", "L1H7", "--hold", "patterns", "--prompts", 4)
    assert "patterns held" in early.output


@pytest.mark.parametrize("heads", [[], ["--heads", "L1H7,L1H1"], ["--heads", "L1H7,L1H1,L1H2,L1H3,L1H4"]])
def test_ablate_writes_figure_data_and_table(heads, tmp_path):
    for name in ("a.html", "a.nc", "a.csv"):
        result = run("ablate", *heads, "--prompts", 4, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    page = (tmp_path / "a.html").read_text(encoding="utf-8").replace(r"\u003cbr\u003e", " ")
    assert ("lost without the strongest" if heads else "effect of mean ablation of head outputs") in page
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert found.sizes["prompt"] == 4
        assert ("k" in found.dims) == bool(heads)
    table = pd.read_csv(tmp_path / "a.csv")
    assert len(table) == (16 if not heads else 2 if "L1H2" not in heads[1] else 1)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("noising", [False, True])
def test_patch_is_the_verb(noising):
    result = run("patch", CLEAN, CORRUPTED, *ANSWERS, *["--noising"][: int(noising)])
    assert result.exit_code == 0, result.output
    model = ik.load("tiny")
    pair = ik.pairs(model, clean=[CLEAN], corrupted=[CORRUPTED], answers=[(" dax", " wug")])
    source, into = (pair.corrupted, pair.clean) if noising else pair
    found = ik.patch(model, source=source, into=into, progress=False)
    title, header, row, *_ = result.stdout.strip().splitlines()
    best = np.abs(found["effect"][0].values)
    layer, position = np.unravel_index(best.argmax(), best.shape)
    named = dict(zip(header.split(), row.split(), strict=True))
    assert (named["layer"], named["position"]) == (str(layer), str(position))
    assert named["normalised"] == f"{float(found['normalised'][layer, position]):.3f}"
    assert f"({float(found['source_value'][0]):.3f}) into" in title
    assert (
        title.index("corrupted") < title.index("clean")
        if noising
        else title.index("clean") < title.index("corr")
    )


def test_patch_reads_prompts_and_answers_from_files(tmp_path):
    files = {
        "clean.txt": [CLEAN, CLEAN],
        "corrupted.txt": [CORRUPTED, CORRUPTED],
        "a.txt": [" dax, wug", " wug, dax"],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("\n".join(rows) + "\n\n", encoding="utf-8")
    clean, corrupted, answers = (tmp_path / name for name in files)
    out = tmp_path / "p.nc"
    result = run(
        "patch",
        "tiny",
        clean,
        corrupted,
        "--answers",
        answers,
        "--site",
        "z",
        "--by",
        "layer,head",
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    with xr.open_dataset(out, engine="h5netcdf") as found:
        assert found["effect"].dims == ("prompt", "layer", "head")
        assert found["effect"].shape == (2, 2, 8)
        np.testing.assert_allclose(found["effect"][0], -found["effect"][1], atol=1e-4)
    assert "note: " in result.output  # the two pairs' differences cancel
    (tmp_path / "three.txt").write_text(" dax, wug\n" * 3)
    assert (
        "one for each of 2 prompts"
        in run("patch", clean, corrupted, "--answers", tmp_path / "three.txt").output
    )
    (tmp_path / "none.txt").write_text("\n")
    assert "empty file" in run("patch", tmp_path / "none.txt", corrupted, *ANSWERS).output


@pytest.mark.parametrize("by", ["layer", "layer,head", "layer,position", "layer,head,position"])
def test_patch_draws_and_writes_every_by(by, tmp_path):
    for name in ("p.html", "p.csv"):
        result = run("patch", CLEAN, CORRUPTED, *ANSWERS, "--site", "z", "--by", by, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "p.csv")
    assert set(by.split(",")) <= set(table)
    assert table["effect"].abs().is_monotonic_decreasing
    assert "effect of activation patching of" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_prompts_of_unequal_lengths_have_effects_where_they_have_tokens(tmp_path):
    for name, rows in {"a.txt": [CLEAN, "fox dax ; fox"], "b.txt": [CORRUPTED, "fox wug ; fox"]}.items():
        (tmp_path / name).write_text("\n".join(rows), encoding="utf-8")
    result = run("patch", tmp_path / "a.txt", tmp_path / "b.txt", *ANSWERS, "--top", 50)
    assert result.exit_code == 0, result.output
    assert "apple/fox" in result.output
    assert "nan" not in result.output.lower()


def words_in(path):
    """Animals and fruits as a table with a header."""
    rows = [
        f"{word},{kind}" for kind, words in zip(("animal", "fruit"), TOPICS, strict=False) for word in words
    ]
    path.write_text("\n".join(["word,kind", *rows]) + "\n", encoding="utf-8")
    return path


def test_fewshot_prints_the_held_out_table_and_writes_page_data_and_table(tmp_path):
    for name in ("a.html", "a.nc", "a.csv"):
        result = run("fewshot", "tiny", "--queries", 20, "--seed", 2, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    study = ik.fewshot.few_shot_study(ik.load("tiny"), queries=20, seed=2, progress=False)
    title, split, _, *rows = result.stdout.strip().splitlines()
    assert title.startswith(
        f"tiny on words with made-up labels: accuracy {float(study.answers['accuracy']):.3f} ("
    )
    assert "20 queries after 8 demonstrations, labels dax, wug" in title
    assert split.startswith(
        "heads chosen by agreement on 14 of the queries, scored on the other 6, in 50 random splits"
    )
    best = study.table.sel({"row": "best head"})
    (row,) = [row for row in rows if row.startswith("best head ")]
    low, high = (float(best[f"agreement_{end}"]) for end in ("low", "high"))
    assert f" {float(best['agreement']):.3f} ({low:.3f} to {high:.3f}) " in row
    assert "nan" not in result.stdout.lower()
    assert rows[-1].startswith("label attention is largest in layer 1 (0.")
    assert "kernel regression" in (tmp_path / "a.html").read_text(encoding="utf-8")
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as tree:
        np.testing.assert_allclose(tree["table"]["agreement"], study.table["agreement"])
    table = pd.read_csv(tmp_path / "a.csv", index_col="row")
    assert table["accuracy"].tolist() == pytest.approx(study.table["accuracy"].round(3).values.tolist())
    assert len(list(tmp_path.iterdir())) == 3


def test_fewshot_reads_a_file_with_its_columns_labels_and_template(tmp_path):
    data, pool = words_in(tmp_path / "words.csv"), words_in(tmp_path / "pool.csv")
    options = [
        "--text",
        "word",
        "--label",
        "1",
        "--labels",
        "dax,wug",
        "--template",
        "{x} {y} ;",
        "--shots",
        4,
    ]
    result = run("fewshot", "tiny", data, *options, "--queries", 8)
    assert result.exit_code == 2  # one column by its name, one by its number
    options[3] = "kind"
    result = run("fewshot", "tiny", data, *options, "--queries", 8)
    assert result.exit_code == 0, result.output
    assert "8 queries after 4 demonstrations, labels dax, wug" in result.stdout
    assert "TF-IDF kernel" in result.stdout
    both = run("fewshot", "tiny", data, *options, "--queries", 8, "--demonstrations", pool)
    assert both.exit_code == 0, both.output
    assert "note: 8 of 8 queries are also in the pool of demonstrations" in both.stdout


def test_explore_writes_a_page_of_a_text_or_of_the_beginning_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("fox dax ; apple wug ; " * 40)
    result = run("explore", "tiny", "words.txt", "--tokens", 20, "--heads", "L1H7,L0H3")
    assert result.exit_code == 0, result.output
    assert "note: the first 20 tokens are shown" in result.stderr
    size, path = result.stdout.strip().splitlines()
    assert path == str((tmp_path / "attention.html").resolve())
    page = ReadPage((tmp_path / "attention.html").read_text())
    assert "".join(page.tokens()).startswith("<bos> fox dax ; apple wug ; fox")
    assert len(page.tokens()) == 20
    assert set(page.heads) == {(0, 3), (0, 15)}
    assert [each["name"] for each in page.contents["scores"]] == [
        "induction",
        "previous_token",
        "duplicate_token",
    ]
    assert size.startswith(f"{(tmp_path / 'attention.html').stat().st_size / 1e6:.1f} MB: Weights below .002")
    result = run("explore", "--no-scores", "--precision", "fine", "--out", "fine.html")
    assert result.exit_code == 0, result.output
    page = ReadPage((tmp_path / "fine.html").read_text())
    assert page.contents["scores"] == []
    assert len(page.contents["prompts"]) == 2
    assert "below .000004" in result.stdout


def test_train_keeps_every_option_in_its_recipe(tmp_path):
    out = tmp_path / "short"
    asked = {
        "layers": 1,
        "heads": 2,
        "d_head": 4,
        "d_model": 16,
        "mlp": 8,
        "context": 96,
        "batch_size": 2,
        "steps": 8,
    }
    options = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = run("train", "--out", out, "--seed", 3, "--smeared", "--checkpoints", 4, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(out.resolve())
    written = json.loads((out / "recipe.json").read_text())
    recipe = asked | {"name": "short", "smeared": True, "pieces": None}
    assert {name: written["recipe"][name] for name in recipe} == recipe
    assert written["recipe"]["checkpoints"] == list(ik.training.log_spaced(8, 4))
    assert written["seed"] == 3
