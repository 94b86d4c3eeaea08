"""Prompts of `generality`: short sentences in two languages, aligned word by word, and attention along the alignment.

An induction head attends from a token to the token after its earlier copy. In Olsson et al. 2022, argument 4, some
heads do so across languages: from a word they attend to the word after its *translation*. Measured here is the
attention from the last token of a word to the first token of the word after its translation, where that word translates
the next one. Words that also occur in the first sentence are left out: attention there would be literal copying. In the
control the first sentence's words are in another order, so a head that attends by position alone scores the same. The
sentences were written for this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, pad, real_positions
from ..prompts._text import start_token, starts_with_bos, tokenised
from ..scorers._pattern_entries import Entries, check_sound, read_entries, way_to_read
from ..scorers._streaming import averaged

__all__ = [
    "TRANSLATIONS",
    "Translation",
    "aligned_words",
    "check_translations",
    "translation_attention",
    "unreadable",
]

LETTERS = 2.0
"""Mean letters per token below which a tokenizer counts as not knowing the words, only pieces of them."""


@dataclass(frozen=True)
class Translation:
    """A sentence in two languages.

    Attributes:
        languages: names of the two languages, written before the sentences: ("English", "French").
        source: the first sentence, with spaces between words.
        target: the second sentence, likewise.
        aligned: for each word of `target` the index of the word of `source` that it translates, -1 for none; None
            where both have the same number of words in the same order.

    Raises:
        Refused: an alignment of another length, or to a word that does not exist.
    """

    languages: tuple[str, str]
    source: str
    target: str
    aligned: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        words, others = len(self.source.split()), len(self.target.split())
        given = self.order
        if len(given) != others or not all(-1 <= at < words for at in given):
            raise Refused(
                f"wanted for each of {others} words of {self.target!r} a word of the source from 0 to {words - 1}, or "
                f"-1, got {list(given)}"
            )

    @property
    def order(self) -> tuple[int, ...]:
        """`aligned`, with None written out."""
        return tuple(range(len(self.source.split()))) if self.aligned is None else tuple(self.aligned)


def translation_attention(model: Model, translations: Sequence[Translation]) -> xr.Dataset:
    """Every head's attention from a word to the word after its translation.

    Args:
        model: any TransformerLens model whose tokenizer knows the words.
        translations: sentences in two languages.

    Returns:
        Dataset with `score[prompt, layer, head]`, the mean over the words of a sentence that are measured, in [0, 1],
        and `control`, the same entries where the first sentence's words are in another order.

    Raises:
        TypeError: as `aligned_words`.
        Refused: as `aligned_words`; attention that is not finite.
    """
    prompts, entries = aligned_words(model, translations)
    layers, n = list(range(sizes(model).n_layers)), len(prompts)
    weight = 1 / torch.bincount(entries.prompt, minlength=n).double()
    lane, broken, found = way_to_read(model, prompts, layers).name, set[int](), {}
    for key, tokens in (("score", prompts.tokens), ("control", prompts.control)):
        read = found[key] = np.empty((n, len(layers), sizes(model).n_heads))

        def put(layer: int, values: torch.Tensor, sound: bool, read: np.ndarray = read) -> None:
            read[:, layer] = averaged(values, entries.prompt, weight, n).numpy()
            broken.update([] if sound else [layer])

        read_entries(model, prompts, entries, layers, put, lane=lane, tokens=tokens)
    check_sound(broken)
    dims, coords = ("prompt", "layer", "head"), {"layer": layers, "head": np.arange(sizes(model).n_heads)}
    return xr.Dataset({key: (dims, value) for key, value in found.items()}, coords)


def aligned_words(model: Model, translations: Sequence[Translation]) -> tuple[Prompts, Entries]:
    """The sentences as prompts, and the entries of their patterns from a word to the word after its translation.

    Returns:
        Prompts `English: ...\\nFrench: ...`, whose `control` has the second half of the first sentence's words before
        the first half (the same tokens at other positions); and the entries: prompt, query and key.

    Raises:
        TypeError: not a list of `Translation`.
        Refused: no sentence with an entry to measure.
    """
    check_translations(translations)
    start = start_token(model, None).tolist()
    found = [_row(model, each, start) for each in translations]
    rows = [row for row in found if row.pairs]
    if not rows:
        raise Refused(
            f"wanted two neighbouring words whose translations are neighbours too, got none in {len(found)} "
            "translations: pass others, or another alignment"
        )
    tokens, lengths = pad([row.ids for row in rows])
    control, _ = pad([row.control for row in rows])
    at = [(i, query, key) for i, row in enumerate(rows) for query, key in row.pairs]
    scored = torch.zeros_like(real_positions(tokens, lengths))
    scored[[i for i, _, _ in at], [query for _, query, _ in at]] = True
    bos = starts_with_bos(model, tokens)
    prompts = Prompts(tokens, lengths, scored, control=control, bos=bos, tokenizer=model.tokenizer)
    return as_prompts(model, prompts), Entries(*torch.tensor(at).T)


class _Row(NamedTuple):
    ids: list[int]
    control: list[int]
    pairs: list[tuple[int, int]]  # query and key of each entry


def _row(model: Model, pair: Translation, start: list[int]) -> _Row:
    before = f"{pair.languages[0]}: "
    between = f"\n{pair.languages[1]}: "
    ids, offsets = tokenised(model, f"{before}{pair.source}{between}{pair.target}")
    source = _words(pair.source, len(before), offsets)
    target = _words(pair.target, len(before) + len(pair.source) + len(between), offsets)
    begins = [first for first, _ in source]
    groups = [ids[a:b] for a, b in zip(begins, [*begins[1:], source[-1][1] + 1], strict=True)]
    half = len(groups) // 2
    rotated = [token for group in groups[half:] + groups[:half] for token in group]
    control = ids[: begins[0]] + rotated + ids[begins[0] + len(rotated) :]
    order, shift, in_source = pair.order, len(start), set(rotated)
    pairs = [
        (shift + target[k][1], shift + begins[order[k] + 1])
        for k in range(len(order) - 1)
        if order[k] >= 0 and order[k + 1] == order[k] + 1 and ids[target[k][1]] not in in_source
    ]
    return _Row(start + ids, start + control, pairs)


def _words(sentence: str, begin: int, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last token of each word of a sentence that begins at character `begin`."""
    out = []
    for word in sentence.split():
        inside = [i for i, (low, high) in enumerate(offsets) if high > begin and low < begin + len(word)]
        out.append((inside[0], inside[-1]))
        begin += len(word) + 1
    return out


