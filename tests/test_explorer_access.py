"""The explorer for every reader and in every home: axe-core, the keyboard alone, narrow windows, live."""

import base64

import numpy as np
import pytest
from browsing import silent_page
from explored import drawn, equals, opened, until, weights

import induction_kernel as ik
from induction_kernel.attention_explorer._contents import contents_of
from induction_kernel.attention_explorer._page import module_script, style_sheet

pytestmark = pytest.mark.browser
REACHABLE = """() => [...document.querySelectorAll("a[href], button, select, input, summary, [tabindex]")]
  .filter(each => each.checkVisibility() && !each.disabled && each.tabIndex >= 0)
  .filter(each => each.type !== "radio" || each.checked).map((each, at) => each.dataset.walked = at)"""
USED = (
    ".ik-previous", ".ik-prompt", ".ik-next", ".ik-search", ".ik-score-menu", ".ik-variable", ".ik-tab",
    ".ik-thumb[tabindex='0']", ".ik-map-cell[tabindex='0']", ".ik-point[tabindex='0']", ".ik-scatter-x",
    ".ik-scatter-y",
    ".ik-value-weighted", ".ik-shade", ".ik-beside", ".ik-pattern", ".ik-pin", ".ik-link", ".ik-table", ".ik-pair",
    ".ik-way", ".ik-at", ".ik-text", ".ik-keys summary",
)  # fmt: skip
INSIDE = """() => [...document.querySelectorAll(".ik-explorer :is(button, [role=button])")]
  .filter(each => each.checkVisibility() && !each.disabled && each.tabIndex < 0)
  .map(each => each.closest("[role=tablist], .ik-grid, svg[role=group]"))
  .map(group => group?.querySelectorAll("[tabindex='0']").length ?? 0)"""
TOO_WIDE = """() => [...document.querySelectorAll(".ik-explorer *")]
  .filter(each => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".ik-grid-box"))
  .map(each => each.className || each.tagName)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The embedded model with scores, and on few-shot prompts."""
    model, folder = ik.load("tiny"), tmp_path_factory.mktemp("pages")
    prompts = ik.repeated_tokens(model, prompts=8)
    scores = ik.observe(model, prompts, [ik.induction, ik.previous_token], progress=False)
    few = ik.prompts.word_episodes(model, prompts=2, classes=4)
    return {
        "scores": ik.explore(model, prompts[:2], scores=scores).save(folder / "scores.html"),
        "few-shot": ik.explore(model, few, scores=scores).save(folder / "few.html"),
    }


def test_a_page_that_is_always_light_has_a_light_explorer(chromium, pages, tmp_path):
    text = pages["scores"].read_text()
    fixed = tmp_path / "fixed.html"
    fixed.write_text(
        text.replace('<div class="ik-explorer"', '<div data-theme="light" class="ik-explorer"', 1)
    )
    with silent_page(chromium, color_scheme="dark") as page:
        opened(page, fixed)
        assert page.locator(".ik-explorer").get_attribute("data-theme") == "light"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["scores", "few-shot"])
