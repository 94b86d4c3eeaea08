"""Random calls of every verb, each with what is right by its definition."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

import induction_kernel as ik

from . import edits, scores

from .prompts import Asked, another, answered, drawn_prompts
from .runs import INSIDE, logits, name
from .runs import edited as run_edited

SITES = ("z", "z", "q", "k", "v", "pattern", "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")
Numbers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call: what it is, the call, what is right of its result, and what was passed that must not change."""

    said: str
    call: Callable[[], Any]
    right: Callable[[Any], Numbers]
    passed: tuple[Any, ...] = ()
    given: Callable[[Any], Numbers] | None = None  # numbers of a result that is no Dataset
    loose: float = 1.0  # times the model's own


# Scorers ----------------------------------------------------------------------------------------------------------


def own_mask(tokens: Any, lengths: Any) -> Any:
    i = torch.arange(tokens.shape[1])
    return scores.own_entry(tokens[:, :, None], tokens[:, None], i[:, None], i[None])


SCORERS = {
    "induction": ik.induction, "prefix_matching": ik.prefix_matching, "previous_token": ik.previous_token,
    "duplicate_token": ik.duplicate_token, "own": ik.AttentionScorer("own", own_mask),
}  # fmt: skip


def some_layers(draw: random.Random, model: Any) -> list[int] | None:
    n = model.cfg.n_layers
    return None if draw.random() < 0.7 else sorted(draw.sample(range(n), draw.randint(1, n)))


def all_or(layers: list[int] | None, model: Any) -> list[int]:
    return list(range(model.cfg.n_layers)) if layers is None else layers


def options_of(draw: random.Random, model: Any) -> dict[str, Any]:
    return {
        "layers": some_layers(draw, model), "batch_size": draw.choice([None, None, 1, 2]), "progress": False,
    }  # fmt: skip


def for_attention(draw: random.Random, model: Any, kinds: Sequence[str]) -> Asked:
    """Prompts on which these scorers have something to read."""
    for _ in range(50):
        asked = drawn_prompts(draw, model, draw.choice(["any", "repeated"]))
        if all(
            scores.entries(kind, row, scored, asked.bos)
            for kind in kinds
            for row, scored in zip(asked.rows, asked.scored, strict=True)
        ):
            return asked
    return drawn_prompts(draw, model, "repeated")


def scorer(draw: random.Random, model: Any) -> Case:
    kind = draw.choice([*SCORERS, "diagonal"])
    asked, options = for_attention(draw, model, [kind]), options_of(draw, model)
    right = partial(scores.attention_score, model, asked, kind, all_or(options["layers"], model))
    if kind == "diagonal":
        call = partial(ik.induction, model, asked.given, compat="diagonal", **options)
        return Case(
            f"induction diagonal on {asked.said} {options}",
            call,
            lambda _: right(every_query=True),
            (asked.given,),
        )
    made = SCORERS[kind]
    if draw.random() < 0.15 and asked.said in ("tensor", "Prompts") or asked.said.startswith("repeated"):
        return with_hooks(draw, model, asked, kind)
    call = partial(made, model, asked.given, **options)
    return Case(f"{kind} on {asked.said} {options}", call, lambda _: right(), (asked.given,))


def with_hooks(draw: random.Random, model: Any, asked: Asked, kind: str) -> Case:
    """In a run, or a cache, of the user's own."""
    tokens = asked.given if isinstance(asked.given, torch.Tensor) else asked.given.tokens
    mask = {"attention_mask": torch.ones_like(tokens)} if model.tokenizer is not None else {}
    names = {name("pattern", layer) for layer in range(model.cfg.n_layers)}

    def by_hooks() -> Any:
        hooks, result = SCORERS[kind].fwd_hooks(model, asked.given)
        with torch.no_grad():
            model.run_with_hooks(tokens, fwd_hooks=hooks, **mask)
        return result()

    def by_cache() -> Any:
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, names_filter=lambda each: each in names, **mask)
        return SCORERS[kind].from_cache(cache, asked.given)

    def right(_: Any) -> Numbers:
        found = scores.attention_score(model, asked, kind, range(model.cfg.n_layers))
        return {key: found[key] for key in ("score", "chance")}

    way = draw.choice([by_hooks, by_cache])
    return Case(f"{kind} {way.__name__} on {asked.said}", way, right, (asked.given,))


