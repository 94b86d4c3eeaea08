"""Mechanistic plausibility (argument 5 of Olsson et al. 2022): whether induction heads' weights match and copy.

In Olsson et al. 2022 an induction head looks for what a previous-token head wrote (QK-trace; K-composition, Elhage et
al. 2021) and copies what it attends to (OV eigenvalues). Two kinds of checks:

- for the induction heads (excess of prefix matching above EXCESS = 0.3), the mean OV eigenvalue score and the mean
  QK-trace lie above random rotations of the same circuits by more than SPREADS = 2 standard deviations of these;
- scores of weights, which involve no prompt, rank all heads as scores of behaviour do: Spearman's correlation is above
  CORRELATION = 0, of OV eigenvalues with the OLS copying score, of QK-traces with prefix matching (excess over the
  control), and of K-composition with earlier heads (a mean weighted by their previous-token scores) with induction
  (excess). The first pair correlates in untrained models too, because the copying score is made of the same weights:
  alone it shows only that two scores measure one thing.

For several models, the numbers of each are averaged (two models share no unit of the QK-trace), with the interval of a
mean over models: heads of one model are not independent. For one model the interval is over its heads (for
correlations, percentiles of a bootstrap); it is about other heads like these, not about other models. None of this is
proof that the circuit is used: see `_direct_ablation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..loading._sources import load
from ..model._anatomy import Model
from ..plots._scores import score_plot
from ..plots._style import words as in_words
from ..stats._correlations import correlation, correlation_interval
from ..stats._means import mean_interval
from ..training._merged import with_names
from ..training._phases import EXCESS
from ._argument import Argument, Inputs, Part, SixArguments
from ._circuit_scores import PAIRS, scores_of
from ._verdicts import STATED, Check, judge, not_defined

__all__ = ["MECHANISM", "mechanism"]


ABOVE = "standard deviations above random rotations"
CORRELATION = 0.0
SPREADS = 2.0
OF_SPREADS = 0.5
"""The half-width that `n_for` is computed for, in standard deviations of the random rotations."""
FEWEST = 6
"""Fewest heads that a correlation is computed over."""


def mechanism(
    models: Any,
    *,
    prompts: Any = None,
    correlation: float = CORRELATION,
    spreads: float = SPREADS,
    draws: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Whether induction heads match and copy by their weights, and whether weights rank all heads as behaviour does.

    The checks and their thresholds are at the top of this file.

    Args:
        models: a model, a name or folder to load, or a mapping label -> any of these (seeds, sizes), which are loaded
            one at a time.
        prompts: what the previous-token scores are measured on, as in `qk_trace`; the same for all models.
        correlation: threshold of Spearman's correlation, in [-1, 1).
        spreads: threshold of the induction heads' mean distance from random rotations, in standard deviations.
        draws: bootstrap samples over heads, at least 100.
        seed: of the rotations and the bootstrap.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset of the verdict (see `judge`; not defined without an induction head). Over (model, layer, head), NaN
        where undefined: `ov_eigenvalues` and `qk_trace`, with `..._spreads`, their distance above random rotations in
        standard deviations; `k_composition` (weighted mean, in [0, 1]); `copying`, `prefix_matching`, `induction` and
        `previous_token`; `is_induction`. Over `pair`: `pearson` and `spearman` with `_low` and `_high` (95%); over
        (model, pair): `model_pearson`, `model_spearman` and `heads`, the number of heads. Attributes: `left_out`, which
        pairs are undefined for some model, and why; `previous_token`, what those scores are measured on.

    Raises:
        TypeError: neither models nor sources.
        Refused: no models, a threshold of correlation outside [-1, 1), fewer than 100 draws.

    Source: Olsson et al. 2022, argument 5; Elhage et al. 2021.
    """
    if not -1 <= correlation < 1 or draws < 100:
        raise Refused(f"wanted correlation in [-1, 1) and draws >= 100, got {correlation} and {draws}")
    given = _by_label(models)
    parts, reasons, measured_on = [], {}, set[str]()
    for label, each in given.items():
        part, left_out = scores_of(_loaded(each), prompts, seed, progress)
        parts.append(part)
        measured_on.add(part.attrs["previous_token"])
        reasons |= {f"{pair} ({label})" if len(given) > 1 else pair: why for pair, why in left_out.items()}
    scores = xr.concat(parts, dim="model", join="outer", coords="minimal", compat="override")
    scores = with_names(scores.assign_coords(model=list(given)))
    found = scores.merge(_correlations(scores, draws, checked_seed(seed)))
    if not bool(found["is_induction"].any()):
        return not_defined(MECHANISM, f"no head's prefix matching exceeds its control by {EXCESS}")
    checks = _of_induction_heads(found, spreads, seed)
    for pair in PAIRS:
        heads = found["heads"].sel(pair=pair).values
        if (heads >= FEWEST).any():
            value, low, high = (
                float(found[f"spearman{end}"].sel(pair=pair)) for end in ("", "_low", "_high")
            )
            counted = _counted(heads[heads >= FEWEST], STATED)
            checks.append(Check(f"Spearman, {pair}", value, low, high, correlation, **counted))
    attrs: dict[str, str | int | float] = {"seed": seed, "draws": draws}
    attrs["left_out"] = "; ".join(f"{pair}: {why}" for pair, why in reasons.items()) or "none"
    attrs["previous_token"] = ", ".join(sorted(measured_on))
    return judge(MECHANISM, checks, found, attrs=attrs)


