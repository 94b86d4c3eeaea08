"""Retrieval heads: what their scores promise, on weights written by hand, on random models and on a real one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from english import english_model
from hand_model import ARCHITECTURE, CONTEXT, LAG, POSITION, SHARP, WIDTH, hand_weights, shifted
from labelled_prompts import labelled
from zoo import fresh, tiny

import induction_kernel as ik
from induction_kernel.head_census import query_focused_retrieval, retrieval, retrieval_forced
from induction_kernel.head_census._retrieval_by_question import QueryAttention
from induction_kernel.head_census._retrieval_writing import written
from induction_kernel.loading import build
from induction_kernel.prompts import needles

SCORES = [retrieval, retrieval_forced, query_focused_retrieval]
every_score = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)


@pytest.fixture(scope="module")
def model():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


@pytest.fixture(scope="module")
def prompts(model):
    return needles(model, prompts=12)


def by_head(result, variable="score"):
    return {
        str(result["name"].values[at]): result[variable].values[:, at[0], at[1]] for at in np.ndindex(2, 3)
    }


def test_the_induction_head_written_by_hand_copies_the_answer(model, prompts):
    """It finds the value's first token after the key, and each further one after the one before."""
    for score in (retrieval, retrieval_forced):
        found = score(model, prompts)
        assert by_head(found)["L1H0"] == pytest.approx(1)
        # With another value the key still leads to its first position; what follows finds nothing.
        assert by_head(found, "control")["L1H0"] == pytest.approx(1 / 4)
        for name in ("L0H0", "L0H2", "L1H1", "L1H2"):  # the duplicate-token head reads one token too early
            assert by_head(found)[name] == pytest.approx(0)
    free = retrieval(model, prompts)
    assert (free["recall"] == 1).all()
    assert free.attrs["recalled"] == 12
    # then it copies on what follows the needle
    first = free["written"].values[0].split()
    a, b = prompts.spans["answer"][0].tolist()
    assert first[:4] == [str(int(token)) for token in prompts.tokens[0, a:b]]


def test_attention_of_the_query_by_hand(model, prompts):
    found = by_head(query_focused_retrieval(model, prompts))
    assert found["L1H0"] == pytest.approx(1, abs=1e-6)  # after both tokens of the key
    assert found["L1H2"] == pytest.approx(1 / 2, abs=1e-6)  # itself and the copy in the needle
    result = query_focused_retrieval(model, prompts)
    length = int(prompts.lengths[0])
    assert result["chance"][0] == pytest.approx((6 / (length - 1) + 6 / length) / 2)
    assert by_head(result)["L0H2"] == pytest.approx(result["chance"].values, abs=1e-6)
    # another prompt's key has at most one of this key's two tokens
    control = by_head(result, "control")
    assert (control["L1H2"] < 1 / 4 + 1e-6).all()
    assert (control["L1H0"] < 0.6).all()
    assert control["L0H2"] == pytest.approx(found["L0H2"])
    # the empty query is an ordinary token that stands nowhere else: uniform attention, and itself
    alone = query_focused_retrieval(model, prompts[:1])
    assert int(alone.attrs["null"]) not in prompts.tokens[0]
    empty = by_head(alone, "empty")
    assert empty["L1H0"] == pytest.approx(6 / (length - 1), abs=1e-6)
    assert empty["L1H2"] == pytest.approx(0, abs=1e-6)
    # nobody else asks: the control is of tokens that the prompt does not have
    assert by_head(alone, "control")["L1H0"] == pytest.approx((6 / (length - 1) + 6 / length) / 2, abs=1e-6)


def test_chance_by_hand(model, prompts):
    """Four draws, each of all keys up to the query: one position each."""
    n = int(prompts.lengths[0])
    wanted = np.mean([1 / (n + i) for i in range(4)])
    assert float(retrieval_forced(model, prompts)["chance"][0]) == pytest.approx(wanted)


def test_a_fixed_lag_is_neither_induction_nor_retrieval(model):
    found = needles(model, prompts=24)
    lagged = {"layer": 0, "head": 1}
    for score in SCORES:
        summary = ik.summarise(score(model, found)).sel(lagged)
        assert float(summary["passes"]) == 0
    assert float(ik.summarise(ik.induction(model))["passes"].sel(lagged)) == 0
    # Where the answer lies just that far back, it looks perfect, and its control says why.
    at = replace(found[:1], spans=None)
    row = at.tokens[0, : int(at.lengths[0])].tolist()
    begin = len(row) - 1 - LAG
    spans = {"needle": (begin, begin + 4), "answer": (begin, begin + 4)}
    own = replace(
        at, spans={name: torch.tensor([place]) for name, place in spans.items()}, control=at.tokens.flip(1)
    )
    result = retrieval_forced(model, own)
    assert float(result["score"].sel(lagged)[0]) == 1
    assert float(result["control"].sel(lagged)[0]) == 1


