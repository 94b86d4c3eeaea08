"""The explorer's page in a browser: the map of heads, the pattern and the card do what pointer and keys ask for."""

import re

import numpy as np
import pytest
from explored import (
    N,
    cell,
    choose,
    drawn,
    head,
    opened,
    picture,
    place,
    point,
    readout,
    tiny_page,
    tiny_scores,
    until,
)

import induction_kernel as ik

pytestmark = pytest.mark.browser
ASK_FOR = "name => document.querySelector('.ik-explorer').dispatchEvent(new CustomEvent('ik:head', { detail: name }))"


@pytest.fixture(scope="module")
def scores():
    return tiny_scores()


@pytest.fixture(scope="module")
def saved(scores, tmp_path_factory):
    return tiny_page(tmp_path_factory, 3, scores=scores)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two layers of two heads on 200 tokens, one head with a stripe and one with nothing."""
    weights = np.zeros((2, 2, 200, 200), dtype=np.float32)
    at = np.arange(200)
    weights[0, 0, at, np.minimum(at, 133)] = 1
    weights[0, 1, at, at] = 0.5
    weights[1, 1, at[1:], at[:-1]] = 1
    given = {"mine": np.array([[0.1, -0.4], [0.3, 0.2]])}
    explorer = ik.explore(patterns=weights, tokens=[f" {i}" for i in range(200)], scores=given)
    return explorer.save(tmp_path_factory.mktemp("pages") / "plain.html")


def names(values):
    """The heads where a grid of values is 1."""
    return {f"L{layer}H{at}" for layer, at in zip(*np.nonzero(values == 1), strict=True)}


def test_first_is_the_head_that_is_first_by_the_first_score(page, saved, scores):
    opened(page, saved)
    assert head(page) == str(ik.top_heads(scores.sel(scorer="induction"), 1)[0])
    assert page.locator(".ik-thumb").count() == 16
    assert page.locator(".ik-title").inner_text() == "Attention in tiny"
    assert page.locator(".ik-status").is_hidden()


def test_pictures_and_pattern_show_a_stripe_one_token_wide(page, plain):
    opened(page, plain)
    choose(page, "L0H0")
    pattern = page.locator(".ik-pattern")
    seen, box = picture(pattern), pattern.bounding_box()
    x, y = place(page, 180, 133, 200)
    row = seen[round(y - box["y"])]
    assert row[round(x - box["x"])].max() < 100
    assert (row[round(x - box["x"]) - 12] == 255).all()
    assert (seen[round(0.2 * box["height"]), round(x - box["x"])] != 255).all(), "later than the query"
    row = picture(page.locator(".ik-thumb").first)[-12, 3:-3].sum(1)
    assert row.min() < 200
    assert np.median(row) == 3 * 255
    assert abs(row.argmin() / len(row) - 133 / 200) < 0.05


def test_pointing_at_a_head_says_its_score_and_a_click_shows_it(page, saved, scores):
    opened(page, saved)
    first = head(page)
    page.locator(".ik-thumb").nth(3).hover()
    said = page.locator(".ik-head-readout")
    assert re.match(r"L0H3: induction −?[\d.]+ \[.*\], excess .*, (passes|does not pass)$", said.inner_text())
    page.mouse.move(1, 1)
    assert said.inner_text().startswith(f"{first}: ")
    choose(page, "L0H3")
    assert page.locator("figcaption").first.inner_text() == "L0H3"
    assert page.locator(".ik-thumb[aria-pressed=true]").get_attribute("data-index") == "3"
    assert page.locator(".ik-card .ik-name").inner_text() == "L0H3"


def test_arrow_keys_walk_over_the_heads(page, saved):
    opened(page, saved, "#L0H6")
    page.locator(".ik-thumb[tabindex='0']").focus()
    walk = [("ArrowRight", "L0H7"), ("ArrowRight", "L1H0"), ("ArrowUp", "L0H0"), ("ArrowUp", "L0H0")]
    walk += [("End", "L0H7"), ("ArrowDown", "L1H7"), ("Home", "L1H0"), ("Control+Home", "L0H0")]
    for key, name in [*walk, ("Control+End", "L1H7"), ("ArrowLeft", "L1H6")]:
        page.keyboard.press(key)
        drawn(page, name)
        assert page.evaluate("document.activeElement.ariaLabel").startswith(name)


def test_search(page, saved):
    opened(page, saved, "#L0H0")
    search, message = page.locator(".ik-search"), page.locator(".ik-search-message")
    for text, name in [("L1H7", "L1H7"), ("1.6", "L1H6"), (" l0h5 ", "L0H5")]:
        search.fill(text)
        search.press("Enter")
        drawn(page, name)
        assert message.is_hidden()
    for text in ("L2H0", "L0H8", "head 3"):
        search.fill(text)
        search.press("Enter")
        expected = f'"{text}" is none of these heads: layers go from 0 to 1, heads from 0 to 7.'
        assert message.inner_text() == expected
        assert search.get_attribute("aria-invalid") == "true"
        assert head(page) == "L0H5"


def test_addresses_and_other_parts_of_a_page_choose_a_head(page, saved):
    opened(page, saved, "#L1H3")
    assert head(page) == "L1H3"
    page.evaluate("location.hash = '#L0H2'")
    drawn(page, "L0H2")
    page.evaluate(ASK_FOR, "L1H5")
    drawn(page, "L1H5")
    assert page.locator(".ik-link").get_attribute("href") == "#L1H5"
    for nothing in ("L9H9", "a section"):
        page.evaluate(ASK_FOR, nothing)
    page.evaluate("location.hash = '#notes'")
    page.wait_for_timeout(50)
    assert head(page) == "L1H5"


def test_prompts_are_gone_through_in_a_circle(page, saved):
    opened(page, saved)
    texts = []
    for at in (1, 2, 0):
        page.locator(".ik-next").click()
        drawn(page, prompt=at)
        texts.append(page.locator(".ik-content").inner_text())
        assert page.locator(".ik-prompt option:checked").inner_text() == f"prompt {at + 1}"
    assert len(set(texts)) == 3
    page.locator(".ik-previous").click()
    drawn(page, prompt=2)
    assert page.locator(".ik-content").inner_text() == texts[1]
    page.locator(".ik-prompt").select_option("prompt 2")
    drawn(page, prompt=1)
    assert page.locator(".ik-content").inner_text() == texts[0]


def test_the_map_shows_each_score_and_marks_heads_that_pass(page, saved, scores):
    opened(page, saved)
    page.locator(".ik-tab-map").click()
    before = page.locator(".ik-map-cell").first.evaluate("each => getComputedStyle(each).backgroundColor")
    for name in ("induction", "previous_token"):
        page.locator(".ik-score-menu").select_option(name)
        passes = ik.summarise(scores)["passes"].sel(scorer=name).values
        marked = page.locator(".ik-map-cell.ik-passes").evaluate_all("all => all.map(each => each.ariaLabel)")
        assert {each.partition(":")[0] for each in marked} == names(passes)
        assert page.locator(".ik-map-cell.ik-untested").count() == np.isnan(passes).sum()
        assert page.locator(".ik-map-legend").inner_text().startswith(f"{name}, mean (probability)")
    after = page.locator(".ik-map-cell").first.evaluate("each => getComputedStyle(each).backgroundColor")
    assert before != after
    page.locator(".ik-variable").select_option("excess")
    assert page.locator(".ik-map-legend").inner_text().startswith("previous_token, excess")
    page.locator(".ik-map-cell").nth(4).click()
    drawn(page, "L0H4")


def test_a_plain_array_is_a_score_without_intervals(page, plain):
    opened(page, plain)
    assert head(page) == "L1H0"
    assert page.locator(".ik-head-readout").inner_text() == "L1H0: mine .30, untested"
    assert page.locator(".ik-card td").all_inner_texts() == [".30", "–", "–", "untested"]
    assert "mine untested: a plain array has no interval." in page.locator(".ik-card").inner_text()
    page.locator(".ik-tab-map").click()
    page.locator(".ik-variable").select_option("excess")
    assert page.locator(".ik-map-cell.ik-untested").count() == 4


def test_the_scatter_shows_each_head_at_its_two_scores(page, saved, scores):
    opened(page, saved, "#L0H0")
    page.locator(".ik-tab-scatter").click()
    points = page.locator(".ik-point")
    at = points.evaluate_all("all => all.map(each => [each.cx.baseVal.value, each.cy.baseVal.value])")
    means = ik.summarise(scores)["mean"]
    x, y = (means.sel(scorer=name).values.ravel() for name in ("induction", "previous_token"))
    across, down = np.transpose(at)
    assert np.corrcoef(across, x)[0, 1] > 1 - 1e-6
    assert np.corrcoef(down, y)[0, 1] < -1 + 1e-6
    passes = ik.summarise(scores)["passes"]
    filled = page.locator(".ik-point.ik-passes").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert set(filled) == names(passes.isel(scorer=0).values) | names(passes.isel(scorer=1).values)
    apart = np.hypot(np.subtract.outer(across, across), np.subtract.outer(down, down))
    alone = int(np.sort(apart, 1)[:, 1].argmax())  # others may lie upon each other
    points.nth(alone).hover()
    assert page.locator(".ik-point-name").text_content() == f"L{alone // 8}H{alone % 8}"
    points.nth(alone).click()
    drawn(page, f"L{alone // 8}H{alone % 8}")
    points.nth(int(x.argmax())).focus()
    page.keyboard.press("ArrowLeft")
    second = int(np.argsort(x)[-2])
    drawn(page, f"L{second // 8}H{second % 8}")
    page.locator(".ik-scatter-x").select_option("previous_token")
    moved = points.evaluate_all("all => all.map(each => each.cx.baseVal.value)")
    assert np.corrcoef(moved, y)[0, 1] > 1 - 1e-6


def test_the_wheel_zooms_about_the_pointer_dragging_moves_and_a_double_click_shows_the_whole(page, saved):
    opened(page, saved)
    x, y = place(page, 8, 3, N)
    corner = place(page, 0, 0, N)
    page.mouse.move(x, y)
    for _ in range(4):
        page.mouse.wheel(0, -200)
    page.mouse.move(x + 1, y + 1)
    assert cell(readout(page)) == (8, 3)
    page.mouse.move(*corner)
    zoomed = cell(readout(page))
    assert zoomed[0] > 0
    assert zoomed[1] > 0
    page.mouse.down()
    page.mouse.move(corner[0] + 120, corner[1] + 160, steps=4)
    page.mouse.up()
    page.mouse.move(*corner)
    moved = cell(readout(page))
    assert moved[0] < zoomed[0]
    assert moved[1] < zoomed[1]
    assert page.locator(".ik-explorer[data-kept]").count() == 0, "dragging is no click"
    page.mouse.dblclick(x, y)
    page.mouse.move(*corner)
    assert cell(readout(page)) == (0, 0)


def test_wheeling_out_of_the_whole_pattern_scrolls_the_page(page, saved):
    page.set_viewport_size({"width": 1000, "height": 500})
    opened(page, saved)
    point(page, 8, 3, N)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 100)
    until(page, f"scrollY > {before}")


def test_keys_move_the_cursor_and_zoom(page, saved):
    opened(page, saved)
    canvas = page.locator(".ik-pattern")
    canvas.focus()
    page.keyboard.press("ArrowDown")
    query, key = cell(readout(page))
    for press, move in [
        ("ArrowDown", (1, 0)),
        ("ArrowRight", (0, 1)),
        ("ArrowUp", (-1, 0)),
        ("ArrowLeft", (0, -1)),
    ]:
        page.keyboard.press(press)
        assert cell(readout(page)) == (query + move[0], key + move[1])
        query, key = query + move[0], key + move[1]
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowDown")
    assert cell(readout(page)) == (N - 1, 0)
    corner = place(page, 0, 0, N)
    for press, whole in [("+", False), ("0", True), ("+", False), ("-", True)]:
        page.keyboard.press(press)
        page.mouse.move(*corner)
        assert (cell(readout(page)) == (0, 0)) == whole, press
        page.mouse.move(1, 1)
        page.keyboard.press("End")
        page.keyboard.press("End")
        assert cell(readout(page))[1] == N - 1
    page.keyboard.press("Enter")
    kept = page.locator(".ik-explorer").get_attribute("data-kept")
    assert readout(page).startswith(f"query {kept} ")


def test_buttons_zoom_too(page, saved):
    opened(page, saved)
    for name, whole in [("Zoom in", False), ("Zoom out", True), ("Zoom in", False), ("Whole pattern", True)]:
        page.get_by_role("button", name=name).click()  # may scroll the page
        page.mouse.move(*place(page, 6, 6, N))
        page.mouse.move(*place(page, 0, 0, N))
        assert (cell(readout(page)) == (0, 0)) == whole, name
