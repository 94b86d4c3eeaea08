"""A model spread over several devices gives the numbers of one on the CPU, by the same lane, and stays where it is.

There is no graphics card here: `pretend` says what its tensors mind and what they do not.
"""

import functools
from dataclasses import replace

import pytest
import torch
import xarray as xr
from labelled_prompts import prompts_for
from pretend import cards, place_of, place_parameters, put
from zoo import fresh_of, hugging_face_config, model_of, randomise

import induction_kernel as ik
from induction_kernel.interventions._plan import tokens_at_once
from induction_kernel.loading._build import has_hooked_transformer, quietly
from induction_kernel.model import device_of
from induction_kernel.scorers import _pattern_entries as reading

# As HookedTransformer spreads a model: it brings the residual stream to each block, and to nothing else.
SPREAD = {"embed": 0, "pos_embed": 0, "blocks.0": 0, "blocks.1": 1, "ln_final": 1, "unembed": 1}
# As a `device_map` may spread one: accelerate brings to every module what it is given.
MAPPED = {"embed": 2, "pos_embed": 2, "blocks.0": 0, "blocks.1": 1, "ln_final": 0, "unembed": 2}
# A Bridge computes its LayerNorms from their weights, past accelerate: the last one must be where the last block is.
HUGGING_FACE = {
    "GPT-2": {
        "transformer.wte": 2, "transformer.wpe": 2, "transformer.h.0": 0, "transformer.h.1": 1, "transformer.ln_f": 1,
        "lm_head": 2,
    },
    "GPT-J": {
        "transformer.wte": 2, "transformer.h.0": 0, "transformer.h.1": 1, "transformer.ln_f": 1, "lm_head": 1,
    },
    "Llama": {
        "model.embed_tokens": 2, "model.rotary_emb": 2, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 0,
        "lm_head": 1,
    },
}  # fmt: skip
HOOKED = ("attention-only", "GPT-2", "Llama", "GPT-J")
PLACED = [
    (name, placing) for name in HOOKED for placing in ("n_devices", "mapped") if has_hooked_transformer()
] + [(name, "bridge") for name in HUGGING_FACE]


@functools.cache
def placed(name, placing):
    """A model on three pretend cards, with random weights as `plain(name, placing)` has."""
    if placing == "bridge":
        return bridge_on_cards(name)
    model = fresh_of(name, "hooked")
    where = SPREAD if placing == "n_devices" else MAPPED
    model.cfg.device, model.cfg.n_devices = ("cuda", 2) if placing == "n_devices" else ("cuda:2", 1)
    where = {part: device for part, device in where.items() if hasattr(model, part.partition(".")[0])}
    put_on_cards(model, where)
    if placing == "mapped":
        bring_inputs(model, where)
    return model


def plain(name, placing):
    return model_of(name, "bridge" if placing == "bridge" else "hooked")


@functools.cache
def on_the_cpu(model, call):
    """What a call of `CALLS` finds on a model in one piece, and the prompts."""
    prompts = prompts_for(model, prompts=2, period=6)
    return CALLS[call](model, prompts), prompts


def put_on_cards(model, where):
    for name, module in model.named_modules():
        for part, device in where.items():
            if name == part or name.startswith(f"{part}."):
                place_parameters(module, device)


def bring_inputs(model, where):
    """The hooks of `accelerate.dispatch_model` on a model whose parameters are where they should be."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    class Brings(AlignDevicesHook):
        def init_hook(self, module):
            return module  # would make the parameters anew

    first = f"cuda:{next(iter(where.values()))}"
    add_hook_to_module(model, Brings(first, io_same_device=True))
    for name, module in model.named_modules():
        for part, number in where.items():
            if name == part or (name.startswith(f"{part}.") and module.state_dict()):
                add_hook_to_module(module, Brings(f"cuda:{number}"))


def bridge_on_cards(name):
    """`zoo.around_hugging_face`, dispatched before the Bridge is put around it."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM

    with quietly(), torch.random.fork_rng(devices=[]):
        inner = AutoModelForCausalLM.from_config(
            hugging_face_config(name), attn_implementation="eager", dtype=torch.float64
        )
        randomise(inner)
        put_on_cards(inner, HUGGING_FACE[name])
        bring_inputs(inner, HUGGING_FACE[name])
        with cards():
            model = build_bridge_from_module(
                inner.eval(), type(inner).__name__, hf_config=inner.config, tokenizer=None, model_name=name,
                device="cuda:2",
            )  # fmt: skip
    model.cfg.n_ctx, model.cfg.n_devices = 40, 3
    return model.eval()