def lagged_model():
    """One layer of 16 heads that look back by 1 to 16 tokens."""
    weights = {f"blocks.0.attn.W_{key}": torch.zeros(16, WIDTH, CONTEXT) for key in "QKV"}
    weights["blocks.0.attn.W_O"] = torch.zeros(16, CONTEXT, WIDTH)
    weights["blocks.0.attn.W_K"][:, POSITION] = torch.eye(CONTEXT)
    for lag in range(1, 17):
        weights["blocks.0.attn.W_Q"][lag - 1, POSITION] = SHARP * CONTEXT**0.5 * shifted(lag)
    outer = {name: value for name, value in hand_weights().items() if not name.startswith("blocks.")}
    shape = {"n_layers": 1, "n_heads": 16, "d_head": CONTEXT}
    return build(ARCHITECTURE | shape, weights | outer, name="lags")


def test_no_lag_is_query_focused_even_with_all_needles_right_before_the_question():
    """An empty query of one token reads other distances than a key of two, one of as many tokens the same."""
    lags = lagged_model()
    found = query_focused_retrieval(lags, needles(lags, depths=[1.0]))
    assert float(found["score"].max()) == pytest.approx(1)
    assert float((found["score"] - found["empty"]).max()) == pytest.approx(0.5)  # lag 7
    np.testing.assert_array_equal(found["score"], found["control"])
    assert not (ik.summarise(found)["passes"] == 1).any()


def test_other_queries_have_as_many_tokens_and_ask_for_something_else():
    english = english_model(n_ctx=260)
    found = needles(english, prompts=12, length=200, seed=2)
    spans, other = found.spans["query"], QueryAttention().replaced(english, found)
    lengths = set()
    for p, (a, b) in enumerate(spans.tolist()):
        changed = (other[p] != found.tokens[p]).nonzero()[:, 0].tolist()
        assert changed
        assert a <= min(changed) <= max(changed) < b  # the template stays
        needle = found.tokens[p, slice(*found.spans["needle"][p])].tolist()
        assert not {int(other[p, i]) for i in changed} - set(found.tokens[p, a:b].tolist()) & set(needle)
        lengths.add(b - a)
    order = [5, 0, 3, 11, 1, 2, 4, 10, 9, 8, 7, 6]
    assert torch.equal(QueryAttention().replaced(english, found[order]), other[order])
    # Queries of another length are cut or repeated; without another one tokens are drawn that the prompt lacks.
    texts = ["Ann has bees . Who ? Ann now", "Bob has trains . Who ? Bob", "Bob has trains . Who ? Bob"]
    mine = ik.prompts.mark(
        english, texts, spans={"needle": [t.split(" .")[0] for t in texts], "answer": ["bees", "trains", "trains"],
                               "query": [(21, 28), (23, 26), (23, 26)]},
    )  # fmt: skip
    for prompts in (mine, mine[1:]):
        replaced = QueryAttention().replaced(english, prompts)
        for p, (a, b) in enumerate(prompts.spans["query"].tolist()):
            assert replaced.shape == prompts.tokens.shape
            assert replaced[p, :a].equal(prompts.tokens[p, :a])
            new = replaced[p, a:b].tolist()
            assert new != prompts.tokens[p, a:b].tolist()
            if len(prompts) == 2:
                assert not set(new) & set(prompts.tokens[p].tolist())


def test_the_empty_query_is_an_ordinary_token():
    """The rarest token of all is often a special one, which no text has."""
    model = ik.load("tiny")
    found = query_focused_retrieval(model, needles(model, prompts=6))
    assert found.attrs["null"] not in model.tokenizer.all_special_tokens
    (token,) = model.tokenizer(found.attrs["null"], add_special_tokens=False)["input_ids"]
    assert token not in model.tokenizer.all_special_ids


def test_what_is_not_recalled_does_not_count():
    """A random model writes something else: nothing is scored, and nobody passes."""
    found = retrieval(tiny("GPT-2"), needles(tiny("GPT-2"), prompts=8))
    assert (found["recall"] <= 0.5).all()
    assert found["score"].isnull().all()
    assert found["control"].isnull().all()
    summary = ik.summarise(found)
    assert not summary["tested"].any()
    assert (summary["n"] == 0).all()
    assert np.isfinite(found["in_needle"]).all()


@every_score
def test_untrained_models_have_no_retrieval_heads(score):
    passing = []
    for seed in range(4):
        other = fresh("attention-only", seed=seed, dtype=torch.float32)
        passing.append(int((ik.summarise(score(other, progress=False))["passes"] == 1).sum()))
    assert passing == [0] * 4


@every_score
def test_batches_order_and_layers_change_nothing(score):
    model = ik.load("tiny")
    found = needles(model, prompts=6, seed=4)
    whole = score(model, found)
    for other in (
        score(model, found, batch_size=2),
        score(model, found[[3, 1, 0, 2, 5, 4]]).isel(prompt=[2, 1, 3, 0, 5, 4]),
    ):
        for name in ("score", "control", "chance"):
            np.testing.assert_allclose(other[name], whole[name], atol=1e-6)
    one = score(model, found, layers=[1])
    assert one["layer"].values.tolist() == [1]
    np.testing.assert_allclose(one["score"].sel(layer=1), whole["score"].sel(layer=1), atol=1e-6)
    assert (whole["score"].fillna(0) >= 0).all()
    assert (whole["score"].fillna(0) <= 1 + 1e-6).all()


