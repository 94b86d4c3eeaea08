"""Faults of files, disks and hostile input: nothing is lost, nothing runs, a sentence each (E4 to E7 of the kinds)."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from breaking import FULL, bad_folders, bad_targets, everything, full_disk, read_only
from folders import write_hugging_face
from hand_model import ARCHITECTURE as HAND
from hand_model import hand_weights
from hostile import HOSTILE, check_nothing_ran, listening
from processes import in_python
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import induction_kernel as ik
from induction_kernel.cli import _output as output
from induction_kernel.cli import app
from induction_kernel.evidence._six_arguments import SixArguments
from induction_kernel.fewshot._study import FewShotStudy
from induction_kernel.formats import csv_of, netcdf_of, read_netcdf
from induction_kernel.kernel._vote_view import VoteView
from induction_kernel.loading import build
from induction_kernel.loading._names import TINY
from induction_kernel.prompts import word_episodes
from induction_kernel.stores import checked_target, write_whole
from induction_kernel.training import _trainer as trainer
from induction_kernel.training._recipe import Recipe


def command(*arguments):
    """What the command line says; its exit status 2 stands for a sentence."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code in (0, 2), done.exception
    if done.exit_code:
        raise ValueError(done.stderr)


def no_study():
    return object.__new__(FewShotStudy)


NO_VOTES = VoteView("none", "")
TO_FILES = {
    "report of a model": lambda path: ik.report(ik.load("tiny"), path, progress=False),
    "report of arguments": lambda path: ik.report(object.__new__(SixArguments), path),
    "report of a study": lambda path: ik.report(no_study(), path),
    "VoteView.save": NO_VOTES.save,
    "score": lambda path: command("score", "--format", "csv", "--out", path),
    "ablate": lambda path: command("ablate", "--out", path),
    "patch": lambda path: command("patch", "fox dax", "apple dax", "--answers", " dax, wug", "--out", path),
    "fewshot": lambda path: command("fewshot", "--out", path),
    "report": lambda path: command("report", "--out", path),
    "evidence": lambda path: command("evidence", "--out", path),
}
TO_FOLDERS = {
    "predict": lambda path: ik.fewshot.predict(ik.load("tiny"), episodes(), path=path, progress=False),
    "over_checkpoints": lambda path: ik.training.over_checkpoints(
        "tiny", {"n": norm}, path=path, progress=False
    ),
    "training_curves": lambda path: ik.training.training_curves(
        "tiny", checkpoints=[0], n=16, path=path, progress=False
    ),
    "train": lambda path: ik.training.train(SHORT, folder=path, progress=False),
    "train_families": lambda path: ik.training.train_families(
        path, families={"a": SHORT}, seeds=[0], progress=False
    ),
    "train command": lambda path: command("train", "--steps", 1, "--out", path),
    "families command": lambda path: command("families", "--out", path),
}
SHORT = Recipe(name="short", layers=1, heads=2, d_head=4, d_model=16, steps=4, batch_size=4, checkpoints=(0,))


def norm(model):
    return float(model.W_E.detach().norm())


def episodes(n=6):
    return word_episodes(ik.load("tiny"), prompts=n, shots=4, classes=2, seed=0)


@pytest.mark.parametrize("name", ["short", "x" * 180 + "/" + "y" * 180])
def test_what_cannot_be_written_is_named_and_the_reason_given(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cannot write .*No such file or directory") as refused:
        write_whole(f"nowhere/{name}", "text")
    said = f"nowhere/{name}" if name == "short" else f"nowhere/{'x' * 92}...{'y' * 60}"
    assert repr(said) in str(refused.value)


@pytest.mark.parametrize("verb", TO_FILES)
@pytest.mark.parametrize("kind", ["no folder", "a folder", "in a file", "null byte", "too long", "a pipe"])
def test_a_file_that_cannot_be_written_is_refused_in_a_sentence(verb, kind, tmp_path):
    path = bad_targets(tmp_path)[kind]
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=r"cannot write|wanted --out|null byte"):
        TO_FILES[verb](path)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("verb", TO_FILES)
