"""How a few-shot prompt is written: a template for one example, and how examples and the query make a text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import Refused

__all__ = ["DEFAULT_TEMPLATE", "Template"]

DEFAULT_TEMPLATE = "Input: {x} Output: {y}"


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
