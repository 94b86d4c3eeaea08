"""Direct effects by component, position and source token: on paper, adding up, beside TransformerLens' own functions.

The cells of the matrix compare them with slow twins on every family (`cells_attribution.py`).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
import xarray as xr
from encoders import CLASSIFIERS, bidirectional, classifier
from hand_model import ARCHITECTURE, GAIN, VOCAB, hand_weights
from quick import one_in
from transformer_lens.model_bridge.sources import build_bridge_from_module
from zoo import (
    ARCHITECTURES,
    folded,
    fresh,
    fresh_of,
    has_hooked_transformer,
    hooked_only,
    hooked_with,
    randomise,
    tiny,
)

import induction_kernel as ik
from induction_kernel.loading import build
from induction_kernel.loading._build import quietly

every = pytest.mark.parametrize("name", ARCHITECTURES)
BYS = [("component",), ("component", "position"), ("head", "position"), ("head", "key")]


def prompts_for(model, **options):
    prompts = ik.repeated_tokens(model, bos=0, **({"prompts": 3, "period": (4, 6)} | options))
    answers = torch.tensor([[3, 7], [11, 2], [30, 31]])
    return replace(prompts, answers=answers)


@pytest.fixture(scope="module", params=[False, True] if has_hooked_transformer() else [True])
def by_hand(request):
    return build(ARCHITECTURE, hand_weights(), name="by hand", bridge=request.param)


def test_components_on_paper(by_hand):
    """The induction head writes GAIN to the right token alone; what nothing unembeds adds nothing."""
    found = ik.direct_effect(by_hand, ik.repeated_tokens(by_hand, bos=0, prompts=4), by=("component",))
    np.testing.assert_allclose(found["score"].sel(component="L1H0"), GAIN - GAIN / VOCAB, rtol=1e-6)
    others = found["score"].sel(component=found["component"] != "L1H0")
    assert float(abs(others).max()) < 1e-6
    np.testing.assert_allclose(found["total"], GAIN - GAIN / VOCAB, rtol=1e-6)
    assert {"embedding", "positional embedding", "attention biases 1"} <= set(found["component"].values)
    assert "MLP" not in found["kind"].values
    assert found["layer"].sel(component="L1H0") == 1
    assert found["head"].sel(component="embedding") == -1


def test_source_tokens_on_paper(by_hand):
    """Behind the copy of 5 stands 6: all of it comes from that key. Without a copy, each key writes its own token."""
    pair = ik.pairs(
        by_hand,
        clean=torch.tensor([[0, 5, 6, 7, 5]]),
        corrupted=torch.tensor([[0, 8, 9, 7, 5]]),
        answers=[(6, 9)],
    )
    clean, corrupted = (
        ik.direct_effect(by_hand, each, by=("head", "key"))["score"].sel(layer=1, head=0)[0]
        for each in (pair.clean, pair.corrupted)
    )
    np.testing.assert_allclose(clean, [0, 0, GAIN, 0, 0], atol=1e-5)
    np.testing.assert_allclose(corrupted, [0, 0, -GAIN / 5, 0, 0], atol=1e-5)


def test_positions_on_paper(by_hand):
    prompts = ik.repeated_tokens(by_hand, bos=0, prompts=2, period=5)
    found = ik.direct_effect(by_hand, prompts, by=("head", "position"))["score"].sel(layer=1, head=0)
    for p in range(2):
        assert np.isnan(found[p, :6]).all()
        np.testing.assert_allclose(found[p, 6:10], GAIN - GAIN / VOCAB, rtol=1e-6)
        assert np.isnan(found[p, 10:]).all()


@pytest.mark.parametrize(
    ("name", "bridge", "on"), one_in(3, ARCHITECTURES, [False, True], ["next token", "answers"])
)
def test_they_add_up_to_one_another_and_to_the_logit(name, bridge, on):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model)
    found = {by: ik.direct_effect(model, prompts, on=on, by=by) for by in BYS}
    heads = ik.direct_effect(model, prompts, on=on)
    for variable in ("score", "control"):
        grid = heads[variable].values
        close = {"rtol": 1e-9, "atol": 1e-9}
        parts = found["component",]
        np.testing.assert_allclose(
            parts[variable].sel(component=parts["kind"] == "head"), grid.reshape(len(grid), -1), **close
        )
        np.testing.assert_allclose(
            found["component", "position"][variable].mean("position"), parts[variable], **close
        )
        np.testing.assert_allclose(found["head", "position"][variable].mean("position"), grid, **close)
        np.testing.assert_allclose(found["head", "key"][variable].sum("key"), grid, rtol=1e-5, atol=1e-6)
    float32 = name == "Llama" and (bridge or not has_hooked_transformer())  # a native Bridge's RMS norm
    within = 1e-6 if float32 else 1e-9
    assert float(abs(parts["missing"]).max()) < within
    with torch.no_grad():
        logits = model(prompts.tokens, return_type="logits")
    last = logits[torch.arange(3), prompts.lengths - 1]
    if on == "answers":
        right, wrong = prompts.answers.T
        np.testing.assert_allclose(parts["total"], last[range(3), right] - last[range(3), wrong], **close)


@every
def test_in_float32_they_add_up_to_five_digits(name):
    model = fresh(name, dtype=torch.float32)
    found = ik.direct_effect(model, prompts_for(model), by=("component", "position"))
    assert float(abs(found["missing"]).max()) < 1e-5
    assert float(abs(found["total"]).max()) > 0.1


@pytest.mark.parametrize("by", BYS, ids=str)
def test_batches_padding_and_files(by, tmp_path):
    model = tiny("GPT-2")
    prompts = prompts_for(model)
    whole = ik.direct_effect(model, prompts, by=by)
    xr.testing.assert_allclose(whole, ik.direct_effect(model, prompts, by=by, batch_size=1), rtol=1e-9)
    alone = ik.direct_effect(model, prompts[1].narrowed(), by=by)
    there = whole["score"].isel(prompt=[1])
    for dim in {"position", "key"} & set(there.dims):
        there = there.isel({dim: slice(alone.sizes[dim])})
    np.testing.assert_allclose(alone["score"], there, rtol=1e-9)
    whole.to_netcdf(tmp_path / "found.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "found.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), whole)


def test_layers_choose_heads_alone():
    model = tiny("GPT-2")
    prompts = prompts_for(model)
    for by in BYS[2:]:
        one = ik.direct_effect(model, prompts, by=by, layers=[1])
        np.testing.assert_allclose(
            one["score"], ik.direct_effect(model, prompts, by=by)["score"].sel(layer=[1])
        )
    with pytest.raises(ValueError, match="no layers="):
        ik.direct_effect(model, prompts, by="component", layers=[1])


@pytest.mark.parametrize("by", ["head", ("key",), ("component", "key"), ("head", "component"), 5], ids=str)
def test_other_dimensions_are_refused(by):
    with pytest.raises(ValueError, match="wanted by=None or one of"):
        ik.direct_effect(tiny("GPT-2"), by=by)


def test_tokens_are_written_beside_the_numbers():
    model = ik.load("tiny")
    prompts = ik.prompts.with_answers(model, ["fox dax ; apple wug ; fox"], [("dax", "wug")])
    found = ik.direct_effect(model, prompts, by=("head", "key"))
    assert [each.strip() for each in found["token"].values[0]][-3:] == ["wug", ";", "fox"]
    assert (found["right"].item().strip(), found["wrong"].item().strip()) == ("dax", "wug")
    head = found["score"].sel(layer=1, head=7)[0]
    assert found["token"].values[0][int(head.argmax("key"))].strip() == "dax"


@pytest.mark.parametrize("by", BYS, ids=str)
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_answers_may_be_classes(kind, by):
    model = classifier(kind)
    prompts = ik.prompts.with_answers(model, torch.arange(14).view(2, 7), [(4, 0), (1, 3)])
    found = ik.direct_effect(model, prompts, by=by)
    assert found["score"].notnull().any()
    if "component" in by:
        assert float(abs(found["missing"]).max()) < 1e-9
    else:
        assert found["right"].values.tolist() == ["4", "1"]


def test_a_model_that_is_not_causal_has_parts_too():
    model = bidirectional("native")
    prompts = ik.prompts.with_answers(model, torch.arange(14).view(2, 7), [(4, 0), (1, 3)])
    assert float(abs(ik.direct_effect(model, prompts, by="component")["missing"]).max()) < 1e-9
    by_key = ik.direct_effect(model, prompts, by=("head", "key"))
    np.testing.assert_allclose(
        by_key["score"].sum("key"), ik.direct_effect(model, prompts)["score"], atol=1e-9
    )


@hooked_only
def test_transformer_lens_says_the_same_of_folded_weights():
    """`decompose_resid` and `logit_attrs`, which leaves out the final norm's weight: so with folded weights alone."""
    model = folded(fresh("GPT-2"))
    prompts = prompts_for(model)
    found = ik.direct_effect(model, prompts, on="answers", by="component")
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
        stack, labels = cache.decompose_resid(return_labels=True)
    right, wrong = prompts.answers.T
    for p in range(3):
        at = int(prompts.lengths[p]) - 1
        each = {"pos_slice": at, "batch_slice": p}
        theirs = cache.logit_attrs(stack[:, :, at], right[p : p + 1], wrong[p : p + 1], **each)
        theirs = dict(zip(labels, theirs.detach().flatten().tolist(), strict=True))
        ours = found.isel(prompt=p)
        kinds = ours["score"].groupby("kind").sum()
        attention = sum(float(kinds.sel(kind=kind)) for kind in ("head", "attention biases"))
        assert theirs["embed"] == pytest.approx(float(ours["score"].sel(component="embedding")), abs=1e-4)
        assert theirs["pos_embed"] == pytest.approx(
            float(ours["score"].sel(component="positional embedding")), abs=1e-4
        )
        for layer in range(2):
            mlp = float(ours["score"].sel(component=f"MLP {layer}"))
            assert theirs[f"{layer}_mlp_out"] == pytest.approx(mlp, abs=1e-4)
        assert theirs["0_attn_out"] + theirs["1_attn_out"] == pytest.approx(attention, abs=1e-4)