def test_a_read_only_folder_is_refused_before_anything_is_computed(verb, tmp_path, monkeypatch):
    (tmp_path / "old.html").write_text("old")
    monkeypatch.setattr("induction_kernel.model._runs.forward", None)  # nothing may run
    read_only(monkeypatch)
    with pytest.raises(ValueError, match=r"cannot write.*Read-only file system"):
        TO_FILES[verb](tmp_path / "old.html")
    assert everything(tmp_path) == {"old.html": b"old"}


@pytest.mark.parametrize("verb", TO_FOLDERS)
@pytest.mark.parametrize("kind", ["a file", "in a file", "null byte", "too long"])
def test_a_folder_that_cannot_be_made_is_refused_in_a_sentence(verb, kind, tmp_path):
    path = bad_folders(tmp_path)[kind]
    with pytest.raises(ValueError, match=r"wanted a folder|null byte"):
        TO_FOLDERS[verb](path)
    assert everything(tmp_path) == {"taken": b""}


NETCDF = """
import sys, numpy as np, xarray as xr
from pathlib import Path
from breaking import full_disk
from induction_kernel.cli import _output as output
from induction_kernel.stores import write_result
big = xr.Dataset({"a": ("x", np.random.default_rng(0).normal(size=10**5))})
path = Path(sys.argv[1])
with full_disk():
    for write in (
        lambda: output.writer(path)(big, None),
        lambda: output.write_netcdf({"one": big}, path),
        lambda: output.write_netcdf({"one": big, "two": big}, path),
        lambda: write_result(path, big, "mark"),
    ):
        try:
            write()
        except ValueError as error:
            print(error)
print("alive")
"""


@pytest.mark.slow
def test_a_full_disk_while_netcdf_is_written_is_a_sentence(tmp_path):
    """HDF5 ends the process where it cannot write: the interpreter must be there afterwards."""
    old = tmp_path / "old.nc"
    old.write_bytes(b"old")
    done = in_python(NETCDF, old)
    assert done.stdout.count("File too large") == 4, done.stderr
    assert done.stdout.endswith("alive\n")
    assert everything(tmp_path) == {"old.nc": b"old"}


POOLINGS = ("max", "sum", "mean", "label")  # several, so that a batch is large
ON_A_FULL_DISK = {
    "a page": lambda path: VoteView("much", "x" * 2 * FULL).save(path / "old"),
    "predict": lambda path: ik.fewshot.predict(ik.load("tiny"), episodes(64), pooling=POOLINGS, path=path / "new"),
    "over_checkpoints": lambda path: ik.training.over_checkpoints("tiny", {"w": weights_of}, path=path / "new"),
    "train": lambda path: ik.training.train(replace(SHORT, d_model=128), folder=path / "new", progress=False),
}  # fmt: skip


def weights_of(model):
    return xr.DataArray(model.W_E.detach().double().numpy(), dims=("token", "d_model"))


