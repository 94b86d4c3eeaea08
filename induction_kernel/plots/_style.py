"""The template, titles (with words for edits), captions and legends of all figures; is there something to draw.

Figures fill the width of their container: no width is set. Titles fit 640 pixels, all else 390; the pages of this
package, which are read on phones too, have titles as text above their figures. It draws nothing.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused

NEGATIVE, MIDDLE, POSITIVE = (84, 39, 136), (247, 247, 247), (179, 88, 6)  # purple, nearly white, orange
NARROW = 390  # pixels that legends fit
LETTERS, SMALL = 80, 100  # letters in a line of a title and in one of its notes: they fit 640 pixels
LINE = 19.5  # pixels of a line in the title, also of its caption
FONT: dict[str, Any] = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
    "size": 13,
    "color": "#222",
}
_AXIS = {"gridcolor": "#eee", "zerolinecolor": "#aaa", "title": {"font": {"size": 13}}}
TEMPLATE = go.layout.Template(
    layout={
        "font": FONT,
        "title": {
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "font": {"size": 15},
            "pad": {"l": 12, "t": 12},
        },
        "margin": {"l": 60, "r": 20, "t": 50, "b": 52},
        "colorway": ["#004386", "#b35806", "#542788", "#227850", "#bb5566", "#6e6e6e"],
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "showlegend": False,
        "modebar": {"remove": ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale"]},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)
"""The look of every figure of this package, for figures of your own: `figure.update_layout(template=TEMPLATE)`."""


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
            f"wanted values of {variable!r} to draw, got no finite value: check the prompts that it was measured on"
        )


def tick(count: int) -> int:
    """Distance between the labels of a vertical axis with `count` cells."""
    return 1 if count <= 16 else 2 if count <= 32 else 4


def counted(first: int, count: int) -> dict[str, object]:
    """Ticks of a horizontal axis that counts layers, heads or positions: whole numbers that fit any width."""
    return {"tick0": first, "dtick": 1} if count < 10 else {"tickmode": "auto"}


def escape(text: str) -> str:
    """Text as plotly shows it unchanged: it reads markup, but would not read `&quot;` for a quotation mark."""
    return html.escape(text, quote=False)


def words(name: str) -> str:
    """A method's name as text for a figure, escaped: plotly reads markup in titles."""
    said = str(name).replace("_", " ").replace("ov ", "OV ").replace("qk ", "QK ")
    for kind in "kqv":
        said = said.replace(f"{kind} composition", f"{kind.upper()}-composition")
    return escape(said)


def heading(dataset: xr.Dataset, what: str, *notes: str, caution: str = "") -> str:
    """The title "model: what", with notes below it in small letters, in lines that fit 640 pixels.

    Args:
        dataset: whose attribute `model` is named, where it has one.
        what: is drawn; escaped already, as the notes are.
        notes: the number of prompts, the interval, the meaning of marks; empty ones are left out.
        caution: sentences below the notes, escaped.
    """
    model = str(dataset.attrs.get("model") or "")
    lines = in_lines(f"{escape(model)}: {what}" if model else what, LETTERS)
    said = "; ".join(filter(None, notes))
    small = [*in_lines(said + "." * bool(said and caution), SMALL), *in_lines(caution, SMALL)]
    below = "".join(f"<br><span style='font-size:12px;color:#555'>{line}</span>" for line in small)
    return "<br>".join(lines) + below


def in_lines(text: str, letters: int) -> list[str]:
    """Escaped text in lines of so many letters at most; an entity counts as one letter and stays whole."""
    return [escape(line) for line in wrap(html.unescape(text), letters)]


def of_prompts(n: int, what: str = "mean over") -> str:
    """ "mean over 24 prompts"; "" where the number is not known."""
    return f"{what} {n} prompt{'' if n == 1 else 's'}" if n else ""


def prompts_in(dataset: xr.Dataset) -> int:
    """How many prompts a result is of; 0 where it does not say."""
    return int(dataset.sizes.get("prompt", dataset.attrs.get("n_prompts", 0)))


def finish(figure: go.Figure, heading: str, width: int | None, height: float) -> go.Figure:
    """Title, size and the look that all figures share; without a width the figure fills its container."""
    figure.update_layout(
        template=TEMPLATE,
        title_text=heading,
        title_pad_t=24 if "<br>" in heading else 12,  # plotly draws the first of several higher
        width=width,
        autosize=width is None,
        height=round(height),
    )
    return figure


def heading_of(figure: go.Figure) -> str:
    """The text of a figure's title, with its markup."""
    layout: Any = figure.layout
    return str(layout.title.text or "")


