"""Wrong input is answered at the call, by a sentence that says what was wanted, and leaves nothing behind."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from bad_inputs import ROWS, fault_of
from public import public_values, verbs
from quick import rows_in_turn
from zoo import fresh

import induction_kernel as ik


@pytest.fixture(scope="module")
def plain_process():
    """Another process: pytest's own checks tensor shapes at the door, which users' do not."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *given: pool.submit(function, *given).result(timeout=300)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=marks, id=f"{verb}: {what}")
        for number, ((verb, what, *_), marks) in enumerate(
            zip(ROWS, rows_in_turn(3, [verb for verb, *_ in ROWS]), strict=True)
        )
    ],
)
def test_is_refused_by_a_sentence(plain_process, tmp_path, number):
    assert plain_process(fault_of, number, tmp_path) == ""


def shapes_are_checked():
    from induction_kernel import masks

    try:
        masks.previous_key(*[torch.zeros(3, dtype=torch.int64)] * 2)
    except Exception as raised:
        return type(raised).__name__ == "TypeCheckError"
    return False


def test_the_other_process_checks_no_shapes(plain_process):
    assert shapes_are_checked()
    assert not plain_process(shapes_are_checked)


def test_every_public_verb_has_a_row():
    rows = {verb for verb, *_ in ROWS}
    assert rows >= set(verbs())
    assert rows <= set(public_values())


@pytest.mark.parametrize("mode", [True, False])
def test_training_mode_is_put_back_after_a_refusal(mode):
    model = fresh("attention-only")
    model.train(mode)
    with pytest.raises(ValueError, match="nothing to read"):
        ik.induction(model, torch.arange(9))
    assert model.training is mode
