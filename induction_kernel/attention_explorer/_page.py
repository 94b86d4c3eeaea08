"""The explorer as a page that needs no network, or as part of one: contents, thumbnails and patterns in base64."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..plots._offline import POLICY
from ._contents import Explored, contents_of, escaped
from ._packing import deflated, flat_pattern, rounded_away

__all__ = ["Packed", "fragment_of", "module_script", "notes_of", "packed", "page_of", "style_sheet"]

Packed = Mapping[tuple[int, int], bytes]
"""Deflated patterns by prompt and head."""


def packed(explored: Explored) -> tuple[dict[tuple[int, int], bytes], float]:
    """The patterns that a page stores, deflated, and the mean share of attention that was rounded away."""
    found: dict[tuple[int, int], bytes] = {}
    away: list[float] = []
    for prompt, shown in enumerate(explored.shown):
        for index, pattern, norms in shown.patterns(explored.whole):
            norms = norms if explored.norms else None
            flat = flat_pattern(pattern, norms, explored.precision, ahead=explored.ahead)
            away.append(float(rounded_away(pattern, explored.precision).mean()))
            found[prompt, index] = deflated(flat)
    return found, float(np.mean(away)) if away else 0.0


def notes_of(explored: Explored, away: float) -> list[str]:
    """Sentences about what a page stores."""
    layers, heads = explored.grid
    n, there = len(explored.whole), len(explored.present or range(layers * heads))
    least = {"plain": ".002", "fine": ".000004"}[explored.precision]
    notes = [
        f"Weights below {least} are stored as 0. On average {away:.1%} of a query's attention lies in such weights; "
        "pointing at a pattern says how much of that query's."
    ]
    if n < there:
        notes.append(
            f"{n} of {there} heads are stored whole; of the others there is a picture of 64 x 64 cells."
        )
    return notes


def fragment_of(explored: Explored, patterns: Packed, away: float) -> str:
    """The explorer as part of a page that has `style_sheet()` and `module_script()` once."""
    contents = contents_of(explored, notes_of(explored, away), live=False)
    parts = [f'<script type="application/json" class="ik-contents">{escaped(contents)}</script>']
    for prompt, shown in enumerate(explored.shown):
        pictures = _in_base64(deflated(shown.thumbnails))
        parts.append(f'<script type="text/plain" data-thumbnails="{prompt}">{pictures}</script>')
    for (prompt, index), data in patterns.items():
        parts.append(f'<script type="text/plain" data-head="{prompt}:{index}">{_in_base64(data)}</script>')
    joined = "\n".join(parts)
    return f'<div class="ik-explorer" id="ik-{uuid4().hex[:12]}">\n{joined}\n</div>'


def page_of(explored: Explored, patterns: Packed, away: float) -> str:
    """A page of its own."""
    title = html.escape(explored.title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; background: #ffffff; color: #1b2128; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #171b20; color: #e6eaef; }} }}
{style_sheet()}</style>
</head>
<body>
<noscript>This page draws attention patterns with JavaScript, which is turned off here.</noscript>
{fragment_of(explored, patterns, away)}
<script type="module">
{module_script()}</script>
</body>
</html>
"""


@cache
def style_sheet() -> str:
    """The explorer's style sheet, all of it inside `.ik-explorer`."""
    return _static("explorer.css")


@cache
def module_script() -> str:
    """The explorer's module; as an inline script it draws every explorer of its page."""
    return _static("explorer.js").replace("</script", r"<\/script")


def _static(name: str) -> str:
    return (Path(__file__).parent / "_static" / name).read_text(encoding="utf-8")


def _in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
