"""Scripts of plotly and circuitsvis as text, so that a page needs no network.

The scripts are safe inside a script element; `page` is an HTML page whose own Content-Security-Policy forbids fetching
anything. It draws nothing and writes no file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import plotly.graph_objects as go
import plotly.offline

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
    config = {"displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}
    return (
        f'<div class="figure">{figure.to_html(full_html=False, include_plotlyjs=False, config=config)}</div>'
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
