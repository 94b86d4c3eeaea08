"""Faults of threads, of devices without float64, of what is pickled, and of errors that came raw."""

import ast
import copy
import functools
import gc
import inspect
import pickle
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pretend import cards, place_parameters
from processes import in_python
from public import verbs
from quick import one_in
from shots import random_shots
from verbs import VERBS, episodes, repeats, shots
from written import TOKENS, last_logit, written
from zoo import fresh_of, tiny

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.model import all_modules
from induction_kernel.prompts._fingerprints import fingerprint, weights_of


@pytest.fixture(scope="module")
def embedded():
    return ik.load("tiny")


def without_demonstrations(model):
    """Few-shot prompts of which the second has none."""
    from dataclasses import replace

    prompts = ik.prompts.word_episodes(model, shots=2, prompts=2)
    shots = prompts.demonstrations
    return replace(prompts, demonstrations=replace(shots, mask=shots.mask & torch.tensor([[True], [False]])))


@pytest.mark.parametrize(
    "verb",
    [
        ik.label_attention,
        ik.scorers.demonstration_weights,
        ik.fewshot.predict,
        ik.fewshot.label_flow,
        ik.kernel.demonstration_attention,
        ik.kernel.label_logits,
        lambda model, prompts: ik.fewshot.label_knock_out(model, prompts, "L1H7"),
        ik.kernel.probe,
        ik.fewshot.function_vector_effect,
        ik.fewshot.fit_label_weights,
    ],
)
def test_a_prompt_without_demonstrations_is_named(embedded, verb):
    with pytest.raises(ValueError, match=r"prompt 1 has no demonstration"):
        verb(embedded, without_demonstrations(embedded))


@pytest.mark.parametrize("head", ["L1H9", (2, 0), "L5H1", (0, -1)])
def test_a_head_that_is_not_there(embedded, head):
    with pytest.raises(ValueError, match=r"does not exist: this model has layers 0 to 1 and heads 0 to 7"):
        ik.ablate(embedded, None, head)


@pytest.mark.parametrize(
    ("metric", "got"),
    [("loss", "'loss'"), (None, "None"), (ik.kl_to, "kl_to itself"), (ik.icl_score, "icl_score itself")],
)
def test_what_is_no_metric(embedded, metric, got):
    names = r"loss, repeat_loss, label_accuracy, logit_difference, probability or kl_to\(logits\)"
    with pytest.raises(TypeError, match=rf"{names}.*got {got}"):
        ik.sweep(embedded, None, metric=metric)


HOOKED_AND_BRIDGE = [("GPT-2", "hooked"), ("GPT-2", "bridge"), ("Llama", "native")]
if not has_hooked_transformer():
    HOOKED_AND_BRIDGE = HOOKED_AND_BRIDGE[1:]


def from_other(prompts):
    return prompts.tokens.flip(0)


def answered(prompts):
    return replace(prompts, answers=torch.tensor([[3, 4], [5, 6]]))


def edited_loss(model, prompts):
    with ik.edited(model, ik.Zero(), "L1H1"):
        return ik.loss(model, prompts)


def edited_by_hand(model, prompts):
    """The user's own call inside the context."""
    with ik.edited(model, ik.Zero(), "L0H1"), torch.no_grad():
        return xr.DataArray(model(prompts.tokens).numpy())


def to_earlier(prompts):
    return torch.ones(prompts.tokens.shape[1], prompts.tokens.shape[1], dtype=torch.bool).tril(-1)


SHARED = {
    "observe": lambda m, p: ik.observe(m, p, [ik.induction, ik.previous_token]),
    "patterns": lambda m, p: ik.patterns(m, p, ["L0H1", "L1H2"]),
    "copying": ik.copying,
    "ov_eigenvalues": lambda m, p: ik.ov_eigenvalues(m, draws=1),
    "direct_effect": lambda m, p: ik.direct_effect(m, answered(p)),
    "loss": ik.loss,
    "ablate": lambda m, p: ik.ablate(m, p, ["L0H1", "L1H2"]),
    "ablate, held": lambda m, p: ik.ablate(m, p, "L0H1", edit=ik.Zero(), hold="patterns"),
    "sweep": lambda m, p: ik.sweep(m, p, by=("layer", "head", "position"), edit=ik.Zero()),
    "sweep of patterns": lambda m, p: ik.sweep(m, p, site="pattern"),
    "knock_out": lambda m, p: ik.knock_out(m, p, to_earlier(p)),
    "patch": lambda m, p: ik.patch(m, source=from_other(p), into=answered(p)),
    "path_patch": lambda m, p: ik.path_patch(m, source=from_other(p), into=answered(p)),
    "attribution": lambda m, p: ik.attribution(m, p, edit=ik.FromRun(from_other(p)), site="q"),
    "edited, then measured": edited_loss,
    "edited, then called": edited_by_hand,
}


