"""The built site in a browser: search, figures of notebooks, live explorers, and pages on a narrow screen."""

from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the site is served: a search reads the pages that it finds, which no page from a file may."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def opened(chromium, address, place, **options):
    """A page of the site, which may ask for nothing from elsewhere and throw nothing."""
    wrong = []
    with chromium.new_context(**options) as context:
        context.route(
            "**/*",
            lambda route: (
                route.continue_() if ours(route) else (wrong.append(route.request.url), route.abort())
            ),
        )
        context.on("weberror", lambda thrown: wrong.append(str(thrown.error)))
        page = context.new_page()
        page.goto(f"{address}/{place}")
        yield page
    assert not wrong, wrong


def ours(route):
    return route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:"))


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("first token", "scores.html"),
        ("first token", "reference/scorers.html"),
        ("patterns of all heads", "explorer.html"),
        ("export", "how_to/index.html"),
        ("kernel.vote", "reference/kernel.html"),
    ],
)
def test_search_finds(chromium, address, words, place):
    with opened(chromium, address, f"search.html?q={words.replace(' ', '+')}") as page:
        page.wait_for_function("document.querySelector('#search-results').innerText.includes('finished')")
        found = page.locator("#search-results li a").evaluate_all("all => all.map(one => one.href)")
    assert any(f"/{place}" in link for link in found[:8]), found[:8]


def test_figures_of_notebooks_are_drawn(chromium, address):
    with opened(chromium, address, "notebooks/01_tour.html") as page:
        page.wait_for_function(
            "[...document.querySelectorAll('.plotly-figure')].every(one => one.querySelector('.main-svg'))"
        )
        assert page.locator(".plotly-figure").count() >= 4


@pytest.mark.parametrize("place", ["start", "explorer"])
def test_the_explorer_is_live(chromium, address, place):
    with opened(chromium, address, f"{place}.html") as page:
        page.locator("iframe.live").scroll_into_view_if_needed()
        inside = page.frame_locator("iframe.live")
        inside.locator(".ik-thumb").nth(5).click()
        assert inside.locator(".ik-thumb").count() == 16


@pytest.mark.parametrize("place", PAGES)
def test_nothing_is_wider_than_a_narrow_screen(chromium, address, place):
    with opened(chromium, address, f"{place}.html", viewport={"width": WIDTH, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
