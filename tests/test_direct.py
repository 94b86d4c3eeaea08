"""What a head itself writes into the logits: equal to its slow twin, on paper, and adding up to the whole."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, GAIN, VOCAB, hand_weights
from logit_lens import cached, read_off
from model_state import same_snapshot, snapshot
from zoo import ARCHITECTURES, BASE, SHAPES, fresh, hooked_only, random_weights, tiny

import induction_kernel as ik
from induction_kernel.loading import build
from induction_kernel.model import value_weights
from induction_kernel.plots._scores import head_map
from induction_kernel.prompts import concat
from induction_kernel.scorers._direct_effect import direct_effect

both = pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
every = pytest.mark.parametrize("name", ARCHITECTURES)
READINGS = ("next token", "answers")


def prompts_for(model, **options):
    """Repeated prompts with answers."""
    prompts = ik.repeated_tokens(model, bos=0, **({"prompts": 4, "period": (5, 9)} | options))
    answers = torch.randint(50, (len(prompts), 2), generator=torch.Generator().manual_seed(1))
    return replace(prompts, answers=answers)


def read_at(prompts, p, on):
    """[(position, wanted(logits))] of one prompt."""
    length, tokens = int(prompts.lengths[p]), prompts.tokens[p].tolist()
    if on == "answers":
        right, wrong = prompts.answers[p].tolist()
        return [(length - 1, lambda logits: logits[right] - logits[wrong])]
    positions = [i for i in range(length - 1) if prompts.scored[p, i]]
    return [(i, lambda logits, token=tokens[i + 1]: logits[token]) for i in positions]


def twin(model, prompts, tokens, on):
    """`[prompt, layer, head]` by loops: every head's vector through the norm and the whole unembedding."""
    cache = cached(model, tokens)
    out = np.zeros((len(prompts), model.cfg.n_layers, model.cfg.n_heads))
    for p, layer, head in np.ndindex(out.shape):
        _, b_v, w_o = value_weights(model, layer)
        found = []
        for i, wanted in read_at(prompts, p, on):
            written = (cache["z", layer][p, i, head] - b_v[head]) @ w_o[head]
            found.append(wanted(read_off(model, cache, written, p, i)).item())
        out[p, layer, head] = np.mean(found)
    return out


@both
@every
@pytest.mark.parametrize("on", READINGS)
def test_equals_its_twin(name, bridge, on):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model, prompts=3)
    found = direct_effect(model, prompts, on=on)
    for variable, tokens in (("score", prompts.tokens), ("control", prompts.control)):
        expected = twin(model, prompts, tokens, on)
        np.testing.assert_allclose(found[variable].values, expected, rtol=1e-10, atol=1e-10)
    assert (found["chance"] == 0).all()
    assert (found.attrs["unit"], found.attrs["on"]) == ("logits", on)


@pytest.mark.parametrize("kind", ["LNPre", "RMSPre", None])
@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
def test_norms_without_weights(kind, bridge):
    model = fresh("attention-only", normalization_type=kind, bridge=bridge)
    prompts = prompts_for(model, prompts=2)
    expected = twin(model, prompts, prompts.tokens, "next token")
    found = direct_effect(model, prompts, on="next token")["score"].values
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@both
@every
def test_all_parts_add_up_to_the_logits(name, bridge):
    """Heads, and by hand: embeddings, MLPs, the value and output biases, and the bias of the final norm."""
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model, prompts=2)
    cache, heads = cached(model, prompts.tokens), direct_effect(model, prompts, on="next token")["score"]
    with torch.no_grad():
        logits = model(prompts.tokens, return_type="logits")
        rest = cache["hook_embed"].clone()
        if name != "Llama":
            rest += cache["hook_pos_embed"]
        for layer in range(2):
            _, b_v, w_o = value_weights(model, layer)
            b_o = model.blocks[layer].attn.b_O
            rest += torch.einsum("hd,hdm->m", b_v, w_o) + (0 if b_o is None else b_o)
            if name != "attention-only":
                rest += cache[f"blocks.{layer}.hook_mlp_out"]
        constant = model.b_U + (0 if name == "Llama" else model.ln_final.b @ model.W_U)
        constant = constant - constant.mean()
        logits = logits - logits.mean(-1, keepdim=True)
        for p in range(2):
            gap = []
            for i, wanted in read_at(prompts, p, "next token"):
                others = read_off(model, cache, rest[p, i], p, i) + constant
                gap.append(float(wanted(logits[p, i]) - wanted(others)))
            # The RMS norm of a native Bridge computes in float32.
            tolerance = (
                1e-4 if name == "Llama" and model.cfg.__class__.__name__.startswith("Trans") else 1e-10
            )
            assert float(heads[p].sum()) == pytest.approx(np.mean(gap), rel=tolerance, abs=tolerance)


