"""The explorer live in a notebook: the widget holds thumbnails, and asks the kernel for each pattern that is looked at.

A pattern is computed when it is asked for and sent as binary float16; what is synced with the notebook, and saved in
it, are contents and the thumbnails of the first prompt.
"""

from __future__ import annotations

import traceback
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

    def __repr__(self) -> str:
        """What a saved notebook shows in the widget's place where it cannot run."""
        return f"{self.contents['title']}, to explore in a running notebook: run the cell."


def live(explored: Explored) -> LiveExplorer:
    """A widget that shows what is explored."""
    kept = sum(each.n_bytes for each in explored.shown)
    memory = f"The kernel keeps {-(-kept // 10**6)} MB to compute patterns when they are looked at."
    notes = [
        memory if kept else "The first pattern that is looked at takes another run of the model.",
        "Weights are float16.",
    ]
    first = deflated(explored.shown[0].thumbnails)
    widget = LiveExplorer(contents=contents_of(explored, notes, live=True), thumbnails=first)
    widget.on_msg(lambda widget, message, _: _answer(widget, explored, message))
    return widget


def _answer(widget: LiveExplorer, explored: Explored, message: Any) -> None:
    """Send what the page asks for, or the sentence that says why there is none; a bug also shows its traceback."""
    number = message.get("id") if isinstance(message, dict) else None
    try:
        data = _asked(explored, message)
    except Refused as refusal:
        widget.send({"kind": "error", "id": number, "text": str(refusal)})
    except Exception:  # JupyterLab shows no traceback of what a widget asks for: the page does
        widget.send({"kind": "error", "id": number, "text": traceback.format_exc()})
        raise
    else:
        widget.send({"kind": "bytes", "id": number}, [data])


def _asked(explored: Explored, message: Any) -> bytes:
    """Thumbnails of all heads, or one head's pattern in float16; neither is deflated."""
    kind, prompt, index = _read(explored, message)
    shown = explored.shown[prompt]
    if kind == "thumbnails":
        return shown.thumbnails.tobytes()
    ((_, pattern, norms),) = shown.patterns([index])
    return flat_pattern(pattern, norms if explored.norms else None, "half", ahead=explored.ahead)


def _read(explored: Explored, message: Any) -> tuple[str, int, int]:
    """Kind, prompt and head of a message."""
    heads = explored.grid[0] * explored.grid[1]
    match message:
        case {"kind": "thumbnails", "prompt": int(prompt)} if 0 <= prompt < len(explored.shown):
            return "thumbnails", prompt, 0
        case {"kind": "head", "prompt": int(prompt), "index": int(index)} if 0 <= prompt < len(
            explored.shown
        ) and index in (explored.present or range(heads)):
            return "head", prompt, index
    raise Refused(
        f"wanted thumbnails or a head of one of {len(explored.shown)} prompts and {heads} heads, got {message!r}"
    )
