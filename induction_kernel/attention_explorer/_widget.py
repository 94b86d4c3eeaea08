"""The explorer live in a notebook: the widget holds thumbnails, and asks the kernel for each pattern that is looked at.

A pattern is computed when it is asked for and sent as binary float16; what is synced with the notebook, and saved in
it, are contents and the thumbnails of the first prompt.
"""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from ..errors import Refused
from ._contents import Explored, contents_of
from ._packing import deflated, flat_pattern
from ._page import module_script, style_sheet

__all__ = ["LiveExplorer", "live"]


class LiveExplorer(anywidget.AnyWidget):
    """The widget; `explore` makes it."""

    _esm = module_script()
    _css = style_sheet()
    contents = traitlets.Dict().tag(sync=True)
    thumbnails = traitlets.Bytes().tag(sync=True)


def live(explored: Explored) -> LiveExplorer:
    """A widget that shows what is explored."""
    kept = sum(each.n_bytes for each in explored.shown)
    memory = (
        f"The kernel keeps {kept / 1e6:.0f} MB to compute patterns when they are asked for." if kept else ""
    )
    notes = [
        memory or "The model runs again up to its layer when a pattern is asked for.",
        "Weights are float16.",
    ]
    first = deflated(explored.shown[0].thumbnails)
    widget = LiveExplorer(contents=contents_of(explored, notes, live=True), thumbnails=first)
    widget.on_msg(lambda widget, message, _: _answer(widget, explored, message))
    return widget


def _answer(widget: LiveExplorer, explored: Explored, message: Any) -> None:
    """Send what the page asks for, or the sentence that says why there is none."""
    try:
        data = _asked(explored, message)
    except Refused as refusal:
        widget.send({"kind": "error", "id": message.get("id"), "text": str(refusal)})
        return
    widget.send({"kind": "bytes", "id": message["id"]}, [data])


def _asked(explored: Explored, message: dict[str, Any]) -> bytes:
    shown = explored.shown[int(message["prompt"])]
    if message["kind"] == "thumbnails":
        return shown.thumbnails.tobytes()
    ((_, pattern, norms),) = shown.patterns([int(message["index"])])
    return flat_pattern(pattern, norms if explored.norms else None, "half", ahead=explored.ahead)
