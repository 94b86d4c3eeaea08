"""Is this model's in-context learning kernel regression, on one page that needs no network?

Draws and words what `few_shot_study` found (Han et al. 2025, section 5). It measures nothing.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import numpy as np
import xarray as xr

from .fewshot._study import FewShotStudy, label_peak
from .heads._names import Head, as_heads
from .heads._summary import summarise
from .kernel._held_out import CONTROLS
from .kernel._vote_text import quoted_votes
from .plots._demonstrations import demonstration_map
from .plots._intervals import interval_plot
from .plots._lines import line_plot
from .plots._offline import figure_fragment, page, plotly_script
from .plots._scores import head_map
from .plots._vote_view import vote_view
from .prompts._prompts import FewShotPrompts
from .stores import checked_target, write_whole
from .wording import interval, number, percent, table

__all__ = ["outcome", "table_of", "voted", "write_fewshot_page"]

BEST, MODEL = "best head", "model"
SPANS = {
    "demonstration": "every token of a demonstration, the template's words included",
    "words": "the words of a demonstration's text and label, without the template's",
}
EXPLAINED = """<h2>What is being asked</h2>
<p>The model reads a few examples with their labels, the <b>demonstrations</b>, and then a query without one.
<b>Kernel regression</b> would answer by a vote: every demonstration votes for its own label, with a weight that says
how like the query it is. In a transformer the attention of the last token could be these weights. So for each head the
largest attention to any token of a demonstration is taken as its weight, the votes are counted, and the winner is
compared with what the model itself predicts.</p>
<ul>
<li><b>Agreement</b>: the share of queries on which the vote and the model say the same, right or wrong.</li>
<li><b>Accuracy</b>: the share on which the vote is right.</li>
<li><b>Held out</b>: the best of many heads looks better than it is on the queries it was chosen on. So the head that
agrees best is chosen on some of the queries, and its agreement and accuracy are those on the others, again and again;
that is what the table has.</li>
</ul>"""


def write_fewshot_page(study: FewShotStudy, path: str | os.PathLike[str] = "fewshot.html") -> Path:
    """Write one self-contained HTML page about a model's few-shot predictions.

    Args:
        study: what `few_shot_study` returned.
        path: where the page goes; an existing file is replaced in one step. It fetches nothing.

    Returns:
        The path written.

    Raises:
        TypeError: not a study.
        Refused: a path whose folder does not exist.
    """
    if not isinstance(study, FewShotStudy):
        raise TypeError(f"wanted what few_shot_study(model, data) returned, got {type(study).__name__}")
    checked_target(path)
    title = f"In-context learning as kernel regression in {escape(str(study.answers.attrs['model']))}"
    body = [
        f"<script>{plotly_script()}</script>",
        f"<h1>{title}</h1>",
        outcome(study.answers, study.table),
        EXPLAINED,
    ]
    body += [part(study) for part in (_held_out, _heads, _looking, _alignment, _prompts, _making)]
    return write_whole(path, page(title, "\n".join(body)))


def outcome(answers: xr.Dataset, scores: xr.Dataset) -> str:
    """How well the model does the task, and how far one head's vote explains what it says.

    Of what `predict` and `held_out` returned.
    """
    best, (control, most) = scores.sel(row=BEST), _strongest_control(scores)
    n, low = answers.sizes["prompt"], float(answers["accuracy_low"])
    constant = _constant(answers)
    cannot = (
        f'<p class="note">The model is not clearly better at this task than a constant answer, which is right on '
        f"{percent(constant)} of these queries. What follows describes its predictions, but says little about "
        "learning from demonstrations.</p>"
        if low <= constant
        else ""
    )
    ahead = float(best["agreement_low"]) > most
    beside = (
        f'; of the controls, "{control}" comes closest with {percent(most)}'
        if ahead
        else f'. That is not clearly more than without a chosen head: "{control}" has {percent(most)}'
    )
    return f"""<p class="lead">The model is right on <b>{percent(float(answers["accuracy"]))}</b> of {n} queries
