"""How does an evaluation that was stopped go on? Finished batches are files in a folder, by prompt index.

A fingerprint of model, prompts and options says whose they are. Each file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from ..model import Model, describe, foreign_hooks
from ..prompts import Prompts
from ..scorers.labels import demonstrations_of

__all__ = ["Store", "fingerprint"]

FORMAT = 1
_SAMPLED = 4096  # numbers of each parameter that the fingerprint looks at, evenly spread


def fingerprint(model: Model, prompts: Prompts, options: Any) -> str:
    """A hash of everything an evaluation depends on; of large parameters, some of the numbers."""
    found = demonstrations_of(prompts)
    said = [describe(model), options, found.labels, sorted(foreign_hooks(model))]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    tensors = [prompts.tokens, prompts.lengths, found.spans, found.label_positions, found.classes]
    tensors += [found.mask, found.label_ids, found.target]
    weights = list(model.parameters())
    tensors += [value.detach().reshape(-1)[:: max(1, value.numel() // _SAMPLED)] for value in weights]
    for tensor in tensors:
        digest.update(f"{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.cpu().double().numpy().tobytes())
    return digest.hexdigest()


class Store:
    """A folder of finished batches.

    Raises:
        ValueError: a folder that holds something else, or the batches of another evaluation; a file; no parent folder.
    """

    def __init__(self, path: str | os.PathLike[str], mark: str) -> None:
        self.folder: Path = Path(path)
        name, label = str(self.folder), self.folder / "evaluation.json"
        if self.folder.is_file() or not self.folder.parent.is_dir():
            raise ValueError(f"wanted a folder, new or of an earlier run, in an existing one, got {name!r}")
        self.folder.mkdir(exist_ok=True)
        if not label.exists():
            if any(self.folder.iterdir()):
                raise ValueError(f"{name!r} holds other files: give a new folder")
            with replacing(label) as part:
                part.write_text(json.dumps({"format": FORMAT, "fingerprint": mark}))
        if json.loads(label.read_text()) != {"format": FORMAT, "fingerprint": mark}:
            raise ValueError(
                f"{name!r} holds another evaluation (other prompts, model, weights, options or version): "
                "give another folder, or delete this one"
            )

    def read_into(self, kept: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fill in what is finished; bool `[prompt]`, which prompts that are."""
        done = np.zeros(len(kept["log_probability"]), dtype=bool)
        for file in sorted(self.folder.glob("prompt-*.npz")):
            with np.load(file) as found:
                at = found["prompt"]
                for key, values in kept.items():
                    values[at] = found[key]
            done[at] = True
        return done

    def write(self, at: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Keep the values of these prompts."""
        with (
            replacing(self.folder / f"prompt-{at.min():06d}.npz") as part,
            part.open("wb") as file,
        ):
            np.savez(file, **{"prompt": at, **values})  # pyright: ignore[reportArgumentType]  # its stub takes keywords for flags
