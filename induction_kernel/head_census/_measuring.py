"""Behaviours measured on a model: attention scores on the same prompts in one pass, shared measures once.

A measure that two behaviours share is the direct effect, and its opposite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from ..errors import NotDefined
from ..model._anatomy import Model
from ..prompts._prompts import Prompts
from ..scorers._attention_scorer import AttentionScorer, observe
from ._behaviours import Behaviour
from ._own_prompts import Drawn

__all__ = ["results_of"]


def results_of(
    model: Model, behaviours: Iterable[Behaviour], prompts: Mapping[str, Prompts | Drawn | str], *, progress: bool
) -> dict[str, xr.Dataset | str]:  # fmt: skip
    """What was measured of each behaviour, by name and in their order; or why it has no meaning on this model.

    Args:
        model: the model.
        behaviours: to be measured.
        prompts: for each set its prompts, or what to draw, or why the model has none.
        progress: show progress bars.
    """
    wanted, made = list(behaviours), dict[tuple[str, int], xr.Dataset | str]()
    for on, ready in prompts.items():
        here = [each for each in wanted if each.on == on]
        made |= {(on, id(each.measure)): ready for each in here if isinstance(ready, str)}
        if isinstance(ready, str) or not here:
            continue
        scorers = {
            id(each.measure): each.measure for each in here if isinstance(each.measure, AttentionScorer)
        }
        if scorers:
            found = observe(model, ready, list(scorers.values()), progress=progress)
            for at, key in enumerate(scorers):
                made[on, key] = found.isel(scorer=at)
        for each in here:
            if (on, id(each.measure)) not in made:
                made[on, id(each.measure)] = _measured(model, each, ready, progress)
    return {each.name: _as_score(made[each.on, id(each.measure)], each) for each in wanted}


def _measured(model: Model, behaviour: Behaviour, prompts: Any, progress: bool) -> xr.Dataset | str:
    try:
        return behaviour.measure(model, prompts, progress=progress)
    except NotDefined as reason:
        return str(reason)


def _as_score(result: xr.Dataset | str, behaviour: Behaviour) -> xr.Dataset | str:
    """The tested variable as `score` with its control, its sign turned where low values show the behaviour."""
    if isinstance(result, str):
        return result
    if behaviour.variable is not None:
        if behaviour.variable not in result:
            return f"{behaviour.name} is not known on these prompts: they do not say what is right"
        control = result[f"{behaviour.variable}_control"]
        result = result.assign(score=result[behaviour.variable], control=control).assign_coords(tested=True)
    if behaviour.sign < 0:
        turned = {key: -result[key] for key in ("score", "control", "chance", "null") if key in result}
        result = result.assign(turned)
    said = {"method": behaviour.name, "title": behaviour.meaning, "paper": behaviour.paper}
    return result.assign_attrs(said).assign_coords(scorer=behaviour.name)
