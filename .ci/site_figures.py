"""Plotly figures of notebooks on the site: the page draws them, and a picture stands where no script runs.

One copy of plotly.js serves the whole site (docs/_static/figures.js loads it where a page has a figure).
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from docutils import nodes
from myst_nb.core import render
from sphinx.transforms.post_transforms import SphinxPostTransform

PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = ("image/svg+xml", "image/png")
NOTE = '<p class="no-picture">This figure is drawn by a script.</p>'


def setup(app: Any) -> None:
    """Teach myst-nb what a plotly figure is. Its plug-ins are entry points, which only an installed package has."""
    render.load_mime_renders = lambda: [Figures]
    app.add_post_transform(PictureBeside)


class Figures:
    """A plug-in of myst-nb for the MIME type of plotly."""

    mime_priority_overrides = ()

    @staticmethod
    def handle_mime(_: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """The figure as data that the page's script draws; None for every other type."""
        if data.mime_type != PLOTLY or inline:
            return None
        return [nodes.raw("", figure(data.content), format="html")]


def figure(content: dict[str, Any]) -> str:
    """The element that docs/_static/figures.js draws a figure into, without its picture."""
    shown = {"data": content["data"], "layout": content.get("layout", {})}
    text = json.dumps(shown, separators=(",", ":")).replace("</", r"<\/")
    title = (content.get("layout", {}).get("title") or {}).get("text", "Figure")
    height = content.get("layout", {}).get("height", 450)
    label = escape(title.replace("<br>", " "), quote=True)
    return (
        f'<div class="plotly-figure" role="img" aria-label="{label}" style="min-height:{height}px">'
        f'<script type="application/json">{text}</script></div>'
    )


class PictureBeside(SphinxPostTransform):
    """Keeps the picture of a figure that has one, for readers without scripts and for print."""

    default_priority = 3  # before myst-nb chooses one type of each output, at 4

    def run(self, **_: Any) -> None:
        """Put each figure's picture, or a sentence, after it."""
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            of_type = {child["mime_type"]: child for child in bundle.children}
            if PLOTLY in of_type:
                pictures = [of_type[kind] for kind in PICTURES if kind in of_type][:1]
                beside = nodes.container(classes=["plotly-picture"])
                beside += [child for each in pictures for child in each.children] or [
                    nodes.raw("", NOTE, format="html")
                ]
                of_type[PLOTLY] += beside
