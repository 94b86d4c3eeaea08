"""What all figures share: colours, sizes, titles, and the check that there is something to draw. It draws nothing."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused

NEGATIVE, MIDDLE, POSITIVE = (84, 39, 136), (247, 247, 247), (179, 88, 6)  # purple, nearly white, orange
PAGE_WIDTH = 1060  # pixels that a row of panels may take
FONT: dict[str, Any] = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
    "size": 13,
    "color": "#222",
}


def need(dataset: xr.Dataset, variable: str, maker: str) -> None:
    """Raise unless `dataset` is a Dataset that holds `variable` with at least one finite value."""
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(
            f"wanted the xarray.Dataset of {maker}, got {type(dataset).__name__}; pass its result unchanged"
        )
    if variable not in dataset:
        raise Refused(
            f"wanted the Dataset of {maker}, which holds {variable!r}; got {list(dataset.data_vars)}"
        )
    if not np.isfinite(dataset[variable].values).any():
        raise Refused(
            f"no finite value in {variable!r}: there is nothing to draw; look at the prompts that made it"
        )


def tick(count: int) -> int:
    """Distance between the labels of an axis with `count` cells."""
    return 1 if count <= 16 else 2 if count <= 32 else 4


def escape(text: str) -> str:
    """Text that a figure shows as it is: plotly reads markup, but would show `&quot;` for a quotation mark."""
    return html.escape(text, quote=False)


def words(name: str) -> str:
    """A method's name as text for a figure, escaped: plotly reads markup in titles."""
    said = str(name).replace("_", " ").replace("ov ", "OV ").replace("qk ", "QK ")
    for kind in "kqv":
        said = said.replace(f"{kind} composition", f"{kind.upper()}-composition")
    return escape(said)


def heading(dataset: xr.Dataset, what: str) -> str:
    """ "model: what", where the Dataset says its model."""
    model = dataset.attrs.get("model")
    return f"{escape(str(model))}: {what}" if model else what


def finish(figure: go.Figure, heading: str, width: int, height: int) -> go.Figure:
    """Title, size and the look that all figures share; returns the figure."""
    figure.update_layout(
        template="none",
        title={"text": heading, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top"},
        title_pad={"l": 12, "t": 12},
        title_font_size=15,
        font=FONT,
        width=width,
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 52},
        plot_bgcolor="white",
        showlegend=False,
        modebar={"remove": ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale"]},
    )
    return figure
