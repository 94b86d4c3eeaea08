"""On weights written by hand every score has a value worked out on paper."""

import math

import numpy as np
import pytest
import torch
from hand_model import ARCHITECTURE, BEFORE, GAIN, LAG, VOCAB, hand_weights

import induction_kernel as ik
from induction_kernel import masks
from induction_kernel.loading import build
from induction_kernel.loading._build import has_hooked_transformer
from induction_kernel.prompts import few_shot_prompts, random_tokens


@pytest.fixture(scope="module")
def model():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


@pytest.fixture(scope="module")
def repeats(model):
    return ik.repeated_tokens(model, bos=0, prompts=24)


def by_head(scores):
    return {
        str(scores["name"].values[at]): scores["score"].values[:, at[0], at[1]] for at in np.ndindex(2, 3)
    }


def test_induction(model, repeats):
    scores = by_head(ik.induction(model, repeats))
    assert scores["L1H0"] == pytest.approx(1, abs=1e-6)
    # L1H2 reads the token itself and its copy, never what comes after
    assert scores["L1H2"] == pytest.approx(0, abs=1e-6)
    assert scores["L0H0"] == pytest.approx(0, abs=1e-6)


def test_uniform_heads_score_chance(model, repeats):
    for scorer in (ik.induction, ik.prefix_matching, ik.previous_token, ik.duplicate_token):
        result = scorer(model, repeats)
        for name in ("L0H2", "L1H1"):
            assert by_head(result)[name] == pytest.approx(result["chance"].values, abs=1e-6)
    prompt = ik.repeated_tokens(model, bos=0, prompts=1, period=4)
    # queries 5..8 of [BOS, r, r], one key each: mean of 1 / (query + 1)
    assert float(ik.induction(model, prompt)["chance"][0]) == pytest.approx(
        (1 / 6 + 1 / 7 + 1 / 8 + 1 / 9) / 4
    )


def test_prefix_matching_counts_all_copies_and_induction_the_latest(model):
    prompts = ik.repeated_tokens(model, bos=0, repeats=4, prompts=16)
    assert by_head(ik.prefix_matching(model, prompts))["L1H0"] == pytest.approx(1, abs=1e-6)
    # in copy c the head spreads over c - 1 places: (1 + 1/2 + 1/3) / 3
    assert by_head(ik.induction(model, prompts))["L1H0"] == pytest.approx(11 / 18, abs=1e-6)


@pytest.mark.parametrize("period", [25, 15])
def test_the_usual_diagonal_has_two_entries_too_many(model, period):
    prompts = ik.repeated_tokens(model, bos=0, period=period)
    scores = by_head(ik.induction(model, prompts, compat="diagonal"))
    # p true entries; one reads BOS, one the token after it: there the query is new and its attention uniform
    extras = 1 / period + 1 / (period + 1)
    assert scores["L1H0"] == pytest.approx((period + extras) / (period + 2), abs=1e-6)


def test_previous_token(model):
    prompts = random_tokens(model, bos=0)
    scores = by_head(ik.previous_token(model, prompts))
    assert scores["L0H0"] == pytest.approx(1, abs=1e-6)
    assert scores["L0H1"] == pytest.approx(0, abs=1e-6)


def test_duplicate_token(model, repeats):
    assert by_head(ik.duplicate_token(model, repeats))["L1H2"] == pytest.approx(1 / 2, abs=1e-6)
    four = ik.repeated_tokens(model, bos=0, repeats=4)
    assert by_head(ik.duplicate_token(model, four))["L1H2"] == pytest.approx(
        (1 / 2 + 2 / 3 + 3 / 4) / 3, abs=1e-6
    )


@pytest.mark.parametrize("scorer", [ik.induction, ik.prefix_matching], ids=lambda scorer: scorer.name)
def test_a_fixed_lag_has_no_excess(model, scorer):
    own_lag = ik.repeated_tokens(model, bos=0, period=LAG + 1)
    assert by_head(scorer(model, own_lag))["L0H1"] == pytest.approx(1, abs=1e-6)  # it looks perfect,
    for prompts in (own_lag, ik.repeated_tokens(model, bos=0), ik.repeated_tokens(model, bos=0, repeats=4)):
        found = ik.summarise(scorer(model, prompts)).sel(layer=0, head=1)
        assert abs(float(found["excess"])) <= 0.02  # and its control says why
        assert float(found["passes"]) == 0


