"""A training run on disk, written so that an interrupted run can continue.

- `recipe.json`: format, architecture, recipe, seed, versions, and the log so far; rewritten at every checkpoint.
- `checkpoints/000100.safetensors`: the weights at that step, float16, by TransformerLens' names.
- `tokenizer.json`, `tokenizer_config.json`.
- `state.safetensors`, while it runs: weights, AdamW's moments, and in its header the step, the log and the state
  of the generator that draws the rows. The remaining steps depend on nothing else (apart from texts, which have a
  fingerprint), so a run that continues from here ends with the same weights.
- `model.safetensors`, at the end: the final weights, float32.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from .._given import is_whole
from ..errors import Refused
from ..formats import read_json
from ..stores import checked_folder, remove_unfinished, write_whole
from ._network import Weights, initial_weights
from ._recipe import Recipe

__all__ = ["State", "begin", "finish", "read_state", "write_checkpoint", "write_state"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class State:
    """A run between two steps.

    Attributes:
        step: optimiser steps done.
        weights: by parameter name, float32.
        moments: AdamW's two moments, `(exp_avg, exp_avg_sq)` by parameter name.
        rng: state of the generator of rows.
        log: one entry per checkpoint so far.
    """

    step: int
    weights: Weights
    moments: dict[str, tuple[Tensor, Tensor]]
    rng: dict[str, Any]
    log: list[dict[str, Any]]


def begin(folder: Path, recipe: Recipe, seed: int, texts: str) -> State | None:
    """Makes the folder, or reads the state of a run interrupted in it; None if there is no state yet.

    Args:
        folder: new, empty, or with an unfinished run of the same recipe, seed and texts.
        recipe: the recipe of the run.
        seed: of weights and rows.
        texts: fingerprint of the texts, "" for the synthetic language.

    Raises:
        Refused: a file, a finished run, a run of another recipe, seed or texts, or something else.
    """
    if (folder / "model.safetensors").exists():
        raise Refused(f"{folder} already holds a trained model: name another folder, or remove it first")
    said = json.loads(json.dumps({"recipe": asdict(recipe), "seed": seed, "texts": texts}))
    if (folder / "recipe.json").exists():
        found = read_json(folder / "recipe.json")
        if not isinstance(found, dict):
            raise Refused(f"{folder / 'recipe.json'} is damaged: remove the folder and train again")
        for key, wanted in said.items():
            if found.get(key) != wanted:
                raise Refused(
                    f"{folder} holds an unfinished run of another {key.rstrip('s')}: pass the same one to continue it, "
                    "or name another folder"
                )
        for each in (folder, folder / "checkpoints"):
            remove_unfinished(checked_folder(each))
        return read_state(folder, recipe)
    checked_folder(folder / "checkpoints")
    _write_recipe(folder, recipe, seed, texts, [])
    return None


def write_checkpoint(
    folder: Path, recipe: Recipe, seed: int, texts: str, log: list[dict[str, Any]], weights: Weights
) -> None:
    """Writes the weights at the last entry of the log, and the log."""
    halves = {name: weight.detach().half().contiguous() for name, weight in weights.items()}
    write_whole(folder / "checkpoints" / f"{log[-1]['step']:06d}.safetensors", save(halves))
    _write_recipe(folder, recipe, seed, texts, log)


def write_state(folder: Path, state: State) -> None:
    """Writes everything that the remaining steps depend on."""
    tensors = {f"weight/{name}": weight.detach() for name, weight in state.weights.items()}
    for name, (mean, square) in state.moments.items():
        tensors |= {f"mean/{name}": mean, f"square/{name}": square}
    # The order of names too: the norm for clipping gradients is a sum over parameters.
    said = json.dumps({"step": state.step, "rng": state.rng, "log": state.log, "names": list(state.weights)})
    write_whole(folder / "state.safetensors", save(tensors, metadata={"state": said}))


def read_state(folder: Path, recipe: Recipe) -> State | None:
    """The state left by an interrupted run of this recipe; None if it left none.

    Raises:
        Refused: a damaged file, or one that is not of this recipe.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    wanted = initial_weights(recipe, 0)
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["state"])
            # Cloned into torch's memory: sums over a file's unaligned memory may round differently.
            found = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118  not a mapping
        names = said["names"]
        state = State(
            step=said["step"],
            weights={name: found[f"weight/{name}"] for name in names},
            moments={name: (found[f"mean/{name}"], found[f"square/{name}"]) for name in names},
            rng=said["rng"],
            log=said["log"],
        )
        _check_state(state, recipe, wanted)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = str(error) or type(error).__name__
        raise Refused(f"{path} is damaged: {said}; remove the folder and train again") from error
    return state


def _check_state(state: State, recipe: Recipe, wanted: Weights) -> None:
    """Raise Refused, KeyError or TypeError for a state that no run of this recipe writes."""
    for found in (state.weights, *({name: m[i] for name, m in state.moments.items()} for i in (0, 1))):
        if [(name, each.shape, each.dtype) for name, each in found.items()] != [
            (name, each.shape, each.dtype) for name, each in wanted.items()
        ]:
            raise Refused("its tensors are not those of the recipe")
    if not is_whole(state.step) or not 0 <= state.step <= recipe.steps:
        raise Refused(f"step {state.step!r} is not one of the recipe's")
    if not all(is_whole(entry["step"]) for entry in state.log):
        raise Refused("its log has an entry without a step")
    np.random.default_rng().bit_generator.state = state.rng


def finish(folder: Path, weights: Weights) -> None:
    """Writes the final weights and removes the state, which is no longer needed."""
    content = save({name: weight.detach() for name, weight in weights.items()})
    write_whole(folder / "model.safetensors", content)
    (folder / "state.safetensors").unlink(missing_ok=True)


def _write_recipe(folder: Path, recipe: Recipe, seed: int, texts: str, log: list[dict[str, Any]]) -> None:
    said = {
        "format": FORMAT,
        "name": recipe.name,
        "seed": seed,
        "architecture": recipe.architecture,
        "recipe": asdict(recipe),
        "texts": texts,
        "versions": {
            "torch": torch.__version__,
            "transformer_lens": version("transformer-lens"),
            "induction_kernel": __version__,
        },
        "checkpoints": log,
    }
    write_whole(folder / "recipe.json", json.dumps(said, indent=1) + "\n")
