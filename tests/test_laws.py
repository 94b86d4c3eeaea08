"""Laws that every scorer and edit obeys, on several architectures: one list of subjects, one test a law."""

import numpy as np
import pytest
import torch
import xarray as xr
from labelled_prompts import labelled, prompts_for
from model_state import Broken, same_snapshot, snapshot
from naive import all_patterns
from quick import one_in
from zoo import ARCHITECTURES, BASE, folded, fresh, tiny

import induction_kernel as ik
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.prompts import concat, random_tokens
from induction_kernel.scorers._pattern_entries import Reads

SCORERS = {
    "induction": ik.induction,
    "prefix_matching": ik.prefix_matching,
    "previous_token": ik.previous_token,
    "duplicate_token": ik.duplicate_token,
    "first_token": ik.first_token,
    "current_token": ik.current_token,
    "label_attention": ik.label_attention,
    "copying": ik.copying,
    "copying BAN": lambda *given, **options: ik.copying(*given, method="BAN", **options),
    "copying BAN-source": lambda *given, **options: ik.copying(*given, method="BAN-source", **options),
}
PATTERN_SCORERS = (
    "induction", "prefix_matching", "previous_token", "duplicate_token", "first_token", "current_token",
    "label_attention",
)  # fmt: skip
EDITS = {"Zero": ik.Zero(), "ZeroValues": ik.ZeroValues(), "Mean": ik.Mean()}
OF_THE_MODEL = {  # the same on raw and on processed weights
    "ZeroValues": ik.ZeroValues(),
    "Mean": ik.Mean(),
    "Resample": ik.Resample(),
    "FromRun": lambda prompts: ik.FromRun(prompts.tokens.roll(1, 0)),
    "Add": ik.Add(torch.arange(4.0)),
}
OF_THE_WEIGHTS = {
    "Zero": ik.Zero(),
    "Scale": ik.Scale(0.5),
}  # what they do depends on where the value bias is


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    return tiny(request.param)


each_scorer = pytest.mark.parametrize(
    ("model", "name"), one_in(2, ARCHITECTURES, tuple(SCORERS)), indirect=["model"]
)


@pytest.fixture
def prompts(model):
    return prompts_for(model)


@each_scorer
def test_range(model, prompts, name):
    score = SCORERS[name](model, prompts)["score"].values
    low = -1 if name == "copying" else 0
    assert (score[np.isfinite(score)] >= low).all()
    assert (score[np.isfinite(score)] <= 1 + 1e-12).all()
    assert score.shape == (4, 2, 4)


@each_scorer
def test_batch_size_changes_nothing(model, prompts, name):
    whole, single = SCORERS[name](model, prompts), SCORERS[name](model, prompts, batch_size=1)
    xr.testing.assert_allclose(whole, single, rtol=1e-12)


@each_scorer
def test_order_of_prompts_changes_nothing(model, prompts, name):
    order = [2, 0, 3, 1]
    there = SCORERS[name](model, prompts)["score"].values[order]
    np.testing.assert_allclose(SCORERS[name](model, prompts[order])["score"].values, there, rtol=1e-10)


@each_scorer
def test_padding_changes_nothing(model, prompts, name):
    longer = prompts_for(model, prompts=1, period=12)
    padded = concat([prompts, longer])[:4]
    assert padded.tokens.shape[1] > prompts.tokens.shape[1]
    a, b = (SCORERS[name](model, each) for each in (prompts, padded))
    for variable in a.data_vars:
        np.testing.assert_allclose(a[variable].values, b[variable].values, rtol=1e-10)


@each_scorer
def test_a_subset_of_layers_is_a_slice(model, prompts, name):
    whole = SCORERS[name](model, prompts)["score"].sel(layer=[1])
    np.testing.assert_allclose(SCORERS[name](model, prompts, layers=[1])["score"].values, whole.values)


@each_scorer
def test_results_survive_a_file(model, prompts, name, tmp_path):
    result = SCORERS[name](model, prompts)
    result.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), result)
        assert {key: back.attrs[key] for key in result.attrs} == result.attrs
    assert all(isinstance(value, str | int | float) for value in result.attrs.values())


@pytest.mark.parametrize("name", one_in(3, tuple(SCORERS)))
def test_an_untrained_model_has_no_heads_above_threshold(name):
    for seed in range(3):
        untrained = fresh("attention-only", n_ctx=96, d_vocab=243, seed=seed, n_heads=8, d_model=32)
        with torch.no_grad():  # the usual small start, not the zoo's sharp attention
            for parameter in untrained.parameters():
                parameter.mul_(0.2)
        prompts = None if name not in ("label_attention",) else labelled(ik.repeated_tokens(untrained, bos=0))
        found = ik.summarise(SCORERS[name](untrained, prompts))
        assert not bool((found["passes"] == 1).any()), str(found["excess"].max())


