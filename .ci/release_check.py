"""Stop a release whose tag is not the package's version, or whose package does not say where it comes from.

Run from the root of a checkout: `python .ci/release_check.py v0.1.0`. It needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CITATION = re.compile(r"^version: (\S+)$", re.MULTILINE)


def wrong(root: Path, tag: str) -> list[str]:
    """What keeps this tag from being released, a sentence each."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    code = (root / "induction_kernel" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)
    said = version[1] if version else "none"
    cited = CITATION.search((root / "CITATION.cff").read_text(encoding="utf-8"))
    news = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = []
    if tag.removeprefix("v") != said:
        found.append(f"the tag is {tag}, the package's version {said}: give them the same number")
    if cited is None or cited[1] != said:
        found.append(f"CITATION.cff has version {cited and cited[1]}, the package {said}")
    if re.search(rf"^## \[{re.escape(said)}\] - \d{{4}}-\d\d-\d\d$", news, re.MULTILINE) is None:
        found.append(f"CHANGELOG.md has no section of {said} with a date")
    if "Repository" not in project.get("urls", {}):
        found.append(
            "[project.urls] in pyproject.toml has no Repository: name the address of this repository"
        )
    return found


if __name__ == "__main__":
    said = wrong(ROOT, sys.argv[1] if len(sys.argv) > 1 else "none")
    sys.exit("\n".join(said) or 0)
