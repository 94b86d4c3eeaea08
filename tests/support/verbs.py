"""Every public verb that runs a model, as one quick call on the embedded model: a table for what must hold of all."""

from dataclasses import replace

import numpy as np
import torch
import xarray as xr

import induction_kernel as ik
from induction_kernel.model._runs import run
from induction_kernel.prompts._prompts import measured_on


def repeats(model):
    return ik.repeated_tokens(model, prompts=3, period=6)


def shots(model):
    return ik.prompts.word_episodes(model, prompts=4, shots=4)


def hidden(model):
    return ik.prompts.needles(model, prompts=3, length=(20, 24))


def answered(model):
    return replace(repeats(model), answers=torch.tensor([[3, 4], [5, 6], [7, 8]]))


def other_run(model):
    return repeats(model).tokens.flip(0)


def episodes(shown=2):
    texts = {"classes": [0, 0, 0, 1, 1, 1], "labels": ("dax", "wug"), "template": "{x} {y} ;"}
    pool = ik.data.LabelledTexts(tuple("fox wolf bear apple pear plum".split()), **texts)
    queries = ik.data.LabelledTexts(tuple("lion goat tiger fig lime mango".split()), **texts)
    return ik.data.draw_episodes(pool, queries, shots=shown, separator=" ")


def earlier(model):
    width = repeats(model).tokens.shape[1]
    return torch.ones(width, width, dtype=torch.bool).tril(-1)


def inside_edited(model):
    out = []
    edits = [ik.Zero(), ik.ZeroValues(), ik.Scale(0.5), ik.Add(torch.ones(16)), ik.Mean(repeats(model))]
    for edit in edits:
        with ik.edited(model, edit, ["L0H3", "L1H7"]):
            out.append(ik.repeat_loss(model, repeats(model)))
    return xr.concat(out, "edit")


def kept_logits(model):
    """Of a run that waits for other threads' edits: `edited` acts on direct calls of the model in every thread."""
    return run(model, repeats(model).tokens, lengths=None)


def swept(**options):
    return lambda model: ik.sweep(model, repeats(model), **options)


def estimated(**options):
    return lambda model: ik.attribution(model, repeats(model), edit=ik.FromRun(other_run(model)), **options)


def scored(scorer, **options):
    return lambda model: scorer(model, repeats(model), **options)


def explored(model):
    """Pictures of all heads, and two patterns computed again."""
    one = ik.explore(model, repeats(model)).explored.shown[1]
    again = [(index, pattern, norms) for index, pattern, norms in one.patterns([1, 15])]
    return xr.Dataset(
        {
            "picture": (("head", "row", "column"), one.thumbnails),
            "pattern": (("choice", "query", "key"), np.stack([pattern for _, pattern, _ in again])),
            "value_norm": (("choice", "key"), np.stack([norms for _, _, norms in again])),
        },
        coords={"choice": [index for index, _, _ in again]},
        attrs={"method": "explore", **measured_on(model, repeats(model))},
    )


COUNTED = ("induction", "prefix_matching", "copy_suppression", "previous_token", "label_attention", "copying")