def state_of(model):
    """What a call must give back: flags of training, hooks, gradient mode, weights."""
    modules = list(model.modules())
    hooks = [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(getattr(m, "fwd_hooks", ())) for m in modules
    ]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    return [m.training for m in modules], hooks, torch.is_grad_enabled(), weights


def same_state(one, other):
    assert one[:3] == other[:3]
    assert all(torch.equal(one[3][key], other[3][key]) for key in one[3])


def in_threads(tasks, n):
    """What each task gives, n of them at once, started together."""
    gate = threading.Barrier(n)

    def worker(mine):
        gate.wait()
        return [task() for task in mine]

    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(worker, tasks[i::n]) for i in range(n)]
        found = [future.result(timeout=300) for future in futures]
    return [found[i % n][i // n] for i in range(len(tasks))]


@pytest.mark.parametrize(("name", "kind"), one_in(2, HOOKED_AND_BRIDGE))
def test_threads_get_the_sequential_answers(name, kind):
    """Every verb in turn, four threads at once, on a model not used before, with a module in training mode."""
    alone, shared = fresh_of(name, kind), fresh_of(name, kind)
    prompts = ik.repeated_tokens(alone, bos=0, prompts=2, period=4)
    expected = {key: call(alone, prompts) for key, call in SHARED.items()}
    list(shared.modules())[-1].training = True
    before = [module.training for module in shared.modules()]
    order = [*SHARED, *reversed(SHARED), *SHARED]
    found = in_threads([functools.partial(SHARED[key], shared, prompts) for key in order], 4)
    for key, each in zip(order, found, strict=True):
        xr.testing.assert_identical(each, expected[key])
    assert [module.training for module in shared.modules()] == before
    assert torch.is_grad_enabled()
    SHARED["ablate"](alone, prompts)
    list(alone.modules())[-1].training = True
    same_state(state_of(shared), state_of(alone))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"])
def test_every_verb_gives_threads_the_sequential_answer(kind):
    alone, shared = (ik.load("tiny", bridge=kind == "bridge") for _ in range(2))
    expected = {verb: call(alone) for verb, call in VERBS.items()}
    before = state_of(shared)
    order = [*VERBS, *reversed(VERBS)]
    for verb, found in zip(
        order, in_threads([functools.partial(VERBS[each], shared) for each in order], 4), strict=True
    ):
        xr.testing.assert_identical(found, expected[verb])
    after = state_of(shared)
    assert after[0] == before[0]
    assert all(torch.equal(after[3][key], before[3][key]) for key in before[3])


def test_the_same_ablation_in_48_threads_that_start_together():
    model = tiny("GPT-2")
    heads = [f"L{i % 2}H{i % 4}" for i in range(48)]
    calls = [
        functools.partial(ik.ablate, model, TOKENS, head, edit=ik.Zero(), metric=last_logit) for head in heads
    ]
    expected = [written(model, "z", i % 2, lambda old: 0 * old, head=i % 4) for i in range(48)]
    for found, value in zip(in_threads(calls, 8), expected, strict=True):
        np.testing.assert_allclose(found["value"].values, value, rtol=1e-9)


@pytest.mark.parametrize(("name", "kind"), HOOKED_AND_BRIDGE)
def test_the_users_own_calls_in_another_thread_do_not_meet_a_measurement(name, kind):
    """Its hooks end the pass early, edit, and unembed fewer positions: in its own thread alone."""
    model = fresh_of(name, kind)
    ik.loss(model, TOKENS)
    with torch.no_grad():
        expected = model(TOKENS)
    stop = threading.Event()

    def calls():
        found = []
        while not stop.is_set():
            with torch.no_grad():
                found.append(model(TOKENS))
        return found

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(calls)
        try:
            for _ in range(3):
                ik.ablate(model, TOKENS, "L0H1", edit=ik.Zero(), metric=ik.loss)
                ik.direct_effect(model, TOKENS)
                ik.patterns(model, TOKENS, "L0H1")
                ik.attribution(model, TOKENS, edit=ik.Zero(), metric=ik.loss)
        finally:
            stop.set()
        found = future.result(timeout=60)
    assert len(found) > 3
    assert all(torch.equal(each, expected) for each in found)


def test_dask_delayed_gives_the_sequential_answers():
    dask = pytest.importorskip("dask")
    model = tiny("GPT-2")
    heads = [f"L{layer}H{head}" for layer in range(2) for head in range(4)] * 3
    expected = [ik.ablate(model, TOKENS, head, metric=ik.loss, progress=False) for head in heads]
    tasks = [dask.delayed(ik.ablate)(model, TOKENS, head, metric=ik.loss, progress=False) for head in heads]
    for found, value in zip(dask.compute(*tasks, scheduler="threads", num_workers=4), expected, strict=True):
        xr.testing.assert_identical(found, value)


def test_other_threads_do_not_see_an_edit():
    """They wait until the context is left, also where it is left by an exception; the thread itself goes on."""
    model = tiny("GPT-2")
    clean = ik.loss(model, TOKENS)["value"].values
    with ThreadPoolExecutor(1) as pool:
        for error in (None, KeyError, KeyboardInterrupt):
            with suppress(KeyError, KeyboardInterrupt), ik.edited(model, ik.Zero(), ["L0H1", "L1H1"]):
                future = pool.submit(ik.loss, model, TOKENS)
                inside = ik.loss(model, TOKENS)["value"].values
                assert not future.done()
                if error is not None:
                    raise error
            np.testing.assert_array_equal(future.result(timeout=60)["value"].values, clean)
            assert np.abs(inside - clean).max() > 1e-3


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_call_that_fails_in_a_thread_leaves_the_model_to_the_others(error):
    model = fresh_of("GPT-2", "hooked" if has_hooked_transformer() else "bridge")
    expected = ik.ablate(model, TOKENS, "L0H1", metric=ik.loss)["value"].values
    before = state_of(model)

    def fails(logits, prompts):
        raise error

    def tried(call):
        try:
            return call()
        except error:
            return None

    calls = [
        functools.partial(ik.ablate, model, TOKENS, "L0H1", metric=ik.loss),
        functools.partial(ik.ablate, model, TOKENS, "L0H1", metric=fails),
        functools.partial(ik.attribution, model, TOKENS, edit=ik.Zero(), metric=fails),
    ] * 6
    found = in_threads([functools.partial(tried, call) for call in calls], 6)
    for each in found[::3]:
        np.testing.assert_array_equal(each["value"].values, expected)
    assert found[1::3] == found[2::3] == [None] * 6
    same_state(before, state_of(model))


def test_models_loaded_in_threads_leave_the_process_as_it_was():
    torch.manual_seed(3)
    state, stdout = torch.get_rng_state(), sys.stdout
    filters = list(warnings.filters)
    expected = ik.load("tiny").state_dict()
    for model in in_threads([functools.partial(ik.load, "tiny")] * 8, 4):
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.stdout is stdout
    assert warnings.filters == filters


def test_a_lock_does_not_keep_a_model():
    model = fresh_of("GPT-2", "hooked" if has_hooked_transformer() else "bridge")
    ik.loss(model, TOKENS)
    left = weakref.ref(model)
    copy.deepcopy(model)  # no lock can be copied: it stands beside the model
    del model
    gc.collect()
    assert left() is None


def on_apple(model):
    """The model on a pretend device that has no float64."""
    for module in all_modules(model):
        place_parameters(module, "mps")
    model.cfg.device = "mps"
    return model


@functools.cache
def embedded_on(kind, where="cpu"):
    model = ik.load("tiny", bridge=kind == "bridge")
    return model if where == "cpu" else on_apple(model)


EMBEDDED = (
    ["hooked", pytest.param("bridge", marks=pytest.mark.slow)] if has_hooked_transformer() else ["bridge"]
)


@pytest.mark.parametrize("kind", EMBEDDED)
@pytest.mark.parametrize("verb", one_in(3, tuple(VERBS)))
def test_every_verb_runs_on_a_device_without_float64(verb, kind):
    expected = VERBS[verb](embedded_on(kind))
    with cards():
        found = VERBS[verb](embedded_on(kind, "mps"))
    xr.testing.assert_identical(found, expected)


def test_the_table_of_verbs_has_them_all():
    """All public functions of a model but those that make prompts or draw heads, and pages, which call the others."""
    makers = {
        "as_prompts", "repeated_tokens", "few_shot_prompts", "word_episodes", "pairs", "with_answers", "zero_shot",
        "random_heads", "random_sets",
    }  # fmt: skip
    public = {path.rpartition(".")[2]: of for path, of in verbs().items()}
    first = {name: next(iter(inspect.signature(of).parameters), "") for name, of in public.items()}
    functions = {name for name, of in public.items() if not inspect.isclass(of)}
    of_models = {name for name in functions if first[name] in ("model", "models")} - makers
    assert of_models - {name.partition(",")[0] for name in VERBS} == {"continuity"}


OTHER_BLOCKS = {
    "sweep of an MLP": lambda m, p: ik.sweep(m, p, site="mlp_out", by=("layer", "position")),
    "attribution of queries": lambda m, p: ik.attribution(m, p, edit=ik.Zero(), site="q"),
    "effective embedding": lambda m, p: ik.ov_eigenvalues(m, embedding="effective", draws=1),
    "fingerprint": lambda m, p: xr.DataArray([fingerprint(weights_of(m), labelled_shots())]),
    "representations": lambda m, p: ik.kernel.representations(m, labelled_shots(), "head"),
}


def labelled_shots():
    return random_shots(n=2, shots=3)


@pytest.mark.parametrize(
    ("call", "name", "kind"),
    one_in(3, tuple(OTHER_BLOCKS), [("GPT-2", "hooked"), ("Llama", "native"), ("GPT-J", "bridge")]),
)
def test_mlps_and_rotary_positions_do_without_float64(name, kind, call):
    if kind == "hooked" and not has_hooked_transformer():
        pytest.skip("HookedTransformer is not in TransformerLens 4")
    if (name, call) == ("GPT-J", "effective embedding"):
        pytest.skip("its first MLP stands beside attention")
    here, there = (fresh_of(name, kind, dtype=torch.float32) for _ in range(2))
    prompts = ik.repeated_tokens(here, bos=0, prompts=2, period=4)
    on_apple(there)
    with cards():
        found = OTHER_BLOCKS[call](there, prompts)
    xr.testing.assert_identical(found, OTHER_BLOCKS[call](here, prompts))


def test_the_pretend_device_refuses_what_apples_does():
    with cards():
        there = torch.ones(2, device="mps")
        for asked in (
            there.double,
            lambda: there.to(torch.float64),
            lambda: there.to("cpu", torch.float64),
            lambda: torch.ones(2, dtype=torch.float64).to("mps"),
            lambda: torch.zeros(2, device="mps", dtype=torch.float64),
            lambda: torch.full_like(there, 0.5, dtype=torch.float64),
        ):
            with pytest.raises(TypeError, match="doesn't support float64"):
                asked()
        assert there.cpu().double().dtype == torch.float64
        assert torch.ones(2, dtype=torch.float64).to(there).dtype == torch.float32


def by_hand(logits, prompts, clean):
    """Each metric of whole logits, from its definition."""
    last = torch.arange(len(prompts)), prompts.lengths - 1
    logs = logits.log_softmax(-1)
    losses = -logs[:, :-1].gather(-1, prompts.tokens[:, 1:, None])[..., 0]
    second = prompts.scored[:, :-1]  # prompts of one length, the last token has no next one
    right, wrong = prompts.answers.T
    rows = torch.arange(len(prompts))
    was = clean[last].log_softmax(-1)
    return {
        "loss": losses.mean(1),
        "repeat_loss": (losses * second).sum(1) / second.sum(1),
        "logit_difference": logits[last][rows, right] - logits[last][rows, wrong],
        "probability": logs[last][rows, right].exp(),
        "kl_to": (was.exp() * (was - logs[last])).sum(-1),
    }


@pytest.mark.parametrize("name", ["loss", "repeat_loss", "logit_difference", "probability", "kl_to"])
def test_metrics_pickle_and_measure_the_same(name):
    model = tiny("GPT-2")
    prompts = replace(
        ik.repeated_tokens(model, bos=0, prompts=2, period=4), answers=torch.tensor([[3, 4], [5, 6]])
    )
    with torch.no_grad():
        logits, clean = model(prompts.tokens), model(prompts.tokens.flip(1))
    metric = pickle.loads(pickle.dumps(ik.kl_to(clean) if name == "kl_to" else getattr(ik, name)))
    expected = by_hand(logits, prompts, clean)[name].numpy()
    np.testing.assert_allclose(ik.sweep(model, prompts, metric=metric)["baseline"], expected, rtol=1e-9)
    found = ik.ablate(model, prompts, "L0H1", metric=metric, max_tokens=prompts.tokens.shape[1])
    np.testing.assert_allclose(found["baseline"], expected, rtol=1e-9)  # one prompt a batch: of each its own


def holdings():
    """What measures and tasks of a pool may hold."""
    model = embedded_on("hooked" if has_hooked_transformer() else "bridge")
    prompts = repeats(model)
    public = {path: of for path, of in verbs().items() if not isinstance(of, type)}
    return public | {
        "Prompts": prompts,
        "few-shot Prompts": shots(model),
        "Demonstrations": shots(model).demonstrations,
        "Episodes": episodes(),
        "LabelledTexts": episodes().pool,
        "Head": ik.Head(0, 1),
        "Recipe": ik.training.Recipe(),
        "AttentionScorer": ik.AttentionScorer("mine", ik.induction.mask),
        "kl_to of logits": ik.kl_to(torch.ones(3, 5)),
        "Zero": ik.Zero(),
        "ZeroValues": ik.ZeroValues(),
        "Scale": ik.Scale(0.5),
        "Add": ik.Add(torch.ones(4)),
        "Mean": ik.Mean(prompts),
        "Resample": ik.Resample(prompts, seed=1),
        "FromRun": ik.FromRun(prompts),
        "KnockOut": ik.KnockOut(torch.ones(2, 2).tril(-1).bool()),
        "a metric of prompts": functools.partial(ik.repeat_loss, prompts=prompts),
        "an ablation": functools.partial(ik.ablate, prompts=prompts, heads="L1H7", edit=ik.Mean(prompts)),
        "few-shot answers": functools.partial(ik.fewshot.predict, data=episodes()),
    }


def test_what_measures_hold_pickles_and_has_a_fingerprint_of_its_own():
    marks = {}
    for name, held in holdings().items():
        again = pickle.loads(pickle.dumps(held))
        assert type(again) is type(held), name
        marks[name] = fingerprint(held)
        assert fingerprint(again) == marks[name], name
    assert len({*marks.values()}) == len(marks)


@pytest.mark.slow
def test_fingerprints_are_the_same_in_every_process(tmp_path):
    """Another seed of Python's hashes, and a tokenizer that has just padded for someone."""
    code = """
from test_faults_threads import embedded_on, fingerprint, has_hooked_transformer, holdings
model = embedded_on("hooked" if has_hooked_transformer() else "bridge")
model.tokenizer(["fox", "fox wolf"], padding=True, truncation=True, max_length=2)
print({name: fingerprint(held) for name, held in holdings().items()})
"""
    there = in_python(code, PYTHONHASHSEED="7")
    assert not there.returncode, there.stderr
    assert ast.literal_eval(there.stdout.splitlines()[-1]) == {
        name: fingerprint(held) for name, held in holdings().items()
    }


def test_prompts_of_another_tokenizer_have_another_fingerprint():
    prompts = repeats(embedded_on("hooked" if has_hooked_transformer() else "bridge"))
    other = copy.deepcopy(prompts.tokenizer)
    assert fingerprint(replace(prompts, tokenizer=other)) == fingerprint(prompts)
    other.add_tokens(["zebra"])
    assert fingerprint(replace(prompts, tokenizer=other)) != fingerprint(prompts)
    tokens = prompts.tokens.clone()
    tokens[0, 2] += 1
    assert fingerprint(replace(prompts, tokens=tokens)) != fingerprint(prompts)


def test_a_measure_that_holds_prompts_is_kept_in_a_folder(tmp_path):
    model = embedded_on("hooked" if has_hooked_transformer() else "bridge")
    prompts = repeats(model)
    measures = {"repeat": functools.partial(ik.repeat_loss, prompts=prompts)}
    steps = [0, 800]
    found = ik.training.over_checkpoints(
        "tiny", measures, checkpoints=steps, path=tmp_path / "kept", progress=False
    )
    for step in steps:
        at_step = ik.load("tiny", checkpoint=step)
        with torch.no_grad():
            logits = at_step(prompts.tokens)
        losses = -logits.log_softmax(-1)[:, :-1].gather(-1, prompts.tokens[:, 1:, None])[..., 0]
        scored = prompts.scored[:, :-1]
        expected = (losses * scored).sum(1) / scored.sum(1)
        np.testing.assert_allclose(found["repeat"].sel(checkpoint=step), expected, rtol=1e-4)
    again = ik.training.over_checkpoints(
        "tiny", measures, checkpoints=steps, path=tmp_path / "kept", progress=False
    )
    xr.testing.assert_identical(again, found)
