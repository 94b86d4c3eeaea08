"""The explorer in a real JupyterLab: live, without anywidget, and in a notebook that is reopened."""

import copy
import re
from importlib.util import find_spec

import pytest
from browsing import driven
from explored import point
from jupyter_lab import jupyterlab, notebook_of, opened, run_cell, save

import induction_kernel as ik

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="JupyterLab is not installed"),
]
TEXT = "fox dax ; apple wug ; fox"
CELL = f"""import induction_kernel as ik
model = ik.load("tiny")
explorer = ik.explore(model, "{TEXT}", scores=ik.induction(model, progress=False))
explorer"""
WITHOUT = f"import sys\nsys.modules['anywidget'] = None\n{CELL}"
WIDE = {"viewport": {"width": 1300, "height": 1400}}
STARTS = 240_000  # milliseconds for a kernel that imports torch, on a busy machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def chromium(browser):
    with driven(browser) as chromium:
        yield chromium


def drawn(page, head=""):
    """The explorer, once the head is drawn."""
    name = f'[data-head="{head}"]' if head else ""
    page.wait_for_selector(f'.ik-explorer[data-ready="head"]{name}', timeout=STARTS)
    return page.locator(".ik-explorer")


def weight_under_mouse(page, query, key, n):
    """What the readout says of a cell."""
    said = point(page, query, key, n)
    found = re.fullmatch(r"query (\d+) .* -> key (\d+) .*: ([\d.]+)", said)
    assert found, said
    assert (int(found[1]), int(found[2])) == (query, key), said
    return float(found[3])


@pytest.fixture(scope="module")
def saved(lab, chromium):
    """What JupyterLab saved after the explorer was used, with the state of its widgets; the kernel has ended."""
    lab.save_widget_state()
    lab.write("live.ipynb", notebook_of(CELL))
    with opened(chromium, lab, "live.ipynb", **WIDE) as page:
        run_cell(page)
        explorer = drawn(page)
        assert explorer.locator(".ik-thumb").count() == 16
        explorer.locator(".ik-thumb").nth(3).click()
        drawn(page, "L0H3")
        pattern = ik.patterns(ik.load("tiny"), TEXT)["pattern"].values[0, 3]
        for query, key in ((7, 6), (3, 2), (5, 4)):
            seen = weight_under_mouse(page, query, key, len(pattern))
            assert seen == pytest.approx(pattern[query, key], rel=0.05, abs=0.006)
        explorer.locator(".ik-thumb").nth(3).focus()
        page.keyboard.press("ArrowRight")
        drawn(page, "L0H4")
        save(page)
        assert page.said == []
    lab.end_kernels()
    return lab.read("live.ipynb")


def reopened(lab, chromium, name, notebook, *, trusted):
    """The page of a notebook in a JupyterLab whose kernel knows nothing of it."""
    lab.write(name, notebook, trusted=trusted)
    return opened(chromium, lab, name, **WIDE)


def shows_the_picture(page):
    picture = page.locator(".jp-RenderedImage img")
    picture.wait_for()
    return picture.evaluate("each => each.naturalWidth") > 100


def test_what_is_saved_is_a_picture_a_view_and_a_small_state(saved):
    picture, view = (output["data"] for output in saved.cells[0].outputs)
    assert set(picture) == {"image/png", "text/plain"}
    assert set(view) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    (states,) = saved.metadata.widgets.values()
    (state,) = (each.state for each in states.state.values() if each.model_name == "AnyModel")
    assert {"contents", "_esm"} <= set(state)
    assert len(str(saved)) < 200_000


def test_with_its_state_it_shows_thumbnails_and_says_that_no_kernel_answers(lab, chromium, saved):
    with reopened(lab, chromium, "state.ipynb", saved, trusted=True) as page:
        assert shows_the_picture(page)
        page.wait_for_selector('.ik-explorer[data-ready="unanswered"]', timeout=STARTS)
        assert "the cell has to run again" in page.locator(".ik-status").inner_text()
        assert page.locator(".ik-thumb").count() == 16
        assert page.said == []


def test_without_state_the_picture_stays(lab, chromium, saved):
    bare = copy.deepcopy(saved)
    del bare.metadata["widgets"]
    with reopened(lab, chromium, "bare.ipynb", bare, trusted=True) as page:
        assert shows_the_picture(page)
        page.get_by_text("model not found").wait_for(timeout=STARTS)  # what ipywidgets says of every widget
        assert page.locator(".ik-explorer").count() == 0


def test_untrusted_it_shows_the_picture_and_how_to_explore(lab, chromium, saved):
    other = copy.deepcopy(saved)
    other.metadata["from"] = "elsewhere"  # so that its signature is not known
    with reopened(lab, chromium, "untrusted.ipynb", other, trusted=False) as page:
        lab_says = page.locator(".jp-OutputArea-output").nth(1)
        lab_says.wait_for()
        assert shows_the_picture(page)
        assert lab_says.inner_text() == "Attention in tiny, to explore in a running notebook: run the cell."
        assert page.locator(".ik-explorer").count() == 0


def test_without_anywidget_the_page_works_in_a_frame(lab, chromium):
    lab.write("frame.ipynb", notebook_of(WITHOUT))
    with opened(chromium, lab, "frame.ipynb", **WIDE) as page:
        run_cell(page)
        frame = page.locator(".jp-OutputArea-output iframe").content_frame
        frame.locator('.ik-explorer[data-ready="head"]').wait_for(timeout=STARTS)
        thumb = frame.locator(".ik-thumb").nth(3)
        thumb.click()
        frame.locator('[data-head="L0H3"]').wait_for()
        thumb.press("ArrowRight")
        frame.locator('[data-head="L0H4"]').wait_for()
        assert shows_the_picture(page)
        assert page.said == []