def last_logit(logits, prompts):
    return logits[torch.arange(len(prompts)), prompts.lengths - 1, 7]


def through_hooks(model, prompts):
    """`from_cache`, and `fwd_hooks` on a run of one's own."""
    tokens = prompts.tokens.to(device_of(model))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        hooks, result = ik.induction.fwd_hooks(model, prompts)
        model.run_with_hooks(tokens, fwd_hooks=hooks)
    return xr.concat([ik.prefix_matching.from_cache(cache, prompts), result()], "way")


def inside_edited(model, prompts):
    out = []
    vector = torch.arange(4.0)
    for edit, options in (
        (ik.Zero(), {"heads": "L0H1"}),
        (ik.Mean(prompts), {"heads": ["L0H1", "L1H2"]}),
        (ik.Add(vector), {"site": "v"}),
        (ik.Scale(0.5), {"site": "resid_mid" if model_has(model, "resid_mid") else "attn_out"}),
    ):
        with ik.edited(model, edit, **options):
            out.append(ik.repeat_loss(model, prompts))
    return xr.concat(out, "edit")


def model_has(model, site):
    cfg = model.cfg
    alone = getattr(cfg, "attn_only", False)
    serial = not (alone or getattr(cfg, "parallel_attn_mlp", False))
    return {"mlp_out": not alone, "resid_mid": serial}.get(site, True)


def strongest_removed(model, prompts):
    scores = ik.induction(model, prompts)
    heads = ik.top_heads(scores, 2)
    random = ik.random_heads(model, like=heads, exclude=heads)
    return xr.concat([ik.ablate(model, prompts, each, hold="patterns") for each in (heads, random)], "which")


def other_run(prompts):
    return replace(ik.Prompts(prompts.tokens.flip(1), prompts.lengths, prompts.scored), control=None)


def paired(prompts):
    return replace(prompts, answers=torch.tensor([[3, 4], [5, 6]]))


def path(site, **options):
    return lambda model, prompts: ik.path_patch(
        model, source=other_run(prompts), into=paired(prompts), site=site, **options
    )


def swept(site, **options):
    return lambda model, prompts: ik.sweep(model, prompts, site=site, **options)


def estimated(site, **options):
    return lambda model, prompts: ik.attribution(
        model, prompts, edit=ik.FromRun(other_run(prompts)), site=site, **options
    )


