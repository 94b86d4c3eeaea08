"""Prompts and answers as the command line gives them: as they are, or in text files."""

from __future__ import annotations

from pathlib import Path

from ..errors import Refused
from ..formats import lines_of, text_of

__all__ = ["answer_pairs", "lines"]

TEXT_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md")


def lines(text: str) -> list[str]:
    """The lines of a file that aren't empty, where `text` is one; else `text` itself."""
    try:
        is_file, is_folder = Path(text).is_file(), Path(text).is_dir()
    except OSError:  # too long to be a name
        is_file = is_folder = False
    if not text.strip():
        raise Refused("wanted a prompt, or a file with one a line, got an empty text")
    name = len(text.split()) == 1 and ("/" in text or Path(text).suffix.lower() in TEXT_FILES)
    if not is_file and (is_folder or name):
        there = "is a folder" if is_folder else "does not exist"
        raise Refused(f"{text!r} {there}: wanted a text file with a prompt a line, or a prompt itself")
    if not is_file:
        return [text]
    found = [line for line in lines_of(text_of(text)) if line.strip()]
    if not found:
        raise Refused(f"wanted a prompt a line in {text!r}, got an empty file")
    return found


def answer_pairs(answers: str, n: int) -> list[tuple[str, str]]:
    """`(right, wrong)` for each of n prompts, from "right,wrong" or a file of such lines."""
    found = [tuple(line.split(",")) for line in lines(answers)]
    wrong = next((pair for pair in found if len(pair) != 2 or not all(pair)), None)
    if wrong is not None:
        raise Refused(
            f'wanted --answers as "right,wrong", each with the blank before it if it has one, got {",".join(wrong)!r}'
        )
    if len(found) not in (1, n):
        raise Refused(f"wanted one pair of answers, or one for each of {n} prompts, got {len(found)}")
    return [(right, wrong) for right, wrong in (found * n if len(found) == 1 else found)]