@pytest.mark.parametrize("kind", [*(["hooked"] if has_hooked_transformer() else []), "bridge", "native"])
def test_raw_and_processed_weights_have_the_same_parts(kind):
    """But for the last two biases: folding adds the one to the other."""
    raw, processed = (fresh_of("GPT-2", kind, dtype=torch.float32) for _ in range(2))
    if kind == "hooked":
        folded(processed)
    else:
        with quietly():
            processed.enable_compatibility_mode()
    prompts = prompts_for(raw)
    for by in ("component", ("head", "key")):
        one, other = (ik.direct_effect(model, prompts, by=by)["score"] for model in (raw, processed))
        if by == "component":
            last = ["final norm bias", "unembedding bias"]
            sums = [each.sel(component=last).sum("component") for each in (one, other)]
            np.testing.assert_allclose(*sums, rtol=1e-4, atol=1e-4)
            one, other = (each.drop_sel(component=last) for each in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    lens = [ik.scorers.logit_lens(model, prompts)["difference"] for model in (raw, processed)]
    np.testing.assert_allclose(*lens, rtol=1e-4, atol=1e-4)


@hooked_only
def test_positions_that_queries_and_keys_read_are_no_component():
    """Shortformer: the hook fires, but the stream does not hold them."""
    model = hooked_with(positional_embedding_type="shortformer", normalization_type=None)
    found = ik.direct_effect(model, prompts_for(model), by="component")
    assert "positional embedding" not in found["component"].values
    assert float(abs(found["missing"]).max()) < 1e-9


@hooked_only
def test_logits_that_are_no_sum_are_refused():
    """A soft cap after the unembedding; heads alone are still what they add before it."""
    model = hooked_with(output_logits_soft_cap=3.0)
    prompts = prompts_for(model)
    with pytest.raises(ik.errors.NotDefined, match="do not add up to its logits"):
        ik.direct_effect(model, prompts, by="component")
    assert ik.direct_effect(model, prompts)["score"].notnull().all()


def test_what_the_users_own_hooks_write_is_missing():
    model = fresh("GPT-2")
    prompts = prompts_for(model)
    plain = ik.direct_effect(model, prompts, on="answers", by="component")
    vector = torch.linspace(-1, 1, 16, dtype=torch.float64)
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda old, hook: old + vector)]):
        found = ik.direct_effect(model, prompts, on="answers", by="component")
    assert float(abs(found["missing"]).min()) > 1e-3
    np.testing.assert_allclose(found["score"].sum("component") + found["missing"], found["total"], rtol=1e-9)
    ratio = (found["score"] / plain["score"]).sel(component=["embedding", "L0H1", "MLP 1"]).values
    np.testing.assert_allclose(ratio[:, 1:], ratio[:, :1].repeat(2, 1), rtol=1e-9)  # the norm's scale alone


