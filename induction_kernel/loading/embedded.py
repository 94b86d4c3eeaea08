"""What is in the embedded model's folder? Weights, training checkpoints, tokenizer and recipe.

`recipe.json` (format 1: `architecture`, and how the model was trained), `model.safetensors` (TransformerLens'
parameter names), `checkpoints.safetensors` (`{step:06d}/{parameter}`, may be absent), and the tokenizer's two
files. Any folder of this format is read, so also what `induction-kernel train` writes. It trains nothing: see
`training`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .building import build

__all__ = ["TINY", "checkpoint_steps", "is_embedded", "load_embedded", "read_recipe"]

TINY = Path(__file__).parent.parent / "assets" / "tiny"
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
        ValueError: a folder that is incomplete, damaged or of another format; a checkpoint that is not there.
    """
    recipe = read_recipe(folder)
    name = "tiny" if folder == TINY else folder.resolve().name
    if checkpoint is not None:
        name = f"{name} at step {checkpoint}"
    model = build(
        recipe["architecture"],
        _read_weights(folder) if checkpoint is None else _read_checkpoint(folder, checkpoint),
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
        ValueError: no recipe, a damaged one, or one of an unknown format.
    """
    path = Path(folder) / "recipe.json"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the folder holds no embedded model, or was not written to its end"
        )
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    found = recipe.get("format") if isinstance(recipe, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path} has format {found!r}, this version of induction_kernel reads format {FORMAT}"
        )
    if not isinstance(recipe.get("architecture"), dict):
        raise ValueError(f"{path} is damaged: it has no architecture")
    return recipe


def checkpoint_steps(folder: str | Path = TINY) -> list[int]:
    """The training steps of which `folder` holds a checkpoint, ascending; empty where it holds none.

    Raises:
        ValueError: a damaged file of checkpoints.
    """
    path = Path(folder) / "checkpoints.safetensors"
    if not path.is_file():
        return []
    with _opened(path) as file:
        return sorted({int(key.partition("/")[0]) for key in file.keys()})  # noqa: SIM118  not a mapping


def is_embedded(folder: Path) -> bool:
    """Whether `folder` is meant to hold a model in the embedded format."""
    return (folder / "recipe.json").exists()


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing: the folder was not written to its end")
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping


def _read_checkpoint(folder: Path, step: int) -> dict[str, Tensor]:
    steps = checkpoint_steps(folder)
    if step not in steps:
        there = f"there are {', '.join(map(str, steps))}" if steps else "the folder holds no checkpoints"
        raise ValueError(f"no checkpoint of step {step}: {there}")
    prefix = f"{step:06d}/"
    with _opened(folder / "checkpoints.safetensors") as file:
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118  not a mapping
        return {key.removeprefix(prefix): file.get_tensor(key) for key in keys}


class _opened:
    """A safetensors file, with its errors as ValueErrors that name the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Any:
        try:
            self.file = safe_open(self.path, framework="pt").__enter__()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path} is damaged or was not written to its end: {error}") from error
        return self.file

    def __exit__(self, *error: Any) -> None:
        self.file.__exit__(*error)


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder / missing[0]} is missing: the folder was not written to its end")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever transformers and tokenizers raise for a damaged file
        raise ValueError(f"the tokenizer in {folder} is damaged: {error}") from error
