"""The sweep equals one whole hooked run a cell, everywhere it may be asked; and leaves the model as it was."""

import itertools
import sys
from collections import Counter
from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from labelled_prompts import prompts_for
from model_state import state_of
from quick import one_in
from whole_runs import (
    BYS,
    CLOSE,
    EDITS,
    NARROW,
    SITES,
    compared,
    edit_for,
    halved,
    legal,
    tokens_for,
    weighed,
)
from zoo import FASTEST, PAIRS, fresh_of, hooked_only, hooked_with, model_of

import induction_kernel as ik
from induction_kernel.interventions._edits import Add, KnockOut, Zero
from induction_kernel.interventions._edits_from_runs import FromRun, Mean, Resample
from induction_kernel.metrics import _metric as metrics
from induction_kernel.metrics import _standard as standard

SENSELESS_BYS = (
    ("head",),
    ("position",),
    ("head", "layer"),
    ("position", "layer"),
    ("layer", "layer"),
    ("key",),
)


def cells_of(name):
    """Every legal (edit, site, hold, [by, ...]) of an architecture."""
    for edit, site, hold in itertools.product(EDITS, SITES, (None, "patterns")):
        bys = [by for by in BYS if legal(name, edit, site, by, hold)]
        if bys:
            yield edit, site, hold, bys


ALL = [(name, kind, *cell) for name, kind in PAIRS for cell in cells_of(name)]


def chosen():
    """A cell or two a site of every model, so that every edit, `by` and `hold` is there too, in turn."""
    out = []
    for turn, (name, kind) in enumerate(PAIRS):
        used = Counter()
        cells = list(cells_of(name))
        for site in ("pattern", *SITES):
            here = [(edit, hold, by) for edit, at, hold, bys in cells if at == site for by in bys]
            here = here[turn % 7 :] + here[: turn % 7]
            if here:
                # KnockOut has no other site, so it comes first there.
                cell = min(
                    here,
                    key=lambda it: (it[0] != "KnockOut" or used["KnockOut"], *(used[part] for part in it)),
                )
                used.update(cell)
                edit, hold, by = cell
                out.append((name, kind, edit, site, hold, [by]))
    return out


def named(rows, *, quick=1):
    """Rows as parameters; in quick runs one in so many."""
    return pytest.mark.parametrize(
        ("name", "kind", "edit", "site", "hold", "bys"),
        [
            pytest.param(
                *row, marks=() if turn % quick == 0 else pytest.mark.in_turn, id="-".join(map(str, row[:5]))
            )
            for turn, row in enumerate(rows)
        ],
    )


LENGTHS = {"equal": [5, 5, 5], "unequal": [4, 6, 3]}


def check(name, kind, edit, site, hold, bys, turn):
    model = model_of(name, kind)
    lengths = LENGTHS["equal" if turn % 2 == 0 or (site == "pattern" and edit == "Mean") else "unequal"]
    prompts = tokens_for(model, lengths)
    made, drawn = edit_for(edit, model, prompts, site)
    metric = NARROW if turn % 4 < 2 else weighed
    for by in bys:
        compared(
            model,
            prompts,
            edit=made,
            site=site,
            by=by,
            hold=hold,
            metric=metric,
            drawn=drawn,
            close=CLOSE,
        )


FEW = chosen()


@named(FEW, quick=2)
def test_equals_the_naive_loop(name, kind, edit, site, hold, bys):
    check(name, kind, edit, site, hold, bys, FEW.index((name, kind, edit, site, hold, bys)))


@pytest.mark.slow
@named(ALL)
def test_equals_the_naive_loop_everywhere(name, kind, edit, site, hold, bys):
    turn = [cell[:3] for cell in cells_of(name)].index((edit, site, hold)) + PAIRS.index((name, kind))
    check(name, kind, edit, site, hold, bys, turn)


@pytest.mark.parametrize(
    ("edit", "site"), [("FromRun", "z"), ("KnockOut", "pattern"), ("Scale", "resid_mid")]
)
def test_the_naive_loop_in_one_batch_is_one_run_a_cell(edit, site):
    model = model_of("GPT-2", "bridge")
    prompts = tokens_for(model, LENGTHS["unequal"])
    options = {"site": site, "by": ("layer", "position"), "metric_function": weighed}
    options["edit"] = edit_for(edit, model, prompts, site)[0]
    together, alone = (naive.sweep(model, prompts, at_once=n, **options)[0] for n in (64, 1))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)
    assert np.nanstd(alone) > 1e-3


