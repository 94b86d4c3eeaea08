"""Every verb with how often it is called, and its maker of random calls."""

import random
from collections.abc import Callable
from typing import Any

from .calls import Case
from .reading import (
    composition,
    copying,
    direct_effect,
    label_attention,
    loss_by_position,
    metric,
    observe,
    ov_eigenvalues,
    patterns,
    qk_trace,
    scorer,
)
from .removing import ablate, ablation_curve, edited, path_patch
from .sweeping import attribution, knock_out, patch, sweep

VERBS: dict[str, tuple[int, Callable[[random.Random, Any], Case]]] = {
    "scorer": (6, scorer), "observe": (2, observe), "patterns": (2, patterns), "label_attention": (3, label_attention),
    "copying": (3, copying), "ov_eigenvalues": (1, ov_eigenvalues), "composition": (1, composition),
    "qk_trace": (1, qk_trace), "direct_effect": (3, direct_effect), "metric": (3, metric),
    "loss_by_position": (2, loss_by_position), "sweep": (14, sweep), "knock_out": (2, knock_out), "patch": (4, patch),
    "path_patch": (4, path_patch), "ablate": (3, ablate), "ablation_curve": (1, ablation_curve),
    "attribution": (6, attribution), "edited": (2, edited),
}  # fmt: skip
"""Verb -> how often, and a maker of cases."""
