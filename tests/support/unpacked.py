"""A page of the explorer read back: contents, pictures and patterns, decoded entry by entry."""

import base64
import json
import re
import zlib

import numpy as np


class ReadPage:
    """What a page of the explorer holds.

    Attributes:
        contents: the JSON object.
        pictures: prompt -> uint8 `[head, side, side]`.
        heads: (prompt, head) -> the inflated bytes.
    """

    def __init__(self, text):
        (contents,) = re.findall(
            r'<script type="application/json" class="ik-contents">(.*?)</script>', text, re.S
        )
        self.contents = json.loads(contents)
        self.pictures, self.heads = {}, {}
        n = self.contents["layers"] * self.contents["heads"]
        for prompt, data in re.findall(r'data-thumbnails="(\d+)">([^<]*)<', text):
            side = self.contents["prompts"][int(prompt)]["side"]
            flat = np.frombuffer(zlib.decompress(base64.b64decode(data)), np.uint8)
            self.pictures[int(prompt)] = flat.reshape(n, side, side)
        for prompt, index, data in re.findall(r'data-head="(\d+):(\d+)">([^<]*)<', text):
            self.heads[int(prompt), int(index)] = zlib.decompress(base64.b64decode(data))

    def tokens(self, prompt=0):
        return self.contents["prompts"][prompt]["tokens"]

    def head(self, prompt, index):
        """The pattern `[query, key]`, each query's rounded-away mass, and the norms or None."""
        n = len(self.tokens(prompt))
        kind = self.contents["precision"]
        return unpacked(
            self.heads[prompt, index], n, kind, ahead=self.contents["ahead"], norms=self.contents["norms"]
        )


def unpacked(data, n, kind, *, ahead, norms):
    """The obvious slow reading of one head's bytes."""
    width = 2 if kind == "half" else 1
    pattern, at = np.zeros((n, n)), 0
    for query in range(n):
        for key in range(n if ahead else query + 1):
            entry = data[at : at + width]
            at += width
            if kind == "half":
                pattern[query, key] = np.frombuffer(entry, "<f2")[0]
            else:
                pattern[query, key] = entry[0] / 255 if kind == "plain" else (entry[0] / 255) ** 2
    mass = None
    if kind != "half":
        mass = np.array([data[at + i] / 255 for i in range(n)])
        at += n
    found = None
    if norms:
        found = np.frombuffer(data[at : at + 2 * n], "<f2").astype(float)
        at += 2 * n
    assert at == len(data)
    return pattern, mass, found


def pooled_slowly(pattern, side=64):
    """uint8 `[side, side]`: the largest weight of each cell, by loops."""
    n = len(pattern)
    side = min(side, n)
    out = np.zeros((side, side), np.uint8)
    for row in range(side):
        for column in range(side):
            cells = pattern[
                row * n // side : (row + 1) * n // side, column * n // side : (column + 1) * n // side
            ]
            out[row, column] = np.rint(255 * cells.max())
    return out