@hooked_only
def test_the_library_says_the_same():
    """TransformerLens' `apply_ln_to_stack` of its own head results; they hold the value bias too."""
    model = fresh("GPT-2")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.b_V.zero_()
            block.ln1.b.zero_()
    prompts = prompts_for(model, prompts=2)
    cache = cached(model, prompts.tokens)
    results = cache.stack_head_results(layer=-1)  # [layer x head, prompt, position, d_model]
    logits = cache.apply_ln_to_stack(results, layer=-1) * model.ln_final.w @ model.W_U
    found = direct_effect(model, prompts, on="answers")["score"].values
    for p, (right, wrong) in enumerate(prompts.answers.tolist()):
        last = logits[:, p, int(prompts.lengths[p]) - 1]
        np.testing.assert_allclose(
            found[p].reshape(-1), (last[:, right] - last[:, wrong]).detach(), rtol=1e-10, atol=1e-10
        )


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def test_on_paper(by_hand):
    prompts = ik.repeated_tokens(by_hand, bos=0, prompts=24)
    found = direct_effect(by_hand, prompts)
    induction = found.sel(layer=1, head=0)
    # it writes the right token and no other: GAIN logits to it, and the vocabulary's mean is GAIN / VOCAB
    np.testing.assert_allclose(induction["score"], GAIN - GAIN / VOCAB, rtol=1e-6)
    # on the control it finds nothing and writes all i + 1 tokens so far, one of them the one read
    for p in range(3):
        start, length = int(prompts.starts()[p]), int(prompts.lengths[p])
        on_paper = np.mean([GAIN / (i + 1) - GAIN / VOCAB for i in range(start, length - 1)])
        assert float(induction["control"][p]) == pytest.approx(on_paper, rel=1e-5)
    others = found["score"].where((found["layer"] != 1) | (found["head"] != 0))
    assert float(np.abs(others).max()) < 1e-6  # nobody else writes to the output
    summary = ik.summarise(found)
    assert int(summary["passes"].sum()) == 1
    assert float(summary["passes"].sel(layer=1, head=0)) == 1
    assert [str(head) for head in ik.top_heads(found, 1)] == ["L1H0"]
    assert ik.head_table(found, 1).index.tolist() == ["L1H0"]
    assert head_map(found).data


def test_answers_on_paper(by_hand):
    prompts = ik.pairs(
        by_hand,
        clean=torch.tensor([[0, 5, 6, 7, 5]]),
        corrupted=torch.tensor([[0, 8, 9, 7, 5]]),
        answers=[(6, 9)],
    )
    # behind the copy of 5 stands 6; without one, all of 0, 8, 9, 7, 5 are written alike
    assert float(direct_effect(by_hand, prompts.clean)["score"].sel(layer=1, head=0)[0]) == pytest.approx(
        GAIN
    )
    assert float(direct_effect(by_hand, prompts.corrupted)["score"].sel(layer=1, head=0)[0]) == pytest.approx(
        -GAIN / 5
    )
    assert "control" not in direct_effect(by_hand, prompts.clean)
    matched = direct_effect(by_hand, replace(prompts.clean, control=prompts.corrupted.tokens))
    assert float(matched["control"].sel(layer=1, head=0)[0]) == pytest.approx(-GAIN / 5)


def test_a_head_that_suppresses_copies_is_negative():
    weights = hand_weights()
    weights["blocks.1.attn.W_O"][0] *= -1
    model = build(ARCHITECTURE, weights, name="by hand")
    found = direct_effect(model, ik.repeated_tokens(model, bos=0))
    assert [str(head) for head in ik.top_heads(found, 1, largest=False)] == ["L1H0"]
    np.testing.assert_allclose(found["score"].sel(layer=1, head=0), GAIN / VOCAB - GAIN, rtol=1e-6)
    assert not bool((ik.summarise(found)["passes"] == 1).any())


@hooked_only
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
@pytest.mark.parametrize("on", READINGS)
def test_raw_and_processed_weights_agree(name, on):
    raw, processed = fresh(name), fresh(name)
    state = {key: value.clone() for key, value in raw.state_dict().items()}
    processed.load_and_process_state_dict(
        state, fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True
    )
    prompts = prompts_for(raw)
    a, b = (direct_effect(model, prompts, on=on)["score"].values for model in (raw, processed))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # load_and_process_state_dict rounds to float32


