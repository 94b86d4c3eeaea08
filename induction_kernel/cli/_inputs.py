"""Prompts and answers from arguments of the command line: given directly, or in text files."""

from __future__ import annotations

from pathlib import Path

from ..errors import Refused
from ..formats import lines_of, text_of

__all__ = ["answer_pairs", "is_file", "lines"]

TEXT_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md")


def lines(text: str) -> list[str]:
    """The lines of the file `text` that are not empty; `text` itself where there is no such file."""
    if not is_file(text, "a prompt, or a text file with one prompt per line"):
        return [text]
    found = [line for line in lines_of(text_of(text)) if line.strip()]
    if not found:
        raise Refused(f"wanted one prompt per line in {text!r}, got an empty file")
    return found


def is_file(text: str, wanted: str) -> bool:
    """Whether the text names a file; Refused if it looks like the name of one that does not exist, or is empty."""
    try:
        found, is_folder = Path(text).is_file(), Path(text).is_dir()
    except OSError:  # too long for the name of a file
        found = is_folder = False
    if not text.strip():
        raise Refused(f"wanted {wanted}, got an empty text")
    name = len(text.split()) == 1 and ("/" in text or Path(text).suffix.lower() in TEXT_FILES)
    if not found and (is_folder or name):
        raise Refused(f"{text!r} {'is a folder' if is_folder else 'does not exist'}: wanted {wanted}")
    return found


def answer_pairs(answers: str, n: int) -> list[tuple[str, str]]:
    """`(right, wrong)` for each of n prompts, from "right,wrong" or a text file of such lines."""
    found = [tuple(line.split(",")) for line in lines(answers)]
    wrong = next((pair for pair in found if len(pair) != 2 or not all(pair)), None)
    if wrong is not None:
        raise Refused(
            f'wanted --answers as "right,wrong", each with its leading space if it has one, got {",".join(wrong)!r}'
        )
    if len(found) not in (1, n):
        raise Refused(f"wanted one pair of answers, or one for each of {n} prompts, got {len(found)} pairs")
    return [(right, wrong) for right, wrong in (found * n if len(found) == 1 else found)]
