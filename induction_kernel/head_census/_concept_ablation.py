"""Lists copied and translated with some heads removed: what token-copying and concept-copying heads are needed for.

A list of ten words, and the list again (the same words, or their English) up to the last one, whose first token is
read. Nonsense can only be copied token by token, a translation only by its meaning (Feucht et al. 2025, section 4, and
its released code: `Vocab:`, mean ablation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ..heads._choice import random_sets
from ..heads._names import Head, HeadLike
from ..interventions._ablation import groups_removed
from ..interventions._compared_sets import checked_heads
from ..interventions._edits_from_runs import Mean
from ..interventions._intervention import Intervention
from ..metrics._standard import probability
from ..model._anatomy import Model, check_model, sizes
from ..model._runs import progress_bar
from ..prompts._prompts import Prompts, pad, real_positions
from ..prompts._prose import ordinary_text
from ..prompts._text import encode, knows, start_token
from ._concept_prompts import line_break, shuffled_text
from ._concept_words import LONG_WORDS, TRANSLATED

__all__ = ["list_ablation", "list_prompts"]

TASKS = ("nonsense", "words", *TRANSLATED)


def list_ablation(
    model: Model,
    token_heads: HeadLike | Iterable[HeadLike],
    concept_heads: HeadLike | Iterable[HeadLike],
    *,
    tasks: Sequence[str] | None = None,
    prompts: int = 32,
    words: int = 10,
    n_controls: int = 10,
    control: str = "same layer",
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The probability of copying or translating a list's last word without either set of heads, or random ones.

    Choose the heads with another seed than this. Removed heads write their mean over ordinary text
    (`prompts.ordinary_text`), positions but the first.

    Args:
        model: any TransformerLens model; for tasks of words, with a tokenizer that reads them.
        token_heads: heads that copy tokens, for instance the top of `token_copying`.
        concept_heads: heads that copy words, for instance the top of `concept_copying`.
        tasks: some of "nonsense" (two random tokens to a word, copied), "words" (English words, copied), "French",
            "German" and "Spanish" (translated into English); None for all that the tokenizer can write.
        prompts: lists for each task.
        words: words in a list.
        n_controls: sets of random heads for each of the two sets: as many in each layer as it has, without either.
        control: where random heads come from: "same layer" or "any layer".
        seed: of all draws.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset of the probability of the right first token: `value[row, mode, prompt]`, rows being tasks and modes
        "without token heads" and "without concept heads"; `baseline[row, prompt]` of the untouched model;
        `random[row, draw, prompt]` without random heads; `effect` = value - baseline, `random_effect` likewise. The
        coordinate `like[draw]` is the mode that a random set is the control of.

    Raises:
        Refused: unknown tasks; heads the model does not have; options out of their range; lists too long for the
            context.
        NotDefined: a task asked for that the tokenizer cannot write, or none that it can; a layer with too few other
            heads.

    Source: Feucht et al. 2025, section 4; released code, `vocablist_ablation.py` (the first token of the answer, after
        a list of 10; synonyms, antonyms and capitals are left out here).
    """
    check_model(model)
    seed = checked_seed(seed)
    for name, value in (("prompts", prompts), ("words", words), ("n_controls", n_controls)):
        if not is_whole(value) or value < 1:
            raise Refused(f"wanted {name} >= 1, got {value!r}")
    sets = {
        key: checked_heads(model, each) for key, each in (("token", token_heads), ("concept", concept_heads))
    }
    made = _prompts_of(model, tasks, prompts, words, seed)
    options: dict[str, Any] = {
        "n": n_controls,
        "exclude": [head for each in sets.values() for head in each],
        "seed": seed,
    }
    drawn = {key: random_sets(model, each, control=control, **options) for key, each in sets.items()}
    removed = [*sets.values(), *(heads for each in drawn.values() for heads in each)]
    edit = Mean(ordinary_text(model, seed=seed), by_position=False)
    intervention, found = Intervention(edit, "z", probability, None), []
    attrs: dict[str, Any] = {}
    with progress_bar(len(made), progress=progress, unit="task") as bar:
        for each in made.values():
            result, attrs = groups_removed(
                model, each, removed, intervention, max_tokens=max_tokens, progress=False
            )
            found.append((result.values, result.baseline))
            bar.update()
    out = _labelled(list(made), found, sets, attrs | {"seed": seed, "control": control, "words": words})
    like = [mode for mode, each in zip(out["mode"].values, drawn.values(), strict=True) for _ in each]
    return out.assign_coords(like=("draw", like))


def _prompts_of(model: Model, tasks: Any, prompts: int, words: int, seed: int) -> dict[str, Prompts]:
    """Task -> prompts, for the tasks asked for; without a choice, for all that can be written."""
    asked = TASKS if tasks is None else tuple(tasks)
    unknown = [each for each in asked if each not in TASKS]
    if isinstance(tasks, str) or unknown or not asked:
        raise Refused(f"wanted tasks out of {', '.join(TASKS)}, got {tasks!r}")
    made: dict[str, Prompts] = {}
    for task in asked:
        try:
            made[task] = list_prompts(model, task, prompts=prompts, words=words, seed=seed)
        except NotDefined:
            if tasks is not None:
                raise
    if not made:
        raise NotDefined(f"none of {', '.join(TASKS)} can be written with this model's vocabulary")
    return made


