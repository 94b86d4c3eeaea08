"""In float32, float16 and bfloat16 a model gives the scores and effects of float64, as near as its numbers allow.

Two questions. What is added to the model's own rounding? Nothing: its half-precision patterns, values and logits are
reduced in float32 or better, to `EXACT`. And how far is it all from float64? `TOLERANCES`, of the largest number.
"""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from labelled_prompts import prompts_for
from quick import one_in
from zoo import PAIRS, fresh_of, model_of

import induction_kernel as ik
from induction_kernel.model import unembedding, value_weights
from induction_kernel.prompts import random_tokens

EXACT = 1e-5
# Measured over these models and questions: 3e-6 in float32, .04 in float16, .08 in bfloat16.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.1}
HALVES = (torch.float16, torch.bfloat16)
QUICK = [pair for pair in PAIRS if pair[1] != "native" and pair[0] not in ("GPT-NeoX", "MQA")]
every = pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS],
)
half = pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])


def other_run(prompts):
    return replace(ik.Prompts(prompts.tokens.flip(1), prompts.lengths, prompts.scored), control=None)


def answered(prompts):
    return replace(prompts, answers=torch.tensor([[3, 4], [5, 6], [7, 8]]))


QUESTIONS = {
    "induction": (ik.induction, "score"),
    "prefix_matching": (ik.prefix_matching, "score"),
    "previous_token": (ik.previous_token, "score"),
    "duplicate_token": (ik.duplicate_token, "score"),
    "label_attention": (ik.label_attention, "score"),
    "ov_eigenvalues": (lambda model, _: ik.ov_eigenvalues(model, draws=2), "score"),
    "direct_effect": (ik.direct_effect, "score"),
    "loss_by_position": (ik.loss_by_position, "loss"),
    "ablate": (lambda model, prompts: ik.ablate(model, prompts, ["L0H1", "L1H2"]), "effect"),
    "sweep of z": (ik.sweep, "effect"),
    "sweep of v": (lambda model, prompts: ik.sweep(model, prompts, site="v"), "effect"),
    "sweep of z, patterns held": (
        lambda model, prompts: ik.sweep(model, prompts, edit=ik.Zero(), hold="patterns"), "effect",
    ),
    # Its value: the effects are a hundredth of the loss, so that what rounds the loss is a large part of them.
    "knock_out": (lambda model, prompts: ik.knock_out(model, prompts, ik.induction.mask), "value"),
    "patch": (
        lambda model, prompts: ik.patch(model, source=other_run(prompts), into=answered(prompts)), "effect",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "name", "kind"), one_in(4, tuple(TOLERANCES), PAIRS))
def test_scores_and_effects_are_near_those_of_float64(name, kind, dtype):
    exact, model = model_of(name, kind), fresh_of(name, kind, dtype=dtype)
    prompts = prompts_for(exact, prompts=3, period=8)
    missed = {}
    for question, (ask, variable) in QUESTIONS.items():
        expected, found = (ask(each, prompts)[variable].values for each in (exact, model))
        missed[question] = np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected))
        assert found.dtype in (np.float32, np.float64)
        assert (np.isnan(found) == np.isnan(expected)).all()
    assert max(missed.values()) < TOLERANCES[dtype], missed


@half
@every
def test_half_precision_is_reduced_in_float32(name, kind, dtype):
    """What is measured on the model's own patterns, values and logits is what float64 makes of the same numbers."""
    model = fresh_of(name, kind, dtype=dtype)
    prompts = prompts_for(model, prompts=3)
    tokens, lengths, scored = prompts.tokens, prompts.lengths, prompts.scored
    patterns = [pattern.double() for pattern in naive.all_patterns(model, tokens)]
    found = ik.observe(model, prompts, [ik.induction, ik.prefix_matching, ik.duplicate_token])["score"]
    summed = ik.scorers.demonstration_weights(model, prompts, pooling="sum")["weight"]
    for layer, pattern in enumerate(patterns):
        twins = (
            naive.induction(pattern, tokens, lengths, scored),
            naive.induction(pattern, tokens, lengths, scored, latest=False),
            naive.duplicate(pattern, tokens, lengths, scored),
        )
        for mine, twin in zip(found[:, :, layer].values, twins, strict=True):
            np.testing.assert_allclose(mine, twin, rtol=0, atol=EXACT)
        twin = naive.weight_of(pattern, prompts, 0, 1, 0, "sum")
        assert float(summed[0, layer, 1, 0]) == pytest.approx(twin, abs=EXACT)
    with torch.no_grad():
        logits = model(tokens, return_type="logits").double()
    losses = -logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    mine = ik.loss_by_position(model, prompts)["loss"].values[:, :-1]
    real = ~np.isnan(mine)
    np.testing.assert_allclose(mine[real], losses.numpy()[real], rtol=0, atol=EXACT)


@half
@every
def test_weights_of_half_precision_are_folded_in_float32(name, kind, dtype):
    """Copying, and a circuit's eigenvalues, of the model's own weights and values in float64."""
    model = fresh_of(name, kind, dtype=dtype)
    exact = fresh_of(name, kind)
    with torch.no_grad():
        for mine, its in zip(exact.parameters(), model.parameters(), strict=True):
            mine.copy_(its)  # the same numbers, rounded, but computed with in float64
    np.testing.assert_allclose(unembedding(model), unembedding(exact), rtol=0, atol=EXACT)
    for layer in range(2):
        for mine, its in zip(value_weights(model, layer), value_weights(exact, layer), strict=True):
            np.testing.assert_allclose(mine.float(), its, rtol=0, atol=EXACT)
    ratios = [ik.ov_eigenvalues(each, draws=2)["score"] for each in (model, exact)]
    np.testing.assert_allclose(*ratios, rtol=0, atol=1e-4)  # eigenvalues: rounding is amplified
    prompts = random_tokens(model, length=12, bos=False, prompts=2)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    found, w_u = ik.copying(model, prompts), unembedding(exact)
    for layer in range(2):
        _, b_v, w_o = value_weights(exact, layer)
        for head, prompt in np.ndindex(4, 2):
            group = head // (4 // cache["v", layer].shape[2])
            values = cache["v", layer][prompt, :, group].double() - b_v[head]
            twin = naive.ols_copying(values, w_o[head], w_u, prompts.tokens[prompt].tolist())
            assert float(found["score"][prompt, layer, head]) == pytest.approx(twin, abs=1e-4)
