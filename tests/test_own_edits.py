"""Edits of a user's own: any class with `new`, and with `source` where it takes from another run."""

import inspect
import re

import numpy as np
import pytest
import torch
from naive import together
from zoo import PAIRS, model_of

import induction_kernel as ik
from induction_kernel.interventions._activations import EditFromRun, New
from induction_kernel.metrics import Metric
from induction_kernel.model import run

MODELS = [pair for pair in PAIRS if pair[0] in ("attention-only", "GPT-2", "Llama")]


class Half:
    """Half of what stood in another run, and none of what stands here."""

    def __init__(self, other):
        self.other = other

    def source(self, model, prompts):
        return self.other

    def new(self, model, prompts, site, layers, taken):
        return {layer: New(0.0, 0.5 * taken[layer]) for layer in layers}


def two_runs(model):
    """Prompts of unequal lengths and others that begin alike, so that an edit may not skip what is before."""
    drawn = torch.randint(model.cfg.d_vocab, (2, 3, 6), generator=torch.Generator().manual_seed(1))
    drawn[1, :, :3] = drawn[0, :, :3]
    return [ik.as_prompts(model, tokens, lengths=[4, 6, 3]) for tokens in drawn]


def total(logits, prompts):
    real = torch.arange(logits.shape[1]) < prompts.lengths[:, None]
    return (logits.log_softmax(-1)[..., 5] * real).sum(1)


def activation(model, prompts, name):
    kept = []
    run(model, prompts.tokens, [(name, lambda old, hook: kept.append(old.clone()))], lengths=prompts.lengths)
    return kept[0]


@pytest.mark.parametrize(("name", "kind"), MODELS)
@pytest.mark.parametrize("site", ["z", "resid_pre"])
def test_half_of_another_run_is_what_plain_hooks_give(name, kind, site):
    model = model_of(name, kind)
    prompts, other = two_runs(model)
    by = ("layer", "head", "position") if site == "z" else ("layer", "position")
    found = ik.sweep(model, prompts, edit=Half(other), site=site, by=by, metric=total)["value"].values
    hook_names = [
        f"blocks.{layer}." + ("attn.hook_z" if site == "z" else "hook_resid_pre") for layer in (0, 1)
    ]
    there = [activation(model, other, hook_name) for hook_name in hook_names]
    hooks, places = [], list(np.ndindex(found.shape[1:]))
    for layer, *heads, position in places:
        here = (slice(None), position, *heads)

        def put(old, hook, here=here, half=0.5 * there[layer][here]):
            new = old.clone()
            new[here] = half
            return new

        hooks.append([(hook_names[layer], put)])
    for place, logits in zip(places, together(model, prompts.tokens, hooks), strict=True):
        real = (prompts.lengths > place[-1]).numpy()
        expected = total(logits, prompts)[real]
        np.testing.assert_allclose(found[(slice(None), *place)][real], expected, atol=1e-9)


@pytest.mark.parametrize(("name", "kind"), MODELS[:2])
def test_an_edit_of_one_s_own_can_be_from_run_and_does_not_depend_on_batches(name, kind):
    model = model_of(name, kind)
    prompts, other = two_runs(model)

    class Whole(Half):
        def new(self, model, prompts, site, layers, taken):
            return {layer: New(0.0, taken[layer]) for layer in layers}

    for verb, options in ((ik.sweep, {}), (ik.ablate, {"heads": ["L0H1", "L1H2"]})):
        found, batched, built_in = (
            verb(model, prompts, edit=edit, metric=total, **options, **sizes)["value"].values
            for edit, sizes in (
                (Whole(other), {}), (Whole(other), {"max_tokens": 6}), (ik.FromRun(other), {}),
            )
        )  # fmt: skip
        np.testing.assert_allclose(found, built_in, atol=1e-12)
        np.testing.assert_allclose(batched, built_in, atol=1e-9)


def test_the_other_run_is_made_once(monkeypatch):
    model = model_of(*MODELS[0])
    prompts, other = two_runs(model)
    runs, forward = [], type(model).forward

    def counted(self, tokens, *given, **options):
        runs.append(torch.equal(tokens.cpu(), other.tokens))
        return forward(self, tokens, *given, **options)

    monkeypatch.setattr(type(model), "forward", counted)
    ik.sweep(model, prompts, edit=Half(other), metric=total)
    assert runs.count(True) == 1


