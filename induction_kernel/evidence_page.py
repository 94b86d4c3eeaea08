"""The page of the six arguments of Olsson et al. 2022 on one model, which needs no network.

Draws and words what `six_arguments` found (Olsson et al. 2022): for each argument what the paper says, the verdict with
its checks, the figures behind them, and what it does not show. It measures nothing itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import Refused
from .evidence._mechanism import PAIRS
from .evidence._saying import (
    LIMITS,
    PAPER,
    STRENGTH,
    check_rows,
    counted,
    ends_of,
    millions,
    said_of,
    title_of,
    window_rows,
)
from .evidence._six import SixArguments, six_arguments
from .evidence._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE
from .heads._summary import summarise
from .plots._effect_map import effect_map
from .plots._evidence import evidence_plot
from .plots._lines import line_plot
from .plots._loss_components import component_plot, slope_plot
from .plots._offline import figure_fragment, page, plotly_script
from .plots._phases import phase_plot
from .plots._scores import head_map, score_plot
from .stores import checked_target, write_whole
from .training._loss_components import loss_components, loss_slope
from .wording import percent, table

__all__ = ["write_evidence"]


def write_evidence(
    source: Any = "tiny",
    path: str | os.PathLike[str] = "evidence.html",
    *,
    prompts: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Put a model through the six arguments of Olsson et al. 2022 and write one self-contained HTML page about them.

    Args:
        source: a model, a run's folder or a name, as in `six_arguments`; or what that has returned, which is then only
            drawn.
        path: where the page goes; an existing file is replaced in one step. It fetches nothing (5 MB).
        prompts: as in `six_arguments`: a text, where the model does not read the synthetic language.
        seed: of all prompts and draws.
        progress: show progress bars.

    Returns:
        The path written.

    Raises:
        TypeError: neither a source nor a model, prompts of no known form.
        Refused: as `six_arguments`; a path whose folder does not exist; prompts for what is measured already.
    """
    if isinstance(source, SixArguments) and prompts is not None:
        raise Refused("wanted prompts for a model, got them for results: give them to six_arguments")
    checked_target(path)
    found = (
        source
        if isinstance(source, SixArguments)
        else six_arguments(source, prompts=prompts, seed=seed, progress=progress)
    )
    title = f"Induction heads and in-context learning in {escape(found.model)}"
    body = [f"<script>{plotly_script()}</script>", f"<h1>{title}</h1>", _outcome(found)]
    for name, result in found.results.items():
        body.append(_heading(name, result))
        body += [figure_fragment(evidence_plot(result, title="checks"))] if result.sizes["check"] else []
        body += _PARTS[name](found, result)
        body.append(f"<p><b>What this does not show.</b> {LIMITS[name]}</p>")
    body.append(_making(found))
    return write_whole(path, page(title, "\n".join(body)))


def _outcome(found: SixArguments) -> str:
    """How many hold, and all verdicts at once."""
    families = (
        '<p class="note">Arguments 2 and 6 are about the families of models that come with the package (one and '
        "two layers, with smeared keys and without, several seeds each), which learned the same language: about "
        "models like this one, not about this one.</p>"
        if found.shipped
        else ""
    )
    rows = check_rows(found.results)
    return f"""<p class="lead">Of the six arguments of Olsson et al. 2022 that induction heads make most of in-context
learning, <b>{counted(found.results)}</b>.</p>
{table(["argument", "verdict", "checks that hold", "contradicted", "inconclusive"], rows)}{families}
<p>A check holds if its whole 95% interval lies beyond its threshold, is contradicted if the whole interval lies on the
other side, and is inconclusive if the threshold lies within: too little was measured to say. An argument holds if every
check does, is contradicted if one is, and is inconclusive else, also where something is missing that it takes. It is
not defined where it has no meaning on the model. <b>In-context-learning
score</b>: mean loss late in the context minus mean loss early, in nats; the lower, the more the model makes of what it
has read.</p>"""


def _heading(name: str, result: xr.Dataset) -> str:
    verdict = str(result.attrs["verdict"])
    parts = [f"<h2>{title_of(name)}: {escape(verdict)}</h2>", f"<p>{PAPER[name]} {STRENGTH[name]}</p>"]
    if not result.sizes["check"]:
        parts.append(f'<p class="note">{verdict.capitalize()}: {escape(str(result.attrs["reason"]))}.</p>')
        return "\n".join(parts)
    words = result["verdict"].values
    parts.append(f"<p><b>Here</b> {int((words == HOLDS).sum())} of {len(words)} checks hold.</p>")
    for word in (CONTRADICTED, INCONCLUSIVE):
        said = [said_of(result.isel(check=at)) for at in np.flatnonzero(words == word)]
        parts += [f"<p>{word.capitalize()}: {escape('; '.join(said))}.</p>"] if said else []
    return "\n".join(parts)


