"""Wrong input is answered at the call, by a sentence that says what was wanted, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "support"


def test_every_row():
    """In a process of its own: pytest's run checks tensor shapes at the door, which users' runs do not."""
    done = subprocess.run(
        [sys.executable, __file__], cwd=HERE, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_every_public_verb_has_a_row():
    import ast

    import induction_kernel

    tree = ast.parse((HERE / "bad_inputs.py").read_text())
    table = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "ROWS"
    )
    verbs = {ast.literal_eval(row.elts[0]) for row in table.elts}
    assert verbs == set(induction_kernel._HOME)
    assert len(table.elts) >= 35


def run_rows() -> int:
    import tempfile

    sys.path.insert(0, str(HERE))
    from bad_inputs import ROWS

    wrong = 0
    for verb, what, call, error, message in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                call(Path(folder))
            except error as raised:
                if message in str(raised):
                    continue
                print(f"{verb}: {what}: message {str(raised)!r} does not say {message!r}")
            except Exception as raised:
                print(f"{verb}: {what}: {type(raised).__name__}: {raised}")
            else:
                print(f"{verb}: {what}: nothing raised")
            wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(min(run_rows(), 99))


@pytest.mark.parametrize("mode", [True, False])
def test_training_mode_is_put_back_after_a_refusal(mode):
    import torch
    from zoo import fresh

    import induction_kernel as ik

    model = fresh("attention-only")
    model.train(mode)
    with pytest.raises(ValueError, match="nothing to read"):
        ik.induction(model, torch.arange(9))
    assert model.training is mode
