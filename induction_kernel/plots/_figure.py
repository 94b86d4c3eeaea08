"""The figures of this package: plotly figures that notebooks keep a picture of, and `save_figure`, which writes files.

Notebooks are read where no script runs (GitHub, `nbconvert --to html`, JupyterLab before it is trusted), and plotly
alone leaves nothing to see there. `_offline` has the browser that draws pictures.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from ..errors import Refused
from ..stores import checked_target, write_whole
from ._offline import CONFIG, browser, pictured, plotly_script
from ._style import FONT, LETTERS, LINE, SMALL, heading_of, in_lines, lines_of

__all__ = ["PICTURES", "Figure", "save_figure"]

INTERACTIVE = "application/vnd.plotly.v1+json"
PICTURES = (".png", ".svg", ".pdf")
SCRIPTS = {"inside": True, "beside": "directory", "cdn": "cdn"}
WIDTHS = {"single column": 3.25, "text": 5.5, "double column": 6.75}
"""Widths in inches by their names."""
UNITS = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72, "px": 1 / 96}
PRINT = "Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif"
SCREEN, SHOWN = 640, 720  # pixels of a picture without a width, and of one in a notebook
NARROWEST = 240  # pixels of a layout


class Figure(go.Figure):
    """A plotly figure; a notebook that shows it keeps a picture of it, where kaleido and a browser are installed.

    Where they are not, the notebook keeps a sentence in the picture's place that says what to install. Renderers other
    than the one for Jupyter (`plotly.io.renderers.default`) work as for any plotly figure.
    """

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(*args, **options)
        if INTERACTIVE not in bundle:
            return bundle
        # HTML would be preferred to the picture, and without scripts it shows nothing.
        kept = {kind: each for kind, each in bundle.items() if kind not in ("text/html", "text/plain")}
        try:
            return kept | {"image/png": base64.b64encode(_small(self)).decode()}
        except Refused as error:
            return kept | {"text/plain": f"Figure: {said(self)}\nNo picture of it is kept: {error}"}

    def _ipython_display_(self) -> None:
        import plotly.io
        from IPython.display import display

        if not plotly.io.renderers.render_on_display or INTERACTIVE not in (
            shown := self._repr_mimebundle_()
        ):
            super()._ipython_display_()
            return
        size = {"width": SHOWN, "height": _height(self), "alt": said(self)}
        display(shown, metadata={"image/png": size}, raw=True)

    def show(self, *args: Any, **options: Any) -> None:
        """Show it as the last line of a cell would; with arguments as plotly's `show` does."""
        if args or options:
            super().show(*args, **options)
        else:
            self._ipython_display_()


def save_figure(
    figure: go.Figure,
    path: str | os.PathLike[str],
    *,
    width: float | str | None = None,
    height: float | str | None = None,
    title: bool = True,
    points: float | None = None,
    font: str = PRINT,
    dpi: int = 300,
    script: str = "inside",
) -> Path:
    """Write a figure to a file: a picture at the width that it has in print (.png, .svg, .pdf), or a page (.html).

    Pictures are drawn by kaleido, which drives an installed Chrome or Chromium (`pip install
    'induction-kernel[export]'`). Nothing is fetched. Heat maps in .svg and .pdf are images, all else is lines and text.

    | `width` | inches | |
    |---|---|---|
    | `"single column"` | 3.25 | a column of two (ICML, ACL and IEEE within a tenth of an inch or two) |
    | `"text"` | 5.5 | the text of one column (NeurIPS, ICLR) |
    | `"double column"` | 6.75 | the text of two columns |
    | `3.4`, `"85 mm"`, `"8.5 cm"`, `"240 pt"`, `"900 px"` | | inches, or the unit named; a pixel is 1/96 inch |

    Args:
        figure: any plotly figure; it is not changed.
        path: its ending says the format.
        width: of the picture; by default 640 pixels. The figure is laid out anew for it, its text at `points`. Pages
            take none: they fill the window.
        height: of the picture, in the same units; by default what the figure's rows and panels need.
        title: False leaves out the title and its notes, where a caption says them.
        points: size of the text, in points of print; by default 8 where a width is given, as in a paper's captions,
            and 9.75 in pixels or without one, as on a screen. Titles are a little larger, ticks a little smaller. The
            figures of this package fit a single column at 8.
        font: families in the order of preference; the first that is installed is used, and embedded in .pdf.
        dpi: pixels of a .png for each inch.
        script: where a page has plotly.js from. "inside" (4.8 MB more, one file that opens without a network),
            "beside" (plotly.min.js in the same folder, written there if it is absent: one copy for many pages), or
            "cdn" (the page fetches it from the network each time it is opened).

    Returns:
        The path.

    Raises:
        TypeError: if `figure` is no plotly figure.
        Refused: for an ending, width or script that is not known, a path that cannot be written to, or where kaleido or
            a browser is missing; before anything is drawn.
    """
    if not isinstance(figure, go.Figure):
        raise TypeError(f"wanted a plotly figure, got {type(figure).__name__}")
    target = Path(path)
    checked_figure_path(target, start=False)
    if script not in SCRIPTS:
        raise Refused(f"wanted script= one of {', '.join(map(repr, SCRIPTS))}, got {script!r}")
    if target.suffix == ".html":
        if width is not None or height is not None:
            raise Refused(
                "wanted no width= and height= for a page, which fills its window; got one: .png, .svg, .pdf"
            )
        return _page(figure, target, script)
    points = points or (8.0 if width is not None and "px" not in str(width) else 9.75)
    across = f"{SCREEN} px" if width is None else width
    pixels = 72 * FONT["size"] / points  # of the layout in an inch
    layout = round(inches(across, "width") * pixels)
    if layout < NARROWEST:
        raise Refused(
            f"wanted a width with room for the text, got {across!r} with text of {points:g} points: at least "
            f"{NARROWEST / pixels:.1f} inches, or smaller points="
        )
    shown = _laid_out(figure, layout, title=title, font=font)
    tall = _height(shown) if height is None else round(inches(height, "height") * pixels)
    scale = (dpi if target.suffix == ".png" else 96) / pixels
    sizes: dict[str, Any] = {"width": layout, "height": tall, "scale": scale}
    content = pictured(shown.to_dict(), target.suffix[1:], **sizes)
    return write_whole(target, _with_dpi(content, dpi) if target.suffix == ".png" else content)