def options_for(model, edit, site, lengths=(5, 5, 5)):
    prompts = tokens_for(model, list(lengths))
    return prompts, edit_for(edit, model, prompts, site)[0]


def table(name):
    """What may be asked of an architecture, a row a site."""
    cells = list(cells_of(name))
    yield f"{name}: site | edits | by | held patterns"
    for site in SITES:
        here = [cell for cell in cells if cell[1] == site]
        if here:
            edits = " ".join(dict.fromkeys(edit for edit, *_ in here))
            bys = " ".join("+".join(by) or "()" for by in here[0][3])
            yield f"{site} | {edits} | {bys} | {'yes' if any(cell[2] for cell in here) else 'no'}"


def test_the_table_of_what_may_be_asked():
    """Shown by `pytest -rP`."""
    for name in ("attention-only", "GPT-2", "GPT-J"):
        sys.stdout.write("\n".join([*table(name), "", ""]))
    counts = {
        name: sum(len(bys) for *_, bys in cells_of(name)) for name in ("attention-only", "GPT-2", "GPT-J")
    }
    # z and v: 7 edits x 5 by x 2; q and k: 6 x 5; pattern: 4 x 5; a site of the stream: 6 x 3 x 2
    assert counts == {"attention-only": 328, "GPT-2": 400, "GPT-J": 364}


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_fast_lanes_are_taken(name, kind):
    """Also after a call and a `run_with_cache`, which leave hooks of transformers and TransformerLens behind."""
    model = fresh_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    lanes = []
    for _ in range(2):
        found = ik.sweep(model, prompts, edit=Mean(), metric=weighed, progress=False)
        lanes.append(found.attrs["lane"])
        naive.all_patterns(model, prompts.tokens)
    assert lanes[0] == lanes[1]
    assert lanes[0] in ("decoder", "blocks")


@pytest.mark.parametrize("name", one_in(3, ["GPT-2", "GPT-J", "attention-only"]))
def test_what_may_not_be_asked_is_refused(name):
    model = model_of(name, FASTEST[name])
    before = state_of(model)
    asked = itertools.product(EDITS, SITES, BYS + SENSELESS_BYS, (None, "patterns", "norms"))
    refused = [cell for cell in asked if not legal(name, *cell)]
    wrong = []
    for edit, site, by, hold in refused:
        prompts, made = options_for(model, edit, site)
        try:
            ik.sweep(model, prompts, edit=made, site=site, by=by, hold=hold, metric=weighed, progress=False)
        except ValueError as error:
            if len(str(error)) < 20:
                wrong.append((edit, site, by, hold, str(error)))
        except Exception as error:
            wrong.append((edit, site, by, hold, repr(error)))
        else:
            wrong.append((edit, site, by, hold, "nothing raised"))
    assert not wrong, f"{len(wrong)} of {len(refused)}, for example {wrong[:5]}"
    assert state_of(model) == before


