"""The families of tests/test_matrix.py, in both classes of model that the installed TransformerLens has."""

import pytest
from zoo import HOOKED, has_hooked_transformer

FAMILIES = ("attention-only", *HOOKED)
COLUMNS = ["HookedTransformer"] * has_hooked_transformer() + ["TransformerBridge"]


def kind_of(family, column):
    if family == "attention-only":  # Hugging Face has none
        return "hooked" if column == "HookedTransformer" else "native"
    return "converted" if column == "HookedTransformer" else "bridge"


ROWS = [(family, kind_of(family, column)) for family in FAMILIES for column in COLUMNS]
every = pytest.mark.parametrize(("name", "kind"), ROWS)
