"""Arguments checked before a command imports or loads anything heavy: model, device, dtype, files and heads.

A refusal comes within seconds, whatever else is wrong. What depends on the model is checked once it is loaded.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import Refused

__all__ = ["check_heads", "check_model", "check_out", "check_text_file"]

DTYPES = ("float32", "bfloat16", "float16", "float64")
FIGURES = (".html", ".png", ".svg", ".pdf")
DATA = (".nc", ".csv")


def check_model(model: str, device: str | None = None, dtype: str | None = None) -> None:
    """Raise what loading the model of these options would, as far as it can be known without loading it."""
    if dtype is not None and dtype not in DTYPES:
        raise Refused(f"wanted --dtype {', '.join(DTYPES)}, got {dtype}")
    from ..loading._lookup import check_source

    check_source(model)
    if device not in (None, "cpu"):
        from ..loading._options import checked_options  # asks torch

        checked_options(device, None, None, None)


def check_out(out: Path | None, *, figure: bool = False) -> None:
    """Raise Refused unless `out` has a known ending and can be written to; `figure`: what is drawn is a figure."""
    if out is None:
        return
    drawn = FIGURES if figure else (".html",)
    if out.suffix not in (*drawn, *DATA):
        endings = ", ".join((*drawn[:-1], f"{drawn[-1]} ({'figure' if figure else 'page'})", *DATA))
        raise Refused(f"wanted --out with one of the endings {endings}, got {str(out)!r}")
    if figure and out.suffix in FIGURES[1:]:
        from ..plots._figure import checked_figure_path  # plotly, and what draws pictures

        checked_figure_path(out)
    from ..stores import checked_target

    checked_target(out)


def check_heads(heads: str | None) -> None:
    """Raise Refused unless these are names of heads; whether the model has them is not known yet."""
    if heads is not None:
        from ..heads._names import some_heads

        some_heads(heads)


def check_text_file(text: Path) -> None:
    """Raise Refused unless the file of --text is there."""
    if not text.is_file():
        raise Refused(f"wanted --text as a text file, got {str(text)!r}: there is no such file")