@pytest.mark.parametrize(("model", "name"), one_in(2, ARCHITECTURES, PATTERN_SCORERS), indirect=["model"])
def test_cache_hooks_and_stream_agree(model, prompts, name):
    scorer = SCORERS[name]
    streamed = scorer(model, prompts)
    _, cache = model.run_with_cache(prompts.tokens)
    hooks, result = scorer.fwd_hooks(model, prompts)
    logits = model.run_with_hooks(prompts.tokens, fwd_hooks=hooks)
    torch.testing.assert_close(logits, model(prompts.tokens), rtol=0, atol=0)
    for other in (
        scorer.from_cache(cache, prompts),
        result(),
        ik.observe(model, prompts, [scorer]).isel(scorer=0),
    ):
        np.testing.assert_allclose(other["score"].values, streamed["score"].values, rtol=1e-12)


def test_observing_together_is_observing_alone(model, prompts):
    scorers = [SCORERS[name] for name in PATTERN_SCORERS]
    together = ik.observe(model, prompts, scorers)
    for scorer in scorers:
        alone = scorer(model, prompts)
        for variable in ("score", "control", "chance"):
            if variable in alone:
                values = together[variable].sel(scorer=scorer.name).values
                np.testing.assert_allclose(values, alone[variable].values, rtol=1e-12)


def test_patterns_are_those_of_the_cache(model, prompts):
    found = ik.patterns(model, prompts, ["L0H1", "L1H3", "L1H0"])
    cached = all_patterns(model, prompts.tokens)
    for i, (layer, head) in enumerate([(0, 1), (1, 3), (1, 0)]):
        for p, length in enumerate(prompts.lengths.tolist()):
            there = cached[layer][p, head, :length, :length].float().numpy()
            np.testing.assert_allclose(found["pattern"][p, i, :length, :length].values, there, atol=1e-6)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_leave_what_is_earlier(model, prompts, edit):
    """Editing a head of layer 1 moves nothing in layer 0, and other heads' z in layer 1 stay."""
    from induction_kernel.interventions._changes import tap
    from induction_kernel.interventions._intervention import Intervention, new_values
    from induction_kernel.interventions._plan import Cell
    from induction_kernel.model import run
    from induction_kernel.replay._capture import hooks_at

    new, *_ = new_values(model, prompts, Intervention(edit, "z"), {1}).of(slice(None))
    seen = {}
    hooks = hooks_at(1, {"z": tap([Cell({1: (2,)})], new, "z", 1, 0)}, 1)
    keep = [(f"blocks.{layer}.attn.hook_z", keeping(seen, layer)) for layer in (0, 1)]
    run(model, prompts.tokens, keep, lengths=None)
    clean = {layer: z.clone() for layer, z in seen.items()}
    run(model, prompts.tokens, hooks + keep, lengths=None)
    torch.testing.assert_close(seen[0], clean[0])
    torch.testing.assert_close(seen[1][:, :, [0, 1, 3]], clean[1][:, :, [0, 1, 3]])
    assert not torch.allclose(seen[1][:, :, 2], clean[1][:, :, 2])


def keeping(seen, layer):
    def hook(z, hook):
        seen[layer] = z.clone()

    return hook


