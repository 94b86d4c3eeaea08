"""Sentences and rows about verdicts, for the page and the command line: the paper's claims, what was found, its limits.

After Olsson et al. 2022, In-context Learning and Induction Heads. It computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE, NOT_DEFINED

__all__ = [
    "LIMITS",
    "PAPER",
    "STRENGTH",
    "check_rows",
    "counted",
    "ends_of",
    "millions",
    "said_of",
    "title_of",
    "window_rows",
]

TITLES = {
    "co_occurrence": "1 Co-occurrence",
    "co_perturbation": "2 Co-perturbation",
    "direct_ablation": "3 Direct ablation",
    "generality": "4 Generality",
    "mechanism": "5 Mechanistic plausibility",
    "continuity": "6 Continuity",
}
PAPER = {
    "co_occurrence": (
        "In the paper all models of two and more layers, and none of one, go through a short phase early in "
        "training. In it the in-context-learning score falls from above −0.15 to about −0.4 nats (over 75% of it "
        "forms there), induction heads appear, and the path of the losses turns."
    ),
    "co_perturbation": (
        "A smeared key mixes each key with the one before it, so that a head finds what followed a token without "
        "the help of an earlier layer. In the paper one-layer models then go through the phase change, which they "
        "never do without, and deeper ones go through it earlier."
    ),
    "direct_ablation": (
        "In the paper's attention-only models most of the in-context-learning score goes when induction heads are "
        "removed."
    ),
    "generality": (
        "In the paper, heads that copy literally also attend to the right word in a translation, and to the "
        "labels of earlier lines of the same category in an abstract pattern."
    ),
    "mechanism": (
        "In the paper the weights of induction heads copy what they attend to (eigenvalues of the OV circuit), "
        "and look for tokens that a previous-token head of an earlier layer has marked (QK-trace, K-composition)."
    ),
    "continuity": (
        "In the paper the same curves and the same heads are seen in models of all sizes, and the argument is "
        "that what causes in-context learning in small ones is not likely to be another thing in large ones."
    ),
}
STRENGTH = {
    "co_occurrence": "The paper rates this evidence medium and correlational, for models of every kind and size.",
    "co_perturbation": "The paper rates this evidence medium and interventional, and weak for large models.",
    "direct_ablation": (
        "The paper rates this evidence strong and causal that induction heads make some of in-context learning in "
        "small models; that they make most of it, strong without MLPs and medium with them. For large models it has "
        "none."
    ),
    "generality": "The paper counts this as plausibility, and has it for large models alone.",
    "mechanism": (
        "The paper rates this evidence strong and mechanistic that induction heads make some of in-context learning in "
        "small models, and medium in large ones; that they make most of it, weak without MLPs, and none with them."
    ),
    "continuity": "The paper counts this as an analogy, and needs it for large models alone.",
}
"""How strong the paper itself takes its evidence to be."""
LIMITS = {
    "co_occurrence": (
        "That things come at once is no proof that one makes the other: a third, such as the composition of layers in "
        "general, may make both. Intervals over the prompts of one run do not say where the window of another seed "
        "would be."
    ),
    "co_perturbation": (
        "Smeared keys may help other heads than induction heads. The shift is one of training, not of what the "
        "trained model does."
    ),
    "direct_ablation": (
        "Without a head the model reads what no text gives it, so three replacements are compared, each beside "
        "random heads of the same layers. What the heads were before the window is not what they are now. A score "
        "in a synthetic language, or on one text, is not all of in-context learning."
    ),
    "generality": (
        "Attention is not effect: in patterns and translations what heads look at is read, and nothing is "
        "removed. The tasks are few and simple."
    ),
    "mechanism": (
        "That the weights could do it is no proof that they are what does it. The score of weights for copying "
        "and the one of behaviour go together in untrained models too, and many heads that are no induction heads copy "
        "by their weights."
    ),
    "continuity": (
        "Models are few, chosen and small, so that no step to large ones follows. In large models the paper itself "
        "removes no heads: what it says of them rests on correlations, weights and this analogy."
    ),
}


def title_of(name: str) -> str:
    """ "1 Co-occurrence"."""
    return TITLES[name]


def check_rows(results: Mapping[str, xr.Dataset]) -> list[list[str]]:
    """A row for each argument: its title, verdict, and how many of its checks hold, are contradicted and open."""
    words = (HOLDS, CONTRADICTED, INCONCLUSIVE)
    return [
        [
            title_of(name),
            str(each.attrs["verdict"]),
            *(str(int((each["verdict"] == word).sum())) if each.sizes["check"] else "" for word in words),
        ]
        for name, each in results.items()
    ]


def counted(results: Mapping[str, xr.Dataset]) -> str:
    """How many arguments have which verdict: "2 hold, 1 is contradicted, 3 are inconclusive"."""
    verdicts = [str(each.attrs["verdict"]) for each in results.values()]
    parts = []
    for word in (HOLDS, CONTRADICTED, INCONCLUSIVE, NOT_DEFINED):
        n = verdicts.count(word)
        verb = ("holds" if n == 1 else "hold") if word == HOLDS else f"{'is' if n == 1 else 'are'} {word}"
        parts += [f"{n} {verb}"] if n else []
    return ", ".join(parts)


def window_rows(windows: xr.Dataset) -> list[list[str]]:
    """A row for each run, by `model` and `seed`: start, end and share of the score, each with its interval."""
    dims = [dim for dim in ("model", "seed") if dim in windows.dims]
    rows = []
    for _, run in windows.stack(run=dims).groupby("run", squeeze=False) if dims else [(None, windows)]:
        one = run.isel(run=0) if dims else run
        named = [str(one[dim].item()) for dim in dims]
        rows.append([*named, *(ends_of(one) if bool(one["exists"]) else ["no window", "", ""])])
    return rows


def ends_of(one: xr.Dataset) -> list[str]:
    """Start and end of one window in tokens, and the share of the score that forms in it, with intervals."""
    starts = [millions(one[f"{key}{end}"]) for key in ("start", "end") for end in ("", "_low", "_high")]
    parts = [_percent(one[f"score_share{end}"]) for end in ("", "_low", "_high")]
    return [f"{a} ({b} to {c})" for a, b, c in (starts[:3], starts[3:], parts)]


def millions(tokens: Any) -> str:
    """ "4.38M"."""
    return f"{float(tokens) / 1e6:.2f}M"


def said_of(check: xr.Dataset) -> str:
    """One check in words: its number, interval, n and threshold, and what a narrower interval would take."""
    value, low, high, threshold = (float(check[key]) for key in ("value", "low", "high", "threshold"))
    n, of, why = int(check["n"]), str(check["of"].item()), str(check["why"].item())
    of = of.removesuffix("s") if n == 1 else of
    over = [f"{_number(low)} to {_number(high)}"] * (low <= high) + [f"{n} {of}"] * (n > 0)
    wanted = f"wanted {'above' if bool(check['above']) else 'below'} {_number(threshold)}"
    between = f" ({', '.join(over)})" if over else ""
    said = f"{check['check'].item()} is {_number(value)}{between}, {wanted}"
    if str(check["verdict"].item()) != INCONCLUSIVE:
        return said
    return f"{said}: {why}" if why else said + _more(check, of)


def _more(check: xr.Dataset, of: str) -> str:
    """The half-width reached, and the n that the stated one would take, where the interval is wider."""
    half, stated, n_for = (float(check[key]) for key in ("half_width", "stated", "n_for"))
    if not half > stated:
        return ""
    return f"; the half-width is {_number(half)}, one of {_number(stated)} would take about {n_for:.0f} {of}"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "–"


def _percent(value: Any) -> str:
    return f"{float(value):.0%}".replace("-", "−")