@pytest.mark.parametrize("verb", ON_A_FULL_DISK)
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(verb, tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    with full_disk(), pytest.raises(ValueError, match=r"cannot write .*File too large"):
        ON_A_FULL_DISK[verb](tmp_path)
    left = everything(tmp_path)
    assert left["old"] == b"old"
    assert not [name for name in left if name.endswith(".part")]


MEMORY = """
import resource, psutil, torch, induction_kernel as ik
model = ik.load("tiny")
prompts = ik.repeated_tokens(model, prompts=64, period=40)
for verb in (ik.sweep, ik.attribution):
    verb(model, prompts[:2], edit=ik.Mean(prompts), progress=False)
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**23, -1))
    try:
        verb(model, prompts, edit=ik.Mean(prompts), max_tokens=10**6, progress=False)
    except MemoryError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(sum(len(point.fwd_hooks) for point in model.hook_dict.values()))
"""


@pytest.mark.slow
def test_too_little_memory_names_the_option_that_helps():
    done = in_python(MEMORY)
    assert done.stdout.count("give a smaller max_tokens") == 2, done.stderr
    assert done.stdout.endswith("\n0\n")  # no hook is left


# what an interrupted call leaves, and what is broken in a folder


def leftover(folder, name):
    (folder / f".{name}.abcd1234.part").write_bytes(b"half")


@pytest.mark.parametrize("also", [[], ["evaluation.json"]])
def test_a_folder_with_a_half_written_file_goes_on(also, tmp_path):
    whole = ik.fewshot.predict(
        ik.load("tiny"), episodes(), path=tmp_path / "whole", batch_size=2, progress=False
    )
    folder = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", folder) if also else folder.mkdir()
    for name in ("evaluation.json", "prompt-000000.nc"):
        leftover(folder, name)
    again = ik.fewshot.predict(ik.load("tiny"), episodes(), path=folder, batch_size=2, progress=False)
    xr.testing.assert_identical(again, whole)
    assert sorted(everything(folder)) == sorted(everything(tmp_path / "whole"))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(path, **changes):
    """A finished batch with other entries."""
    found = read_netcdf(path)
    for key, change in changes.items():
        new = change(found)
        found = found.drop_vars(key) if new is None else found.assign({key: new})
    write_whole(path, netcdf_of(found))


BROKEN_BATCHES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": halve,
    "no archive": lambda path: path.write_bytes(b"\x00" * 500),
    "text": lambda path: path.write_text("half"),
    "without values": lambda path: changed(path, log_probability=lambda _: None),
    "without prompts": lambda path: changed(path, prompt=lambda _: None),
    "other shape": lambda path: changed(path, log_probability=lambda v: v["log_probability"][:, 0]),
    "prompts beyond": lambda path: changed(path, prompt=lambda v: v["prompt"] + 1000),
    "prompts below": lambda path: changed(path, prompt=lambda v: v["prompt"] - 1000),
    "prompts as numbers": lambda path: changed(path, prompt=lambda v: v["prompt"] + 0.5),
    "whole numbers": lambda path: changed(path, log_probability=lambda v: v["log_probability"].astype(int)),
    "of another run": lambda path: path.write_bytes(
        netcdf_of(read_netcdf(path).assign_attrs(fingerprint="another"))
    ),
}


@pytest.mark.parametrize("kind", BROKEN_BATCHES)
def test_a_broken_batch_is_named_with_the_remedy(kind, tmp_path):
    options = {"path": tmp_path / "kept", "batch_size": 3, "progress": False}
    whole = ik.fewshot.predict(ik.load("tiny"), episodes(), **options)
    batch = sorted((tmp_path / "kept").glob("prompt-*.nc"))[0]
    BROKEN_BATCHES[kind](batch)
    with pytest.raises(ValueError, match=f"{batch.name}.*: delete it, and it is computed again"):
        ik.fewshot.predict(ik.load("tiny"), episodes(), **options)
    batch.unlink()
    xr.testing.assert_identical(ik.fewshot.predict(ik.load("tiny"), episodes(), **options), whole)


BROKEN_JSON = {
    "empty": b"", "cut": b'{"format": 1, "finge', "binary": b"\xff\xfe\x00\x80", "null": b"null", "list": b"[]",
    "deep": b"[" * 200_000, "number": b"1e999",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_JSON)
@pytest.mark.parametrize(
    ("verb", "name"), [("predict", "evaluation.json"), ("over_checkpoints", "sweep.json"), ("train", "recipe.json")]
)  # fmt: skip
def test_a_broken_label_of_a_folder_is_a_sentence(verb, name, kind, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / name).write_bytes(BROKEN_JSON[kind])
    with pytest.raises(ValueError, match=r"is damaged|holds another"):
        TO_FOLDERS[verb](folder)
    assert (folder / name).read_bytes() == BROKEN_JSON[kind]


