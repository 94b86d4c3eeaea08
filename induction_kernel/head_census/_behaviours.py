"""The behaviours that a census measures: what each one is, its paper, its score, and the prompts that it is scored on.

One entry of `BEHAVIOURS` is one behaviour. `_measuring` measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any

import xarray as xr

from ..errors import Refused
from ..fewshot._function_vectors import function_vector_effect
from ..model._anatomy import Model
from ..scorers._attention import duplicate_token, induction, prefix_matching, previous_token
from ..scorers._attention_scorer import AttentionScorer
from ..scorers._copying import copying
from ..scorers._direct_effect import direct_effect
from ..scorers._labels import label_attention
from ..scorers._ov import ov_eigenvalues
from ..scorers._text_scores import current_token, first_token
from ._concept_copying import concept_copying, token_copying
from ._retrieval import retrieval_forced

__all__ = ["BEHAVIOURS", "Behaviour", "check_least", "chosen_behaviours"]

REPEATS, TEXT, NEEDLES = "repeated tokens", "ordinary text", "needles in text"
FEW_SHOT, OWN = "few-shot prompts", "prompts of its own"
ENTITIES = 32  # prompts with something to copy
PROMPTS = (REPEATS, TEXT, NEEDLES, FEW_SHOT, OWN)
LEAST = (
    0.1  # strength of a name: a tenth of what is possible, from which Wu et al. 2024 speak of retrieval heads
)
LEAST_EFFECT = (
    0.01  # of a name for an effect: a probability changed by .01, or .01 of what all heads together write
)

Measure = Callable[..., xr.Dataset]
"""`measure(model, prompts, progress=...)`: a Dataset that `summarise` takes."""


@dataclass(frozen=True)
class Behaviour:
    """One behaviour of heads: an entry of `BEHAVIOURS`, or one of the user's own for `census(behaviours=...)`.

    Attributes:
        name: its name, which becomes its entry along `scorer`.
        meaning: what a head does that shows it, in one sentence.
        paper: where it is from.
        on: the prompts it is scored on: "repeated tokens", "ordinary text", "needles in text", "few-shot
            prompts", or "prompts of its own" if the measure makes them (it is then given None).
        measure: an `AttentionScorer`, or a function `measure(model, prompts, progress=...)` whose result `summarise`
            takes.
        variable: the variable of the result that is tested, with its control; None for `score`.
        sign: -1 if heads that lie below the control show the behaviour.
        most: the largest value that the score can take, which makes its strength a share; None if it has none.
        named: whether heads are named after it. False for scores of weights, whose random draws are too few for the
            level that several behaviours together leave to each.
        beyond: behaviours of which this one is a consequence: it does not set a head apart that is named after one of
            them. An induction head finds labels, and facts that a question repeats, as it finds any earlier
            copy, and raises what follows.
        least: the least strength of a head that is named after it, in [0, 1): .1 for attention, .01 for effects on the
            output, which many heads have together, each a small one.

    Raises:
        TypeError: a measure that is not callable.
        Refused: unknown prompts; a least strength out of its range.
    """

    name: str
    meaning: str
    paper: str
    on: str
    measure: AttentionScorer | Measure
    variable: str | None = None
    sign: int = 1
    most: float | None = 1.0
    named: bool = True
    beyond: tuple[str, ...] = ()
    least: float = LEAST

    def __post_init__(self) -> None:
        if self.on not in PROMPTS:
            raise Refused(f"wanted the prompts of {self.name} as one of {list(PROMPTS)}, got {self.on!r}")
        if not callable(self.measure):
            raise TypeError(
                f"wanted the measure of {self.name} as an AttentionScorer or a function, got "
                f"{type(self.measure).__name__}"
            )
        check_least(self.least)


def check_least(least: float) -> None:
    """Refused unless this is a strength that a head can reach and pass."""
    if not isinstance(least, Real) or isinstance(least, bool) or not 0 <= least < 1:
        raise Refused(f"wanted a least strength from 0 to below 1, got {least!r}")


def _copying(model: Model, prompts: Any, *, progress: bool) -> xr.Dataset:
    return copying(model, progress=progress)


def _token_copying(model: Model, prompts: Any, *, progress: bool) -> xr.Dataset:
    return token_copying(model, prompts=ENTITIES, progress=progress)


def _concept_copying(model: Model, prompts: Any, *, progress: bool) -> xr.Dataset:
    return concept_copying(model, prompts=ENTITIES, progress=progress)


def _eigenvalues(model: Model, prompts: Any, *, progress: bool) -> xr.Dataset:
    return ov_eigenvalues(model, progress=progress)


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "induction",
        "attends to the token after the latest earlier copy of the current one",
        "Olsson et al. 2022; Nanda 2022",
        REPEATS,
        induction,
    ),
    Behaviour(
        "prefix_matching",
        "attends to the tokens after all earlier copies of the current one",
        "Olsson et al. 2022",
        REPEATS,
        prefix_matching,
        beyond=("induction",),
    ),
    Behaviour(
        "duplicate_token",
        "attends to earlier copies of the current token",
        "Wang et al. 2022",
        REPEATS,
        duplicate_token,
    ),
    Behaviour(
        "direct_effect",
        "raises the logit of the token that a repeat makes right",
        "Elhage et al. 2021",
        REPEATS,
        direct_effect,
        most=None,
        beyond=("induction",),
        least=LEAST_EFFECT,
    ),
    Behaviour(
        "copy_suppression",
        "lowers the logit of the token that a repeat makes right",
        "McDougall et al. 2023",
        REPEATS,
        direct_effect,
        sign=-1,
        most=None,
        least=LEAST_EFFECT,
    ),
    Behaviour(
        "previous_token",
        "attends to the previous token",
        "Olsson et al. 2022",
        TEXT,
        previous_token,
    ),
    Behaviour(
        "first_token",
        "attends to the first token more than to another token in its place",
        "Xiao et al. 2024; Gu et al. 2025",
        TEXT,
        first_token,
    ),
    Behaviour(
        "current_token",
        "attends to the current token more than to its other keys but the first",
        "McDougall, ARENA 1.2",
        TEXT,
        current_token,
    ),
    Behaviour(
        "retrieval",
        "looks, where the answer to a question is given, at the same token of a fact earlier in the text",
        "Wu et al. 2024, with the answer given",
        NEEDLES,
        retrieval_forced,
        beyond=("induction",),
    ),
    Behaviour(
        "label_attention",
        "attends, at the end of a few-shot prompt, to the labels of the right class more than to the others",
        "Wang et al. 2023; Han et al. 2025",
        FEW_SHOT,
        label_attention,
        variable="right",
        beyond=("induction",),
    ),
    Behaviour(
        "function_vector",
        "its mean output over a few-shot task makes the right answer likelier where the labels are shuffled",
        "Todd et al. 2024",
        FEW_SHOT,
        function_vector_effect,
        least=LEAST_EFFECT,
    ),
    Behaviour(
        "copying",
        "raises the logits of the tokens that its values come from",
        "Olsson et al. 2022",
        OWN,
        _copying,
    ),
    Behaviour(
        "token_copying",
        "its output makes the model copy the next token of something that stood earlier",
        "Feucht et al. 2025",
        OWN,
        _token_copying,
        beyond=("induction",),
        least=LEAST_EFFECT,
    ),
    Behaviour(
        "concept_copying",
        "its output makes the model go on with a whole word that stood earlier, a token later",
        "Feucht et al. 2025",
        OWN,
        _concept_copying,
        least=LEAST_EFFECT,
    ),
    Behaviour(
        "ov_eigenvalues",
        "has value and output weights that copy, by their eigenvalues",
        "Elhage et al. 2021",
        OWN,
        _eigenvalues,
        named=False,
    ),
)
"""The behaviours of a census, in the order of its `scorer`."""


def chosen_behaviours(wanted: Iterable[str | Behaviour] | None) -> list[Behaviour]:
    """The behaviours asked for, by name or as they are; all of them for None.

    Raises:
        TypeError: neither names nor behaviours.
        Refused: none, a name twice, or one that is not known.
    """
    if wanted is None:
        return list(BEHAVIOURS)
    known = {each.name: each for each in BEHAVIOURS}
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        raise TypeError(f'wanted behaviours as a list, such as ["induction", "copying"], got {wanted!r}')
    found = []
    for each in wanted:
        if not isinstance(each, str | Behaviour):
            raise TypeError(f"wanted behaviours as names or Behaviour, got {type(each).__name__}")
        if isinstance(each, str) and each not in known:
            near = get_close_matches(each, known, n=1)
            hint = f'; "{near[0]}"?' if near else ""
            raise Refused(f"wanted behaviours among {sorted(known)}, got {each!r}{hint}")
        found.append(known[each] if isinstance(each, str) else each)
    names = [each.name for each in found]
    if not names or len(set(names)) < len(names):
        raise Refused(f"wanted at least one behaviour, each name once, got {names}")
    return found
