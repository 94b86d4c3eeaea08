"""Families beyond the matrix, and weights that changed hands: the numbers are right, or an error says why not."""

import numpy as np
import pytest
import torch
import transformers
from naive import sweep as naive_sweep
from quick import one_in
from transformer_lens.model_bridge.sources import build_bridge_from_module
from whole_runs import tokens_for, weighed
from zoo import fresh_of, hooked_only, hooked_with, randomise

import induction_kernel as ik
from induction_kernel.interventions._edits import KnockOut, ZeroValues
from induction_kernel.interventions._edits_from_runs import FromRun
from induction_kernel.loading._build import quietly
from induction_kernel.model import unembedding

SMALL = {"vocab_size": 50, "bos_token_id": None, "eos_token_id": None}
LAYERS = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4}
CONFIGS = {
    "Falcon with ALiBi": lambda: transformers.FalconConfig(
        **LAYERS, alibi=True, new_decoder_architecture=False, multi_query=False, parallel_attn=False, **SMALL
    ),
    "MPT": lambda: transformers.MptConfig(d_model=16, n_heads=4, n_layers=2, max_seq_len=40, **SMALL),
    "XGLM": lambda: transformers.XGLMConfig(
        d_model=16, num_layers=2, attention_heads=4, ffn_dim=32, max_position_embeddings=40, **SMALL
    ),
    "GPT-1": lambda: transformers.OpenAIGPTConfig(n_embd=16, n_layer=2, n_head=4, n_positions=40, vocab_size=50),
    "GPT-OSS": lambda: transformers.GptOssConfig(
        **LAYERS, num_key_value_heads=2, head_dim=4, intermediate_size=32, num_local_experts=2,
        num_experts_per_tok=1, max_position_embeddings=40, sliding_window=4, **SMALL,
    ),
    "Nemotron": lambda: transformers.NemotronConfig(
        **LAYERS, num_key_value_heads=2, intermediate_size=32, max_position_embeddings=40, **SMALL
    ),
}  # fmt: skip


def bridge(name):
    # Two of Hugging Face's own cannot run in float64.
    dtype = torch.float32 if name in ("XGLM", "GPT-OSS") else torch.float64
    with quietly(), torch.random.fork_rng(devices=[]):
        theirs = transformers.AutoModelForCausalLM.from_config(
            CONFIGS[name](), attn_implementation="eager", dtype=dtype
        )
        randomise(theirs)
        model = build_bridge_from_module(
            theirs.eval(), type(theirs).__name__, hf_config=theirs.config, tokenizer=None, model_name=name
        )
    model.cfg.n_ctx = 40
    return model.eval()


@pytest.mark.parametrize(
    ("name", "lengths"),
    one_in(3, ["Falcon with ALiBi", "MPT", "XGLM"], [[6], [5, 5], [6, 4, 6, 5]]),
    ids=lambda part: part if isinstance(part, str) else f"{len(part)} prompts",
)
def test_any_number_of_prompts_is_patched(name, lengths):
    """What a block was given is widened with the batch, or every cell is a whole run."""
    model = bridge(name)
    source, into = (tokens_for(model, lengths, seed=seed) for seed in (5, 0))
    found = ik.sweep(
        model,
        into,
        edit=FromRun(source),
        site="resid_pre",
        by=("layer", "position"),
        metric=weighed,
        progress=False,
    )
    twin, _ = naive_sweep(
        model, into, edit=FromRun(source), site="resid_pre", by=("layer", "position"), metric_function=weighed
    )
    np.testing.assert_allclose(found["value"], twin, rtol=0, atol=1e-4 if name == "XGLM" else 1e-9)


def test_a_norm_behind_attention_leaves_the_value_bias_alone():
    """GPT-1: what a head adds whatever the prompt is its bias, without the norm that stands behind it."""
    model = bridge("GPT-1")
    prompts = tokens_for(model, [6, 6])
    bias = model.blocks[0].attn.b_V.detach()

    def zeroed(z, hook):
        z = z.clone()
        z[:, :, 1] = bias[1]
        return z

    with torch.no_grad():
        logits = model.run_with_hooks(prompts.tokens, fwd_hooks=[("blocks.0.attn.hook_z", zeroed)])
    found = ik.ablate(model, prompts, "L0H1", edit=ZeroValues(), metric=weighed, progress=False)
    np.testing.assert_allclose(found["value"], weighed(logits, prompts), rtol=0, atol=1e-9)


