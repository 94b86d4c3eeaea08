"""The built site in a browser: search, figures of notebooks, live explorers, and pages on a narrow screen."""

from pathlib import Path

import pytest
from browsing import silent_page

SITE = Path(__file__).resolve().parent.parent / "site"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site here: `make docs` makes it"),
]
PAGES = (
    "index start how_to/index papers/index scores explorer performance supported_models "
    "reference/index reference/interventions notebooks/01_tour changelog"
).split()
WIDTH = 390


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("first token", "scores.html"),
        ("patterns of all heads", "explorer.html"),
        ("page that needs no network", "explorer.html"),
        ("kernel.vote", "reference/kernel.html"),
    ],
)
def test_search_finds(chromium, words, page):
    with silent_page(chromium) as there:
        there.goto(f"{(SITE / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
        there.locator("#search-results li a").first.wait_for()
        there.wait_for_function(
            "document.querySelector('#search-results .search-summary')?.textContent.includes('found')"
        )
        found = there.locator("#search-results li a").evaluate_all("all => all.map(one => one.href)")
    assert any(f"/{page}" in link for link in found), found


def test_figures_of_notebooks_are_drawn(chromium):
    with silent_page(chromium) as there:
        there.goto((SITE / "notebooks" / "01_tour.html").as_uri())
        figures = there.locator(".plotly-figure")
        there.locator(".plotly-figure .main-svg").first.wait_for()
        assert figures.count() >= 4
        assert figures.evaluate_all("all => all.every(one => one.querySelector('.main-svg'))")


@pytest.mark.parametrize("page", ["start", "explorer"])
def test_the_explorer_is_live(chromium, page):
    with silent_page(chromium) as there:
        there.goto((SITE / f"{page}.html").as_uri())
        there.locator("iframe.live").scroll_into_view_if_needed()
        inside = there.frame_locator("iframe.live")
        inside.locator(".ik-thumb").nth(5).click()
        assert inside.locator(".ik-thumb").count() == 16


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_wider_than_a_narrow_screen(chromium, page):
    with silent_page(chromium, viewport={"width": WIDTH, "height": 800}) as there:
        there.goto((SITE / f"{page}.html").as_uri())
        assert there.evaluate("document.documentElement.scrollWidth") <= WIDTH