def check_translations(translations: Any) -> None:
    """Raises TypeError unless this is a list of `Translation`."""
    if not isinstance(translations, Sequence) or not all(
        isinstance(each, Translation) for each in translations
    ):
        raise TypeError(f"wanted translations as a list of Translation, got {type(translations).__name__}")


def unreadable(model: Model, translations: Sequence[Translation]) -> str:
    """Why attention along translations cannot be measured with this tokenizer; empty where it can."""
    tokenizer: Any = model.tokenizer
    texts = [text for each in translations for text in (each.source, each.target)]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if tokenizer.unk_token_id is not None and any(tokenizer.unk_token_id in row for row in rows):
        return "the tokenizer does not know the words of the translations"
    letters = sum(map(len, texts)) / max(1, sum(map(len, rows)))
    if letters < LETTERS:
        return f"the tokenizer cuts the translations into tokens of {letters:.1f} letters, wanted {LETTERS:g} or more"
    return ""


_FRENCH = (
    ("the old king sleeps in the tower", "le vieux roi dort dans la tour", None),
    ("my sister reads a long letter", "ma soeur lit une longue lettre", None),
    ("two dogs cross the empty street", "deux chiens traversent la rue vide", (0, 1, 2, 3, 5, 4)),
    ("every morning we drink the warm milk", "chaque matin nous buvons le lait chaud", (0, 1, 2, 3, 4, 6, 5)),
    ("the little girl opens the green door", "la petite fille ouvre la porte verte", (0, 1, 2, 3, 4, 6, 5)),
    ("our neighbours sell their house and their garden", "nos voisins vendent leur maison et leur jardin", None),
    ("a young man waits under the bridge", "un jeune homme attend sous le pont", None),
    ("he often finds the keys in the kitchen", "il trouve souvent les clés dans la cuisine", (0, 2, 1, 3, 4, 5, 6, 7)),
    ("three ships leave the harbour before the night", "trois navires quittent le port avant la nuit", None),
    ("the teacher writes his name on the wall", "le professeur écrit son nom sur le mur", None),
    ("your brother works with my aunt", "ton frère travaille avec ma tante", None),
    ("they often sing under the trees", "ils chantent souvent sous les arbres", (0, 2, 1, 3, 4, 5)),
)  # fmt: skip
_GERMAN = (
    ("the old king sleeps in the tower", "der alte König schläft in dem Turm", None),
    ("my sister reads a long letter", "meine Schwester liest einen langen Brief", None),
    ("two dogs cross the empty street", "zwei Hunde überqueren die leere Straße", None),
    ("every morning we drink the warm milk", "jeden Morgen trinken wir die warme Milch", (0, 1, 3, 2, 4, 5, 6)),
    ("the little girl opens the green door", "das kleine Mädchen öffnet die grüne Tür", None),
    ("our neighbours sell their house and their garden", "unsere Nachbarn verkaufen ihr Haus und ihren Garten", None),
    ("a young man waits under the bridge", "ein junger Mann wartet unter der Brücke", None),
    ("he often finds the keys in the kitchen", "er findet oft die Schlüssel in der Küche", (0, 2, 1, 3, 4, 5, 6, 7)),
    ("three ships leave the harbour before the night", "drei Schiffe verlassen den Hafen vor der Nacht", None),
    ("the teacher writes his name on the wall", "der Lehrer schreibt seinen Namen an die Wand", None),
    ("your brother works with my aunt", "dein Bruder arbeitet mit meiner Tante", None),
    ("they often sing under the trees", "sie singen oft unter den Bäumen", (0, 2, 1, 3, 4, 5)),
)  # fmt: skip
TRANSLATIONS = tuple(
    Translation(("English", language), *row)
    for language, rows in (("French", _FRENCH), ("German", _GERMAN))
    for row in rows
)
"""Twelve English sentences with French translations, and the same twelve with German ones."""
