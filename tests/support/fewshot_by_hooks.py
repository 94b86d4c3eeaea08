"""Label knock-out, re-weighting and function vectors by plain hooks, each compared on one model."""

import numpy as np
import pytest
import torch
from shots import random_shots, with_rows
from zoo import model_of

import induction_kernel as ik
from induction_kernel.fewshot import _reweighting as reweighting
from induction_kernel.heads import as_heads
from induction_kernel.model import value_weights

HEADS = ["L0H1", "L1H0", "L1H3"]


def labels_of(prompts, p, classes):
    """Positions of the labels of these classes in prompt p."""
    found = prompts.demonstrations
    return [
        position
        for i in range(found.mask.shape[1])
        if found.mask[p, i] and int(found.classes[p, i]) in classes
        for position in range(int(found.label_positions[p, i]), int(found.spans[p, i, 1]))
    ]


def knocked_out(model, prompts, p, keys_of):
    """`[label]`: log-probabilities where heads, Head -> keys, cannot attend; the rest of the row renormalised."""

    def change(layer):
        def new(row, v, z):
            row, out = row.clone(), z.clone()
            for head, keys in keys_of.items():
                if head.layer == layer and keys:
                    row[head.head, keys] = 0
                    row[head.head] /= row[head.head].sum()
                    out[head.head] = row[head.head] @ v[:, head.head]
            return out

        return new

    tokens = prompts.tokens[p : p + 1, : int(prompts.lengths[p])]
    logits = with_rows(model, tokens, {head.layer: change(head.layer) for head in keys_of})
    return logits.log_softmax(-1)[prompts.demonstrations.label_ids].numpy()


def rows_of(model, prompts, p):
    """Layer -> `[head, key]`: what the last token of prompt p attends to."""
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens[p : p + 1, : int(prompts.lengths[p])])
    return [cache["pattern", layer][0, :, -1].clone() for layer in range(model.cfg.n_layers)]


def other_keys(row, keys, every_label, wanted):
    """Keys nearest to a label first, while they do not exceed the mass; and the one that brings it closest."""
    order = sorted(
        (key for key in range(1, len(row) - 1) if key not in every_label),
        key=lambda key: (min(abs(key - label) for label in every_label), key),
    )
    taken = []
    for key in order:
        if sum(float(row[k]) for k in [*taken, key]) <= wanted:
            taken.append(key)
    missing = wanted - sum(float(row[k]) for k in taken)
    rest = [key for key in order if key not in taken]
    if rest:
        best = min(rest, key=lambda key: abs(missing - float(row[key])))
        if abs(missing - float(row[best])) < abs(missing):
            taken.append(best)
    return taken


def check_label_knock_out(name, kind, which):
    model, prompts = model_of(name, kind), random_shots()
    found = ik.fewshot.label_knock_out(model, prompts, HEADS, which=which, draws=1, control="any layer")
    heads = as_heads(HEADS)
    classes = {"all": (0, 1, 2), "b c": (1,), 2: (2,)}[which]
    others_drawn = as_heads(str(found.sel(run="random heads")["heads"].item()).split())
    assert not set(others_drawn) & set(heads)
    for p in range(len(prompts)):
        rows, labels, every = (
            rows_of(model, prompts, p), labels_of(prompts, p, classes), labels_of(prompts, p, (0, 1, 2)),
        )  # fmt: skip
        others = {}
        for head in heads:
            row = rows[head.layer][head.head]
            others[head] = other_keys(row, labels, every, float(row[labels].sum()))
        runs = {
            "untouched": {},
            "labels": dict.fromkeys(heads, labels),
            "random heads": dict.fromkeys(others_drawn, labels),
            "other keys": others,
        }
        for run, keys_of in runs.items():
            got = found.sel(prompt=p, run=run)
            expected = knocked_out(model, prompts, p, keys_of)
            loose = 1e-10 if kind == "hooked" else 1e-6
            np.testing.assert_allclose(got["log_probability"], expected, atol=loose, err_msg=run)
            mass = sum(float(rows[head.layer][head.head, keys].sum()) for head, keys in keys_of.items())
            assert float(got["mass"]) == pytest.approx(mass, abs=loose)
            assert int(got["prediction"]) == expected.argmax()
            assert float(got["correct"]) == (expected.argmax() == int(prompts.demonstrations.target[p]))


