"""Cells of the matrix: function vectors, applied; writers and cancellers; ablated sets of heads (`vectors_naive`)."""

import numpy as np
import torch
import vectors_naive as naive
from shots import random_shots
from whole_runs import tokens_for
from zoo import RMS, model_of

import induction_kernel as ik
from induction_kernel.fewshot._function_vectors import last_means
from induction_kernel.fewshot._set_ablations import Bands, few_shot_without, text_without

HEADS = [(0, 1), (1, 0), (1, 3)]


def close(found, twin, within=1e-9):
    np.testing.assert_allclose(np.asarray(found), np.asarray(twin), rtol=within, atol=within)


def asked(**options):
    """Ragged prompts of which every one has a right label."""
    return random_shots(**options)


def function_vector(name, kind):
    model, task, shuffled = model_of(name, kind), asked(seed=1), asked(n=3, seed=2)
    found = ik.fewshot.function_vector(
        model, task, HEADS, shuffled=shuffled, n_controls=1, control="any layer"
    )
    layers, _ = naive.weights(model, name)
    drawn = [
        (head.layer, head.head) for head in ik.heads.as_heads(str(found["control_heads"][0].item()).split())
    ]
    for key, prompts, heads in (
        ("vector", task, HEADS),
        ("shuffled", shuffled, HEADS),
        ("control", task, drawn),
    ):
        close(found[key].values.reshape(-1), naive.vector(model, prompts, heads, layers))
    close(found["norm"], np.linalg.norm(found["vector"]))


def applied(name, kind):
    """With a vector of any size: whether it is a task's does not matter here."""
    model, prompts = model_of(name, kind), asked(seed=3)
    vector = 3 * torch.randn(
        model.cfg.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    right = prompts.demonstrations.label_ids[prompts.demonstrations.target]
    choices = prompts.demonstrations.label_ids
    for site in ("resid_post", "resid_pre"):
        found = ik.fewshot.apply_function_vector(model, prompts, vector, site=site, progress=False)
        for layer in range(2):
            of_layer = found.sel(layer=layer)
            for p in range(len(prompts)):
                for which, added in (("none", 0 * vector), ("function vector", vector)):
                    probability = naive.with_vector(model, prompts, p, layer, added.numpy(), site)
                    got = of_layer.sel(prompt=p, vector=which)
                    close(got["probability_by_prompt"], probability[right[p]])
                    assert float(got["correct"]) == float(probability.argmax() == right[p])
                    among = choices[probability[choices].argmax()] == right[p]
                    assert float(got["correct_among_answers"]) == float(among)
        none, moved = (
            found["probability_by_prompt"].sel(vector=each) for each in ("none", "function vector")
        )
        assert float(abs(moved / none - 1).max()) > 0.1


def writers(name, kind):
    model, prompts = model_of(name, kind), asked(seed=4)
    found = ik.fewshot.writers_and_cancellers(model, prompts, progress=False)
    layers, w_u = naive.weights(model, name)
    ids, target = prompts.demonstrations.label_ids.tolist(), prompts.demonstrations.target.tolist()
    twin = naive.writing(
        model, prompts, layers, w_u, right=[ids[y] for y in target],
        wrong=[[each for at, each in enumerate(ids) if at != y] for y in target],
        centred=name not in RMS, epsilon=1e-6 if name in RMS else 1e-5,
    )  # fmt: skip
    close(found["effect"], twin)
    assert np.abs(twin).max() > 1e-4


def sets(name, kind):
    """Few-shot labels and text, without two sets of heads."""
    model, prompts = model_of(name, kind), asked(seed=5)
    means = naive.mean_z(model, prompts)
    groups = [[ik.Head(*head) for head in heads] for heads in (HEADS, HEADS[:1])]
    options = {"max_tokens": None, "progress": False}
    logs, _ = few_shot_without(model, prompts, groups, last_means(model, prompts, None), **options)
    text = tokens_for(model, [9, 9, 9])
    scores, _ = text_without(model, text, groups, Bands(2, 6, 2), **options)
    for run, heads in enumerate([[], *groups]):
        close(logs[run], naive.labels_without(model, prompts, heads, means))
        close(scores[run], naive.late_less_early(model, text, heads, 2, 6, 2))
    assert np.abs(logs[1:] - logs[:1]).max() > 1e-4
    assert np.abs(scores[1:] - scores[:1]).max() > 1e-5


CELLS = {
    "function_vector": function_vector,
    "apply_function_vector": applied,
    "writers_and_cancellers": writers,
    "which_heads, its ablations": sets,
}
_NORMED = "attention's output is normalised before it is added to the residual stream"
REFUSED = {
    ("Gemma 2", "function_vector"): _NORMED,
    ("Gemma 2", "writers_and_cancellers"): _NORMED,
}
