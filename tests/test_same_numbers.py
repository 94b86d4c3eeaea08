"""Does the comparison of two versions' results see every kind of difference, and nothing where there is none?"""

import runpy
from pathlib import Path

import numpy as np
import pytest

compare = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "same_numbers.py"))[
    "compare"
]
OLD = {"sweep|effect": np.array([1.0, -4.0, np.nan, np.inf]), "load|steps": np.array(3)}


def change(**arrays):
    return OLD | {f"sweep|{name}": np.array(values) for name, values in arrays.items()}


@pytest.mark.parametrize(
    ("new", "differs"),
    [
        (OLD, False),
        (change(effect=[1.0, -4.00002, np.nan, np.inf]), False),  # half of 1e-5 of the largest number
        (change(another=[1.0]), False),  # a variable of another name is named, and no difference
        (change(effect=[1.0, -4.0002, np.nan, np.inf]), True),
        (change(effect=[1.0, -4.0, 0.0, np.inf]), True),
        (change(effect=[1.0, -4.0, np.nan, -np.inf]), True),
        (change(effect=[1.0, -4.0, np.nan]), True),
        ({"sweep|effect": OLD["sweep|effect"]}, True),
    ],
    ids="same rounding renamed number nan infinity shape absent".split(),
)
def test_a_difference_is_seen(new, differs):
    assert compare(OLD, new, tolerance=1e-5) == differs


def test_the_largest_difference_is_said(capsys):
    compare(OLD, change(effect=[1.0, -3.0, np.nan, np.inf]), tolerance=1e-5)
    said = capsys.readouterr().out
    assert "largest absolute difference of 2 results: 1.00e+00 (sweep)" in said
    assert "largest relative difference of 2 results: 2.50e-01 (sweep)" in said
