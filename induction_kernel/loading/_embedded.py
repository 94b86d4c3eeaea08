"""The embedded model's folder: weights, training checkpoints, tokenizer and recipe.

`recipe.json` (format 1: `architecture`, and how the model was trained), `model.safetensors` (TransformerLens'
parameter names), `checkpoints/{step:06d}.safetensors` (may be absent), and the tokenizer's two files. Any folder of
this format is read, such as one that `induction-kernel train` writes; its checkpoints can be read while training still
runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .._given import is_whole
from ..errors import Refused
from ..formats import read_json
from ._build import build
from ._names import TINY

__all__ = ["checkpoint_steps", "load_embedded", "read_recipe"]

FORMAT = 1


def load_embedded(
    folder: Path,
    *,
    checkpoint: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    bridge: bool = False,
) -> Any:
    """The model of a folder in the embedded format, or one of its training checkpoints.

    Raises:
        Refused: a folder that is incomplete, damaged or of another format; a checkpoint that does not exist.
    """
    recipe = read_recipe(folder)
    name = "tiny" if folder == TINY else folder.resolve().name
    if checkpoint is not None:
        name = f"{name} at step {checkpoint}"
    model = build(
        recipe["architecture"],
        _read_weights(folder / "model.safetensors")
        if checkpoint is None
        else _read_checkpoint(folder, checkpoint),
        tokenizer=_read_tokenizer(folder),
        device=device,
        dtype=dtype,
        name=name,
        bridge=bridge,
    )
    model.cfg.checkpoint_value = checkpoint
    return model


def read_recipe(folder: str | Path = TINY) -> dict[str, Any]:
    """How the model in `folder` was made: architecture, recipe, versions, scores at training time.

    Raises:
        Refused: no recipe, a damaged one, or one of an unknown format.
    """
    path = Path(folder) / "recipe.json"
    if not path.is_file():
        raise Refused(f"{path} is missing: the folder holds no embedded model, or was not written completely")
    recipe = read_json(path)
    found = recipe.get("format") if isinstance(recipe, dict) else None
    if found != FORMAT:
        raise Refused(f"{path} has format {found!r}, this version of induction_kernel reads format {FORMAT}")
    if not isinstance(recipe.get("architecture"), dict):
        raise Refused(f"{path} is damaged: it has no architecture")
    _check_log(path, recipe.get("checkpoints", []))
    return recipe


def _check_log(path: Path, log: Any) -> None:
    """Raise Refused for a log without the step of each checkpoint and the tokens seen until then."""
    for entry in log if isinstance(log, list) else [None]:
        said = entry if isinstance(entry, dict) else {}
        step, tokens = said.get("step"), said.get("tokens")
        if not (is_whole(step) and step >= 0 and isinstance(tokens, int | float) and tokens >= 0):
            raise Refused(
                f"{path} is damaged: wanted its checkpoints as a list, each with its step and the tokens seen until "
                f"then, got {entry!r:.80}"
            )


def checkpoint_steps(folder: str | Path = TINY) -> list[int]:
    """The training steps of the checkpoints in `folder`, ascending; empty if it holds none."""
    files = (Path(folder) / "checkpoints").glob("*.safetensors")
    return sorted(int(path.stem) for path in files if path.stem.isdigit())


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise Refused(f"{path} is missing: the folder was not written completely")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path} is damaged or was not written completely: {error}") from error


def _read_checkpoint(folder: Path, step: int) -> dict[str, Tensor]:
    steps = checkpoint_steps(folder)
    if step not in steps:
        there = f"there are {', '.join(map(str, steps))}" if steps else "the folder holds no checkpoints"
        raise Refused(f"no checkpoint of step {step}: {there}")
    return _read_weights(folder / "checkpoints" / f"{step:06d}.safetensors")


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        raise Refused(f"{folder / missing[0]} is missing: the folder was not written completely")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers and tokenizers raise for a damaged file
        raise Refused(f"the tokenizer in {folder} is damaged: {error}") from error