@hooked_only
@every
def test_both_model_classes_agree(name):
    hooked, bridge = tiny(name), tiny(name, bridge=True)
    prompts = prompts_for(hooked)
    close = {"rtol": 1e-5, "atol": 1e-6} if name == "Llama" else {"rtol": 1e-9, "atol": 1e-11}
    xr.testing.assert_allclose(
        direct_effect(hooked, prompts).drop_attrs(), direct_effect(bridge, prompts).drop_attrs(), **close
    )


def test_grouped_query_attention_is_multi_head_attention_with_equal_heads():
    grouped = fresh("Llama")
    spread = {}
    for key, value in random_weights(BASE | SHAPES["Llama"]).items():
        leaf = key.rpartition(".")[2]
        spread[key.replace("._", ".")] = (
            value.repeat_interleave(2, 0) if leaf in ("_W_K", "_W_V", "_b_K", "_b_V") else value
        )
    plain = build(BASE | SHAPES["Llama"] | {"n_key_value_heads": 4}, spread, dtype=torch.float64)
    prompts = prompts_for(grouped)
    a, b = (direct_effect(model, prompts, on="next token")["score"] for model in (grouped, plain))
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@every
@pytest.mark.parametrize("on", READINGS)
def test_batches_order_padding_layers(name, on):
    model = tiny(name)
    prompts = prompts_for(model)
    whole = direct_effect(model, prompts, on=on)
    xr.testing.assert_allclose(whole, direct_effect(model, prompts, on=on, batch_size=1), rtol=1e-10)
    order = [2, 0, 3, 1]
    turned = direct_effect(model, prompts[order], on=on)["score"].values
    np.testing.assert_allclose(turned, whole["score"].values[order], rtol=1e-10)
    padded = concat([prompts, prompts_for(model, prompts=1, period=12)])[:4]
    assert padded.tokens.shape[1] > prompts.tokens.shape[1]
    for variable in ("score", "control"):
        there = direct_effect(model, padded, on=on)[variable].values
        np.testing.assert_allclose(there, whole[variable].values, rtol=1e-10)
    one = direct_effect(model, prompts, on=on, layers=[0])
    np.testing.assert_allclose(one["score"].values, whole["score"].sel(layer=[0]).values)
    assert one["name"].values.tolist() == [["L0H0", "L0H1", "L0H2", "L0H3"]]


def test_results_survive_a_file(tmp_path):
    result = direct_effect(tiny("GPT-2"), prompts_for(tiny("GPT-2")))
    result.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
        assert {key: back.attrs[key] for key in result.attrs} == result.attrs


@pytest.mark.parametrize("scale", [0.2, 1.0], ids=["small", "large"])
def test_an_untrained_model_has_no_heads_above_threshold(scale):
    for seed in range(4):
        untrained = fresh("attention-only", n_ctx=96, d_vocab=243, seed=seed, n_heads=8, d_model=32)
        with torch.no_grad():
            for parameter in untrained.parameters():
                parameter.mul_(scale)
        summary = ik.summarise(direct_effect(untrained))
        assert bool(summary["threshold"].notnull().all())
        assert not bool(summary["passes"].any()), str(summary["excess"].max())


def test_without_a_control_nothing_is_tested():
    """A random head raises some tokens: always to ask for the same two says nothing of what it read."""
    model = tiny("GPT-2")
    prompts = replace(prompts_for(model, prompts=16), control=None, answers=torch.tensor([[3, 4]] * 16))
    for on in READINGS:
        summary = ik.summarise(direct_effect(model, prompts, on=on))
        assert bool(summary["threshold"].isnull().all())
        assert bool(summary["passes"].isnull().all())
        assert not bool(summary["tested"].any())


@every
def test_half_precision_is_reduced_in_float32(name):
    exact, half = fresh(name, dtype=torch.float32), fresh(name, dtype=torch.bfloat16)
    prompts = prompts_for(exact)
    a, b = (direct_effect(model, prompts, on="next token")["score"] for model in (exact, half))
    assert float(np.abs(a - b).max()) < 0.1 * float(np.abs(a).max())


@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
def test_the_model_is_given_back_as_it_was(bridge):
    model = fresh("GPT-2", bridge=bridge)
    prompts = prompts_for(model)
    direct_effect(model, prompts)  # a Bridge's first hooked run leaves hooks of its own
    next(iter(model.modules())).training = True
    tokens, before = prompts.tokens.clone(), snapshot(model)
    direct_effect(model, prompts)
    same_snapshot(before, snapshot(model))
    assert torch.equal(tokens, prompts.tokens)


