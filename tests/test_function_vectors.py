"""Function vectors made and added to other prompts; writers and cancellers. The matrix has their slow twins."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, GAIN, OUTPUT, VOCAB, hand_weights
from shots import noisy_words, random_shots
from zoo import model_of

import induction_kernel as ik
from induction_kernel.interventions import _batch
from induction_kernel.loading import build
from induction_kernel.prompts import Demonstrations, FewShotPrompts

RIGHT = (11, 12)


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def copies():
    """`9 5 11 6 12 5` and `9 5 11 6 12 6`: the induction head writes what followed the query, 11 and 12."""
    tokens = torch.tensor([[9, 5, 11, 6, 12, 5], [9, 5, 11, 6, 12, 6]])
    found = Demonstrations(
        torch.tensor([[[1, 3], [3, 5]]] * 2), torch.tensor([[2, 4]] * 2), torch.tensor([[0, 1]] * 2),
        torch.ones(2, 2, dtype=torch.bool), torch.tensor(RIGHT), torch.tensor([0, 1]), ("a", "b"),
    )  # fmt: skip
    return FewShotPrompts(
        tokens, torch.tensor([6, 6]), torch.arange(6).expand(2, 6) == 5, demonstrations=found
    )


def queries_alone():
    return replace(
        ik.as_prompts(build(ARCHITECTURE, hand_weights(), name="by hand"), torch.tensor([[20], [21]])),
        answers=torch.tensor([[11, 12], [12, 11]]),
    )


def test_by_hand_the_vector_is_what_the_induction_head_writes(by_hand):
    """Half of each answer into the output block, and nothing else."""
    found = ik.fewshot.function_vector(by_hand, copies(), "L1H0", n_controls=2)
    wanted = np.zeros(by_hand.cfg.d_model)
    wanted[OUTPUT.start + RIGHT[0]] = wanted[OUTPUT.start + RIGHT[1]] = 0.5
    np.testing.assert_allclose(found["vector"], wanted, atol=1e-6)
    assert float(found["norm"]) == pytest.approx(0.5**0.5, abs=1e-6)
    np.testing.assert_allclose(found["control"], 0, atol=1e-6)  # the other heads of the layer write nothing
    assert found.attrs["heads"] == "L1H0"
    assert {str(names) for names in found["control_heads"].values} == {"L1H1", "L1H2"}


def test_by_hand_the_vector_makes_both_answers_equally_likely(by_hand):
    """On one token the induction head writes the token itself, logit GAIN; the vector adds GAIN / 2 to each answer."""
    vector = ik.fewshot.function_vector(by_hand, copies(), "L1H0", n_controls=2)
    found = ik.fewshot.apply_function_vector(by_hand, queries_alone(), vector, progress=False)
    own, half = np.exp(GAIN), np.exp(GAIN / 2)
    of = found["probability"].sel(layer=1)
    assert float(of.sel(vector="none")) == pytest.approx(1 / (own + VOCAB - 1), rel=1e-5)
    assert float(of.sel(vector="function vector")) == pytest.approx(
        half / (own + 2 * half + VOCAB - 3), rel=1e-5
    )
    assert float(of.sel(vector="random heads")) == pytest.approx(1 / (own + VOCAB - 1), rel=1e-5)
    assert float(found["label_chance"]) == 0.5
    assert float(found["accuracy"].max()) == 0.0


def test_by_hand_the_induction_head_alone_writes_the_answers(by_hand):
    """It writes e_right - (e_11 + e_12) / 2, read along GAIN (e_right - e_wrong): GAIN (1/2 + 1/2)."""
    found = ik.fewshot.writers_and_cancellers(by_hand, copies())
    wanted = np.zeros((2, 2, 3))
    wanted[:, 1, 0] = GAIN
    np.testing.assert_allclose(found["effect"], wanted, atol=1e-5)


def test_a_head_turned_around_is_a_canceller():
    weights = hand_weights()
    weights["blocks.1.attn.W_O"][0] *= -1
    model = build(ARCHITECTURE, weights, name="turned around")
    found = ik.fewshot.writers_and_cancellers(model, copies())
    assert float(found["effect"].sel(layer=1, head=0).mean()) == pytest.approx(-GAIN, abs=1e-5)
    assert ik.top_heads(found, 1, by="excess", largest=False) == [ik.Head(1, 0)]


def test_vectors_of_heads_add_up():
    model, prompts = model_of("Llama", "bridge"), random_shots()
    both = ik.fewshot.function_vector(model, prompts, ["L0H1", "L1H2"], shuffled=prompts, n_controls=0)
    each = [
        ik.fewshot.function_vector(model, prompts, head, shuffled=prompts, n_controls=0)
        for head in ("L0H1", "L1H2")
    ]
    np.testing.assert_allclose(both["vector"], each[0]["vector"] + each[1]["vector"], atol=1e-9)
    np.testing.assert_allclose(both["shuffled"], both["vector"], atol=1e-12)
    assert both["control"].shape == (0, model.cfg.d_model)


def test_raw_and_processed_weights_give_the_same_vector():
    found = [
        ik.fewshot.function_vector(
            model_of("GPT-2", kind),
            random_shots(),
            ["L0H1", "L1H2"],
            shuffled=random_shots(seed=2),
            n_controls=0,
        )["vector"].values
        for kind in ("bridge", "converted")
        if kind == "bridge" or ik.loading._build.has_hooked_transformer()
    ]
    np.testing.assert_allclose(found[0], found[-1], atol=1e-9)


def test_a_vector_of_zeros_changes_nothing(tiny):
    texts = ik.data.word_pairs("topics", tiny)
    zero = ik.data.zero_shot(tiny, texts, separator=" ")
    found = ik.fewshot.apply_function_vector(tiny, zero, torch.zeros(tiny.cfg.d_model), progress=False)
    np.testing.assert_allclose(found["probability_gain"], 0, atol=1e-7)
    np.testing.assert_array_equal(
        found["correct"].sel(vector="function vector"), found["correct"].sel(vector="none")
    )


def test_the_untouched_model_is_what_the_metrics_say(tiny):
    zero = ik.data.zero_shot(tiny, ik.data.word_pairs("topics", tiny), separator=" ")
    found = ik.fewshot.apply_function_vector(
        tiny, zero, torch.ones(tiny.cfg.d_model), layers=[1], progress=False
    )
    assert found["layer"].values.tolist() == [1]
    np.testing.assert_allclose(
        found["probability_by_prompt"].sel(vector="none", layer=1),
        ik.probability(tiny, zero)["value"],
        atol=1e-6,
    )
    logits = tiny(zero.tokens)[torch.arange(48), zero.lengths - 1]
    choices = zero.answers.unique()
    among = choices[logits[:, choices].argmax(-1)] == zero.answers[:, 0]
    np.testing.assert_array_equal(found["correct_among_answers"].sel(vector="none", layer=1), among)
    low, high = (float(found[f"accuracy_{end}"].sel(vector="none", layer=1)) for end in ("low", "high"))
    from induction_kernel.stats import share_interval

    right = found["correct"].sel(vector="none", layer=1).sum()
    assert (low, high) == pytest.approx([float(end) for end in share_interval(right, 48)])


def test_where_the_answer_is_always_one_label_the_vector_writes_it_anywhere(tiny):
    """On prompts that show no task; and random heads of the layer, as long, do not."""
    task = noisy_words(tiny, prompts=24, one_answer=True, noise=0.1)
    vector = ik.fewshot.function_vector(tiny, task, "L1H7", n_controls=5)
    shown = task.demonstrations
    zero = ik.data.zero_shot(tiny, ik.data.word_pairs("topics", tiny), separator=" ")
    answers = shown.label_ids[:2].expand(len(zero), 2)
    found = ik.fewshot.apply_function_vector(tiny, replace(zero, answers=answers), vector, progress=False)
    gain = found["probability_gain"].sel(layer=1)
    assert float(gain.sel(vector="function vector")) > 0.2
    assert float(found["probability_excess_low"].sel(layer=1, vector="function vector")) > 0.1
    assert float(abs(gain.sel(vector="random heads"))) < 0.1
    assert float(found["accuracy"].sel(layer=1, vector="function vector")) > 0.9


def test_random_vectors_are_scaled_to_the_length_of_the_vector(tiny):
    """A random vector twice as long gives the same result."""
    vector = ik.fewshot.function_vector(tiny, noisy_words(tiny, prompts=8), "L1H7", n_controls=3)
    zero = ik.data.zero_shot(tiny, ik.data.word_pairs("topics", tiny), separator=" ")
    once, twice = (
        ik.fewshot.apply_function_vector(
            tiny, zero, vector.assign(control=times * vector["control"]), layers=[0], progress=False
        )
        for times in (1, 2)
    )
    np.testing.assert_allclose(once["probability"], twice["probability"], atol=1e-6)
    assert float(twice["norm"].sel(vector="random heads")) == pytest.approx(
        2 * float(vector["control_norm"].mean())
    )


def test_only_the_last_position_is_run_again(tiny, monkeypatch):
    """Every edited run starts at its prompt's last token, also where a score patches all heads."""
    task = noisy_words(tiny, prompts=6)
    ik.fewshot.function_vector_effect(tiny, task, progress=False)  # the first call checks the lane
    starts = []
    own = _batch.WidenedBatch

    def seen(lane, cells, at, *others):
        starts.extend((start, others[2].positions.max().item()) for start in at)
        return own(lane, cells, at, *others)

    monkeypatch.setattr(_batch, "WidenedBatch", seen)
    ik.fewshot.function_vector_effect(tiny, task, progress=False)
    assert len(starts) >= 2 * 16
    vector = ik.fewshot.function_vector(tiny, task, "L1H7", n_controls=3)
    zero = ik.data.zero_shot(tiny, ik.data.word_pairs("topics", tiny), separator=" ")
    ik.fewshot.apply_function_vector(tiny, zero, vector, progress=False)
    assert all(start == last for start, last in starts)


def test_results_are_kept_as_they_are(tiny, tmp_path):
    episodes = ik.data.draw_episodes(
        *(ik.data.word_pairs("topics", tiny)[part] for part in (slice(0, 48, 2), slice(1, 48, 2))),
        shots=4, separator=" ",
    )  # fmt: skip
    vector = ik.fewshot.function_vector(tiny, episodes, ["L1H7", "L1H1"], n_controls=2)
    assert vector.attrs["task"] == "topics"
    applied = ik.fewshot.apply_function_vector(
        tiny, ik.data.zero_shot(tiny, episodes), vector, progress=False
    )
    assert applied.attrs["task"] == "topics"
    written = ik.fewshot.writers_and_cancellers(tiny, episodes, progress=False)
    for at, found in enumerate((vector, applied, written)):
        found.to_netcdf(tmp_path / f"{at}.nc")
        xr.testing.assert_identical(xr.open_dataset(tmp_path / f"{at}.nc").load(), found)
    assert len(ik.head_table(written, 3)) == 3
    ik.plots.line_plot(applied, "accuracy")
