"""The defaults of every public function, class and method, as plain JSON.

`PYTHONPATH=.:tests/support:.ci python tests/support/defaults.py` writes defaults.json. Read its difference before
it is committed: whoever changes a default changes numbers that users have.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from public import public_values

FILE = Path(__file__).with_suffix(".json")


def defaults() -> dict[str, dict[str, str]]:
    """Path -> parameter -> its default as text, of parameters that have one."""
    found = {}
    for path, value in sorted(callables()):
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):  # of a class written in C, or of none
            continue
        given = {
            name: repr(parameter.default)
            for name, parameter in signature.parameters.items()
            if parameter.default is not parameter.empty
            and not isinstance(parameter.default, Path)
            and "<" not in repr(parameter.default)
        }
        if given:
            found[path] = given
    return found


def callables() -> Iterator[tuple[str, Any]]:
    """Public names, and the methods that the package's own classes give them."""
    for path, value in public_values().items():
        yield path, value
        if inspect.isclass(value) and value.__module__.startswith("induction_kernel"):
            for name, member in vars(value).items():
                if inspect.isfunction(member) and not name.startswith("_"):
                    yield f"{path}.{name}", member


if __name__ == "__main__":
    FILE.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n")
