"""Figures look as written down: traces, axes, ticks, colours, legends, margins and texts of each."""

import functools
import html
import json
import re

import pandas as pd
import plotly.graph_objects as go
import pytest
from described import same
from drawn import FIGURES, FILE, drawn

from induction_kernel.pages._rendering import LINE, MENU
from induction_kernel.pages._rendering import drawn as on_page


@functools.cache
def figure(name):
    return FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_is_drawn_as_written_down(name):
    """`drawn.json`, which `drawn.py` writes: whoever changes how a figure looks reads the difference."""
    kept, now = json.loads(FILE.read_text())[name], json.loads(json.dumps(drawn(figure(name))))
    assert same(kept, now), {
        key: (kept.get(key), now[key]) for key in now if not same(kept.get(key), now[key])
    }


@pytest.mark.parametrize("name", [name for name in FIGURES if not name.startswith("evidence_plot")])
def test_axes_say_what_they_are(name):
    """By a title; the vertical one also by the bold words above its panel, or by words instead of numbers."""
    layout = figure(name).layout
    x, y = ([layout[axis] for axis in layout if axis.startswith(f"{side}axis")] for side in "xy")
    assert any(axis.title.text for axis in x)
    bold = any(note.text.startswith("<b>") for note in layout.annotations)
    assert bold or any(axis.title.text or isinstance((axis.ticktext or (0,))[0], str) for axis in y)


@pytest.mark.parametrize("name", FIGURES)
def test_on_a_page_the_title_is_a_caption_and_the_axes_keep_their_height(name):
    before, shown = figure(name).layout, go.Figure(figure(name))
    page, after = on_page(shown, pd.DataFrame({"a": [1]}), "numbers"), shown.layout
    assert inside(after) == inside(before)
    lines = 1 + before.title.text.count("<br>")
    assert after.margin.t == max(MENU, before.margin.t - LINE * lines)
    assert after.title.text is None
    wrapped = max(axis.title.text.count("<br>") for axis in shown.select_xaxes())
    assert after.margin.b == before.margin.b + LINE * wrapped
    title, _, notes = (
        html.unescape(re.sub("<[^>]*>", " ", part)) for part in before.title.text.partition("<br><span")
    )
    said = [" ".join(part.rpartition("'>")[2].split()) for part in (title, notes) if part]
    assert page.caption == ", ".join(said)
    assert f"height:{after.height}px; width:100%;" in page.html


def inside(layout):
    """Pixels between the margins, downwards."""
    return layout.height - layout.margin.t - layout.margin.b


def test_every_written_figure_is_drawn():
    assert list(json.loads(FILE.read_text())) == list(FIGURES)
