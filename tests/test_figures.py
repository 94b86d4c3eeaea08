"""Figures look as written down: traces, axes, ticks, colours, legends, margins and texts of each."""

import functools
import json

import pytest
from described import same
from drawn import FIGURES, FILE, drawn


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


def test_every_written_figure_is_drawn():
    assert list(json.loads(FILE.read_text())) == list(FIGURES)
