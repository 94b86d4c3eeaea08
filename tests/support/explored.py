"""The explorer's page as a reader has it: opened, pointed at, and what it says, in a browser driven by Playwright.

And what most of the pages show: the embedded model on a few repeated prompts.
"""

import functools
import io
import re
from decimal import Decimal

import numpy as np
from PIL import Image

import induction_kernel as ik

N = 13  # tokens of each prompt of the embedded model
HEADS = ("L1H7", "L0H3", "L1H1")
FRAME, TOP = 66, 8  # pixels beside the pattern, where the axes are, and above it
TO_EVERY_CELL = """([n, panel, frame, top, ahead]) => {
  const canvas = document.querySelectorAll(".ik-pattern")[panel], said = document.querySelector(".ik-readout");
  const box = canvas.getBoundingClientRect(), side = box.height - frame - top, lines = [];
  for (let query = 0; query < n; query++) for (let key = 0; key < (ahead ? n : query + 1); key++) {
    const [clientX, clientY] = [
      box.left + frame + (key + 0.5) * side / n, box.top + top + (query + 0.5) * side / n];
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
    lines.push([query, key, said.textContent]);
  }
  return lines;
}"""


@functools.cache
def tiny():
    return ik.load("tiny")


@functools.cache
def tiny_prompts(n):
    return ik.repeated_tokens(tiny(), prompts=n, period=6)


@functools.cache
def tiny_scores():
    """Two scores, of other prompts than those shown."""
    prompts = ik.repeated_tokens(tiny(), prompts=8)
    return ik.observe(tiny(), prompts, [ik.induction, ik.previous_token], progress=False)


@functools.cache
def tiny_attention(n):
    """Attention of `HEADS` on n prompts: `[prompt, choice, query, key]`, and its norms."""
    return ik.patterns(tiny(), tiny_prompts(n), HEADS)


def tiny_page(folders, n, **options):
    """The page of the embedded model on n prompts, saved."""
    explorer = ik.explore(tiny(), tiny_prompts(n), **options)
    return explorer.save(folders.mktemp("pages") / "tiny.html")


def opened(page, path, address=""):
    """Go to a page that was saved and wait until a head is drawn; an address is "#L1H7"."""
    page.goto(path.as_uri() + address)
    drawn(page)


def drawn(page, head=None, prompt=None):
    """Wait until a head is drawn: this one, on this prompt."""
    wanted = '.ik-explorer[data-ready="head"]'
    wanted += f'[data-head="{head}"]' if head else ""
    wanted += f'[data-prompt="{prompt}"]' if prompt is not None else ""
    page.wait_for_selector(wanted, timeout=10_000)


def until(page, expression):
    """Wait until a JavaScript expression is true (the page's policy forbids Playwright's own way)."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def head(page):
    """The name of the head that is shown."""
    return page.locator(".ik-explorer").get_attribute("data-head")


def choose(page, name):
    """Click on a head's picture."""
    page.get_by_role("button", name=re.compile(rf"^{name}\b")).and_(page.locator(".ik-thumb")).click()
    drawn(page, name)


def place(page, query, key, n, *, panel=0):
    """Where on the screen the middle of a cell is, while the whole pattern of n tokens is shown."""
    canvas = page.locator(".ik-pattern").nth(panel)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    side = box["height"] - FRAME - TOP
    return box["x"] + FRAME + (key + 0.5) * side / n, box["y"] + TOP + (query + 0.5) * side / n


def point(page, query, key, n, *, panel=0):
    """Point at a cell; what the page says of it."""
    page.mouse.move(*place(page, query, key, n, panel=panel))
    return readout(page)


def readout(page):
    """What is said of the cell that is pointed at."""
    return page.locator(".ik-readout").inner_text()


def cell(said):
    """Query and key that a line names."""
    found = re.match(r"query (\d+) .*? -> key (\d+) ", said, re.S)
    return int(found[1]), int(found[2])


def weights(page, n, *, panel=0, ahead=False):
    """What is said of every cell: (query, key) -> its weight as it is written, and the rest of the line."""
    lines = page.evaluate(TO_EVERY_CELL, [n, panel, FRAME, TOP, ahead])
    found = {}
    for query, key, said in lines:
        assert cell(said) == (query, key)
        weight, rest = re.search(r": (?:[^:=]* = )?([^:=]*?)((?: \(| · ).*)?$", said, re.S).groups()
        found[query, key] = (weight, rest or "")
    return found


def equals(text, expected, zero="below .002"):
    """Whether a written number is the expected one, to half of its last digit; 0 is written as `zero`."""
    if text == zero:
        return abs(expected) < 1e-7
    number = Decimal(text.replace("−", "-").replace("+", ""))
    return abs(float(number) - expected) <= 0.5 * 10.0 ** number.as_tuple().exponent * (1 + 1e-4)


def picture(locator):
    """What an element looks like: `[row, column, 3]`."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def stored(pattern):
    """Weights as a page stores them."""
    return np.rint(255 * np.asarray(pattern, dtype=float)) / 255


def all_equal(read, expected, zero="below .002"):
    """Assert that what `weights` read is written as the expected weights are."""
    assert read
    wrong = {
        at: (text, expected[at]) for at, (text, _) in read.items() if not equals(text, expected[at], zero)
    }
    assert not wrong


def pin(page, *heads):
    """Choose heads and pin them."""
    for name in heads:
        choose(page, name)
        page.get_by_role("button", name=f"Pin {name}", exact=True).click()
        drawn(page)


def together(page, how):
    """Show the head and the pinned ones in one way; the first pattern's title."""
    page.get_by_role("radio", name=re.compile(f"^{how}")).check()
    drawn(page)
    return page.locator("figcaption").first.inner_text()