def test_an_attention_sink_takes_its_share_of_what_is_knocked_out():
    """As -inf before a softmax in which the sink takes part: p / (1 - what was removed)."""
    model = bridge("GPT-OSS")
    prompts = tokens_for(model, [4, 4])
    mask = torch.eye(4, dtype=torch.bool).roll(-1, 1).tril(-1)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    pattern = cache["pattern", 1].double()
    assert float(pattern.sum(-1).min()) < 0.9  # the rest is the sink's
    left = pattern.masked_fill(mask, 0)
    row = left / (1 - (pattern - left).sum(-1, keepdim=True))
    v = cache["v", 1].repeat_interleave(4 // cache["v", 1].shape[2], 2).double()
    z = torch.einsum("phqk,pkhd->pqhd", row, v)

    def replaced(old, hook):
        new = old.clone()
        new[:, :, 2] = z[:, :, 2].to(old)
        return new

    with torch.no_grad():
        logits = model.run_with_hooks(prompts.tokens, fwd_hooks=[("blocks.1.attn.hook_z", replaced)])
    found = ik.sweep(
        model, prompts, edit=KnockOut(mask), site="pattern", heads="L1H2", metric=weighed, progress=False
    )
    np.testing.assert_allclose(
        found["value"].sel(layer=1, head=2), weighed(logits, prompts), rtol=0, atol=1e-5
    )


def test_a_norm_that_is_not_what_its_weights_say_is_never_folded():
    model = fresh_of("GPT-2", "bridge")
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    norm = model.blocks[1].ln1
    vars(norm)["forward"] = lambda x, *given: 2 * type(norm).forward(norm, x, *given)
    for call in (ik.direct_effect, ik.copying, lambda model, _: ik.ov_eigenvalues(model, draws=1)):
        with pytest.raises(ValueError, match="does not act as its weights say"):
            call(model, prompts)
    with pytest.raises(ValueError, match="does not act as its weights say"):
        ik.ablate(model, prompts, "L1H0", edit=ZeroValues())
    ik.ablate(model, prompts, "L1H0")  # the mean needs no weights


def test_nemotron_is_right_or_refused():
    """Its norm multiplies with 1 + weight, which not every TransformerLens says."""
    model = bridge("Nemotron")
    prompts = tokens_for(model, [6, 6])
    weight = model.ln_final.original_component.weight.detach()
    try:
        folded = unembedding(model)
    except ValueError:
        with pytest.raises(ValueError, match="does not act as its weights say"):
            ik.direct_effect(model, prompts)
        return
    w_u = (1 + weight)[:, None] * model.W_U.detach()
    w_u = w_u - w_u.mean(0)
    np.testing.assert_allclose(folded, w_u - w_u.mean(-1, keepdim=True), rtol=0, atol=1e-9)


MEASURES = {
    "direct effect": lambda model, prompts: ik.direct_effect(model, prompts)["score"],
    "copying": lambda model, prompts: ik.copying(model, prompts)["score"],
    "eigenvalues": lambda model, prompts: ik.ov_eigenvalues(model, draws=1)["score"],
    "zero values": lambda model, prompts: ik.ablate(model, prompts, ["L0H1", "L1H2"], edit=ZeroValues())[
        "value"
    ],
}


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "GPT-NeoX"])
def test_a_bridge_whose_weights_were_processed_gives_the_same_numbers(name):
    model = fresh_of(name, "bridge", dtype=torch.float32)
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    raw = {key: measure(model, prompts).values for key, measure in MEASURES.items()}
    with quietly():
        model.process_weights()
    for key, measure in MEASURES.items():
        np.testing.assert_allclose(measure(model, prompts), raw[key], rtol=0, atol=2e-4, err_msg=key)


def test_a_parameter_put_in_the_place_of_another_is_read():
    model, prompts = fresh_of("GPT-2", "bridge"), None
    for norm in (model.blocks[0].ln1, model.blocks[1].ln1, model.ln_final):
        inner = norm.original_component
        for key in ("weight", "bias"):
            changed = 1.5 * getattr(inner, key).detach() + 0.2
            inner._parameters[key] = torch.nn.Parameter(changed)
    twin = fresh_of("GPT-2", "bridge")
    with torch.no_grad():
        for norm in (twin.blocks[0].ln1, twin.blocks[1].ln1, twin.ln_final):
            for key in ("weight", "bias"):
                getattr(norm.original_component, key).mul_(1.5).add_(0.2)
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    for key, measure in MEASURES.items():
        np.testing.assert_allclose(measure(model, prompts), measure(twin, prompts), rtol=1e-9, err_msg=key)


@hooked_only
@pytest.mark.parametrize("norm", ["LN", "LNPre", "RMS", "RMSPre", None])
@pytest.mark.parametrize("positions", ["standard", "rotary"])
def test_every_norm_and_the_usual_positions_have_the_fast_lane(norm, positions):
    settings = {"normalization_type": norm, "positional_embedding_type": positions}
    model = hooked_with(**settings, **({"rotary_dim": 4} if positions == "rotary" else {}))
    found = ik.sweep(model, tokens_for(model, [4, 6, 3]), edit=ik.Zero(), by=("layer",), metric=weighed)
    assert found.attrs["lane"] == "decoder"
