"""Labelled demonstrations in a template, and where everything lies in the tokens.

The prompts of in-context classification (Han et al. 2025, section 5: lines `Input: <x> Output: <Label>`). The
text is tokenised whole, as the model would meet it, and spans are read off the tokenizer's character offsets.
It does not read data sets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import NotDefined, Refused
from ..heads._names import is_whole
from ..model._anatomy import Model, sizes
from ._examples import label_words, queries_of, shots_per_query
from ._prompts import Demonstrations, Prompts, pad
from ._text import check_text, refuse_unknown, start_token, starts_with_bos

__all__ = ["few_shot_prompts", "word_episodes"]

Demonstration = tuple[str, int | str]
DEFAULT_TEMPLATE = "Input: {x} Output: {y}"


def few_shot_prompts(
    model: Model,
    demonstrations: Sequence[Demonstration] | Sequence[Sequence[Demonstration]],
    queries: Sequence[str] | Sequence[Demonstration],
    *,
    template: str = DEFAULT_TEMPLATE,
    labels: Sequence[str],
    separator: str = "\n",
    bos: bool | int | None = None,
) -> Prompts:
    """Demonstrations and a query in one prompt each; the last token predicts the query's label.

    The template says how one example is written: `{x}` is the input, `{y}` the label, once each and in this
    order, and no other name stands in braces. Blanks right before `{y}` belong to the label ("Output: {y}" puts
    " positive" after "Output:"), line breaks to the query.
    Demonstrations are written whole and joined by `separator`; the query is written up to, and without, those
    blanks. Where a tokenizer makes the blank a token of its own (many do before digits), there is no label token for
    the model to predict: write "Output:{y}" then, or take words.

    Args:
        model: gives the tokenizer (a fast one: spans need character offsets).
        demonstrations: `(x, y)` for all queries alike, or a list of `(x, y)` for each query; y is a label
            word or its index. Rows of a table do, `table[["text", "label"]].itertuples(index=False)`.
        queries: inputs x, or `(x, y)` where the right label is known.
        template: as above.
        labels: the label words, one a class; their first tokens must differ, and only the first token is
            looked at.
        separator: between demonstrations, and before the query.
        bos: True to put the BOS token first, an id for another one, False for none; None for the model's own rule
            (`cfg.default_prepend_bos`). A template that begins with that token gets no second one.

    Returns:
        Prompts with `demonstrations`; only the last position is scored.

    Raises:
        TypeError: x or y of another type. Refused: a template without `{x}` and `{y}`, unknown, empty or
        missing labels, labels that share their first token, a
            class without a demonstration, a prompt beyond the context, a tokenizer that merges query and
            label, or makes the blank before the label a token of its own. NotDefined: no tokenizer, or a slow one.

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
    return Prompts(tokens, lengths, scored, demonstrations=found, bos=bos, tokenizer=model.tokenizer)


class _Row(NamedTuple):
    ids: list[int]
    spans: list[tuple[int, int]]
    label_positions: list[int]
    inputs: list[tuple[int, int]]


@dataclass(frozen=True)
class Template:
    """How one example is written: the text before x, between x and y, and after y; what stands between examples."""

    before: str
    between: str
    after: str
    separator: str

    @classmethod
    def parse(cls, template: str, separator: str) -> Template:
        """Out of a string with `{x}` and `{y}`; Refused where they are not there once each, in this order."""
        if not isinstance(separator, str):
            raise TypeError(f"wanted the separator as text, got {separator!r}")
        if not isinstance(template, str) or template.count("{x}") != 1 or template.count("{y}") != 1:
            raise Refused(
                f"wanted a template with {{x}} and {{y}} once each, like {DEFAULT_TEMPLATE!r}, got {template!r}"
            )
        others = [name for name in re.findall(r"{(\w+)}", template) if name not in ("x", "y")]
        if others:
            raise Refused(
                f"wanted no other names in braces than {{x}} and {{y}} in a template, got {{{others[0]}}} in "
                f"{template!r}: put what else an example has into x, as load_classification(text=...) does with columns"
            )
        before, rest = template.split("{x}")
        if "{y}" not in rest:
            raise Refused(f"wanted {{x}} before {{y}} in the template, got {template!r}")
        between, after = rest.split("{y}")
        return cls(before, between, after, separator)

    def query(self, x: str) -> str:
        """What stands before the label of x."""
        return f"{self.before}{x}{self.between.rstrip(' ')}"

    def write(self, shots: list[tuple[str, str]], x: str) -> tuple[str, list[tuple[int, int, int, int]]]:
        """The prompt, and where each demonstration and its x begin, its label begins, and that ends (characters)."""
        text, places = "", []
        for shot_x, word in shots:
            begin = len(text)
            text += f"{self.before}{shot_x}{self.between}"
            places.append((begin, begin + len(self.before), len(text), len(text) + len(word)))
            text += f"{word}{self.after}{self.separator}"
        return text + self.query(x), places


def _row(
    model: Model,
    form: Template,
    shots: list[tuple[str, int]],
    x: str,
    labels: tuple[str, ...],
    start: list[int],
) -> _Row:
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
    """Refused where a prompt is longer; says how many of the demonstrations every prompt has room for."""
    longest = max(len(row.ids) for row in rows)
    if longest <= n_ctx:
        return
    fits = min(sum(row.spans[0][0] + len(row.ids) - begin <= n_ctx for begin, _ in row.spans) for row in rows)
    raise Refused(
        f"a prompt has {longest} tokens, the context is {n_ctx}: use shorter demonstrations, or fewer "
        f"(the last {fits} of every prompt would fit)"
    )


