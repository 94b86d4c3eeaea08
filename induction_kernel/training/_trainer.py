"""`train`: a small transformer trained so that its heads can be watched as they form.

AdamW with warm-up and decay, on the synthetic language (`_language`) or on text files (`_texts`), by a recipe. The
default recipe and a seed give the embedded model, in minutes on one core. A run in a folder may be interrupted at any
moment, even by `kill -9`: called again, it continues and ends with the same weights (`_run_folder`).

Runs repeat exactly only on the same machine, number of threads and version of torch: elsewhere sums may round
differently, and training amplifies that. It is not meant for large models: measure checkpoints from any other trainer
with `over_checkpoints`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._given import checked_seed
from ..errors import Refused
from ..loading._build import build
from ..loading._sources import load
from ..model._anatomy import Model
from ..stores import checked_folder, only_one
from ._language import batch
from ._logging import scores
from ._network import Weights, forward, heads_in_use, initial_weights, losses
from ._recipe import Recipe
from ._run_folder import State, begin, finish, write_checkpoint, write_state
from ._texts import Corpus, read_corpus
from ._vocabulary import read_tokenizer, write_tokenizer

__all__ = ["Run", "fit", "train"]

SAVE_EVERY = 100
"""Steps between two states on disk: at most this many are repeated after an interruption."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training run.

    Attributes:
        recipe: the recipe of the run.
        seed: of its initial weights and its rows.
        weights: the final weights, float32.
        log: one dict per checkpoint: step, tokens seen, losses in nats, scores by layer and head (see `_logging`).
    """

    recipe: Recipe
    seed: int
    weights: Weights
    log: list[dict[str, Any]]


def train(
    config: Recipe | None = None,
    *,
    text: str | Path | Iterable[str | Path] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Model:
    """Trains the model of a recipe and returns it as a TransformerLens model with its tokenizer.

    Args:
        config: the recipe; `Recipe()`, that of the embedded model, by default.
        text: text files (UTF-8) to learn tokenizer and model from, for a recipe with `pieces`.
        seed: of the initial weights and of the rows; the same seed gives the same model on the same machine.
        folder: where to write checkpoints and model (see `_run_folder`); an unfinished run of the same recipe, seed and
            texts in it continues where it stopped. None writes nothing.
        progress: show a progress bar.

    Returns:
        The model in evaluation mode: a `HookedTransformer` under TransformerLens 3, a Bridge under 4. Smeared keys
        are a permanent hook on it.

    Raises:
        Refused: a recipe for texts without texts, or the other way round; texts that cannot be read or are too short; a
            folder that is a file, cannot be written to, holds a trained model or another run, or is in use by another
            training process; a full disk.
        TypeError: not a recipe.
    """
    recipe = config or Recipe()
    if text is not None and folder is None:
        raise Refused("a model trained on texts has its own tokenizer: name a folder to store it in")
    run = fit(recipe, text=text, seed=seed, folder=folder, progress=progress)
    if folder is not None:
        return load(Path(folder))
    return build(recipe.architecture, run.weights, tokenizer=read_tokenizer(), name=recipe.name)


def fit(
    recipe: Recipe,
    *,
    text: str | Path | Iterable[str | Path] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Trains without building a TransformerLens model; arguments and errors as in `train`."""
    if not isinstance(recipe, Recipe):
        raise TypeError(f"wanted a Recipe, got {type(recipe).__name__}: {recipe!r:.80}")
    if (text is None) != (recipe.pieces is None):
        raise Refused(
            "a recipe with pieces needs texts, one without is for the synthetic language and takes none; got "
            f"pieces={recipe.pieces} and {'no text' if text is None else 'text'}"
        )
    corpus = None if text is None else read_corpus(text, recipe)
    keeper = _Keeper(recipe, seed, corpus, None if folder is None else Path(folder))
    alone = nullcontext() if folder is None else only_one(checked_folder(folder, parents=True))
    # Training needs gradients; the caller's setting is restored.
    with alone, torch.enable_grad():
        state = keeper.begun()
        return _trained(keeper, _first(recipe, seed) if state is None else state, progress)


def _first(recipe: Recipe, seed: int) -> State:
    weights = initial_weights(recipe, seed)
    none = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    return State(0, weights, none, dict(np.random.default_rng(checked_seed(seed)).bit_generator.state), [])