def lines_of(heading: str) -> list[str]:
    """The lines of a title; none for an empty one."""
    return heading.split("<br>") if heading else []


def fitted(
    figure: go.Figure,
    heading: str,
    inside: float,
    *,
    legend: Iterable[str] = (),
    captions: int = 0,
    left: int = 64,
    right: int = 20,
    below: int = 52,
) -> go.Figure:
    """Finish a figure that fills its container, with room for its title and legend.

    Args:
        figure: to be finished; returned.
        heading: the title, with plotly's markup.
        inside: pixels from the upper to the lower end of the axes.
        legend: the names in the legend, which stands between title and axes; none for no legend.
        captions: pixels above the axes that captions of panels take.
        left: margin in pixels.
        right: margin in pixels.
        below: margin in pixels.
    """
    names = list(dict.fromkeys(legend))
    rows = _rows(names, NARROW - left - 12)
    above = round(20 + LINE * (1 + heading.count("<br>")) + 20 * rows + 6 * bool(names) + captions)
    finish(figure, heading, None, above + inside + below)
    place: dict[str, Any] = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
    place |= {"y": 1 + (captions + 2) / inside, "font": {"size": 12}, "itemsizing": "constant"}
    margin = {"t": above, "l": left, "r": right, "b": below}
    return figure.update_layout(showlegend=bool(names), legend=place, margin=margin)


def entries(figure: go.Figure) -> list[str]:
    """The names of the traces that have an entry in the legend."""
    traces: Any = figure.data  # their attributes are made at run time
    return [str(trace.name) for trace in traces if trace.showlegend is not False and trace.name]


def _rows(names: list[str], room: int) -> int:
    """Rows of a horizontal legend of so many pixels, in which plotly makes columns of one width."""
    if not names:
        return 0
    widths = [44 + 6.8 * len(html.unescape(name)) for name in names]
    if sum(widths) <= room:
        return 1
    return -(-len(names) // max(1, int(room // max(widths))))


SITES = {
    "z": "head outputs",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "attention patterns",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "resid_pre": "the residual stream before each layer",
    "resid_mid": "the residual stream after attention",
    "resid_post": "the residual stream after each layer",
}
EDITS = {
    "Zero": "zero ablation of",
    "ZeroValues": "ablation to the value bias of",
    "Mean": "mean ablation of",
    "Resample": "resample ablation of",
    "FromRun": "activation patching of",
    "Scale": "scaling of",
    "Add": "a vector added to",
    "KnockOut": "attention knock-out in",
    "Given": "given values of",
}
METRICS = {
    "repeat_loss": "the loss on the repeat",
    "loss": "the loss",
    "label_accuracy": "the accuracy of labels",
    "logit_difference": "the logit difference",
    "probability": "the probability of the right answer",
    "kl_to": "the KL divergence from the clean run",
    "banded_icl_score": "the in-context-learning score",
}
LISTED = 4  # receivers that a title names


def intervention(attrs: Mapping[Any, Any]) -> str:
    """ "mean ablation of head outputs": the edit and its site, by a result's attributes; "" where there is none."""
    if attrs.get("method") == "path_patch":
        return f"path patching from each head (sender) to {_receivers(attrs)}"
    edit, site = str(attrs.get("edit", "")), str(attrs.get("site", "z"))
    if not edit:
        return ""
    return f"{EDITS.get(edit, f'{edit} of')} {SITES.get(site, site)}"


def effect(attrs: Mapping[Any, Any]) -> str:
    """ "effect of mean ablation of head outputs on the loss": edit, site, metric and hold, where they are known."""
    done, measured = intervention(attrs), metric(attrs)
    said = "effect" + (f" of {done}" if done else "") + (f" on {measured}" if measured else "")
    return said + (", attention patterns held" if attrs.get("hold") == "patterns" else "")


def metric(attrs: Mapping[Any, Any]) -> str:
    """ "the loss on the repeat": the metric; "" where there is none."""
    name = str(attrs.get("metric", ""))
    return METRICS.get(name, name.replace("_", " "))


def _receivers(attrs: Mapping[Any, Any]) -> str:
    """ "the keys of L1H0 (receiver)": what path patching changes."""
    site, names = str(attrs.get("site", "")), str(attrs.get("receivers", "")).split()
    if site == "resid_post":
        return "the logits (receiver)"
    listed = ", ".join(names[:LISTED])
    listed += f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    what = "the MLP" if site == "mlp_out" else f"the {SITES.get(site, site)}"
    role = "receivers" if len(names) > 1 else "receiver"
    return f"{what} of {listed} ({role})" if listed else f"{what} ({role})"
