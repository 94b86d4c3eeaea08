"""The pages that other tests open in a browser: what they say or ask for fails a test."""

import pytest
from browsing import silent_page

pytestmark = pytest.mark.browser

FAULTS = {
    "a line": ("<script>console.debug('here')</script>", "debug: here"),
    "a line of a frame": ("<iframe srcdoc='<script>console.log(1)</script>'></iframe>", "log: 1"),
    "an error": ("<script>null.x</script>", "thrown: .*null"),
    "a broken promise": ("<script>Promise.reject(new Error('no'))</script>", "thrown: no"),
    "a picture from elsewhere": ("<img src='http://127.0.0.1:9/x.png'>", "ERR_INTERNET_DISCONNECTED"),
    "a request": (
        "<script>fetch('http://127.0.0.1:9/').catch(() => 0)</script>",
        "ERR_INTERNET_DISCONNECTED",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_page_that_speaks_throws_or_asks_is_noticed(chromium, tmp_path, fault):
    source, said = FAULTS[fault]
    (tmp_path / "page.html").write_text(source)
    with pytest.raises(AssertionError, match=said), silent_page(chromium) as page:
        page.goto((tmp_path / "page.html").as_uri())


def test_a_file_opens_without_the_network(page, tmp_path):
    (tmp_path / "page.html").write_text("<title>before</title><script>document.title = 'after'</script>")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.title() == "after"
    assert page.evaluate("navigator.onLine") is False


def test_axe_finds_a_picture_without_words(page, axe):
    page.set_content("<main><h1>Heads</h1><img src='data:,'></main>")
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(found => found.violations.map(each => each.id))")
    assert "image-alt" in found
