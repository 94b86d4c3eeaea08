"""Logits and log-probabilities at the end of a lane: in pieces, some columns only, and without all logits at once."""

import pytest
import torch
from largest import Largest
from whole_runs import tokens_for
from zoo import FASTEST, fresh, fresh_of, hooked_only, hooked_with

import induction_kernel as ik
from induction_kernel.interventions import _plan
from induction_kernel.metrics import Metric
from induction_kernel.model import _unembedding, run
from induction_kernel.model._runs import stream
from induction_kernel.model._unembedding import unembedding_of
from induction_kernel.replay import _blocks
from induction_kernel.replay._blocks import Blocks
from induction_kernel.replay._decoder import Decoder

KINDS = [("GPT-2", "bridge"), ("Llama", "bridge"), ("GPT-2", "native"), ("GPT-2", FASTEST["GPT-2"])]
kinds = pytest.mark.parametrize(("name", "kind"), dict.fromkeys(KINDS))


class Other(torch.nn.Linear):
    """A layer of which nothing is known, so that the model's own has to be called."""


def with_another(model):
    model.unembed.original_component.__class__ = Other
    return model


def check(lane, model, prompts):
    logits = run(model, prompts.tokens, lengths=None)
    ids = torch.randint(50, (*prompts.tokens.shape, 3), generator=torch.Generator().manual_seed(1))
    resid = lane.final[None].expand(2, -1, -1, -1)
    wanted = logits.gather(-1, ids)
    torch.testing.assert_close(lane.logits(resid), logits.expand(2, -1, -1, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        lane.target_logits(resid, ids), wanted.expand(2, -1, -1, -1), rtol=0, atol=1e-12
    )
    wanted = logits.log_softmax(-1).gather(-1, ids).expand(2, -1, -1, -1)
    torch.testing.assert_close(lane.log_probabilities(resid, ids), wanted, rtol=0, atol=1e-12)


@kinds
@pytest.mark.parametrize("pieces", [(512, 2048), (3, 7)])
def test_pieces_give_what_whole_logits_give(monkeypatch, name, kind, pieces):
    monkeypatch.setattr(_unembedding, "PIECE", pieces)
    model = fresh_of(name, kind)
    assert unembedding_of(model) is not None
    check(Blocks(model, tokens_for(model, [5, 5]).tokens, None), model, tokens_for(model, [5, 5]))


@pytest.mark.parametrize("at_once", [2**24, 120, 1])
def test_another_layer_is_called_itself_a_few_rows_at_a_time(monkeypatch, at_once):
    monkeypatch.setattr(_blocks, "_AT_ONCE", at_once)
    model = with_another(fresh_of("GPT-2", "bridge"))
    assert unembedding_of(model) is None
    prompts = tokens_for(model, [5, 5])
    lane = Blocks(model, prompts.tokens, None)
    check(lane, model, prompts)
    resid = torch.zeros(1, 2, 40, 16, dtype=torch.float64)
    with Largest() as largest:
        lane.log_probabilities(resid, torch.zeros(2, 40, 1, dtype=torch.long))
    assert (largest.numbers < 80 * 50) == (at_once < 80 * 50)


@pytest.mark.parametrize("patched", [True, False])
def test_a_layer_whose_forward_is_replaced_is_called_itself(patched):
    model = fresh_of("GPT-2", "bridge")
    linear = model.unembed.original_component
    if patched:
        linear.forward = lambda rows: 2 * torch.nn.functional.linear(rows, linear.weight, linear.bias)
    assert (unembedding_of(model) is None) == patched
    check(Blocks(model, tokens_for(model, [5, 5]).tokens, None), model, tokens_for(model, [5, 5]))


@hooked_only
def test_a_cap_on_logits_holds_for_columns_and_pieces():
    model = hooked_with(output_logits_soft_cap=0.5)
    prompts = tokens_for(model, [5, 5])
    for lane in (Blocks, Decoder):
        check(lane(model, prompts.tokens, None), model, prompts)


@pytest.mark.parametrize("bridge", [True, pytest.param(False, marks=hooked_only)])
@pytest.mark.parametrize("metric", [ik.logit_difference, ik.loss], ids=lambda metric: metric.name)
def test_a_sweep_never_holds_the_logits_of_its_rows(monkeypatch, bridge, metric):
    monkeypatch.setattr(_unembedding, "PIECE", (8, 500))
    model = fresh("GPT-2", bridge=bridge, d_vocab=4000)
    prompts = ik.prompts.with_answers(model, tokens_for(model, [6] * 6).tokens, [[1, 2]] * 6)
    options = {"edit": ik.Zero(), "metric": metric, "progress": False}
    wanted = ik.sweep(model, prompts, **options)  # the lane is checked here
    with Largest() as largest:
        found = ik.sweep(model, prompts, **options)
    assert found.equals(wanted)
    rows = 8 * (6 if metric is ik.logit_difference else 30)  # of eight cells
    assert largest.numbers < 2 * model.W_U.numel() < rows * 4000


def tripled(model):
    layer = getattr(model.unembed, "original_component", model.unembed)
    theirs = layer.forward
    layer.forward = lambda *given, **named: 3 * theirs(*given, **named)


CAPPED = pytest.param("capped", marks=hooked_only)


@pytest.mark.parametrize("kind", [*dict.fromkeys(KINDS), CAPPED], ids=str)
@pytest.mark.parametrize("replaced", [False, True])
def test_logits_of_some_positions_are_those_of_the_whole_run(kind, replaced):
    """Also of some tokens alone, and if the user replaced the code of the unembedding."""
    model = hooked_with(output_logits_soft_cap=0.5) if kind == "capped" else fresh_of(*kind)
    if replaced:
        tripled(model)
    tokens, at = tokens_for(model, [5, 5]).tokens, torch.tensor([[0, 4], [3, 2]])
    wanted = model(tokens, return_type="logits")[torch.arange(2)[:, None], at].detach()
    ids = torch.randint(50, (2, 2, 3), generator=torch.Generator().manual_seed(1))

    def read(**given):
        return stream(model, tokens, lambda *_: None, {}, lengths=None, **given)

    torch.testing.assert_close(read(at=at), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(read(at=at[:, 0]), wanted[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(read(at=at, ids=ids), wanted.gather(-1, ids), rtol=0, atol=1e-12)
    assert read(at=at, gradients=True).requires_grad
    assert not model.unembed._forward_pre_hooks


def test_an_unembedding_of_the_users_own_counts_in_every_verb():
    model, changed = (fresh_of("GPT-2", FASTEST["GPT-2"]) for _ in range(2))
    tripled(changed)
    clean, corrupted = (tokens_for(model, [5, 5], seed=seed).tokens for seed in (0, 1))
    found = [
        ik.patch(
            each, source=clean, into=ik.prompts.with_answers(each, corrupted, [[1, 2]] * 2), progress=False
        )
        for each in (model, changed)
    ]
    for key in ("value", "source_value", "baseline"):
        torch.testing.assert_close(
            torch.from_numpy(3 * found[0][key].values),
            torch.from_numpy(found[1][key].values),
            rtol=0,
            atol=1e-11,
        )


def halved(z, hook):
    return z / 2


def test_prompts_share_a_batch_while_their_logits_fit_the_memory(monkeypatch):
    """Logits of 4 x 4000 words, with two copies, are 48,000 numbers a prompt: two prompts fit 100,000 numbers."""
    monkeypatch.setattr(_plan, "_free", lambda device: 4 * 8 * 100_000)
    model = fresh("GPT-2", bridge=True, d_vocab=4000)
    prompts, seen = tokens_for(model, [4] * 6), []

    def batches(reads, targets, **options):
        seen.clear()

        def measure(found, prompts):
            seen.append(len(prompts))
            return found[:, 0, 0]

        metric = Metric("noted", "nats", measure, reads, targets)
        ik.ablate(model, prompts, "L0H1", metric=metric, edit=ik.Zero(), progress=False, **options)
        return max(seen)

    def last(prompts):
        return torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1

    def first_word(prompts):
        return prompts.tokens[:, :1]

    assert batches(last, first_word) == 6  # one column
    assert batches(last, None) == 6  # all logits of one position, 12,000 numbers
    assert batches(None, None) == 2
    assert batches(None, None, max_tokens=16) == 4  # as asked
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", halved)]):
        assert batches(last, first_word) == 2  # whole runs make all logits
