"""How does an evaluation that was stopped go on? Finished batches are files in a folder, by prompt index.

A fingerprint of model, prompts and options says whose they are. Each file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Refused
from ..files import kept_folder, write_whole
from ..model._anatomy import Model, describe
from ..model._self_check import foreign_hooks
from ..prompts._prompts import Prompts
from ..scorers._labels import demonstrations_of

__all__ = ["Store", "fingerprint"]

FORMAT = 2
_SAMPLED = 4096  # numbers of each parameter that the fingerprint looks at, evenly spread


def fingerprint(model: Model, prompts: Prompts, options: Any) -> str:
    """A hash of everything an evaluation depends on; of large parameters, some of the numbers."""
    found = demonstrations_of(prompts)
    said = [describe(model), options, found.labels, sorted(foreign_hooks(model))]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    tensors = [prompts.tokens, prompts.lengths, found.spans, found.label_positions, found.classes]
    tensors += [found.mask, found.label_ids, found.target, *([] if found.inputs is None else [found.inputs])]
    weights = list(model.parameters())
    tensors += [value.detach().reshape(-1)[:: max(1, value.numel() // _SAMPLED)] for value in weights]
    for tensor in tensors:
        digest.update(f"{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.cpu().double().numpy().tobytes())
    return digest.hexdigest()


class Store:
    """A folder of finished batches. Several processes may share it: what both compute, both write alike.

    Raises:
        Refused: a folder that holds something else, or the batches of another evaluation; a file; no parent folder.
    """

    def __init__(self, path: str | os.PathLike[str], mark: str) -> None:
        what = "evaluation (other prompts, model, weights, options or version)"
        said = {"format": FORMAT, "fingerprint": mark}
        self.folder: Path = kept_folder(path, "evaluation.json", said, what)
        self.mark: str = mark

    def read_into(self, kept: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fill in what is finished; bool `[prompt]`, which prompts that are.

        Raises:
            Refused: a damaged file, or one of another evaluation.
        """
        done = np.zeros(len(kept["log_probability"]), dtype=bool)
        for file in sorted(self.folder.glob("prompt-*.npz")):
            at, values = _read(file, self.mark, kept)
            for key, of_batch in values.items():
                kept[key][at] = of_batch
            done[at] = True
        return done

    def write(self, at: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Keep the values of these prompts."""
        content = io.BytesIO()
        np.savez(content, **{"fingerprint": np.array(self.mark), "prompt": at, **values})  # pyright: ignore[reportArgumentType]  # its stub takes keywords for flags
        write_whole(self.folder / f"prompt-{at.min():06d}.npz", content.getbuffer())


def _read(file: Path, mark: str, kept: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The prompts of a finished batch and their values, with the shapes that `kept` has."""
    try:
        with file.open("rb") as content, np.load(content) as found:
            of, at, values = str(found["fingerprint"]), found["prompt"], {key: found[key] for key in kept}
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise anything for a damaged file
        said = str(error) or type(error).__name__
        raise Refused(
            f"{str(file)!r} is damaged: delete it, and its prompts are run anew ({said})"
        ) from error
    prompts = np.arange(len(kept["log_probability"]))
    sound = at.ndim == 1 and at.dtype.kind == "i" and set(at.tolist()) <= set(prompts.tolist())
    for key, of_batch in values.items():
        wanted = (len(at), *kept[key].shape[1:]) if sound else None
        sound = of_batch.shape == wanted and of_batch.dtype.kind == "f"
    if not sound or of != mark:
        why = "does not hold what was written to it" if of == mark else "is of another evaluation"
        raise Refused(f"{str(file)!r} {why}: delete it, and its prompts are run anew")
    return at, values
