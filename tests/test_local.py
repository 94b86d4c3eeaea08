"""`load` of a Hugging Face folder or a GGUF file: what it computes, of which class it is, what it refuses."""

from __future__ import annotations

import pytest
import torch
from folders import BRIDGES, TOKENS, WORDS, halve, logits, write_hugging_face
from quick import one_in
from safetensors.torch import save_file

from induction_kernel.loading import _conversion as converting
from induction_kernel.loading import _families as families
from induction_kernel.loading import _local as local
from induction_kernel.loading import load
from induction_kernel.loading._build import has_hooked_transformer

hooked = pytest.mark.skipif(
    not has_hooked_transformer(), reason="TransformerLens 4 has no HookedTransformer to convert to"
)
LONG = torch.randint(len(WORDS), (2, 64), generator=torch.Generator().manual_seed(0))


ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"head_dim": 8, "tie_word_embeddings": True}),
        ("llama", {"rope_parameters": ROPE}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 64, "num_key_value_heads": 4}),
        ("qwen2", {}),
        ("gpt2", {}),
        ("gpt2", {"n_inner": 40, "activation_function": "gelu", "layer_norm_epsilon": 1e-2}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("gptj", {}),
        ("gptj", {"rotary_dim": 12, "n_inner": 40, "activation_function": "relu"}),
        ("gptj", {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-2}),
        ("gpt_neox", {}),
        ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-2}),
        ("gpt_neox", {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 1.0}}),
        ("gpt_neox", {"tie_word_embeddings": True}),
    ],
)
@pytest.mark.parametrize("bridge", BRIDGES)
def test_what_can_be_converted_is_and_agrees_with_hugging_face(kind, changes, bridge, tmp_path, no_network):
    theirs = write_hugging_face(tmp_path / "family", kind, **changes)
    model = load(tmp_path / "family", bridge=bridge)
    assert ("HookedTransformer" in type(model).__name__) == (has_hooked_transformer() and not bridge)
    with torch.no_grad():
        torch.testing.assert_close(logits(model, LONG), theirs(LONG).logits, atol=2e-4, rtol=1e-4)
    assert model.cfg.model_name == "family"
    assert model.cfg.n_ctx == 64
    assert model.tokenizer.vocab_size == len(WORDS)


@pytest.mark.parametrize("kind", ["gpt_neo", "opt", "bloom", "gemma", "phi"])
@pytest.mark.parametrize("bridge", BRIDGES)
def test_every_other_architecture_becomes_a_bridge_that_agrees(kind, bridge, tmp_path, no_network):
    theirs = write_hugging_face(tmp_path / "other", kind)
    model = load(tmp_path / "other", bridge=bridge)
    assert type(model).__name__ == "TransformerBridge"
    with torch.no_grad():
        torch.testing.assert_close(logits(model, LONG), theirs(LONG).logits, atol=2e-4, rtol=1e-4)
    assert model.cfg.model_name == "other"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 8}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
        ("gpt2", {"activation_function": "quick_gelu"}),
        ("gpt_neox", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 3 / 16}}),
        ("gpt_neox", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    ],
)
def test_what_the_conversion_does_not_know_becomes_a_bridge(kind, changes, tmp_path, no_network):
    theirs = write_hugging_face(tmp_path / "other", kind, **changes)
    model = load(tmp_path / "other")
    assert type(model).__name__ == "TransformerBridge"
    assert families.hooked_settings(theirs.config) is None
    with torch.no_grad():
        torch.testing.assert_close(logits(model, LONG), theirs(LONG).logits, atol=2e-4, rtol=1e-4)
    patterns = {}
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda a, hook: patterns.update(seen=a))]):
        logits(model, LONG)
    torch.testing.assert_close(patterns["seen"].sum(-1), torch.ones(2, 4, 64))


def test_scores_that_are_not_scaled(tmp_path):
    """TransformerLens' adapter scales them all the same (3.9 and 4.3): the short run shows it."""
    theirs = write_hugging_face(tmp_path / "unscaled", "gpt2", scale_attn_weights=False)
    with pytest.raises(
        ValueError, match="unscaled as a TransformerBridge differs from the Hugging Face model"
    ):
        load(tmp_path / "unscaled", bridge=True)
    if has_hooked_transformer():
        model = load(tmp_path / "unscaled")
        with torch.no_grad():
            torch.testing.assert_close(logits(model, LONG), theirs(LONG).logits, atol=2e-4, rtol=1e-4)