def test_the_default_prompts_leave_the_fixed_lag_without_a_score_either(model):
    found = ik.summarise(ik.induction(model))
    assert float(found["mean"].sel(layer=0, head=1)) < 0.1
    assert float(found["passes"].sel(layer=1, head=0)) == 1
    assert int(found["passes"].sum()) == 1


def test_copying(model):
    prompts = random_tokens(model, length=25, bos=False)
    for centre in ("vocabulary", "sample"):
        scores = ik.copying(model, prompts, centre=centre)
        assert by_head(scores)["L1H0"] == pytest.approx(1, abs=1e-6)
        assert np.isnan(by_head(scores)["L0H2"]).all()  # it writes nothing: nothing is raised, 0 / 0
        assert (scores["undefined"].sel(layer=0, head=2) == 25).all()
        assert scores["chance"].values == pytest.approx(4 / 26 - 1)
    ban, at_source = (ik.copying(model, prompts, method=method) for method in ("BAN", "BAN-source"))
    for scores in (ban, at_source):
        # the first query has one token to attend to: nothing is above its own mean, and 0 / 0 counts as 0
        assert (scores["undefined"].sel(layer=1, head=0) == 1).all()
        assert scores["chance"].values == pytest.approx((sum(1 / n for n in range(1, 26)) - 1) / 25)
        assert by_head(scores)["L0H2"] == pytest.approx(0)
    # where nothing is repeated it attends alike everywhere, so most to the first token; its value at the query
    # raises the query's own token
    assert by_head(at_source)["L1H0"] == pytest.approx(24 / 25, abs=1e-6)
    assert by_head(ban)["L1H0"] == pytest.approx(0, abs=1e-6)


def test_ov_eigenvalues(model):
    scores = ik.ov_eigenvalues(model)
    # token -> itself: all eigenvalues are GAIN, but for the one that centring the vocabulary takes away
    assert float(scores["score"].sel(layer=1, head=0)) == pytest.approx(1, abs=1e-6)
    assert abs(float(scores["chance"].sel(layer=1, head=0))) < 0.2


def test_losses_and_ablation(model, repeats):
    right = -math.log(math.exp(GAIN) / (math.exp(GAIN) + VOCAB - 1))
    assert ik.repeat_loss(model, repeats)["value"].values == pytest.approx(right, rel=1e-4)
    uniform = math.log(VOCAB)
    without = ik.ablate(model, repeats, "L1H0", edit=ik.Zero())
    assert without["value"].values == pytest.approx(uniform, rel=1e-5)
    assert without["effect"].values == pytest.approx(uniform - right, rel=1e-4)
    # the first copy: query i reads i + 1 different tokens uniformly and the next is a new one
    for p in range(3):
        first = [
            math.log(VOCAB - (i + 1) + (i + 1) * math.exp(GAIN / (i + 1)))
            for i in range(int(repeats.starts()[p]) - 1)
        ]
        assert float(ik.repeat_loss(model, repeats)["without"][p]) == pytest.approx(np.mean(first), rel=1e-4)
    # without the previous-token head the induction head finds nothing: uniform attention
    blind = ik.ablate(model, repeats, "L0H0", edit=ik.Zero())
    assert float(blind["effect"].min()) > 2
    for idle in ("L0H1", "L0H2", "L1H1", "L1H2"):
        assert np.abs(ik.ablate(model, repeats, idle, edit=ik.Zero())["effect"]).max() < 1e-6


def test_the_mean_edit(model):
    prompts = ik.repeated_tokens(model, bos=0, period=12, prompts=8)
    lost = ik.ablate(model, prompts, "L1H0")
    # on the control nothing repeats: the head's mean output is a mean of past tokens, no help for this prompt
    assert float(lost["share"]) > 0.8
    assert float(lost["share_low"]) <= float(lost["share"]) <= float(lost["share_high"])


def test_label_attention(model):
    """The uniform head gives every label 1 / (query + 1); the weights of the others are exact too."""
    tokenizer = words()
    ready = build(ARCHITECTURE, hand_weights(), tokenizer=tokenizer, name="by hand")
    shots = [("w10", "w1"), ("w11", "w2"), ("w12", "w1")]
    prompts = few_shot_prompts(
        ready, shots, [("w10", "w1")], template="{x} {y} ;", labels=["w1", "w2"], separator=" "
    )
    assert prompts.tokens.tolist() == [[0, 10, 1, 60, 11, 2, 60, 12, 1, 60, 10]]
    found = ik.label_attention(ready, prompts)
    assert float(found["score"].sel(layer=0, head=2)[0]) == pytest.approx(3 / 11, abs=1e-6)
    assert float(found["right"].sel(layer=0, head=2)[0]) == pytest.approx(2 / 11, abs=1e-6)
    assert float(found["chance"][0]) == pytest.approx(3 / 11)
    # the induction head looks behind the copy of w10: at the label of the first demonstration
    weights = ik.scorers.demonstration_weights(ready, prompts, pooling="label")["weight"].sel(
        layer=1, head=0
    )[0]
    assert weights.values == pytest.approx([1, 0, 0], abs=1e-6)
    # the duplicate-token head: half on itself, half on the copy inside [x_1, y_1]
    for pooling, value in (("max", 1 / 2), ("sum", 1 / 2), ("mean", 1 / 4)):
        weights = ik.scorers.demonstration_weights(ready, prompts, pooling=pooling)["weight"].sel(
            layer=1, head=2
        )[0]
        assert weights.values == pytest.approx([value, 0, 0], abs=1e-6)