def observe(draw: random.Random, model: Any) -> Case:
    kinds = draw.sample(list(SCORERS), draw.randint(1, 4))
    asked, options = for_attention(draw, model, kinds), options_of(draw, model)
    layers = all_or(options["layers"], model)

    def right(_: Any) -> Numbers:
        each = [scores.attention_score(model, asked, kind, layers) for kind in kinds]
        nothing = np.full(each[0]["score"].shape, np.nan)
        found = {key: np.stack([one[key] for one in each]) for key in ("score", "chance")}
        if any("control" in one for one in each):
            found["control"] = np.stack([one.get("control", nothing) for one in each])
        return found

    call = partial(ik.observe, model, asked.given, [SCORERS[kind] for kind in kinds], **options)
    return Case(f"observe {kinds} on {asked.said} {options}", call, right, (asked.given,))


def patterns(draw: random.Random, model: Any) -> Case:
    asked = drawn_prompts(draw, model)
    asked = replace(asked, given=ik.as_prompts(model, asked.given))
    heads = some_heads(draw, model, model.cfg.n_heads)
    call = partial(ik.patterns, model, asked.given, heads)
    right = partial(scores.pattern_of, model, asked, sorted(set(heads), key=heads.index))
    return Case(f"patterns of {heads} on {asked.said}", call, lambda _: right(), (asked.given,), loose=100)


def label_attention(draw: random.Random, model: Any) -> Case:
    asked, options = drawn_prompts(draw, model, "shots"), options_of(draw, model)
    pooling, layers = draw.choice(["label", "max", "sum", "mean"]), all_or(options["layers"], model)
    if draw.random() < 0.5:
        span = draw.choice(["demonstration", "words"])
        call = partial(ik.demonstration_weights, model, asked.given, pooling=pooling, span=span, **options)
        said = f"demonstration_weights {pooling} {span} on {asked.said} {options}"
        return Case(
            said,
            call,
            lambda _: {"weight": scores.weights(model, asked, pooling, layers, span)},
            (asked.given,),
        )
    call = partial(ik.label_attention, model, asked.given, pooling=pooling, **options)
    said = f"label_attention {pooling} on {asked.said} {options}"
    return Case(said, call, lambda _: scores.label_attention(model, asked, pooling, layers), (asked.given,))


def copying(draw: random.Random, model: Any) -> Case:
    asked, options = drawn_prompts(draw, model, draw.choice(["any", "repeated"])), options_of(draw, model)
    method, centre = draw.choice(["OLS", "BAN"]), draw.choice(["vocabulary", "sample"])
    call = partial(ik.copying, model, asked.given, method=method, centre=centre, **options)
    right = partial(scores.copying, model, asked, method, centre, all_or(options["layers"], model))
    return Case(
        f"copying {method} {centre} on {asked.said} {options}", call, lambda _: right(), (asked.given,)
    )


def ov_eigenvalues(draw: random.Random, model: Any) -> Case:
    layers, embedding = some_layers(draw, model), draw.choice(["tokens", "tokens", "effective"])
    call = partial(ik.ov_eigenvalues, model, embedding=embedding, layers=layers, draws=3, progress=False)

    def right(found: Any) -> Numbers:
        score = scores.ov_eigenvalues(model, embedding, all_or(layers, model))
        return {"score": score, "chance": found["null"].values.mean(0)}

    return Case(f"ov_eigenvalues {embedding} {layers}", call, right, loose=100)