def test_axe_finds_no_serious_fault(chromium, pages, axe, name, scheme):
    with silent_page(chromium, color_scheme=scheme, bypass_csp=True) as page:
        opened(page, pages[name])
        assert page.locator(".ik-explorer").get_attribute("data-theme") == scheme
        page.get_by_role("button", name="Pin", exact=False).first.click()
        page.locator("summary").evaluate_all("all => all.forEach(each => each.parentElement.open = true)")
        page.locator(".ik-token").nth(2).click()
        page.evaluate(axe)
        for tab in ("thumbnails", "map", "scatter") if name == "scores" else ("thumbnails",):
            page.locator(f".ik-tab-{tab}").click()
            found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
            assert len(found["passes"]) > 15
            faults = [
                (each["id"], each["impact"], each["nodes"][0]["html"])
                for each in found["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            assert not faults, tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_around_it_has_its_colour(chromium, pages, scheme):
    with silent_page(chromium, color_scheme=scheme) as page:
        opened(page, pages["scores"])
        colours = page.evaluate(
            "['body', '.ik-explorer'].map(each => getComputedStyle(document.querySelector(each)).backgroundColor)"
        )
        assert colours[0] == colours[1] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(23, 27, 32)")


def test_the_keyboard_alone_reaches_everything(page, pages):
    opened(page, pages["scores"])
    page.keyboard.press("Tab")
    for tab in ("thumbnails", "map", "scatter"):
        assert page.locator(f".ik-tab-{tab}").get_attribute("aria-selected") == "true"
        wanted, walked = set(page.evaluate(REACHABLE)), set()
        used = [each for each in USED if page.locator(each).first.is_visible()]
        assert len(used) >= len(USED) - 5, "some are in other tabs"
        wanted |= {int(page.locator(each).first.get_attribute("data-walked") or -2) for each in used}
        for _ in range(len(wanted) + 2):
            walked.add(page.evaluate("+(document.activeElement.dataset.walked ?? -1)"))
            page.keyboard.press("Tab")
        assert wanted <= walked
        assert set(page.evaluate(INSIDE)) == {1}, "others are reached by arrow keys from one of their group"
        while page.evaluate("document.activeElement.role") != "tab":
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")


def test_a_pin_is_set_and_taken_off_by_keys(page, pages):
    opened(page, pages["scores"])
    page.locator(".ik-pin").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".ik-small")
    assert page.evaluate("document.activeElement.textContent") == "Unpin"
    page.keyboard.press("Space")
    page.wait_for_selector(".ik-small", state="detached")


@pytest.mark.parametrize("width", [390, 1000, 1600])
@pytest.mark.parametrize("name", ["scores", "few-shot"])
def test_nothing_is_cut_off_at_the_side(chromium, pages, name, width):
    with silent_page(chromium, viewport={"width": width, "height": 800}) as page:
        opened(page, pages[name])
        for tab in ("thumbnails", "map", "scatter"):
            page.locator(f".ik-tab-{tab}").click()
            assert page.evaluate(TOO_WIDE) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        table = page.locator(".ik-table")
        assert table.evaluate("each => each.scrollWidth <= each.clientWidth")


def fragments(*explorers):
    both = "".join(each.fragment() for each in explorers)
    return f"<style>{style_sheet()}</style>{both}<script type=module>{module_script()}</script>"


def test_two_on_one_page_do_not_know_each_other(page):
    eyes = np.stack([np.eye(4), np.eye(4)])
    page.set_content(fragments(*(ik.explore(patterns=eyes, tokens=list("abcd")) for _ in range(2))))
    drawn(page)
    first, second = page.locator(".ik-explorer").all()
    second.locator(".ik-thumb").nth(1).click()
    until(page, "document.querySelectorAll('[data-head=L0H1][data-ready=head]').length === 1")
    assert first.get_attribute("data-head") == "L0H0"
    first.evaluate("each => each.dispatchEvent(new CustomEvent('ik:head', { detail: 'L0H1' }))")
    until(page, "document.querySelectorAll('[data-head=L0H1][data-ready=head]').length === 2")


def test_a_later_format_is_said(page):
    page.set_content(fragments(ik.explore(patterns=np.eye(3)[None])).replace('"format":1', '"format":2'))
    assert "These patterns have format 2; this explorer reads format 1." in page.locator("body").inner_text()


HOLD = """([contents, pictures, patterns]) => {
  const bytes = text => new DataView(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const heard = new Set(), late = [];
  const answer = asked => heard.forEach(listener => asked.index === 2
    ? listener({ kind: "error", id: asked.id, text: "The model has changed." }, [])
    : listener({ kind: "bytes", id: asked.id }, [bytes(patterns[asked.index])]));
  window.kernel = { asked: [], heard, silent: false, late, wake: () => late.splice(0).forEach(answer) };
  window.model = {
    get: name => name === "contents" ? contents : bytes(pictures),
    on: (_, listener) => heard.add(listener), off: (_, listener) => heard.delete(listener),
    send: asked => {
      kernel.asked.push(asked.index);
      if (kernel.silent) late.push(asked); else setTimeout(answer, 5, asked);
    },
  };
}"""

START = """async code => {
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  window.end = (await import(address)).default.render({ model, el: document.getElementById("here") });
}"""


@pytest.fixture
def live(page):
    """The explorer as a widget in a page without JupyterLab, and what its kernel would send."""
    from induction_kernel.attention_explorer._packing import deflated, flat_pattern

    rows = np.tril(np.random.default_rng(0).dirichlet([0.3] * 9, (4, 9))).astype(np.float32)
    explored = ik.explore(patterns=rows[None]).explored
    halves = [flat_pattern(each, None, "half", ahead=False) for each in rows]
    pictures = deflated(explored.shown[0].thumbnails)
    texts = [base64.b64encode(each).decode() for each in (pictures, *halves)]
    page.clock.install()
    page.set_content(f"<style>{style_sheet()}</style><div id=here></div>")
    page.evaluate(HOLD, [contents_of(explored, [], live=True), texts[0], texts[1:]])
    page.evaluate(START, module_script())
    return rows


def test_a_kernel_is_asked_for_each_head_once(page, live):
    drawn(page, "L0H0")
    page.locator(".ik-thumb").nth(1).click()
    drawn(page, "L0H1")
    for at, (text, _) in weights(page, 9).items():
        assert equals(text, float(np.float16(live[1][at])), zero="0")
    assert page.locator(".ik-shade option").all_inner_texts() == ["square root", "linear", "logarithmic"]
    page.locator(".ik-thumb").nth(0).click()
    drawn(page, "L0H0")
    assert page.evaluate("kernel.asked") == [0, 1]


def test_an_error_of_the_kernel_is_said_and_the_next_head_still_comes(page, live):
    drawn(page, "L0H0")
    page.locator(".ik-thumb").nth(2).click()
    page.wait_for_selector('[data-ready="unanswered"]')
    assert page.locator(".ik-status").inner_text() == "The model has changed."
    assert page.locator(".ik-explorer").get_attribute("data-head") == "L0H2"
    page.locator(".ik-thumb").nth(3).click()
    drawn(page, "L0H3")
    assert page.locator(".ik-status").is_hidden()


def test_a_kernel_that_does_not_answer_is_said_and_a_late_answer_is_taken(page, live):
    drawn(page, "L0H0")
    page.evaluate("kernel.silent = true")
    page.locator(".ik-thumb").nth(1).click()
    page.clock.fast_forward(11_000)
    page.wait_for_selector('[data-ready="unanswered"]')
    assert page.locator(".ik-status").inner_text().startswith("The kernel has not answered: ")
    page.evaluate("kernel.wake()")
    drawn(page, "L0H1")
    assert page.locator(".ik-status").is_hidden()


def test_nothing_is_left_of_a_widget_that_was_closed(page, live):
    drawn(page, "L0H0")
    page.evaluate("end()")
    assert page.evaluate("kernel.heard.size") == 0
    assert page.locator("#here").inner_html() == ""
