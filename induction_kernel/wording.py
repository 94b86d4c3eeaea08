"""Explanations of the report, and numbers as people read them.

Pure text: it measures nothing and draws nothing; which sections there are, and with what in them, says `page`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import torch
import xarray as xr

from .heads._names import Head

__all__ = [
    "EXPLAINED",
    "LOOKING",
    "ablation",
    "cautioned",
    "compared",
    "interval",
    "less_than_one",
    "making",
    "number",
    "percent",
    "share",
    "table",
    "verdict",
]

EXPLAINED = """<h2>What is being looked for</h2>
<p>An <b>induction head</b> is an attention head that continues repetitions: where the text reads
<i>A&nbsp;B&nbsp;…&nbsp;A</i>, it looks back from the second <i>A</i> to the <i>B</i> after the first, and
makes the model predict <i>B</i>. To find such heads, the model reads random tokens that are repeated once:
nothing but copying can predict the second half.</p>
<ul>
<li><b>Prefix matching</b>: the share of attention, from 0 to 1, that a head pays to the tokens that followed
earlier copies of the current token. A perfect induction head scores 1.</li>
<li><b>Control</b>: the same places read on prompts of the same lengths whose second half is <i>not</i> a
repetition. A head that always looks a fixed distance back scores there too. <b>Excess</b> is score minus
control.</li>
<li><b>Chance</b>: the score of a head that spreads its attention evenly over everything it can see.</li>
<li><b>Threshold</b>: a white dot marks heads whose excess is above 0.02 by more than luck gives the luckiest of
<i>all</i> heads of the model (5% level). Luck means that score and control could change places but for the 0.02 (signs
of prompts are flipped), or, where excesses have a tail below zero, that the mean excess is at most 0.02 (a bootstrap).
Prompts have to be independent, heads need not. It says that an effect is there, not that it is large.</li>
<li><b>Copying</b> and <b>OV eigenvalues</b> ask what a head does with what it looks at: do its weights raise
the prediction of the token attended to? Both run from −1 to 1; copying is
the score of Olsson et al. 2022, which is near −0.85 by chance. Looking at the right place is not yet copying, and
eigenvalues near 1 are not particular to induction heads: many heads of other kinds have them.</li>
</ul>"""
LOOKING = """<h2>Looking and copying</h2>
<p>Each point is a head: to the right, it looks where an induction head looks; upwards, its weights copy what
it looks at. Diamonds pass the threshold for prefix matching, hollow circles could not be tested; dashed lines are
chance.</p>"""


def verdict(
    joint: xr.Dataset,
    shown: Sequence[Head],
    passing: Sequence[Head],
    total: int,
    *,
    untested: int,
    why: str,
    given: bool,
) -> str:
    """How many heads there are, and what is lost without those shown; heads asked for are `given`.

    `untested` is how many of the `total` heads are not tested, and `why`.
    """
    found = (
        f'<p class="lead"><b>{len(passing)} of {total} heads</b> attend to what followed earlier copies of '
        f"the current token clearly more than on control prompts; the strongest is {passing[0]}.</p>"
        if passing
        else f'<p class="note">No head passes the threshold, but {untested} of {total} could not be tested: '
        f"{escape(why)}. The strongest ones are shown below all the same.</p>"
        if untested
        else f'<p class="note">None of {total} heads passes the threshold: on repeated random tokens this '
        "model shows no induction head. The strongest ones are shown below all the same.</p>"
    )
    if not passing and not given:
        return found
    count, lost = len(shown), float(joint["share"])
    which = (
        "the {} heads asked for"
        if given
        else "all {} of them"
        if count == len(passing)
        else "the {} strongest of them"
    )
    which = which.format(count) if count > 1 else str(shown[0])
    if not np.isfinite(lost):
        return f"{found}<p>The repetition brings this model no reliable benefit that removing {which} could cost.</p>"
    destroyed = " (above 100%: the second copy is then predicted worse than the first)" if lost > 1 else ""
    return (
        f"{found}<p>Removing {which} costs the model <b>{percent(lost)}</b> of what it gains "
        f"from having seen the sequence before{destroyed}; {compared(joint)}.</p>" + cautioned(joint)
    )


def cautioned(lost: xr.Dataset) -> str:
    """What a share of the benefit does not say by itself: of an ablation or a curve."""
    said = str(lost.attrs.get("cautions", ""))
    return f'<p class="note">{escape(said)}</p>' if said else ""


def less_than_one(joint: xr.Dataset, single: Mapping[Head, xr.Dataset]) -> str:
    """Says where heads cost less together than one of them alone."""
    if len(single) < 2:
        return ""
    alone = {head: float(each["share"]) for head, each in single.items()}
    most = max(alone, key=lambda head: alone[head])
    if not float(joint["share"]) < alone[most]:
        return ""
    return (
        f'<p class="note">Together they cost less ({percent(float(joint["share"]))}) than {most} alone '
        f"({percent(alone[most])}): some of them work against it.</p>"
    )


def compared(joint: xr.Dataset) -> str:
    """What removing as many other heads costs, as half a sentence: one k of an ablation curve, or no controls."""
    if "control_share" not in joint:
        return "these layers have too few other heads to compare with"
    n = int(joint["n_controls"])
    lost, sets = joint["control_share"].values[:n], joint["control_heads"].values[:n].tolist()
    if not np.isfinite(lost).all():
        return "the repetition brings this model no reliable benefit that could be lost"
    count = len(sets[0].split())
    which = f"{count} random" if n > 1 else f"the {count}"
    low, high = percent(lost.min()), percent(lost.max())
    spread = low if low == high else f"{low} to {high} ({n} different sets)"
    return f"removing {which} other head{'s' if count > 1 else ''} of the same layers costs {spread}"


def ablation(
    cells: int, few: int, some: int, ks: Sequence[int], controls: int, *, benefit: bool
) -> tuple[str, str]:
    """What the map of every single head (`few` prompts) and the curve of several together (`some`) say."""
    nothing = """<p class="note">The repetition brings this model no reliable benefit. So what follows shows no loss
