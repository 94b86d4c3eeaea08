"""Every public name by the path a user writes, "induction" or "kernel.vote", each once and with its value."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import house

import induction_kernel as ik

# Namespaces whose functions are verbs of their own; the others are parts that the flat verbs are made of.
OF_VERBS = ("", "data", "evidence", "fewshot", "kernel", "plots", "theory", "training")


@cache
def public_values() -> dict[str, Any]:
    """Path -> value; what is flat is not named again by its namespace."""
    names = house.public_names(Path(__file__).resolve().parents[2])
    found = {name: getattr(ik, name) for name in names[""]}
    for room, inside in names.items():
        if room:
            found |= {
                f"{room}.{name}": getattr(getattr(ik, room), name) for name in inside if name not in found
            }
    return found


def verbs() -> dict[str, Any]:
    """Functions, classes and scorers that users call, by path."""
    found = {path: value for path, value in public_values().items() if path.rpartition(".")[0] in OF_VERBS}
    return {path: value for path, value in found.items() if callable(value)}
