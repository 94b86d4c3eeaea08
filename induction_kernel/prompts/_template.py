"""`Template`: the text of a few-shot prompt, and the characters at which its demonstrations and labels begin.

`_few_shot` turns these characters into token positions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import Refused

__all__ = ["DEFAULT_TEMPLATE", "Template"]

DEFAULT_TEMPLATE = "Input: {x} Output: {y}"


@dataclass(frozen=True)
class Template:
    """How one example is written, and what separates examples.

    Attributes:
        before: the text before x.
        between: the text between x and y.
        after: the text after y.
        separator: the text between examples, and before the query.
    """

    before: str
    between: str
    after: str
    separator: str

    @classmethod
    def parse(cls, template: str, separator: str) -> Template:
        """The template of a string with `{x}` and `{y}`.

        Raises:
            TypeError: a separator that is not text.
            Refused: `{x}` and `{y}` not once each and in this order, or another name in braces.
        """
        if not isinstance(separator, str):
            raise TypeError(f"wanted the separator as text, got {separator!r}")
        if not isinstance(template, str) or template.count("{x}") != 1 or template.count("{y}") != 1:
            raise Refused(
                f"wanted a template with {{x}} and {{y}} once each, like {DEFAULT_TEMPLATE!r}, got {template!r}"
            )
        others = [name for name in re.findall(r"{(\w+)}", template) if name not in ("x", "y")]
        if others:
            raise Refused(
                f"wanted no names in braces but {{x}} and {{y}} in a template, got {{{others[0]}}} in "
                f"{template!r}: write everything else into x, as load_classification(text=...) does with columns"
            )
        before, rest = template.split("{x}")
        if "{y}" not in rest:
            raise Refused(
                f"wanted {{x}} before {{y}} in the template, like {DEFAULT_TEMPLATE!r}, got {template!r}"
            )
        between, after = rest.split("{y}")
        return cls(before, between, after, separator)

    def query(self, x: str) -> str:
        """The query x as it is written: up to its label, without the blanks before that."""
        return f"{self.before}{x}{self.between.rstrip(' ')}"

    def write(self, shots: list[tuple[str, str]], x: str) -> tuple[str, list[tuple[int, int, int, int]]]:
        """The text of a prompt, and the characters at which its demonstrations lie.

        Args:
            shots: the demonstrations as x and label word.
            x: the query.

        Returns:
            The text, and for each demonstration the characters where it begins, where its x begins, where its label
            begins, and one past the end of its label.
        """
        text, places = "", []
        for shot_x, word in shots:
            begin = len(text)
            text += f"{self.before}{shot_x}{self.between}"
            places.append((begin, begin + len(self.before), len(text), len(text) + len(word)))
            text += f"{word}{self.after}{self.separator}"
        return text + self.query(x), places
