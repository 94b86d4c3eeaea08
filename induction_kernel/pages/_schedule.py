"""What of the page about a model fits the time that it may take: the sizes of its parts, and which are left out.

The sizes are chosen before anything is measured, by the costs of `_costs`; each part is left out after all if the time
is used up when its turn comes. The page says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from math import ceil, inf, log2
from typing import Any, TypeVar

from ..model._anatomy import Model
from ..prompts._repeated import repeated_tokens
from . import _costs as costs
from ._costs import Amounts

__all__ = ["BAR", "Schedule", "planned"]

PROMPTS, FEWEST = 32, 4  # prompts of the scores by default; of an ablation, at least
DRAWS = 20  # random sets of other heads, for comparison with the chosen ones
EPISODES = 128  # few-shot prompts
PLANNED = 0.8  # of the time; the rest is for what estimates miss
TRUSTED = 0.02  # of the time: a timing that took so long is not repeated on more prompts
KEPT = 100  # what having a part is worth, in doublings of the sizes of others
BAR = "{l_bar}{bar}| {elapsed}<{remaining}"
NAMES = {
    "scores": "scores",
    "ablations": "ablations of the heads in the table and of random heads",
    "map": "the map of every head removed in turn",
    "direct": "direct effects and losses by position",
    "weights": "copying and OV eigenvalues",
    "few-shot": "few-shot prompts",
}
Result = TypeVar("Result")
Options = list[tuple[Amounts, dict[str, float]]]


class Schedule:
    """The parts of a page in their turn.

    Attributes:
        amounts: how much there is of each part.
    """

    def __init__(
        self,
        amounts: Amounts,
        seconds: dict[str, float],
        less: dict[str, str],
        more: list[str],
        end: float,
        advance: Callable[[float], Any],
    ) -> None:
        """Begin.

        Args:
            amounts: how much there is of each part.
            seconds: part -> its estimate.
            less: part -> how it is cut, or that it is left out, from the start.
            more: what is said after that: how to have more.
            end: the time of `clock` by which the page should be done.
            advance: called with the share of all work that is done.
        """
        self.amounts, self._less, self._more = amounts, dict(less), more
        self._seconds, self._end, self._advance = dict(seconds), end, advance
        if amounts.every == amounts.some:  # then both are one run
            self._seconds["ablations"] += self._seconds["map"]
            self._seconds["map"] = 0.0
        self._all = sum(self._seconds.values())

    @property
    def left_out(self) -> list[str]:
        """What is cut or left out, in words, in the order of the parts; then how to have more."""
        return [*(f"{NAMES[part]}: {self._less[part]}" for part in NAMES if part in self._less), *self._more]

    def run(self, part: str, make: Callable[[], Result]) -> Result | None:
        """What `make` returns; None if the part is not planned or no longer fits the time."""
        found, seconds = None, self._seconds[part]
        if has(self.amounts, part):
            if not seconds or costs.clock() + seconds <= self._end:
                found = make()
            else:
                self._leave_out(
                    part, f"left out ({duration(seconds)}), as what came before took longer than estimated"
                )
        self.passed(part)
        return found

    def _leave_out(self, part: str, why: str) -> None:
        """Say that a part is left out after all; the map with the ablations that it is compared with."""
        self._less[part] = why
        if part == "ablations" and self.amounts.every:
            self._less["map"] = "left out with the ablations of the heads in the table"
            self.amounts = replace(self.amounts, every=0)

    def passed(self, part: str) -> None:
        """A part is done or left out."""
        self._advance(self._seconds[part] / self._all if self._all else 1 / len(NAMES))


def planned(
    model: Model, *, n_prompts: int | None, shown: int, seed: int, minutes: float | None,
    advance: Callable[[float], Any],
) -> Schedule:  # fmt: skip
    """The schedule of the largest amounts that fit by their estimate.

    Args:
        model: the model.
        n_prompts: the number of prompts asked for; None to choose it.
        shown: heads of the table, at most.
        seed: of the prompts that are timed.
        minutes: the time that the page may take; None for any.
        advance: called with the share of all work that is done.
    """
    begun, full = costs.clock(), next(_possible(n_prompts))
    if minutes is None:
        return Schedule(full, dict.fromkeys(NAMES, 0.0), {}, [], inf, advance)
    budget = 60 * minutes
    prompts = repeated_tokens(model, prompts=16, seed=seed)
    work = costs.work_of(model, prompts, shown)
    timed = costs.speeds(model, prompts)
    speed, taken = next(timed)
    while sum(work.seconds(full, speed).values()) > PLANNED * budget and taken < TRUSTED * budget:
        speed, taken = next(timed, (speed, inf))
    in_full, room = work.seconds(full, speed), PLANNED * (begun + budget - costs.clock())
    if sum(in_full.values()) <= room:
        return Schedule(full, in_full, {}, [], begun + budget, advance)
    options = [(each, work.seconds(each, speed)) for each in _possible(n_prompts)]
    fitting = [(each, seconds) for each, seconds in options if sum(seconds.values()) <= room]
    amounts, seconds = (
        max(fitting, key=lambda one: _worth(one[0]))
        if fitting
        else min(options, key=lambda one: sum(one[1].values()))
    )
    less, more = dict(_less(amounts, options)), [*_more(seconds, options, minutes, n_prompts)]
    return Schedule(amounts, seconds, less, more, begun + budget, advance)


def _possible(n_prompts: int | None) -> Iterator[Amounts]:
    """The amounts to choose from, in full first."""
    for prompts in (PROMPTS, 24, 16, 12) if n_prompts is None else (n_prompts,):
        held = prompts // 2
        counts = [held, *(n for n in (64, 32, 16, 12, 8, 6, FEWEST) if n < held)]
        ablations = [(n, DRAWS, curve) for curve in (True, False) for n in counts]
        ablations += [(counts[-1], n, curve) for curve in (True, False) for n in (10, 5)] + [(0, 0, False)]
        for (some, draws, curve), every, direct, weights, episodes in product(
            ablations, [*counts, 0], (held, 0), (True, False), (EPISODES, 64, 32, 0)
        ):
            if some or not every:
                yield Amounts(prompts, some, draws, curve, every, direct, weights, episodes)


def has(amounts: Amounts, part: str) -> bool:
    """Whether the page has this part."""
    of_part = {"ablations": amounts.some, "map": amounts.every, "direct": amounts.direct}
    of_part |= {"weights": amounts.weights, "few-shot": amounts.episodes, "curve": amounts.curve}
    return bool(of_part.get(part, True))


def _worth(amounts: Amounts) -> float:
    """What a page of these amounts is worth: most of all that each part is there, then that it is large."""
    sizes = (amounts.prompts, amounts.some, amounts.every, amounts.draws, amounts.episodes)
    return KEPT * _parts(amounts) + log2(amounts.prompts) + sum(log2(size) for size in sizes if size)


def _parts(amounts: Amounts) -> int:
    """The number of parts; what is lost without the heads counts as four, since attention alone is no effect."""
    return 3 * has(amounts, "ablations") + sum(has(amounts, part) for part in (*NAMES, "curve"))


def _less(amounts: Amounts, options: Options) -> Iterator[tuple[str, str]]:
    """Each part that is smaller than in full, which is the first option, or left out, and what is said of it."""
    full, in_full = options[0]
    number = {
        "scores": [("prompts", amounts.prompts, full.prompts)],
        "ablations": [("prompts", amounts.some, full.some), ("random sets", amounts.draws, full.draws)],
        "map": [("prompts", amounts.every, full.every)],
        "few-shot": [("prompts", amounts.episodes, full.episodes)],
    }
    for part in NAMES:
        if not has(amounts, part):
            least = duration(min(seconds[part] for each, seconds in options if has(each, part)))
            most = duration(in_full[part])
            yield part, f"left out ({least if least == most else f'{least} at least, {most} in full'})"
            continue
        cut = [f"{count} {what} instead of {of}" for what, count, of in number.get(part, ()) if count < of]
        if part == "ablations" and not amounts.curve:
            cut.append("no curve of more and fewer heads")
        if cut:
            yield part, f"{', '.join(cut)} ({duration(in_full[part])} in full)"


def _more(
    seconds: dict[str, float], options: Options, minutes: float, n_prompts: int | None
) -> Iterator[str]:
    """How long the page takes if it does not fit all the same, and what to ask for to have more of it."""
    taken, whole = sum(seconds.values()), sum(options[0][1].values())
    if taken > 60 * minutes:
        asked = "" if n_prompts is None else f", as scores of the {n_prompts} prompts asked for are not cut"
        yield f"what is left takes {duration(taken)}{asked}"
    most = max(_parts(each) for each, _ in options)
    least = min(sum(each.values()) for one, each in options if _parts(one) == most)
    if least > taken and _asked(least) != _asked(whole):
        yield f"every part on the fewest prompts takes {duration(least)}: {_asked(least)}"
    yield f"all of it takes {duration(whole)}: {_asked(whole)}"


def _asked(seconds: float) -> str:
    """What to ask for, so that so many seconds fit."""
    minutes = ceil(seconds / 60 / PLANNED)
    return f"give minutes={minutes} (--minutes {minutes})"


def duration(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 1.5:
        return "about a second"
    if seconds < 90:
        return f"about {round(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes"
