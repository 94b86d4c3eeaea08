"""How a reader finds the way in the explorer's page: heads ranked, positions kept, layers in sight, in a browser."""

import re

import numpy as np
import pytest
from browsing import silent_page
from explored import (
    N,
    cell,
    choose,
    drawn,
    equals,
    opened,
    place,
    point,
    readout,
    stored,
    tiny,
    tiny_attention,
    tiny_page,
    tiny_scores,
    until,
)

import induction_kernel as ik

pytestmark = pytest.mark.browser
WRITTEN = """() => {
  window.written = [];
  const write = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    written.push(text);
    return write.call(this, text, x, y);
  };
}"""


@pytest.fixture(scope="module")
def scores():
    return tiny_scores()


@pytest.fixture(scope="module")
def saved(scores, tmp_path_factory):
    return tiny_page(tmp_path_factory, 2, scores=scores)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """30 layers of two heads, and prompts of 6 and 40 tokens."""
    rows = np.broadcast_to(np.eye(6), (30, 2, 6, 6))
    explorer = ik.explore(patterns=rows, tokens=[f" w{at}" for at in range(6)])
    return explorer.save(tmp_path_factory.mktemp("pages") / "deep.html")


def keep(page, at):
    page.locator(".ik-at").fill(str(at))
    page.locator(".ik-at").press("Enter")


def test_the_strongest_of_a_kept_token_are_said_above_the_pattern(page, saved):
    opened(page, saved, "#L1H7")
    seen = tiny_attention(2)
    keep(page, 11)
    said = readout(page)
    weights_of = stored(seen["pattern"].values[0, 0])[11]
    found = re.findall(r"(\d+) \"[^\"]*\" ([.\d]+)", said.partition("->")[2])
    assert said.startswith('query 11 "')
    assert " of L1H7 -> keys " in said
    assert [weights_of[int(at)] for at, _ in found] == sorted(weights_of, reverse=True)[: len(found)]
    assert all(equals(text, weights_of[int(at)]) for at, text in found)
    assert len(found) == min(5, (weights_of > 0).sum())
    assert said.endswith(", ...") == ((weights_of > 0).sum() > 5) or " (of this query" in said
    listed = page.locator(".ik-ten .ik-pair").all_inner_texts()
    assert listed[0].startswith(f"{found[0][0]} ")
    choose(page, "L0H3")
    assert " of L0H3 -> keys " in readout(page)
    page.locator(".ik-value-weighted").check()
    drawn(page)
    until(page, "document.querySelector('.ik-readout').textContent.includes(' -> keys (value-weighted) ')")
    assert "value-weighted" in page.locator(".ik-strongest .ik-quiet").inner_text()
    assert cell(point(page, 9, 3, N)) == (9, 3), "the cell pointed at comes first"
    page.mouse.click(*place(page, 9, 3, N))
    assert readout(page).startswith('query 9 "')
    assert " of L0H3 -> keys (value-weighted) " in readout(page)
    page.mouse.move(1, 1)
    page.keyboard.press("Escape")
    assert readout(page).startswith("Point at the pattern")


def test_the_strongest_heads_are_those_of_python_and_lead_to_them(page, saved, scores):
    opened(page, saved, "#L0H0")
    for name in ("induction", "previous_token"):
        page.locator(".ik-score-menu").select_option(name)
        page.locator(".ik-variable").select_option("excess")
        texts = page.locator(".ik-ranked button").all_inner_texts()
        one = scores.sel(scorer=name)
        assert [text.split()[0] for text in texts] == [str(each) for each in ik.top_heads(one, 10)]
        summary = ik.summarise(one)
        for text, head in zip(texts, ik.top_heads(one, 10), strict=True):
            assert equals(text.split()[1], float(summary["excess"].sel(layer=head.layer, head=head.head)))
        said = page.locator(".ik-ranking").inner_text()
        assert said.startswith(f"Strongest heads by {name}, excess:")
        passes = summary["passes"].values
        besides = f" ({np.isnan(passes).sum()} could not be tested)" if np.isnan(passes).any() else ""
        assert f"{(passes == 1).sum()} of 16 heads pass{besides}: their excess is beyond" in said
    page.locator(".ik-ranked button").nth(3).click()
    drawn(page, texts[3].split()[0])


def test_the_head_box_shows_the_chosen_head(page, saved):
    opened(page, saved, "#L1H3")
    box = page.locator(".ik-search")
    assert box.input_value() == "L1H3"
    choose(page, "L0H5")
    assert box.input_value() == "L0H5"
    box.focus()
    page.keyboard.type("1.6")
    page.keyboard.press("Enter")
    drawn(page, "L1H6")
    assert box.input_value() == "L1H6"
    assert box.get_attribute("placeholder") == "L0H0"
    box.fill("L7H0")
    box.press("Enter")
    assert page.locator(".ik-search-message").is_visible()
    choose(page, "L0H5")
    assert page.locator(".ik-search-message").is_hidden()


def test_a_position_is_a_querys_or_a_keys_and_is_kept_from_prompt_to_prompt(page, tmp_path):
    texts = ["fox dax ; apple wug ; fox dax ; apple", "fox dax ;"]
    opened(page, ik.explore(tiny(), texts).save(tmp_path / "page.html"))
    last = int(page.locator(".ik-at").get_attribute("max"))
    kept, position = page.locator(".ik-explorer[data-kept]"), page.get_by_label("Query position")
    for at, stays in ((2, True), (last, False)):
        keep(page, at)
        page.locator(".ik-next").click()
        drawn(page, prompt=1)
        assert kept.count() == stays
        end = page.locator(".ik-at").get_attribute("max")
        message = "" if stays else f'"{at}" is none of this prompt\'s positions: they go from 0 to {end}.'
        assert page.locator(".ik-at-message").text_content() == message
        assert position.input_value() == (str(at) if stays else "")
        page.locator(".ik-previous").click()
        drawn(page, prompt=0)
    page.locator(".ik-way").select_option("queries that attend to it")
    assert page.get_by_label("Key position").is_visible()
    keep(page, 2)
    assert re.match(r'key 2 ".*" of L0H0 <- queries \d+ ', readout(page))


@pytest.mark.parametrize("height", [500, 2400])
def test_layers_out_of_sight_are_said(chromium, deep, saved, height):
    with silent_page(chromium, viewport={"width": 1000, "height": height}) as page:
        opened(page, deep)
        rows = page.locator(".ik-rows").first
        said = re.fullmatch(
            r"In sight are layers L0 to L(\d+) of 30: scroll for the others\.", rows.inner_text()
        )
        page.locator(".ik-grid-box").evaluate("box => box.scrollTop = box.scrollHeight")
        until(page, "document.querySelector('.ik-rows').textContent.includes('to L29 of 30')")
        assert 0 < int(said[1]) < 29
        opened(page, saved)
        assert rows.is_hidden()


def test_axes_of_a_zoomed_pattern_name_tokens_and_positions(page, deep):
    opened(page, deep)
    page.evaluate(WRITTEN)
    page.get_by_role("button", name="Zoom in").click()
    until(page, "written.includes('key')")
    texts = page.evaluate("written")
    assert "·w4" in texts
    assert texts[texts.index("·w4") + 1] == "4"
