"""The report: the induction heads of a model on one page that needs no network.

Scores every head on repeated random tokens, chooses the strongest on one half of the prompts, and reports
scores and ablations on the other half (Olsson et al. 2022; the split keeps the winner's curse out). It adds
no measurement of its own: `scorers`, `metrics` and `interventions` make the numbers, `plots` the pictures,
`wording` the sentences.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .errors import NotDefined, Refused
from .fewshot._predictions import predict
from .fewshot_page import outcome, table_of, voted
from .files import checked_target, write_whole
from .heads._choice import top_heads
from .heads._names import Head, HeadLike, as_heads, is_whole
from .heads._summary import summarise
from .interventions._ablation import caution
from .kernel._held_out import held_out
from .kernel._reconstruction import vote
from .metrics._by_position import loss_by_position
from .metrics._standard import repeat_loss
from .model._anatomy import Model, check_model, describe, sizes
from .model._outputs import check_next_token
from .plots._ablation_curves import curve_plot
from .plots._attention_view import attention_view
from .plots._effect_map import effect_map
from .plots._offline import circuitsvis_script, figure_fragment, page, plotly_script
from .plots._scores import head_map, loss_plot, score_plot
from .prompts._few_shot import word_episodes
from .prompts._prompts import Prompts
from .prompts._repeated import repeated_tokens
from .removing import DRAWS, Removed, removed_from
from .scorers._attention import duplicate_token, induction, prefix_matching, previous_token
from .scorers._attention_scorer import observe
from .scorers._copying import copying
from .scorers._direct_effect import direct_effect
from .scorers._ov import ov_eigenvalues
from .scorers._streaming import patterns
from .wording import (
    EXPLAINED,
    LOOKING,
    ablation,
    cautioned,
    compared,
    interval,
    less_than_one,
    making,
    number,
    percent,
    share,
    table,
    verdict,
)

SCORERS = (induction, prefix_matching, previous_token, duplicate_token)
EPISODES = 128  # few-shot prompts
SHOWN = 8  # rows of the table of heads, at most
INSTEAD = "of such a model look at head_table(induction(model)), head_map and attention_view"


def write_report(
    model: Model,
    path: str | os.PathLike[str] = "report.html",
    *,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    prompts: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Score every head of a model and write one self-contained HTML page about its induction heads.

    Heads are chosen on every other prompt, and scored and ablated on those left (on fewer of them in large
    models: a map of every head takes a run for each). The page holds plotly and circuitsvis once each (6 MB)
    and fetches nothing.

    Args:
        model: any TransformerLens model.
        path: where the page goes; an existing file is replaced in one step.
        heads: the heads to show instead of the strongest ones.
        prompts: repeated prompts to score on, at least 12: half of them choose, half of them report.
        seed: of the prompts, the resampling and the random heads.
        progress: show progress bars.

    Returns:
        The path written.

    Raises:
        TypeError: not a TransformerLens model, or heads in no known form.
        Refused: too few prompts, heads that the model does not have, a path whose folder does not exist, or a
            model that does not predict next tokens.
    """
    check_model(model)
    if not is_whole(prompts):
        raise TypeError(f"wanted the number of prompts, got {type(prompts).__name__}: they are made anew")
    if prompts < 12:
        raise Refused(f"wanted at least 12 prompts (6 to choose heads on, 6 to report on), got {prompts}")
    size = sizes(model)
    wanted = [] if heads is None else as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    title = f"Induction heads in {escape(str(describe(model)['model']))}"
    scripts = f"<script>{plotly_script()}</script>\n<script>{circuitsvis_script()}</script>"
    body = [scripts, f"<h1>{title}</h1>"]
    checked_target(path)
    check_next_token(model, "write_report", INSTEAD)
    with tqdm(total=10, desc="report", disable=not progress) as bar:
        for section in _sections(model, wanted, prompts, seed, progress):
            body.append(section)
            bar.update()
    return write_whole(path, page(title, "\n".join(body)))


