"""`attention_view`: attention patterns of chosen heads, token by token, by circuitsvis.

Draws them with circuitsvis' `AttentionHeads`: a small map for each head, the chosen one in full, values on hovering.
circuitsvis' own display needs the network, does not escape tokens and does not check lengths. Here its script is part
of the output, tokens are escaped, lengths are checked, and each weight is stored as one byte (steps of 1/250), only the
lower triangle where no query attends to later tokens.

Value-weighted patterns are A[query, key] * ||v_key W_O|| (Kobayashi et al. 2020): how much is moved instead of how much
is attended to. A resting position such as the first token has large weights and small values. They do not show the
direction of what is moved.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._names import Head, HeadLike, as_heads
from ..stores import write_whole
from ._offline import circuitsvis_script, page

STEPS = 250  # a weight w is stored as the byte round(250 w): off by at most 0.002
SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}
STYLE = """<style>
.ik-view { max-width: 760px; color: #222; font: 14px/1.4 system-ui, sans-serif; }
.ik-view h2, .ik-view h3 { font-size: 14px; font-weight: 600; line-height: 1.3; }
.ik-view h4 { font-size: 11px; line-height: 1.2; }
.ik-view .ik-heads > div > div:first-of-type > div { flex: 0 0 92px !important; max-width: 92px !important; }
.ik-view .ik-heads > div { padding: 0 15px !important; max-width: none !important; }
</style>"""


@dataclass(frozen=True, repr=False)
class View:
    """Attention patterns to display in a notebook, or to `save` as a page.

    Attributes:
        caption: what is drawn, in a sentence or two.
        names: the heads, e.g. "L5H1".
        tokens: the prompt's tokens, as shown.
        weights: `[head, query, key]` in [0, 1], zero above the diagonal.
    """

    caption: str
    names: tuple[str, ...]
    tokens: tuple[str, ...]
    weights: np.ndarray

    def __repr__(self) -> str:
        return f"View({', '.join(self.names)} on {len(self.tokens)} tokens; .save(path) or the last line of a cell)"

    def _repr_html_(self) -> str:
        """The view with its own copy of the script (1.3 MB): notebooks may frame each cell alone."""
        # Once a document: circuitsvis complains at length when it is loaded a second time.
        loaded = f"globalThis.CircuitsVis ??= (() => {{\n{circuitsvis_script()}\nreturn CircuitsVis;\n}})();"
        return self._body("module", loaded)

    def fragment(self) -> str:
        """The view without the script: for a page that holds `circuitsvis_script()` once, above it."""
        return self._body("text/javascript", "")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the view as a page that needs no network; an existing file is replaced in one step.

        Returns:
            The path written.

        Raises:
            Refused: the folder does not exist or cannot be written to.
        """
        write_whole(path, page(html.escape(self.caption), self._repr_html_()))
        return Path(path)

    def _body(self, kind: str, library: str) -> str:
        place = f"ik-{uuid4().hex[:12]}"
        ahead = any(np.rint(np.triu(each, 1) * STEPS).any() for each in self.weights)
        packed = [_pack(each, ahead) for each in self.weights]
        data = {"heads": packed, "names": self.names, "tokens": self.tokens, "ahead": ahead}
        data = _escape_script(json.dumps(data))
        call = f"""{library}
(() => {{
{UNPACK}
const data = {data};
CircuitsVis.render("{place}", CircuitsVis.AttentionHeads, {{{OPTIONS}}});
}})();"""
        return (
            f'{STYLE}<div class="ik-view"><p>{html.escape(self.caption)}</p>'
            f'<div class="ik-heads" id="{place}"></div></div>\n<script type="{kind}">\n{call}\n</script>'
        )


OPTIONS = (
    "attention: data.heads.map(unpack), attentionHeadNames: data.names, tokens: data.tokens, "
    'minValue: -1, maxValue: 1, positiveColor: "#004488", negativeColor: "#bb5566", maskUpperTri: !data.ahead'
)
UNPACK = f"""const unpack = packed => {{
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0)), rows = [];
  for (let at = 0; at < bytes.length; at += rows.at(-1).length) {{
    const width = data.ahead ? data.tokens.length : rows.length + 1;
    rows.push(Array.from(bytes.slice(at, at + width), byte => byte / {STEPS}));
  }}
  return rows;
}};"""


def attention_view(
    patterns: xr.Dataset,
    *,
    prompt: int = 0,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    value_weighted: bool = False,
    max_tokens: int = 160,
) -> View:
    """Show the attention patterns of some heads on one prompt.

    Args:
        patterns: what `patterns(model, prompts, heads)` returns: `pattern[prompt, choice, query, key]`,
            `value_norm[prompt, choice, key]`, coordinates `name[choice]`, `token[prompt, query]`,
            `length[prompt]`.
        prompt: index of the prompt to show.
        heads: which of its heads (`Head`, `(layer, head)`, "L5H1" or several); all by default.
        value_weighted: multiply each weight by the norm of what the key writes, v W_O, and divide by the
            head's largest product on this prompt, so that 1 is the head's largest. Values of different heads
            cannot be compared then.
        max_tokens: longest prompt that is drawn; the page grows with the square of the length.

    Returns:
        A `View`; the weights shown are rounded to 1/250.

    Raises:
        TypeError: if `patterns` is no Dataset.
        Refused: if it lacks patterns or these heads, if tokens and patterns differ in length, if a weight is not in
            [0, 1], or if the prompt is longer than `max_tokens`.
    """
    _check(patterns, prompt, value_weighted)
    one = patterns.isel(prompt=prompt)
    tokens = _tokens(one, prompt, max_tokens)
    length = len(tokens)
    chosen = _choose([str(each) for each in one["name"].values], heads)
    one = one.isel(choice=chosen).transpose("choice", "query", "key")
    weights = one["pattern"].values[:, :length, :length].astype(float)
    if not (np.isfinite(weights).all() and (weights > -0.01).all() and (weights < 1.01).all()):
        raise Refused(
            f"wanted attention weights in [0, 1], got {np.min(weights)} to {np.max(weights)}: pass the result of "
            "patterns(...) unchanged"
        )
    if value_weighted:
        weights = weights * one["value_norm"].values[:, None, :length]
        weights = weights / np.maximum(weights.max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    names = tuple(str(each) for each in one["name"].values)
    caption = _caption(patterns.attrs.get("model"), names, value_weighted)
    return View(caption, names, tuple(map(_visible, tokens)), weights.clip(0, 1))


def _check(patterns: xr.Dataset, prompt: int, value_weighted: bool) -> None:
    if not isinstance(patterns, xr.Dataset):
        raise TypeError(f"wanted the xarray.Dataset of patterns(...), got {type(patterns).__name__}")
    needed = {"pattern", "value_norm"} if value_weighted else {"pattern"}
    missing = sorted((needed | {"name", "token"}) - set(patterns.variables))
    if missing:
        raise Refused(
            f"wanted the Dataset of patterns(...), it lacks {missing}; pass the result of patterns unchanged"
        )
    if "prompt" not in patterns["pattern"].dims:
        raise Refused(
            "wanted patterns by prompt, got them without that dimension: choose with prompt=..., or with "
            ".isel(prompt=[0]), which keeps it"
        )
    count = patterns.sizes["prompt"]
    if not -count <= prompt < count:
        raise Refused(f"wanted a prompt from 0 to {count - 1}, got {prompt}")


def _tokens(one: xr.Dataset, prompt: int, max_tokens: int) -> list[str]:
    """The tokens of one prompt without its padding, checked against the size of its patterns."""
    length = int(one["length"]) if "length" in one.coords or "length" in one else one.sizes["query"]
    if length > max_tokens:
        raise Refused(
            f"wanted a prompt of at most {max_tokens} tokens, got {length}: show a shorter one, "
            f"or raise max_tokens ({length * length // 2:,} squares for each head)"
        )
    tokens = [str(each) for each in np.atleast_1d(one["token"].values)]
    if len(tokens) < length or one.sizes["key"] < length:
        raise Refused(
            f"prompt {prompt} has {length} tokens, but {len(tokens)} token strings and patterns of "
            f"{one.sizes['query']} x {one.sizes['key']}: pass the Dataset that patterns(...) returned"
        )
    return tokens[:length]


def _choose(names: Sequence[str], heads: HeadLike | Iterable[HeadLike] | None) -> list[int]:
    """Indices of the wanted heads among `names`."""
    wanted: list[Head] = as_heads(heads) if heads is not None else as_heads(list(names))
    absent = [str(head) for head in wanted if str(head) not in names]
    if absent or not wanted:
        raise Refused(
            f"wanted heads among {list(names)}, got {absent or 'none'}: pass them to patterns(...) too"
        )
    return [names.index(str(head)) for head in wanted]


def _caption(model: object, names: Sequence[str], value_weighted: bool) -> str:
    kind = (
        "Attention times the norm of the value (v W_O), as a share of the head's largest product on this prompt,"
        if value_weighted
        else "Attention patterns"
    )
    whose = f" of {model}" if model else ""
    return f"{kind} of {', '.join(names)}{whose}: rows are queries (destination), columns are keys (source)."


def _visible(token: str) -> str:
    """A short token of visible letters: circuitsvis drops white space, and long tokens leave no room for the map."""
    seen = "".join(SIGNS.get(letter, "␣" if letter.isspace() else letter) for letter in token)
    seen = seen.removeprefix("␣") if token.strip() else seen
    return seen if len(seen) <= 16 else seen[:15] + "…"


def _pack(weights: np.ndarray, ahead: bool) -> str:
    """`[query, key]` row after row, one byte for each weight, as base64 text; without `ahead` the lower triangle."""
    kept = weights if ahead else weights[np.tril_indices(len(weights))]
    return base64.b64encode(np.rint(kept * STEPS).astype(np.uint8).tobytes()).decode("ascii")


def _escape_script(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
