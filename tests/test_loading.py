"""`load` and `build`: the same model by every door, nothing else touched, errors that say what to do."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import (
    ARCHITECTURE,
    BRIDGES,
    TOKENS,
    halve,
    logits,
    random_weights,
    write_hugging_face,
    write_tokenizer,
)
from safetensors.torch import save_file

from induction_kernel.loading import build, checkpoint_steps, load, read_recipe
from induction_kernel.loading._build import has_hooked_transformer


def naive_logits(weights, tokens):
    """The attention-only model written out; biases are read where there are any."""

    def normalised(x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    x = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"][: tokens.shape[1]]
    later = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
    for layer in range(ARCHITECTURE["n_layers"]):
        name, total = f"blocks.{layer}.attn.", weights.get(f"blocks.{layer}.attn.b_O", 0)
        for head in range(ARCHITECTURE["n_heads"]):
            q, k, v = (
                normalised(x) @ weights[f"{name}W_{key}"][head]
                + (weights[f"{name}b_{key}"][head] if f"{name}b_{key}" in weights else 0)
                for key in "QKV"
            )
            scores = (q @ k.mT / ARCHITECTURE["d_head"] ** 0.5).masked_fill(later, -torch.inf)
            total = total + scores.softmax(-1) @ v @ weights[f"{name}W_O"][head]
        x = x + total
    return normalised(x) @ weights["unembed.W_U"] + weights.get("unembed.b_U", 0)


def write_embedded(folder):
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"format": 1, "architecture": ARCHITECTURE, "seed": 3}))
    save_file(random_weights(), folder / "model.safetensors")
    (folder / "checkpoints").mkdir()
    for step in (0, 250):
        early = {key: value.half() for key, value in random_weights(step + 1).items()}
        save_file(early, folder / "checkpoints" / f"{step:06d}.safetensors")
    write_tokenizer(folder)
    return folder


@pytest.fixture
def embedded(tmp_path):
    return write_embedded(tmp_path / "small")


@pytest.mark.parametrize("bridge", BRIDGES)
def test_build_computes_what_the_weights_say(bridge):
    weights = random_weights()
    generator = torch.Generator().manual_seed(5)
    heads = {f"blocks.1.attn.b_{key}": torch.randn(4, 4, generator=generator) for key in "QKV"}
    rest = {
        "blocks.0.attn.b_O": torch.randn(16, generator=generator),
        "unembed.b_U": torch.randn(32, generator=generator),
    }
    for biases in ({}, {**heads, **rest}):
        given = {**weights, **biases}
        model = build(ARCHITECTURE, given, bridge=bridge)
        torch.testing.assert_close(logits(model), naive_logits(given, TOKENS), atol=1e-5, rtol=1e-5)
        assert not any(module.training for module in model.modules())


@pytest.mark.skipif(len(BRIDGES) == 1, reason="TransformerLens 4 has one kind of model")
@pytest.mark.parametrize(
    "changes",
    [
        {"attn_only": False, "normalization_type": "LN", "act_fn": "gelu_new", "d_mlp": 24},
        {
            "attn_only": False,
            "normalization_type": "RMS",
            "gated_mlp": True,
            "act_fn": "silu",
            "n_key_value_heads": 2,
        },
        {"positional_embedding_type": "rotary", "n_key_value_heads": 1, "normalization_type": "RMSPre"},
        {
            "positional_embedding_type": "rotary",
            "rotary_dim": 2,
            "normalization_type": None,
            "n_key_value_heads": 4,
        },
        {"attn_only": False, "normalization_type": "LN", "final_rms": True, "d_mlp": 24},
    ],
)
def test_hooked_transformer_and_bridge_agree(changes):
    from induction_kernel.loading._parameters import _shapes, checked_architecture

    architecture = {**ARCHITECTURE, **changes}
    generator = torch.Generator().manual_seed(2)
    weights = {
        key: torch.randn(shape, generator=generator) * 0.5
        for key, shape in _shapes(checked_architecture(architecture)).items()
        if not (changes.get("gated_mlp") and "mlp.b" in key)  # a native Bridge has none
    }
    models = [build(architecture, weights, bridge=bridge) for bridge in BRIDGES]
    first, second = (logits(model) for model in models)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    assert type(models[0]) is not type(models[1])


def test_build_takes_a_hooked_transformers_own_state():
    weights = random_weights()
    model = build(ARCHITECTURE, weights)
    if has_hooked_transformer():  # its buffers are no parameters
        again = build(ARCHITECTURE, model.state_dict())
        assert torch.equal(logits(model), logits(again))
    weights["embed.W_E"].zero_()
    assert logits(model).std() > 0.1, "the weights must be copied"


@pytest.mark.parametrize("bridge", BRIDGES)
def test_loading_draws_no_random_number(embedded, bridge):
    """The user's own draws, which a seed fixes, must not depend on what is loaded between them."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    load(embedded, bridge=bridge)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_build_with_a_tokenizer_that_is_nowhere(no_network):
    import tempfile

    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        inner = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<bos>", pad_token="<pad>"
    )
    model = build(ARCHITECTURE, random_weights(), tokenizer=tokenizer)
    assert model.to_tokens("word3 word0").tolist() == [[0, 6, 3]]