def _sections(model: Model, wanted: list[Head], prompts: int, seed: int, progress: bool) -> Iterator[str]:
    """The parts of the page in order; measuring happens as they are asked for."""
    repeats = repeated_tokens(model, prompts=prompts, seed=seed)
    held = repeats[1::2]
    held = held[held.lengths.argsort(stable=True)]
    scores = observe(model, repeats, SCORERS, progress=progress)
    weights = _weights(model, progress)
    matching = scores.sel(scorer="prefix_matching")
    choice, summary = (summarise(matching.isel(prompt=slice(at, None, 2)), seed=seed) for at in (0, 1))
    ranked = top_heads(choice, None)
    passing = [head for head in ranked if _at(choice, head)["passes"] == 1]
    shown = wanted or passing[:SHOWN] or ranked[:3]
    order = [*shown, *(head for head in ranked if head not in shown)]
    removed = removed_from(model, held, order, len(shown), seed, progress)
    yield _verdict(removed.joint, shown, passing, choice, given=bool(wanted)) + EXPLAINED
    yield _model(model)
    yield _maps(scores, weights)
    yield _table_of_heads(removed, summary, weights, _direct(model, held, progress), len(held))
    yield _ablation(removed)
    yield _loss(model, held)
    if weights:
        yield LOOKING + figure_fragment(score_plot(matching, weights[0]))
    yield _attention(model, held, shown)
    yield _few_shot(model, seed, progress)
    few, some = removed.every.sizes["prompt"], removed.some
    yield making(describe(model), prompts=prompts, few=few, some=some, seed=seed, shown=SHOWN)


def _verdict(
    joint: xr.Dataset, shown: list[Head], passing: list[Head], choice: xr.Dataset, *, given: bool
) -> str:
    tested = choice["tested"].values
    untested, why = int((~tested).sum()), str(choice["untested"].values)
    return verdict(joint, shown, passing, tested.size, untested=untested, why=why, given=given)


def _weights(model: Model, progress: bool) -> list[xr.Dataset]:
    """What heads write; none where a norm stands behind attention (the table says why, with the direct effects)."""
    try:
        return [copying(model), ov_eigenvalues(model, progress=progress)]
    except NotDefined:
        return []


def _direct(model: Model, held: Prompts, progress: bool) -> xr.Dataset | str:
    """Direct effects on the right token, or why this model has none."""
    try:
        return summarise(direct_effect(model, held, progress=progress))
    except NotDefined as reason:
        return str(reason)


def _model(model: Model) -> str:
    size, said, cfg = sizes(model), describe(model), model.cfg
    shared = f", {size.n_key_value_heads} key/value heads" if size.n_key_value_heads != size.n_heads else ""
    facts = {
        "model": said["model"],
        "layers × heads": f"{size.n_layers} × {size.n_heads}{shared}",
        "width of the model, of a head": f"{size.d_model}, {size.d_head}",
        "vocabulary, context": f"{size.d_vocab:,} tokens, {size.n_ctx:,} positions",
        "positions": getattr(cfg, "positional_embedding_type", None) or "not stated",
        "MLP layers": "none" if getattr(cfg, "attn_only", False) else "yes",
        "first token (BOS)": getattr(getattr(model, "tokenizer", None), "bos_token", None) or "none",
        "kind of object": f"{said['model_class']}, TransformerLens {said['transformer_lens']}",
    }
    return "<h2>The model</h2>" + table([], [[key, str(value)] for key, value in facts.items()])


def _maps(scores: xr.Dataset, weights: Sequence[xr.Dataset]) -> str:
    return f"""<h2>Every head at a glance</h2>
<p>One square for each head, layers downwards. A white dot marks the heads beyond the threshold; hover for
numbers. Attention scores are on all prompts. Copying and OV
eigenvalues ask what heads write; pale is chance.</p>
{figure_fragment(head_map(scores))}<div class="row">{
        "".join(figure_fragment(head_map(each)) for each in weights)
    }</div>"""


def _table_of_heads(
    removed: Removed,
    summary: xr.Dataset,
    weights: Sequence[xr.Dataset],
    direct: xr.Dataset | str,
    prompts: int,
) -> str:
    header = ["head", "prefix matching", "control", "excess"]
    header += ["copying, excess", "OV eigenvalues"] if weights else []
    header += [] if isinstance(direct, str) else ["direct effect"]
    rows = []
    for head, lost in removed.single.items():
        one, of_weights = _at(summary, head), [_at(each, head) for each in weights]
        looks = [interval(one, "mean", "low", "high"), number(one["control"])]
        looks.append(interval(one, "excess", "excess_low", "excess_high"))
        writes = []
        if of_weights:
            copies, eigenvalues = of_weights
            writes = [number((copies["score"] - copies["chance"]).mean()), number(eigenvalues["score"])]
        if not isinstance(direct, str):
            writes.append(interval(_at(direct, head), "excess", "excess_low", "excess_high"))
        rows.append([str(head), *looks, *writes, share(lost)])
    if len(rows) > 1:
        rows.append(["together", *[""] * (len(header) - 1), share(removed.joint)])
    what = "Direct effects" if weights else "Copying, OV eigenvalues and direct effects"
    left_out = (
        f'<p class="note">{what} are left out: {escape(direct)}.</p>' if isinstance(direct, str) else ""
    )
    return f"""<h2>The strongest heads</h2>
<p>Chosen on one half of the prompts, measured on the other ({prompts} prompts): the best of many heads
looks better than it is on the prompts it was chosen on. In brackets: 95% intervals over prompts.</p>
<ul>
<li>Attention is not effect: prefix matching says where a head looks, the last two columns what it does.</li>
<li><b>Direct effect</b>: how many logits the head itself adds to the right next token (against the mean over the
vocabulary), more than on the control prompts. Below zero it suppresses the copy.</li>
<li><b>Benefit lost</b> ({removed.some} prompts): the share of the repeat's benefit (loss on the first copy
minus loss on the second) that goes when the head's output is replaced by its mean on the control prompts. Below
zero, the model does better without the head. Heads stand in for one another, so single losses are often smaller
than the joint one.</li>
</ul>
{table([*header, "benefit lost"], rows, joint=len(rows) > 1)}{left_out}
{less_than_one(removed.joint, removed.single)}
<p>For comparison: {compared(removed.joint)}.</p>{cautioned(removed.joint)}"""


