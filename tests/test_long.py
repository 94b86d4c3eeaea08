"""Long prompts are read row by row: the same scores as from whole patterns, in memory that grows with the length."""

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from largest import Largest
from model_state import Broken, same_snapshot, snapshot
from processes import in_python
from quick import one_in

import induction_kernel as ik
from induction_kernel import masks
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.prompts import Demonstrations, FewShotPrompts
from induction_kernel.replay import _attention_rows as rows
from induction_kernel.scorers import _pattern_entries as reading
from induction_kernel.scorers._attention import induction

hooked = pytest.mark.skipif(
    not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4"
)
SCORERS = [
    ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token, ik.first_token, ik.current_token,
]  # fmt: skip
LENGTH = reading.LONG + 60
MODELS = ("attention-only", "GPT-2", "Llama", "GPT-J", "GPT-NeoX", "MQA")
every_model = pytest.mark.parametrize("name", one_in(2, MODELS))
POOLINGS = ("label", "max", "sum", "mean")


@pytest.fixture(scope="module")
def model_of():
    """Models of the grid with room for long prompts; shared."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.BASE, "n_ctx", LENGTH)

        def one(name, dtype=torch.float64, fresh=False):
            if (name, dtype) not in made or fresh:
                made[name, dtype] = zoo.fresh_of(name, "hooked", dtype=dtype)
            return made.pop((name, dtype)) if fresh else made[name, dtype]

        yield one


@pytest.fixture
def prompts():
    return long_prompts()


def long_prompts(length=LENGTH, n=3, d_vocab=50):
    """Random tokens, so of 50 every one many times; padded, with a control and two demonstrations each."""
    generator = torch.Generator().manual_seed(0)
    lengths = length - 13 * torch.arange(n)
    place = torch.arange(length)
    spans = torch.tensor([[[1, 3], [length // 2, length // 2 + 9]]]).repeat(n, 1, 1)
    return FewShotPrompts(
        torch.randint(1, d_vocab, (n, length), generator=generator),
        lengths,
        (place >= length // 3) & (place < lengths[:, None]),
        control=torch.randint(1, d_vocab, (n, length), generator=generator),
        bos=True,
        demonstrations=Demonstrations(
            spans=spans,
            label_positions=spans[..., 1] - 1,
            classes=torch.tensor([[0, 1]]).repeat(n, 1),
            mask=torch.tensor([[True, True]] * (n - 1) + [[True, False]]),
            label_ids=torch.tensor([3, 4]),
            target=torch.arange(n) % 2,
            labels=("a", "b"),
        ),
    )


def by_patterns(call, *given, **options):
    """The same call by the model's own patterns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LONG", 10**9)
        found = call(*given, **options)
    assert found.attrs["lane"] == "patterns"
    return found


def same(call, *given, **options):
    """Both ways: all numbers equal, to rounding."""
    found, twin = call(*given, **options), by_patterns(call, *given, **options)
    assert found.attrs["lane"] == "entries"
    assert set(found) == set(twin)
    for variable in found:
        np.testing.assert_allclose(found[variable], twin[variable], rtol=1e-9, atol=1e-12)
    return found


@hooked
@every_model
def test_scores_are_those_of_whole_patterns(model_of, prompts, name):
    found = same(ik.observe, model_of(name), prompts, SCORERS)
    assert set(found) == {"score", "control", "chance"}
    assert float(found["score"].std("head").min()) > 1e-4  # heads differ, so that equality says something


@hooked
@pytest.mark.parametrize(("name", "pooling"), one_in(2, MODELS, POOLINGS))
def test_label_scores_are_those_of_whole_patterns(model_of, prompts, name, pooling):
    model = model_of(name)
    assert {"right", "right_control"} <= set(same(ik.label_attention, model, prompts, pooling=pooling))
    weight = same(ik.scorers.demonstration_weights, model, prompts, pooling=pooling)["weight"]
    assert np.isnan(weight[-1, ..., 1]).all()
    assert float(weight[0].min()) > 0


@hooked
@every_model
def test_scores_are_those_of_a_cache(model_of, prompts, name):
    """A whole run of TransformerLens itself, beside the package's."""
    model = model_of(name)
    _, cache = model.run_with_cache(prompts.tokens)
    for scorer in SCORERS:
        cached = scorer.from_cache(cache, prompts)
        assert cached.attrs["lane"] == "patterns"
        np.testing.assert_allclose(scorer(model, prompts)["score"], cached["score"], rtol=1e-9)


@hooked
@pytest.mark.parametrize("layers", [[0], [1], None], ids=str)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_some_layers_and_any_batches(model_of, prompts, layers, batch_size):
    same(ik.prefix_matching, model_of("GPT-J"), prompts, layers=layers, batch_size=batch_size)