def composition(draw: random.Random, model: Any) -> Case:
    by = draw.choice(["k", "q", "v"])
    call = partial(ik.composition, model, by=by, progress=False)
    return Case(f"composition {by}", call, lambda _: {"score": scores.composition(model, by)}, loose=10)


def qk_trace(draw: random.Random, model: Any) -> Case:
    asked = for_attention(draw, model, ["previous_token"])
    call = partial(ik.qk_trace, model, asked.given, draws=2, progress=False)
    return Case(
        f"qk_trace on {asked.said}",
        call,
        lambda _: {"score": scores.qk_trace(model, asked)},
        (asked.given,),
        loose=10,
    )


def direct_effect(draw: random.Random, model: Any) -> Case:
    asked, options = drawn_prompts(draw, model, draw.choice(["any", "repeated"])), options_of(draw, model)
    on = draw.choice(["next token", "answers"])
    if on == "answers":
        asked = answered(draw, model, asked)
    call = partial(
        ik.direct_effect, model, asked.given, on=on if draw.random() < 0.5 or asked.answers is None else None, **options
    )  # fmt: skip
    right = partial(scores.direct_effect, model, asked, on, all_or(options["layers"], model))
    return Case(
        f"direct_effect {on} on {asked.said} {options}", call, lambda _: right(), (asked.given,), loose=10
    )


# Metrics ----------------------------------------------------------------------------------------------------------


def own_metric(found: torch.Tensor, prompts: Any) -> torch.Tensor:
    lengths = prompts.lengths.tolist()
    return torch.stack([scores.own_number(row[:n]) for row, n in zip(found, lengths, strict=True)])


@dataclass(frozen=True)
class Measured:
    """Prompts with a metric of theirs, ours and the definition's."""

    asked: Asked
    metric: Any
    measure: Any
    said: str
    passed: Any = None


def measured(draw: random.Random, model: Any, *, smooth: bool = False, kind: str | None = None) -> Measured:
    kinds = ["loss", "repeat_loss", "logit_difference", "probability", "kl_to", "own"]
    kind = draw.choice(kinds + ([] if smooth else ["label_accuracy"])) if kind is None else kind
    of_shots = kind == "label_accuracy" or (kind == "probability" and draw.random() < 0.3)
    which = (
        "repeated"
        if kind == "repeat_loss"
        else "shots"
        if of_shots
        else draw.choice(["any", "any", "repeated"])
    )
    asked = drawn_prompts(draw, model, which)
    while kind == "loss" and min(map(len, asked.rows)) < 2:
        asked = drawn_prompts(draw, model, which)
    if kind in ("logit_difference", "probability") and not of_shots:
        asked = answered(draw, model, asked)
    if kind == "own":
        return Measured(asked, own_metric, scores.own_metric, "own metric")
    if kind == "kl_to":
        other = another(draw, model, asked)
        rows = [logits(model, row)[-1] for row in other.rows]
        clean = torch.stack(rows)
        return Measured(asked, ik.kl_to(clean), scores.kl_to(rows), "kl_to", clean)
    return Measured(asked, getattr(ik, kind), getattr(scores, kind), kind)


def metric(draw: random.Random, model: Any) -> Case:
    of = measured(draw, model)
    while of.said == "own metric":
        of = measured(draw, model)
    batch_size = draw.choice([None, 1, 2])

    def right(_: Any) -> Numbers:
        found = {"value": edits.runs_of(model, of.asked, of.asked.rows, of.measure)}
        if of.said == "repeat_loss":
            found["without"] = edits.runs_of(model, of.asked, of.asked.rows, scores.first_copy_loss)
        return found

    call = partial(of.metric, model, of.asked.given, batch_size=batch_size)
    return Case(
        f"{of.said} on {of.asked.said} batch_size={batch_size}", call, right, (of.asked.given, of.passed)
    )


