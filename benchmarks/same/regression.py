"""Results about few-shot prompts on the embedded model: the vote, its controls, kernels, causes, phenomena, theory."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from . import names as ik
from .embedded import model, shots

WORDS = {
    "dax": "fox wolf bear lion goat tiger".split(),
    "wug": "apple pear plum fig lime mango".split(),
}


@cache
def data() -> Any:
    """Animals and fruits, read from a table."""
    rows = [(word, label) for label, words in WORDS.items() for word in words]
    return ik.load_classification(
        pd.DataFrame(rows, columns=["word", "kind"]), text="word", label="kind", template="{x} {y} ;"
    )


def quoted() -> Any:
    """`quoted_votes`, which `vote_view` draws."""
    try:
        return ik.quoted_votes
    except LookupError:
        return import_module("induction_kernel.kernel._vote_text").quoted_votes


def halves() -> tuple[Any, Any]:
    return data()[::2], data()[1::2]


@cache
def episodes(shown: int = 4) -> Any:
    return ik.draw_episodes(*halves(), shots=shown, separator=" ")


@cache
def task() -> Any:
    return ik.word_episodes(model(), n_prompts=80, classes=4, noise=0.3)


@cache
def answers() -> Any:
    return ik.predict(model(), task(), pooling="max")


@cache
def written() -> Any:
    return ik.label_logits(model(), task())


@cache
def each_in_turn() -> Any:
    """Every text as a query, with four of the others."""
    return ik.draw_episodes(data(), data(), shots=4, separator=" ")


@cache
def as_vectors(what: str = "embedding") -> Any:
    return ik.representations(model(), each_in_turn(), what)


@cache
def attended() -> Any:
    return ik.predict(model(), each_in_turn(), pooling="max")


def given_prompts() -> Any:
    shown = [("fox", "dax"), ("apple", "wug"), ("wolf", "dax"), ("plum", "wug")]
    return ik.few_shot_prompts(
        model(), shown, [("bear", "dax")], template="{x} {y} ;", labels=["dax", "wug"], separator=" "
    )


def permuted() -> Any:
    again = ik.predict(model(), each_in_turn().permuted(seed=1), pooling="max")
    return ik.permuted_run(attended(), attended(), again)


def held() -> Any:
    return ik.held_out(answers(), answers(), writes=written(), splits=20)


def aligned() -> Any:
    return ik.kernel_alignment(attended(), ik.explicit_similarity(as_vectors()), resamples=200)


def texts_retrieved() -> Any:
    return ik.retrieval_effect(model(), *halves(), shots=2, separator=" ")


def in_other_words() -> Any:
    words = {"plain": ["dax", "wug"], "others": ["fep", "kiki"]}
    return ik.label_format_effect(model(), episodes(), formats=words)


RESULTS = {
    "few_shot_prompts": given_prompts,
    "load_classification": lambda: data().classes,
    "draw_episodes": lambda: [episodes().shown, episodes().classes],
    "draw_episodes, prompts": lambda: episodes().prompts(model()),
    "predict": answers,
    "predict, all poolings": lambda: ik.predict(model(), shots(), pooling=("label", "max", "sum", "mean")),
    "bridge: predict": lambda: ik.predict(model(True), shots(), pooling="max"),
    "vote": lambda: ik.vote(answers(), task(), answers()),
    "sum_heads": lambda: ik.sum_heads(answers()),
    "sum_heads, by writing": lambda: ik.sum_heads(answers(), written()),
    "label_logits": written,
    "control_weights": lambda: ik.control_weights(answers()),
    "permuted_run": permuted,
    "held_out": held,
    "reconstruction_table": lambda: ik.reconstruction_table(held()),
    "representations": as_vectors,
    "representations, residual": lambda: as_vectors("residual"),
    "representations, head": lambda: ik.representations(model(), shots(), "head"),
    "kernel_regression": lambda: ik.kernel_regression(as_vectors()),
    "explicit_similarity": lambda: ik.explicit_similarity(as_vectors(), kernel=["exponential", "cosine"]),
    "next_token_similarity": lambda: ik.next_token_similarity(model(), episodes()),
    "kernel_alignment": aligned,
    "summarise, alignment": lambda: ik.summarise(aligned()),
    "fitted_bandwidth": lambda: ik.fitted_bandwidth(attended(), as_vectors(), resamples=100),
    "demonstration_attention": lambda: ik.demonstration_attention(model(), shots()),
    "quoted_votes": lambda: quoted()(answers().sel(layer=1, head=7), task(), answers()),
    "probe": lambda: ik.probe(model(), task(), min_count=2, folds=2, layers=[1]),
    "label_knock_out": lambda: ik.label_knock_out(model(), shots(), ["L1H7", "L1H1"], draws=3),
    "bridge: label_knock_out": lambda: ik.label_knock_out(model(True), shots(), "L1H7", draws=2),
    "fit_label_weights": lambda: ik.fit_label_weights(model(), shots(), steps=3),
    "reweighted": lambda: ik.reweighted(model(), shots(), np.full((2, 8, 3), 0.5)),
    "label_flow": lambda: ik.label_flow(model(), shots()),
    "label_auc": lambda: ik.label_auc(answers(), answers(), resamples=50),
    "function_vector_effect": lambda: ik.function_vector_effect(model(), shots()),
    "retrieval_effect": texts_retrieved,
    "label_format_effect": in_other_words,
    "input_shift_effect": lambda: ik.input_shift_effect(model(), episodes(), shift="rare words"),
    "order_effect": lambda: ik.order_effect(model(), episodes(), orders=3),
    "few_shot_study": lambda: ik.few_shot_study(model(), queries=48, splits=10),
    "hidden_markov_tasks": lambda: ik.hidden_markov_tasks(seed=2),
    "kernel_theory": lambda: ik.kernel_theory(seeds=2, prompts=50, demonstrations=(1, 4, 16)),
}
