"""nnsight: twelve cells in one trace, only the last position unembedded."""

from __future__ import annotations

from typing import Any

import torch

from .cases import BY, Case
from .models import questions

TOGETHER = 12


def nnsight(model: Any, case: Case) -> Any:
    """The corrupted prompts once a cell in one batch; each cell's rows are edited inside one trace."""
    from nnsight import NNsight

    traced, size = NNsight(model), case.prompts
    clean, corrupted, answers = questions(case)
    d_head, n_layers = model.config.n_embd // model.config.n_head, model.config.n_layer
    rows = torch.arange(size)
    where = torch.arange(TOGETHER * size).view(TOGETHER, size)

    def reads_z(layer: int) -> Any:
        attention = traced.transformer.h[layer].attn
        return attention.c_proj if hasattr(model.transformer.h[layer].attn, "c_proj") else attention.out_proj

    taken = []
    with traced.trace(clean, logits_to_keep=1, use_cache=False):
        for layer in range(n_layers):
            if case.what == "residual":
                taken.append(traced.transformer.h[layer].input.clone().save())
            else:
                taken.append(reads_z(layer).input.clone().save())

    def together(cells: list[tuple[int, ...]]) -> list[float]:
        order = sorted(range(len(cells)), key=lambda i: cells[i])  # a trace goes through the layers once
        with traced.trace(corrupted.repeat(len(cells), 1), logits_to_keep=1, use_cache=False):
            for turn in order:
                at = dict(zip(BY[case.what], cells[turn], strict=True))
                layer, here = at["layer"], slice(int(where[turn][0]), int(where[turn][-1]) + 1)
                position = at.get("position", slice(None))
                if case.what == "residual":
                    traced.transformer.h[layer].input[here, position] = taken[layer][:, position]
                else:
                    head = slice(at["head"] * d_head, (at["head"] + 1) * d_head)
                    reads_z(layer).input[here, position, head] = taken[layer][:, position, head]
            last = traced.lm_head.output[:, -1].save()
        last = last.view(len(cells), size, -1)
        found = last[:, rows, answers[:, 0]] - last[:, rows, answers[:, 1]]
        return found.mean(1).tolist()

    def ask(cells: list[tuple[int, ...]]) -> list[float]:
        parts = [cells[i : i + TOGETHER] for i in range(0, len(cells), TOGETHER)]
        return [value for part in parts for value in together(part)]

    return ask