VERBS = {
    "observe": lambda model: ik.observe(model, repeats(model), [ik.induction, ik.duplicate_token]),
    "patterns": lambda model: ik.patterns(model, repeats(model), ["L0H1", "L1H7"]),
    "explore": explored,
    "census": lambda model: ik.census(model, n_prompts=12, behaviours=COUNTED, rows=1),
    "passages": lambda model: ik.head_census.passages(model, repeats(model), rows=2),
    "induction": scored(ik.induction),
    "prefix_matching": scored(ik.prefix_matching),
    "previous_token": scored(ik.previous_token),
    "duplicate_token": scored(ik.duplicate_token),
    "first_token": scored(ik.first_token),
    "current_token": scored(ik.current_token),
    "head_sizes": scored(ik.scorers.head_sizes),
    "AttentionScorer": lambda model: ik.AttentionScorer("mine", ik.induction.mask)(model, repeats(model)),
    "label_attention": lambda model: ik.label_attention(model, shots(model)),
    "demonstration_weights": lambda model: ik.scorers.demonstration_weights(model, shots(model)),
    "copying": scored(ik.copying),
    "copying, BAN": scored(ik.copying, method="BAN"),
    "copying, BAN-source": scored(ik.copying, method="BAN-source"),
    "ov_eigenvalues": lambda model: ik.ov_eigenvalues(model, draws=2),
    "qk_trace": lambda model: ik.qk_trace(model, repeats(model), draws=2),
    "composition": lambda model: ik.composition(model),
    "composition, by v": lambda model: ik.composition(model, by="v"),
    "qk_attribution": scored(ik.scorers.qk_attribution, head="L1H7"),
    "direct_effect": scored(ik.direct_effect),
    "direct_effect, on answers": lambda model: ik.direct_effect(model, answered(model)),
    "direct_effect, by component": scored(ik.direct_effect, by="component"),
    "direct_effect, by component and position": scored(ik.direct_effect, by=("component", "position")),
    "direct_effect, by position": scored(ik.direct_effect, by=("head", "position")),
    "direct_effect, by source token": lambda model: ik.direct_effect(
        model, answered(model), by=("head", "key")
    ),
    "logit_lens": scored(ik.scorers.logit_lens),
    "logit_lens, on answers": lambda model: ik.scorers.logit_lens(model, answered(model)),
    "retrieval": lambda model: ik.head_census.retrieval(model, hidden(model), max_new_tokens=6),
    "retrieval_forced": lambda model: ik.head_census.retrieval_forced(model, hidden(model)),
    "query_focused_retrieval": lambda model: ik.head_census.query_focused_retrieval(model, hidden(model)),
    "loss_by_position": scored(ik.loss_by_position),
    "icl_score": scored(ik.icl_score, early=2, late=8),
    "repeat_loss": scored(ik.repeat_loss),
    "loss": scored(ik.loss),
    "logit_difference": lambda model: ik.logit_difference(model, answered(model)),
    "probability": lambda model: ik.probability(model, answered(model)),
    "label_accuracy": lambda model: ik.label_accuracy(model, shots(model)),
    "kl_to": lambda model: ik.ablate(model, repeats(model), "L1H7", metric=ik.kl_to(kept_logits(model))),
    "ablate": scored(ik.ablate, heads=["L0H3", "L1H7"]),
    "ablate, patterns held": scored(ik.ablate, heads="L0H3", edit=ik.Zero(), hold="patterns"),
    "ablation_curve": scored(ik.ablation_curve, scores=["L1H7", "L1H1"], ks=[1, 2], controls=2),
    "ablation_curve, of powers of two": scored(
        ik.ablation_curve, scores=["L1H7", "L1H1", "L1H2"], controls=2
    ),
    "knock_out": lambda model: ik.knock_out(model, repeats(model), earlier(model)),
    "patch": lambda model: ik.patch(model, source=other_run(model), into=answered(model)),
    "path_patch": lambda model: ik.path_patch(model, source=other_run(model), into=answered(model)),
    "path_patch, into queries": lambda model: ik.path_patch(
        model, source=other_run(model), into=answered(model), site="q", receivers="L1H7"
    ),
    "attribution": estimated(verify=1),
    "attribution, at q": estimated(site="q"),
    "attribution, at k": estimated(site="k", by=("layer", "head", "position")),
    "attribution, of patterns": estimated(site="pattern"),
    "edited": inside_edited,
    "sweep": swept(by=("layer", "head", "position")),
    "sweep, values resampled": swept(site="v", edit=ik.Resample()),
    "sweep, of the stream": swept(site="resid_pre", by=("layer",), edit=ik.Zero()),
    "sweep, value biases left": swept(edit=ik.ZeroValues()),
    "predict": lambda model: ik.fewshot.predict(model, shots(model)),
    "label_logits": lambda model: ik.kernel.label_logits(model, shots(model)),
    "representations": lambda model: ik.kernel.representations(model, episodes(), "residual"),
    "representations, of heads": lambda model: ik.kernel.representations(model, shots(model), "head"),
    "representations, embedding": lambda model: ik.kernel.representations(model, episodes(), "embedding"),
    "next_token_similarity": lambda model: ik.kernel.next_token_similarity(model, episodes()),
    "demonstration_attention": lambda model: ik.kernel.demonstration_attention(model, shots(model)),
    "probe": lambda model: ik.kernel.probe(
        model, ik.prompts.word_episodes(model, prompts=32), min_count=2, folds=2
    ),
    "label_knock_out": lambda model: ik.fewshot.label_knock_out(model, shots(model), "L1H7", draws=2),
    "fit_label_weights": lambda model: ik.fewshot.fit_label_weights(model, shots(model), steps=2),
    "reweighted": lambda model: ik.fewshot.reweighted(
        model, shots(model), torch.full((2, 8, 2), 0.5).numpy()
    ),
    "label_flow": lambda model: ik.fewshot.label_flow(model, shots(model)),
    "token_copying": lambda model: ik.head_census.token_copying(model, prompts=8, length=12),
    "concept_copying": lambda model: ik.head_census.concept_copying(
        model, words=["fox wolf", "bear sheep", "lion tiger", "apple plum"], prompts=16, length=12
    ),
    "list_ablation": lambda model: ik.head_census.list_ablation(
        model, "L1H7", "L1H2", prompts=4, n_controls=2
    ),
    "function_vector_effect": lambda model: ik.fewshot.function_vector_effect(
        model, shots(model), heads=["L1H7", "L0H3"]
    ),
    "function_vector": lambda model: ik.fewshot.function_vector(
        model, shots(model), ["L1H7", "L0H3"], n_controls=2
    ),
    "apply_function_vector": lambda model: ik.fewshot.apply_function_vector(
        model,
        ik.data.zero_shot(model, episodes()),
        ik.fewshot.function_vector(model, shots(model), "L1H7", n_controls=2),
    ),
    "writers_and_cancellers": lambda model: ik.fewshot.writers_and_cancellers(model, shots(model)),
    "which_heads": lambda model: ik.fewshot.which_heads(
        model,
        shots(model),
        ik.repeated_tokens(model, prompts=3, period=10),
        shares=0.1,
        n_controls=2,
        early=4,
        late=14,
        width=4,
    ),
    "retrieval_effect": lambda model: ik.fewshot.retrieval_effect(
        model, episodes().pool, episodes().queries, shots=2, separator=" "
    ),
    "label_format_effect": lambda model: ik.fewshot.label_format_effect(
        model, episodes(), formats={"plain": ["dax", "wug"], "others": ["fep", "kiki"]}
    ),
    "input_shift_effect": lambda model: ik.fewshot.input_shift_effect(model, episodes(), shift="rare words"),
    "order_effect": lambda model: ik.fewshot.order_effect(model, episodes(4), orders=2),
    "few_shot_study": lambda model: (
        ik.fewshot.few_shot_study(model, queries=8, splits=2, progress=False).answers
    ),
    "mechanism": lambda model: ik.evidence.mechanism(model, draws=100),
    "direct_ablation": lambda model: ik.evidence.direct_ablation(model, n=16, by_head=False),
    "generality": lambda model: ik.evidence.generality(model, ["L1H7", "L1H1"]),
}
"""Name, and after a comma what is particular -> `call(model)`, a Dataset."""