def test_half_precision_is_reduced_in_float32():
    model = fresh("GPT-2", dtype=torch.bfloat16)
    found = ik.direct_effect(model, prompts_for(model), by="component")
    assert 0 < float(abs(found["missing"]).max()) < 0.2  # logits in bfloat16
    by_key = ik.direct_effect(model, prompts_for(model), by=("head", "key"))
    assert float(abs(by_key["missing"]).max()) < 0.1


def test_no_more_than_one_layers_patterns_are_in_memory():
    import weakref

    model, alive, most = fresh("attention-only", n_layers=4), [], 0

    def hook(pattern, hook):
        nonlocal most
        alive.append(weakref.ref(pattern))
        most = max(most, sum(each() is not None for each in alive))

    with model.hooks(fwd_hooks=[(lambda name: name.endswith("hook_pattern"), hook)]):
        ik.direct_effect(model, prompts_for(model), by=("head", "key"))
    assert len(alive) == 2 * 2 * 4  # two passes, and two on the control
    assert most <= 2


SMALL = {"vocab_size": 50, "bos_token_id": None, "eos_token_id": None}
LAYERS = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4}
GRANITE = LAYERS | {
    "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40, "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4, "attention_multiplier": 0.5,
}  # fmt: skip
ODD = {
    "Falcon with ALiBi": lambda: transformers.FalconConfig(
        **LAYERS, alibi=True, new_decoder_architecture=False, multi_query=False, parallel_attn=False, **SMALL
    ),
    "MPT": lambda: transformers.MptConfig(d_model=16, n_heads=4, n_layers=2, max_seq_len=40, **SMALL),
    "XGLM": lambda: transformers.XGLMConfig(
        d_model=16, num_layers=2, attention_heads=4, ffn_dim=32, max_position_embeddings=40, **SMALL
    ),
    "GPT-OSS": lambda: transformers.GptOssConfig(
        **LAYERS, num_key_value_heads=2, head_dim=4, intermediate_size=32, num_local_experts=2,
        num_experts_per_tok=1, max_position_embeddings=40, sliding_window=4, **SMALL,
    ),
    "Granite": lambda: transformers.GraniteConfig(**GRANITE, logits_scaling=1.0, **SMALL),
    "Granite, logits scaled": lambda: transformers.GraniteConfig(**GRANITE, logits_scaling=8.0, **SMALL),
    "BLOOM, no sum": lambda: transformers.BloomConfig(
        hidden_size=16, n_layer=2, n_head=4, apply_residual_connection_post_layernorm=True, **SMALL
    ),
    "Cohere": lambda: transformers.CohereConfig(
        **LAYERS, num_key_value_heads=2, intermediate_size=32, max_position_embeddings=40, pad_token_id=None, **SMALL
    ),
}  # fmt: skip
REFUSED = {
    "Granite, logits scaled": "do not add up to its logits",
    "BLOOM, no sum": "do not add up to its logits",
    "Cohere": "do not add up to its logits",
    "XGLM": "its embeddings cannot be told apart",  # nothing shows its positions
}


