"""Results on the embedded model: prompts, scorers, summaries, metrics, interventions, training, the six arguments."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from . import names as ik

STEPS = (0, 800, 1200, 1400, 1900, 3200)
PAIR = ("L1H7", "L1H1")


@cache
def model(bridge: bool = False) -> Any:
    return ik.load("tiny", bridge=bridge)


@cache
def repeats(seed: int = 0) -> Any:
    return ik.repeated_tokens(model(), n_prompts=12, period=8, seed=seed)


@cache
def ragged() -> Any:
    return ik.repeated_tokens(model(), n_prompts=12)


@cache
def shots() -> Any:
    return ik.word_episodes(model(), n_prompts=16, shots=4, classes=3, noise=0.3)


@cache
def swapped() -> Any:
    """Clean prompts, and the same with two words changed about."""
    words = ik.repeated_tokens(model(), period=10, n_prompts=12).tokens[:, :14]
    corrupted = words.clone()
    corrupted[:, [3, 7]] = words[:, [7, 3]]
    return ik.pairs(model(), clean=words, corrupted=corrupted, answers=words[:, [4, 8]].tolist())


@cache
def scores() -> Any:
    return ik.induction(model(), ragged())


def answered() -> Any:
    return replace(repeats(), answers=torch.arange(24).view(12, 2) + 3)


def earlier() -> torch.Tensor:
    width = repeats().tokens.shape[1]
    return torch.ones(width, width, dtype=torch.bool).tril(-1)


def mine() -> Any:
    def two_back(tokens, lengths):
        return torch.eye(tokens.shape[1]).roll(-2, 1).tril(-2).bool().repeat(len(tokens), 1, 1)

    return ik.AttentionScorer("two_back", two_back)


def within(edit: Any, bridge: bool = False, **options: Any) -> Any:
    with ik.edited(model(bridge), edit, PAIR, **options):
        return ik.repeat_loss(model(bridge), repeats())


def swept(bridge: bool = False, **options: Any) -> Any:
    return ik.sweep(model(bridge), repeats(), **options)


def sent(site: str, bridge: bool = False) -> Any:
    pair, to = swapped(), {} if site == "resid_post" else {"receivers": PAIR}
    return ik.path_patch(model(bridge), source=pair.clean, into=pair.corrupted, site=site, **to)


def estimated(**options: Any) -> Any:
    pair = swapped()
    given = {"edit": ik.FromRun(pair.clean), "metric": ik.logit_difference} | options
    return ik.attribution(model(), pair.corrupted, **given)


PROMPTS = {
    "repeated_tokens": ragged,
    "as_prompts": lambda: ik.as_prompts(model(), ["fox dax ; apple wug ; fox", "apple wug ; fox"]),
    "word_episodes": shots,
    "pairs": swapped,
    "with_answers": lambda: ik.with_answers(model(), ["fox dax ; fox"], [(" dax", " wug")]),
}
SCORERS = {
    "observe": lambda: ik.observe(model(), repeats(), [ik.induction, ik.duplicate_token]),
    "patterns": lambda: ik.patterns(model(), repeats()[:2], ["L0H3", *PAIR]),
    "induction": scores,
    "induction, default prompts": lambda: ik.induction(model()),
    "prefix_matching": lambda: ik.prefix_matching(model(), ragged()),
    "prefix_matching, four copies": lambda: ik.prefix_matching(model()),
    "previous_token": lambda: ik.previous_token(model(), ragged()),
    "duplicate_token": lambda: ik.duplicate_token(model(), ragged()),
    "AttentionScorer": lambda: mine()(model(), ragged()),
    "label_attention": lambda: ik.label_attention(model(), shots()),
    "demonstration_weights": lambda: ik.demonstration_weights(model(), shots()),
    "copying": lambda: ik.copying(model()),
    "copying, BAN": lambda: ik.copying(model(), ragged(), method="BAN"),
    "copying, BAN-source": lambda: ik.copying(model(), ragged(), method="BAN-source"),
    "ov_eigenvalues": lambda: ik.ov_eigenvalues(model()),
    "qk_trace": lambda: ik.qk_trace(model()),
    "composition": lambda: ik.composition(model()),
    "composition, by v": lambda: ik.composition(model(), by="v"),
    "direct_effect": lambda: ik.direct_effect(model(), ragged()),
    "direct_effect, on answers": lambda: ik.direct_effect(model(), answered()),
    "bridge: observe": lambda: ik.observe(model(True), repeats(), [ik.induction, ik.previous_token]),
}
HEADS = {
    "summarise": lambda: ik.summarise(scores()),
    "summarise, sweep": lambda: ik.summarise(swept()),
    "summarise, weights": lambda: ik.summarise(ik.ov_eigenvalues(model())),
    "head_table": lambda: ik.head_table(scores(), 16),
    "top_heads": lambda: ik.top_heads(scores(), None),
    "top_heads, by": lambda: ik.top_heads(swept(), 5, by="low"),
    "random_heads": lambda: ik.random_heads(model(), like=PAIR, seed=3),
    "random_sets": lambda: ik.random_sets(model(), like=PAIR, n=10),
    "compare": lambda: ik.compare(scores(), ik.prefix_matching(model(), ragged())),
}
METRICS = {
    "loss_by_position": lambda: ik.loss_by_position(model(), ragged()),
    "icl_score": lambda: ik.icl_score(model(), repeats(), early=2, late=10, width=3),
    "repeat_loss": lambda: ik.repeat_loss(model(), ragged()),
    "loss": lambda: ik.loss(model(), ragged()),
    "logit_difference": lambda: ik.logit_difference(model(), answered()),
    "probability": lambda: ik.probability(model(), answered()),
    "label_accuracy": lambda: ik.label_accuracy(model(), shots()),
    "kl_to": lambda: ik.ablate(model(), repeats(), PAIR, metric=ik.kl_to(model()(repeats().tokens))),
}
INTERVENTIONS = {
    "sweep": swept,
    "sweep, by position": lambda: swept(by=("layer", "head", "position"), edit=ik.Zero()),
    "sweep, values resampled": lambda: swept(site="v", edit=ik.Resample(seed=1)),
    "sweep, of the stream": lambda: swept(site="resid_pre", by=("layer", "position"), edit=ik.Scale(0.5)),
    "sweep, queries": lambda: swept(site="q", edit=ik.Mean(repeats(5))),
    "sweep, patterns held": lambda: swept(hold="patterns", edit=ik.ZeroValues()),
    "sweep, loss": lambda: swept(site="attn_out", by=("layer",), metric=ik.loss),
    "ablate": lambda: ik.ablate(model(), ragged(), PAIR),
    "ablate, patterns held": lambda: ik.ablate(model(), ragged(), "L0H3", hold="patterns", edit=ik.Zero()),
    "ablation_curve": lambda: ik.ablation_curve(model(), ragged(), scores(), ks=(1, 2, 4), n_controls=5),
    "knock_out": lambda: ik.knock_out(model(), repeats(), earlier()),
    "patch": lambda: ik.patch(model(), source=swapped().clean, into=swapped().corrupted),
    "patch, heads": lambda: ik.patch(
        model(), source=swapped().clean, into=swapped().corrupted, site="z", by=("layer", "head")
    ),
    "path_patch": lambda: sent("resid_post"),
    "path_patch, q": lambda: sent("q"),
    "path_patch, k": lambda: sent("k"),
    "path_patch, v": lambda: sent("v"),
    "attribution": lambda: estimated(verify=8),
    "attribution, q": lambda: estimated(site="q"),
    "attribution, k": lambda: estimated(site="k", by=("layer", "head", "position")),
    "attribution, patterns": lambda: estimated(site="pattern"),
    "edited": lambda: within(ik.Mean(repeats(2))),
    "edited, Add": lambda: within(ik.Add(torch.ones(16))),
    "edited, keys": lambda: within(ik.Mean(repeats(2), by_position=False), site="k"),
    "bridge: sweep": lambda: swept(True),
    "bridge: sweep, by position": lambda: swept(True, by=("layer", "head", "position")),
    "bridge: path_patch, k": lambda: sent("k", True),
    "bridge: edited": lambda: within(ik.Zero(), True),
}


@cache
def families() -> Any:
    return ik.family_curves().isel(prompt=slice(0, 24))


@cache
def curves() -> Any:
    return ik.training_curves("tiny", n=16, checkpoints=STEPS)


@cache
def two_layers() -> Any:
    return families().sel(model="2-layer")


@cache
def window() -> Any:
    return ik.phase_window(two_layers(), resamples=100)


def trained() -> Any:
    small = ik.Recipe(steps=6, layers=1, batch_size=4, checkpoints=(0, 6))
    return dict(ik.train(small, seed=1).named_parameters())


def over_training() -> Any:
    def measure(one):
        return ik.repeat_loss(one, ik.repeated_tokens(one, n_prompts=4, period=6))

    return ik.over_checkpoints("tiny", {"loss": measure}, checkpoints=STEPS[::2])


TRAINING = {
    "train": trained,
    "log_spaced": lambda: list(ik.log_spaced(1000, 12)),
    "family_curves": lambda: ik.family_curves().mean("prompt", keep_attrs=True),
    "over_checkpoints": over_training,
    "training_curves": curves,
    "phase_window": window,
    "onset_coupling": lambda: ik.onset_coupling(two_layers(), "icl_score", "repeat_loss", resamples=100),
    "loss_components": lambda: ik.loss_components(curves()),
    "loss_slope": lambda: ik.loss_slope(curves()),
    "before_and_after": lambda: ik.before_and_after(two_layers().isel(seed=0), window().isel(seed=0)),
}
EVIDENCE = {
    "co_occurrence": lambda: ik.co_occurrence(two_layers(), window=window()),
    "co_perturbation": lambda: ik.co_perturbation(families()),
    "direct_ablation": lambda: ik.direct_ablation("tiny", n=16, checkpoints=STEPS[1::2], by_head=False),
    "generality": lambda: ik.generality(model(), PAIR),
    "mechanism": lambda: ik.mechanism("tiny", resamples=500),
    "continuity": lambda: ik.continuity({"two": ik.co_occurrence(two_layers(), window=window())}),
    "six_arguments": lambda: ik.six_arguments("tiny", n=16, checkpoints=STEPS, families=families()).results,
}
VALUES = np.random.default_rng(0).gamma(2.0, size=(20, 5))
STATISTICS = {
    "mean_interval": lambda: ik.mean_interval(VALUES),
    "difference_interval": lambda: ik.difference_interval(VALUES[:, 0], VALUES[:12, 1]),
    "ratio": lambda: ik.ratio(VALUES[:, 0], VALUES[:, 1]),
    "share_interval": lambda: ik.share_interval(7, 20),
    "correlation_interval": lambda: ik.correlation_interval(VALUES[:, 0], VALUES[:, 1], "spearman"),
    "split_interval": lambda: ik.split_interval(VALUES[:, 0], 14, 6),
    "threshold": lambda: ik.threshold(VALUES - 1.5, margin=0.02),
}
RESULTS = PROMPTS | SCORERS | HEADS | METRICS | INTERVENTIONS | TRAINING | EVIDENCE | STATISTICS