UNFIT = {
    "unknown site": lambda model: {"site": "scores"},
    "mean of unequal patterns": lambda model: {"edit": Mean(), "site": "pattern", "lengths": (4, 6, 3)},
    "mean by position of unequal lengths": lambda model: {"edit": Mean(by_position=True), "lengths": (4, 6, 3)},
    "one prompt, drawn from itself": lambda model: {"edit": Resample(), "lengths": (4,)},
    "drawn prompts too short": lambda model: {"edit": Resample(tokens_for(model, [4, 4]))},
    "other prompts": lambda model: {"edit": FromRun(tokens_for(model, [5, 5]))},
    "other lengths": lambda model: {"edit": FromRun(tokens_for(model, [5, 5, 6]))},
    "vector of another width": lambda model: {"edit": Add(torch.zeros(5))},
    "vector of width 1": lambda model: {"edit": Add(torch.zeros(1))},
    "nothing left": lambda model: {"edit": KnockOut(torch.ones(5, 5, dtype=torch.bool)), "site": "pattern"},
    "mask of another length": lambda model: {
        "edit": KnockOut(torch.zeros(6, 6, dtype=torch.bool)), "site": "pattern",
    },
    "layer out of range": lambda model: {"layers": [2]},
    "position out of range": lambda model: {"positions": [5], "by": ("layer", "position")},
    "head out of range": lambda model: {"heads": "L0H4"},
    "no heads": lambda model: {"heads": []},
    "heads at a site without": lambda model: {"heads": "L0H1", "site": "resid_pre", "by": ("layer",)},
    "positions not swept": lambda model: {"positions": [1], "by": ("layer",)},
    "no layers": lambda model: {"layers": []},
    "no positions": lambda model: {"positions": [], "by": ("layer", "position")},
    "too few tokens at once": lambda model: {"max_tokens": 4},
    "no tokens at once": lambda model: {"max_tokens": 0},
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_unfit_input_is_refused(what):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    options = {"edit": Zero(), "metric": weighed, "progress": False} | UNFIT[what](model)
    prompts = tokens_for(model, list(options.pop("lengths", (5, 5, 5))))
    with pytest.raises(ValueError):
        ik.sweep(model, prompts, **options)


REFERENCES = {
    "mean over positions": (Mean(by_position=False), {}),
    "mean of the control": (Mean(), {"control": True}),
    "mean of the control over positions": (Mean(by_position=False), {"control": True}),
    "mean of unequal prompts themselves": (Mean(), {"lengths": [4, 6, 3]}),
    "mean of the unequal control": (Mean(), {"lengths": [4, 6, 3], "control": True}),
    "mean of a longer reference": (Mean, {"reference": [7, 7, 7, 7]}),
    "another control": (Resample(seed=1), {"control": True}),
    "a longer reference": (Resample, {"reference": [6, 5, 8]}),
    "the same prompts": (FromRun, {"reference": None}),
}


@pytest.mark.parametrize(("what", "site"), one_in(2, tuple(REFERENCES), ["z", "k", "pattern", "resid_mid"]))
def test_references(what, site):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    edit, options = REFERENCES[what]
    lengths = options.get("lengths", [5, 5, 5])
    extra = {"control": tokens_for(model, lengths, seed=8).tokens} if options.get("control") else {}
    prompts = tokens_for(model, lengths, **extra)
    reference = None
    if isinstance(edit, type):
        reference = (
            prompts if options["reference"] is None else tokens_for(model, options["reference"], seed=9)
        )
        edit = edit(reference)
    equal = len(set(lengths)) == 1 and len(set(options.get("reference") or [5])) == 1
    by_position = equal and (options.get("reference") or [5])[0] == 5
    if site == "pattern" and isinstance(edit, Mean) and not by_position:
        with pytest.raises(ValueError, match="length"):
            ik.sweep(model, prompts, edit=edit, site=site, metric=weighed, progress=False)
        return
    if site == "pattern" and isinstance(edit, Mean):
        edit = replace(edit, by_position=None)  # of patterns it always is
    drawn = edit.drawn(3, 3 if reference else None) if isinstance(edit, Resample) else None
    by = ("layer", "head") if site != "resid_mid" else ("layer", "position")
    found = compared(
        model, prompts, edit=edit, site=site, by=by, hold=None, metric=weighed, drawn=drawn, close=CLOSE
    )
    if what == "the same prompts":
        np.testing.assert_allclose(found["effect"].fillna(0), 0, atol=1e-12)
    if drawn is not None and reference is None:
        assert (drawn != torch.arange(3)).all()


SUBSETS = {
    "heads": ("z", ("layer", "head"), {"heads": [(0, 1), (1, 3), (1, 0)]}),
    "heads of one layer": ("z", ("layer",), {"heads": [(1, 3), (1, 0)]}),
    "heads together": ("pattern", (), {"heads": [(0, 1), (1, 3)]}),
    "value heads": ("v", ("layer", "head", "position"), {"heads": [(0, 1), (1, 0)]}),
    "layers": ("attn_out", ("layer", "position"), {"layers": [1]}),
    "layers together": ("z", (), {"layers": [0]}),
    "positions": ("resid_pre", ("layer", "position"), {"positions": [1, 3]}),
    "positions of keys": ("k", ("layer", "head", "position"), {"positions": [0, 2]}),
    "heads, layers and positions": (
        "q", ("layer", "head", "position"), {"heads": [(0, 1), (1, 2)], "layers": [1], "positions": [2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("what", "name"), one_in(2, tuple(SUBSETS), ["GPT-2", "Llama"]))
def test_heads_layers_and_positions_restrict(name, what):
    model = model_of(name, FASTEST[name])
    site, by, chosen = SUBSETS[what]
    prompts = tokens_for(model, [4, 6, 3])
    edit, _ = edit_for("FromRun", model, prompts, site)
    compared(
        model, prompts, edit=edit, site=site, by=by, hold=None, metric=weighed, close=CLOSE,
        **chosen,
    )  # fmt: skip


def test_what_a_result_says():
    model = model_of("Llama", FASTEST["Llama"])
    prompts = tokens_for(model, [4, 6, 3])
    by = ("layer", "head", "position")
    found = ik.sweep(model, prompts, edit=Zero(), by=by, metric=NARROW, progress=False)
    assert found["value"].dims == ("prompt", *by)
    assert found["value"].shape == (3, 2, 4, 6)
    assert found["value"].dtype == found["baseline"].dtype == np.float64
    assert found["name"].sel(layer=1, head=3).item() == "L1H3"
    assert found["token"].dims == ("prompt", "position")
    assert found["token"].values[0, :4].tolist() == [str(int(token)) for token in prompts.tokens[0, :4]]
    assert np.isnan(found["value"].values[0, :, :, 4:]).all()
    assert np.isfinite(found["value"].values[0, :, :, :4]).all()
    wanted = {
        "method": "sweep",
        "site": "z",
        "edit": "Zero",
        "hold": "none",
        "metric": "answer",
        "unit": "nats",
    }
    assert wanted.items() <= found.attrs.items()
    assert found.attrs["n_prompts"] == 3
    assert {"by", "lane", "model", "transformer_lens"} <= found.attrs.keys()
    joint = ik.sweep(model, prompts, edit=Zero(), by=(), metric=NARROW, hold="patterns", progress=False)
    assert joint["value"].dims == joint["effect"].dims == joint["baseline"].dims == ("prompt",)
    assert joint.attrs["hold"] == "patterns"


def test_defaults_are_the_mean_of_every_head():
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = ik.repeated_tokens(model, bos=0, prompts=3, period=4)
    found = ik.sweep(model, prompts)
    for layer, head in ((0, 1), (1, 2)):
        one = ik.ablate(model, prompts, (layer, head))
        np.testing.assert_allclose(found["value"][:, layer, head], one["value"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        ik.sweep(model, prompts, by=())["value"],
        ik.ablate(model, prompts, list(itertools.product(range(2), range(4))))["value"],
        rtol=0,
        atol=1e-10,
    )


METRICS = {
    "repeat_loss": lambda clean: ik.repeat_loss,
    "loss": lambda clean: standard.loss,
    "logit_difference": lambda clean: ik.logit_difference,
    "probability": lambda clean: standard.probability,
    "label_accuracy": lambda clean: ik.label_accuracy,
    "kl_to": standard.kl_to,
}


@pytest.mark.parametrize(("metric", "max_tokens"), one_in(2, tuple(METRICS), [None, 12]))
def test_metrics(metric, max_tokens):
    """A metric that says what it reads gives what it gives on whole logits."""

    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = prompts_for(model, prompts=3, period=(3, 5))
    prompts = replace(prompts, answers=torch.tensor([[3, 4], [5, 6], [7, 8]]))
    with torch.no_grad():
        made = METRICS[metric](model(prompts.tokens.flip(1)))

    def on_whole_logits(logits, given):
        return metrics.one_a_prompt(
            reading := metrics.reading_of(made, given), metrics.read_off(logits, reading)
        )

    edit, by = FromRun(replace(prompts, tokens=prompts.tokens.flip(1))), ("layer", "position")
    found = ik.sweep(
        model, prompts, edit=edit, site="resid_pre", by=by, metric=made, max_tokens=max_tokens, progress=False
    )
    value, baseline = naive.sweep(
        model, prompts, edit=edit, site="resid_pre", by=by, metric_function=on_whole_logits
    )
    np.testing.assert_allclose(found["value"].values, value, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["baseline"].values, baseline, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("site", "by"), [("z", BYS[4]), ("k", BYS[2]), ("pattern", BYS[3]), ("resid_pre", BYS[3])]
)
def test_max_tokens_changes_nothing(site, by):
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [4, 6, 3])
    edit, _ = edit_for("FromRun", model, prompts, site)
    whole, *others = (
        ik.sweep(
            model, prompts, edit=edit, site=site, by=by, metric=weighed, max_tokens=most, progress=False
        )["value"].values
        for most in (10**6, 6, 13, 40)
    )
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [None, 5])
@pytest.mark.parametrize("what", ["mask by head", "mask by prompt", "vector by position", "vector by prompt"])
def test_what_broadcasts_means_the_same_in_every_batch(what, most):
    """As many prompts as heads and positions: which dimension is meant says its place, not its size."""
    model = model_of("GPT-2", FASTEST["GPT-2"])
    prompts = tokens_for(model, [4] * 4)
    numbers = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = (numbers > 0) & ~torch.eye(4, dtype=torch.bool)
    edit = {
        "mask by head": KnockOut(mask),
        "mask by prompt": KnockOut(mask[:, None]),
        "vector by position": Add(numbers[:, :1]),
        "vector by prompt": Add(numbers[:, :1, None]),
    }[what]
    site = "pattern" if "mask" in what else "z"
    compared(
        model,
        prompts,
        edit=edit,
        site=site,
        by=BYS[2],
        hold=None,
        metric=weighed,
        close=CLOSE,
        max_tokens=most,
    )


@pytest.mark.parametrize(("name", "kind", "lengths"), one_in(3, PAIRS, [[5], [4] * 4]))
def test_any_number_of_prompts(name, kind, lengths):
    """As many as positions and heads: none is taken for another."""
    model = model_of(name, kind)
    prompts = tokens_for(model, lengths)
    for site, by in (("pattern", BYS[1]), ("resid_pre", BYS[3])):
        edit, _ = edit_for("FromRun", model, prompts, site)
        compared(model, prompts, edit=edit, site=site, by=by, hold=None, metric=weighed, close=CLOSE)


@pytest.mark.parametrize("by", [BYS[0], BYS[2], BYS[4]])
@pytest.mark.parametrize(
    ("name", "kind"), one_in(2, [pair for pair in PAIRS if pair[0] in ("GPT-2", "GPT-J")])
)
def test_padding_may_be_left_with_nothing(name, kind, by):
    model = model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    mask = torch.zeros(3, 1, 6, 6, dtype=torch.bool)
    for row, length in enumerate(prompts.lengths.tolist()):
        mask[row, :, length:] = True
    mask[:, :, 2, 1] = True
    edit = KnockOut(mask)
    compared(model, prompts, edit=edit, site="pattern", by=by, hold=None, metric=weighed, close=CLOSE)


@pytest.mark.parametrize("name", ["GPT-2", "GPT-J"])
@pytest.mark.parametrize("site", [site for site in SITES if site != "pattern"])
@pytest.mark.parametrize("edit", ["Scale", "Add"])
def test_an_edit_is_made_once_at_every_position(name, site, edit):
    """The last position is whole and narrow at once."""
    if not legal(name, edit, site, BYS[3], None):
        return
    model = model_of(name, FASTEST[name])
    prompts = tokens_for(model, [4, 4])
    made, _ = edit_for(edit, model, prompts, site)
    compared(model, prompts, edit=made, site=site, by=BYS[3], hold=None, metric=weighed, close=CLOSE)


@pytest.mark.parametrize(
    ("name", "kind", "site"),
    one_in(2, [pair for pair in PAIRS if pair[0] in ("GPT-2", "MQA")], ["z", "resid_pre", "pattern"]),
)
def test_float32(name, kind, site):
    model = model_of(name, kind, torch.float32)
    prompts = tokens_for(model, [4, 6, 3])
    edit, _ = edit_for("FromRun", model, prompts, site)
    compared(
        model, prompts, edit=edit, site=site, by=("layer", "position"), hold=None, metric=weighed, close=1e-5
    )


# TransformerLens' own patching: name after get_act_patch_, site, by, where TransformerLens has these dimensions
PATCHING = [
    ("resid_pre", "resid_pre", BYS[3], (0, 1)),
    ("resid_mid", "resid_mid", BYS[3], (0, 1)),
    ("attn_out", "attn_out", BYS[3], (0, 1)),
    ("mlp_out", "mlp_out", BYS[3], (0, 1)),
    ("attn_head_out_by_pos", "z", BYS[4], (0, 2, 1)),
    ("attn_head_out_all_pos", "z", BYS[2], (0, 1)),
    ("attn_head_q_all_pos", "q", BYS[2], (0, 1)),
    ("attn_head_k_all_pos", "k", BYS[2], (0, 1)),
    ("attn_head_v_all_pos", "v", BYS[2], (0, 1)),
    ("attn_head_q_by_pos", "q", BYS[4], (0, 2, 1)),
    ("attn_head_k_by_pos", "k", BYS[4], (0, 2, 1)),
    ("attn_head_v_by_pos", "v", BYS[4], (0, 2, 1)),
    ("attn_head_pattern_all_pos", "pattern", BYS[2], (0, 1)),
    ("attn_head_pattern_by_pos", "pattern", BYS[4], (0, 1, 2)),
]


def patched_by_transformer_lens(name, model, clean, corrupted):
    from transformer_lens import patching

    with torch.no_grad():
        _, cache = model.run_with_cache(clean.tokens)
        function = getattr(patching, f"get_act_patch_{name}")
        return function(
            model, corrupted.tokens, cache, lambda logits: weighed(logits, corrupted).mean()
        ).numpy()


@hooked_only
@pytest.mark.parametrize(("theirs", "site", "by", "order"), PATCHING, ids=[row[0] for row in PATCHING])
@pytest.mark.parametrize("name", ["GPT-2", "MQA"])
def test_equals_the_patching_of_transformer_lens(name, theirs, site, by, order):
    model = model_of(name, "hooked", torch.float32)
    clean, corrupted = (tokens_for(model, [5, 5], seed=seed) for seed in (0, 1))
    twin = patched_by_transformer_lens(theirs, model, clean, corrupted).transpose(order)
    found = ik.sweep(model, corrupted, edit=FromRun(clean), site=site, by=by, metric=weighed, progress=False)
    np.testing.assert_allclose(found["value"].mean("prompt").values, twin, rtol=0, atol=1e-5)


@hooked_only
def test_equals_every_block_of_transformer_lens():
    model = model_of("GPT-2", "hooked", torch.float32)
    clean, corrupted = (tokens_for(model, [5, 5], seed=seed) for seed in (0, 1))
    twins = patched_by_transformer_lens("block_every", model, clean, corrupted)
    for site, twin in zip(("resid_pre", "attn_out", "mlp_out"), twins, strict=True):
        found = ik.sweep(
            model, corrupted, edit=FromRun(clean), site=site, by=BYS[3], metric=weighed, progress=False
        )
        np.testing.assert_allclose(found["value"].mean("prompt").values, twin, rtol=0, atol=1e-5)


OTHERS = {
    "LNPre": {"normalization_type": "LNPre"},
    "RMSPre": {"normalization_type": "RMSPre"},
    "no norm": {"normalization_type": None},
    "SoLU": {"act_fn": "solu_ln"},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "ALiBi": {"positional_embedding_type": "alibi"},
    "local attention": {"use_local_attn": True, "window_size": 2, "attn_types": ["global", "local"]},
    "scores by layer": {"scale_attn_by_inverse_layer_idx": True},
    "scores not scaled": {"use_attn_scale": False},
    "soft caps": {"attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 3.0},
    "soft cap of logits": {"output_logits_soft_cap": 3.0},
    "norms after": {"use_normalization_before_and_after": True, "normalization_type": "RMS"},
    "norms of queries": {
        "use_qk_norm": True, "normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": 4,
    },
    "inputs by head": {"use_split_qkv_input": True, "use_attn_result": True, "use_hook_mlp_in": True},
}  # fmt: skip


@hooked_only
@pytest.mark.parametrize("what", one_in(2, tuple(OTHERS)))
def test_other_hooked_transformers(what):
    """What the fast lane does not know runs in another, as exactly."""
    model = hooked_with(**OTHERS[what])
    prompts = tokens_for(model, [4, 6, 3])
    close = 1e-8 if what == "no norm" else CLOSE  # there the stream grows to hundreds
    for turn, (site, edit_name) in enumerate(
        (
            ("z", "Zero"),
            ("k", "FromRun"),
            ("pattern", "KnockOut"),
            ("resid_pre", "FromRun"),
            ("mlp_out", "Scale"),
        )
    ):
        if (what, site) == ("no norm", "pattern"):
            continue  # attention to one key is exactly 1 there: nothing is left to renormalise
        edit, _ = edit_for(edit_name, model, prompts, site)
        by, metric = BYS[3 if turn % 2 else 1], NARROW if turn % 2 else weighed
        compared(model, prompts, edit=edit, site=site, by=by, hold=None, metric=metric, close=close)


def shifted(activation, hook):
    return activation + 0.3


USERS = [("blocks.1.attn.hook_v", halved), ("blocks.0.hook_attn_out", shifted)]


@pytest.mark.parametrize(
    ("name", "kind", "how"), one_in(2, [pair for pair in PAIRS if pair[0] == "GPT-2"], ["add_hook", "hooks"])
)
def test_a_hook_of_the_user_stays_in_force(name, kind, how):
    model = fresh_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    plain = ik.sweep(model, prompts, edit=Zero(), metric=weighed, progress=False)["baseline"]

    def all_compared():
        for site, edit_name in (
            ("z", "Zero"),
            ("v", "FromRun"),
            ("pattern", "KnockOut"),
            ("resid_pre", "Mean"),
        ):
            edit, _ = edit_for(edit_name, model, prompts, site)
            found = compared(
                model, prompts, edit=edit, site=site, by=BYS[1], hold=None, metric=weighed, close=CLOSE
            )
            assert float(abs(found["baseline"] - plain).max()) > 1e-3

    if how == "hooks":
        with model.hooks(fwd_hooks=USERS):
            all_compared()
        return
    for place, function in USERS:
        model.add_hook(place, function)
    all_compared()
    before = state_of(model)
    ik.sweep(model, prompts, edit=Zero(), metric=weighed, progress=False)
    assert state_of(model) == before
    with torch.no_grad():
        after = model(prompts.tokens)
        model.reset_hooks()
        assert float((model(prompts.tokens) - after).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("name", "kind", "raised"),
    one_in(3, [pair for pair in PAIRS if pair[0] == "GPT-2"], [None, ZeroDivisionError, KeyboardInterrupt]),
)
def test_the_model_is_left_as_it_was(name, kind, raised):
    model = fresh_of(name, kind)
    model.train()
    next(model.parameters()).requires_grad_(False)
    prompts = tokens_for(model, [4, 6, 3])
    with torch.no_grad():
        model(prompts.tokens)  # at its first call a Bridge wires hooks of its own
    before, calls, stops = state_of(model), [], [0]

    def metric(logits, given):
        assert not model.training
        calls.append(1)
        if raised is not None and len(calls) == stops[0]:
            raise raised
        return weighed(logits, given)

    for site, hold, stop in (
        ("z", None, 1),
        ("v", "patterns", 4),
        ("pattern", None, 5),
        ("resid_mid", None, 7),
    ):
        calls.clear()
        stops[0] = stop
        edit, _ = edit_for("FromRun", model, prompts, site)
        options = {"edit": edit, "site": site, "by": BYS[1], "hold": hold, "metric": metric, "max_tokens": 6}
        if raised is None:
            ik.sweep(model, prompts, progress=False, **options)
        else:
            with pytest.raises(raised):
                ik.sweep(model, prompts, progress=False, **options)
        assert state_of(model) == before


@pytest.mark.parametrize(
    ("site", "edit"),
    [
        (site, edit)
        for site in ("z", "pattern", "resid_pre")
        for edit in ("mean", "mean over positions", "resample", "other run", "other run, wider")
        if (site, edit) != ("pattern", "mean over positions")  # refused
    ],
)
def test_wider_padding_than_any_prompt_needs(edit, site):
    """Some prompts of a longer batch keep its width."""
    model = model_of("GPT-2", FASTEST["GPT-2"])
    wide = tokens_for(model, [4, 4, 7])[torch.tensor([0, 1])]
    other = tokens_for(model, [4, 4, 7], seed=5)[torch.tensor([0, 1])]
    narrow = replace(other, tokens=other.tokens[:, :4], scored=other.scored[:, :4])
    made = {
        "mean": Mean(),
        "mean over positions": Mean(by_position=False),
        "resample": Resample(),
        "other run": FromRun(narrow),
        "other run, wider": FromRun(other),
    }[edit]
    by = BYS[1] if site == "pattern" else BYS[3]
    options = {"edit": made, "site": site, "by": by, "metric": weighed, "progress": False}
    cut = replace(wide, tokens=wide.tokens[:, :4], scored=wide.scored[:, :4])
    found, twin = ik.sweep(model, wide, **options), ik.sweep(model, cut, **options)
    assert wide.tokens.shape == (2, 7)
    if "position" in by:
        assert np.isnan(found["value"][..., 4:]).all()
        found = found.isel(position=slice(4))
    np.testing.assert_allclose(found["value"].values, twin["value"].values, rtol=0, atol=CLOSE)


def mean_loss(logits, given):
    logs = logits.log_softmax(-1)[:, :-1].gather(-1, given.tokens[:, 1:, None])[..., 0]
    real = torch.arange(logs.shape[1]) < given.lengths[:, None] - 1
    return -(logs * real).sum(1) / real.sum(1)


@hooked_only
@pytest.mark.parametrize(
    "blocks", [{"attn_only": True}, {"parallel_attn_mlp": True}], ids=["alone", "parallel"]
)
@pytest.mark.parametrize(
    ("norm", "edit"), one_in(2, ["LN", "LNPre", "RMS", "RMSPre", None], ["Zero", "FromRun"])
)
def test_losses_with_a_head_of_the_last_layer_edited(blocks, norm, edit):
    """Its output goes straight to the final norm: losses over all tokens are had from d_head numbers a row."""
    model = hooked_with(**blocks, normalization_type=norm)
    prompts = tokens_for(model, [4, 6, 3])
    made, _ = edit_for(edit, model, prompts, "z")
    found = ik.sweep(model, prompts, edit=made, metric=ik.loss, progress=False)
    assert found.attrs["lane"] == "decoder"
    value, _ = naive.sweep(
        model, prompts, edit=made, site="z", by=BYS[2], hold=None, metric_function=mean_loss
    )
    np.testing.assert_allclose(found["value"].values, value, rtol=0, atol=1e-8 if norm is None else CLOSE)


def shifted_late(forward):
    """A block that is its own up to position 7."""

    def late(resid, *args, **kwargs):
        out = forward(resid, *args, **kwargs).clone()
        out[:, 8:] += 1.0
        return out

    return late


@hooked_only
@pytest.mark.parametrize("change", ["activation", "forward", "far positions"])
def test_a_model_changed_between_calls_is_noticed(change):
    """Also where its modules have the same types as before, and where nothing shows in a few tokens."""
    model = hooked_with()
    prompts = tokens_for(model, [12, 12])
    assert ik.sweep(model, prompts, edit=Zero(), metric=weighed, progress=False).attrs["lane"] == "decoder"
    mlp, block = model.blocks[0].mlp, model.blocks[1]
    if change == "activation":
        mlp.act_fn = torch.tanh
    elif change == "forward":
        mlp.forward = lambda hidden: 0.5 * type(mlp).forward(mlp, hidden)
    else:
        block.forward = shifted_late(block.forward)
    compared(model, prompts, edit=Zero(), site="z", by=BYS[2], hold=None, metric=weighed, close=1e-9)


@hooked_only
@pytest.mark.parametrize("what", ["a hook", "the model"])
def test_what_is_not_causal_runs_in_full(what):
    """Positions before the first that differs are left out only where nothing looks ahead."""
    model = hooked_with(**{"attention_dir": "bidirectional"} if what == "the model" else {})
    prompts = tokens_for(model, [5, 5])
    edit, _ = edit_for("FromRun", model, prompts, "resid_pre")
    hooks = [("blocks.0.hook_resid_pre", lambda resid, hook: resid - resid.mean(1, keepdim=True))]
    with model.hooks(fwd_hooks=hooks if what == "a hook" else []):
        compared(
            model, prompts, edit=edit, site="resid_pre", by=BYS[3], hold=None, metric=weighed, close=1e-9
        )