CALLS = {
    "observe": lambda model, prompts: ik.observe(
        model, prompts, [ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token]
    ),
    "label_attention": ik.label_attention,
    "demonstration_weights": ik.scorers.demonstration_weights,
    "patterns": lambda model, prompts: ik.patterns(model, prompts, ["L0H1", "L1H2"]),
    "copying": ik.copying,
    "copying BAN": lambda model, prompts: ik.copying(model, prompts, method="BAN"),
    "ov_eigenvalues": lambda model, _: ik.ov_eigenvalues(model, draws=2),
    "direct_effect": ik.direct_effect,
    "direct_effect on answers": lambda model, prompts: ik.direct_effect(model, paired(prompts)),
    "from_cache and fwd_hooks": through_hooks,
    "loss_by_position": ik.loss_by_position,
    "icl_score": lambda model, prompts: ik.icl_score(model, prompts, early=2, late=8),
    "label_accuracy": ik.label_accuracy,
    "probability": lambda model, prompts: ik.probability(model, paired(prompts)),
    "ablate": lambda model, prompts: ik.ablate(model, prompts, ["L0H1", "L1H2"]),
    "the strongest heads removed": strongest_removed,
    "ablation_curve": lambda model, prompts: ik.ablation_curve(
        model, prompts, ["L0H1", "L1H2", "L1H0"], ks=[1, 2], controls=2, control="any layer"
    ),
    "knock_out": lambda model, prompts: ik.knock_out(model, prompts, ik.induction.mask),
    "patch": lambda model, prompts: ik.patch(model, source=other_run(prompts), into=paired(prompts)),
    "patch, a metric of all logits": lambda model, prompts: ik.patch(
        model, source=other_run(prompts), into=paired(prompts), site="z", by=("layer", "head"), metric=last_logit
    ),
    "path_patch into the logits": path("resid_post"),
    "path_patch into queries": path("q", receivers="L1H2"),
    "path_patch into values": path("v", receivers=["L1H0"]),
    "attribution at z": estimated("z", verify=1),
    "attribution at q": estimated("q"),
    "attribution at k by position": estimated("k", by=("layer", "head", "position")),
    "attribution of patterns": estimated("pattern"),
    "edited": inside_edited,
}  # fmt: skip
CALLS |= {f"sweep of {site}": swept(site) for site in ("z", "q", "k", "v", "pattern")}
CALLS |= {
    f"sweep of {site}": swept(site, by=("layer", "position"))
    for site in ("attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")
}
CALLS |= {
    "sweep of z by position": swept("z", by=("layer", "head", "position"), edit=ik.Zero()),
    "sweep of z, patterns held": swept("z", hold="patterns", edit=ik.Resample()),
    "sweep of resid_pre, patterns held": swept("resid_pre", by=("layer",), hold="patterns"),
    "sweep of v by layer, a metric of all logits": swept("v", by=("layer",), metric=last_logit),
    "sweep of all z together, a vector added": swept("z", by=(), edit=ik.Add(torch.ones(4))),
    "sweep of resid_mid, the logit difference": lambda model, prompts: ik.sweep(
        model, paired(prompts), site="resid_post", by=("layer", "position"), metric=ik.logit_difference
    ),
    "path_patch into an MLP": path("mlp_out", receivers=1),
    "attribution of resid_mid": estimated("resid_mid", by=("layer", "position")),
    "effective embedding": lambda model, _: ik.ov_eigenvalues(model, embedding="effective", draws=2),
}
NEEDS = {
    "sweep of mlp_out": "mlp_out", "sweep of resid_mid": "resid_mid", "path_patch into an MLP": "mlp_out",
    "attribution of resid_mid": "resid_mid", "effective embedding": "mlp_out",
}  # fmt: skip


LACKS = {"attention-only": {"mlp_out", "resid_mid"}, "GPT-J": {"resid_mid"}}
QUICK = {("attention-only", "mapped"), ("GPT-2", "n_devices"), ("Llama", "mapped"), ("GPT-J", "bridge")}
if not has_hooked_transformer():
    QUICK = {("GPT-2", "bridge"), ("Llama", "bridge"), ("GPT-J", "bridge")}