def checked_figure_path(path: Path, *, start: bool = True) -> None:
    """Raise Refused unless a figure can be written to `path`; `start`: also unless a browser is there that draws it."""
    if path.suffix not in (".html", *PICTURES):
        raise Refused(f"wanted one of the endings .html, {', '.join(PICTURES)}, got {str(path)!r}")
    checked_target(path)
    if start and path.suffix in PICTURES:
        browser()


def inches(size: float | str, name: str) -> float:
    """A width or height in inches.

    Raises:
        Refused: if it is none, or not between 0 and 100 inches.
    """
    found = float("nan")
    if isinstance(size, str):
        number = re.fullmatch(rf"\s*(\d*\.?\d+)\s*({'|'.join(UNITS)})\s*", size)
        found = WIDTHS.get(size, float(number[1]) * UNITS[number[2]] if number else found)
    elif not isinstance(size, bool):
        found = float(size)
    if not 0 < found < 100:
        raise Refused(
            f"wanted {name}= in inches, as text with one of the units {', '.join(UNITS)} (such as '85 mm'), or one of "
            f"{', '.join(map(repr, WIDTHS))}; got {size!r}"
        )
    return found


def said(figure: go.Figure) -> str:
    """A figure's title as plain text; "no title" where it has none."""
    plain = html.unescape(re.sub("<[^>]*>", " ", heading_of(figure)))
    return " ".join(plain.split()) or "no title"


def _height(figure: go.Figure) -> int:
    layout: Any = figure.layout
    return round(layout.height or 450)


def _laid_out(figure: go.Figure, width: int, *, title: bool = True, font: str | None = None) -> go.Figure:
    """A copy for a picture of a width, with its title in lines that fit it, or without."""
    copy = go.Figure(figure)
    layout: Any = copy.layout
    before = heading_of(copy)
    after = _refitted(before, width) if title else ""
    more = LINE * (len(lines_of(after)) - len(lines_of(before)))
    copy.update_layout(title_text=after, width=None, autosize=True)
    if font is not None:
        copy.update_layout(font_family=font)
    if layout.margin.t is not None:
        room = round(max(12, layout.margin.t + more))
        copy.update_layout(height=_height(copy) + room - layout.margin.t, margin_t=room)
    return copy


def _refitted(title: str, width: int) -> str:
    """The title in lines that fit a width, without what only hovering shows; as it is if it has markup of its own."""
    first, *rest = re.split(r"(?=<br><span)", title, maxsplit=1)
    notes = re.sub(r"</?span[^>]*>", "", rest[0]) if rest else ""
    if "<" in (first + notes).replace("<br>", ""):
        return title
    tag = "".join(re.findall(r"<span[^>]*>", title)[:1])
    head = in_lines(first.replace("<br>", " "), LETTERS * width // SCREEN)
    kept = re.sub(r"(; )?hovering shows [^;.]*", "", notes.replace("<br>", " ").strip()).removeprefix("; ")
    return "<br>".join([*head, *(f"{tag}{line}</span>" for line in in_lines(kept, SMALL * width // SCREEN))])


def _small(figure: go.Figure) -> bytes:
    """A picture for a notebook, at two pixels for one and in 128 colours: a third of the bytes."""
    from PIL import Image

    shown = _laid_out(figure, SHOWN)
    sizes: dict[str, Any] = {"width": SHOWN, "height": _height(shown), "scale": 2}
    image = Image.open(io.BytesIO(pictured(shown.to_dict(), "png", **sizes))).convert("RGB")
    out = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _with_dpi(content: bytes, dpi: int) -> bytes:
    """A .png that says how large it is in print, so that it is placed at the width that was asked for."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(out, "PNG", dpi=(dpi, dpi), optimize=True)
    return out.getvalue()


def _page(figure: go.Figure, target: Path, script: str) -> Path:
    """Write a page that holds the figure alone."""
    beside = target.with_name("plotly.min.js")
    if script == "beside" and not beside.exists():
        write_whole(beside, plotly_script())
    return write_whole(target, figure.to_html(include_plotlyjs=SCRIPTS[script], config=CONFIG))
