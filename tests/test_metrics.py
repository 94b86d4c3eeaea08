"""Losses, the in-context-learning score, and measuring with hooks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.prompts import word_episodes


@pytest.fixture(scope="module")
def model():
    return ik.load("tiny")


def test_repeat_loss_is_a_mean_of_losses_by_position(model):
    prompts = ik.repeated_tokens(model, prompts=6)
    loss = ik.loss_by_position(model, prompts)
    found = ik.repeat_loss(model, prompts)
    for p, start in enumerate(loss["start"].values):
        length = int(prompts.lengths[p])
        # position start - 1 predicts the first token of copy two: left out
        assert float(found["value"][p]) == pytest.approx(
            float(loss["loss"][p, start : length - 1].mean()), rel=1e-5
        )
        assert float(found["without"][p]) == pytest.approx(
            float(loss["loss"][p, : start - 1].mean()), rel=1e-5
        )
    assert loss["token"].values[0, 0] == "<bos>"
    assert np.isnan(loss["loss"][0, int(prompts.lengths[0]) - 1])


def test_icl_score():
    long = fresh("attention-only", n_ctx=520, dtype=torch.float32)
    tokens = torch.randint(0, 50, (3, 512), generator=torch.Generator().manual_seed(0))
    loss = ik.loss_by_position(long, tokens)["loss"].values
    score = ik.icl_score(long, tokens)
    np.testing.assert_allclose(score["value"], loss[:, 500] - loss[:, 50], rtol=1e-6)
    wide = ik.icl_score(long, tokens, early=50, late=450, width=40)
    np.testing.assert_allclose(wide["value"], loss[:, 430:470].mean(1) - loss[:, 30:70].mean(1), rtol=1e-6)
    np.testing.assert_allclose(wide["single"], loss[:, 450] - loss[:, 50], rtol=1e-6)


def test_text_without_repetition_has_no_start(model):
    assert ik.loss_by_position(model, "the fox saw the bear .")["start"].values.tolist() == [-1]


def test_logits_of_half_precision_are_measured_in_float32():
    model = fresh("GPT-2", dtype=torch.bfloat16)
    tokens = torch.randint(0, 50, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(tokens, return_type="logits").double()
    losses = -logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    np.testing.assert_allclose(ik.loss(model, tokens)["value"], losses.mean(1), rtol=1e-5)
    answers = replace(ik.as_prompts(model, tokens), answers=torch.tensor([[3, 4]] * 3))
    right, wrong = logits[:, -1].log_softmax(-1)[:, 3:5].T
    np.testing.assert_allclose(ik.probability(model, answers)["value"], right.exp(), rtol=1e-5)
    np.testing.assert_allclose(ik.logit_difference(model, answers)["value"], right - wrong, rtol=1e-5)
    clean = torch.randn(3, logits.shape[-1], generator=torch.Generator().manual_seed(1))
    logs, found = clean.double().log_softmax(-1), ik.kl_to(clean)(model, tokens)["value"]
    kl = (logs.exp() * (logs - logits[:, -1].log_softmax(-1))).sum(-1)
    np.testing.assert_allclose(found, kl, rtol=1e-5)


def test_label_accuracy_counts_right_predictions(model):
    prompts = word_episodes(model, prompts=16, shots=6)
    accuracy = ik.label_accuracy(model, prompts)["value"].values
    with torch.no_grad():
        for p in range(16):
            logits = model(prompts.tokens[p : p + 1, : prompts.lengths[p]], return_type="logits")[0, -1]
            predicted = int(logits[prompts.demonstrations.label_ids].argmax())
            assert accuracy[p] == (predicted == int(prompts.demonstrations.target[p]))


def test_a_metric_of_ones_own_sees_its_prompts_in_order():
    model = tiny("GPT-2")
    prompts = ik.repeated_tokens(model, bos=0, prompts=5, period=(4, 8))
    seen = []

    def first_token(logits, given):
        seen.append(given.tokens[:, 1])
        return logits[:, 0, 0]

    length = prompts.tokens.shape[1]
    ik.sweep(model, prompts, edit=ik.Zero(), by=("layer",), metric=first_token, max_tokens=2 * length)
    of_batches = [
        rows for rows in prompts.tokens[:, 1].split(2) for _ in range(3)
    ]  # untouched, layer 0, layer 1
    assert torch.equal(torch.cat(seen), torch.cat(of_batches))
