"""`few_shot_prompts`: write demonstrations and a query with a template, tokenise them, find every label's position.

These are the prompts of in-context classification (Han et al. 2025, section 5: lines `Input: <x> Output: <Label>`). One
prompt becomes tokens and label positions in `_row`:

1. `Template.write` (in `_template`) writes the text, and says at which character each demonstration, its x and its
   label begin.
2. `tokenised` (in `_text`) tokenises the text as a whole, and says which characters each token stands for.
3. The label's position is that of the first token that reaches beyond the character where the label begins.

`_demonstrations` below puts the positions of all prompts into the tensors of a `Demonstrations`. No data set is read
here: see `data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NotDefined, Refused
from ..model._anatomy import Model, sizes
from ._demonstrations import Demonstrations
from ._examples import label_words, queries_of, shots_per_query
from ._prompts import FewShotPrompts, pad
from ._template import DEFAULT_TEMPLATE, Template
from ._text import start_token, starts_with_bos, tokenised

__all__ = ["few_shot_prompts"]

Demonstration = tuple[str, int | str]


def few_shot_prompts(
    model: Model,
    demonstrations: Sequence[Demonstration] | Sequence[Sequence[Demonstration]],
    queries: Sequence[str] | Sequence[Demonstration],
    *,
    template: str = DEFAULT_TEMPLATE,
    labels: Sequence[str],
    separator: str = "\n",
    bos: bool | int | None = None,
) -> FewShotPrompts:
    """Prompts of labelled demonstrations and one query each; the last token predicts the query's label.

    The template says how one example is written: `{x}` is the input and `{y}` the label, each once and in this order,
    with no other name in braces. Blanks right before `{y}` belong to the label ("Output: {y}" writes " positive" after
    "Output:"), line breaks to the query. Demonstrations are written in full and joined by `separator`; the query is
    written up to its label, without those blanks. If a tokenizer makes the blank a token of its own (many do before
    digits), the query is not followed by a label token: write "Output:{y}" then, or use words as labels.

    Args:
        model: gives the tokenizer (a fast one: positions of labels are read from character offsets).
        demonstrations: a list of `(x, y)` for all queries, or one such list for each query; y is a label word or its
            index. Rows of a table can be given as `table[["text", "label"]].itertuples(index=False)`.
        queries: inputs x, or `(x, y)` where the right label is known.
        template: as above.
        labels: the label words, by class. Only the first token of each is looked at, so first tokens must differ.
        separator: between demonstrations, and before the query.
        bos: True to put the BOS token first, an id to put another token first, False for none; None for the model's
            own rule (`cfg.default_prepend_bos`). A template that begins with the BOS token gets no second one.

    Returns:
        Right-padded prompts, one per query, of which only the last position is scored. Their `demonstrations` say where
        each demonstration, its x and its label lie: `prompts.demonstrations.label_positions[prompt, demonstration]`.

    Raises:
        TypeError: x or y of another type.
        Refused: a template without `{x}` and `{y}`; unknown, empty or missing labels; labels that share their first
            token; a class without a demonstration; a prompt longer than the context; a tokenizer that merges query and
            label, or makes the blank before the label a token of its own.
        NotDefined: no tokenizer, or a slow one.

    Source: Han et al. 2025, section 5.
    """
    form = Template.parse(template, separator)
    if getattr(model, "tokenizer", None) is None:
        raise NotDefined(
            "few-shot prompts need a tokenizer, this model has none: call model.set_tokenizer first"
        )
    labels = label_words(labels)
    asked = queries_of(queries, labels)
    shots = shots_per_query(demonstrations, len(asked), labels)
    start = start_token(model, bos).tolist()
    rows = [_row(model, form, shot, x, labels, start) for shot, (x, _) in zip(shots, asked, strict=True)]
    _check_context(rows, sizes(model).n_ctx)
    tokens, lengths = pad([row.ids for row in rows])
    found = _demonstrations(
        rows, shots, [target for _, target in asked], labels, _label_ids(model, form, labels, shots)
    )
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    bos = bool(start) or starts_with_bos(model, tokens)
    return FewShotPrompts(tokens, lengths, scored, demonstrations=found, bos=bos, tokenizer=model.tokenizer)


class _Row(NamedTuple):
    """One prompt as token ids, and where its demonstrations lie in them.

    Attributes:
        ids: of all tokens.
        spans: first token of each demonstration, and one past the last of its label.
        label_positions: first token of each label.
        inputs: first token of each x, and one past its last; (0, 0) where x has no token.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    label_positions: list[int]
    inputs: list[tuple[int, int]]


