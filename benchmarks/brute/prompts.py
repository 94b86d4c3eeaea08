"""Random prompts in every form they come in, and what each form means: plain lists of ids, one a prompt."""

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import induction_kernel as ik
from induction_kernel.prompts import Demonstrations, FewShotPrompts

from .families import SPECIAL, WORDS


@dataclass(frozen=True)
class Asked:
    """What is passed to a verb, and what it means."""

    given: Any
    said: str
    rows: list[list[int]]  # ids, without padding
    scored: list[list[int]]  # the positions that count
    bos: bool
    control: list[list[int]] | None = None
    answers: list[tuple[int, int]] | None = None
    demonstrations: list["Shots"] | None = None


@dataclass(frozen=True)
class Shots:
    """The demonstrations of one prompt."""

    spans: list[tuple[int, int]]
    labels: list[int]  # positions
    classes: list[int]
    target: int
    label_ids: list[int]
    words: list[list[int]] | None = None  # of each, the positions of x and y alone


def drawn_prompts(draw: random.Random, model: Any, kind: str = "any") -> Asked:
    """Prompts of a kind: "any", "repeated" (with a matched control), "shots"."""
    if kind == "repeated":
        return repeated(draw, model)
    if kind == "shots":
        return shots(draw, model)
    forms = ["tensor", "tensor", "one row", "numpy", "lists", "Prompts", "Prompts", "Prompts"]
    if model.tokenizer is not None:
        forms += ["string", "strings", "padded left", "padded right", "with mask"]
    form = draw.choice(forms)
    longest = draw.choice([1, 2, 5, model.cfg.n_ctx, *range(3, model.cfg.n_ctx)])
    longest = min(longest, model.cfg.n_ctx - (form in ("string", "strings")))
    n = 1 if form in ("one row", "string") else draw.randint(1, 4)
    ragged = form not in ("tensor", "one row", "numpy", "string")
    rows = [words(draw, draw.randint(1, longest) if ragged else longest) for _ in range(n)]
    return {
        "tensor": lambda: tensor(torch.tensor(rows), "tensor"),
        "one row": lambda: tensor(torch.tensor(rows[0]), "one row"),
        "numpy": lambda: tensor(torch.tensor(rows).numpy(), "numpy"),
        "lists": lambda: Asked(rows, "lists", rows, [list(range(len(row))) for row in rows], False),
        "Prompts": lambda: ragged_prompts(draw, rows, model.cfg.n_ctx + 2),
        "string": lambda: text(model, rows),
        "strings": lambda: text(model, rows, many=True),
    }.get(form, lambda: padded(draw, model, rows, form))()


def words(draw: random.Random, length: int) -> list[int]:
    """Ids of words, some of them again."""
    few = draw.sample(range(len(SPECIAL), len(SPECIAL) + len(WORDS)), draw.randint(2, 30))
    return [draw.choice(few) for _ in range(length)]


def tensor(given: Any, form: str) -> Asked:
    """Tokens of one length; none of them is BOS or padding."""
    rows = torch.as_tensor(given).reshape(-1, given.shape[-1]).tolist()
    return Asked(given, form, rows, [list(range(len(row))) for row in rows], False)


def ragged_prompts(draw: random.Random, rows: list[list[int]], widest: int) -> Asked:
    """Prompts made by hand: any padding, any positions scored, answers or none."""
    tokens, lengths = filled(draw, rows, widest)
    scored = [sorted(draw.sample(range(len(row)), draw.randint(1, len(row)))) for row in rows]
    if draw.random() < 0.5:
        scored = [list(range(len(row))) for row in rows]
    marks = torch.zeros(tokens.shape, dtype=torch.bool)
    for p, positions in enumerate(scored):
        marks[p, positions] = True
    return Asked(ik.Prompts(tokens, lengths, marks), "Prompts", rows, scored, False)


def filled(draw: random.Random, rows: list[list[int]], widest: int) -> tuple[Tensor, Tensor]:
    """Right-padded with anything at all, up to a width."""
    longest = max(map(len, rows))
    width = max(longest, min(longest + draw.choice([0, 0, 2]), widest))
    most = len(SPECIAL) + len(WORDS)
    tokens = [[*row, *(draw.randrange(most) for _ in range(width - len(row)))] for row in rows]
    return torch.tensor(tokens), torch.tensor([len(row) for row in rows])