def words():
    """A word-level tokenizer of VOCAB words w0 ... with ";" at 60."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {f"w{i}" if i != 60 else ";": i for i in range(VOCAB)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="w63"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="w0", unk_token="w63", pad_token="w62")


PERIOD = 6  # of the prompts below: [BOS, r_1 .. r_p, r_1 .. r_p], all different from one another and from BOS
CLASSES = [bridge for bridge in (False, True) if bridge or has_hooked_transformer()]


def by_hand(bridge, dtype=torch.float64, **changed):
    """In float64: there the rest of a sharp softmax is e^-200, not 0, which a knock-out has to divide by."""
    weights = {key: value.to(dtype) for key, value in (hand_weights() | changed).items()}
    return build(ARCHITECTURE, weights, dtype=dtype, bridge=bridge, name="by hand")


@pytest.fixture(
    scope="module", params=CLASSES, ids=lambda bridge: "Bridge" if bridge else "HookedTransformer"
)
def either(request):
    return by_hand(request.param)


@pytest.fixture(scope="module")
def short(either):
    return ik.repeated_tokens(either, bos=0, prompts=4, period=PERIOD)


def loss_of_counts(k, *, seen, of, right):
    """Loss at query r_k of copy two, where L1H0 spreads over `of` keys: `seen` = {how often: how many tokens}.

    A token seen c times has the logit GAIN c / of; the right one is seen `right` times.
    """
    rest = VOCAB - sum(seen.values())
    total = rest + sum(n * math.exp(GAIN * c / of) for c, n in seen.items())
    return math.log(total) - GAIN * right / of


UNTOUCHED = math.log(math.exp(GAIN) + VOCAB - 1) - GAIN  # the right token has the logit GAIN, the others 0
QUERIES = range(1, PERIOD)  # r_k of copy two, at position p + k, whose next token is r_(k + 1)
# Where every key of L1H0 is 0, query r_k of copy two, at position i = p + k, spreads over i + 1 keys. There BOS and
# r_(k + 1) .. r_p are seen once, r_1 .. r_k twice.
BLIND = [loss_of_counts(k, seen={1: 1 + PERIOD - k, 2: k}, of=PERIOD + k + 1, right=1) for k in QUERIES]


def test_with_patterns_held_the_previous_token_head_has_its_direct_path_alone(either, short):
    """It writes into the block "token before": no value reads it and nothing unembeds it, so the path is worth 0."""
    held = ik.sweep(either, short, edit=ik.Zero(), hold="patterns", progress=False)
    np.testing.assert_allclose(held["baseline"], UNTOUCHED, rtol=0, atol=1e-10)
    np.testing.assert_allclose(held["effect"].sel(layer=0, head=0), 0, rtol=0, atol=1e-10)
    # the induction head's own path is all there is of it: every logit is 0 without it
    np.testing.assert_allclose(held["value"].sel(layer=1, head=0), math.log(VOCAB), rtol=0, atol=1e-10)
    others = held["effect"].values.reshape(len(short), -1)[:, [1, 2, 4, 5]]
    np.testing.assert_allclose(others, 0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bridge", CLASSES)
def test_a_direct_path_that_is_worth_something(bridge):
    """If the block "token before" is unembedded as well, at the same gain, two tokens share the first place.

    At query r_k those are the right one and r_(k - 1) (r_p, for k = 1), which differ as p >= 3. The loss of the
    untouched model is log(2 e^G + V - 2) - G, without the direct path log(e^G + V - 1) - G: .69 nats less.
    """
    both = hand_weights()["unembed.W_U"]
    both[BEFORE] = GAIN * torch.eye(VOCAB)
    model = by_hand(bridge, **{"unembed.W_U": both})
    prompts = ik.repeated_tokens(model, bos=0, prompts=4, period=PERIOD)
    shared = math.log(2 * math.exp(GAIN) + VOCAB - 2) - GAIN
    options = {"edit": ik.Zero(), "heads": "L0H0", "progress": False}
    held = ik.sweep(model, prompts, hold="patterns", **options)
    np.testing.assert_allclose(held["baseline"], shared, rtol=0, atol=1e-10)
    np.testing.assert_allclose(held["effect"][:, 0, 0], UNTOUCHED - shared, rtol=0, atol=1e-10)
    assert UNTOUCHED - shared == pytest.approx(-math.log(2), abs=0.02)
    assert (
        float(ik.sweep(model, prompts, **options)["effect"][:, 0, 0].min()) > 2
    )  # with its patterns, it destroys


def test_zero_ablation_of_the_previous_token_head_moves_the_pattern_and_destroys_the_effect(either, short):
    found = ik.sweep(either, short, edit=ik.Zero(), heads="L0H0", progress=False)
    np.testing.assert_allclose(found["value"][:, 0, 0], np.mean(BLIND), rtol=0, atol=1e-10)
    before = ik.patterns(either, short, "L1H0")["pattern"][:, 0]
    with ik.edited(either, ik.Zero(), "L0H0"):
        moved = ik.patterns(either, short, "L1H0")["pattern"][:, 0]
        np.testing.assert_allclose(ik.repeat_loss(either, short)["value"], np.mean(BLIND), rtol=0, atol=1e-10)
    for k in QUERIES:
        assert before[:, PERIOD + k, k + 1].values == pytest.approx(1, abs=1e-6)
        row = moved[:, PERIOD + k, : PERIOD + k + 1]
        assert row.values == pytest.approx(1 / (PERIOD + k + 1), abs=1e-6)
    again = ik.patterns(either, short, "L1H0")["pattern"][:, 0]
    np.testing.assert_array_equal(again, before)  # outside the context it is as it was


def test_the_three_ablations_side_by_side(either, short):
    """Shares of the repeat's benefit, which is what the first copy's loss has more than `UNTOUCHED`.

    In the first copy all keys of L1H0 are alike: query i spreads over i + 1 different tokens, and the next is a new
    one. Blind heads still know which tokens there are, dead ones not even that.
    """
    first = np.mean([math.log(VOCAB - (i + 1) + (i + 1) * math.exp(GAIN / (i + 1))) for i in range(PERIOD)])
    shares = {"blind": np.mean(BLIND) - UNTOUCHED, "dead": math.log(VOCAB) - UNTOUCHED, "direct": 0.0}
    shares = {key: gap / (first - UNTOUCHED) for key, gap in shares.items()}
    assert shares["blind"] > 0.65
    assert shares["dead"] > 0.8
    for head, hold, is_left in (
        ("L0H0", None, "blind"),
        ("L0H0", "patterns", "direct"),
        ("L1H0", None, "dead"),
        ("L1H0", "patterns", "dead"),
    ):
        found = float(ik.ablate(either, short, head, edit=ik.Zero(), hold=hold, progress=False)["share"])
        assert found == pytest.approx(shares[is_left], abs=1e-9)
    # What carries it from head to head, keys and not values: see test_paths.py.


def test_knocking_out_what_the_induction_head_reads_destroys_the_effect(either, short):
    """At query r_k of copy two: the entry behind the first r_k.

    L1H0 spreads over the other i = p + k keys. There BOS and r_(k + 2) .. r_p are seen once, r_1 .. r_k twice, and
    the right token r_(k + 1) never. Other heads write nothing that is read in copy two through these entries.
    """
    deaf = [loss_of_counts(k, seen={1: PERIOD - k, 2: k}, of=PERIOD + k, right=0) for k in QUERIES]
    found = ik.knock_out(either, short, masks.after_latest_copy, progress=False)
    np.testing.assert_allclose(found["value"].sel(layer=1, head=0), np.mean(deaf), rtol=0, atol=1e-10)
    others = found["effect"].values.reshape(len(short), -1)[:, [0, 1, 2, 4, 5]]
    np.testing.assert_allclose(others, 0, rtol=0, atol=1e-10)
    elsewhere = ik.knock_out(either, short, masks.earlier_copies, heads="L1H0", progress=False)
    np.testing.assert_allclose(elsewhere["effect"].sel(layer=1, head=0), 0, rtol=0, atol=1e-10)


def test_nothing_was_left_on_the_model(model):
    assert not model.training
    assert torch.is_grad_enabled()
