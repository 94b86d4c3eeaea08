"""Build one page of attention patterns as one library does, in a process of its own.

`python benchmarks/viewing/build.py WAY PATTERNS TOKENS LAYERS HEADS PAGE` is started by `benchmarks/views.py`, and
prints seconds from arrays in memory to the file written, waited and of the processor, as JSON. Imports, a first call on
two tokens and reading the arrays are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEAD = '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>'
Build = Callable[[np.ndarray, list[str], Path], object]


def main() -> None:
    way, patterns, tokens, layers, heads, page = sys.argv[1:]
    build = WAYS[way]()
    array = chosen(np.load(patterns, mmap_mode="r"), int(layers), int(heads))
    words = json.loads(Path(tokens).read_text(encoding="utf-8"))
    build(array[:, :, :2, :2], words[:2], Path(page))  # what is imported at the first call
    start, used = time.perf_counter(), time.process_time()
    build(array, words, Path(page))
    seconds = {"built": time.perf_counter() - start, "built_cpu": time.process_time() - used}
    print(json.dumps(seconds), flush=True)


def chosen(patterns: np.ndarray, layers: int, heads: int) -> np.ndarray:
    """`[layer, head, query, key]` of layers spread over the depth, in memory."""
    return np.ascontiguousarray(
        patterns[np.linspace(0, len(patterns) - 1, layers).round().astype(int), :heads]
    )


def ours() -> Build:
    import induction_kernel as ik

    return lambda array, tokens, page: ik.explore(patterns=array, tokens=tokens, progress=False).save(page)


def circuitsvis() -> Build:
    from circuitsvis.attention import attention_heads

    def build(array: np.ndarray, tokens: list[str], page: Path) -> None:
        drawn = attention_heads(attention=array.reshape(-1, *array.shape[2:]), tokens=tokens)
        page.write_text(HEAD + drawn.local_src, encoding="utf-8")

    return build


def bertviz() -> Build:
    import torch
    from bertviz import head_view

    def build(array: np.ndarray, tokens: list[str], page: Path) -> None:
        attention = [torch.from_numpy(layer)[None] for layer in array]
        drawn = head_view(attention, tokens, prettify_tokens=False, html_action="return")
        page.write_text(HEAD + drawn.data, encoding="utf-8")

    return build


WAYS = {each.__name__: each for each in (ours, circuitsvis, bertviz)}

if __name__ == "__main__":
    main()
