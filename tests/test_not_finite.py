"""Weights that are not finite are refused by what reads them, also where NaN arrives through attention alone."""

import functools

import pytest
import torch
from quick import one_in
from verbs import VERBS, shots

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer

KINDS = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]
READ_PATTERNS = (
    "observe", "patterns", "induction", "prefix_matching", "previous_token", "duplicate_token", "first_token",
    "current_token", "head_sizes", "AttentionScorer",
    "label_attention", "demonstration_weights", "copying, BAN", "copying, BAN-source", "direct_effect",
    "direct_effect, on answers", "direct_effect, by component", "direct_effect, by component and position",
    "direct_effect, by position", "direct_effect, by source token", "demonstration_attention", "qk_trace",
    "attribution", "attribution, of patterns", "qk_attribution",
    "label_flow", "label_knock_out",
)  # fmt: skip


@functools.cache
def with_nan(kind, part, *, used=True):
    """The embedded model with NaN in the last layer's W_Q, or in the unembedding, before or after its first use."""
    model = ik.load("tiny", bridge=kind == "bridge")
    if used:
        ik.repeat_loss(model, ik.repeated_tokens(model, prompts=1))
    places = model.unembed.named_parameters() if part == "W_U" else model.blocks[1].attn.named_parameters()
    wanted = [
        weight
        for name, weight in places
        if weight.ndim > 1 and (part == "W_U" or {"W_Q", "q"} & {*name.split(".")})
    ]
    assert len(wanted) == 1
    with torch.no_grad():
        wanted[0][...] = torch.nan
    return model


@pytest.mark.parametrize(("verb", "kind"), one_in(3, READ_PATTERNS, KINDS))
def test_queries_that_are_nan_are_refused_by_what_reads_patterns(verb, kind):
    """Also where the model was sound at its first use."""
    with pytest.raises(ValueError, match="not finite"):
        VERBS[verb](with_nan(kind, "W_Q"))


@pytest.mark.parametrize(
    ("verb", "kind"), one_in(3, sorted({*VERBS} - {"representations, embedding"}), KINDS)
)
def test_queries_that_are_nan_at_first_use_are_refused_by_all_that_run_attention(verb, kind, caplog):
    """A HookedTransformer attends to nothing then, and its logits are finite."""
    with pytest.raises(ValueError, match="not finite"):
        VERBS[verb](with_nan(kind, "W_Q", used=False))
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_refused_with_the_weights_of_their_heads_and_where_logits_are_nan(kind):
    with pytest.raises(ValueError, match="attention patterns of layer 1 are not finite"):
        ik.fewshot.predict(with_nan(kind, "W_Q"), shots(with_nan(kind, "W_Q")), pooling="label")
    with pytest.raises(ValueError, match="logits are not finite"):
        ik.fewshot.predict(with_nan(kind, "W_U"), shots(with_nan(kind, "W_U")))
