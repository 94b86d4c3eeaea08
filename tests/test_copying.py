"""Copying scores of Bansal et al. 2022: as the released code has them, and their chance on untrained models."""

import naive
import numpy as np
import pytest
import torch
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.model import unembedding, value_weights
from induction_kernel.prompts import random_tokens

METHODS = {"BAN": "query", "BAN-source": "source"}


def test_the_first_query_counts_as_zero_in_score_and_chance():
    model = tiny("GPT-2")
    prompts = random_tokens(model, length=25, bos=False, prompts=3)
    assert pytest.approx(-0.846, abs=1e-3) == (4 / (25 + 1) - 1)
    for method in METHODS:
        found = ik.copying(model, prompts, method=method)
        assert found["chance"].values == pytest.approx(
            0.1126, abs=5e-5
        )  # not .1526, with 1 for the first query
        assert (found["undefined"] >= 1).all()
        assert found["score"].notnull().all()
        assert found.attrs["method"] == f"copying ({method})"
    assert "after Bansal" in found.attrs["paper"]


def test_chance_counts_the_different_tokens_that_can_be_attended_to():
    model = tiny("GPT-2")
    found = ik.copying(model, torch.tensor([[3, 3, 5, 3]]), method="BAN")
    assert float(found["chance"][0]) == pytest.approx((0 + 0 + 1 / 2 + 1 / 2) / 4)


@pytest.mark.parametrize("name", ["attention-only", "GPT-2", "Llama"])
def test_padded_prompts_are_scored_as_alone(name):
    """Of each length alone, in the plainest loops."""
    model = tiny(name)
    w_u = unembedding(model)
    rows = [random_tokens(model, length=n, prompts=1, seed=n, bos=False).tokens[0] for n in (5, 9)]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    prompts = ik.Prompts(tokens, torch.tensor([5, 9]), tokens > -1)
    for method, at in METHODS.items():
        found = ik.copying(model, prompts, method=method)["score"].values
        for p, row in enumerate(rows):
            with torch.no_grad():
                _, cache = model.run_with_cache(row[None])
            for layer, head in np.ndindex(found.shape[1:]):
                _, b_v, w_o = value_weights(model, layer)
                v = cache["v", layer][0]
                values = v[:, head // (4 // v.shape[1])] - b_v[head]
                pattern = cache["pattern", layer][0, head]
                twin = naive.ban_copying(values, pattern, w_o[head], w_u, row.tolist(), at=at)
                assert found[p, layer, head] == pytest.approx(twin, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_untrained_models_score_at_chance(method):
    scores = []
    for seed in range(40):
        model = fresh(("attention-only", "GPT-2")[seed % 2], seed=seed, dtype=torch.float32)
        found = ik.copying(
            model, random_tokens(model, length=25, bos=False, prompts=16, seed=seed), method=method
        )
        scores.append(float(found["score"].mean()))
    error = np.std(scores, ddof=1) / len(scores) ** 0.5
    assert error < 0.01
    assert abs(np.mean(scores) - float(found["chance"][0])) < 3 * error