@pytest.mark.parametrize(("name", "kind"), MODELS[:2])
def test_attribution_takes_from_the_other_run_too(name, kind):
    model = model_of(name, kind)
    prompts, other = two_runs(model)

    class Known:
        def new(self, model, prompts, site, layers):
            names = {layer: f"blocks.{layer}.attn.hook_z" for layer in layers}
            return {layer: New(0.0, 0.5 * activation(model, other, names[layer])) for layer in layers}

    found, expected = (
        ik.attribution(model, prompts, edit=edit, metric=total, verify=2) for edit in (Half(other), Known())
    )
    for key in ("estimate", "exact"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-12)
    assert float(abs(found["estimate"]).max()) > 1e-3


def test_no_source_means_no_other_run():
    model = model_of(*MODELS[0])
    prompts, _ = two_runs(model)
    given = []

    class Sometimes(Half):
        def new(self, model, prompts, site, layers, taken):
            given.append(taken)
            return {layer: New(0.0, torch.zeros(())) for layer in layers}

    found = ik.sweep(model, prompts, edit=Sometimes(None), metric=total)
    assert given == [{}]
    np.testing.assert_array_equal(
        found["value"], ik.sweep(model, prompts, edit=ik.Zero(), metric=total)["value"]
    )


def test_a_source_that_is_no_method_is_the_edit_s_own_business():
    class Named:
        source = "Wang et al. 2022"

        def new(self, model, prompts, site, layers):
            return {layer: New(0.0, torch.zeros(())) for layer in layers}

    model = model_of(*MODELS[0])
    prompts, _ = two_runs(model)
    found = ik.sweep(model, prompts, edit=Named(), metric=total)["value"]
    np.testing.assert_array_equal(found, ik.sweep(model, prompts, edit=ik.Zero(), metric=total)["value"])


@pytest.mark.parametrize(
    ("lengths", "message"), [([4, 6], "as many prompts to take from"), ([4, 6, 4], "wanted equal lengths")]
)
def test_a_source_that_does_not_fit_is_refused(lengths, message):
    model = model_of(*MODELS[0])
    prompts, other = two_runs(model)
    short = ik.as_prompts(model, other.tokens[: len(lengths)], lengths=lengths)
    for verb in (ik.sweep, ik.attribution):
        with pytest.raises(ValueError, match=message):
            verb(model, prompts, edit=Half(short), metric=total)


@pytest.mark.parametrize("documented", [New, EditFromRun, Metric])
def test_the_examples_of_docstrings_run(documented):
    model = model_of(*MODELS[0])
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=4)
    other = ik.as_prompts(model, prompts.tokens.flip(0))
    (code,) = re.findall(r"(?s):\n\n    (.*?result = [^\n]*)", inspect.getdoc(documented))
    names = {"ik": ik, "torch": torch, "New": New, "Metric": Metric}
    names |= {"model": model, "prompts": prompts, "other": other}
    exec(inspect.cleandoc("\n    " + code), names)
    result = names["result"]
    assert float(abs(result["value"] - result["baseline"]).max()) > 1e-6


def test_parameters_that_are_being_trained_count_as_their_numbers():
    model = model_of(*MODELS[0])
    prompts, _ = two_runs(model)
    vector, factor = torch.linspace(-1, 1, 16, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)

    def asked(vector, factor):
        def doubled(logits, given):
            return factor * total(logits, given)

        options = {"edit": ik.Add(vector), "metric": doubled, "site": "attn_out", "by": ("layer",)}
        return [verb(model, prompts, **options, progress=False) for verb in (ik.sweep, ik.attribution)]

    trained = torch.nn.Parameter(vector), torch.nn.Parameter(factor)
    for found, expected in zip(asked(*trained), asked(vector, factor), strict=True):
        np.testing.assert_array_equal(found.to_array(), expected.to_array())
    assert all(each.grad is None for each in trained)