def check_reweighting(name, kind):
    model, prompts = model_of(name, kind), random_shots()
    beta = np.random.default_rng(0).normal(size=(2, 4, 3))
    beta[1, 2, 1] = -np.inf
    found = ik.fewshot.reweighted(model, prompts, beta)
    for p in range(len(prompts)):

        def change(layer, p=p):
            def new(row, v, z):
                out, bias = z.clone(), value_weights(model, layer)[1]
                for head in range(4):
                    for y in range(3):
                        for key in labels_of(prompts, p, (y,)):
                            out[head] += (
                                np.expm1(beta[layer, head, y]) * row[head, key] * (v[key, head] - bias[head])
                            )
                return out

            return new

        tokens = prompts.tokens[p : p + 1, : int(prompts.lengths[p])]
        logits = with_rows(model, tokens, {layer: change(layer) for layer in (0, 1)})
        expected = logits.log_softmax(-1)[prompts.demonstrations.label_ids]
        got = found.sel(prompt=p, run="reweighted")
        np.testing.assert_allclose(got["log_probability"], expected, atol=1e-10 if kind == "hooked" else 1e-6)


def check_gradient_of_reweighting(name, kind):
    """By finite differences of the exact evaluation, also through layer 1's attention on what layer 0 wrote."""
    model, prompts = model_of(name, kind), random_shots()
    generator = np.random.default_rng(1)
    beta = 0.3 * generator.normal(size=(2, 4, 3))
    with reweighting.kept_as_it_was(model):
        loss, slope, _ = reweighting._loss(model, prompts, torch.from_numpy(beta).requires_grad_(True))

    def exact(beta):
        logs = ik.fewshot.reweighted(model, prompts, beta)["log_probability"].sel(run="reweighted").values
        logs = torch.from_numpy(logs).log_softmax(-1)
        return -float(logs[torch.arange(len(prompts)), prompts.demonstrations.target].mean())

    assert loss == pytest.approx(exact(beta), abs=1e-7)
    for _ in range(4):
        way = generator.normal(size=beta.shape)
        step = 1e-4 if kind == "hooked" else 3e-3  # a Bridge's patterns are of float32
        found = (exact(beta + step * way) - exact(beta - step * way)) / (2 * step)
        assert float((slope.numpy() * way).sum()) == pytest.approx(
            found, abs=1e-5 if kind == "hooked" else 1e-3
        )


def last_z(model, prompts):
    """`[prompt][layer] -> [head, d_head]` of the last token."""
    out = []
    for p in range(len(prompts)):
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens[p : p + 1, : int(prompts.lengths[p])])
        out.append([cache["z", layer][0, -1].clone() for layer in (0, 1)])
    return out


def probability(model, prompts, p, layer=0, head=0, new=None):
    """Of the right answer, with a head's output at the last token replaced."""

    def write(z, hook):
        z = z.clone()
        z[0, -1, head] = new
        return z

    tokens, found = prompts.tokens[p : p + 1, : int(prompts.lengths[p])], prompts.demonstrations
    hooks = [] if new is None else [(f"blocks.{layer}.attn.hook_z", write)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(tokens, return_type="logits")[0, -1].double()
    return float(logits.softmax(-1)[found.label_ids[found.target[p]]])


def check_function_vectors(name, kind):
    model, task, into = model_of(name, kind), random_shots(n=3, seed=1), random_shots(n=3)
    found = ik.fewshot.function_vector_effect(model, task, into)
    for key, prompts in (("score", task), ("control", into)):
        z = last_z(model, prompts)
        for p in range(len(into)):
            plain = probability(model, into, p)
            assert float(found["baseline"][p]) == pytest.approx(plain, abs=1e-6)
            for layer, head in np.ndindex(2, 4):
                mean = sum(each[layer][head] for each in z) / len(z)
                expected = probability(model, into, p, layer, head, mean) - plain
                got = float(found[key].sel(prompt=p, layer=layer, head=head))
                assert got == pytest.approx(expected, abs=1e-10 if kind == "hooked" else 1e-6)
