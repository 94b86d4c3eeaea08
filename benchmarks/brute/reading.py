"""Random calls of the scorers and metrics."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

import induction_kernel as ik

from . import edits, scores, writing
from .calls import Case, Numbers, measured, some_heads, some_layers
from .prompts import Asked, answered, drawn_prompts
from .runs import name, sees_all


def own_mask(tokens: Any, lengths: Any) -> Any:
    i = torch.arange(tokens.shape[1])
    return scores.own_entry(tokens[:, :, None], tokens[:, None], i[:, None], i[None])


SCORERS = {
    "induction": ik.induction, "prefix_matching": ik.prefix_matching, "previous_token": ik.previous_token,
    "duplicate_token": ik.duplicate_token, "own": ik.AttentionScorer("own", own_mask),
}  # fmt: skip


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
    one_run = (
        not sees_all(model) or len(set(map(len, asked.rows))) == 1
    )  # else the user's own run sees padding
    whole = asked.said in ("tensor", "Prompts") or asked.said.startswith("repeated")
    if one_run and whole and draw.random() < 0.3:
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
    right = partial(writing.pattern_of, model, asked, sorted(set(heads), key=heads.index))
    return Case(f"patterns of {heads} on {asked.said}", call, lambda _: right(), (asked.given,), loose=100)


def label_attention(draw: random.Random, model: Any) -> Case:
    asked, options = drawn_prompts(draw, model, "shots"), options_of(draw, model)
    pooling, layers = draw.choice(["label", "max", "sum", "mean"]), all_or(options["layers"], model)
    if draw.random() < 0.5:
        span = draw.choice(["demonstration", "words"] if asked.said == "few_shot" else ["demonstration"])
        call = partial(
            ik.scorers.demonstration_weights, model, asked.given, pooling=pooling, span=span, **options
        )
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
    method, centre = draw.choice(["OLS", "BAN", "BAN-source"]), draw.choice(["vocabulary", "sample"])
    call = partial(ik.copying, model, asked.given, method=method, centre=centre, **options)
    right = partial(writing.copying, model, asked, method, centre, all_or(options["layers"], model))
    return Case(
        f"copying {method} {centre} on {asked.said} {options}", call, lambda _: right(), (asked.given,)
    )


def ov_eigenvalues(draw: random.Random, model: Any) -> Case:
    layers, embedding = some_layers(draw, model), draw.choice(["tokens", "tokens", "effective"])
    call = partial(ik.ov_eigenvalues, model, embedding=embedding, layers=layers, draws=3, progress=False)

    def right(found: Any) -> Numbers:
        score = writing.ov_eigenvalues(model, embedding, all_or(layers, model))
        return {"score": score, "chance": found["null"].values.mean(0)}

    return Case(f"ov_eigenvalues {embedding} {layers}", call, right, loose=100)


def composition(draw: random.Random, model: Any) -> Case:
    by = draw.choice(["k", "q", "v"])
    call = partial(ik.composition, model, by=by, progress=False)
    return Case(f"composition {by}", call, lambda _: {"score": writing.composition(model, by)}, loose=10)


def qk_trace(draw: random.Random, model: Any) -> Case:
    asked = for_attention(draw, model, ["previous_token"])
    call = partial(ik.qk_trace, model, asked.given, draws=2, progress=False)
    return Case(
        f"qk_trace on {asked.said}",
        call,
        lambda _: {"score": writing.qk_trace(model, asked)},
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
    right = partial(writing.direct_effect, model, asked, on, all_or(options["layers"], model))
    return Case(
        f"direct_effect {on} on {asked.said} {options}", call, lambda _: right(), (asked.given,), loose=10
    )


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
