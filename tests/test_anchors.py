"""Saliency of attention to and from labels is what autograd on patterns gives, and the AUC is scikit-learn's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from shots import noisy_words, random_shots
from sklearn.metrics import roc_auc_score
from zoo import PAIRS, hooked_only, model_of

import induction_kernel as ik

KINDS = [each for each in PAIRS if each[0] in ("attention-only", "Llama", "GPT-J")]


def saliencies(model, prompts, p, over="labels"):
    """Layer -> `[query, key]`, and the loss: the gradient of something added to each entry of the attention."""
    tokens = prompts.tokens[p : p + 1, : int(prompts.lengths[p])]
    found, n_heads = prompts.demonstrations, model.cfg.n_heads
    patterns, values, added = {}, {}, {}

    def keep(layer):
        return lambda v, hook: values.update({layer: v.detach().repeat_interleave(n_heads // v.shape[2], 2)})

    def add(layer):
        def hook(z, hook):
            added[layer] = torch.zeros(1, n_heads, z.shape[1], z.shape[1], dtype=z.dtype, requires_grad=True)
            return z + torch.einsum("phqk,pkhd->pqhd", added[layer], values[layer].to(z))

        return hook

    def see(layer):
        return lambda pattern, hook: patterns.update({layer: pattern.detach()})

    hooks = [
        (f"blocks.{layer}.attn.hook_{site}", make(layer))
        for layer in (0, 1)
        for site, make in (("v", keep), ("z", add), ("pattern", see))
    ]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        logits = model(tokens, return_type="logits")[0, -1].double()
    if over == "labels":
        loss = -logits[found.label_ids].log_softmax(-1)[found.target[p]]
    else:
        loss = -logits.log_softmax(-1)[found.label_ids[found.target[p]]]
    slopes = torch.autograd.grad(loss, [added[0], added[1]])
    return [(patterns[i][0] * slopes[i][0]).sum(0).abs().double() for i in (0, 1)], float(loss.detach())


@pytest.mark.parametrize("over", ["labels", "vocabulary"])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_means_are_those_of_autograd_over_each_group_of_entries(name, kind, over):
    model, prompts = model_of(name, kind), random_shots()
    found, demonstrations = (
        ik.fewshot.label_flow(model, prompts, over=over, batch_size=3),
        prompts.demonstrations,
    )
    for p in range(len(prompts)):
        by_layer, loss = saliencies(model, prompts, p, over)
        last = int(prompts.lengths[p]) - 1
        labels = [
            key
            for i in range(demonstrations.mask.shape[1])
            if demonstrations.mask[p, i]
            for key in range(int(demonstrations.label_positions[p, i]), int(demonstrations.spans[p, i, 1]))
        ]
        groups = [
            [(query, key) for query in labels for key in range(query)],
            [(last, key) for key in labels],
        ]
        rest = [(query, key) for query in range(last + 1) for key in range(query)]
        groups.append([entry for entry in rest if entry not in groups[0] and entry not in groups[1]])
        assert float(found["loss"][p]) == pytest.approx(loss, rel=1e-6)
        for layer in (0, 1):
            expected = [np.mean([float(by_layer[layer][entry]) for entry in group]) for group in groups]
            loose = 1e-9 if kind == "hooked" else 1e-5
            np.testing.assert_allclose(
                found["saliency"].sel(prompt=p, layer=layer), expected, rtol=loose, atol=loose * 0.1
            )


@hooked_only
@pytest.mark.parametrize("name", ["attention-only", "Llama", "GPT-J"])
def test_it_is_the_gradient_of_the_pattern_s_own_hook(name):
    """On a HookedTransformer the pattern itself can be asked."""
    model, prompts = model_of(name, "hooked"), random_shots(n=1)
    seen = []

    def keep(pattern, hook):
        seen.append(pattern.detach().requires_grad_(True))
        return seen[-1]

    # one layer a run: to autograd a detached pattern hides the layers before it
    for layer in (0, 1):
        seen.clear()
        with torch.enable_grad(), model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", keep)]):
            logits = model(prompts.tokens, return_type="logits")[0, -1]
        demonstrations = prompts.demonstrations
        loss = -logits[demonstrations.label_ids].log_softmax(-1)[demonstrations.target[0]]
        (slope,) = torch.autograd.grad(loss, seen)
        own = (seen[0] * slope)[0].sum(0).abs()
        np.testing.assert_allclose(saliencies(model, prompts, 0)[0][layer].numpy(), own.detach(), atol=1e-12)


def test_the_loss_is_over_the_label_words_unless_asked():
    """With a single label nothing can be wrong about which label it is."""
    model, prompts = model_of(*KINDS[0]), random_shots(n=2)
    found = prompts.demonstrations
    alone = replace(
        found,
        label_ids=found.label_ids[:1],
        labels=found.labels[:1],
        classes=0 * found.classes,
        target=0 * found.target,
    )
    one_label = replace(prompts, demonstrations=alone)
    assert (ik.fewshot.label_flow(model, one_label)["saliency"] == 0).all()
    vocabulary = ik.fewshot.label_flow(model, one_label, over="vocabulary")["saliency"]
    assert (vocabulary.sel(flow="labels to last token") > 0).all()
    default = ik.fewshot.label_flow(model, prompts)
    assert default.attrs["over"] == "labels"
    assert (default["loss"] < ik.fewshot.label_flow(model, prompts, over="vocabulary")["loss"]).all()
    with pytest.raises(ValueError, match='"labels" or "vocabulary"'):
        ik.fewshot.label_flow(model, prompts, over="words")


def test_batches_make_no_difference():
    model, prompts = model_of(*KINDS[0]), random_shots(n=5)
    one, all_ = (ik.fewshot.label_flow(model, prompts, batch_size=size) for size in (1, 5))
    np.testing.assert_allclose(one["saliency"], all_["saliency"], rtol=1e-9)


@pytest.fixture(scope="module")
def words():
    model = ik.load("tiny")
    return model, noisy_words(model)


def test_in_the_embedded_model_labels_gather_words_first_and_are_read_later(words):
    model, prompts = words
    found = ik.fewshot.label_flow(model, prompts)["saliency"]
    to_labels, to_last, other = (found.sel(flow=flow) for flow in found["flow"].values)
    early, late = found["layer"].values
    assert float(to_labels.sel(layer=early).mean()) > 5 * float(other.sel(layer=early).mean())
    assert float(to_last.sel(layer=late).mean()) > 100 * float(other.sel(layer=late).mean())
    assert float(to_labels.sel(layer=late).max()) == 0  # nothing reads labels after the last layer
    assert float(to_last.sel(layer=late).mean()) > 5 * float(to_last.sel(layer=early).mean())


def test_the_last_token_of_the_embedded_model_attends_to_the_label_it_predicts(words, tmp_path):
    model, prompts = words
    weights = ik.scorers.demonstration_weights(model, prompts, pooling="label")
    predicted = ik.fewshot.label_knock_out(model, prompts, "L1H7", draws=0)["prediction"].sel(run="untouched")
    found = ik.fewshot.label_auc(weights, predicted.values)
    assert float(found["auc_low"].sel(layer=1)) > 0.9
    assert float(found["auc_high"].sel(layer=0)) < 0.6
    shuffled = np.random.default_rng(0).permutation(predicted.values)
    by_chance = ik.fewshot.label_auc(weights, shuffled).sel(layer=1)
    assert float(by_chance["auc_low"]) < 0.5 < float(by_chance["auc_high"])
    found.to_netcdf(tmp_path / "found.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "found.nc").load(), found)


def made_up(n=40, classes=3, seed=0, **dims):
    rng = np.random.default_rng(seed)
    shape = (n, *dims.values(), 6)
    weight = (8 * rng.random(shape)).round() / 8  # with ties, and sums that are exact
    weight[0, ..., 5] = np.nan
    weight[1] = 0  # no label has any weight
    label_class = rng.integers(classes, size=(n, 6))
    label_class[0, 5] = -1
    return xr.Dataset(
        {"weight": (("prompt", *dims, "demonstration"), weight)},
        {"label_class": (("prompt", "demonstration"), label_class)},
    ), rng.integers(classes, size=n)


@pytest.mark.parametrize("dims", [{}, {"layer": 2}, {"layer": 2, "head": 4}, {"kernel": 2}])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_is_scikit_learn_s(dims, classes):
    weights, predicted = made_up(classes=classes, **dims)
    found, dataset = (
        ik.fewshot.label_auc(weights, predicted, draws=10),
        xr.Dataset({"prediction": ("prompt", predicted)}),
    )
    xr.testing.assert_identical(found, ik.fewshot.label_auc(weights, dataset, draws=10))
    weight, label_class = weights["weight"].values, weights["label_class"].values
    weight = weight.mean(2) if "head" in dims else weight
    for place in np.ndindex(*weight.shape[1:-1]):
        shares = np.full((len(weight), classes), 1 / classes)
        for p in range(len(weight)):
            row = np.nan_to_num(weight[(p, *place)])
            if row.sum():
                shares[p] = [row[label_class[p] == y].sum() / row.sum() for y in range(classes)]
        expected = np.mean([roc_auc_score(predicted == y, shares[:, y]) for y in range(classes)])
        assert float(found["auc"].values[place]) == pytest.approx(expected, abs=1e-12)
    assert found["auc"].dims == tuple(dim for dim in dims if dim != "head")
    assert (found["auc_low"] <= found["auc_high"]).all()
    assert (
        ik.fewshot.label_auc(weights, np.zeros(40, int), draws=10)["auc"].isnull().all()
    )  # one class alone is predicted