def odd(name):
    dtype = torch.float32 if name in ("XGLM", "GPT-OSS") else torch.float64  # they cannot run in float64
    with quietly(), torch.random.fork_rng(devices=[]):
        theirs = transformers.AutoModelForCausalLM.from_config(
            ODD[name](), attn_implementation="eager", dtype=dtype
        )
        randomise(theirs)
        model = build_bridge_from_module(
            theirs.eval(), type(theirs).__name__, hf_config=theirs.config, tokenizer=None, model_name=name
        )
    model.cfg.n_ctx = 40
    return model.eval()


@pytest.mark.parametrize("name", one_in(2, tuple(ODD)))
def test_other_families_add_up_or_are_refused(name):
    model = odd(name)
    prompts = prompts_for(model)
    if name in REFUSED:
        with pytest.raises(ik.errors.NotDefined, match=REFUSED[name]):
            ik.direct_effect(model, prompts, by="component")
        return
    found = ik.direct_effect(model, prompts, by="component")
    assert float(abs(found["missing"]).max()) < 1e-4
    assert float(abs(found["total"]).max()) > 0.1


def test_an_attention_sink_is_no_key():
    """GPT-OSS: a row of attention adds up to less than 1, and the rest of the value bias is at no key."""
    model = odd("GPT-OSS")
    prompts = prompts_for(model)
    found = ik.direct_effect(model, prompts, on="answers", by=("head", "key"))
    heads = ik.direct_effect(model, prompts, on="answers")["score"]
    np.testing.assert_allclose(found["score"].sum("key") + found["missing"], heads, atol=1e-6)
    assert float(abs(found["missing"]).max()) > 1e-3
