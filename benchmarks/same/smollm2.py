"""Results on SmolLM2-135M: 30 layers, grouped queries, rotary positions; short prompts and few layers."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import names as ik

HEADS = ("L17H3", "L17H4", "L18H6")
LAYERS = (17, 18)


def results(file: Path) -> dict[str, Callable[[], Any]]:
    """Name -> call, on the model of this file."""

    @cache
    def model() -> Any:
        return ik.load(file, n_ctx=256)

    @cache
    def repeats(seed: int = 0) -> Any:
        return ik.repeated_tokens(model(), n_prompts=6, period=(8, 14), seed=seed)

    @cache
    def shots() -> Any:
        return ik.word_episodes(model(), n_prompts=6, shots=4)

    def patched() -> Any:
        words = ik.repeated_tokens(model(), period=8, n_prompts=2).tokens[:, :11]
        corrupted = words.clone()
        corrupted[:, [3, 7]] = words[:, [7, 3]]
        pair = ik.pairs(model(), clean=words, corrupted=corrupted, answers=words[:, [4, 8]].tolist())
        return ik.patch(model(), source=pair.clean, into=pair.corrupted, layers=LAYERS)

    return {
        "SmolLM2: induction": lambda: ik.induction(model(), repeats()),
        "SmolLM2: summarise": lambda: ik.summarise(ik.prefix_matching(model(), repeats())),
        "SmolLM2: previous_token": lambda: ik.previous_token(model(), repeats()),
        "SmolLM2: copying": lambda: ik.copying(model(), repeats(), layers=LAYERS),
        "SmolLM2: ov_eigenvalues": lambda: ik.ov_eigenvalues(model(), layers=LAYERS, draws=1),
        "SmolLM2: direct_effect": lambda: ik.direct_effect(model(), repeats(), layers=LAYERS),
        "SmolLM2: repeat_loss": lambda: ik.repeat_loss(model(), repeats()),
        "SmolLM2: ablate": lambda: ik.ablate(model(), repeats(1), HEADS),
        "SmolLM2: sweep": lambda: ik.sweep(model(), repeats(1)[:2], layers=LAYERS, edit=ik.Zero()),
        "SmolLM2: patch": patched,
        "SmolLM2: predict": lambda: ik.predict(model(), shots(), pooling="max"),
        "SmolLM2: label_attention": lambda: ik.label_attention(model(), shots()),
        "SmolLM2: label_logits": lambda: ik.label_logits(model(), shots()),
        "SmolLM2: label_knock_out": lambda: ik.label_knock_out(model(), shots(), "L20H6", draws=1),
    }
