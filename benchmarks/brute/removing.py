"""Random calls of ablate, ablation_curve, path_patch and edited."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch

import induction_kernel as ik

from . import edits, paths, scores
from .calls import Case, Numbers, measured, some_heads
from .prompts import another, drawn_prompts
from .runs import edited as run_edited
from .runs import logits
from .sweeping import SITES, edit_of, normalised


def ablate(draw: random.Random, model: Any) -> Case:
    of = measured(draw, model)
    edit, reference, held_tensor = edit_of(draw, model, of.asked, "z")
    hold, heads = draw.choice([None, "patterns"]), some_heads(draw, model, model.cfg.n_heads)

    def right(found: Any) -> Numbers:
        options = {"edit": edit, "measure": of.measure, "hold": hold, "reference": reference}
        value = edits.joint(model, of.asked, [heads], **options)[:, 0]
        baseline = edits.runs_of(model, of.asked, of.asked.rows, of.measure)
        made = {"value": value, "baseline": baseline, "effect": value - baseline}
        if "share" in found and not np.isnan(float(found["share"])):
            first = edits.runs_of(model, of.asked, of.asked.rows, scores.first_copy_loss)
            made["share"] = np.array((value - baseline).mean() / (first - baseline).mean())
        return made

    call = partial(
        ik.ablate, model, of.asked.given, heads, edit=edit, metric=of.metric, hold=hold, progress=False
    )
    said = f"ablate {heads} {type(edit).__name__} hold={hold} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, of.passed, held_tensor))


def ablation_curve(draw: random.Random, model: Any) -> Case:
    of = measured(draw, model)
    edit, reference, held_tensor = edit_of(draw, model, of.asked, "z")
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    order, hold = draw.sample(every, len(every)), draw.choice([None, "patterns"])

    def right(found: Any) -> Numbers:
        options = {"edit": edit, "measure": of.measure, "hold": hold, "reference": reference}
        groups = [order[:k] for k in found["k"].values]
        named = [str(each).split() for each in found["control_heads"].values.flatten()]
        control = [[tuple(map(int, head[1:].split("H"))) for head in heads] for heads in named]
        value = edits.joint(model, of.asked, groups, **options)
        drawn = edits.joint(model, of.asked, control, **options)
        for k, heads in zip(np.repeat(found["k"].values, found.sizes["draw"]), control, strict=True):
            assert len(heads) == k
            assert not set(heads) & set(order[: max(found["k"].values)])
        return {"value": value, "control": drawn.reshape(len(value), *found["control_heads"].shape)}

    call = partial(
        ik.ablation_curve, model, of.asked.given, order, edit=edit, metric=of.metric, hold=hold, controls=2,
        control=draw.choice(["same layer", "any layer"]), progress=False,
    )  # fmt: skip
    said = f"ablation_curve {type(edit).__name__} hold={hold} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, of.passed, held_tensor))


def path_patch(draw: random.Random, model: Any) -> Case:
    of, n_layers = measured(draw, model), model.cfg.n_layers
    source, site = another(draw, model, of.asked), draw.choice(["q", "k", "v", "mlp_out", "resid_post"])
    receivers: Any = None
    into: dict[int, list[int] | None] = {n_layers - 1: None}
    if site == "mlp_out":
        receivers = draw.sample(range(n_layers), draw.randint(1, n_layers))
        into = dict.fromkeys(receivers)
    elif site != "resid_post":
        receivers = some_heads(draw, model, len(edits.heads_at(model, site) or ()))
        into = {}
        for layer, head in receivers:
            into.setdefault(layer, []).append(head)
    last = max(into)
    senders = [
        (layer, head)
        for layer in range(n_layers)
        for head in range(model.cfg.n_heads)
        if paths.is_before(model, site, layer, last)
    ]
    chosen = draw.sample(senders, min(len(senders), 4)) if draw.random() < 0.6 and senders else None

    def right(_: Any) -> Numbers:
        value = paths.path_patch(
            model, of.asked, source, site=site, receivers=into, senders=senders if chosen is None else chosen,
            measure=of.measure,
        )  # fmt: skip
        found = {"value": value, "baseline": edits.runs_of(model, of.asked, of.asked.rows, of.measure)}
        found["source_value"] = edits.runs_of(model, of.asked, source.rows, of.measure)
        return found | {"normalised": normalised(found)}

    call = partial(
        ik.path_patch, model, source=source.given, into=of.asked.given, receivers=receivers, site=site, senders=chosen,
        metric=of.metric, progress=False, max_tokens=draw.choice([None, 3 * max(map(len, of.asked.rows)) + 6]),
    )  # fmt: skip
    said = f"path_patch {chosen} to {site} of {receivers} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, source.given, of.passed))


def edited(draw: random.Random, model: Any) -> Case:
    asked, site = drawn_prompts(draw, model), draw.choice([site for site in SITES if site != "pattern"])
    kinds = [ik.Zero(), ik.Scale(0.5), "Add", "Mean"] + [ik.ZeroValues()] * (site in ("z", "v"))
    edit: Any = draw.choice(kinds)
    reference = None
    if edit == "Add":
        heads = edits.heads_at(model, site)
        shape = [model.cfg.d_model] if heads is None else [len(heads), model.cfg.d_head]
        generator = torch.Generator().manual_seed(draw.randrange(999))
        edit = ik.Add(torch.randn(shape, generator=generator, dtype=torch.float64))
    elif edit == "Mean":
        reference = another(
            draw, model, asked, longer=1 if max(map(len, asked.rows)) < model.cfg.n_ctx else 0
        )
        edit = ik.Mean(reference.given)
    heads = edits.heads_at(model, site)
    chosen = None if heads is None or draw.random() < 0.4 else some_heads(draw, model, len(heads))

    def call() -> Any:
        with ik.edited(model, edit, chosen, site=site):
            return [logits(model, row) for row in asked.rows]

    def right(_: Any) -> Numbers:
        averaged = replace_by_position(edit)
        of_prompt = edits.wanted(model, asked, averaged, site, reference)
        ((_, touched, _),) = edits.cells(model, site, (), chosen, None, None, 0)
        found = [
            run_edited(model, row, site, touched, None, of_prompt(p)) for p, row in enumerate(asked.rows)
        ]
        return {str(p): each.numpy() for p, each in enumerate(found)}

    said = f"edited {type(edit).__name__} at {site} {chosen} on {asked.said}"
    return Case(
        said,
        call,
        right,
        (asked.given,),
        lambda found: {str(p): each.numpy() for p, each in enumerate(found)},
    )


def replace_by_position(edit: Any) -> Any:
    """In `edited` a mean is over all positions but the first."""
    return ik.Mean(edit.reference, by_position=False) if isinstance(edit, ik.Mean) else edit
