"""Predictions for the same queries under several conditions, and texts whose words are changed for one.

Conditions are compared with the first query by query. Typing errors, or rare words in the place of others, move a text
away from the distribution of the demonstrations; `_phenomena` measures what predictions do then. The rare words are not
synonyms: unlike in Han et al. 2025, the meaning of a replaced word is lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..data._episodes import Episodes
from ..errors import Refused
from ..model._anatomy import Model
from ..stats._shares import mean_share_difference_interval, share_interval
from ._predictions import predict

__all__ = ["Perturb", "compared_conditions", "misspelt", "perturbed", "rare_words"]

PAPER = "Han et al. 2025, section 4.2"


def compared_conditions(
    model: Model,
    conditions: Mapping[str, Episodes],
    method: str,
    seed: int,
    batch_size: int | None,
    *,
    progress: bool,
) -> xr.Dataset:
    """Accuracy, difference to the first condition and agreement with it, as documented by `retrieval_effect`."""
    seed = checked_seed(seed)
    runs = [predict(model, each, batch_size=batch_size, progress=progress) for each in conditions.values()]
    first = runs[0].drop_vars("set", errors="ignore")  # each condition has sets of its own
    correct = np.stack([run["correct"].values for run in runs])
    prediction = np.stack([run["prediction"].values for run in runs])
    same = (prediction == prediction[0]).astype(np.float64)
    each = {"accuracy": correct, "difference": correct - correct[0], "agreement": same}
    values: dict[str, Any] = {
        "correct": (("condition", "prompt"), correct),
        "prediction": (("condition", "prompt"), prediction),
        "log_probability": (
            ("condition", "prompt", "label"), np.stack([run["log_probability"].values for run in runs])
        ),
    }  # fmt: skip
    for key, of_prompt in each.items():
        low, high = _interval(key, of_prompt, seed)
        for name, value in ((key, of_prompt.mean(1)), (f"{key}_low", low), (f"{key}_high", high)):
            values[name] = ("condition", value)
    coords = {"condition": list(conditions)} | {
        key: first[key] for key in ("prompt", "label", "target", "text")
    }
    of_one = ("interval", "calibration", "pooling", "lane", "lane_reason")
    attrs = {key: value for key, value in first.attrs.items() if key not in of_one}
    return xr.Dataset(
        values,
        coords,
        attrs | {"method": method, "paper": PAPER, "interval": "Wilson, of differences Bonett & Price, 95%"},
    )


def _interval(key: str, of_prompt: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95% interval of each condition's mean over prompts."""
    if key != "difference":
        return share_interval(of_prompt.sum(1), of_prompt.shape[1])
    low, high = mean_share_difference_interval(of_prompt.T, seed=seed)
    low[0] = high[0] = 0.0  # the first condition does not differ from itself
    return low, high


Perturb = Callable[[str, np.random.Generator], str]
WORD = re.compile(r"[^\W\d_]{2,}")  # two letters or more


def misspelt(word: str, rng: np.random.Generator) -> str:
    """The word with one typing error: two letters swapped, one left out or one doubled; never the word itself."""
    at = int(rng.integers(len(word) - 1))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    shorter, longer = word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]
    return str(rng.choice([each for each in (swapped, shorter, longer) if each != word]))


def rare_words(texts: Sequence[str]) -> Perturb:
    """A function that replaces any word by one of the words that are rarest in these texts."""
    counts = Counter(word.lower() for text in texts for word in WORD.findall(text))
    rare = sorted(word for word, count in counts.items() if count == min(counts.values()))
    if len(rare) < 2:
        raise Refused(
            f"wanted texts with at least two rarest words, got {rare}: give a larger pool, or shift='typos'"
        )

    def replaced(word: str, rng: np.random.Generator) -> str:
        at = int(rng.integers(len(rare)))
        return rare[at] if rare[at] != word.lower() else rare[at - 1]

    return replaced


def perturbed(text: str, perturb: Perturb, share: float, rng: np.random.Generator) -> str:
    """The text with this share of its words changed; with one seed, a larger share includes the words of a smaller."""
    places = [found.span() for found in WORD.finditer(text)]
    order = rng.permutation(len(places))
    new = [perturb(text[begin:end], rng) for begin, end in places]
    for i in sorted(order[: round(share * len(places))], reverse=True):
        begin, end = places[i]
        text = text[:begin] + new[i] + text[end:]
    return text