def test_what_does_not_run_is_refused(tmp_path):
    """Transformers' own upcasting of the scores refuses float64."""
    write_hugging_face(tmp_path / "upcast", "gpt2", reorder_and_upcast_attn=True)
    with pytest.raises(ValueError, match="upcast does not run: Error with upcasting"):
        load(tmp_path / "upcast", dtype="float64")


def test_what_no_class_takes_is_refused(tmp_path):
    write_hugging_face(tmp_path / "odd", "gpt_neox", attention_bias=False)
    with pytest.raises(ValueError, match=r"odd cannot be a TransformerBridge: .* GPTNeoXForCausalLM"):
        load(tmp_path / "odd")


# The root mean square of what rounding in another order changes, in parts of the logits' standard deviation.
CLOSE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 0.005, torch.bfloat16: 0.04}


@pytest.mark.parametrize(
    ("dtype", "kind", "bridge"), one_in(2, tuple(CLOSE), ["llama", "gpt2", "gptj", "gpt_neox"], BRIDGES)
)
def test_every_dtype_is_kept_and_agrees(kind, dtype, bridge, tmp_path):
    theirs = write_hugging_face(tmp_path / "model", kind).to(dtype)
    model = load(tmp_path / "model", dtype=str(dtype), bridge=bridge)
    assert {value.dtype for value in model.parameters()} == {dtype}
    assert model.cfg.dtype == dtype
    with torch.no_grad():
        wanted = theirs(TOKENS).logits.double()
    assert (logits(model) - wanted).pow(2).mean().sqrt() < CLOSE[dtype] * wanted.std()


@hooked
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gptj", "gpt_neox"])
def test_float64_weights_are_not_rounded(kind, tmp_path):
    theirs = write_hugging_face(tmp_path / "model", kind, dtype=torch.float64)
    with torch.no_grad():
        theirs.get_input_embeddings().weight.add_(1e-12)
    theirs.save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model", dtype="float64")
    assert torch.equal(model.W_E, theirs.get_input_embeddings().weight)


@hooked
@pytest.mark.parametrize(
    ("kind", "option"), one_in(2, ["llama", "gpt2", "gptj", "gpt_neox"], [*converting.PROCESSING, "all"])
)
def test_processed_weights_compute_the_same(kind, option, tmp_path):
    theirs = write_hugging_face(tmp_path / "model", kind)
    options = dict.fromkeys(converting.PROCESSING, True) if option == "all" else {option: True}
    model = load(tmp_path / "model", **options)
    with torch.no_grad():
        wanted = theirs(TOKENS).logits.log_softmax(-1)
    torch.testing.assert_close(logits(model).log_softmax(-1), wanted, atol=2e-4, rtol=1e-4)
    raw = dict(load(tmp_path / "model").named_parameters())
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, raw[name])]
    # RMSNorm does not centre, and these have no value biases.
    nothing = {
        ("llama", "center_writing_weights"),
        ("llama", "fold_value_biases"),
        ("gptj", "fold_value_biases"),
    }
    assert bool(changed) == ((kind, option) not in nothing)


@hooked
def test_the_weights_move_and_are_never_there_twice(tmp_path, monkeypatch):
    """After the conversion the Hugging Face model is empty; tied and fused weights are tensors of their own."""
    seen = {}
    read = local._read_weights
    monkeypatch.setattr(
        local, "_read_weights", lambda *args, **plan: seen.setdefault("theirs", read(*args, **plan))
    )
    for kind in ("gpt2", "gpt_neox"):
        seen.clear()
        write_hugging_face(tmp_path / kind, kind)
        model = load(tmp_path / kind)
        assert all(value.is_meta for value in seen["theirs"].parameters())
        where = [value.untyped_storage().data_ptr() for value in model.parameters()]
        assert len(set(where)) == len(where)


def test_local_options(llama, tmp_path, no_network):
    folder, _ = llama
    assert load(folder, n_ctx=16).cfg.n_ctx == 16
    assert next(load(folder).parameters()).dtype == torch.float32
    assert str(load(folder, device=torch.device("cpu")).cfg.device) == "cpu"
    assert load(folder, n_devices=1).cfg.n_devices == 1
    if has_hooked_transformer():
        assert load(folder, fold_ln=True, center_unembed=True).cfg.normalization_type == "RMSPre"
    write_hugging_face(tmp_path / "mute", tokenizer=False)
    assert load(tmp_path / "mute").tokenizer is None