def recipe_with(folder, **changes):
    """The embedded model in a folder of its own, with changes in its recipe; architecture by its entries."""
    shutil.copytree(TINY, folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["architecture"] |= changes.pop("architecture", {})
    (folder / "recipe.json").write_text(json.dumps(recipe | changes))
    return folder


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("n_layers", 10**9), ("n_layers", None), ("n_layers", True), ("n_layers", "2"), ("n_layers", [2]),
        ("n_heads", 10**9), ("d_vocab", 10**12), ("d_model", -1), ("d_mlp", -1), ("d_mlp", "x"), ("eps", "x"),
        ("eps", None), ("eps", -1), ("attn_only", "no"), ("gated_mlp", 3), ("n_key_value_heads", 0),
        ("n_key_value_heads", "a"), ("rotary_dim", "a"), ("rotary_base", "x"), ("rotary_base", 0),
        ("default_prepend_bos", "x"), ("final_rms", None), ("normalization_type", {}), ("smeared_keys", "yes"),
    ],
)  # fmt: skip
def test_an_architecture_is_checked_before_anything_is_built(entry, value, tmp_path, monkeypatch):
    monkeypatch.setattr("induction_kernel.loading._build._hooked", None)
    monkeypatch.setattr("induction_kernel.loading._build._bridge", None)
    with pytest.raises(ValueError, match=f"{entry} must be|the weights lack|must have shape"):
        ik.load(recipe_with(tmp_path / "m", architecture={entry: value}))


@pytest.mark.parametrize(
    "log", [None, 5, "x", {}, [None], [{}], [{"step": "x", "tokens": 1}], [{"step": 1, "tokens": None}], [{"step": 1}]]
)  # fmt: skip
def test_a_damaged_log_is_a_sentence(log, tmp_path):
    with pytest.raises(ValueError, match=r"recipe.json is damaged: wanted its checkpoints as a list"):
        ik.training.over_checkpoints(
            recipe_with(tmp_path / "m", checkpoints=log), {"n": norm}, progress=False
        )


@pytest.mark.parametrize("kind", ["cut", "binary", "deep"])
def test_a_damaged_recipe_is_a_sentence(kind, tmp_path):
    folder = recipe_with(tmp_path / "m")
    (folder / "recipe.json").write_bytes(BROKEN_JSON[kind])
    with pytest.raises(ValueError, match=r"recipe.json is damaged"):
        ik.load(folder)


def rewritten(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_weights_that_are_no_floating_point_numbers_are_refused(dtype, tmp_path):
    folder = recipe_with(tmp_path / "m")
    rewritten(
        folder / "model.safetensors", lambda w: w.update({"embed.W_E": (100 * w["embed.W_E"]).to(dtype)})
    )
    with pytest.raises(ValueError, match=r"embed.W_E must hold floating point numbers"):
        ik.load(folder)


STATES = {
    "cut": halve,
    "empty": lambda path: path.write_bytes(b""),
    "another shape": lambda path: rewritten_state(
        path, lambda w, _: w.update({"weight/embed.W_E": torch.zeros(2, 2)})
    ),
    "a missing tensor": lambda path: rewritten_state(path, lambda w, _: w.pop("mean/embed.W_E")),
    "no step": lambda path: rewritten_state(path, lambda _, said: said.pop("step")),
    "a step beyond": lambda path: rewritten_state(path, lambda _, said: said.update(step=10**9)),
    "a step of text": lambda path: rewritten_state(path, lambda _, said: said.update(step="2")),
    "no names": lambda path: rewritten_state(path, lambda _, said: said.update(names=[])),
    "names null": lambda path: rewritten_state(path, lambda _, said: said.update(names=None)),
    "another generator": lambda path: rewritten_state(
        path, lambda _, said: said.update(rng={"bit_generator": "x"})
    ),
    "a log of nothing": lambda path: rewritten_state(path, lambda _, said: said.update(log=[{}])),
}


def rewritten_state(path, change):
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["state"])
    tensors = load_file(path)
    change(tensors, said)
    save_file(tensors, path, metadata={"state": json.dumps(said)})


