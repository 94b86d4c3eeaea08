"""Counts, labels and chance worked out by hand: summaries of weights, token strings, pooled chance, checks of lanes."""

import stat

import numpy as np
import pytest
import torch
from labelled_prompts import labelled
from zoo import FASTEST, hooked_only, model_of, tiny

import induction_kernel as ik
from induction_kernel.interventions import _gradients as gradients
from induction_kernel.replay import _attention_rows as rows
from induction_kernel.stores import write_whole


def test_the_summary_of_weight_scores_is_score_chance_and_the_widest_draw():
    model = ik.load("tiny")
    found = ik.ov_eigenvalues(model, draws=6)
    summary = ik.summarise(found, margin=0.1)
    score, chance, null = (
        found[key].transpose(..., "layer", "head").values for key in ("score", "chance", "null")
    )
    widest = ((null - chance) / null.std(0)).max()
    assert widest > 1
    np.testing.assert_allclose(summary["mean"], score, atol=1e-12)
    np.testing.assert_allclose(summary["chance"], chance, atol=1e-12)
    np.testing.assert_allclose(summary["excess"], score - chance, atol=1e-12)
    np.testing.assert_allclose(summary["threshold"], 0.1 + widest * null.std(0), atol=1e-12)
    assert bool(summary["tested"].all())
    np.testing.assert_array_equal(summary["passes"] == 1, score - chance > summary["threshold"])
    order = np.argsort(-(score - chance), axis=None)
    assert summary["rank"].values.reshape(-1)[order].tolist() == list(range(1, 17))


def test_strings_and_texts_end_where_the_prompt_ends():
    model = ik.load("tiny")
    prompts = ik.as_prompts(model, ["fox wolf", "fox wolf bear apple pear"], bos=False)
    assert prompts.tokens.shape[1] == 5
    assert prompts.strings() == [["fox", "wolf"], ["fox", "wolf", "bear", "apple", "pear"]]
    assert prompts.text() == ["fox wolf", "fox wolf bear apple pear"]
    plain = ik.as_prompts(tiny("attention-only"), torch.tensor([[5, 6, 0, 0], [7, 8, 9, 1]]), lengths=[2, 4])
    assert [len(row) for row in plain.strings()] == [2, 4]
    assert len(plain.text()[0].split()) == 2


@pytest.mark.parametrize(("pooling", "tokens"), [("label", 2), ("max", 2), ("mean", 2), ("sum", 4)])
def test_chance_of_pooled_label_attention_is_that_of_uniform_attention(pooling, tokens):
    """Two demonstrations of two tokens each: their sum is of four tokens, each other pooling of one a demonstration."""
    model = tiny("attention-only")
    prompts = labelled(ik.repeated_tokens(model, bos=0, prompts=3, period=(5, 8)))
    assert len(set(prompts.lengths.tolist())) > 1
    found = ik.label_attention(model, prompts, pooling=pooling)
    np.testing.assert_allclose(found["chance"], tokens / prompts.lengths.double(), rtol=1e-12)


def test_scores_that_spread_what_the_pattern_has_in_one_key_do_not_explain_it():
    """No key has much more by the scores than by the pattern: only the size of the difference tells."""
    keys = 40
    pattern = torch.zeros(1, 1, 1, keys)
    pattern[..., 3] = 1
    even = torch.zeros(1, 1, 1, keys)
    seen = torch.ones(1, 1, 1, keys, dtype=torch.bool)
    assert not gradients._explain(even, pattern, seen)
    assert gradients._explain(even, torch.full_like(pattern, 1 / keys), seen)


@hooked_only
def test_rows_that_differ_on_the_diagonal_alone_are_not_used(monkeypatch):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    tokens = torch.arange(6)
    assert rows.why_no_rows(model, tokens, [0, 1]) == ""
    right = rows.entry_values

    def wrong(model, tokens, entries, layers, read):
        more = (entries.query == entries.key).double()[:, None]
        right(model, tokens, entries, layers, lambda layer, values: read(layer, values + 0.1 * more))

    monkeypatch.setattr(rows, "entry_values", wrong)
    assert "attention in layer 0 differs by 0.1 from" in rows.why_no_rows(model, tokens, [0, 1])


def test_files_may_be_read_by_others_and_run_by_nobody(tmp_path):
    write_whole(tmp_path / "a.txt", b"content")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