of an ability, however strong its colours: they reach to the largest effect, whatever its size.</p>"""
    single = f"""<h2>What is lost without them</h2>{"" if benefit else nothing}
<p>Attention is not effect: a head may look at the right place and change nothing. So each of the {cells} heads
is removed in turn, and all that follows is computed anew; the map shows by how much the loss on the second copy
rises, on {few} prompts that no head was chosen on. To remove a head is to put its mean over the control prompts
in the place of its output: what it adds to any prompt stays, what it adds because of this one goes. Below zero
(purple), the model does better without the head. Heads outside the table may matter as much: an induction head
needs one in an earlier layer that says which token came before.</p>"""
    if not ks:
        return (
            single,
            '<p class="note">These layers have too few heads for a comparison with random ones.</p>',
        )
    joint = f"""<p>Heads stand in for one another: what one does, another takes over once it is gone, so a pale
square is no proof that a head does nothing, and single losses do not add up to the joint one. The curve removes
1, 2, 4, … heads together, those of the table first, then by their scores on the prompts they were chosen on,
beside up to {controls} different random sets of as many other heads of the same layers ({some} prompts). It ends at
{ks[-1]}: beyond, a layer has too few other heads to compare with.</p>"""
    return single, joint


def making(said: Mapping[str, object], *, prompts: int, few: int, some: int, seed: int, shown: int) -> str:
    """Settings, sources, versions, and the code that makes the same."""
    versions = f"induction_kernel {said['induction_kernel']}, TransformerLens {said['transformer_lens']}, "
    versions += f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"""<h2>How this page was made</h2>
<ul>
<li>Prompts: {prompts} sequences of distinct random tokens, each repeated once, of different lengths; seed
{seed}. Heads were chosen on every other prompt; direct effects, ablations and the loss are on the
{prompts // 2} left, of which ablations take the shortest: {few} for the map of every head, {some} for the table
and the curve (fewer in larger models).</li>
<li>Scores: means over the queries of the second copy, summed over earlier copies of the token (Olsson et al.
2022, In-context Learning and Induction Heads, arXiv 2209.11895). Intervals: Student's t
and, from 8 prompts on, its hull with the bootstrap-t interval. Threshold: the largest t-value that luck gives any of
all heads, by sign flips of prompts, or by the bootstrap where excesses are skewed (Westfall and Young 1993).</li>
<li>Copying: Olsson et al. 2022, on its own random tokens. OV eigenvalues: their sum over the sum of their
sizes (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits), the norms' weights folded
in.</li>
<li>Direct effect: the head's output through the unembedding and the final norm, its scale as in the run (Elhage
et al. 2021); suppression: McDougall et al. 2023, Copy Suppression.</li>
<li>Ablation: the head's output is replaced by its mean on the control prompts; all that follows is computed
anew, exactly. The share lost is a ratio of means over prompts.</li>
</ul>
<pre>import induction_kernel as ik

model = {'ik.load("tiny")' if said["model"] == "tiny" else "...  # this model"}
ik.write_report(model, "report.html", prompts={prompts}, seed={seed})  # this page

# the same, piece by piece
prompts = ik.repeated_tokens(model, prompts={prompts}, seed={seed})
scores = ik.prefix_matching(model, prompts)
choice, held = scores.isel(prompt=slice(0, None, 2)), prompts[1::2]
held = held[held.lengths.argsort(stable=True)]  # the shortest first
ik.head_map(scores)
ik.effect_map(ik.sweep(model, held[:{few}]))  # every head alone
ik.plots.curve_plot(ik.ablation_curve(model, held[:{some}], choice, seed={seed}))  # the strongest together
ik.summarise(ik.direct_effect(model, held))
ik.plots.loss_plot(ik.loss_by_position(model, held))
heads = ik.top_heads(choice, {shown}, passing=True)
ik.attention_view(ik.patterns(model, held, heads))</pre>
<p class="small">{escape(versions)}.</p>"""


def table(header: list[str], rows: list[list[str]], *, joint: bool = False) -> str:
    """A table whose cells are escaped here; with `joint`, the last row stands out."""
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>" if header else ""
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    if joint:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="joint">', 1)
    return f'<div class="wide"><table>{top}{"".join(lines)}</table></div>'


def number(value: float | xr.DataArray) -> str:
    """Two digits after the point, a dash for what is not finite."""
    return f"{float(value):z.2f}".replace("-", "−") if np.isfinite(float(value)) else "–"


def percent(value: float) -> str:
    """A share in whole percent, a dash for what is not finite."""
    return f"{value:z.0%}".replace("-", "−") if np.isfinite(value) else "–"


def interval(one: xr.Dataset, middle: str, low: str, high: str) -> str:
    """A number with its interval, from three variables."""
    return f"{number(one[middle])} ({number(one[low])} to {number(one[high])})"


def share(lost: xr.Dataset) -> str:
    """A share with its interval, from `share`, `share_low` and `share_high`."""
    middle, low, high = (float(lost[key]) for key in ("share", "share_low", "share_high"))
    return f"{percent(middle)} ({percent(low)} to {percent(high)})" if np.isfinite(middle) else "–"