def text(model: Any, rows: list[list[int]], *, many: bool = False) -> Asked:
    """Strings mean what the model's own `to_tokens` makes of each alone."""
    texts = [model.tokenizer.decode(row) for row in rows]
    means = [model.to_tokens(each)[0].tolist() for each in texts]
    bos = model.tokenizer.bos_token_id is not None and all(
        row[0] == model.tokenizer.bos_token_id for row in means
    )
    scored = [list(range(len(row))) for row in means]
    return Asked(texts if many else texts[0], "strings" if many else "string", means, scored, bos)


def padded(draw: random.Random, model: Any, rows: list[list[int]], form: str) -> Asked:
    """Padding on either side, as a tokenizer makes it; with or without its attention mask."""
    side = draw.choice(["left", "right"]) if form == "with mask" else form.split()[1]
    pad, width = model.tokenizer.pad_token_id, max(map(len, rows)) + draw.choice([0, 0, 2])
    fills = [[pad] * (width - len(row)) for row in rows]
    both = zip(rows, fills, strict=True)
    tokens = torch.tensor([row + fill if side == "right" else fill + row for row, fill in both])
    scored = [list(range(len(row))) for row in rows]
    given: Any = tokens
    if form == "with mask":
        given = {"input_ids": tokens, "attention_mask": (tokens != pad).long()}
    return Asked(given, f"{form} {side}", rows, scored, False)


def repeated(draw: random.Random, model: Any) -> Asked:
    """Repeated random tokens with their control, as the package makes them, or made here."""
    n, copies = draw.randint(1, 5), draw.choice([2, 2, 3, 4])
    most = (model.cfg.n_ctx - 1) // copies
    bos = model.tokenizer is not None and model.tokenizer.bos_token_id is not None
    low = draw.randint(2, most)
    high = low if draw.random() < 0.4 else draw.randint(low, most)
    given = ik.repeated_tokens(
        model, period=(low, high), repeats=copies, prompts=n, seed=draw.randrange(100), bos=bos
    )
    return of_prompts(given, f"repeated x{copies}")


