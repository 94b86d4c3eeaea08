"""Changes to the words of a text: typing errors, or rare words in their place.

They move a text away from the distribution of the demonstrations; `_phenomena` measures what predictions do then. The
rare words are not synonyms: unlike in Han et al. 2025, the meaning of a replaced word is lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import Refused

__all__ = ["Perturb", "misspelt", "perturbed", "rare_words"]

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
