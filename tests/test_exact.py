"""Every fast path equals its slow twin (float64, to rounding), on several architectures."""

import naive
import numpy as np
import pytest
import torch
from labelled_prompts import prompts_for
from zoo import ARCHITECTURES, SHAPES, folded, fresh, tiny

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.model import unembedding, value_weights
from induction_kernel.prompts import random_tokens

both = pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
every = pytest.mark.parametrize("name", ARCHITECTURES)


@both
@every
def test_attention_scores(name, bridge):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model, prompts=3)
    tokens, lengths, scored = prompts.tokens, prompts.lengths, prompts.scored
    for variable, used in (("score", tokens), ("control", prompts.control)):
        patterns = naive.all_patterns(model, used)
        found = {s.name: s(model, prompts) for s in (ik.induction, ik.prefix_matching, ik.duplicate_token)}
        for layer, pattern in enumerate(patterns):
            twins = {
                "induction": naive.induction(pattern, tokens, lengths, scored),
                "prefix_matching": naive.induction(pattern, tokens, lengths, scored, latest=False),
                "duplicate_token": naive.duplicate(pattern, tokens, lengths, scored),
            }
            for key, twin in twins.items():
                np.testing.assert_allclose(found[key][variable][:, layer].values, twin, rtol=1e-10)
    previous = ik.previous_token(model, prompts)["score"]
    for layer, pattern in enumerate(naive.all_patterns(model, tokens)):
        np.testing.assert_allclose(
            previous[:, layer], naive.previous(pattern, lengths, scored, prompts.bos), rtol=1e-10
        )


@every
@pytest.mark.parametrize("pooling", ["label", "max", "sum", "mean"])
def test_demonstration_weights(name, pooling):
    model = tiny(name)
    prompts = prompts_for(model, prompts=3)
    found = ik.scorers.demonstration_weights(model, prompts, pooling=pooling)["weight"].values
    for layer, pattern in enumerate(naive.all_patterns(model, prompts.tokens)):
        for p, h, i in np.ndindex(3, 4, 2):
            assert found[p, layer, h, i] == pytest.approx(
                naive.weight_of(pattern, prompts, p, h, i, pooling), rel=1e-10
            )
    score = ik.label_attention(model, prompts, pooling=pooling)
    np.testing.assert_allclose(score["score"].values, found.sum(-1), rtol=1e-10)
    np.testing.assert_allclose(score["right"].values, found[..., 0], rtol=1e-10)  # every query's class is 0


@both
@every
def test_losses(name, bridge):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model)
    np.testing.assert_allclose(
        ik.repeat_loss(model, prompts)["value"], naive.second_copy_loss(model, prompts), rtol=1e-10
    )
    by_position = ik.loss_by_position(model, prompts)["loss"].values
    with torch.no_grad():
        logs = model(prompts.tokens[:1], return_type="logits").log_softmax(-1)[0]
    length = int(prompts.lengths[0])
    for i in range(length - 1):
        assert by_position[0, i] == pytest.approx(-float(logs[i, prompts.tokens[0, i + 1]]), rel=1e-6)
    assert np.isnan(by_position[0, length - 1 :]).all()


@every
def test_copying_and_eigenvalues(name):
    model = tiny(name)
    prompts = random_tokens(model, length=12, bos=False, prompts=2)
    ols, ban, at_source = (
        ik.copying(model, prompts, method=method) for method in ("OLS", "BAN", "BAN-source")
    )
    patterns = naive.all_patterns(model, prompts.tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    w_u = unembedding(model)
    ratios = ik.ov_eigenvalues(model)["score"].values
    for layer in range(2):
        w_v, b_v, w_o = value_weights(model, layer)
        for head in range(4):
            group = head // (4 // cache["v", layer].shape[2])
            values = cache["v", layer][:, :, group] - b_v[head]
            for p in range(2):
                tokens = prompts.tokens[p].tolist()
                twin = naive.ols_copying(values[p], w_o[head], w_u, tokens)
                assert float(ols["score"][p, layer, head]) == pytest.approx(twin, abs=1e-9)
                for found, at in ((ban, "query"), (at_source, "source")):
                    pattern = patterns[layer][p, head]
                    twin = naive.ban_copying(values[p], pattern, w_o[head], w_u, tokens, at=at)
                    assert float(found["score"][p, layer, head]) == pytest.approx(twin, abs=1e-9)
            twin = naive.ov_ratio(model.W_E.detach(), w_v[head], w_o[head], unembedding(model))
            assert ratios[layer, head] == pytest.approx(twin, abs=1e-6)


@both
@every
def test_zero_ablation(name, bridge):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model)
    for layer, head in ((0, 1), (1, 2)):
        bias = value_weights(model, layer)[1][head]
        for edit, value in ((ik.Zero(), 0.0), (ik.ZeroValues(), bias)):
            logits = naive.logits_with_z(model, prompts.tokens, layer, head, value)
            last = torch.arange(4), prompts.lengths - 1
            found = ik.ablate(
                model,
                prompts,
                (layer, head),
                edit=edit,
                metric=lambda logits, given: logits[torch.arange(4), given.lengths - 1, 7],
            )
            np.testing.assert_allclose(found["value"], logits[last][:, 7].numpy(), rtol=1e-10)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