def shots(draw: random.Random, model: Any) -> Asked:
    """Few-shot prompts: of random tokens with spans of their own, ragged; or of words, where there is a tokenizer."""
    n, k = draw.randint(1, 4), draw.randint(2, 3)
    most = max(1, (model.cfg.n_ctx - 2) // 4)
    if model.tokenizer is not None and draw.random() < 0.6 and most >= k:
        return worded_shots(
            draw, model, [draw.randint(k, min(most, 6)) for _ in range(n)], ["yes", "no", "so"][:k]
        )
    return of_prompts(made_shots(draw, n, k, model.cfg.n_ctx), "shots by hand")


def worded_shots(draw: random.Random, model: Any, counts: list[int], labels: list[str]) -> Asked:
    """`few_shot_prompts` on words that are one token each; where everything lies is worked out here."""
    k, colon, mark = (
        len(labels),
        draw.random() < 0.5,
        draw.random() < 0.5 and 4 * max(counts) + 3 <= model.cfg.n_ctx,
    )
    shown = [[(draw.choice(WORDS), y % k) for y in draw.sample(range(count), count)] for count in counts]
    asked = [(draw.choice(WORDS), draw.randrange(k)) for _ in counts]
    given = ik.few_shot_prompts(
        model, shown, asked, template="{x} : {y}" if colon else "{x} {y}", labels=labels,
        separator=" ; " if mark else " ",
    )  # fmt: skip
    ids = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    begins_so = model.cfg.default_prepend_bos and model.tokenizer.bos_token_id is not None
    rows, where = [], []
    for of_prompt, (query, target) in zip(shown, asked, strict=True):
        row, spans, at = [model.tokenizer.bos_token_id] * begins_so, [], []
        for word, y in of_prompt:
            begin = len(row)
            row += [ids[word], *[ids[":"]] * colon, ids[labels[y]]]
            spans.append((begin, len(row)))
            at.append(len(row) - 1)
            row += [ids[";"]] * mark
        rows.append([*row, ids[query], *[ids[":"]] * colon])
        words = [[begin, label] for (begin, _), label in zip(spans, at, strict=True)]
        where.append(
            Shots(spans, at, [y for _, y in of_prompt], target, [ids[each] for each in labels], words)
        )
    scored = [[len(row) - 1] for row in rows]
    return Asked(given, "few_shot", rows, scored, bool(begins_so), demonstrations=where)


def made_shots(draw: random.Random, n: int, k: int, n_ctx: int) -> Any:
    label_ids, rows, found = [5, 6, 7][:k], [], []
    for _ in range(n):
        row, of_row = [], []
        for _ in range(draw.randint(1, max(1, (n_ctx - 2) // 4))):
            begin, y = len(row), draw.randrange(k)
            row += words(draw, draw.randint(1, 2))
            of_row.append((begin, len(row) + 1, len(row), y))
            row += [label_ids[y], 3]
        rows.append((row + words(draw, 2))[-n_ctx:] if len(row) + 2 > n_ctx else row + words(draw, 2))
        found.append(of_row)
    tokens, lengths = filled(draw, rows, n_ctx)
    width = max(map(len, found))
    table = torch.tensor([[*each, *([(0, 0, 0, 0)] * (width - len(each)))] for each in found])
    mask = torch.tensor([[True] * len(each) + [False] * (width - len(each)) for each in found])
    target = torch.tensor([draw.randrange(k) for _ in range(n)])
    shown = Demonstrations(
        table[..., :2], table[..., 2], table[..., 3], mask, torch.tensor(label_ids), target, ("a", "b", "c")[:k]
    )  # fmt: skip
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    return FewShotPrompts(tokens, lengths, scored, demonstrations=shown)


def of_prompts(given: Any, form: str) -> Asked:
    """What Prompts mean: what their own description says."""
    lengths, shown = given.lengths.tolist(), getattr(given, "demonstrations", None)

    def cut(tokens: Tensor) -> list[list[int]]:
        return [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]

    def of_prompt(p: int) -> Shots:
        real = [i for i in range(shown.mask.shape[1]) if bool(shown.mask[p, i])]
        spans = [tuple(shown.spans[p, i].tolist()) for i in real]
        labels, classes = ([int(each[p, i]) for i in real] for each in (shown.label_positions, shown.classes))
        return Shots(spans, labels, classes, int(shown.target[p]), shown.label_ids.tolist())

    return Asked(
        given, form, cut(given.tokens),
        [[i for i in range(length) if bool(given.scored[p, i])] for p, length in enumerate(lengths)],
        given.bos,
        None if given.control is None else cut(given.control),
        None if given.answers is None else [tuple(each) for each in given.answers.tolist()],
        None if shown is None else [of_prompt(p) for p in range(len(lengths))],
    )  # fmt: skip


def answered(draw: random.Random, model: Any, asked: Asked) -> Asked:
    """With a right and a wrong answer for each prompt."""
    answers = [tuple(draw.sample(range(len(SPECIAL), len(SPECIAL) + len(WORDS)), 2)) for _ in asked.rows]
    return replace(asked, given=ik.prompts.with_answers(model, asked.given, answers), answers=answers)


def another(draw: random.Random, model: Any, asked: Asked, *, longer: int = 0, n: int | None = None) -> Asked:
    """Other prompts of the same lengths (or longer), each different from some position on; ragged padding."""
    rows = []
    for i in range(len(asked.rows) if n is None else n):
        row = list(asked.rows[i % len(asked.rows)])
        begin = draw.randrange(len(row) + 1)
        rows.append(row[:begin] + words(draw, len(row) - begin + longer))
    tokens, lengths = filled(draw, rows, model.cfg.n_ctx + 2)
    scored = [list(range(len(row))) for row in rows]
    marks = torch.arange(tokens.shape[1]) < lengths[:, None]
    return Asked(ik.Prompts(tokens, lengths, marks), "other", rows, scored, False)