@pytest.mark.parametrize("bridge", BRIDGES)
def test_embedded_model_and_its_checkpoints(embedded, no_network, bridge):
    model = load(embedded, bridge=bridge)
    torch.testing.assert_close(logits(model), naive_logits(random_weights(), TOKENS), atol=1e-5, rtol=1e-5)
    assert (model.cfg.model_name, model.cfg.n_ctx, model.cfg.attn_only) == ("small", 12, True)
    assert checkpoint_steps(embedded) == [0, 250]
    early = load(str(embedded), checkpoint=250, bridge=bridge)
    rounded = {key: value.half().float() for key, value in random_weights(251).items()}
    torch.testing.assert_close(logits(early), naive_logits(rounded, TOKENS), atol=1e-5, rtol=1e-5)
    assert early.cfg.model_name == "small at step 250"
    assert early.cfg.checkpoint_value == 250
    assert load(embedded, dtype="float64").W_E.dtype == torch.float64
    assert read_recipe(embedded)["seed"] == 3


def test_embedded_tokenizer(embedded, no_network):
    model = load(embedded)
    assert model.to_tokens(["word1 word2", "word4"]).tolist() == [[0, 4, 5], [0, 7, 2]]
    assert model.to_tokens("word1", prepend_bos=False).tolist() == [[4]]
    assert model.to_str_tokens("word1 other") == ["<bos>", "word1", "<unk>"]
    tokenizer = model.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 2)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_tiny(no_network, bridge):
    model = load(bridge=bridge)
    assert model.cfg.model_name == "tiny"
    assert model.to_tokens("the")[0, 0] == model.tokenizer.bos_token_id
    assert max(model.tokenizer.get_vocab().values()) < model.cfg.d_vocab
    steps = checkpoint_steps()
    assert len(steps) > 5
    first = load("tiny", checkpoint=steps[0], bridge=bridge)
    assert not torch.equal(logits(first), logits(model))


