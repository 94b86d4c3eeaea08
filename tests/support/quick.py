"""Which of many cases run in quick runs: one in so many, in turn; the others are marked in_turn."""

import itertools

import pytest


def one_in(n, *axes):
    """Cases of the product of the axes, as parameters; along each axis every value has its turn."""
    cases = []
    for places in itertools.product(*[range(len(axis)) for axis in axes]):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        cases.append(pytest.param(*flat, marks=() if sum(places) % n == 0 else pytest.mark.in_turn))
    return cases