def _row(
    model: Model,
    form: Template,
    shots: list[tuple[str, int]],
    x: str,
    labels: tuple[str, ...],
    start: list[int],
) -> _Row:
    """One prompt: its demonstrations `shots` and query `x` written, tokenised, and located in the tokens.

    Args:
        model: gives the tokenizer.
        form: how examples are written.
        shots: the demonstrations as text and class.
        x: the query.
        labels: the label words, by class.
        start: the token to put first, if any.

    Raises:
        Refused: a label for which the tokenizer has no token.
    """
    written = [(shot_x, labels[y]) for shot_x, y in shots]
    text, places = form.write(written, x)
    ids, offsets = tokenised(model, text)
    start = [] if ids[:1] == start else start
    shift = len(start)
    spans, positions, inputs = [], [], []
    for (begin, of_x, label, end), (shot_x, word) in zip(places, written, strict=True):
        inside = [i for i, (low, high) in enumerate(offsets) if high > begin and low < end and high > low]
        of_label = [i for i in inside if offsets[i][1] > label]
        if not of_label:
            raise Refused(f"the tokenizer has no token for the label {word!r}: choose another word")
        positions.append(shift + of_label[0])
        spans.append((shift + inside[0], shift + inside[-1] + 1))
        words = [i for i in inside if offsets[i][1] > of_x and offsets[i][0] < of_x + len(shot_x)]
        inputs.append((shift + words[0], shift + words[-1] + 1) if words else (0, 0))
    return _Row(start + ids, spans, positions, inputs)


def _check_context(rows: list[_Row], n_ctx: int) -> None:
    """Refused if a prompt is longer than the context; the message says how many demonstrations would fit."""
    longest = max(len(row.ids) for row in rows)
    if longest <= n_ctx:
        return
    fits = min(sum(row.spans[0][0] + len(row.ids) - begin <= n_ctx for begin, _ in row.spans) for row in rows)
    raise Refused(
        f"a prompt has {longest} tokens, the context is {n_ctx}: use shorter demonstrations, or fewer "
        f"(the last {fits} of every prompt would fit)"
    )


def _label_ids(
    model: Model, form: Template, labels: tuple[str, ...], shots: list[list[tuple[str, int]]]
) -> Tensor:
    """Token id with which each label begins after a query, `[class]`.

    Raises:
        Refused: labels that begin with the same token; a tokenizer that merges the label with the text before or after
            it, or makes the blank before it a token of its own.
    """
    x = shots[0][0][0]
    query, _ = tokenised(model, form.query(x))
    blanks = form.between[len(form.between.rstrip(" ")) :]
    ids, after = [], {}
    for y, word in enumerate(labels):
        row = _row(model, form, [(x, y)], x, labels, [])
        ids.append(row.ids[row.label_positions[0]])
        continued, _ = tokenised(model, form.query(x) + blanks + word)
        if continued[: len(query)] != query:
            raise Refused(
                f"the tokenizer merges the end of the query {form.query(x)[-12:]!r} with the label {word!r}: "
                "end the template's text before {y} with a punctuation mark and a blank, as in 'Output: {y}'"
            )
        after[word] = continued[len(query) :]
    _check_first(model, form.query(x)[-12:], after, ids)
    for a in range(len(labels)):
        for b in range(a):
            if ids[a] == ids[b]:
                shared = model.tokenizer.decode([ids[a]])
                raise Refused(
                    f"labels {labels[b]!r} and {labels[a]!r} begin with the same token {shared!r}: choose other words"
                )
    return torch.tensor(ids)


def _check_first(model: Model, end: str, after: dict[str, list[int]], ids: list[int]) -> None:
    """Refused if a label begins with another token in demonstrations than right after a query.

    Args:
        model: gives the tokenizer.
        end: the last characters of the query, for the message.
        after: the tokens of each label after a query.
        ids: the first token of each label in a demonstration.
    """
    shown = {word: [model.tokenizer.decode([token]) for token in each] for word, each in after.items()}
    for (word, tokens), first in zip(after.items(), ids, strict=True):
        if tokens[0] == first:
            continue
        if shown[word][0].strip():
            raise Refused(
                f"the tokenizer merges the label {word!r} with what follows it in a demonstration: begin the "
                "template's text after {y}, or the separator, with a blank or a line break"
            )
        raise Refused(
            f"after {end!r} the labels become the tokens {shown}: the first one is a blank, the same for all labels; "
            "write the template without a blank, as in 'Output:{y}', or use words as labels"
        )


def _demonstrations(
    rows: list[_Row],
    shots: list[list[tuple[str, int]]],
    targets: list[int],
    labels: tuple[str, ...],
    label_ids: Tensor,
) -> Demonstrations:
    """The positions, classes and labels of all prompts, as tensors filled up to the most demonstrations."""
    width = max(len(shot) for shot in shots)
    spans, inputs = torch.zeros(2, len(rows), width, 2).long()
    positions, classes = torch.zeros(2, len(rows), width).long()
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, shot) in enumerate(zip(rows, shots, strict=True)):
        n = len(shot)
        spans[i, :n], positions[i, :n] = torch.tensor(row.spans), torch.tensor(row.label_positions)
        inputs[i, :n] = torch.tensor(row.inputs)
        classes[i, :n], mask[i, :n] = torch.tensor([y for _, y in shot]), True
    return Demonstrations(
        spans, positions, classes, mask, label_ids, torch.tensor(targets), labels, inputs=inputs
    )
