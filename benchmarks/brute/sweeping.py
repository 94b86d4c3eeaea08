"""Random edits, and calls of sweep, knock_out, patch and attribution."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch

import induction_kernel as ik

from . import edits, paths
from .calls import Case, Numbers, measured, some_heads, some_layers
from .prompts import Asked, another
from .reading import own_mask
from .runs import INSIDE

SITES = ("z", "z", "q", "k", "v", "pattern", "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")


def edit_of(draw: random.Random, model: Any, asked: Asked, site: str) -> tuple[Any, Asked | None, Any]:
    """An edit, what it takes from, and the tensor it holds."""
    kinds = ["Mean", "Resample", "FromRun", "Own"]
    kinds += ["KnockOut"] * 4 if site == "pattern" else ["Zero", "Zero", "Scale", "Add"]
    kinds += ["ZeroValues"] if site in ("z", "v") else []
    kind, seed = draw.choice(kinds), draw.randrange(1000)
    n, width = ik.as_prompts(model, asked.given).tokens.shape
    generator = torch.Generator().manual_seed(seed)
    if kind in ("Zero", "ZeroValues"):
        return getattr(ik, kind)(), None, None
    if kind == "Scale":
        return ik.Scale(draw.choice([0.5, 2.0, -1.0, 1, 0])), None, None
    if kind in ("Mean", "Resample", "FromRun"):
        return from_others(draw, model, asked, site, kind, seed)
    if kind == "KnockOut":
        shape = draw.choice([(width, width), (n, 1, width, width), (n, model.cfg.n_heads, width, width)])
        removed = torch.rand(shape, generator=generator) < 0.3
        removed &= ~torch.eye(width, dtype=torch.bool)
        return ik.KnockOut(removed), None, removed
    size = [model.cfg.d_model]
    if site in INSIDE:
        size = [len(edits.heads_at(model, site) or ()), model.cfg.d_head]
    whole = [n, model.cfg.n_heads, width, width] if site == "pattern" else [n, width, *size]
    least = 2 if site == "pattern" else 1
    shape = whole[draw.randint(0, len(whole) - least) :]
    if kind == "Add":
        vector = torch.randn(shape, generator=generator, dtype=torch.float64)
        return ik.Add(vector), None, vector
    made = edits.Own(seed, site, draw.choice([0.0, 0.5]), tuple(shape))
    return made, None, made.value


def from_others(
    draw: random.Random, model: Any, asked: Asked, site: str, kind: str, seed: int
) -> tuple[Any, Asked | None, Any]:
    one_length = len({len(row) for row in asked.rows}) == 1
    room = model.cfg.n_ctx - max(map(len, asked.rows))
    if kind == "FromRun":
        other = another(draw, model, asked)
        return ik.FromRun(other.given), other, other.given
    if kind == "Resample":
        if draw.random() < 0.4:
            return ik.Resample(seed=seed), None, None
        other = another(draw, model, asked, longer=draw.randint(0, min(2, room)), n=draw.randint(1, 5))
        return ik.Resample(other.given, seed=seed), other, other.given
    by_position = draw.choice([None, None, True, False])
    if draw.random() < 0.4:
        return ik.Mean(by_position=by_position), None, None
    other = another(
        draw, model, asked, longer=0 if one_length else draw.randint(0, min(2, room)), n=draw.randint(1, 5)
    )
    return ik.Mean(other.given, by_position=by_position), other, other.given


def by_of(draw: random.Random, site: str) -> tuple[str, ...]:
    legal = [(), ("layer",), ("layer", "position")]
    if site in INSIDE:
        legal += [("layer", "head"), ("layer", "head"), ("layer", "head", "position")]
    return draw.choice(legal)


def places_of(draw: random.Random, model: Any, site: str, by: tuple[str, ...], width: int) -> dict[str, Any]:
    """heads=, layers=, positions=: some of them, and few where there would be many cells."""
    heads = edits.heads_at(model, site)
    options: dict[str, Any] = {"heads": None, "layers": some_layers(draw, model), "positions": None}
    if heads is not None and draw.random() < 0.3:
        options = {"heads": some_heads(draw, model, len(heads)), "layers": None, "positions": None}
    if "position" in by and (width > 4 or draw.random() < 0.2):
        options["positions"] = sorted(draw.sample(range(width), min(width, 4)))
    return options


def sweep(draw: random.Random, model: Any) -> Case:
    of, site = measured(draw, model), draw.choice(SITES)
    edit, reference, held_tensor = edit_of(draw, model, of.asked, site)
    by, hold = by_of(draw, site), draw.choice([None, None, "patterns"])
    hold = None if site in ("q", "k", "pattern") and draw.random() < 0.95 else hold
    width = ik.as_prompts(model, of.asked.given).tokens.shape[1]
    options = places_of(draw, model, site, by, width) | {"by": by, "hold": hold}
    call = partial(
        ik.sweep, model, of.asked.given, edit=edit, site=site, metric=of.metric, progress=False,
        max_tokens=draw.choice([None, None, width, 3 * width]), **options,
    )  # fmt: skip
    right = partial(
        edits.sweep,
        model,
        of.asked,
        width,
        edit=edit,
        site=site,
        measure=of.measure,
        reference=reference,
        **options,
    )
    said = f"sweep {type(edit).__name__} at {site} {options} {of.said} on {of.asked.said}"
    return Case(said, call, lambda _: right(), (of.asked.given, of.passed, held_tensor))


def knock_out(draw: random.Random, model: Any) -> Case:
    of, by = measured(draw, model), by_of(draw, "pattern")[:2]
    ready = ik.as_prompts(model, of.asked.given)
    n, width = ready.tokens.shape
    mask: Any
    if draw.random() < 0.3:

        def mask(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return own_mask(tokens, lengths) & ~torch.eye(width, dtype=torch.bool)

        whole = mask(ready.tokens, ready.lengths)[:, None]
    else:
        shape = draw.choice([(width, width), (n, width, width), (n, model.cfg.n_heads, width, width)])
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(draw.randrange(999))) < 0.3
        mask &= ~torch.eye(width, dtype=torch.bool)
        whole = mask[:, None] if mask.ndim == 3 else mask
    options = places_of(draw, model, "pattern", by, width)
    del options["positions"]
    if "position" in by:
        by = ("layer",)
    call = partial(
        ik.knock_out, model, of.asked.given, mask, by=by, metric=of.metric, progress=False, **options
    )
    right = partial(
        edits.sweep, model, of.asked, width, edit=ik.KnockOut(whole), site="pattern", by=by, measure=of.measure,
        **options,
    )  # fmt: skip
    said = f"knock_out {by} {options} {of.said} on {of.asked.said}"
    return Case(said, call, lambda _: right(), (of.asked.given, of.passed, None if callable(mask) else mask))


def patch(draw: random.Random, model: Any) -> Case:
    of, site = measured(draw, model), draw.choice(SITES)
    source, by = another(draw, model, of.asked), by_of(draw, site)
    hold = draw.choice([None, None, "patterns"]) if site not in ("q", "k", "pattern") else None
    width = ik.as_prompts(model, of.asked.given).tokens.shape[1]
    options = places_of(draw, model, site, by, width) | {"by": by, "hold": hold}

    def right(found: Any) -> Numbers:
        given = edits.sweep(
            model, of.asked, width, edit=ik.FromRun(source.given), site=site, measure=of.measure, reference=source,
            **options,
        )  # fmt: skip
        given["source_value"] = edits.runs_of(model, of.asked, source.rows, of.measure)
        return given | {"normalised": normalised(given)}

    call = partial(
        ik.patch, model, source=source.given, into=of.asked.given, site=site, metric=of.metric, progress=False,
        **options,
    )  # fmt: skip
    said = f"patch at {site} {options} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, source.given, of.passed), loose=1)


def normalised(found: Numbers) -> np.ndarray:
    """A ratio of means over the prompts that have the cell; NaN where the two runs hardly differ."""
    value, gap = found["value"], found["source_value"] - found["baseline"]
    effect = value - found["baseline"].reshape(-1, *[1] * (value.ndim - 1))
    least = 1e-3 * np.mean(np.abs(found["source_value"]) + np.abs(found["baseline"]))
    out = np.full(value.shape[1:], np.nan)
    for place in np.ndindex(out.shape):
        of_place = effect[(slice(None), *place)]
        there = ~np.isnan(of_place)
        if there.any() and abs(gap[there].mean()) >= least:
            out[place] = of_place[there].mean() / gap[there].mean()
    return out


def attribution(draw: random.Random, model: Any) -> Case:
    of, site = measured(draw, model, smooth=True), draw.choice(SITES)
    edit, reference, held_tensor = edit_of(draw, model, of.asked, site)
    by, width = by_of(draw, site), ik.as_prompts(model, of.asked.given).tokens.shape[1]
    options = places_of(draw, model, site, by, width) | {"by": by, "qk_fix": draw.random() < 0.7}
    del options["positions"]

    def right(found: Any) -> Numbers:
        estimate = paths.attribution(
            model, of.asked, width, edit=edit, site=site, measure=of.measure, reference=reference, **options
        )
        return {"estimate": estimate, "baseline": edits.runs_of(model, of.asked, of.asked.rows, of.measure)}

    call = partial(
        ik.attribution, model, of.asked.given, edit=edit, site=site, metric=of.metric, progress=False, **options
    )  # fmt: skip
    said = f"attribution {type(edit).__name__} at {site} {options} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, of.passed, held_tensor), loose=10)
