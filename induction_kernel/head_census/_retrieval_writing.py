"""What a model writes after prompts, greedily, in whole runs: several tokens are guessed and tested in one run.

A guess is what followed the latest token where it stood before, first of all in the answer that is looked for. Every
token is the one with the largest logit, as if written one at a time (speculative decoding with greedy choice, Leviathan
et al. 2023); a wrong guess costs time alone. No cache of keys and values is needed, so every architecture can be run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model._anatomy import Model, sizes
from ..model._outputs import n_outputs
from ..model._runs import batches, progress_bar, stream
from ..prompts._prompts import Prompts, decoded, pad

__all__ = ["written"]

GUESSED = 8  # tokens guessed at a time, but for the answer


def written(
    model: Model,
    prompts: Prompts,
    answers: Sequence[Sequence[int]],
    *,
    most: int,
    batch_size: int | None,
    progress: bool,
) -> list[list[int]]:
    """What the model writes after each prompt, as ids: up to a line break or the end-of-text token, both included.

    Args:
        model: a model that predicts next tokens.
        prompts: right-padded.
        answers: the first guess for each prompt.
        most: at most so many tokens, at least 1.
        batch_size: prompts per run; None to fit the memory.
        progress: a bar if it takes longer than two seconds.
    """
    starts = [row[:n] for row, n in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)]
    rows: list[list[int]] = [[] for _ in starts]
    writing = list(range(len(starts)))
    width, size = prompts.tokens.shape[1] + most, sizes(model)
    cost = max(8 * size.d_model, size.n_heads * width, n_outputs(model) * most // width)
    with progress_bar(len(starts), progress=progress, unit="prompt", what="writing") as bar:
        while writing:
            for part in batches(len(writing), width, batch_size=batch_size, cost=cost):
                at = writing[part]
                guesses = [_guess(starts[i], rows[i], answers[i])[: most - len(rows[i]) - 1] for i in at]
                best = _best(model, [starts[i] + rows[i] for i in at], guesses)
                for i, guess, chosen in zip(at, guesses, best, strict=True):
                    rows[i] += _kept(prompts, guess, chosen)
            done = [i for i in writing if len(rows[i]) >= most or _ends(prompts, rows[i][-1])]
            writing = [i for i in writing if i not in done]
            bar.update(len(done))
    return rows


def _guess(start: list[int], row: list[int], answer: Sequence[int]) -> list[int]:
    """Tokens that may follow: the answer, the rest of it, or what followed the latest token earlier."""
    if not row:
        return list(answer)
    if row[-1] in answer:
        return list(answer[list(answer).index(row[-1]) + 1 :])
    before = start + row[:-1]
    places = [i for i, token in enumerate(before) if token == row[-1]]
    return before[places[-1] + 1 :][:GUESSED] if places else []


def _best(model: Model, texts: list[list[int]], guesses: list[list[int]]) -> list[list[int]]:
    """The token with the largest logit after each text, and after each token guessed."""
    tokens, lengths = pad([text + guess for text, guess in zip(texts, guesses, strict=True)])
    reads = max(map(len, guesses)) + 1
    first = torch.tensor([len(text) - 1 for text in texts])
    at = (first[:, None] + torch.arange(reads)).minimum(lengths[:, None] - 1)

    def ignore(site: str, layer: int, activation: Tensor) -> None:
        pass

    logits = stream(model, tokens, ignore, {}, lengths=lengths, at=at)
    assert logits is not None  # `at` asks for them
    best = logits.argmax(-1).tolist()
    return [row[: len(guess) + 1] for row, guess in zip(best, guesses, strict=True)]


def _kept(prompts: Prompts, guess: list[int], best: list[int]) -> list[int]:
    """The tokens of `best` up to the first that was not guessed, or that ends the text."""
    kept: list[int] = []
    for token, guessed in zip(best, [*guess, None], strict=True):
        kept.append(token)
        if token != guessed or _ends(prompts, token):
            break
    return kept


def _ends(prompts: Prompts, token: int) -> bool:
    """Whether a token ends an answer: the end-of-text token, or one with a line break."""
    if prompts.tokenizer is None:
        return False
    return token == prompts.tokenizer.eos_token_id or "\n" in decoded(prompts.tokenizer, [token])