@pytest.mark.parametrize("kind", ["embedded", "llama", "bridge"])
def test_nothing_else_is_touched(kind, embedded, llama, no_network, capsys, recwarn):
    def state():
        root, theirs = logging.getLogger(), logging.getLogger("transformers")
        handlers = [handler for handler in root.handlers if "pytest" not in type(handler).__module__]
        return torch.is_grad_enabled(), root.level, theirs.level, handlers, torch.get_default_dtype()

    load(llama[0])  # importing TransformerLens itself changes the level of transformers' logger
    before, random = state(), torch.random.get_rng_state()
    capsys.readouterr()
    with torch.enable_grad():
        model = load(embedded if kind == "embedded" else llama[0], bridge=kind == "bridge")
    assert state() == before
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(module.training for module in model.modules())
    assert capsys.readouterr().out == ""
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((7,), {}, TypeError, "wanted a model's name or path, got int"),
        (("  ",), {}, ValueError, "got an empty string"),
        (("./nowhere",), {}, ValueError, "nowhere does not exist"),
        ((Path("nowhere"),), {}, ValueError, "nowhere does not exist"),
        (("nowhere.gguf",), {}, ValueError, "nowhere.gguf does not exist"),
        (("gtp2",), {}, ValueError, r'no model "gtp2".*did you mean .*gpt2'),
        (("Pythia-70",), {}, ValueError, "did you mean .*EleutherAI/pythia-70m"),
        (("zzzzqqqq",), {}, ValueError, 'for example "gpt2"'),
        (("tiny",), {"device": "gpu"}, ValueError, "device must be one torch knows"),
        (("tiny",), {"dtype": "float99"}, ValueError, "dtype must be a floating point type"),
        (("tiny",), {"dtype": torch.int64}, ValueError, "dtype must be a floating point type"),
        (("tiny",), {"n_ctx": 5}, TypeError, "takes checkpoint, device, dtype and bridge, got n_ctx"),
    ],
)
def test_wrong_calls(arguments, options, error, message, no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load(*arguments, **options)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), ValueError, "model.safetensors is missing"),
        (lambda f: halve(f / "model.safetensors"), ValueError, "model.safetensors is damaged"),
        (lambda f: (f / "tokenizer.json").unlink(), ValueError, "tokenizer.json is missing"),
        (lambda f: halve(f / "tokenizer.json"), ValueError, "the tokenizer in .* is damaged"),
        (lambda f: halve(f / "recipe.json"), ValueError, "recipe.json is damaged"),
        (lambda f: (f / "recipe.json").write_text("[]"), ValueError, "has format None"),
        (
            lambda f: (f / "recipe.json").write_text('{"format": 2}'),
            ValueError,
            "has format 2, .* reads format 1",
        ),
        (lambda f: (f / "recipe.json").write_text('{"format": 1}'), ValueError, "it has no architecture"),
        (lambda f: rewrite(f, {"d_vocab": 31}), ValueError, r"embed.W_E must have shape \(31, 16\)"),
        (lambda f: rewrite(f, {"n_layers": 3}), ValueError, "the weights lack blocks.2.attn.W_Q"),
        (lambda f: rewrite(f, {"n_layers": 1}), ValueError, "the weights have blocks.1.attn.W_"),
        (lambda f: rewrite(f, {"smear": 1}), ValueError, "unknown entries smear"),
        (lambda f: rewrite(f, {"d_head": 0}), ValueError, "d_head must be a whole number"),
        (lambda f: rewrite(f, {"n_key_value_heads": 3}), ValueError, "multiple of its n_key_value_heads"),
        (lambda f: rewrite(f, {"normalization_type": "ln"}), ValueError, "normalization_type must be one of"),
        (lambda f: spoil(f), ValueError, "blocks.1.attn.W_V holds NaN"),
    ],
)
def test_damaged_embedded_model(embedded, damage, error, message):
    damage(embedded)
    with pytest.raises(error, match=message):
        load(embedded)


def rewrite(folder, changes):
    recipe = {"format": 1, "architecture": {**ARCHITECTURE, **changes}}
    (folder / "recipe.json").write_text(json.dumps(recipe))


def spoil(folder):
    weights = random_weights()
    weights["blocks.1.attn.W_V"][0, 0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors")


def test_checkpoint_errors(embedded, llama):
    with pytest.raises(ValueError, match="no checkpoint of step 7: there are 0, 250"):
        load(embedded, checkpoint=7)
    with pytest.raises(TypeError, match="checkpoint must be a training step"):
        load(embedded, checkpoint="250")
    halve(embedded / "checkpoints" / "000250.safetensors")
    with pytest.raises(ValueError, match=r"000250\.safetensors is damaged"):
        load(embedded, checkpoint=250)
    load(embedded, checkpoint=0)
    shutil.rmtree(embedded / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint of step 250: the folder holds no checkpoints"):
        load(embedded, checkpoint=250)
    with pytest.raises(ValueError, match="has no training checkpoints"):
        load(llama[0], checkpoint=1)


def test_a_folder_here_comes_before_the_same_name_on_the_hub(tmp_path, monkeypatch, no_network):
    write_hugging_face(tmp_path / "gpt2")
    (tmp_path / "distilgpt2").mkdir()  # no model
    monkeypatch.chdir(tmp_path)
    assert load("gpt2").cfg.d_model == 24
    from induction_kernel.loading._names import as_path

    assert as_path("distilgpt2") is None