def test_raw_and_processed_weights_agree(name):
    """Folding norms and value biases, and centring, change z and W_OV but no score; of edits see `test_laws`."""
    raw, processed = fresh(name), folded(fresh(name))
    prompts = prompts_for(raw)
    logs = [m(prompts.tokens).log_softmax(-1) for m in (raw, processed)]
    torch.testing.assert_close(*logs, rtol=1e-5, atol=1e-5)  # load_and_process_state_dict rounds to float32
    for score in (
        ik.induction,
        ik.copying,
        lambda m, p: ik.copying(m, p, method="BAN"),
        lambda m, p: ik.ov_eigenvalues(m),
    ):
        a, b = (score(m, prompts)["score"].values for m in (raw, processed))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@every
def test_both_model_classes_agree(name):
    hooked, bridge = tiny(name), tiny(name, bridge=True)
    prompts = prompts_for(hooked)
    # The RMS norm of a native Bridge computes in float32; everything else agrees in float64.
    close = {"rtol": 1e-5, "atol": 1e-7} if name == "Llama" else {"rtol": 1e-9, "atol": 1e-11}
    for scorer in (ik.induction, ik.previous_token, ik.copying):
        np.testing.assert_allclose(
            scorer(hooked, prompts)["score"], scorer(bridge, prompts)["score"], **close
        )
    ratios = [ik.ov_eigenvalues(model)["score"] for model in (hooked, bridge)]
    np.testing.assert_allclose(*ratios, rtol=1e-9, atol=1e-11)
    effects = [ik.ablate(model, prompts, ["L0H1", "L1H3"])["effect"] for model in (hooked, bridge)]
    np.testing.assert_allclose(*effects, **close)


def test_grouped_query_attention_is_multi_head_attention_with_equal_heads():
    grouped = fresh("Llama")
    weights = {key: value.clone() for key, value in grouped.state_dict().items()}
    spread = {}
    from zoo import BASE, random_weights

    from induction_kernel.loading import build

    for key, value in random_weights(BASE | SHAPES["Llama"]).items():
        leaf = key.rpartition(".")[2]
        spread[key.replace("._", ".")] = (
            value.repeat_interleave(2, 0) if leaf in ("_W_K", "_W_V", "_b_K", "_b_V") else value
        )
    plain = build(BASE | SHAPES["Llama"] | {"n_key_value_heads": 4}, spread, dtype=torch.float64)
    prompts = prompts_for(grouped)
    for scorer in (ik.induction, ik.copying, lambda m, p: ik.copying(m, p, method="BAN"), ik.label_attention):
        np.testing.assert_allclose(
            scorer(grouped, prompts)["score"], scorer(plain, prompts)["score"], rtol=1e-7, atol=1e-9
        )
    np.testing.assert_allclose(
        ik.ov_eigenvalues(grouped)["score"], ik.ov_eigenvalues(plain)["score"], atol=1e-8
    )
    effects = [ik.ablate(m, prompts, "L1H3", edit=ik.Zero())["effect"] for m in (grouped, plain)]
    np.testing.assert_allclose(*effects, rtol=1e-8)
    assert weights


def test_random_rotations_are_uniform():
    """Their mean is zero, entry by entry; plain QR has a mean trace of about -sqrt(d)."""
    from induction_kernel.scorers._ov import rotations

    normal = torch.randn(4000, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = rotations(normal)
    torch.testing.assert_close(drawn @ drawn.mT, torch.eye(8, dtype=torch.float64).expand(4000, 8, 8))
    assert abs(float(drawn.diagonal(dim1=-2, dim2=-1).sum(-1).mean())) < 0.08
    assert drawn.mean(0).abs().max() < 0.03