def loss_by_position(draw: random.Random, model: Any) -> Case:
    asked = drawn_prompts(draw, model, draw.choice(["any", "repeated"]))
    shortest = min(map(len, asked.rows))
    if shortest > 4 and draw.random() < 0.4:
        early, width = draw.randint(0, shortest - 4), draw.choice([1, 1, 2])
        late = draw.randint(early + 1, shortest - 2)

        def score(_: Any) -> Numbers:
            found = scores.losses_by_position(model, asked, max(map(len, asked.rows)))
            low, high = early - width // 2, late - width // 2
            band = found[:, high : high + width].mean(1) - found[:, low : low + width].mean(1)
            return {"value": band, "single": found[:, late] - found[:, early]}

        call = partial(ik.icl_score, model, asked.given, early=early, late=late, width=width)
        return Case(f"icl_score {early} {late} {width} on {asked.said}", call, score, (asked.given,))
    call = partial(ik.loss_by_position, model, asked.given, batch_size=draw.choice([None, 1]))
    return Case(
        f"loss_by_position on {asked.said}", call,
        lambda found: {"loss": scores.losses_by_position(model, asked, found.sizes["position"])}, (asked.given,),
    )  # fmt: skip


# Edits ------------------------------------------------------------------------------------------------------------


def some_heads(draw: random.Random, model: Any, n: int) -> list[tuple[int, int]]:
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(n)]
    return draw.sample(every, draw.randint(1, min(4, len(every))))


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
    if draw.random() < 0.3:
        mask: Any = lambda tokens, lengths: own_mask(tokens, lengths) & ~torch.eye(width, dtype=torch.bool)  # noqa: E731
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
        ik.patch, model, source=source.given, into=of.asked.given, site=site, metric=of.metric, progress=False, **options
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
            into.setdefault(layer, []).append(head)  # pyright: ignore[reportOptionalMemberAccess]
    last = max(into)
    senders = [
        (layer, head)
        for layer in range(n_layers)
        for head in range(model.cfg.n_heads)
        if edits.is_before(model, site, layer, last)
    ]
    chosen = draw.sample(senders, min(len(senders), 4)) if draw.random() < 0.6 and senders else None

    def right(_: Any) -> Numbers:
        value = edits.path_patch(
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


def attribution(draw: random.Random, model: Any) -> Case:
    of, site = measured(draw, model, smooth=True), draw.choice(SITES)
    edit, reference, held_tensor = edit_of(draw, model, of.asked, site)
    by, width = by_of(draw, site), ik.as_prompts(model, of.asked.given).tokens.shape[1]
    options = places_of(draw, model, site, by, width) | {"by": by, "qk_fix": draw.random() < 0.7}
    del options["positions"]

    def right(found: Any) -> Numbers:
        estimate = edits.attribution(
            model, of.asked, width, edit=edit, site=site, measure=of.measure, reference=reference, **options
        )
        return {"estimate": estimate, "baseline": edits.runs_of(model, of.asked, of.asked.rows, of.measure)}

    call = partial(
        ik.attribution, model, of.asked.given, edit=edit, site=site, metric=of.metric, progress=False, **options
    )  # fmt: skip
    said = f"attribution {type(edit).__name__} at {site} {options} {of.said} on {of.asked.said}"
    return Case(said, call, right, (of.asked.given, of.passed, held_tensor), loose=10)


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


VERBS: dict[str, tuple[int, Callable[[random.Random, Any], Case]]] = {
    "scorer": (6, scorer), "observe": (2, observe), "patterns": (2, patterns), "label_attention": (3, label_attention),
    "copying": (3, copying), "ov_eigenvalues": (1, ov_eigenvalues), "composition": (1, composition),
    "qk_trace": (1, qk_trace), "direct_effect": (3, direct_effect), "metric": (3, metric),
    "loss_by_position": (2, loss_by_position), "sweep": (14, sweep), "knock_out": (2, knock_out), "patch": (4, patch),
    "path_patch": (4, path_patch), "ablate": (3, ablate), "ablation_curve": (1, ablation_curve),
    "attribution": (6, attribution), "edited": (2, edited),
}  # fmt: skip
"""Verb -> how often, and a maker of cases."""
