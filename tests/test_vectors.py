"""Function-vector scores: the same as plain hooks; 0 where there is no task, and high for the head that writes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from fewshot_by_hooks import check_function_vectors
from shots import noisy_words, random_shots
from zoo import PAIRS, model_of

import induction_kernel as ik
from induction_kernel.fewshot._function_vectors import _shuffled

KINDS = [each for each in PAIRS if each[0] in ("attention-only", "Llama", "GPT-J")]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_same_as_plain_hooks(name, kind):
    check_function_vectors(name, kind)


def test_some_heads_and_layers_alone():
    model, prompts = model_of(*KINDS[0]), random_shots(n=2)
    every = ik.fewshot.function_vector_effect(model, prompts, prompts)["score"]
    some = ik.fewshot.function_vector_effect(
        model, prompts, prompts, heads=(head for head in ["L0H1", "L1H2"])
    )["score"]
    there = some.notnull().any("prompt")
    assert {str(name) for name in some["name"].values[there]} == {"L0H1", "L1H2"}
    np.testing.assert_allclose(some.where(there), every.where(there))
    assert ik.fewshot.function_vector_effect(model, prompts, prompts, layers=iter([1]))[
        "layer"
    ].values.tolist() == [1]


def test_shuffling_permutes_the_labels_of_each_prompt_and_nothing_else():
    prompts = random_shots(n=8, shots=6, labels=("a", "d"))
    found = prompts.demonstrations
    one_token = replace(found, spans=torch.stack([found.spans[..., 0], found.label_positions + 1], -1))
    tokens, row = prompts.tokens.clone(), torch.arange(8)[:, None].expand_as(found.mask)[found.mask]
    tokens[row, found.label_positions[found.mask]] = found.label_ids[found.classes[found.mask]]
    prompts = replace(prompts, tokens=tokens, demonstrations=one_token)
    before = prompts.tokens.clone()
    shuffled = _shuffled(prompts, one_token, 0)
    assert torch.equal(prompts.tokens, before)
    now = shuffled.demonstrations
    moved = 0
    for p in range(8):
        there = now.mask[p]
        positions = found.label_positions[p, there]
        assert sorted(now.classes[p, there].tolist()) == sorted(found.classes[p, there].tolist())
        assert sorted(shuffled.tokens[p, positions].tolist()) == sorted(prompts.tokens[p, positions].tolist())
        assert shuffled.tokens[p, positions].tolist() == found.label_ids[now.classes[p, there]].tolist()
        rest = torch.ones(prompts.tokens.shape[1], dtype=torch.bool)
        rest[positions] = False
        assert torch.equal(shuffled.tokens[p, rest], prompts.tokens[p, rest])
        moved += int(not torch.equal(now.classes[p], found.classes[p]))
    assert moved > 4
    assert not torch.equal(_shuffled(prompts, one_token, 1).tokens, shuffled.tokens)


@pytest.fixture(scope="module")
def tiny():
    return ik.load("tiny")


def test_with_labels_drawn_anew_in_every_prompt_there_is_no_task_to_carry(tiny):
    """The control's mean does what the task's does, and no head passes."""
    found = ik.fewshot.function_vector_effect(tiny, noisy_words(tiny, prompts=60))
    assert float(abs((found["score"] - found["control"]).mean("prompt")).max()) < 0.03
    assert not bool(ik.summarise(found)["passes"].any())


def test_says_where_the_shuffled_prompts_come_from(tiny):
    prompts = noisy_words(tiny, prompts=8)
    own = ik.fewshot.function_vector_effect(tiny, prompts, heads="L1H7")
    assert own.attrs["shuffled"] == "labels among each prompt's demonstrations"
    given = ik.fewshot.function_vector_effect(tiny, prompts, heads="L1H7", shuffled=prompts)
    assert given.attrs["shuffled"] == "given"


def test_where_the_answer_is_always_one_label_the_head_that_writes_labels_carries_it(tiny, tmp_path):
    found = ik.fewshot.function_vector_effect(tiny, noisy_words(tiny, prompts=60, one_answer=True, noise=0.1))
    summary = ik.summarise(found)
    assert [str(head) for head in ik.top_heads(found, 1)] == ["L1H7"]
    assert float(summary["passes"].sel(layer=1, head=7)) == 1
    assert float(summary["excess"].sel(layer=1, head=7)) > 0.2
    assert float(abs(found["control"]).mean()) < float(abs(found["score"].sel(layer=1, head=7)).mean()) / 4
    found.to_netcdf(tmp_path / "found.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "found.nc").load(), found)
