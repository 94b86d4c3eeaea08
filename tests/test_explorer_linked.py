"""The explorer's text, pattern and legends belong together: a kept token is marked in all of them, in a browser."""

import numpy as np
import pytest
from browsing import silent_page
from explored import cell, opened, picture, place, readout, until

import induction_kernel as ik

pytestmark = pytest.mark.browser
N = 40
WORDS = [f" {'lemonade' if at % 2 else 'the'}{at}" for at in range(N)]


@pytest.fixture(scope="module")
def rows():
    """Attention `[query, key]` of one head, no two weights of a query alike."""
    weights_of = np.tril(1.0 + (np.arange(N)[:, None] * 7 + np.arange(N) * 11) % N)
    return weights_of / weights_of.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def saved(rows, tmp_path_factory):
    explorer = ik.explore(patterns=rows[None], tokens=WORDS, scores={"mine": np.array([[0.3]])})
    return explorer.save(tmp_path_factory.mktemp("pages") / "linked.html")


def marks(page):
    """Pixels drawn on the upper canvas in the margin left of the pattern, and in the margin below it."""
    return page.evaluate("""() => {
      const canvas = document.querySelector(".ik-over"), { width, height } = canvas;
      const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const data = copy.getImageData(0, 0, width, height).data;
      const drawn = (x, y) => data[4 * (y * width + x) + 3] > 0;
      const left = [], below = [];
      for (let y = 0; y < height; y++) if (drawn(63, y)) left.push(y / devicePixelRatio);
      for (let x = 66; x < width; x++) if (drawn(x, height - 64)) below.push(x / devicePixelRatio);
      return [left, below];
    }""")


def test_a_kept_token_is_marked_in_the_pattern_and_fills_its_position(page, saved):
    opened(page, saved)
    position, canvas = page.locator(".ik-at"), page.locator(".ik-pattern")
    page.mouse.click(*place(page, 30, 12, N))
    assert position.input_value() == "30"
    page.mouse.move(1, 1)
    x, y = place(page, 30, 12, N)
    box = canvas.bounding_box()
    left, below = marks(page)
    assert below == []
    assert abs(np.mean(left) + 0.5 - (y - box["y"])) < 1.5
    page.keyboard.down("Shift")
    page.mouse.click(x, y)
    page.keyboard.up("Shift")
    assert position.input_value() == "12"
    page.mouse.move(1, 1)
    left, below = marks(page)
    assert left == []
    assert abs(np.mean(below) + 0.5 - (x - box["x"])) < 1.5
    page.keyboard.press("Escape")
    assert position.input_value() == ""
    assert marks(page) == [[], []]


def test_the_ten_strongest_of_a_kept_token_are_listed_and_lead_to_their_cells(page, saved, rows):
    opened(page, saved)
    page.locator(".ik-at").fill("30")
    page.locator(".ik-at").press("Enter")
    listed = page.locator(".ik-ten .ik-pair")
    stored = np.rint(255 * rows[30])
    found = [int(text.split()[0]) for text in listed.all_inner_texts()]
    assert len(found) == 10
    assert stored[found].tolist() == sorted(stored, reverse=True)[:10]
    listed.nth(4).click()
    assert cell(readout(page)) == (30, found[4])
    page.keyboard.press("Escape")
    assert listed.count() == 0 or not listed.first.is_visible()


def test_the_colours_of_the_text_have_a_scale(page, saved):
    opened(page, saved)
    scale = page.locator(".ik-text-scale")
    assert scale.inner_text().startswith("keys it attends to, by weight")
    keys = picture(scale)
    page.locator(".ik-way").select_option("queries that attend to it")
    until(
        page, "document.querySelector('.ik-text-scale').innerText.startsWith('queries that attend to it, by')"
    )
    assert keys.shape != picture(scale).shape or (keys != picture(scale)).any()


def test_the_outline_is_the_words_alone(page, saved):
    opened(page, saved)
    page.locator('.ik-token[data-at="7"]').click()
    token = page.locator(".ik-token.ik-current")
    word = token.locator(".ik-word")
    assert word.inner_text() == "lemonade7"
    assert word.evaluate("each => getComputedStyle(each).outlineWidth") == "2px"
    assert token.evaluate("each => getComputedStyle(each).outlineStyle") == "none"


@pytest.mark.parametrize("width", [390, 1400])
def test_what_is_said_of_the_pattern_is_in_sight_and_moves_nothing(chromium, saved, width):
    with silent_page(chromium, viewport={"width": width, "height": 900 if width > 400 else 844}) as page:
        opened(page, saved)
        x, y = place(page, 38, 20, N)
        page.mouse.move(x, y)
        assert cell(readout(page)) == (38, 20)
        box = page.locator(".ik-readout").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= page.viewport_size["height"]
        assert place(page, 38, 20, N) == (x, y)


def test_legends_say_what_bar_and_steps_are(page, saved):
    opened(page, saved)
    legend = page.locator(".ik-map-legend").inner_text()
    assert legend.startswith("Bar under each picture: mine, mean")
    assert "untested: a plain array has no interval" in legend
    assert "passes" not in legend
    assert "steps of 1/255 (.0039)" in page.locator(".ik-pattern-legend").inner_text()
    assert page.locator(".ik-abouts").count() == 0
    assert page.locator(".ik-controls .ik-keys summary").inner_text() == "Keyboard and mouse"