def tokenised(model: Model, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text and the characters of each.

    Raises:
        NotDefined: a tokenizer that does not say them. Refused: a word that it does not know.
    """
    if not getattr(model.tokenizer, "is_fast", False):
        raise NotDefined(
            "wanted a fast tokenizer, whose character offsets say where labels lie: load it with use_fast=True"
        )
    check_text(text)
    found = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = found["input_ids"], found["offset_mapping"]
    refuse_unknown(model.tokenizer, text, ids, "use words of its vocabulary in texts, labels and template")
    return ids, offsets


def _label_ids(
    model: Model, form: Template, labels: tuple[str, ...], shots: list[list[tuple[str, int]]]
) -> Tensor:
    """The first token of each label as it follows a query; they differ and leave the query's tokens alone."""
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
                "end the template's text before {y} with a sign and a blank, as in 'Output: {y}'"
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
    """Refused where a label's first token in demonstrations is not what comes right after the end of a query."""
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
            f"after {end!r} the labels become the tokens {shown}, and what comes first is no part of a label but a "
            "blank, which tells none from another: write the template without a blank, as in 'Output:{y}', or take "
            "words as labels"
        )


def _demonstrations(
    rows: list[_Row],
    shots: list[list[tuple[str, int]]],
    targets: list[int],
    labels: tuple[str, ...],
    label_ids: Tensor,
) -> Demonstrations:
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


TOPICS = tuple(
    words.split()
    for words in (
        "fox wolf bear horse sheep goat tiger lion rabbit mouse camel deer",
        "apple pear plum grape mango lemon peach cherry melon fig banana lime",
        "arm leg hand foot knee elbow neck shoulder ear nose mouth chin",
        "car truck bus train boat ship bicycle plane tram van wagon canoe",
    )
)
LABEL_WORDS = ("dax", "wug", "foo", "bar", "blick", "fep", "red", "blue", "yes", "no")


def word_episodes(
    model: Model, *, shots: int = 8, prompts: int = 32, noise: float = 0.0, classes: int = 2, seed: int = 0
) -> Prompts:
    """A small classification task that any English tokenizer can read: `fox dax ; apple wug ; ... ; lemon`.

    Each prompt draws which label word stands for which topic (animals and fruits; with more classes parts of the
    body and vehicles too); the model can only learn it from the demonstrations. All classes are demonstrated
    equally often where the number of shots allows it, in random order; the query's word is not among them.

    Args:
        model: gives the tokenizer; the first label words that are one token each are used.
        shots: demonstrations a prompt, from one a class to 11 a class.
        prompts: how many.
        noise: chance of each demonstration's word to be replaced by a word of any class, in [0, 1]: at 1 the
            labels say nothing.
        classes: 2 to 4. With more of them the label shown most often, or last, is seldom the right one.
        seed: of the draw; a local generator.

    Raises:
        Refused: an option out of its range. NotDefined: no tokenizer, or one that cannot write the words apart; a
            context too short for the prompts.
    """
    _check_episodes(shots, prompts, noise, classes)
    labels = single_token_words(model, classes)
    generator = torch.Generator().manual_seed(checked_seed(seed))

    def shuffled(items: list) -> list:
        return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

    demonstrations, queries = [], []
    for _ in range(prompts):
        words = [shuffled(topic) for topic in shuffled(list(TOPICS[:classes]))]
        queries.append(shuffled([(words[y].pop(), y) for y in range(classes)])[0])
        kinds = (
            shuffled(list(range(classes))) if classes > 2 else [0, 1]
        )  # who comes once more where they must differ
        drawn = shuffled(
            [(words[kinds[i % classes]][i // classes], kinds[i % classes]) for i in range(shots)]
        )
        replaced = (torch.rand(shots, generator=generator, dtype=torch.float32) < noise).tolist()
        either = shuffled([word for kind in words for word in kind])
        demonstrations.append([(either[i] if replaced[i] else x, y) for i, (x, y) in enumerate(drawn)])
    return own_task(model, demonstrations, queries, template="{x} {y} ;", labels=labels, separator=" ")


def own_task(model: Model, demonstrations: Sequence[Any], queries: Sequence[Any], **form: Any) -> Prompts:
    """`few_shot_prompts` of words that this package chose: a model that cannot read them is one without the task.

    Raises:
        NotDefined: what `few_shot_prompts` refuses.
    """
    try:
        return few_shot_prompts(model, demonstrations, queries, **form)
    except Refused as error:
        raise NotDefined(f"this task cannot be written for the model: {error}") from error


def _check_episodes(shots: int, prompts: int, noise: float, classes: int) -> None:
    if classes not in (2, 3, 4):
        raise Refused(f"wanted 2, 3 or 4 classes, got {classes!r}")
    most = 11 * classes
    if not (is_whole(shots) and is_whole(prompts) and isinstance(noise, Real)):
        raise TypeError(
            f"wanted shots and prompts as whole numbers and noise as a number, got {shots!r}, {prompts!r} and {noise!r}"
        )
    if not classes <= shots <= most or prompts < 1 or not 0 <= noise <= 1:
        raise Refused(
            f"wanted shots {classes} to {most}, prompts >= 1 and noise 0 to 1, got {shots}, {prompts} and {noise}"
        )


def single_token_words(model: Model, count: int) -> list[str]:
    """The first label words that are one token each, where there are so many; NotDefined without a tokenizer."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise NotDefined(
            "few-shot prompts need a tokenizer, this model has none: call model.set_tokenizer first"
        )
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in LABEL_WORDS}
    found = [word for word, token in ids.items() if len(token) == 1 and token[0] != unknown]
    return found[:count] if len(found) >= count else list(LABEL_WORDS[:count])