def _trained(keeper: _Keeper, state: State, progress: bool) -> Run:
    recipe, weights = keeper.recipe, state.weights
    parameters = [weight.requires_grad_() for weight in weights.values()]
    optimiser = _optimiser(recipe, parameters, state)
    rng = np.random.default_rng()
    rng.bit_generator.state = state.rng
    log = list(state.log)
    with tqdm(
        total=recipe.steps, initial=state.step, desc=recipe.name, unit="step", disable=not progress
    ) as bar:
        for step in range(state.step, recipe.steps + 1):
            if step in recipe.kept and (not log or log[-1]["step"] < step):
                tokens = step * recipe.batch_size * recipe.context
                log.append({"step": step, "tokens": tokens} | scores(weights, recipe, keeper.corpus))
                keeper.checkpoint(log, weights)
                bar.set_postfix(icl=log[-1]["icl_score"], repeat=log[-1]["loss_second_copy"])
            if step % SAVE_EVERY == 0 and step > state.step:
                moments = _moments(optimiser, weights)
                keeper.state(State(step, weights, moments, dict(rng.bit_generator.state), log))
            if step < recipe.steps:
                _update(optimiser, parameters, weights, keeper.rows(rng), recipe, step)
                bar.update()
    final = {name: weight.detach().clone() for name, weight in weights.items()}
    keeper.finish(final)
    return Run(recipe=recipe, seed=keeper.seed, weights=final, log=log)


@dataclass(frozen=True, eq=False)
class _Keeper:
    """Source of training rows and store of results, which are dropped without a folder."""

    recipe: Recipe
    seed: int
    corpus: Corpus | None
    folder: Path | None

    @property
    def texts(self) -> str:
        if self.corpus is None:
            return ""
        digest = hashlib.sha256(self.corpus.tokenizer.encode())
        for tokens in (self.corpus.training, self.corpus.held_back):
            digest.update(tokens.tobytes())
        return digest.hexdigest()

    def begun(self) -> State | None:
        if self.folder is None:
            return None
        state = begin(self.folder, self.recipe, self.seed, self.texts)
        write = write_tokenizer if self.corpus is None else self.corpus.write_tokenizer
        write(self.folder)
        return state

    def rows(self, rng: np.random.Generator) -> Tensor:
        n, length = self.recipe.batch_size, self.recipe.context
        if self.corpus is None:
            return torch.from_numpy(batch(rng, n, length, mix=self.recipe.mix))
        return torch.from_numpy(self.corpus.rows(rng, n, length))

    def checkpoint(self, log: list[dict[str, Any]], weights: Weights) -> None:
        if self.folder is not None:
            write_checkpoint(self.folder, self.recipe, self.seed, self.texts, log, weights)

    def state(self, state: State) -> None:
        if self.folder is not None:
            write_state(self.folder, state)

    def finish(self, weights: Weights) -> None:
        if self.folder is not None:
            finish(self.folder, weights)


def _optimiser(recipe: Recipe, parameters: list[Tensor], state: State) -> torch.optim.AdamW:
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    for parameter, (mean, square) in zip(parameters, state.moments.values(), strict=True):
        optimiser.state[parameter] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": mean,
            "exp_avg_sq": square,
        }
    return optimiser


def _moments(optimiser: torch.optim.AdamW, weights: Weights) -> dict[str, tuple[Tensor, Tensor]]:
    kept = {name: optimiser.state[weight] for name, weight in weights.items()}
    return {name: (each["exp_avg"], each["exp_avg_sq"]) for name, each in kept.items()}


def _update(
    optimiser: torch.optim.Optimizer,
    parameters: list[Tensor],
    weights: Weights,
    rows: Tensor,
    recipe: Recipe,
    step: int,
) -> None:
    start = recipe.decay_from * recipe.steps
    left = min(1.0, (recipe.steps - step) / max(1.0, recipe.steps - start))
    rate = min(1.0, (step + 1) / max(1, recipe.warmup)) * (recipe.last_rate + (1 - recipe.last_rate) * left)
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * rate
    optimiser.zero_grad()
    loss = losses(forward(weights, rows)[0], rows).mean()
    if recipe.sparsity:
        loss = loss + recipe.sparsity * heads_in_use(weights)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
    optimiser.step()
