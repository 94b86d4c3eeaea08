"""Heads of the explorer's page pinned, shown side by side, averaged and subtracted, in a browser."""

import re

import numpy as np
import pytest
from explored import (
    HEADS,
    N,
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
    tiny,
    tiny_attention,
    tiny_page,
    tiny_prompts,
    together,
    until,
    weights,
)

import induction_kernel as ik

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def seen():
    return tiny_attention(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny_page(tmp_path_factory, 1)


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


def test_the_heads_most_alike_are_those_of_the_smallest_differences_and_lead_to_them(page, saved):
    opened(page, saved, "#L1H7")
    page.get_by_role("button", name="Find the heads most alike to L1H7").click()
    listed = page.locator(".ik-alike .ik-pair")
    until(page, "document.querySelectorAll('.ik-alike .ik-pair').length === 5")
    heads = [f"L{layer}H{head}" for layer in range(2) for head in range(8)]
    patterns = stored(ik.patterns(tiny(), tiny_prompts(1), heads)["pattern"].values[0])
    apart = abs(patterns - patterns[heads.index("L1H7")])
    without, all_keys = apart[:, :, 1:].sum(2).mean(1), apart.sum(2).mean(1)
    nearest = [at for at in without.argsort(kind="stable") if heads[at] != "L1H7"][:5]
    for text, at in zip(listed.all_inner_texts(), nearest, strict=True):
        name, first, second = re.fullmatch(r"(\S+) (\S+) \((\S+)\)", text).groups()
        assert name == heads[at]
        assert equals(first, without[at])
        assert equals(second, all_keys[at])
    listed.first.click()
    drawn(page, heads[nearest[0]])
    assert page.locator(".ik-alike .ik-pair").count() == 0, "the list is of the head chosen before"


def test_one_pinned_head_is_enough_to_compare_with_and_the_largest_difference_is_led_to(page, saved, seen):
    opened(page, saved, "#L1H7")
    assert "Pin this head, then choose another" in page.locator(".ik-compare").inner_text()
    pin(page, "L1H7")
    assert page.locator(".ik-together").is_hidden()
    assert "undefined" not in page.locator(".ik-compare").text_content()
    hint = "Pinned L1H7: choose another head, then Side by side, Average or Difference."
    assert page.locator(".ik-hint").inner_text() == hint
    top = page.locator(".ik-pattern").bounding_box()["y"]
    choose(page, "L0H3")
    assert page.locator(".ik-pattern").bounding_box()["y"] == top
    assert together(page, "Difference from L1H7") == "L0H3 minus L1H7"
    a, b, c = stored(seen["pattern"].values[0])
    all_equal(weights(page, N), b - a, zero="about 0")
    at = np.unravel_index(np.abs(b - a).argmax(), (N, N))
    read = re.search(r": L0H3 (.+) − L1H7 (.+) = (.+)$", point(page, *at, N)).groups()
    assert all(
        equals(text, expected) for text, expected in zip(read, (b[at], a[at], (b - a)[at]), strict=True)
    )
    assert "L1H7 no attention" not in point(page, 6, 12, N)
    choose(page, "L1H1")
    assert page.locator("figcaption").first.inner_text() == "L1H1 minus L1H7"
    line = page.locator(".ik-compared").inner_text()
    numbers, query, key, weight = apart(line)
    assert line.startswith("Absolute differences of a query's weights, added up")
    sizes, most = np.abs(c - a).sum(0), (a + c).sum(0)
    for text, expected in zip(numbers, (sizes[1:], most[1:], sizes, most), strict=True):
        assert equals(text, expected.sum() / N)
    assert equals(weight, (c - a)[query, key])
    assert np.abs(c - a)[:, 1:].max() == abs((c - a)[query, key])
    assert key > 0
    page.locator(".ik-furthest").click()
    assert cell(readout(page)) == (query, key)
    assert page.locator(".ik-explorer").get_attribute("data-kept") == str(query)


def apart(line):
    """How far apart two patterns are, as the page says it: four numbers, and query, key and entry of the largest."""
    number = r"([.\d]+)"
    scale = (
        rf"{number} without the first token \(0 if alike, {number} if no key is shared\), {number} with it "
    )
    found = re.search(rf"queries: {scale}\({number} if no key is shared\)\.", line)
    largest = re.search(r"Largest without the first token: query (\d+) .* -> key (\d+) .*, .*?= (\S+) ", line)
    return found.groups(), int(largest[1]), int(largest[2]), largest[3]


def test_a_difference_of_value_weighted_patterns_says_what_is_counted(page, saved, seen):
    opened(page, saved, "#L1H7")
    page.locator(".ik-value-weighted").check()
    pin(page, "L1H7")
    choose(page, "L0H3")
    together(page, "Difference from L1H7")
    line = page.locator(".ik-compared").inner_text()
    assert line.startswith("Absolute differences of a query's products (each a share of its head's largest)")
    norms = seen["value_norm"].values[0, :2].astype(np.float16).astype(float)
    a, b = stored(seen["pattern"].values[0, :2]) * norms[:, None]
    a, b = a / a.max(), b / b.max()
    numbers, query, key, weight = apart(line)
    sizes, most = np.abs(b - a).sum(0), (a + b).sum(0)
    for text, expected in zip(numbers, (sizes[1:], most[1:], sizes, most), strict=True):
        assert equals(text, expected.sum() / N)
    assert equals(weight, (b - a)[query, key])


def test_patterns_that_differ_in_the_first_key_alone_have_no_largest_difference(page, tmp_path):
    rows = np.array([[[1, 0], [0.5, 0.5]], [[1, 0], [0.3, 0.5]]])
    opened(page, ik.explore(patterns=rows, tokens=["a", "b"]).save(tmp_path / "page.html"), "#L0H0")
    pin(page, "L0H0")
    choose(page, "L0H1")
    together(page, "Difference from L0H0")
    said = page.locator(".ik-compared").inner_text()
    assert ": 0 without the first token (0 if alike, .50 if no key is shared), .10 with it (1.90" in said
    assert page.locator(".ik-furthest").count() == 0
