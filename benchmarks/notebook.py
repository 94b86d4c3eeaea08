"""What does a notebook with one live explorer weigh, what shows of it later, and how long does a head take?

SmolLM2-135M on the first tokens of a text, in a JupyterLab on the loopback address, opened in Chromium: bytes of the
saved notebook without and with the state of widgets, seconds from the click on a head to its drawn pattern (median and
spread), and what the kernel keeps. With `--pictures FOLDER`: what shows live, reopened, reopened with state, untrusted,
as nbconvert writes it and with scripts and frames stripped.
Run with `python benchmarks/notebook.py MODEL TEXT [--length 1024] [--pictures FOLDER]`; nothing is fetched.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from measuring import middle, save
from nbconvert import HTMLExporter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from browsing import driven
from jupyter_lab import jupyterlab, notebook_of, opened, run_cell
from jupyter_lab import save as save_notebook

CELL = """import warnings; warnings.filterwarnings("ignore")
import torch; torch.set_num_threads({threads})
import induction_kernel as ik
model = ik.load({model!r})
tokens = model.to_tokens(open({text!r}).read()[20_000 : 20_000 + 10 * {length}])[:, :{length}]
explorer = ik.explore(model, tokens, progress=False)"""
WIDE = {"viewport": {"width": 1300, "height": 1000}}
CLICKED = (4, 47, 130, 201, 268, 99, 12)
WAIT = 590_000  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    values = {"model": str(Path(asked.model).resolve()), "text": str(Path(asked.text).resolve())}
    cell = CELL.format(**values, length=asked.length, threads=asked.threads)
    chromium = next(path for name in ("chromium", "chromium-browser") if (path := shutil.which(name)))
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyterlab(Path(folder)) as lab,
        driven(chromium) as browser,
    ):
        row = {"length": asked.length, **used(lab, browser, cell, asked.pictures)}
        if asked.pictures:
            photograph(lab, browser, asked.pictures)
    for name, value in row.items():
        print(f"{name:28}{value}")
    command = f"python benchmarks/notebook.py MODEL TEXT --length {asked.length}"
    save(f"notebook_{asked.length}", command, [row])


def used(lab: Any, browser: Any, cell: str, pictures: Path | None) -> dict[str, Any]:
    """Run the notebook, click on heads, save it with the state of its widgets, and without."""
    lab.save_widget_state()
    lab.write("state.ipynb", notebook_of(cell, "explorer"))
    with opened(browser, lab, "state.ipynb", **WIDE) as page:
        run_cell(page)
        page.locator(".jp-InputPrompt", has_text="[1]").first.wait_for(timeout=WAIT)
        run_cell(page, 1)
        page.wait_for_selector('.ik-explorer[data-ready="head"]', timeout=WAIT)
        seconds = [clicked(page, index) for index in CLICKED]
        found = {"click_to_drawn_seconds": middle(seconds), "notes": page.locator(".ik-notes").inner_text()}
        if pictures:
            page.locator(".ik-title").scroll_into_view_if_needed()
            page.screenshot(path=pictures / "live.png")
        save_notebook(page)
    lab.end_kernels()
    bare = lab.read("state.ipynb")
    del bare.metadata["widgets"]
    lab.write("bare.ipynb", bare, trusted=True)
    return found | {
        f"{name}_bytes": (lab.folder / f"{name}.ipynb").stat().st_size for name in ("bare", "state")
    }


def clicked(page: Any, index: int) -> float:
    """Seconds from the click on a head to its drawn pattern."""
    thumb = page.locator(f'.ik-thumb[data-index="{index}"]')
    thumb.scroll_into_view_if_needed()
    start = time.perf_counter()
    thumb.click()
    page.wait_for_function(
        "([root, name]) => root.dataset.ready === 'head' && root.dataset.head === name",
        arg=[
            page.query_selector(".ik-explorer"),
            re.match(r"L\d+H\d+", thumb.get_attribute("aria-label"))[0],
        ],
        timeout=WAIT,
    )
    return time.perf_counter() - start


def photograph(lab: Any, browser: Any, pictures: Path) -> None:
    """What shows of the saved notebook in other places."""
    other = lab.read("state.ipynb")
    other.metadata["from"] = "elsewhere"
    lab.write("untrusted.ipynb", other)
    for name in ("bare", "state", "untrusted"):
        with opened(browser, lab, f"{name}.ipynb", **WIDE) as page:
            page.wait_for_timeout(25_000)  # also beyond the ten seconds that a kernel has to answer
            page.locator(".jp-OutputArea-output").last.scroll_into_view_if_needed()
            page.screenshot(path=pictures / f"{name}.png")
    for name in ("bare", "state"):
        html, _ = HTMLExporter().from_notebook_node(nbformat.read(lab.folder / f"{name}.ipynb", 4))
        stripped = re.sub(r"<(script|iframe)\b.*?</\1>", "", html, flags=re.DOTALL)
        for kind, text in {"nbconvert": html, "stripped": stripped}.items():
            file = lab.folder / f"{name}-{kind}.html"
            file.write_text(text)
            with browser.new_context(offline=True, **WIDE) as context:
                page = context.new_page()
                page.goto(file.as_uri())
                page.wait_for_timeout(3000)
                page.screenshot(path=pictures / f"{name}-{kind}.png", full_page=True)


if __name__ == "__main__":
    main()
