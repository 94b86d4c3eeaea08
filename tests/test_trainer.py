"""Does a run do what its recipe says, and does an interrupted one end as an undisturbed one does?"""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import induction_kernel as ik
from induction_kernel.loading import build, checkpoint_steps, read_recipe
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.training import _language as language
from induction_kernel.training import _trainer as trainer
from induction_kernel.training import _vocabulary as vocabulary
from induction_kernel.training._curves import training_curves
from induction_kernel.training._families import FAMILIES, family_curves, train_families
from induction_kernel.training._network import forward, heads_in_use, initial_weights
from induction_kernel.training._recipe import Recipe, log_spaced
from induction_kernel.training._texts import read_corpus
from induction_kernel.training._trainer import fit, train

SHORT = Recipe(
    name="short", heads=2, d_head=4, d_model=16, steps=3, batch_size=4, warmup=1, checkpoints=(0, 1)
)
KINDS = {
    "attention only": SHORT,
    "smeared": replace(SHORT, smeared=True),
    "one layer, smeared": replace(SHORT, layers=1, smeared=True),
    "three layers, MLP, smeared": replace(SHORT, layers=3, mlp=24, smeared=True),
}
BRIDGES = [False, True] if has_hooked_transformer() else [True]


def global_state():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


def everything(folder):
    """Every file of a run by name; tensors as they are, texts without versions."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# What is trained


def test_a_few_steps_lower_the_loss_and_keep_what_the_recipe_says(tmp_path):
    run = fit(replace(SHORT, steps=30), folder=tmp_path, progress=False)
    assert list(run.recipe.kept) == [0, 1, 30] == checkpoint_steps(tmp_path)
    assert [entry["step"] for entry in run.log] == [0, 1, 30]
    assert [entry["tokens"] for entry in run.log] == [0, 4 * 96, 30 * 4 * 96]
    assert run.log == read_recipe(tmp_path)["checkpoints"]
    assert run.log[-1]["loss_stories"] < run.log[0]["loss_stories"] - 0.1
    last = load_file(tmp_path / "checkpoints" / "000030.safetensors")
    assert_close(last, {name: weight.half() for name, weight in run.weights.items()})


def test_a_seed_decides_everything_and_nothing_global_is_touched():
    before, grad = global_state(), torch.is_grad_enabled()
    with torch.no_grad():  # a caller's setting is no reason not to train
        first, second, other = (fit(SHORT, seed=seed, progress=False) for seed in (0, 0, 1))
    assert global_state() == before
    assert torch.is_grad_enabled() == grad
    assert_close(first.weights, second.weights, rtol=0, atol=0)
    assert first.log == second.log
    assert not torch.equal(first.weights["embed.W_E"], other.weights["embed.W_E"])


def strong(recipe, seed=0):
    """Weights far enough from their beginnings that every part of the model shows."""
    generator = torch.Generator().manual_seed(seed)
    first = initial_weights(recipe, seed)
    return {name: w + 0.5 * torch.randn(w.shape, generator=generator) for name, w in first.items()}


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_training_forward_is_that_of_transformer_lens(kind, bridge):
    recipe, weights = KINDS[kind], strong(KINDS[kind])
    tokens = torch.from_numpy(language.batch(np.random.default_rng(0), 5, recipe.context))
    model = build(recipe.architecture, weights, bridge=bridge)
    logits, patterns = forward(weights, tokens, patterns=True)
    with torch.no_grad():
        theirs, cache = model.run_with_cache(tokens)
    assert_close(logits, theirs, rtol=1e-4, atol=1e-4)
    for layer, pattern in enumerate(patterns):
        assert_close(pattern, cache[f"blocks.{layer}.attn.hook_pattern"], rtol=1e-4, atol=1e-5)


def test_the_smear_is_the_papers():
    """k_j := s(a) k_j + (1 - s(a)) k_(j-1), written out position by position."""
    recipe, weights = KINDS["one layer, smeared"], strong(KINDS["one layer, smeared"])
    plain = {name: w for name, w in weights.items() if not name.endswith("smear")}
    tokens = torch.arange(10)[None]
    seen = {}
    for name, given, smeared in (("plain", plain, False), ("smeared", weights, True)):
        model = build({**recipe.architecture, "smeared_keys": smeared}, given)
        model.add_hook("blocks.0.attn.hook_k", lambda k, hook, name=name: seen.update({name: k.clone()}))
        model(tokens)
    k, own = seen["plain"], weights["blocks.0.attn.smear"].sigmoid()
    for head in range(recipe.heads):
        expected = [k[:, 0, head]]
        expected += [own[head] * k[:, j, head] + (1 - own[head]) * k[:, j - 1, head] for j in range(1, 10)]
        assert_close(seen["smeared"][:, :, head], torch.stack(expected, 1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "smeared" in kind])
def test_smeared_keys_act_in_every_measurement_and_outlive_reset_hooks(kind):
    recipe, weights = KINDS[kind], {name: w.double() for name, w in strong(KINDS[kind]).items()}
    model = build(recipe.architecture, weights, dtype=torch.float64)
    prompts = ik.repeated_tokens(model, bos=0, prompts=3, period=8)
    model.reset_hooks()
    pattern = torch.stack(forward(weights, prompts.tokens, patterns=True)[1], 1)
    query = torch.arange(9, 17)
    by_hand = pattern[:, :, :, query, query - 7].mean(-1)
    exactly = {"rtol": 1e-9, "atol": 1e-10}
    assert_close(ik.induction(model, prompts)["score"].values, by_hand.numpy(), **exactly)
    gone = {**weights, "blocks.0.attn.W_O": weights["blocks.0.attn.W_O"].clone()}
    gone["blocks.0.attn.W_O"][1] = 0
    lost = ik.ablate(model, prompts, "L0H1", edit=ik.Zero(), metric=ik.loss)
    logits = [forward(each, prompts.tokens)[0][:, :-1].log_softmax(-1) for each in (gone, weights)]
    value, baseline = (-each.gather(-1, prompts.tokens[:, 1:, None]).mean((1, 2)) for each in logits)
    assert_close(lost["value"].values, value.numpy(), **exactly)
    assert_close(lost["baseline"].values, baseline.numpy(), **exactly)


def test_the_penalty_makes_heads_write_less():
    small, large = (
        fit(replace(SHORT, steps=40, sparsity=sparsity), progress=False).weights for sparsity in (0.0, 1.0)
    )
    assert heads_in_use(large) < 0.9 * heads_in_use(small)


# Recipes and families


def test_log_spaced_checkpoints():
    assert log_spaced(1000, 4) == (0, 1, 10, 100, 1000)
    assert log_spaced(4, 50) == (0, 1, 2, 3, 4)
    assert log_spaced(800, 4, first=100)[1:] == (100, 200, 400, 800)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layers": 5}, "layers must be a whole number, from 1 to 4"),
        ({"steps": 0}, "steps must be a whole number, at least 1"),
        ({"context": 50}, "context must be a whole number, at least 96"),
        ({"pieces": 100}, "pieces must be a whole number, at least 256"),
        ({"mlp": True}, "mlp must be a whole number"),
    ],
)
def test_a_senseless_recipe_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**wrong)


def test_a_recipe_survives_json():
    recipe = replace(SHORT, smeared=True, mlp=8, mix=language.Mix(0.5, 0.25, 0.25))
    assert Recipe.read(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_the_families_differ_in_layers_and_smearing_alone():
    same = {asdict(replace(r, name="", layers=2, smeared=False))["steps"] for r in FAMILIES.values()}
    assert len({replace(recipe, name="", layers=2, smeared=False) for recipe in FAMILIES.values()}) == 1
    assert same == {3200}
    assert sorted((r.layers, r.smeared) for r in FAMILIES.values()) == [
        *((1, False), (1, True)),
        *((2, False), (2, True)),
    ]


@pytest.mark.slow
def test_families_are_trained_measured_and_kept(tmp_path):
    small = {
        name: replace(recipe, heads=2, d_head=4, d_model=16, steps=6, batch_size=4, checkpoints=(0, 2))
        for name, recipe in FAMILIES.items()
        if name in ("1-layer smeared", "2-layer")
    }
    found = train_families(tmp_path, families=small, seeds=(0, 3), progress=False)
    assert dict(found.sizes) | {"model": 2, "seed": 2, "checkpoint": 3, "layer": 2} == dict(found.sizes)
    assert found["prefix_matching"].sel(model="1-layer smeared", layer=1).isnull().all()
    alone = training_curves(tmp_path / "1-layer-smeared" / "seed3", progress=False)
    one = found.sel(model="1-layer smeared", seed=3)
    np.testing.assert_allclose(one["icl_score"], alone["icl_score"], atol=1e-4)
    np.testing.assert_allclose(one["repeat_loss"], alone["repeat_loss"], atol=1e-4)
    np.testing.assert_allclose(
        one["prefix_matching"].sel(layer=0)[:, :16], alone["prefix_matching"].sel(layer=0)[:, :16], atol=1e-4
    )
    before = everything(tmp_path)
    again = train_families(tmp_path, families=small, seeds=(0, 3), progress=False)
    assert again.identical(found)
    assert {k: v for k, v in everything(tmp_path).items() if k != "curves.nc"} == {
        k: v for k, v in before.items() if k != "curves.nc"
    }


def test_families_that_cannot_be_compared_are_refused(tmp_path):
    for wrong in ({}, {"a": SHORT, "b": replace(SHORT, steps=9)}):
        with pytest.raises(ValueError, match="wanted families with the same checkpoints"):
            train_families(tmp_path / "new", families=wrong)
    with pytest.raises(ValueError, match="cannot read curves"):
        family_curves(tmp_path / "nowhere.nc")
    assert not (tmp_path / "new").exists()


# Folders


def test_train_returns_the_model_it_writes(tmp_path):
    model = train(SHORT, seed=2, folder=tmp_path / "new", progress=False)
    assert model.cfg.model_name == "new"
    assert model.to_str_tokens("fox dax ; wolf", prepend_bos=True) == ["<bos>", "fox", "dax", ";", "wolf"]
    again = train(SHORT, seed=2, progress=False)
    assert again.cfg.model_name == "short"
    tokens = model.to_tokens("fox dax ; wolf", prepend_bos=True)
    with torch.no_grad():
        assert_close(model(tokens), again(tokens))
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("model.safetensors", "checkpoints", "recipe.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_a_folder_that_is_not_to_be_written_to_is_refused_before_training(tmp_path):
    endless = replace(SHORT, steps=10**9)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        train(endless, folder=tmp_path / "file", progress=False)
    train(SHORT, folder=tmp_path / "done", progress=False)
    with pytest.raises(ValueError, match="already holds a trained model"):
        train(endless, folder=tmp_path / "done", progress=False)


class Stop(Exception):
    pass


def stopped_at(monkeypatch, step):
    """Training that fails when it comes to this step."""
    update = trainer._update

    def failing(*args):
        if args[-1] == step:
            raise Stop
        update(*args)

    monkeypatch.setattr(trainer, "_update", failing)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_as_an_undisturbed_one(kind, tmp_path, monkeypatch):
    recipe = replace(KINDS[kind], steps=12, checkpoints=(0, 5, 6))
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    whole = fit(recipe, seed=3, folder=tmp_path / "whole", progress=False)
    for step in (2, 7, 8):
        with monkeypatch.context() as patched:
            stopped_at(patched, step)
            with pytest.raises(Stop):
                fit(recipe, seed=3, folder=tmp_path / "broken", progress=False)
        assert not (tmp_path / "broken" / "model.safetensors").exists()
    again = fit(recipe, seed=3, folder=tmp_path / "broken", progress=False)
    assert_close(again.weights, whole.weights, rtol=0, atol=0)
    assert everything(tmp_path / "broken") == everything(tmp_path / "whole")


def test_an_unfinished_run_is_gone_on_with_by_the_same_recipe_only(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stopped_at(patched, 2)
        with pytest.raises(Stop):
            fit(SHORT, folder=tmp_path / "run", progress=False)
    assert ik.load(tmp_path / "run", checkpoint=1).cfg.n_layers == 2  # what is there can be looked at
    with pytest.raises(ValueError, match="not written completely"):
        ik.load(tmp_path / "run")
    with pytest.raises(ValueError, match="another recipe"):
        fit(replace(SHORT, steps=9), folder=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="another seed"):
        fit(SHORT, seed=1, folder=tmp_path / "run", progress=False)
    (tmp_path / "run" / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="damaged"):
        fit(SHORT, folder=tmp_path / "run", progress=False)


KILLED = """
import sys, torch
torch.set_num_threads(1)
from dataclasses import replace
from induction_kernel.training import _trainer as trainer
from induction_kernel.training._recipe import Recipe
trainer.SAVE_EVERY = 7
recipe = Recipe(name="killed", heads=2, d_head=8, d_model=32, steps=400, batch_size=8)
recipe = replace(recipe, checkpoints=tuple(range(0, 400, 20)))
print("ready", flush=True)
trainer.fit(recipe, seed=1, folder=sys.argv[1], progress=False)
"""


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_weights(tmp_path):
    rng, killed = np.random.default_rng(), 0
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "whole")], check=True, capture_output=True)
    took = time.monotonic() - start
    for _ in range(200):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "broken")], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "ready\n"
            if killed < 10:
                time.sleep(rng.uniform(0.005, 0.05) * took)
                child.send_signal(signal.SIGKILL)
                child.wait()
                killed += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            break
    assert killed == 10
    assert everything(tmp_path / "broken") == everything(tmp_path / "whole")


# Texts


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some words of the language in random order, as a text file."""
    words = np.random.default_rng(0).choice(vocabulary.VOCABULARY[6:], 12_000)
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(
        "\n".join(" ".join(words[i : i + 12]) for i in range(0, len(words), 12)), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("pieces", [256, 400])
def test_a_text_is_learned(text, pieces, tmp_path):
    recipe = replace(SHORT, pieces=pieces, steps=30)
    model = train(recipe, text=text, folder=tmp_path / "run", progress=False)
    log = read_recipe(tmp_path / "run")["checkpoints"]
    assert log[-1]["loss_text"] < log[0]["loss_text"] - 0.1
    assert model.cfg.d_vocab == pieces + 2
    line = text.read_text().splitlines()[3]
    assert model.to_string(model.to_tokens(line)[0, 1:]) == line
    longest = max(len(piece) for piece in model.to_str_tokens(line)[1:])
    assert longest == 1 if pieces == 256 else longest > 1


def test_rows_begin_with_bos_and_are_windows_of_the_training_part(text):
    recipe = replace(SHORT, pieces=300)
    corpus = read_corpus([text, text], recipe)
    rows = corpus.rows(np.random.default_rng(1), 50, 96)
    assert rows.shape == (50, 96)
    assert (rows[:, 0] == 0).all()
    whole = " ".join(map(str, corpus.training.tolist()))
    assert all(" ".join(map(str, row[1:].tolist())) in whole for row in rows)
    assert (corpus.training == 0).sum() == (corpus.held_back == 0).sum() == 2
    held = corpus.held_back_rows(96, 5)
    assert held.shape == (5, 96)
    assert len(np.unique(held[:, 1:], axis=0)) == 5


def test_a_text_run_goes_on_and_refuses_another_text(text, tmp_path, monkeypatch):
    recipe = replace(SHORT, pieces=256, steps=9)
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    whole = fit(recipe, text=text, folder=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patched:
        stopped_at(patched, 6)
        with pytest.raises(Stop):
            fit(recipe, text=text, folder=tmp_path / "broken", progress=False)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text()[::-1])
    with pytest.raises(ValueError, match="another text"):
        fit(recipe, text=other, folder=tmp_path / "broken", progress=False)
    again = fit(recipe, text=text, folder=tmp_path / "broken", progress=False)
    assert_close(again.weights, whole.weights, rtol=0, atol=0)


def test_texts_that_do_not_serve_are_refused(text, tmp_path):
    wanted = replace(SHORT, pieces=300)
    (tmp_path / "short.txt").write_text("to be or not to be " * 9)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa" * 99)
    for given, config, said in (
        (None, wanted, "needs texts"),
        (text, SHORT, "needs texts"),
        (tmp_path / "nowhere.txt", wanted, "cannot read"),
        (tmp_path / "binary", wanted, "UTF-8"),
        (tmp_path / "short.txt", replace(wanted, pieces=256), "longer texts"),
        (text, replace(wanted, pieces=30_000), "pieces"),
        ([], wanted, "need a file"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(config, text=given, folder=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="name a folder"):
        train(wanted, text=text, progress=False)
    assert not (tmp_path / "run").exists()
