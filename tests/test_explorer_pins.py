"""Heads of the explorer's page pinned, shown side by side, averaged and subtracted, in a browser."""

import re

import numpy as np
import pytest
from explored import (
    all_equal,
    cell,
    choose,
    drawn,
    equals,
    opened,
    pin,
    point,
    readout,
    stored,
    together,
    weights,
)

import induction_kernel as ik

pytestmark = pytest.mark.browser
N = 13
HEADS = ("L1H7", "L0H3", "L1H1")


@pytest.fixture(scope="module")
def prompts():
    return ik.repeated_tokens(ik.load("tiny"), prompts=1, period=6)


@pytest.fixture(scope="module")
def seen(prompts):
    """The model's attention of three heads: `[prompt, choice, query, key]`."""
    return ik.patterns(ik.load("tiny"), prompts, HEADS)


@pytest.fixture(scope="module")
def saved(prompts, tmp_path_factory):
    return ik.explore(ik.load("tiny"), prompts).save(tmp_path_factory.mktemp("pages") / "tiny.html")


def test_pinned_heads_stand_beside_are_averaged_and_subtracted(page, saved, seen):
    opened(page, saved)
    assert page.locator(".ik-together").is_hidden()
    pin(page, *HEADS)
    small = page.locator(".ik-small .ik-go")
    assert tuple(small.all_inner_texts()) == HEADS
    a, b, c = stored(seen["pattern"].values[0])
    said = point(page, 9, 3, N)
    assert [part.split()[0] for part in said.split(" · ")[1:]] == ["L1H7", "L0H3"], (
        "L1H1 comes first, unnamed"
    )
    for part, of_head in zip(said.split(" · ")[1:], (a, b), strict=True):
        assert equals(part.split(" (")[0].partition(" ")[2], of_head[9, 3])
    assert together(page, "Average") == "average of L1H1, L1H7, L0H3"
    all_equal(weights(page, N), (a + b + c) / 3)
    assert (
        together(page, "Difference from the average of L1H7, L0H3") == "L1H1 minus the average of L1H7, L0H3"
    )
    all_equal(weights(page, N), c - (a + b) / 2, zero="about 0")
    assert page.locator(".ik-pattern-legend").inner_text().startswith("difference")
    together(page, "Side by side")
    assert page.locator(".ik-panels figcaption").all_inner_texts() == ["L1H1", "L1H7", "L0H3"]
    widths = {box["width"] for box in (each.bounding_box() for each in page.locator(".ik-pattern").all())}
    assert len(widths) == 1, "equally large"
    for panel, of_head in enumerate((c, a, b)):
        all_equal(weights(page, N, panel=panel), of_head)
    small.nth(1).click()
    drawn(page, "L0H3")
    together(page, "Alone")
    all_equal(weights(page, N), b)


def test_one_pinned_head_is_enough_to_compare_with_and_the_largest_difference_is_led_to(page, saved, seen):
    opened(page, saved, "#L1H7")
    assert "Pin this head, then choose another" in page.locator(".ik-compare").inner_text()
    pin(page, "L1H7")
    assert page.locator(".ik-together").is_hidden()
    top = page.locator(".ik-pattern").bounding_box()["y"]
    choose(page, "L0H3")
    assert page.locator(".ik-pattern").bounding_box()["y"] == top
    assert together(page, "Difference from L1H7") == "L0H3 minus L1H7"
    a, b, c = stored(seen["pattern"].values[0])
    all_equal(weights(page, N), b - a, zero="about 0")
    choose(page, "L1H1")
    assert page.locator("figcaption").first.inner_text() == "L1H1 minus L1H7"
    line = page.locator(".ik-compared").inner_text()
    mean, query, key, weight = re.search(
        r"added up: ([.\d]+) on average \(0 if alike, 2 at most\)\. Largest: query (\d+) .* -> key (\d+) .*, (\S+) ",
        line,
    ).groups()
    assert equals(mean, np.abs(c - a).sum(1).mean())
    assert equals(weight, (c - a)[int(query), int(key)])
    assert np.abs(c - a).max() == abs((c - a)[int(query), int(key)])
    page.locator(".ik-furthest").click()
    assert cell(readout(page)) == (int(query), int(key))
