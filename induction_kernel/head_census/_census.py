"""`census`: every behaviour of every head in one Dataset, with chance, control, interval, and the names heads earn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ..heads._averages import VARIABLES
from ..heads._summary import summarise
from ..model._anatomy import Model, check_model, describe
from ..prompts._conversion import as_prompts
from ..prompts._needles import needles
from ..prompts._prompts import Prompts
from ..prompts._prose import ordinary_text, what_is_read
from ..prompts._repeated import repeated_tokens
from ..prompts._word_task import word_episodes
from ..scorers._text_sizes import head_sizes
from ._behaviours import (
    COPIES,
    FEW_SHOT,
    NEEDLES,
    OWN,
    REPEATS,
    TEXT,
    Behaviour,
    check_least,
    chosen_behaviours,
)
from ._fingerprint import fingerprints, names, strengths, tested_together
from ._measuring import results_of
from ._own_prompts import Drawn
from ._passages import check_rows, passages

__all__ = ["census", "prompts_of", "text_prompts"]

LEAST = 12  # prompts: six to choose heads on, six to report on
DESCRIBED = ("sink", "entropy_share", "distance", "norm", "content")


def census(
    model: Model,
    *,
    text: Any = None,
    behaviours: Iterable[str | Behaviour] | None = None,
    n_prompts: int = 32,
    rows: int = 3,
    level: float = 0.05,
    least: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """What every head does: all behaviours with chance, control and interval, the names it earns, what it looks at.

    A head is *named* after a behaviour if its excess passes the max-statistic threshold over all heads at the level
    that Holm's procedure leaves to the behaviour, and its strength is not below the least one: so at most 5% of models
    without any such head show a named one (at `level` .05), and no name stands for a trace. An unnamed head may do
    something that is not in the list, or too little of what is to be told from chance on these prompts.
    Attention is not effect; only `direct_effect`, `copy_suppression`, `function_vector`, `token_copying` and
    `concept_copying` look at outputs.

    | scored on | behaviours |
    |---|---|
    | random tokens, twice | `induction`, `duplicate_token`, `direct_effect`, `copy_suppression` |
    | random tokens, four times | `prefix_matching` |
    | ordinary text | `previous_token`, `first_token`, `current_token` |
    | facts hidden in text, and a question | `retrieval` |
    | few-shot prompts with made-up labels | `label_attention` |
    | few-shot prompts of the tasks that ship (`data.word_pairs`) | `function_vector` |
    | an entity that comes again in text | `token_copying`, `concept_copying` |
    | random tokens; the weights alone | `copying`; `ov_eigenvalues` |

    Args:
        model: any TransformerLens model; given back as it was.
        text: for the behaviours that are scored on ordinary text, and for the passages: one text, from which windows of
            64 tokens are drawn, or several prompts in any form that `as_prompts` takes; None for prose that ships with
            the package, or what `prompts.ordinary_text` takes for a model that does not read English.
        behaviours: names of `head_census.BEHAVIOURS`, or `Behaviour` of your own; None for all.
        n_prompts: prompts of each set, at least 12. Below about 10 in a set nothing can be named at these levels.
        rows: passages of each head, 1 to 8.
        level: probability that any behaviour is named which no head of the model has.
        least: least strength of a name on the first half, in [0, 1); None for that of each behaviour
            (`Behaviour.least`): .1 for attention, .01 for effects; 0 for names by significance alone.
        seed: of prompts and resamplings.
        progress: show progress bars.

    Returns:
        Dataset. `census.sel(scorer="induction")` is what `summarise` returns for that score, so `head_table`,
        `top_heads` and `head_map` take it. Beside the variables of `summarise` over (scorer, layer, head):

        | variable | over | meaning |
        |---|---|---|
        | `named` | scorer, layer, head | 1 or 0, NaN if not tested: passes at `named_level` and is not below `least` |
        | `first_half`, `second_half` | scorer, layer, head | strength on every other prompt, in [0, 1] |
        | `fingerprint` | layer, head | names, strongest first; or "unnamed", and what could not be tested of it |
        | `behaviour` | layer, head | the name that sets the head apart; "" without one |
        | `particular` | layer, head | by how much it does, in [0, 1] |
        | `n_tested` | layer, head | behaviours that could be tested |
        | `sink`, `entropy_share`, `distance`, `norm`, `content` | layer, head | means of `head_sizes` on the text |
        | `weighted`, `weight`, `query_text`, `key_text`, ... | layer, head, row | as of `head_census.passages` |

        Strength is the excess as a share of the largest possible one or, in logits, of that of all heads together. A
        head is set apart by the name with the largest strength (first half) times share of heads not named so:
        `particular`; not by a name that another of its names explains (`Behaviour.beyond`). The means of `head_sizes`
        describe heads; they are never tested.

        Coordinates by `scorer`: `meaning`, `source` (the paper), `prompts`, `unit`, `null`, `untested`, `named_level`,
        `least`. The attribute `left_out` says which behaviours have no meaning on this model, and why; `text` what
        text was read.

    Raises:
        TypeError: not a model, behaviours that are neither names nor `Behaviour`.
        Refused: fewer than 12 prompts, an unknown behaviour, a level that is not between 0 and 1, a least strength
            below 0 or not below 1, attention that is not finite.
        NotDefined: no behaviour has a meaning on this model.

    Source: the definitions are those of the papers in `source`; thresholds Westfall & Young 1993, levels Holm 1979.
    """
    check_model(model)
    chosen = chosen_behaviours(behaviours)
    if not is_whole(n_prompts) or n_prompts < LEAST:
        raise Refused(
            f"wanted n_prompts >= {LEAST} (six to choose heads on, six to report on), got {n_prompts!r}"
        )
    if not 0 < level < 1:
        raise Refused(f"wanted level between 0 and 1, got {level}")
    check_rows(rows)
    if least is not None:
        check_least(least)
        chosen = [replace(each, least=float(least)) for each in chosen]
    seed = checked_seed(seed)
    prompts, said = prompts_of(model, text, n_prompts=n_prompts, seed=seed)
    results = results_of(model, chosen, prompts, progress=progress)
    measured = {name: each for name, each in results.items() if not isinstance(each, str)}
    if not measured:
        raise NotDefined(f"no behaviour has a meaning on this model: {next(iter(results.values()))}")
    found = _together([each for each in chosen if each.name in measured], measured, level=level, seed=seed)
    words = prompts[TEXT]
    assert isinstance(words, Prompts)  # every model has text, if only of random tokens
    seen = passages(model, words, rows=rows, progress=progress)
    described = head_sizes(model, words, progress=progress)[list(DESCRIBED)].mean("prompt")
    out = xr.merge([found, described, seen], compat="override", join="exact", combine_attrs="drop")
    left = "; ".join(f"{name}: {each}" for name, each in results.items() if isinstance(each, str))
    return out.assign_attrs(
        method="census", title="behaviours of every head", level=float(level),
        least="of each behaviour" if least is None else f"{least:g}", seed=seed, n_prompts=int(n_prompts), text=said,
        left_out=left, **describe(model),
    )  # fmt: skip


def prompts_of(
    model: Model, text: Any, *, n_prompts: int, seed: int
) -> tuple[dict[str, Prompts | Drawn | str], str]:
    """The sets of prompts by name, or why the model has none; and what the ordinary text is."""
    makers: dict[str, Callable[[], Prompts]] = {
        REPEATS: lambda: repeated_tokens(model, prompts=n_prompts, seed=seed),
        COPIES: lambda: repeated_tokens(model, repeats=4, prompts=n_prompts, seed=seed),
        NEEDLES: lambda: needles(model, prompts=n_prompts, seed=seed),
        FEW_SHOT: lambda: word_episodes(model, prompts=n_prompts, seed=seed),
    }
    words, said = text_prompts(model, text, n_prompts=n_prompts, seed=seed)
    made: dict[str, Prompts | Drawn | str] = {TEXT: words, OWN: Drawn(n_prompts, seed)}
    for name, make in makers.items():
        try:
            made[name] = make()
        except NotDefined as reason:
            made[name] = str(reason)
    return made, said


def text_prompts(model: Model, text: Any, *, n_prompts: int, seed: int) -> tuple[Prompts, str]:
    """Prompts of ordinary text, and what the text is: windows of one long text, or several prompts as they are."""
    if text is None:
        return ordinary_text(model, prompts=n_prompts, seed=seed), what_is_read(model)
    if isinstance(text, str):
        return ordinary_text(model, text, prompts=n_prompts, seed=seed), "windows of the text given"
    given = as_prompts(model, text)
    if len(given) < LEAST:
        raise Refused(
            f"wanted text as at least {LEAST} prompts (six to choose heads on, six to report on), got {len(given)}: "
            "pass more, or one long text"
        )
    return given, "the prompts given"


def _together(
    behaviours: list[Behaviour], results: Mapping[str, xr.Dataset], *, level: float, seed: int
) -> xr.Dataset:
    """Summaries side by side, with names, strengths and fingerprints."""
    summaries = {each.name: summarise(results[each.name], seed=seed) for each in behaviours}
    by_prompt = {
        each.name: results[each.name]
        for each in behaviours
        if each.named and bool(summaries[each.name]["tested"].any())
    }
    held = tested_together(by_prompt, level=level, seed=seed)
    found = xr.concat([_one(summaries[each.name]) for each in behaviours], "scorer", coords=["null", "untested"],
                      compat="override", join="outer", combine_attrs="drop")  # fmt: skip
    dims = ("scorer", "layer", "head")
    nothing = np.full(tuple(found.sizes[dim] for dim in dims[1:]), np.nan)
    halves = [strengths(results[each.name], each) for each in behaviours]
    named = [
        names(held[each.name][1]["passes"].values, one, each.least) if each.name in held else nothing
        for each, (one, _) in zip(behaviours, halves, strict=True)
    ]
    found = found.assign(
        named=(dims, np.stack(named)), first_half=(dims, np.stack([one for one, _ in halves])),
        second_half=(dims, np.stack([two for _, two in halves])),
    ).assign_coords(_about(behaviours, results, held))  # fmt: skip
    said = {key: found[key].fillna("").astype(str) for key in ("null", "untested")}
    readable = {each.name: each.name.replace("_", " ") for each in behaviours}
    of_heads = fingerprints(found, readable, {each.name: each.beyond for each in behaviours})
    found = found.assign_coords(said)
    return found.assign({key: (dims[1:], value) for key, value in of_heads.items()})


def _one(summary: xr.Dataset) -> xr.Dataset:
    """A summary with every variable that any has."""
    like = summary["mean"]
    missing = {key: xr.full_like(like, np.nan) for key in VARIABLES if key not in summary and key != "size"}
    out = summary.drop_vars("size", errors="ignore").assign(missing)
    return out.assign_coords({key: summary[key].astype(object) for key in ("null", "untested")})


def _about(
    behaviours: list[Behaviour], results: Mapping[str, xr.Dataset], held: Mapping[str, tuple[float, xr.Dataset]]
) -> dict[str, Any]:  # fmt: skip
    """Coordinates along `scorer`."""
    said = {
        "meaning": [each.meaning for each in behaviours],
        "source": [each.paper for each in behaviours],
        "prompts": [each.on for each in behaviours],
        "unit": [str(results[each.name].attrs.get("unit", "")) for each in behaviours],
        "named_level": [held[each.name][0] if each.name in held else np.nan for each in behaviours],
        "least": [float(each.least) for each in behaviours],
    }
    return {key: ("scorer", np.array(values)) for key, values in said.items()}
