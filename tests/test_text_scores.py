"""First token, current token and head sizes: values worked out on paper, controls, and what the sizes are not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoders import BIDIRECTIONAL, bidirectional
from hand_model import ARCHITECTURE, LAG, POSITION, SHARP, TOKEN, VOCAB, hand_weights
from naive import all_patterns
from zoo import fresh

import induction_kernel as ik
from induction_kernel import masks
from induction_kernel.errors import Refused
from induction_kernel.loading import build
from induction_kernel.prompts import random_tokens
from induction_kernel.scorers import head_sizes

L = 21  # tokens of a prompt: BOS and 20 others, all different
SIZES = ("sink", "entropy", "entropy_share", "entropy_rest", "distance", "distance_rest", "norm", "content")


@pytest.fixture(scope="module")
def model():
    return build(ARCHITECTURE, hand_weights(), dtype=torch.float64, name="by hand")


@pytest.fixture(scope="module")
def prompts(model):
    return random_tokens(model, bos=0, length=L - 1, prompts=8)


def mean(values):
    return pytest.approx(np.mean(list(values)), abs=1e-9)


def of(result, layer, head, variable="score"):
    """The value of a head, the same on all prompts."""
    found = result[variable].sel(layer=layer, head=head).values
    assert np.ptp(found) < 1e-9
    return found[0]


def test_the_masks():
    tokens, lengths = torch.tensor([[4, 5, 6, 7], [4, 5, 6, 6]]), torch.tensor([4, 3])
    first, current = masks.first_key(tokens, lengths), masks.current_key(tokens, lengths)
    assert first.nonzero().tolist() == [[0, 1, 0], [0, 2, 0], [0, 3, 0], [1, 1, 0], [1, 2, 0]]
    assert current.nonzero().tolist() == [[0, 2, 2], [0, 3, 3], [1, 2, 2]]


def test_first_token(model, prompts):
    found = ik.first_token(model, prompts)
    assert of(found, 0, 0) == mean([1] + [0] * (L - 2))  # the previous token is the first for query 1 alone
    assert of(found, 0, 1) == mean([int(i == LAG) for i in range(1, L)])
    assert of(found, 0, 2) == mean(1 / (i + 1) for i in range(1, L))
    assert found["chance"].values == pytest.approx(of(found, 0, 2))
    np.testing.assert_allclose(found["score"], found["control"], atol=1e-9)  # nobody looks at BOS as such


def test_current_token(model, prompts):
    found = ik.current_token(model, prompts)
    queries = range(2, L)
    uniform = mean(1 / (i + 1) for i in queries)
    for variable in ("score", "control"):
        assert of(found, 0, 2, variable) == uniform
    assert (of(found, 1, 2), of(found, 1, 2, "control")) == pytest.approx((1, 0))
    assert of(found, 0, 0) == pytest.approx(0)
    assert of(found, 0, 0, "control") == mean(1 / (i - 1) for i in queries)
    assert of(found, 0, 1) == mean([int(i < LAG) for i in queries])
    # from LAG + 1 on it looks at one of the i - 1 keys that are neither the first nor the current
    assert of(found, 0, 1, "control") == mean([1 / (i - 1) if i > LAG else 0 for i in queries])
    passes = ik.summarise(found)["passes"]
    assert (passes.sel(layer=1, head=2), passes.sel(layer=0, head=2), passes.sel(layer=0, head=0)) == (
        1,
        0,
        0,
    )


def resting(*, on_bos):
    """L1H1 of the hand-made model looks at position 0: because BOS stands there, or whatever does."""
    weights = hand_weights()
    at = TOKEN if on_bos else POSITION
    weights["blocks.1.attn.W_Q"][1, POSITION, 0] = SHARP * VOCAB**0.5
    weights["blocks.1.attn.W_K"][1, at] = torch.eye(VOCAB)
    return build(ARCHITECTURE, weights, name="resting")


def test_a_rest_on_a_place_has_no_excess_and_one_on_bos_has(prompts):
    place, token = (ik.first_token(resting(on_bos=on_bos), prompts) for on_bos in (False, True))
    for found in (place, token):
        assert of(found, 1, 1) == pytest.approx(1, abs=1e-6)
    assert of(place, 1, 1, "control") == pytest.approx(1, abs=1e-6)
    # where BOS is nowhere, attention is uniform
    assert of(token, 1, 1, "control") == pytest.approx(np.mean([1 / (i + 1) for i in range(1, L)]), abs=1e-6)
    passes = [float(ik.summarise(found)["passes"].sel(layer=1, head=1)) for found in (place, token)]
    assert passes == [0, 1]


def test_the_control_has_another_token_in_the_first_place_alone(model, prompts):
    found = ik.first_token.replaced(model, prompts)
    assert torch.equal(found[:, 1:], prompts.tokens[:, 1:])
    for new, old in zip(found.tolist(), prompts.tokens.tolist(), strict=True):
        assert new[0] not in old
    order = [3, 1, 0]
    assert torch.equal(ik.first_token.replaced(model, prompts[order]), found[order])
    every = replace(prompts[0], tokens=torch.arange(VOCAB)[None, :L] * 0 + torch.arange(L))
    assert int(ik.first_token.replaced(model, every)[0, 0]) not in range(L)


def test_a_prompt_of_all_tokens_gets_one_of_its_own():
    tiny = fresh("attention-only", d_vocab=4)
    full = ik.as_prompts(tiny, torch.tensor([[0, 1, 2, 3]]))
    assert int(ik.first_token.replaced(tiny, full)[0, 0]) in (1, 2, 3)
    with pytest.raises(ik.errors.NotDefined, match="no other token"):
        ik.first_token(fresh("attention-only", d_vocab=1), torch.zeros(1, 3, dtype=torch.long))


def test_the_users_prompts_keep_their_own_control_for_other_scorers(model):
    repeats = ik.repeated_tokens(model, bos=0, prompts=6, period=(5, 9))
    both = ik.observe(model, repeats, [ik.induction, ik.first_token, ik.current_token, ik.previous_token])
    for scorer in (ik.induction, ik.first_token, ik.current_token):
        alone = scorer(model, repeats)
        for variable in ("score", "control"):
            np.testing.assert_allclose(both[variable].sel(scorer=scorer.name), alone[variable], atol=1e-12)
    assert both["control"].sel(scorer="previous_token").isnull().all()


def test_sizes_of_what_is_positional(model, prompts):
    found = head_sizes(model, prompts)
    queries = range(1, L)
    wanted = {
        (0, 0): {"entropy": 0, "entropy_share": 0, "distance": 1, "entropy_rest": 0, "distance_rest": 1},
        (0, 2): {
            "entropy": np.mean([math.log(i + 1) for i in queries]),
            "entropy_share": 1,
            "distance": np.mean([i / 2 for i in queries]),
            "entropy_rest": np.mean([math.log(i) for i in queries[1:]]),
            "distance_rest": np.mean([(i - 1) / 2 for i in queries[1:]]),
            "norm": 0,
        },
    }  # fmt: skip
    wanted[0, 0]["norm"] = 1 / math.sqrt(2)  # the one of a token, beside those of a token and a position
    first = ik.first_token(model, prompts)
    for (layer, head), values in wanted.items():
        for variable, value in (values | {"content": 0, "sink": of(first, layer, head)}).items():
            assert of(found, layer, head, variable) == pytest.approx(value, abs=1e-9), variable
    assert (found["content"] < 1e-9).all()  # nothing repeats, so nobody depends on the tokens


def test_content_by_hand(model):
    """L1H2 reads itself and its copy: query 2 splits over two keys in one prompt, and has one in the other."""
    found = head_sizes(model, torch.tensor([[0, 1, 1], [0, 1, 2]]))
    assert found["content"].sel(layer=1, head=2).values == pytest.approx([1 / 4, 1 / 4])
    assert found["content"].sel(layer=0, head=0).values == pytest.approx([0, 0])
    alone = head_sizes(model, torch.tensor([[0, 1, 1]]))
    assert alone["content"].isnull().all()
    assert alone["sink"].notnull().all()


def test_a_head_that_rests_leaves_no_rest(prompts):
    found = head_sizes(resting(on_bos=False), prompts)
    assert of(found, 1, 1, "sink") == pytest.approx(1, abs=1e-6)
    for variable in ("entropy_rest", "distance_rest"):
        assert found[variable].sel(layer=1, head=1).isnull().all()
        assert found[variable].sel(layer=1, head=0).notnull().all()


@pytest.mark.parametrize("variable", SIZES)
def test_sizes_are_described_and_never_tested(model, prompts, variable):
    found = ik.summarise(head_sizes(model, prompts), variable=variable)
    assert not found["tested"].any()
    assert found["passes"].isnull().all()
    assert "described, not tested" in found["untested"].item()
    assert found.attrs["unit"] == {"entropy": "nats", "entropy_rest": "nats"}.get(
        variable,
        {"distance": "tokens", "distance_rest": "tokens", "norm": "ratio"}.get(variable, "share"),
    )
    assert found["scorer"].item() == variable
    largest = found["mean"].where(found["rank"] == 1, drop=True)
    assert float(largest.squeeze()) == float(found["mean"].max())


def test_sizes_go_where_other_results_of_heads_go(model, prompts):
    sizes = head_sizes(model, prompts)
    assert ik.top_heads(sizes, 1, by="entropy") in ([(0, 2)], [(1, 0)], [(1, 1)])  # all uniform
    summary = ik.summarise(sizes, variable="distance")
    assert ik.head_table(summary, 2).shape[0] == 2
    assert ik.head_map(summary).layout.title.text
    with pytest.raises(Refused, match=r"wanted variable in \['sink', 'entropy'"):
        ik.summarise(sizes, variable="norms")
    with pytest.raises(Refused, match="tested"):
        ik.top_heads(sizes, passing=True)


def test_batches_and_layers_change_nothing(model):
    prompts = ik.repeated_tokens(model, bos=0, prompts=5, period=(4, 7))
    whole = head_sizes(model, prompts)
    for other in (head_sizes(model, prompts, batch_size=2), head_sizes(model, prompts, layers=[1])):
        for name in SIZES:
            np.testing.assert_allclose(other[name], whole[name].sel(layer=other["layer"]), atol=1e-12)


def test_more_positions_than_are_compared():
    long = fresh("attention-only", n_ctx=140)
    tokens = torch.randint(50, (3, 140), generator=torch.Generator().manual_seed(0))
    whole, first = (head_sizes(long, tokens[:, :n]) for n in (140, 128))
    np.testing.assert_allclose(whole["content"], first["content"], rtol=1e-9)
    assert whole.attrs["compared"] == 128


@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_where_later_keys_are_seen(kind):
    """The other keys are all of the prompt's, and so are those that entropy is compared with."""
    model = bidirectional(kind)
    tokens = torch.randint(5, 45, (3, 9), generator=torch.Generator().manual_seed(0))
    current, sizes = ik.current_token(model, tokens), head_sizes(model, tokens)
    for layer, pattern in enumerate(all_patterns(model, tokens)):
        pattern = pattern.double().numpy()
        for p, h in np.ndindex(*pattern.shape[:2]):
            rows = pattern[p, h]
            twin = np.mean([[np.delete(rows[i], [0, i]).mean(), rows[i, i]] for i in range(2, 9)], 0)
            found = [float(current[key][p, layer, h]) for key in ("control", "score")]
            assert found == pytest.approx(twin, abs=1e-7)
            entropy = np.mean([-(row * np.log(row)).sum() for row in rows[1:]])
            distance = np.mean([sum(a * abs(i - j) for j, a in enumerate(rows[i])) for i in range(1, 9)])
            assert float(sizes["entropy_share"][p, layer, h]) == pytest.approx(entropy / math.log(9))
            assert float(sizes["distance"][p, layer, h]) == pytest.approx(distance)
            others = np.delete(pattern[:, h], p, 0).mean(0)
            content = np.mean(np.abs(rows - others)[1:].sum(-1)) / 2
            assert float(sizes["content"][p, layer, h]) == pytest.approx(content, rel=1e-5)
