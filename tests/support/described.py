"""What results say of themselves: variables, coordinates, counts, chance and attributes, as plain JSON.

`PYTHONPATH=tests/support python tests/support/described.py` writes described.json anew from the verbs of `verbs.py`;
read its difference line by line before it is committed.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from verbs import VERBS

import induction_kernel as ik

FILE = Path(__file__).with_suffix(".json")
# Lanes and rounding depend on the model's class, versions on what is installed.
LEFT_OUT = ("lane", "lane_reason", "verified_by", "model_class", "transformer_lens", "induction_kernel")
PROSE = ("title", "claim", "reason", "cautions", "convention", "translation", "left_out")
LONG = 6


def described(found):
    """Of a Dataset or an array."""
    data = found if isinstance(found, xr.Dataset) else found.to_dataset(name="value")
    return {
        "sizes": {str(dim): size for dim, size in data.sizes.items()},
        "variables": {str(key): [dims(each), kind(each)] for key, each in data.data_vars.items()},
        "coordinates": {str(key): [dims(each), *ends(each.values)] for key, each in data.coords.items()},
        "chance": {
            str(key): number(each.mean()) for key, each in data.data_vars.items() if "chance" in str(key)
        },
        "attributes": {
            str(key): number(each) for key, each in found.attrs.items() if key not in (*LEFT_OUT, *PROSE)
        },
        "thresholds": ends(data["threshold"].values) if "check" in data.dims else [],
        "prose": [key for key in sorted(PROSE) if found.attrs.get(key)],
    }


def kind(array):
    """Numbers with their digits; how long texts are does not matter."""
    return array.dtype.name if array.dtype.kind in "iuf" else array.dtype.kind


def dims(array):
    return " ".join(map(str, array.dims))


def ends(values):
    """All of a few values, the first and the last of many."""
    flat = [number(each) for each in np.asarray(values).reshape(-1)]
    return flat if len(flat) <= LONG else [*flat[: LONG // 2], "...", *flat[-LONG // 2 :]]


def number(value):
    """A number to six digits, else the text."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | xr.DataArray):
        return str(float(value)) if not math.isfinite(float(value)) else float(f"{float(value):.6g}")
    return str(value)


def same(one, other):
    """Texts and whole numbers alike, other numbers to a thousandth."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return other == (pytest.approx(one, rel=1e-3, abs=1e-6) if isinstance(one, float) else one)


def write():
    model = ik.load("tiny")
    lines = [f" {json.dumps(verb)}: {json.dumps(described(call(model)))}" for verb, call in VERBS.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write()