({percent(low)} to {percent(float(answers["accuracy_high"]))}), among {answers.sizes["label"]} labels. On queries it was
not chosen on, the vote of a single head, usually {_chosen(scores)}, agrees with the model on
<b>{percent(float(best["agreement"]))}</b> ({percent(float(best["agreement_low"]))} to
{percent(float(best["agreement_high"]))}){beside}.</p>{cannot}"""


def table_of(scores: xr.Dataset) -> str:
    """The held-out table: agreement, accuracy, and how far the best head is ahead."""
    rows = []
    for method in scores["row"].values:
        one = scores.sel(row=method)
        lead = [f"agreement_difference{end}" for end in ("", "_low", "_high")]
        scored = [[key, f"{key}_low", f"{key}_high"] for key in ("agreement", "accuracy")]
        columns = [*scored, *([] if method == BEST else [lead])]
        cells = [interval(one, *each) if np.isfinite(one[each[0]]) else "" for each in columns]
        rows.append([str(method), *cells, *[""] * (3 - len(cells))])
    return table(["method", "agreement with the model", "accuracy", "best head is ahead by"], rows)


def voted(
    weights: xr.Dataset, prompts: FewShotPrompts, answers: xr.Dataset, scores: xr.Dataset, count: int
) -> str:
    """The first prompts, under the head that was chosen most often."""
    head = _chosen(scores)
    votes = quoted_votes(weights[["weight"]].sel(layer=head.layer, head=head.head), prompts, answers)
    return vote_view(votes, prompts=range(min(count, len(prompts)))).fragment()


def _held_out(study: FewShotStudy) -> str:
    facts = study.table.attrs
    return f"""<h2>The best head beside its controls</h2>
<p>Chosen by agreement on {facts["n_choose"]} queries, scored on the other {facts["n_score"]}, in {facts["splits"]}
random splits; accuracy is that of the same head. In brackets: 95% intervals. Controls are what has no chosen head or
knows nothing of the query: the label shown most often or last, the head's mean weight at each place, the average of all
heads, the head's weights with the labels permuted, always the answer that the model gives most often.</p>
{figure_fragment(interval_plot(study.table, ["agreement", "accuracy"]))}{table_of(study.table)}"""


def _heads(study: FewShotStudy) -> str:
    lines = line_plot({"one head": study.heads, "sum over heads": study.sums}, "agreement")
    return f"""<h2>Every head at a glance</h2>
<p>How often each head's vote agrees with the model. A white dot marks heads beyond the threshold,
{_count(study.heads)}: more than luck gives the luckiest of all heads when labels are permuted among the demonstrations
(5% level). A head that looks at the last label passes too, where the model tends to repeat it: see the controls above.
These numbers are of all queries; the best of them is lucky too.</p>
{figure_fragment(head_map(study.heads))}
<h3>By depth</h3>
<p>The best head of each layer, and the vote of all its heads' weights added up.</p>{figure_fragment(lines)}"""


def _count(result: xr.Dataset) -> str:
    """How many heads pass, of those that are tested."""
    summary = summarise(result)
    total, tested = summary["tested"].size, int(summary["tested"].sum())
    passing = int((summary["passes"] == 1).sum())
    rest = f"; {total - tested} could not be tested: {summary['untested'].item()}" if tested < total else ""
    return f"{passing} of {tested} heads{rest}"


def _looking(study: FewShotStudy) -> str:
    layer, of_layer, head, of_head = label_peak(study.answers)
    few, mass = study.along.attrs["n_prompts"], study.along["mass"].sel(layer=layer).mean("head")
    start, query = float(mass.sel(part="start")), float(mass.sel(part="query"))
    shown = float(mass.sum()) - start - query
    return f"""<h2>Where the last token looks</h2>
<p>Attention to the labels is largest in layer {layer} ({number(of_layer)} of all attention, mean of its heads); of
single heads it is largest in {head} ({number(of_head)}). Below, the attention over the whole prompt, averaged over
{few} prompts (mean of each layer's heads): the start, each demonstration from its first token to the end of its label,
and the query, each resampled to equal length. In layer {layer}, {percent(start)} of the attention is on the start,
{percent(shown)} on the demonstrations and {percent(query)} on the query; the rest is between them.</p>
{figure_fragment(demonstration_map(study.along))}"""