def list_prompts(model: Model, task: str, *, prompts: int = 32, words: int = 10, seed: int = 0) -> Prompts:
    """Prompts of one task of `list_ablation`, with the right first token and that of another word as answers.

    Headings, numbers and line breaks that the tokenizer cannot write are left out.

    Raises:
        Refused: lists longer than the context.
        NotDefined: no tokenizer for words, or one that knows too few of them, or tells too few apart by first tokens.
    """
    generator, start = torch.Generator().manual_seed(seed), start_token(model, None)
    pairs = _pairs(model, task, generator, start, max(prompts * words, words + 1))
    if len(pairs) <= words:
        raise NotDefined(f"the tokenizer can write {len(pairs)} words of {task}, wanted more than {words}")
    rows, answers = [], []
    for _ in range(prompts):
        *listed, extra = (
            pairs[at] for at in torch.randperm(len(pairs), generator=generator)[: words + 1].tolist()
        )
        rows.append(start.tolist() + _list(model, task, listed))
        answers.append([listed[-1][1][0], extra[1][0]])
    tokens, lengths = pad(rows)
    if tokens.shape[1] > sizes(model).n_ctx:
        raise Refused(
            f"lists of {words} words have {tokens.shape[1]} tokens, the context {sizes(model).n_ctx}: use fewer"
        )
    scored = real_positions(tokens, lengths)
    return Prompts(
        tokens,
        lengths,
        scored,
        answers=torch.tensor(answers),
        bos=len(start) == 1,
        tokenizer=getattr(model, "tokenizer", None),
    )


def _list(model: Model, task: str, pairs: Sequence[tuple[list[int], list[int]]]) -> list[int]:
    """The ids of a list, and of the list again up to the number of its last word."""
    heading, again = _headings(task)
    end, ids = line_break(model), list[int]()
    for side, said in enumerate((heading, again)):
        ids += [*_written(model, said), *end]
        for number, pair in enumerate(pairs, 1):
            ids += [*_written(model, f"{number}."), *pair[side], *end]
    return ids[: len(ids) - len(pairs[-1][1]) - len(end)]


def _written(model: Model, text: str) -> list[int]:
    """The ids of a heading or a number; none if the tokenizer cannot write it."""
    known = getattr(model, "tokenizer", None) is not None and knows(model, text)
    return encode(model, text) if known else []


def _headings(task: str) -> tuple[str, str]:
    if task == "nonsense":
        return "Vocab:", "Vocab:"
    return (
        ("English vocab:", "English vocab:")
        if task == "words"
        else (f"{task} vocab:", "English translation:")
    )


def _pairs(
    model: Model, task: str, generator: torch.Generator, start: torch.Tensor, n: int
) -> list[tuple[list[int], list[int]]]:
    """Ids of each listed word and of its answer; words that begin alike in both languages are left out."""
    if task == "nonsense":
        pool = shuffled_text(model, start)
        if len(pool) < 2:
            return []
        rows = [pool[torch.randperm(len(pool), generator=generator)[:2]].tolist() for _ in range(n)]
        return [(row, row) for row in rows]
    given = [(word, word) for word in LONG_WORDS] if task == "words" else TRANSLATED[task]
    known = [(f" {a}", f" {b}") for a, b in given if knows(model, f" {a} {b}")]
    found = [(encode(model, a), encode(model, b)) for a, b in known]
    return found if task == "words" else [(a, b) for a, b in found if a[0] != b[0]]


def _labelled(
    tasks: list[str],
    found: list[tuple[np.ndarray, np.ndarray]],
    sets: dict[str, list[Head]],
    attrs: dict[str, Any],
) -> xr.Dataset:
    values = np.stack([value for value, _ in found])
    baseline = np.stack([each for _, each in found])
    n, dims = len(sets), ("row", "mode", "prompt")
    variables = {
        "value": (dims, values[:, :n]),
        "effect": (dims, values[:, :n] - baseline[:, None]),
        "baseline": (("row", "prompt"), baseline),
        "random": (("row", "draw", "prompt"), values[:, n:]),
        "random_effect": (("row", "draw", "prompt"), values[:, n:] - baseline[:, None]),
    }
    coords = {"row": tasks, "mode": [f"without {each} heads" for each in sets]}
    coords |= {"prompt": np.arange(baseline.shape[1]), "draw": np.arange(values.shape[1] - n)}
    heads = {f"{key}_heads": " ".join(map(str, each)) for key, each in sets.items()}
    said = {
        "method": "list_ablation",
        "title": "lists copied and translated without heads that copy tokens, or concepts",
        "paper": "Feucht et al. 2025, section 4",
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs | said | heads)
