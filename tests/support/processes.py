"""Python in a process of its own, which finds the package, the test modules and their helpers."""

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
PATHS = (SUPPORT, SUPPORT.parent, SUPPORT.parent.parent, SUPPORT.parent.parent / ".ci")


def in_python(code, *arguments, timeout=300, **environment):
    """Run `code`; `environment` is added to that of this process."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS)), **environment},
    )  # fmt: skip
