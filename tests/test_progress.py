"""Do progress bars count what is run, and move evenly until they are full?"""

import pytest

import induction_kernel as ik
from induction_kernel.loading import load
from induction_kernel.model import _runs as runs

PROMPTS = 6


class Recorded(runs.tqdm):
    """A bar that remembers its steps."""

    seen = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options | {"disable": True})
        self.wanted, self.unit, self.steps = options["total"], options["unit"], []
        self.seen.append(self)

    def update(self, n=1):
        self.steps.append(n)


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Recorded, "seen", [])
    monkeypatch.setattr(runs, "_Bar", Recorded)
    return Recorded.seen


def repeats(model):
    return ik.repeated_tokens(model, prompts=PROMPTS)


def episodes(model):
    return ik.prompts.word_episodes(model, prompts=PROMPTS)


CASES = {
    "a scorer and its control": (lambda model: ik.induction(model, repeats(model), batch_size=4), 2 * PROMPTS, "run"),
    "a scorer without a control": (
        lambda model: ik.induction(model, repeats(model).tokens, batch_size=4), PROMPTS, "run",
    ),
    "direct effects": (lambda model: ik.direct_effect(model, repeats(model), batch_size=4), 2 * PROMPTS, "run"),
    "copying": (lambda model: ik.copying(model, repeats(model), batch_size=4), PROMPTS, "prompt"),
    "eigenvalues": (lambda model: ik.ov_eigenvalues(model, draws=3), 2, "layer"),
    "composition": (lambda model: ik.composition(model), 1, "pair of layers"),
    "demonstrations": (
        lambda model: ik.scorers.demonstration_weights(model, episodes(model), batch_size=4), PROMPTS, "prompt",
    ),
    "attention over demonstrations": (
        lambda model: ik.kernel.demonstration_attention(model, episodes(model), batch_size=4), PROMPTS, "prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bar_ends_full_and_moves_layer_by_layer(case, bars):
    """Of two layers and batches of four prompts: no step is more than one layer of a batch."""
    call, total, unit = CASES[case]
    call(load("tiny"))
    (bar,) = [each for each in bars if each.unit == unit and each.wanted == total]
    assert sum(bar.steps) == pytest.approx(total)
    assert len(bar.steps) > 1 or total == 1
    assert max(bar.steps) <= max(1, 4 / 2)


def test_a_bar_shows_whole_numbers(capsys):
    with runs.progress_bar(7, progress=True, unit="run") as bar:
        bar.delay = 0
        bar.update(2.4)
        assert "2/7 [" in str(bar)
        assert "34%" in str(bar)


def test_parts_that_sum_to_more_by_rounding_do_not_overfill_a_bar(capsys):
    """tqdm warns of such a bar, and warnings are errors here."""
    with runs.bar(total=1.0) as shown:
        for part in (0.1, 0.2, 0.7 + 2e-16):
            shown.update(part)
        shown.refresh()
    assert shown.n == 1.0
    assert "100%" in capsys.readouterr().err


def test_a_bar_that_counts_too_much_says_so(capsys):
    with runs.bar(total=18) as shown:
        shown.update(36)
    assert shown.n == 36
    assert "36it" in capsys.readouterr().err
