"""Results say what they are: variables, labels, names, counts, coordinates, chance and attributes of every verb."""

import functools
import json
from unittest import mock

import numpy as np
import pytest
from described import FILE, described, same
from tqdm import tqdm
from verbs import VERBS

import induction_kernel as ik


@functools.cache
def model():
    return ik.load("tiny")


BARS = {}  # verb -> the progress bars that its call made


@functools.cache
def found(verb):
    bars = BARS[verb] = []

    def bar(**options):
        made = tqdm(**options)
        bars.extend([] if made.disable else [made])
        return made

    with mock.patch("induction_kernel.model._runs.tqdm", bar):
        return VERBS[verb](model())


@pytest.mark.parametrize("verb", VERBS)
def test_is_described_as_written_down(verb):
    """`described.json`, which `described.py` writes: whoever changes a name or a count reads the difference."""
    kept, now = json.loads(FILE.read_text())[verb], json.loads(json.dumps(described(found(verb))))
    assert same(kept, now), {key: (kept[key], now[key]) for key in kept if not same(kept[key], now[key])}


@pytest.mark.parametrize("verb", VERBS)
def test_layers_heads_and_names_are_those_of_the_grid(verb):
    data = found(verb)
    sizes = {"layer": 2, "head": 8}
    for dim in sizes.keys() & data.sizes.keys():
        if dim in data.indexes and data[dim].dtype.kind in "iu":
            first = -1 if (dim, data.attrs.get("method")) == ("layer", "logit_lens") else 0  # the embedding
            assert set(data[dim].values.tolist()) <= set(range(first, sizes[dim])), dim
            assert len(set(data[dim].values.tolist())) == data.sizes[dim], dim
    if "name" in data.coords and data["name"].dims == ("layer", "head"):
        for layer, head in np.ndindex(*data["name"].shape):
            expected = f"L{int(data['layer'][layer])}H{int(data['head'][head])}"
            assert str(data["name"][layer, head].item()) == expected


@pytest.mark.parametrize("verb", VERBS)
def test_attributes_are_numbers_and_text_and_count_the_prompts(verb):
    attrs = found(verb).attrs
    assert all(type(value) in (str, int, float) for value in attrs.values())
    assert attrs.get("method") or attrs["argument"]
    if "prompt" in found(verb).sizes and "n_prompts" in attrs:
        assert attrs["n_prompts"] == found(verb).sizes["prompt"]


@pytest.mark.parametrize("verb", VERBS)
def test_progress_reaches_its_end(verb):
    found(verb)
    # Some advance by parts of a unit, which add up to rounding.
    assert [bar.n for bar in BARS[verb]] == pytest.approx([bar.total for bar in BARS[verb]], abs=1e-9)


def test_every_description_is_of_a_verb():
    assert list(json.loads(FILE.read_text())) == list(VERBS)
