"""Rendering of pages: the Jinja2 environment, figures that fit their column, and their data as downloads.

The text of a page is in `templates/`; measured values are passed in. A page fetches nothing: its own
Content-Security-Policy forbids it.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..attention_explorer._page import module_script, style_sheet
from ..formats import csv_of
from ..plots._offline import POLICY
from ._filters import interval, number, percent, share

__all__ = ["Drawn", "File", "drawn", "macro", "rendered"]

LINE = 19  # pixels of a line in a figure's title
MENU = 32  # pixels that plotly's buttons take above a figure


def rendered(
    template: str, title: str, libraries: Iterable[str], *, explorer: bool = False, **data: Any
) -> str:
    """A whole page.

    Args:
        template: a file of `templates/` that extends base.html.j2.
        title: title of the page, as plain text.
        libraries: JavaScript sources, placed before the body of the page.
        explorer: whether attention explorers are in it, which need their style sheet and module.
        data: the variables of the template.
    """
    page = {"policy": Markup(POLICY), "title": title, "libraries": [Markup(each) for each in libraries]}
    page["style"], page["module"] = (
        Markup(each() if explorer else "") for each in (style_sheet, module_script)
    )
    return environment().get_template(template).render(**page, heading=Headings(), **data)


def macro(template: str, name: str, *values: Any) -> str:
    """The text that a macro of a template makes of these values."""
    return str(getattr(environment().get_template(template).module, name)(*values)).strip()


@cache
def environment() -> Environment:
    """The environment of all templates: text is escaped unless marked as HTML, and undefined names are errors."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "percent": percent, "interval": interval, "share": share}
    return made


class Heading(NamedTuple):
    """The anchor and the title of a section."""

    id: str
    text: str


class Headings:
    """`heading("Title")` in a template makes an h2 and records it for the list of contents."""

    def __init__(self) -> None:
        self.all: list[Heading] = []

    def __call__(self, text: str, id: str | None = None) -> Markup:
        """The h2; its anchor is made of its words where no id is given."""
        place = id or re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        self.all.append(Heading(place, text))
        return Markup('<h2 id="{}">{}</h2>').format(place, text)


@dataclass(frozen=True)
class File:
    """A file to download.

    Attributes:
        name: its name.
        uri: its content, as a data: URI.
    """

    name: str
    uri: str


@dataclass(frozen=True)
class Drawn:
    """A figure of a page.

    Attributes:
        caption: the title, as plain text.
        html: the figure, as wide as its column.
        file: its numbers.
    """

    caption: str
    html: Markup
    file: File


def drawn(figure: go.Figure, frame: pd.DataFrame, name: str) -> Drawn:
    """A figure for a page: its title and notes become the caption, its numbers the file `name`.csv. Changes the figure.

    Panels side by side take at least 70% of the figure's own width; a narrower column scrolls.
    """
    layout: Any = figure.layout  # its attributes are made at run time
    title = layout.title.text or ""
    lines = 1 + title.count("<br>")
    top = 100 if layout.margin.t is None else layout.margin.t  # plotly's own where nothing is said
    bottom = 80 if layout.margin.b is None else layout.margin.b
    above = max(MENU, top - LINE * lines) if title else top
    height = (layout.height or 450) - top + above
    width = layout.width or 700
    across: Any = figure.select_xaxes()
    beside = len({axis.domain for axis in across}) > 1
    least = round(0.7 * width) if beside else 0
    extra = LINE * _wrapped(figure)
    height += extra
    margin = {"t": above, "b": bottom + extra}
    figure.update_layout(title_text=None, width=None, height=height, autosize=True, margin=margin)
    config = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetScale2d"]]}
    text = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config=config,
        default_width="100%",
        default_height=f"{height}px",
    )
    said = [re.sub("<[^>]*>", " ", part) for part in re.split("<br>(?=<span)", title, maxsplit=1)]
    caption = html.unescape(", ".join(" ".join(part.split()) for part in said))
    return Drawn(caption, Markup(_in_column(text, least, round(1.5 * width))), _file(frame, name))


def _in_column(text: str, least: int, most: int) -> str:
    inner = f'<div style="min-width: {least}px">{text}</div>' if least else text
    return f'<div class="wide" style="max-width: {most}px">{inner}</div>'


def _wrapped(figure: go.Figure) -> int:
    """Wrap the titles of horizontal axes to fit a phone; return the number of extra lines of the longest."""
    more = 0
    axes: Any = figure.select_xaxes()  # their attributes are made at run time
    for axis in axes:
        lines = wrap(axis.title.text or "", 34)
        axis.title.text = "<br>".join(lines)
        more = max(more, len(lines) - 1)
    return more


def _file(frame: pd.DataFrame, name: str) -> File:
    data = base64.b64encode(csv_of(frame).encode("utf-8", "replace")).decode("ascii")
    return File(f"{name}.csv", f"data:text/csv;charset=utf-8;base64,{data}")