@pytest.mark.parametrize("kind", STATES)
def test_a_damaged_state_of_training_is_a_sentence(kind, tmp_path, monkeypatch):
    def stop(*args):
        if args[-1] == 3:
            raise KeyboardInterrupt
        return update(*args)

    update = trainer._update
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "SAVE_EVERY", 2)
        patched.setattr(trainer, "_update", stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(SHORT, folder=tmp_path / "run", progress=False)
    STATES[kind](tmp_path / "run" / "state.safetensors")
    with pytest.raises(
        ValueError, match=r"state\.safetensors is damaged: .*; remove the folder and train again"
    ):
        trainer.fit(SHORT, folder=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "has 1000000000 layers, but the weights are only 21 tensors"),
        ({"num_hidden_layers": -1}, "has -1 layers"),
        ({"num_hidden_layers": 1}, "holds model.layers.1.*its configuration has only 1 layers"),
        ({"vocab_size": 10**12}, "cannot be read as a language model"),
    ],
)
def test_a_configuration_is_checked_against_the_weights(changes, message, tmp_path):
    write_hugging_face(tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        ik.load(tmp_path / "m")


def test_whole_numbers_are_no_weights_of_a_hugging_face_model(tmp_path):
    write_hugging_face(tmp_path / "m")
    rewritten(
        tmp_path / "m" / "model.safetensors",
        lambda w: w.update({"lm_head.weight": (100 * w["lm_head.weight"]).to(torch.int32)}),
    )
    with pytest.raises(ValueError, match=r"lm_head\.weight holds I32, wanted floating point numbers"):
        ik.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~nobody-of-this-name/x"])
def test_a_name_that_is_no_path_is_a_sentence(name):
    with pytest.raises(ValueError, match="wanted a model's name or path"):
        ik.load(name)


def test_curves_of_another_kind_are_refused(tmp_path):
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="wanted curves that train_families wrote"):
        ik.training.family_curves(tmp_path / "a.nc")


# two processes on one folder


def test_a_folder_that_another_trains_in_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    handle = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match=r"another process is writing to .*run"):
        trainer.fit(SHORT, folder=tmp_path / "run", progress=False)
    os.close(handle)
    assert trainer.fit(SHORT, folder=tmp_path / "run", progress=False).log


def test_two_threads_that_write_one_file_leave_it_whole(tmp_path):
    path, contents = tmp_path / "a", [bytes([i]) * 300_000 for i in range(6)]

    def written(content):
        for _ in range(5):
            write_whole(checked_target(path), content)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(written, contents))
    assert list(everything(tmp_path)) == ["a"]
    assert path.read_bytes() in contents


