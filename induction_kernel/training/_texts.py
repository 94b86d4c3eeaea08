"""Training rows from text: a byte-pair tokenizer learned from it, and windows at random places.

The last tenth of every text is held back: neither rows nor tokens are learned from it. With 256 pieces the tokens are
plain bytes. Every row begins with `<bos>`. Nothing is downloaded: the user provides the texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import Refused
from ..formats import text_of
from ..stores import write_whole
from ._recipe import BYTES, Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Corpus", "read_corpus"]

BOS, PADDING = "<bos>", "<pad>"
HELD_BACK = 0.1


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts as token ids, and the tokenizer that was learned from them.

    Attributes:
        tokenizer: `tokenizer.json`, as text.
        training: int64 [token], all texts without their ends, each after a `<bos>`.
        held_back: int64 [token], the last tenth of every text.
    """

    tokenizer: str
    training: NDArray[np.int64]
    held_back: NDArray[np.int64]

    def rows(self, rng: np.random.Generator, n: int, length: int) -> NDArray[np.int64]:
        """`n` training rows [row, position]: `<bos>` and a window from a random place."""
        starts = rng.integers(len(self.training) - length + 2, size=n)
        windows = self.training[starts[:, None] + np.arange(length - 1)]
        return np.concatenate([np.zeros((n, 1), dtype=np.int64), windows], axis=1)

    def held_back_rows(self, length: int, most: int) -> NDArray[np.int64]:
        """At most `most` rows of the held-back ends, evenly spread, without overlap."""
        n = min(most, len(self.held_back) // (length - 1))
        starts = np.linspace(0, len(self.held_back) - (length - 1), n).astype(int)
        windows = self.held_back[starts[:, None] + np.arange(length - 1)]
        return np.concatenate([np.zeros((n, 1), dtype=np.int64), windows], axis=1)

    def write_tokenizer(self, folder: Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, readable by `AutoTokenizer`."""
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": BOS,
            "pad_token": PADDING,
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
        }
        for name, content in (
            ("tokenizer.json", self.tokenizer),
            ("tokenizer_config.json", json.dumps(settings, indent=1)),
        ):
            write_whole(folder / name, content + "\n")


def read_corpus(text: str | Path | Iterable[str | Path], recipe: Recipe) -> Corpus:
    """Learns a tokenizer of `recipe.pieces` from text files and tokenizes them with it.

    Args:
        text: one text file (UTF-8), or several.
        recipe: sets the number of pieces and the length of a row.

    Raises:
        Refused: no text, a file that is missing or not UTF-8, texts too short for one training row and one held back,
            or texts that yield fewer pieces than asked for.
    """
    texts = [text_of(path) for path in ([text] if isinstance(text, str | Path) else text)]
    if recipe.pieces is None or not texts:
        raise Refused(f"texts need a file, and a recipe with pieces={BYTES} or more")
    halves = [(each[:cut], each[cut:]) for each in texts for cut in [int(len(each) * (1 - HELD_BACK))]]
    first, last = zip(*halves, strict=True)
    tokenizer = _learned(first, recipe.pieces)
    training, held_back = (_encoded(tokenizer, part) for part in (first, last))
    if min(len(training), len(held_back)) < recipe.context:
        raise Refused(
            f"the texts have {len(training)} tokens to train on and {len(held_back)} held back: wanted at least one "
            f"row of {recipe.context} of each; pass longer texts, or a shorter context"
        )
    return Corpus(tokenizer.to_str(), training, held_back)


def _learned(texts: Sequence[str], pieces: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]  # its stub has no setter
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]  # its stub has no setter
    trainer = trainers.BpeTrainer(
        vocab_size=pieces + 2,
        special_tokens=[BOS, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != pieces + 2:
        raise Refused(
            f"the texts yield {tokenizer.get_vocab_size() - 2} pieces, {pieces} were asked for: pass more text, or "
            "ask for fewer"
        )
    return tokenizer


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> NDArray[np.int64]:
    """All texts one after another, each after a `<bos>` (id 0)."""
    parts = [ids for each in texts for ids in ([0], tokenizer.encode(each, add_special_tokens=False).ids)]
    return np.concatenate([np.array(ids, dtype=np.int64) for ids in parts])