def _of_induction_heads(found: xr.Dataset, spreads: float, seed: int) -> list[Check]:
    """Checks of the induction heads' mean distance from random rotations: over models, or over the heads of one."""
    checks = []
    for key, words in (("ov_eigenvalues", "OV eigenvalues"), ("qk_trace", "QK-trace")):
        values = found[f"{key}_spreads"].where(found["is_induction"]).stack(cell=("layer", "head"))
        of_models = [row[np.isfinite(row)] for row in values.transpose("model", "cell").values]
        of_models = [row for row in of_models if len(row)]
        if not of_models:
            continue
        means = np.array([row.mean() for row in of_models]) if len(of_models) > 1 else of_models[0]
        low, high = (float(end) for end in mean_interval(means, seed=seed))
        name = f"{words} of induction heads, {ABOVE}"
        counted = _counted([len(row) for row in of_models], OF_SPREADS)
        checks.append(Check(name, float(means.mean()), low, high, spreads, **counted))
    return checks


def _counted(heads: Any, stated: float) -> dict[str, Any]:
    """The `n`, `of`, `stated` and `why` of a check, by the number of heads in each model."""
    if len(heads) > 1:
        return {"n": len(heads), "of": "models", "stated": stated}
    n = int(heads[0])
    why = f"the interval is over {n} heads of one model" if n > 1 else "one head alone has no interval"
    return {"n": n, "of": "heads", "stated": np.nan, "why": f"{why}; give several models (seeds)"}


def _by_label(models: Any) -> dict[str, Any]:
    given = dict(models) if isinstance(models, Mapping) else {_label(models): models}
    if not given:
        raise Refused("wanted at least one model, got an empty mapping")
    return {str(label): each for label, each in given.items()}


def _label(model: Any) -> str:
    if isinstance(model, str | Path):
        return str(model)
    return str(getattr(getattr(model, "cfg", None), "model_name", None) or "model")


def _loaded(model: Any) -> Model:
    return load(model) if isinstance(model, str | Path) else model


def _correlations(scores: xr.Dataset, draws: int, seed: int) -> xr.Dataset:
    """Pearson's and Spearman's correlation of every pair: of each model, and the mean over models with its interval."""
    n_models, shape = scores.sizes["model"], (scores.sizes["model"], len(PAIRS))
    heads = np.zeros(shape, dtype=np.int64)
    found = {kind: np.full(shape, np.nan) for kind in ("pearson", "spearman")}
    ends = {kind: np.full((2, len(PAIRS)), np.nan) for kind in found}
    for pair, keys in enumerate(PAIRS.values()):
        for model in range(n_models):
            x, y = (scores[key].isel(model=model).values.ravel() for key in keys)
            there = np.isfinite(x) & np.isfinite(y)
            heads[model, pair] = there.sum()
            if heads[model, pair] < FEWEST:
                continue
            x, y = x[there], y[there]
            for kind, values in found.items():
                values[model, pair] = correlation(x, y, kind)
                ends[kind][:, pair] = correlation_interval(x, y, kind, draws=draws, seed=seed)
    out: dict[str, Any] = {"heads": (("model", "pair"), heads)}
    for kind, values in found.items():
        several = np.isfinite(values).sum(0) > 1
        low, high = np.where(several, mean_interval(values, seed=seed), ends[kind])
        mean = np.array(
            [row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in values.T]
        )
        out |= {
            kind: ("pair", mean),
            f"{kind}_low": ("pair", low),
            f"{kind}_high": ("pair", high),
            f"model_{kind}": (("model", "pair"), values),
        }
    return xr.Dataset(out, {"pair": list(PAIRS)})


def _run(inputs: Inputs) -> xr.Dataset:
    return mechanism(inputs.model, seed=inputs.seed, progress=inputs.progress)


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    if not result.sizes["check"]:
        return
    yield (
        "One point for each head: the score of its weights, which involves no prompt, on the horizontal axis; what it "
        "does on prompts on the vertical axis. Diamonds are induction heads."
    )
    one = result.isel(model=0)
    yield [
        score_plot(_points(one, weights), _points(one, behaviour), title=_titled(weights, behaviour))
        for weights, behaviour in PAIRS.values()
        if np.isfinite(one[weights].values).any()
    ]
    if result.attrs["left_out"] != "none":
        yield f"Left out, because they are not defined: {result.attrs['left_out']}."


def _titled(weights: str, behaviour: str) -> str:
    return f"{in_words(behaviour)} against {in_words(weights)}; diamonds: induction heads"


def _points(one: xr.Dataset, key: str) -> xr.Dataset:
    """A score as `score_plot` takes it: `passes` marks induction heads, and `rank` decides which are named."""
    values = one[key].transpose("layer", "head")
    nothing = xr.full_like(values, np.nan, dtype=float)
    rank = np.argsort(np.argsort(-values.values, axis=None)).reshape(values.shape) + 1  # NaN ranks last
    found = {"mean": values, "passes": one["is_induction"], "rank": values.copy(data=rank)}
    found |= dict.fromkeys(("low", "high", "chance"), nothing)
    return xr.Dataset(found).drop_vars("model", errors="ignore").assign_attrs(method=key)


MECHANISM = Argument(
    name="mechanism",
    title="5 Mechanistic plausibility",
    claim="the weights of induction heads look for what previous-token heads wrote, and copy",
    paper=(
        "In the paper the weights of induction heads copy what they attend to (eigenvalues of the OV circuit), and "
        "look for tokens that a previous-token head in an earlier layer has marked (QK-trace, K-composition). The "
        "paper rates this as strong mechanistic evidence that induction heads make some of in-context learning in "
        "small models, and as medium evidence in large ones; that they make most of it, as weak evidence in models "
        "without MLPs, and as none in models with them."
    ),
    limits=(
        "That the weights could do it is no proof that the model works this way. The two scores of copying, by weights "
        "and by behaviour, correlate in untrained models too, and the weights of many other heads copy as well."
    ),
    primary=ABOVE,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)