@hooked
def test_a_scorer_of_ones_own_and_another_definition(model_of, prompts):
    def first_or_self(tokens, lengths):
        mask = torch.eye(tokens.shape[1], dtype=torch.bool).repeat(len(tokens), 1, 1)
        mask[:, :, 0] = True
        return mask

    own = ik.AttentionScorer("first or self", first_or_self, every_query=True)
    same(own, model_of("Llama"), prompts)
    repeated = ik.Prompts(prompts.tokens[:, : LENGTH // 2].repeat(1, 2), prompts.lengths, prompts.scored)
    same(induction, model_of("Llama"), repeated, compat="diagonal")


@hooked
def test_rows_are_cut_to_any_size(model_of, prompts, monkeypatch):
    for at_once in (1, 10_000):
        monkeypatch.setattr(rows, "_AT_ONCE", at_once)
        same(ik.observe, model_of("Llama"), prompts[:1], SCORERS, layers=[0])


@hooked
@every_model
def test_single_precision_agrees_to_a_hundred_thousandth(model_of, prompts, name):
    model = model_of(name, torch.float32)
    found, dense = ik.observe(model, prompts, SCORERS), by_patterns(ik.observe, model, prompts, SCORERS)
    assert found.attrs["lane"] == "entries"
    np.testing.assert_allclose(found["score"], dense["score"], atol=1e-5)
    np.testing.assert_allclose(found["control"], dense["control"], atol=1e-5)


@hooked
@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_half_precision_is_as_near_to_the_exact_scores_as_of_patterns(model_of, prompts, name):
    exact = by_patterns(ik.observe, model_of(name, torch.bfloat16).to(torch.float64), prompts, SCORERS)[
        "score"
    ]
    model = model_of(name, torch.bfloat16, fresh=True)
    found, dense = ik.observe(model, prompts, SCORERS), by_patterns(ik.observe, model, prompts, SCORERS)
    assert found.attrs["lane"] == "entries"
    apart, of_patterns = (float(abs(each["score"] - exact).mean()) for each in (found, dense))
    assert 0 < apart < 1.2 * of_patterns


@hooked
def test_the_way_taken_is_kept_in_a_file(model_of, prompts, tmp_path):
    import xarray as xr

    ik.induction(model_of("GPT-2"), prompts).to_netcdf(tmp_path / "scores.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "scores.nc", engine="h5netcdf") as found:
        assert found.attrs["lane"] == "entries"


def test_short_prompts_are_read_off_patterns():
    model = zoo.fresh("GPT-2")
    assert ik.induction(model, ik.repeated_tokens(model, bos=0, period=8)).attrs["lane"] == "patterns"


def stays_dense(model, prompts):
    found, dense = ik.induction(model, prompts), by_patterns(ik.induction, model, prompts)
    assert found.attrs["lane"] == "patterns"
    np.testing.assert_array_equal(found["score"], dense["score"])


OTHERS = {
    "local attention": {"use_local_attn": True, "attn_types": ["global", "local"], "window_size": 64},
    "ALiBi": {"positional_embedding_type": "alibi"},
    "attention to later tokens": {"attention_dir": "bidirectional"},
    "norms of queries and keys": {"use_qk_norm": True},
}


@hooked
@pytest.mark.parametrize("what", OTHERS)
def test_models_that_are_not_known_are_read_off_patterns(prompts, what):
    stays_dense(zoo.hooked_with(n_ctx=LENGTH, **OTHERS[what]), prompts)


@pytest.mark.parametrize("kind", ["native", "bridge"])
def test_a_bridge_is_read_off_patterns(prompts, monkeypatch, kind):
    monkeypatch.setitem(zoo.BASE, "n_ctx", LENGTH)
    if kind == "bridge":
        name, config = "Llama", zoo.hugging_face_config

        def longer(name):
            found = config(name)
            found.max_position_embeddings = LENGTH
            return found

        monkeypatch.setattr(zoo, "hugging_face_config", longer)
    else:
        name = "attention-only"
    stays_dense(zoo.fresh_of(name, kind), prompts)


@hooked
def test_a_window_beyond_the_piece_compared_is_seen(model_of, prompts):
    """A forward replaced on the object, and an attention made local by hand: the first 32 tokens show neither."""
    model = model_of("GPT-2", fresh=True)
    attention, forward = model.blocks[1].attn, model.blocks[1].attn.forward
    attention.forward = lambda *given, **options: forward(*given, **options)
    stays_dense(model, prompts)
    del attention.forward
    assert ik.induction(model, prompts).attrs["lane"] == "entries"
    attention.attn_type, model.cfg.window_size = "local", 100
    stays_dense(model, prompts)


@hooked
def test_a_class_of_the_users_own_is_read_off_patterns(model_of, prompts):
    model = model_of("GPT-2", fresh=True)
    kind = type(model)
    model.__class__ = type("Mine", (kind,), {"__module__": "mine"})
    stays_dense(model, prompts)
    model.__class__ = kind
    assert ik.induction(model, prompts).attrs["lane"] == "entries"


@hooked
def test_keys_after_the_query_do_not_count(model_of, prompts, monkeypatch):
    """Whatever a mask says of them, in both ways, however the rows are cut."""
    monkeypatch.setattr(rows, "_AT_ONCE", 4 * LENGTH * 7)

    def same_token(tokens, lengths):
        return tokens[:, :, None] == tokens[:, None, :]

    def earlier(tokens, lengths):
        return same_token(tokens, lengths).tril()

    both, past = (ik.AttentionScorer("mine", mask, every_query=True) for mask in (same_token, earlier))
    found, twin = same(both, model_of("GPT-2"), prompts), past(model_of("GPT-2"), prompts)
    for variable in found:
        np.testing.assert_array_equal(found[variable], twin[variable])


@hooked
def test_a_method_replaced_on_the_object_is_noticed(model_of, prompts):
    model = model_of("GPT-2", fresh=True)
    attention = model.blocks[1].attn
    theirs = attention.apply_causal_mask

    def windowed(scores, *given):
        past = torch.arange(scores.shape[-2])[:, None] - torch.arange(scores.shape[-1])
        return theirs(scores, *given).masked_fill(past > 100, -torch.inf)

    attention.apply_causal_mask = windowed
    found = ik.prefix_matching(model, prompts)
    assert found.attrs["lane"] == "patterns"
    assert float(abs(found["score"] - by_patterns(ik.prefix_matching, model, prompts)["score"]).max()) == 0


@hooked
def test_a_forward_that_disagrees_is_found_out(model_of, prompts, monkeypatch):
    from transformer_lens.components.abstract_attention import AbstractAttention

    scores = AbstractAttention.calculate_attention_scores
    monkeypatch.setattr(
        AbstractAttention, "calculate_attention_scores", lambda self, q, k: 1.01 * scores(self, q, k)
    )
    stays_dense(model_of("GPT-2"), prompts)


@hooked
@pytest.mark.parametrize("site", ["attn.hook_q", "attn.hook_pattern", "hook_resid_pre"])
def test_hooks_on_the_model_act(model_of, prompts, site):
    model = model_of("GPT-2")
    free = ik.induction(model, prompts)
    with model.hooks(fwd_hooks=[(f"blocks.1.{site}", lambda value, hook: value.flip(-1))]):
        stays_dense(model, prompts)
        acted = ik.induction(model, prompts)
    assert float(abs(acted["score"] - free["score"]).max()) > 1e-6
    assert ik.induction(model, prompts).attrs["lane"] == "entries"


@hooked
@pytest.mark.parametrize("where", ["early", "late", "a layer before"])
def test_weights_that_are_not_finite_are_an_error_as_of_patterns(model_of, prompts, where):
    model = model_of("GPT-2", fresh=True)
    with torch.no_grad():
        if where == "early":
            model.blocks[1].attn.W_Q[2] = torch.nan
        elif where == "late":  # beyond the piece on which both ways are compared
            model.pos_embed.W_pos[-40:] = torch.nan
        else:
            model.blocks[0].mlp.W_out[:] = torch.inf
    messages = []
    for call in (ik.induction, lambda *given: by_patterns(ik.induction, *given)):
        with pytest.raises(ValueError, match="are not finite: look for NaN") as raised:
            call(model, prompts)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@hooked
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt], ids=str)
def test_the_model_is_given_back_as_it_was(model_of, prompts, monkeypatch, error):
    model = model_of("GPT-2")
    modules = list(model.modules())
    modules[0].training, modules[3].training = True, True
    tokens, before = prompts.tokens.clone(), snapshot(model)
    ik.induction(model, prompts)
    same_snapshot(before, snapshot(model))

    def fails(*_):
        raise error

    for place in ("_values", "_attend"):
        with monkeypatch.context() as patch:
            original, calls = getattr(rows._Rows, place), []

            def later(self, *given, original=original, calls=calls):
                calls.append(1)
                return original(self, *given) if len(calls) < 3 else fails()

            patch.setattr(rows._Rows, place, later)
            with pytest.raises(error):
                ik.induction(model, prompts)
            assert len(calls) == 3  # beyond the comparison, which hides errors of its own
    same_snapshot(before, snapshot(model))
    assert torch.equal(tokens, prompts.tokens)
    modules[0].training = modules[3].training = False


@hooked
def test_another_error_than_of_the_comparison_is_not_hidden(model_of, prompts):
    with pytest.raises(ValueError, match="nothing to read in prompt 0"):
        ik.AttentionScorer("none", lambda tokens, lengths: torch.zeros(3, LENGTH, LENGTH).bool())(
            model_of("GPT-2"), prompts
        )


def test_masks_are_their_definitions():
    """Loops over queries and keys, on short random prompts with padding."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        n, length, words = (int(torch.randint(1, most, (1,), generator=generator)) for most in (4, 10, 7))
        tokens = torch.randint(words, (n, length), generator=generator)
        lengths = torch.randint(1, length + 1, (n,), generator=generator)
        found = {name: getattr(masks, name)(tokens, lengths) for name in masks.__all__}
        for p in range(n):
            real = tokens[p, : int(lengths[p])].tolist()
            copies = {i: [j for j in range(i) if real[j] == real[i]] for i in range(len(real))}
            period = min((i - j for i in copies for j in copies[i]), default=None)
            wanted = {
                "earlier_copies": {(i, j) for i in copies for j in copies[i]},
                "after_all_copies": {(i, j + 1) for i in copies for j in copies[i]},
                "after_latest_copy": {(i, copies[i][-1] + 1) for i in copies if copies[i]},
                "previous_key": {(i, i - 1) for i in copies if i},
                "one_lag": {(i, i - period + 1) for i in copies if period and i - period + 1 >= 0},
            }
            for name, pairs in wanted.items():
                assert {tuple(pair) for pair in found[name][p].nonzero().tolist()} == pairs, name


@hooked
@pytest.mark.parametrize(
    ("name", "dtype"), one_in(2, ["GPT-2", "Llama"], [torch.float64, torch.float32, torch.bfloat16])
)
def test_no_whole_pattern_is_made(monkeypatch, name, dtype):
    length = 1100
    monkeypatch.setitem(zoo.BASE, "n_ctx", length)
    monkeypatch.setattr(rows, "_AT_ONCE", 2**18)
    model, prompts = zoo.fresh_of(name, "hooked", dtype=dtype), long_prompts(length, 1)
    every = SCORERS[0].entries(prompts)
    with Largest() as largest:
        rows.entry_values(model, prompts.tokens, every, [0, 1], lambda layer, values: None)
    assert largest.numbers <= 2**18
    with Largest() as largest:
        found = ik.observe(model, prompts, SCORERS)
    assert found.attrs["lane"] == "entries"
    assert largest.numbers <= length * (length + 1)  # a mask, of one byte a number
    with Largest() as largest:
        by_patterns(ik.observe, model, prompts, SCORERS)
    assert largest.numbers >= 4 * length**2


PEAK = """
import re, sys, torch
from pathlib import Path
torch.set_num_threads(1)
import induction_kernel as ik
from induction_kernel.loading import build
from induction_kernel.scorers import _pattern_entries as reading
from zoo import random_weights

def kilobytes(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def prompts(length):
    half = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[: length // 2]
    tokens, place = torch.cat([half, half])[None], torch.arange(length)
    control = torch.randperm(5000)[: length // 2]
    return ik.Prompts(tokens, torch.tensor([length]), (place >= length // 2)[None],
                      control=torch.cat([half, control])[None])

architecture = dict(n_layers=3, n_heads=12, d_model=768, d_head=64, n_ctx=8192, d_vocab=5000, attn_only=True,
                    normalization_type="LN")
model = build(architecture, random_weights(architecture), dtype=torch.float32, name="long")
short = prompts(2048)
found = ik.induction(model, short, progress=False)
reading.LONG, usual = 10**9, reading.LONG
dense = ik.induction(model, short, progress=False)
reading.LONG = usual
assert (found.attrs["lane"], dense.attrs["lane"]) == ("entries", "patterns")
print(float(abs(found["score"] - dense["score"]).max() / dense["score"].max()))
del found, dense
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
before = kilobytes("VmRSS")
found = ik.induction(model, prompts(8192), progress=False)
assert found.attrs["lane"] == "entries" and bool((found["score"] > 0).all())
print((kilobytes("VmHWM") - before) / 1024)
"""


@hooked
@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc"
)
def test_8192_tokens_of_three_layers_need_less_than_700_megabytes():
    """With a control run; and at 2,048 tokens the scores are those of whole patterns."""
    done = in_python(PEAK)
    assert not done.returncode, done.stderr[-2000:]
    apart, megabytes = map(float, done.stdout.split()[-2:])
    assert apart < 1e-5
    assert 0 < megabytes < 700