# code of a model's folder

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class C(LlamaConfig): pass
class M(LlamaForCausalLM): pass
class T(PreTrainedTokenizerFast): pass
"""


def with_entries(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("kind", ["configuration", "unknown architecture", "tokenizer", "embedded tokenizer"])
def test_code_in_a_models_folder_is_neither_run_nor_asked_about(kind, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    folder = tmp_path / "m"
    if "embedded" in kind:
        shutil.copytree(TINY, folder)
    else:
        write_hugging_face(folder)
    (folder / "code.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    if "tokenizer" in kind:
        names = {"AutoTokenizer": ["code.T", "code.T"]}
        with_entries(folder / "tokenizer_config.json", auto_map=names, tokenizer_class="T")
    else:
        names = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
        with_entries(folder / "config.json", auto_map=names)
    if kind == "configuration":
        assert ik.load(folder).cfg.n_layers == 2  # transformers knows the architecture without that code
    else:
        if kind == "unknown architecture":
            with_entries(folder / "config.json", model_type="of_my_own")
        with pytest.raises(ValueError, match=r"custom code|its own Python code"):
            ik.load(folder)
    assert asked == []
    assert not (tmp_path / "ran").exists()


# tables and pages

FORMULAS = ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "a=b", "- ", "-0.5", ""]


def cells_of(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def test_no_text_of_a_table_acts_as_a_formula_and_numbers_stay():
    numbers = np.linspace(-1, 1, len(FORMULAS))
    frame = pd.DataFrame(
        {"=head": FORMULAS, "x": numbers, "n": np.arange(len(FORMULAS)) - 3}, index=FORMULAS[::-1]
    )
    (heads, *rows) = cells_of(csv_of(frame.rename_axis("-row"), index=True))
    assert heads == ["'-row", "'=head", "x", "n"]
    for row, name, text, x, n in zip(rows, FORMULAS[::-1], FORMULAS, numbers, frame["n"], strict=True):
        for cell, was in zip(row[:2], (name, text), strict=True):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert re.sub(r"^'(?='*[=+@\t\r\n-])", "", cell) == was
        assert (float(row[2]), int(row[3])) == (x, n)


def test_tokens_of_a_patching_table_do_not_act_as_formulas(tmp_path):
    found = xr.Dataset(
        {"effect": (("prompt", "layer", "position"), np.array([[[-2.5, 1.0]]]))},
        {"layer": [0], "position": [0, 1], "token": (("prompt", "position"), [["=cmd|'/C calc'!A0", "-1"]])},
    )
    output.writer(tmp_path / "a.csv")(found, None)
    rows = pd.read_csv(tmp_path / "a.csv")
    assert rows["token"].tolist() == ["'=cmd|'/C calc'!A0", "'-1"]
    assert rows["effect"].tolist() == [-2.5, 1.0]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model of one layer that reads any text, byte by byte."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 400)
    recipe = replace(SHORT, pieces=256, context=900, steps=1, batch_size=1)
    return ik.training.train(recipe, text=folder / "book.txt", folder=folder / "run", progress=False)


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_of_hostile_texts_runs_on_the_pages_of_heads_and_few_shots(reader, browser, tmp_path):
    with listening() as (port, asked):
        texts = [each.replace("{port}", str(port)) for each in HOSTILE]
        classes = np.arange(3 * len(texts)) % 2
        data = ik.data.LabelledTexts(
            tuple(3 * texts),
            classes,
            tuple(texts[:2]),
            name=texts[2],
            template="{x} <b onclick=1>{y}</b></script>",
        )
        reader.cfg.model_name = texts[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # labels that begin alike are not what is asked here
            study = ik.fewshot.few_shot_study(reader, data, queries=8, shots=2, splits=4, progress=False)
        for name, page in {
            "fewshot": ik.report(study, tmp_path / texts[1].replace("/", "")),
            "report": ik.report(reader, tmp_path / "report.html", n_prompts=12, progress=False),
        }.items():
            page = page.rename(tmp_path / f"{name}.html")
            check_nothing_ran(browser, page, tmp_path / f"{name} profile", asked)


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_of_hostile_names_runs_on_the_page_of_the_arguments(browser, tmp_path):
    with listening() as (port, asked):
        texts = [each.replace("{port}", str(port)) for each in HOSTILE]
        name = "".join(texts[:2])
        model = build(HAND, hand_weights(), name=name)
        prompts = ik.repeated_tokens(model, bos=0, period=31, prompts=16).tokens
        found = ik.evidence.six_arguments(
            model, prompts=prompts, n=16, early=(5, 25), late=(35, 55), progress=False
        )
        said = dict.fromkeys(("model", "left_out", "translation", "reason"), name)
        results = {key: each.assign_attrs(said) for key, each in found.results.items()}
        page = ik.report(replace(found, results=results), tmp_path / "evidence.html")
        assert found.model == name
        check_nothing_ran(browser, page, tmp_path / "profile", asked)


@pytest.mark.browser
def test_the_browser_would_say_so(browser, tmp_path):
    with listening() as (port, asked):
        for at, text in enumerate(HOSTILE[1:3] + HOSTILE[5:6]):
            page = tmp_path / f"{at}.html"
            body = text.replace("{port}", str(port))
            page.write_text(f"<title>own</title><svg class='main-svg'></svg>{body}", encoding="utf-8")
            with pytest.raises(AssertionError):
                check_nothing_ran(browser, page, tmp_path / f"profile {at}", asked)


OPEN = Path("/proc/self/fd")


@pytest.mark.skipif(not OPEN.is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open(tmp_path):
    checked_target(tmp_path / "once")
    before = len(list(OPEN.iterdir()))
    for n in range(20):
        write_whole(checked_target(tmp_path / str(n)), "text")
    assert len(list(OPEN.iterdir())) < before + 20