def raw_and_processed(name, edit):
    """The effects of removing two heads from a model and from the same one with its weights processed."""
    raw, processed = fresh(name), folded(fresh(name))
    prompts = prompts_for(raw, period=6)
    edit = edit(prompts) if callable(edit) else edit
    return [
        ik.ablate(each, prompts, ["L0H1", "L1H3"], edit=edit)["effect"].values for each in (raw, processed)
    ]


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
@pytest.mark.parametrize("edit", OF_THE_MODEL.values(), ids=OF_THE_MODEL)
def test_raw_and_processed_weights_have_the_same_effects(name, edit):
    np.testing.assert_allclose(*raw_and_processed(name, edit), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
@pytest.mark.parametrize("edit", OF_THE_WEIGHTS.values(), ids=OF_THE_WEIGHTS)
def test_zero_and_scale_take_the_value_bias_where_it_stands(name, edit):
    raw, processed = raw_and_processed(name, edit)
    assert np.abs(raw - processed).max() > 1e-3


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_ablation_does_not_depend_on_batches(model, prompts, edit):
    whole = ik.ablate(model, prompts, ["L0H1", "L1H2"], edit=edit)
    single = ik.ablate(model, prompts, ["L0H1", "L1H2"], edit=edit, max_tokens=prompts.tokens.shape[1])
    xr.testing.assert_allclose(whole, single, rtol=1e-9)


def test_the_mean_of_one_prompt_over_itself_changes_nothing(model):
    prompt = random_tokens(model, bos=0, prompts=1, length=12)
    same = ik.ablate(
        model, prompt, "L0H1", edit=ik.Mean(prompt), metric=lambda logits, given: logits[:, -1, 0]
    )
    assert float(same["effect"][0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "error"), one_in(2, ARCHITECTURES, [Broken, KeyboardInterrupt, None]), indirect=["model"]
)
def test_the_model_is_given_back_as_it_was(model, prompts, error):
    """Training mode of every module, hooks, weights, gradients, random state; after an exception and Ctrl-C too."""
    ik.ablate(model, prompts, "L0H0")  # a Bridge's first hooked run leaves hooks of its own
    modules = list(model.modules())
    was = [module.training for module in modules]
    modules[0].training, modules[3].training = True, True
    tokens = prompts.tokens.clone()
    before = snapshot(model)

    def fails(*_):
        if error is not None:
            raise error
        return torch.zeros(4)

    def failing_mask(tokens, lengths):
        return torch.ones(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()

    scorer = ik.AttentionScorer("fails", failing_mask)

    def failing_reads(prompts, *, causal):
        return Reads(scorer.entries(prompts, causal=causal), {"score": fails})

    object.__setattr__(scorer, "reads", failing_reads) if error else None
    calls = [
        lambda: scorer(model, prompts),
        lambda: ik.ablate(model, prompts, "L1H1", metric=fails),
        lambda: ik.copying(model, prompts),
        lambda: ik.patterns(model, prompts, "L0H0"),
        lambda: ik.ov_eigenvalues(model),
        lambda: ik.loss_by_position(model, prompts),
    ]
    for i, call in enumerate(calls):
        if error is not None and i < 2:
            with pytest.raises(error):
                call()
        else:
            call()
    same_snapshot(before, snapshot(model))
    assert torch.equal(tokens, prompts.tokens)
    for module, flag in zip(modules, was, strict=True):
        module.training = flag


def test_users_hooks_stay(model, prompts):
    seen = []
    model.add_hook("blocks.0.attn.hook_pattern", lambda pattern, hook: seen.append(1))
    try:
        ik.induction(model, prompts)
        ik.ablate(model, prompts, "L0H0")
        assert seen
        seen.clear()
        model(prompts.tokens)
        assert seen == [1]
    finally:
        model.reset_hooks()


def test_no_more_than_one_layers_patterns_are_kept():
    import weakref

    model = fresh("attention-only", n_layers=4)
    prompts = prompts_for(model)
    alive, most = [], 0

    def mask(tokens, lengths):
        return torch.ones(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()

    def hook(pattern, hook):
        nonlocal most
        alive.append(weakref.ref(pattern))
        most = max(most, sum(each() is not None for each in alive))

    with model.hooks(fwd_hooks=[(lambda name: name.endswith("pattern"), hook)]):
        ik.AttentionScorer("all", mask)(model, prompts)
    assert most <= 2  # the one being made and the one before it, while the forward pass still holds it


def test_the_pass_ends_in_the_last_layer_needed():
    model = fresh("attention-only", n_layers=4)
    fired = []
    hooks = [
        (f"blocks.{layer}.hook_resid_post", lambda x, hook: fired.append(hook.layer())) for layer in range(4)
    ]
    with model.hooks(fwd_hooks=hooks):
        ik.induction(model, prompts_for(model), layers=[0, 1])
    assert set(fired) == {0}


def test_sizes_of_the_zoo():
    assert BASE["n_heads"] == 4


def test_queries_without_a_label_have_no_right_class(model):
    from dataclasses import replace

    prompts = prompts_for(model)
    found = replace(prompts.demonstrations, target=torch.tensor([0, -1, 1, -1]))
    scores = ik.label_attention(model, replace(prompts, demonstrations=found), batch_size=1)
    assert np.isnan(scores["right"].values[[1, 3]]).all()
    assert np.isfinite(scores["right"].values[[0, 2]]).all()
    assert np.isfinite(scores["score"].values).all()