def test_a_shorter_context_of_learned_positions(tmp_path):
    theirs = write_hugging_face(tmp_path / "gpt2", "gpt2")
    model = load(tmp_path / "gpt2", n_ctx=12)
    assert model.cfg.n_ctx == 12
    with torch.no_grad():
        torch.testing.assert_close(logits(model), theirs(TOKENS).logits, atol=1e-4, rtol=1e-4)


def test_a_device_map_is_transformers_own(llama):
    folder, theirs = llama
    model = load(folder, bridge=True, device_map={"": "cpu"})
    with torch.no_grad():
        torch.testing.assert_close(logits(model), theirs(TOKENS).logits, atol=2e-4, rtol=1e-4)
    assert str(model.cfg.device) == "cpu"
    if has_hooked_transformer():
        with pytest.raises(ValueError, match="device_map is for a TransformerBridge"):
            load(folder, device_map="auto")


def test_several_devices_are_transformer_lens_doing(llama, monkeypatch):
    """There are none here, so that what TransformerLens is asked to do is all that can be seen."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if not has_hooked_transformer():
        from transformer_lens.utilities import multi_gpu

        monkeypatch.setattr(
            multi_gpu, "resolve_device_map", lambda n, plan, device: ({"": "cpu"}, {"cpu": n})
        )
        asked = {}
        read = local._read_weights
        monkeypatch.setattr(
            local,
            "_read_weights",
            lambda *args, **plan: asked.update(plan) or read(*args, device_map={"": "cpu"}),
        )
        load(llama[0], n_devices=2)
        assert asked == {"device_map": {"": "cpu"}, "max_memory": {"cpu": 2}}
        return
    from transformer_lens import HookedTransformer

    moved = []
    monkeypatch.setattr(
        HookedTransformer,
        "move_model_modules_to_device",
        lambda self: moved.append((self.cfg.n_devices, self.cfg.device)),
    )
    load(llama[0], n_devices=2, device="cpu")
    assert moved[-1] == (2, "cpu")


WRONG = {
    "llama": {"rotary_base": 100.0},
    "gpt2": {"eps": 0.3},
    "gptj": {"rotary_adjacent_pairs": False},
    "gpt_neox": {"parallel_attn_mlp": False},
}


@hooked
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_conversion_is_noticed(kind, dtype, tmp_path, monkeypatch):
    write_hugging_face(tmp_path / "model", kind)
    settings = local.hooked_settings
    monkeypatch.setattr(local, "hooked_settings", lambda config: settings(config) | WRONG[kind])
    with pytest.raises(ValueError, match=r"differs from the Hugging Face model by .* bridge=True"):
        load(tmp_path / "model", dtype=dtype)


def test_damaged_hugging_face_folder(tmp_path):
    folder = tmp_path / "damaged"
    model = write_hugging_face(folder)
    with pytest.raises(ValueError, match="n_ctx must be a whole number from 1 to 64"):
        load(folder, n_ctx=65)
    with pytest.raises(TypeError, match=r"takes no fold_everything; it takes device, dtype"):
        load(folder, fold_everything=True)
    with pytest.raises(TypeError, match="enable_compatibility_mode"):
        load(folder, bridge=True, fold_ln=True)
    with pytest.raises(ValueError, match="is a file: wanted a Hugging Face folder"):
        load(folder / "model.safetensors")
    halve(folder / "model.safetensors")
    with pytest.raises(ValueError, match="damaged cannot be read as a language model"):
        load(folder)
    state = model.state_dict()
    save_file(
        {key: value for key, value in state.items() if "q_proj" not in key}, folder / "model.safetensors"
    )
    with pytest.raises(
        ValueError, match=r"lacks 2 of the model's parameters, .*layers.0.self_attn.q_proj.weight"
    ):
        load(folder)
    state["model.norm.weight"][0] = float("inf")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight holds NaN or infinite values"):
        load(folder)
    halve(folder / "config.json")
    with pytest.raises(ValueError, match="cannot be read as a language model"):
        load(folder)


@hooked
@pytest.mark.parametrize("fold_ln", [False, True])
def test_a_run_copies_no_weights_of_gated_mlps_nor_of_the_unembedding(fold_ln, tmp_path, no_network):
    """HookedTransformer takes `weight.T.contiguous()` of these in each run."""
    write_hugging_face(tmp_path / "family", "llama")
    model = load(tmp_path / "family", fold_ln=fold_ln)
    read = [getattr(block.mlp, name) for block in model.blocks for name in ("W_gate", "W_in", "W_out")]
    for weight in (*read, model.unembed.W_U):
        assert weight.T.contiguous().data_ptr() == weight.data_ptr()