def cases():
    """Every call on every model; in quick runs every other call on one model, in turn."""
    for turn, call in enumerate(CALLS):
        can = [pair for pair in PLACED if can_do(*pair, call)]
        quick = [pair for pair in can if pair in QUICK]
        for pair in can:
            slow = turn % 2 or pair != quick[turn // 2 % len(quick)]
            yield pytest.param(*pair, call, marks=pytest.mark.slow if slow else ())


def can_do(name, placing, call):
    lacks = NEEDS.get(call) in LACKS.get(name, ())
    return not lacks and (name, placing, call) != ("GPT-J", "bridge", "effective embedding")


@pytest.mark.parametrize(("name", "placing", "call"), list(cases()))
def test_a_spread_model_gives_the_numbers_of_one_on_the_cpu(name, placing, call):
    there = placed(name, placing)
    expected, prompts = on_the_cpu(plain(name, placing), call)
    weights = {key: (value, place_of(value), value._version) for key, value in there.named_parameters()}
    with cards():
        found = CALLS[call](there, prompts)
    xr.testing.assert_equal(found, expected)
    assert found.attrs == expected.attrs  # the same lane too
    kept = dict(there.named_parameters())
    assert all(kept[key] is value and place_of(value) == place for key, (value, place, _) in weights.items())
    assert all(value._version == version for value, _, version in weights.values())


@pytest.mark.skipif(not has_hooked_transformer(), reason="rows are read of HookedTransformers alone")
@pytest.mark.parametrize("call", ["observe", "label_attention", "demonstration_weights"])
def test_rows_are_read_where_each_layer_is(call, monkeypatch):
    """Not where hooks move what goes in ("mapped"): hooks are the user's, and whole patterns are read."""
    monkeypatch.setattr(reading, "LONG", 4)
    here, there = plain("GPT-2", "n_devices"), placed("GPT-2", "n_devices")
    prompts = prompts_for(here, prompts=2, period=6)
    expected = CALLS[call](here, prompts)
    with cards():
        found = CALLS[call](there, prompts)
    assert found.attrs["lane"] == "entries"
    xr.testing.assert_equal(found, expected)


@pytest.mark.parametrize(("name", "placing"), sorted(QUICK & {*PLACED}))
def test_what_the_user_brings_may_be_on_any_device(name, placing):
    here, there = plain(name, placing), placed(name, placing)
    prompts = prompts_for(here, prompts=2, period=6)
    mask, vector = ik.induction.mask(prompts.tokens, prompts.lengths), torch.ones(4)
    with torch.no_grad():
        clean = here(prompts.tokens)

    def results(model, on):
        yield ik.previous_token(model, on(prompts.tokens))
        yield ik.knock_out(model, prompts, on(mask), by=())
        yield ik.sweep(model, prompts, edit=ik.Add(on(vector)), by=("layer",))
        yield ik.sweep(model, prompts, metric=ik.kl_to(on(clean)), by=("layer",))

    expected = list(results(here, lambda tensor: tensor))
    with cards():
        found = list(results(there, lambda tensor: put(tensor, "cuda:1")))
    for mine, its in zip(found, expected, strict=True):
        xr.testing.assert_equal(mine, its)


@pytest.mark.parametrize(("name", "placing"), sorted(QUICK & {*PLACED}))
def test_every_device_of_the_model_is_asked_for_its_free_memory(name, placing):
    model = placed(name, placing)
    places = {place_of(parameter) for parameter in model.parameters()}
    for full in places:
        with cards(free=lambda device, full=full: 4 * 5000 if device == full else 2**33):
            assert tokens_at_once(model, 8, None) == 8  # room for less than one prompt
    with cards(free=lambda device: 2**33):
        assert tokens_at_once(model, 8, None) > 1000


def test_a_pretend_card_refuses_what_a_card_does():
    with cards():
        a, b, here = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1"), torch.ones(2)
        assert (a.device, b.device) == (torch.device("cuda:0"), torch.device("cuda:1"))
        for mixed in (
            lambda: a + b,
            lambda: a + here,
            lambda: a + torch.tensor(1.0, device="cuda:1"),
            lambda: torch.cat([a, b]),
            lambda: torch.einsum("i,i->", a, here),
            lambda: torch.nn.functional.linear(a, here),
            lambda: a.masked_fill(here > 0, 0),
            lambda: a.gather(0, torch.zeros(1, dtype=torch.long)),
            lambda: here[torch.zeros(1, dtype=torch.long, device="cuda:0")],
            lambda: a[torch.zeros(1, dtype=torch.long, device="cuda:1")],
            lambda: a.__setitem__(torch.zeros(1, dtype=torch.long), here[:1]),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        for unread in (a.numpy, a.__array__):
            with pytest.raises(TypeError, match="to numpy"):
                unread()


def test_a_pretend_card_allows_what_a_card_does():
    with cards():
        a = torch.ones(2, device="cuda:0")
        for found in (
            a + torch.tensor(1.0),
            a[torch.zeros(1, dtype=torch.long)],
            a.to("cuda:1").to(a),
            a.new_zeros(2),
            torch.zeros_like(a),
            torch.ones(2).cuda(),
        ):
            assert found.device == torch.device("cuda:0")
        a[:1] = torch.ones(1, device="cuda:1")  # a copy
        assert a.cpu().numpy().tolist() == [1, 1]
        assert a.tolist() == [1, 1]
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2, device="cuda:0")  # outside, there are none


@pytest.mark.skipif(not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4")
def test_a_model_with_a_part_on_the_wrong_card_fails():
    model = fresh_of("GPT-2", "hooked")
    model.cfg.device, model.cfg.n_devices = "cuda", 2
    put_on_cards(model, SPREAD | {"unembed": 0})  # where HookedTransformer does not bring the stream
    with cards(), pytest.raises(RuntimeError, match="same device"):
        ik.repeat_loss(model, prompts_for(model, prompts=2, period=6))