def _curves(found: SixArguments, result: xr.Dataset) -> Iterator[str]:
    if found.curves is None or found.window is None:
        return
    curves, window = found.curves.assign_attrs(model=found.model), found.window
    if bool(window["exists"]):
        start, end, share = ends_of(window)
        yield f"""<p>The window is {escape(str(window.attrs["rule"]))}. Here it reaches from {start} to {end} tokens,
and {share} of the final score forms in it. {_order(window)}</p>"""
    yield figure_fragment(phase_plot(curves, window))
    yield """<p>The losses of one token of each text at every checkpoint, along their first two principal components
(from a quarter of the way to the window on; rimmed points are in it), and how much each further token in the context
helps.</p>"""
    from_here = float(window["start"] if bool(window["exists"]) else curves["tokens"].max()) / 4
    late = curves.sel(checkpoint=curves["tokens"].values > from_here)  # the first descent dwarfs what follows
    yield figure_fragment(component_plot(loss_components(late).assign_attrs(model=found.model), window))
    yield figure_fragment(slope_plot(loss_slope(curves).sel(position=slice(9, None)), window))


def _order(window: xr.Dataset) -> str:
    order = window.sortby("onset")
    said = [
        f"{str(one['curve'].item()).replace('_', ' ').replace('icl', 'ICL')} at {millions(one['onset'])} "
        f"({millions(one['onset_low'])} to {millions(one['onset_high'])})"
        for one in (order.isel(curve=at) for at in range(order.sizes["curve"]))
    ]
    return f"In the order in which they turn: {'; '.join(said)}."


def _families(found: SixArguments, result: xr.Dataset) -> Iterator[str]:
    if found.families is None or found.family_windows is None:
        return
    yield figure_fragment(phase_plot(found.families, found.family_windows))
    dims = [dim for dim in ("model", "seed") if dim in found.family_windows.dims]
    yield table(
        [*dims, "start of the window", "end", "of the score formed in it"], window_rows(found.family_windows)
    )


def _removed(found: SixArguments, result: xr.Dataset) -> Iterator[str]:
    if not result.sizes["check"]:
        return
    yield f"""<p>Induction heads, chosen at the end of training on other prompts: {result.attrs["induction_heads"]}.
Removed: their output replaced by zero, by its mean over a control, or by zero with all attention patterns held
("patterns"), so that only values move.</p>"""
    mode = result.sel(mode="mean")
    if "checkpoint" in result.dims:
        yield from _along(found, mode.swap_dims(checkpoint="tokens"))
        mode = mode.isel(checkpoint=-1)
    if "phase" in result.dims:
        yield """<p>Share of the score that goes with them, in the three phases. Before the window there is next to no
score to lose, so its share may be of almost any size:</p>""" + _phases(result)
    if "icl_effect" in mode:
        effect = mode[["icl_effect"]].rename(icl_effect="effect").drop_vars("mode").drop_attrs()
        yield figure_fragment(
            effect_map(
                effect.assign_attrs(unit="nats"),
                title="score lost without one head at the end",
            )
        )


def _along(found: SixArguments, mode: xr.Dataset) -> Iterator[str]:
    """What removing costs at each checkpoint: all induction heads, random heads, and the strongest heads alone."""
    groups = {
        "induction heads": _lost(mode["icl_joint"]),
        "random heads": _lost(mode["icl_control"].mean("prompt")),
    }
    yield figure_fragment(
        line_plot(
            groups, "lost", over="tokens",
            title="in-context-learning score lost without heads (mean replacement)",
        )
    )  # fmt: skip
    if "icl_effect" in mode:
        every = mode["icl_effect"].stack(cell=("layer", "head")).assign_coords(tokens=mode["tokens"])
        last = np.abs(every.mean("prompt").isel(tokens=-1).values)
        best = every.isel(cell=np.argsort(-last)[:6])
        alone = {
            str(name): _lost(best.isel(cell=at, drop=True).reset_coords(drop=True))
            for at, name in enumerate(best["name"].values)
        }
        title = "the same for single heads: the six that cost most at the end"
        yield figure_fragment(line_plot(alone, "lost", over="tokens", title=title))


def _lost(effect: xr.DataArray) -> xr.Dataset:
    return xr.Dataset({"lost": effect.assign_attrs(unit="nats")})


