"""Training checkpoints of a source, and the tokens seen at each.

Both come from a run's log or TransformerLens' lists; no weights are loaded. `training` measures at the checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._given import is_whole
from ..errors import NotDefined, Refused
from ._embedded import checkpoint_steps, read_recipe
from ._hub import hub_checkpoints
from ._names import TINY, as_path, is_embedded

__all__ = ["History", "training_history"]


@dataclass(frozen=True)
class History:
    """The training checkpoints of a source.

    Attributes:
        name: of the source, without its folders.
        where: the argument for `load`, from any working directory.
        tokens: training step (on the hub: TransformerLens' label) -> tokens seen until then; NaN if unknown.
        said: what identifies this source, wherever it is stored.
        log: step -> the run's log entry.
    """

    name: str
    where: str | Path
    tokens: Mapping[int, float]
    said: Mapping[str, Any]
    log: Mapping[int, Any]

    def steps(self, wanted: Iterable[int] | None = None) -> list[int]:
        """The training steps that are wanted, ascending; all by default.

        Raises:
            TypeError: not a collection of steps. Refused: an empty one, not whole numbers, or a step without
                checkpoint.
        """
        if wanted is None:
            return sorted(self.tokens)
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            raise TypeError(f"wanted checkpoints as training steps, got {wanted!r:.80}")
        steps = list(wanted)
        if not steps or not all(is_whole(step) for step in steps):
            raise Refused(
                f"wanted checkpoints as at least one training step, each a whole number, got {steps!r:.80}"
            )
        unknown = sorted(set(steps) - set(self.tokens))
        if unknown:
            there = ", ".join(map(str, sorted(self.tokens)[:40]))
            raise Refused(f"{self.name} has no checkpoint of step {unknown[0]}: there are {there}")
        return sorted({int(step) for step in steps})


def training_history(source: str | Path) -> History:
    """The checkpoints that a source should have: those of its log, if it has one.

    Args:
        source: a run's folder, "tiny", or a name on the hub, which is contacted only for the list of one of
            TransformerLens' early models.

    Raises:
        Refused: nothing of this name, a damaged recipe. NotDefined: a source without training checkpoints.
        ConnectionError: as `hub_checkpoints`.
    """
    path = TINY if source == "tiny" else as_path(source)
    if path is None:
        name, tokens = hub_checkpoints(str(source))
        return History(name, name, tokens, {"hub": name}, {})
    if not is_embedded(path):
        raise NotDefined(
            f"{path} has no training checkpoints: wanted a folder that `induction-kernel train` wrote"
        )
    recipe, path = read_recipe(path), path.resolve()
    log = {int(entry["step"]): entry for entry in recipe.get("checkpoints", [])}
    tokens = {step: float(entry["tokens"]) for step, entry in log.items()}
    tokens = tokens or dict.fromkeys(checkpoint_steps(path), float("nan"))
    if not tokens:
        raise NotDefined(f"{path} has no training checkpoints")
    said = {key: value for key, value in recipe.items() if key not in ("checkpoints", "final", "versions")}
    name = "tiny" if path == TINY else path.name
    return History(name, "tiny" if path == TINY else path, dict(sorted(tokens.items())), said, log)
