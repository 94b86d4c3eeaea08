"""The text of the explorer's page in a browser: tokens pointed at, kept and copied; any letters, any length."""

import re

import numpy as np
import pytest
from explored import choose, drawn, equals, head, opened, place, point, readout, until, weights
from hostile import HOSTILE

import induction_kernel as ik

pytestmark = pytest.mark.browser
LONG = 5_000
LETTERS = (
    *HOSTILE, "👩‍👩‍👧", " 🙂", "\ufffd", " שלום", " مرحبا", "\u202e", "\n", "\n\n", "\r\n", "\t", "  ", "",
    " &lt;b&gt; &amp;", "]]>", "é", "e\u0301", "中文",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    """Attention `[query, key]` of one head: no two weights of a query or of a key are alike."""
    weights_of = np.tril(np.arange(1, 101).reshape(10, 10) ** 1.5)
    return (weights_of / weights_of.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(rows, tmp_path_factory):
    """Ten tokens; L0H0 looks about, L0H1 at nothing."""
    both = np.stack([rows, np.zeros_like(rows)])
    return ik.explore(patterns=both, tokens=[f" w{i}" for i in range(10)]).save(
        tmp_path_factory.mktemp("pages") / "ten.html"
    )


def said(page):
    return page.locator(".ik-text-readout").inner_text()


def token(page, at):
    return page.locator(f'.ik-token[data-at="{at}"]')


def says(page, start):
    until(page, f"document.querySelector('.ik-text-readout').textContent.startsWith({start!r})")
    return said(page)


def opacities(page):
    """How strong the colour behind each token is."""
    return page.locator(".ik-token").evaluate_all(
        "all => all.map(each => +(/([.\\d]+)\\)$/.exec(each.style.backgroundColor) ?? [0, 0])[1])"
    )


def assert_coloured_by(page, weights_of):
    expected = np.sqrt(np.rint(255 * weights_of) / 255)
    np.testing.assert_allclose(opacities(page), np.where(expected > 0.04, expected, 0), atol=0.0051)


def test_pointing_at_a_token_colours_the_keys_and_with_shift_the_queries(page, saved, rows):
    opened(page, saved)
    token(page, 6).hover()
    line = says(page, 'query 6 " w6"')
    best = np.argsort(-rows[6])[:3]
    found = re.findall(r'(\d+) " w\1" ([.\d]+)', line.partition("->")[2])
    assert [int(at) for at, _ in found] == best.tolist()
    assert all(equals(weight, np.rint(255 * rows[6, int(at)]) / 255) for at, weight in found)
    assert_coloured_by(page, rows[6])
    page.keyboard.down("Shift")
    line = says(page, 'key 6 " w6"')
    assert [int(at) for at in re.findall(r'(\d+) " w', line)[1:]] == (
        6 + np.argsort(-rows[6:, 6])[:3]
    ).tolist()
    assert_coloured_by(page, rows[:, 6])
    page.keyboard.up("Shift")
    says(page, 'query 6 " w6"')
    page.mouse.move(1, 1)
    says(page, "Point at a token")
    assert opacities(page) == [0] * 10
    page.locator(".ik-way").select_option("queries that attend to it")
    token(page, 6).hover()
    says(page, 'key 6 " w6"')


def test_a_click_keeps_a_token_and_escape_or_another_click_releases_it(page, saved):
    opened(page, saved)
    kept = page.locator(".ik-explorer[data-kept]")
    for release in ("click", "Escape"):
        token(page, 4).click()
        page.mouse.move(1, 1)
        assert kept.get_attribute("data-kept") == "4"
        says(page, 'query 4 " w4"')
        choose(page, "L0H1")
        says(page, 'query 4 " w4" -> keys none')
        choose(page, "L0H0")
        token(page, 4).click() if release == "click" else page.keyboard.press(release)
        assert kept.count() == 0
    page.locator(".ik-at").fill("7")
    page.locator(".ik-at").press("Enter")
    assert kept.get_attribute("data-kept") == "7"
    page.locator(".ik-at").fill("10")
    page.locator(".ik-at").press("Enter")
    assert page.locator(".ik-at").get_attribute("aria-invalid") == "true"
    expected = '"10" is none of this prompt\'s positions: they go from 0 to 9.'
    assert page.locator(".ik-at-message").inner_text() == expected
    assert kept.get_attribute("data-kept") == "7"
    page.locator(".ik-at").fill("8")
    page.locator(".ik-at").press("Enter")
    assert page.locator(".ik-at-message").is_hidden()


def test_keys_walk_over_the_text(page, saved):
    opened(page, saved)
    page.locator(".ik-text").focus()
    walk = [("End", 9), ("ArrowLeft", 8), ("Home", 0), ("ArrowRight", 1), ("ArrowUp", 0), ("ArrowDown", 9)]
    for press, at in walk:
        page.keyboard.press(press)
        says(page, f'query {at} " w{at}"')
    page.keyboard.press("Enter")
    assert page.locator(".ik-explorer").get_attribute("data-kept") == "9"
    page.keyboard.down("Shift")
    page.keyboard.press("ArrowLeft")
    says(page, 'key 8 " w8"')
    page.keyboard.up("Shift")
    says(page, 'query 8 " w8"')
    page.keyboard.press("Escape")
    assert page.locator(".ik-explorer[data-kept]").count() == 0


def test_the_cell_pointed_at_is_marked_in_the_text(page, saved):
    opened(page, saved)
    point(page, 7, 2, 10)
    assert page.locator(".ik-at-query").all_inner_texts() == [" w7"]
    assert page.locator(".ik-at-key").all_inner_texts() == [" w2"]
    page.locator(".ik-pattern").click(position={"x": 100, "y": 100})
    kept = page.locator(".ik-explorer").get_attribute("data-kept")
    assert readout(page).startswith(f"query {kept} ")


def copied(page):
    """What lands in another field when the whole text is copied."""
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.ik-content'))")
    page.keyboard.press("Control+C")
    page.evaluate("document.body.append(document.createElement('textarea'))")
    page.locator("textarea").focus()
    page.keyboard.press("Control+V")
    return page.locator("textarea").input_value()


def test_letters_of_every_kind_are_text_and_are_copied_as_they_are(page, tmp_path):
    tokens, n = list(LETTERS), len(LETTERS)
    scores = {each: [[1.0]] for each in HOSTILE}
    opened(
        page, ik.explore(patterns=np.eye(n)[None], tokens=tokens, scores=scores).save(tmp_path / "page.html")
    )
    named = page.locator(".ik-score-menu option").evaluate_all("all => all.map(each => each.textContent)")
    assert named == list(HOSTILE)
    page.locator(".ik-tab-scatter").click()
    assert page.title() == "Attention of 1 head"
    assert page.locator(".ik-token").evaluate_all("all => all.map(each => each.textContent)") == tokens
    assert page.locator(".ik-explorer :is(iframe, img, meta, a[autofocus])").count() == 0
    for at in range(n):
        shown = tokens[at].replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        line = page.locator(".ik-readout").evaluate("each => each.textContent", point(page, at, at, n))
        assert re.sub("[\u2068\u2069]", "", line) == f'query {at} "{shown}" -> key {at} "{shown}": 1.00'
    assert copied(page) == "".join(tokens).replace("\r\n", "\n").replace("\0", "")


def test_white_space_and_nothing_are_visible(page, tmp_path):
    tokens = ["a", "\n", "  ", "", "b"]
    opened(page, ik.explore(patterns=np.eye(5)[None], tokens=tokens).save(tmp_path / "page.html"))
    marks = page.locator(".ik-token").evaluate_all(
        "all => all.map(each => getComputedStyle(each, '::before').content)"
    )
    assert marks == ["none", '"↵"', '"␣"', '"∅"', "none"]
    assert copied(page) == "a\n  b"


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """5,000 tokens: L0H0 attends 3,000 tokens back, or to the first token; L0H1 to itself."""
    weights_of = np.zeros((2, LONG, LONG), dtype=np.float32)
    at = np.arange(LONG)
    weights_of[0, at, np.maximum(0, at - 3000)] = 1
    weights_of[1, at, at] = 1
    explorer = ik.explore(patterns=weights_of, tokens=[f" {i}" for i in range(LONG)], heads="L0H0")
    return explorer.save(tmp_path_factory.mktemp("pages") / "long.html")


def test_five_thousand_tokens(page, long):
    opened(page, long)
    assert page.locator(".ik-token").count() < 2_000
    page.locator(".ik-at").fill("4321")
    page.locator(".ik-at").press("Enter")
    assert says(page, 'query 4321 " 4321"') == 'query 4321 " 4321" -> keys 1321 " 1321" 1.00'
    assert token(page, 4321).is_visible()
    page.locator(".ik-text").evaluate("box => box.scrollTop = box.scrollHeight")
    token(page, LONG - 1).hover()
    assert says(page, "query 4999") == 'query 4999 " 4999" -> keys 1999 " 1999" 1.00'
    assert page.locator(".ik-token").count() < 2_000
    assert page.locator(".ik-content").evaluate("each => each.textContent") == "".join(
        f" {i}" for i in range(LONG)
    )
    page.locator(".ik-pattern").focus()
    for press in ("ArrowDown", "End", "ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(press)
    assert readout(page) == 'query 3011 " 3011" -> key 4998 " 4998": no attention to later tokens'


def test_a_head_that_is_not_stored_whole_is_shown_in_blocks(page, long):
    opened(page, long, "#L0H1")
    assert page.locator(".ik-status").inner_text().startswith("This head is not stored whole on this prompt.")
    x, y = place(page, 20, 20, 64)
    page.mouse.move(x, y)
    first, last = 20 * LONG / 64, 21 * LONG / 64
    within = f"{int(first)} to {int(last) - 1}"
    assert readout(page) == f"queries {within}, keys {within}: largest weight 1.00"
    page.mouse.move(*place(page, 20, 19, 64))
    assert readout(page).endswith("largest weight below .002")
    assert said(page) == "This head is not stored whole on this prompt: the text cannot be coloured."


def test_a_prompt_of_one_token_and_a_head_of_zeros(page, tmp_path, saved):
    opened(page, ik.explore(patterns=np.ones((1, 1, 1)), tokens=["only"]).save(tmp_path / "one.html"))
    assert point(page, 0, 0, 1) == 'query 0 "only" -> key 0 "only": 1.00'
    page.mouse.wheel(0, -100)
    page.get_by_role("button", name="Zoom in").click()
    token(page, 0).hover()
    assert says(page, "query 0") == 'query 0 "only" -> keys 0 "only" 1.00'
    opened(page, saved)
    choose(page, "L0H1")
    assert {text for text, _ in weights(page, 10).values()} == {"below .002"}
    assert page.locator(".ik-pair").count() == 0


def test_heads_that_are_absent_cannot_be_chosen(page, tmp_path):
    model = ik.load("tiny")
    seen = ik.patterns(model, "fox dax ; apple wug ; fox", ["L1H7", "L0H3"])
    opened(page, ik.explore(patterns=seen).save(tmp_path / "page.html"))
    assert page.locator(".ik-thumb:enabled").evaluate_all("all => all.map(each => each.dataset.index)") == [
        "3", "15",
    ]  # fmt: skip
    assert page.locator(".ik-thumb").first.get_attribute("aria-label") == "L0H0, not there"
    drawn(page, "L0H3")
    page.locator(".ik-thumb[tabindex='0']").focus()
    for press, name in [("ArrowRight", "L1H7"), ("ArrowRight", "L1H7"), ("ArrowLeft", "L0H3")]:
        page.keyboard.press(press)
        drawn(page, name)
    page.locator(".ik-search").fill("L0H0")
    page.locator(".ik-search").press("Enter")
    assert "heads from 0 to 7, not all of them are here." in page.locator(".ik-search-message").inner_text()
    assert head(page) == "L0H3"


def test_attention_to_later_tokens(page, tmp_path):
    pattern = np.random.default_rng(1).dirichlet([0.3] * 6, 6)
    opened(page, ik.explore(patterns=pattern[None]).save(tmp_path / "page.html"))
    read = weights(page, 6, ahead=True)
    assert len(read) == 36
    for at, (text, _) in read.items():
        assert equals(text, np.rint(255 * pattern[at]) / 255)
