"""What an explorer in a page holds: its contents, thumbnails and the patterns that are whole."""

import base64
import json
import re
import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stored:
    """The parts of the only explorer of a page.

    Attributes:
        contents: the JSON object.
        thumbnails: bytes by prompt.
        patterns: deflated bytes by prompt and head.
    """

    contents: dict
    thumbnails: dict[int, bytes]
    patterns: dict[tuple[int, int], bytes]

    def index(self, head):
        return head.layer * self.contents["heads"] + head.head

    def pattern(self, prompt, head):
        """A whole pattern `[query, key]`, stored in steps of 1/255."""
        data = np.frombuffer(zlib.decompress(self.patterns[prompt, self.index(head)]), np.uint8)
        n = len(self.contents["prompts"][prompt]["tokens"])
        pattern = np.zeros((n, n))
        pattern[np.tri(n, dtype=bool)] = data[: n * (n + 1) // 2] / 255
        return pattern

    def score(self, name):
        (found,) = (each for each in self.contents["scores"] if each["name"] == name)
        return found


def stored(html: str) -> Stored:
    """The explorer of a page that has one, with the style sheet and the module that it needs once."""
    assert html.count('class="ik-explorer"') == html.count('<script type="module">') == 1
    assert html.count("\n.ik-explorer {") == 1
    (contents,) = re.findall(r'class="ik-contents">(.*?)</script>', html, flags=re.DOTALL)
    thumbnails = re.findall(r'data-thumbnails="(\d+)">([^<]*)<', html)
    patterns = re.findall(r'data-head="(\d+):(\d+)">([^<]*)<', html)
    return Stored(
        json.loads(contents),
        {int(prompt): base64.b64decode(data) for prompt, data in thumbnails},
        {(int(prompt), int(head)): base64.b64decode(data) for prompt, head, data in patterns},
    )
