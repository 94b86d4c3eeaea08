"""Scripts of plotly and circuitsvis as text, and pictures drawn by a browser that is installed: none needs the network.

The scripts are safe inside a script element; `page` is an HTML page whose own Content-Security-Policy forbids fetching
anything. Pictures are drawn by kaleido, which drives a Chrome or Chromium. It writes no file.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from functools import cache
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from ..errors import Refused

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:"
)
LOOK = """
body { margin: 0 auto; max-width: 1100px; padding: 8px 20px 60px; color: #222; background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 28px; line-height: 1.2; margin: 28px 0 12px; } h2 { font-size: 21px; margin: 44px 0 8px; }
h3 { font-size: 16px; margin: 24px 0 4px; } p, li { max-width: 46em; } .lead { font-size: 18px; }
.note { border-left: 3px solid #c47f00; background: #fff8ea; padding: 8px 14px; max-width: 46em; }
.wide, .figure { overflow-x: auto; } .figure { margin: 12px 0; } .row { display: flex; flex-wrap: wrap; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: 10px 0; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { color: #555; font-weight: 600; vertical-align: bottom; }
tr.joint td { background: #f3f6fb; font-weight: 600; }
pre { font: 13px/1.5 ui-monospace, Consolas, monospace; background: #f5f5f5; padding: 10px 12px; overflow-x:
auto; } .small { font-size: 14px; color: #555; }
@media (max-width: 600px) { body { padding: 4px 12px 40px; } h1 { font-size: 23px; } .lead { font-size: 16px;
} }
"""
CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}
MOST_SECONDS = 120.0  # for one picture, or for the browser to start: it is a busy machine that needs so many


@cache
def circuitsvis_script() -> str:
    """The circuitsvis library as the text of one script element (1.3 MB)."""
    import circuitsvis  # takes a second, and pages do without it

    source = (Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    lines = [line for line in source.splitlines() if not line.startswith("//# sourceMappingURL=")]
    return "\n".join(lines).replace("</script", r"<\/script")  # only ever inside its strings


@cache
def plotly_script() -> str:
    """The plotly library as the text of one script element (4.8 MB)."""
    return plotly.offline.get_plotlyjs().replace("</script", r"<\/script")


def figure_fragment(figure: go.Figure) -> str:
    """A figure for a page that has `plotly_script()` once, above it; wide figures scroll."""
    return (
        f'<div class="figure">{figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)}</div>'
    )


def page(title: str, body: str) -> str:
    """An HTML page around `body` that may fetch nothing, by its own policy; `title` is escaped already."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{LOOK}</style>
</head>
<body>
{body}
</body>
</html>
"""


def pictured(figure: dict[str, Any], kind: str, *, width: int, height: int, scale: float) -> bytes:
    """A figure as a picture.

    Args:
        figure: as plotly's `to_dict` gives it.
        kind: "png", "svg" or "pdf".
        width: of the layout, in pixels.
        height: of the layout, in pixels.
        scale: the picture's pixels (1/96 inch for svg and pdf) for one of the layout.

    Raises:
        Refused: where kaleido or a browser is missing, or the browser fails.
    """
    asked = {"format": kind, "width": width, "height": height, "scale": scale}
    return browser().drawn(figure, asked)


class Browser:
    """A browser without a window that draws pictures until the process ends, in a thread with an event loop of its own.

    Starting it takes seconds and a picture a fraction of one, and a notebook's own loop is already running.
    """

    def __init__(self) -> None:
        try:
            from kaleido import Kaleido
        except ImportError as error:
            raise Refused(
                "wanted kaleido 1 or newer, which draws pictures of figures, and it is not installed: "
                "pip install 'induction-kernel[export]'"
            ) from error
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, daemon=True, name="pictures of figures").start()
        # Without `mathjax=False` its page asks the network for MathJax.
        self.kaleido = self._done(_opened(Kaleido, mathjax=False, timeout=MOST_SECONDS))
        atexit.register(self.close)

    def drawn(self, figure: dict[str, Any], asked: dict[str, Any]) -> bytes:
        """The picture of a figure."""
        return self._done(self.kaleido.calc_fig(figure, asked))

    def close(self) -> None:
        """End the browser and the thread."""
        atexit.unregister(self.close)
        try:
            self._done(self.kaleido.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _done(self, work: Any) -> Any:
        """What a coroutine returns, run in the thread; what fails there is refused here."""
        from kaleido.errors import ChromeNotFoundError

        waiting = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return waiting.result(MOST_SECONDS + 10)
        except ChromeNotFoundError as error:
            named = os.environ.get("BROWSER_PATH")
            raise Refused(
                "wanted a Chrome or Chromium, which draws pictures of figures, and found none"
                + (f" at {named!r}, which BROWSER_PATH names" if named else "")
                + ": install one (`plotly_get_chrome` fetches one), or name its file in the environment variable "
                "BROWSER_PATH"
            ) from error
        except Exception as error:  # of kaleido, its driver or the time that is up: they share no class
            raise Refused(
                f"the browser that draws pictures of figures failed: {str(error) or type(error).__name__}"
            ) from error


async def _opened(kaleido: Any, **options: Any) -> Any:
    """A started browser; kaleido's constructor wants to be called where the loop runs."""
    return await kaleido(**options)


_STARTED: dict[int, Browser] = {}  # by process: a fork has no thread
_ONE = Lock()


def browser() -> Browser:
    """The browser that draws pictures, started with the first.

    Raises:
        Refused: where kaleido or a browser is missing, or the browser does not start.
    """
    with _ONE:
        process = os.getpid()
        if process not in _STARTED:
            _STARTED[process] = Browser()
        return _STARTED[process]