@every_score
def test_results_are_labelled_and_summarised(score, tmp_path):
    model = ik.load("tiny")
    found = score(model)
    assert found["score"].dims == ("prompt", "layer", "head")
    assert found.attrs["method"] == score.__name__
    assert found.attrs["n_prompts"] == 32
    assert float(found["depth"].min()) >= 0
    assert float(found["depth"].max()) <= 1
    assert len(set(found["length"].values.tolist())) > 5
    found.to_netcdf(tmp_path / "scores.nc")
    table = ik.head_table(found, 3)
    assert len(table) == 3
    ik.head_map(found)
    assert len(ik.top_heads(found, 2)) == 2


def test_the_embedded_model_copies_with_its_induction_heads():
    model = ik.load("tiny")
    found = retrieval_forced(model)
    assert {str(head) for head in ik.top_heads(found, 2)} <= {"L1H1", "L1H7", "L1H2"}


def test_few_shot_prompts_with_spans_are_read(model, prompts):
    few = labelled(prompts)
    np.testing.assert_array_equal(
        retrieval_forced(model, few)["score"], retrieval_forced(model, prompts)["score"]
    )


def test_without_a_control_chance_is_the_null(model, prompts):
    found = retrieval_forced(model, replace(prompts, control=None))
    assert "control" not in found
    assert float(ik.summarise(found)["excess"].sel(layer=1, head=0)) > 0.9
    without = {name: at for name, at in prompts.spans.items() if name != "decoy"}
    for score in SCORES:
        assert not {"decoy", "in_decoy"} & set(score(model, replace(prompts, spans=without)))


def test_writing_ends_at_line_breaks_and_after_so_many_tokens():
    model = english_model(n_ctx=300)
    found = ik.as_prompts(model, ["The harbour was quiet", "Bees find"])
    free = [[], []]
    rows = written(model, found, free, most=12, batch_size=None, progress=False)
    for p, row in enumerate(rows):
        text = found.tokens[p, : int(found.lengths[p])].tolist()
        for token in row:
            with torch.no_grad():
                assert token == int(model(torch.tensor([text]))[0, -1].argmax())
            text.append(token)
        assert (
            len(row) == 12
            or "\n" in model.tokenizer.decode(row[-1:])
            or row[-1] == model.tokenizer.eos_token_id
        )
    guessed = written(model, found, [rows[0][:5], rows[1][2:6]], most=12, batch_size=1, progress=False)
    assert guessed == rows  # guesses, right or wrong, change nothing
    first = rows[0][0]  # as the end-of-text token, and as a token with a line break
    for ends, line in ((first, "word"), (-1, "word\n")):

        def decode(ids, line=line, **_):
            return line if ids == [first] else "word"

        alone = replace(
            found[:1], tokenizer=SimpleNamespace(eos_token_id=ends, bos_token_id=None, decode=decode)
        )
        assert written(model, alone, free[:1], most=12, batch_size=None, progress=False) == [[first]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda model, prompts: retrieval_forced(model, prompts.tokens),
            "a span 'needle' each, got prompts with none",
        ),
        (lambda model, prompts: retrieval(model, prompts, max_new_tokens=0), "max_new_tokens >= 1"),
        (
            lambda model, prompts: query_focused_retrieval(model, prompts, null=[99]),
            "from 0 to 63 in null, got 99",
        ),
        (lambda model, prompts: query_focused_retrieval(model, prompts, null=[]), "at least one token"),
        (
            lambda model, prompts: query_focused_retrieval(model, prompts, null=2.5),
            "text or a list of token ids",
        ),
        (lambda model, prompts: retrieval(model, prompts, max_new_tokens="all"), "as a whole number"),
        (
            lambda model, prompts: retrieval_forced(model, needles(model, length=60), layers=[7]),
            "layers from 0 to 1",
        ),
    ],
)
def test_wrong_input_is_refused(model, prompts, call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call(model, prompts)


def test_prompts_that_leave_no_room_and_queries_before_their_needle_are_refused(model, prompts):
    full = ik.as_prompts(model, torch.arange(64)[None])
    spans = {
        "needle": torch.tensor([[3, 9]]),
        "answer": torch.tensor([[5, 9]]),
        "query": torch.tensor([[1, 3]]),
    }
    full = replace(full, spans=spans)
    for score in (retrieval, retrieval_forced):
        with pytest.raises(ValueError, match="leaves 0 tokens of the context, its answer has up to 4"):
            score(model, full)
    with pytest.raises(ValueError, match="wanted the query after the needle, got it before in prompt 0"):
        query_focused_retrieval(model, full)
