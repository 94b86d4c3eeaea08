"""The census of heads: every behaviour of every head, in one table, with chance, control and the names each head earns.

`census` measures; `table` lists the most particular heads, `beside` compares two models, `passages` shows what each head
looks at in ordinary text. `BEHAVIOURS` are the behaviours measured, and a `Behaviour` of your own can be added.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
