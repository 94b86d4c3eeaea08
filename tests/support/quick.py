"""Which of many cases run in quick runs: one in so many, in turn; the others are marked in_turn."""

import itertools

import pytest


def one_in(n, *axes, bridges=False):
    """Cases of the product of the axes, as parameters; along each axis every value has its turn.

    `bridges`: whether the others are for `make test-tl4` too, since each is about the inside of one more Bridge.
    """
    cases = []
    for places in itertools.product(*[range(len(axis)) for axis in axes]):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        cases.append(
            pytest.param(*flat, marks=() if sum(places) % n == 0 else pytest.mark.in_turn(bridges=bridges))
        )
    return cases


def rows_in_turn(n, names):
    """Marks for the rows of a table, of which each name has one or more: of each one in n is quick, its first too."""
    seen = {}
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        yield () if seen[name] % n == 0 else pytest.mark.in_turn