def _phases(result: xr.Dataset) -> str:
    rows = []
    for phase in result["phase"].values:
        for mode in result["mode"].values:
            one = result.sel(phase=phase, mode=mode)
            value, low, high = (percent(float(one[f"phase_icl_share{end}"])) for end in ("", "_low", "_high"))
            random = one["phase_icl_control_share"].values
            rows.append([
                str(phase), str(mode), value if value == "–" else f"{value} ({low} to {high})",
                percent(float(random.mean())), f"{percent(float(random.min()))} to {percent(float(random.max()))}",
            ])  # fmt: skip
    header = ["phase", "replaced by", "share lost", "with random heads", "least and most of draws"]
    return table(header, rows)


def _behaviours(found: SixArguments, result: xr.Dataset) -> Iterator[str]:
    if not result.sizes["check"]:
        return
    yield f"""<p>Heads chosen on repeated random tokens: {result.attrs["heads"]}. Below, where every head looks, and
what its weights copy; a white dot marks the heads beyond the threshold of their own behaviour. Translation:
{escape(str(result.attrs["translation"]))}.</p>"""
    yield figure_fragment(
        head_map(_by_behaviour(result), title=f"{escape(found.model, quote=False)}: behaviours, head by head")
    )


def _by_behaviour(result: xr.Dataset) -> xr.Dataset:
    """The summaries of all behaviours, over `scorer`."""
    parts: list[xr.Dataset] = []
    for name in result["behaviour"].values:
        one = result.sel(behaviour=name)[["score", "control"]].dropna("prompt", how="all")
        scores = one.assign(chance=one["control"]).drop_vars("behaviour")
        parts.append(summarise(scores).assign_coords(scorer=str(name)))
    return xr.concat(parts, "scorer", coords=["null", "untested"], compat="override")


def _weights(found: SixArguments, result: xr.Dataset) -> Iterator[str]:
    if not result.sizes["check"]:
        return
    yield """<p>A point for each head: to the right what its weights say, which have seen no prompt, upwards what it
does on prompts. Diamonds are induction heads.</p><div class="row">"""
    one = result.isel(model=0)
    for weights, behaviour in PAIRS.values():
        if np.isfinite(one[weights].values).any():
            yield figure_fragment(score_plot(*(_points(one, key) for key in (weights, behaviour))))
    yield "</div>"
    if result.attrs["left_out"] != "none":
        yield f'<p class="small">Left out: {escape(str(result.attrs["left_out"]))}.</p>'


def _points(one: xr.Dataset, key: str) -> xr.Dataset:
    """A score as `score_plot` takes it: induction heads are diamonds, the strongest of them with their names."""
    values = one[key].transpose("layer", "head")
    nothing = xr.full_like(values, np.nan, dtype=float)
    rank = np.argsort(np.argsort(-values.values, axis=None)).reshape(values.shape) + 1  # NaN is last
    found = {
        "mean": values,
        "low": nothing,
        "high": nothing,
        "chance": nothing,
        "passes": one["is_induction"],
    }
    found["rank"] = values.copy(data=rank)
    return xr.Dataset(found).drop_vars("model", errors="ignore").assign_attrs(method=key)


def _making(found: SixArguments) -> str:
    said = found.results["mechanism"].attrs
    curves = "" if found.curves is None else f" {found.curves.sizes['checkpoint']} checkpoints;"
    return f"""<h2>How this page was made</h2>
<ul>
<li>{escape(found.model)};{curves} seed {found.seed}. The thresholds are those that the functions of the arguments
state in their docstrings; they can be changed there.</li>
<li>Arguments and measures: Olsson et al. 2022, In-context Learning and Induction Heads (arXiv 2209.11895).
Composition: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits. The rule of the window is this
package's own; the paper states none.</li>
<li>Intervals: 95%. Means: Student's t, from 8 values on with the bootstrap-t interval where values are skewed; ratios:
Fieller's, likewise; shares of seeds: Wilson's; places of windows and correlations over heads: percentile bootstrap. The
n that a stated half-width would take is n times the square of half-width over stated half-width.</li>
<li>induction_kernel {escape(str(said["induction_kernel"]))}.</li>
</ul>
<pre>import induction_kernel as ik

found = ik.evidence.six_arguments(source, seed={found.seed})  # and a text, prompts=..., where it reads another language
ik.write_evidence(found, "evidence.html")</pre>"""


_PARTS: dict[str, Callable[[SixArguments, xr.Dataset], Iterator[str]]] = {
    "co_occurrence": _curves,
    "co_perturbation": _families,
    "direct_ablation": _removed,
    "generality": _behaviours,
    "mechanism": _weights,
    "continuity": lambda found, result: iter(()),
}
