"""This package, called as users call it."""

from __future__ import annotations

from typing import Any

import torch

from .cases import BY, Case
from .models import questions


def package(model: Any, case: Case) -> Any:
    """`ik.patch` (for the loss, `ik.sweep`) over all cells, with its defaults: values in the order of the cells."""
    import induction_kernel as ik

    clean, corrupted, answers = questions(case)
    into = ik.prompts.with_answers(model, corrupted, answers.tolist())
    by, rows, metric = BY[case.what], torch.arange(case.prompts), ik.logit_difference
    if case.metric == "last logits":
        metric = ik.metrics.Metric(
            "last logits",
            "logits",
            lambda found, _: found[rows, 0, answers[:, 0]] - found[rows, 0, answers[:, 1]],
            reads=metric.reads,
        )

    def ask(_: list[tuple[int, ...]]) -> tuple[list[float], dict[str, str]]:
        if case.metric == "loss":
            found = ik.sweep(model, into, edit=ik.Zero(), site="z", by=by, metric=ik.loss, progress=False)
        else:
            site = "resid_pre" if case.what == "residual" else "z"
            found = ik.patch(model, source=clean, into=into, site=site, by=by, metric=metric, progress=False)
        return found["value"].mean("prompt").values.ravel().tolist(), {"lane": found.attrs["lane"]}

    return ask