def test_no_more_than_one_layers_outputs_are_kept():
    model = fresh("attention-only", n_layers=4)
    alive, most = [], 0

    def hook(z, hook):
        nonlocal most
        alive.append(weakref.ref(z))
        most = max(most, sum(each() is not None for each in alive))

    with model.hooks(fwd_hooks=[(lambda name: name.endswith("hook_z"), hook)]):
        direct_effect(model, prompts_for(model))
    assert len(alive) == 2 * 4  # one pass, and one on the control
    assert most <= 2


def nothing(prompts):
    return replace(prompts, scored=torch.zeros_like(prompts.scored))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda p: p, {"on": "repeat"}, 'on="next token"'),
        (lambda p: replace(p, answers=None), {"on": "answers"}, "prompts with answers"),
        (lambda p: replace(p, answers=p.answers + 50), {}, "from 0 to 49"),
        (lambda p: replace(p, answers=p.answers[:, :1]), {}, r"answers \[4, 2\]"),
        (nothing, {"on": "next token"}, "nothing to read in prompt 0"),
        (lambda p: p, {"layers": [2]}, "layers from 0 to 1"),
        (lambda p: p, {"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_what_users_get_wrong(change, options, message):
    model = tiny("GPT-2")
    with pytest.raises(ValueError, match=message):
        direct_effect(model, change(prompts_for(model)), **options)


def test_a_last_token_alone_has_no_next():
    model = tiny("GPT-2")
    prompts = ik.pairs(model, clean=torch.tensor([[1, 2]]), corrupted=torch.tensor([[3, 2]])).clean
    with pytest.raises(ValueError, match="prompts with answers"):
        direct_effect(model, prompts)


def test_not_a_model():
    with pytest.raises(TypeError, match="got str"):
        direct_effect("gpt2")


@pytest.mark.parametrize("which", ["W_V", "W_E", "mlp"])
def test_weights_that_are_not_finite(which):
    model = fresh("GPT-2")
    parts = {"W_V": {"W_V", "v"}, "W_E": {"embed", "tok_embed"}, "mlp": {"mlp"}}[which]
    with torch.no_grad():
        next(value for key, value in model.named_parameters() if parts & set(key.split(".")))[...] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        direct_effect(model, prompts_for(model))


@both
def test_norms_after_attention_are_refused(bridge):
    """Gemma 2 and 3, OLMo 2 and 3, under either class: what a head writes is not what arrives."""
    prompts = prompts_for(tiny("Llama"))
    changes = {
        "before and after": lambda model: setattr(model.cfg, "use_normalization_before_and_after", True),
        "OLMo": lambda model: setattr(model.cfg, "original_architecture", "Olmo2ForCausalLM"),
        "Bridge of Gemma": lambda model: model.blocks[1].add_module("ln1_post", torch.nn.Identity()),
        "Bridge of OLMo": lambda model: setattr(
            model.blocks[1], "hook_aliases", {"hook_attn_out": "ln1.hook_out"}
        ),
    }
    for change in changes.values():
        model = fresh("Llama", bridge=bridge)
        change(model)
        with pytest.raises(ValueError, match="normalised before"):
            direct_effect(model, prompts)
    unrotated = fresh("GPT-2", bridge=bridge)
    changes["before and after"](unrotated)
    for verb in (ik.copying, ik.composition, ik.ov_eigenvalues, ik.qk_trace):
        with pytest.raises(ValueError, match="normalised before"):
            verb(unrotated)


def test_a_model_without_a_final_norm_is_refused():
    """OPT-350m has its norms after each block's sums, and none at the end."""
    model = fresh("GPT-2")
    prompts = prompts_for(model)
    del model._modules["ln_final"]
    with pytest.raises(ValueError, match="no norm before its unembedding"):
        direct_effect(model, prompts)


def test_a_factor_on_what_attention_writes_is_counted():
    """Granite multiplies it; a Bridge's block says by what."""
    model = fresh("Llama")
    prompts = prompts_for(model)
    plain = direct_effect(model, prompts)
    model.blocks[0].residual_contribution_scale = 0.25
    scaled = direct_effect(model, prompts)
    np.testing.assert_allclose(scaled["score"].sel(layer=0), plain["score"].sel(layer=0) / 4)
    np.testing.assert_allclose(scaled["score"].sel(layer=1), plain["score"].sel(layer=1))