def _ablation(removed: Removed) -> str:
    curve = removed.curve
    ks = [] if curve is None else curve["k"].values.tolist()
    cells = int(np.isfinite(removed.every["effect"].values).all(0).sum())
    benefit, few = bool(np.isfinite(removed.joint["share"])), removed.every.sizes["prompt"]
    single, joint = ablation(cells, few, removed.some, ks, DRAWS, benefit=benefit)
    drawn = "" if curve is None else figure_fragment(curve_plot(curve))
    return single + figure_fragment(effect_map(removed.every)) + joint + drawn


def _loss(model: Model, held: Prompts) -> str:
    measured = repeat_loss(model, held)
    first, later = float(measured["without"].mean()), float(measured["value"].mean())
    return f"""<h2>What the repetition is worth</h2>
<p>The loss of predicting each token, aligned where the second copy starts. On the first copy it is
{first:.2f} nats, on the second {later:.2f}: the repetition is worth {number(first - later)} nats a token.
Without copying the curve would stay level. The band holds the middle half of the prompts.
{escape(caution(model, first, "nats"))}</p>
{figure_fragment(loss_plot(loss_by_position(model, held)))}"""


def _attention(model: Model, held: Prompts, shown: list[Head]) -> str:
    seen = patterns(model, held[int(held.lengths.argmin())], shown)
    return f"""<h2>What they look at</h2>
<p>Hover over a small map to enlarge it, click to keep it. An induction head shows a diagonal stripe that
begins with the second copy; attention at rest often goes to the first token.</p>
<h3>Repeated random tokens</h3>{attention_view(seen).fragment()}
<h3>The same, weighted by what is moved</h3>
<p>A head may rest its attention where there is nothing to move. Here each weight is multiplied by the length
of the vector it moves.</p>{attention_view(seen, value_weighted=True).fragment()}"""


def _few_shot(model: Model, seed: int, progress: bool) -> str:
    """Is in-context learning a vote over demonstrations? On the embedded model's own task, or an easier one."""
    harder = {"classes": 4, "noise": 0.3} if describe(model)["model"] == "tiny" else {}
    head = "<h2>In-context learning as kernel regression</h2>"
    try:
        prompts = word_episodes(model, prompts=EPISODES, seed=seed, **harder)
        answers = predict(model, prompts, pooling="max", progress=progress)
        scores = held_out(answers, answers, seed=seed)
    except NotDefined as reason:
        return f'{head}<p class="note">Left out: {escape(str(reason))}.</p>'
    noisy = f"; {percent(harder['noise'])} of the words are replaced by words of any kind" if harder else ""
    return f"""{head}
<p>Words with labels that mean nothing: the last word's label has to be inferred from the few-shot prompt, 8 words with
their labels{noisy}. Kernel regression would let each of these <b>demonstrations</b> vote for its own label, with a
weight that says how like the last word it is; here the weight is the largest attention that the last token pays to a
demonstration (Han et al. 2025).</p>{outcome(answers, scores)}{table_of(scores)}
<p>The table is of heads chosen by agreement on {scores.attrs["n_choose"]} prompts, whose agreement and accuracy on the
other {scores.attrs["n_score"]} it shows, in {scores.attrs["splits"]} random splits, with 95% intervals; the rows from
"majority label" on are controls. Below, how often each head's vote agrees with the model on all prompts; a white dot
marks those beyond what luck gives the luckiest head.</p>
{figure_fragment(head_map(vote(answers, prompts, answers, seed=seed)))}
{voted(answers, prompts, answers, scores, 3)}"""


def _at(dataset: xr.Dataset, head: Head) -> xr.Dataset:
    return dataset.sel(layer=head.layer, head=head.head)