def _alignment(study: FewShotStudy) -> str:
    if study.alignment is None:
        return ""
    most = study.alignment["mean"].fillna(-1).argmax(("layer", "head"))
    one = study.alignment.isel(most)
    return f"""<h2>Do heads weigh by similarity?</h2>
<p>Two texts are similar, in the model's own eyes, if it expects the same to follow them. Alignment is the correlation
between this similarity to the query and a head's weights, over the demonstrations of one prompt, averaged over prompts
(so that prompts of other lengths cannot feign it; longer demonstrations in a prompt can, as their maxima are
larger). Beyond the threshold: {_count(study.alignment)}. In the head where it is largest, {one["name"].item()}, it
is {interval(one, "mean", "low", "high")}. Pooled over all pairs of query and demonstration, as in the paper, the same
head's correlation is {interval(one, "pooled", "pooled_low", "pooled_high")}; prompts of other lengths and the places of
demonstrations can feign that.</p>
{figure_fragment(line_plot(study.alignment, "alignment"))}"""


def _prompts(study: FewShotStudy) -> str:
    return f"""<h2>The vote, prompt by prompt</h2>
<p>The first prompts, under the head that was chosen most often. Click to unfold.</p>
{voted(study.answers.sel(pooling="max"), study.prompts, study.answers, study.table, 12)}"""


def _making(study: FewShotStudy) -> str:
    known, facts = study.answers.attrs, study.table.attrs
    shown, labels = study.answers.sizes["demonstration"], map(str, study.answers["label"].values)
    return f"""<h2>How this page was made</h2>
<ul>
<li>{facts["n_prompts"]} prompts of {shown} demonstrations; labels {escape(", ".join(labels))};
seed {facts["seed"]}. Attention is pooled over {SPANS[known["span"]]}.
The first prompt:<pre>{escape(study.prompts[0].text()[0])}</pre></li>
<li>Weights, votes, alignment, attention along demonstrations: Han et al. 2025, Understanding Emergent In-Context
Learning from a Kernel Regression Perspective (arXiv 2305.12766), sections 5.1 to 5.3 and 5.5.</li>
<li>Intervals of the table: for repeated splits (Nadeau and Bengio 2003); of other shares Wilson's, of means
Student's t and bootstrap-t over prompts. Thresholds: largest value over all heads, labels permuted among
demonstrations (Westfall and Young 1993).</li>
<li>{escape(f"induction_kernel {known['induction_kernel']}, TransformerLens {known['transformer_lens']}")}.</li>
</ul>
<pre>import induction_kernel as ik

study = ik.fewshot.few_shot_study(model, data)
ik.write_fewshot_page(study, "fewshot.html")</pre>"""


def _chosen(scores: xr.Dataset) -> Head:
    """The head that was chosen in most splits."""
    names, counts = np.unique(scores["choice"].sel(row=BEST).values, return_counts=True)
    return as_heads(str(names[counts.argmax()]))[0]


def _strongest_control(scores: xr.Dataset) -> tuple[str, float]:
    """The control that agrees with the model most often, and how often."""
    controls = scores["agreement"].sel(row=[key for key in CONTROLS if key in scores["row"]])
    return str(controls["row"].values[controls.values.argmax()]), float(controls.max())


def _constant(answers: xr.Dataset) -> float:
    """How often the answer is right that is right most often."""
    target = answers["target"].values[answers["target"].values >= 0]
    return float(np.bincount(target).max() / len(target)) if len(target) else 0.0
