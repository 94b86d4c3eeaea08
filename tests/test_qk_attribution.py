"""QK attribution: values by hand, exactness on scores, norms of queries and keys, tables, senders, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
import xarray as xr
from hand_model import ARCHITECTURE, SHARP, hand_weights
from transformer_lens.model_bridge.sources import build_bridge_from_module
from zoo import fresh_of, hooked_only, hooked_with, model_of, quietly, randomise, tiny

import induction_kernel as ik
from induction_kernel.loading import build

PAIRS = ("query_component", "key_component")


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def test_the_induction_head_by_hand_reads_its_token_and_the_previous_token_head(by_hand):
    """Its query asks for the token itself, its key says the token before: SHARP at the entry, 0 at every other key."""
    prompts = ik.repeated_tokens(by_hand, bos=0, prompts=3, period=(5, 9))
    found = ik.scorers.qk_attribution(by_hand, prompts, "L1H0")
    means = found["score"].mean("prompt")
    assert float(means.sel(query_component="embedding", key_component="L0H0")) == pytest.approx(SHARP)
    assert float(abs(means).sum()) == pytest.approx(SHARP)
    assert found["total"].values == pytest.approx(SHARP)
    senders = ik.scorers.qk_senders(found)
    assert ik.top_heads(senders, 1) == [(0, 0)]
    assert senders["score"].values[:, 0] == pytest.approx(np.tile([SHARP, 0, 0], (3, 1)))
    assert ik.scorers.qk_senders(found, side="query")["score"].values == pytest.approx(0)


def test_the_duplicate_token_head_by_hand_reads_tokens_alone(by_hand):
    """It sees its own position too: SHARP less SHARP / i, the mean over the i other keys of the query at i."""
    prompts = ik.repeated_tokens(by_hand, bos=0, prompts=2, period=6)
    found = ik.scorers.qk_attribution(by_hand, prompts, "L1H2", scorer=ik.duplicate_token)
    expected = np.mean([SHARP - SHARP / i for i in range(7, 13)])
    means = found["score"].mean("prompt").sel(query_component="embedding", key_component="embedding")
    assert float(means) == pytest.approx(expected)
    raw = ik.scorers.qk_attribution(by_hand, prompts, "L1H2", scorer=ik.duplicate_token, contrast=False)
    assert raw["score"].sum(PAIRS).values == pytest.approx(SHARP)


def test_the_previous_token_head_by_hand_reads_positions(by_hand):
    found = ik.scorers.qk_attribution(by_hand, None, "L0H0", scorer=ik.previous_token)
    table = ik.scorers.qk_table(found, 1)
    assert table.index.tolist() == [("positional embedding", "positional embedding")]
    assert float(table["share"].iloc[0]) == pytest.approx(1)
    assert "control" not in found  # previous_token has none
    with pytest.raises(ValueError, match="no head comes before L0H0"):
        ik.scorers.qk_senders(found)


@pytest.mark.parametrize(
    ("name", "kind"), [("GPT-2", "converted"), ("Llama", "converted"), ("Gemma 2", "converted")]
)
@hooked_only
def test_scores_as_they_are_are_those_of_the_model_before_its_soft_cap(name, kind):
    model = model_of(name, kind)
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    found = ik.scorers.qk_attribution(model, prompts, "L1H1", contrast=False)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    own = cache["attn_scores", 1][:, 1]
    cap = model.cfg.attn_scores_soft_cap
    own = cap * torch.atanh(own / cap) if cap > 0 else own
    mask = ik.masks.after_latest_copy(prompts.tokens, prompts.lengths) & prompts.scored[:, :, None]
    mask = mask & own.isfinite()
    expected = [float(own[p][mask[p]].mean()) for p in range(2)]
    np.testing.assert_allclose(found["total"], expected, rtol=1e-9)
    np.testing.assert_allclose(found["score"].sum(PAIRS), expected, rtol=1e-9)


def test_three_layers_have_every_earlier_head_and_add_up():
    model = tiny_of_three_layers()
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=6)
    found = ik.scorers.qk_attribution(model, prompts, (2, 1))
    assert found.sizes["key_component"] == 2 + 2 * (4 + 1) + 2
    np.testing.assert_allclose(found["score"].sum(PAIRS), found["total"], rtol=1e-9)
    senders = ik.scorers.qk_senders(found)
    assert senders.sizes["layer"] == 2
    one = found["score"].sel(key_component="L1H3").sum("query_component")
    np.testing.assert_allclose(senders["score"].sel(layer=1, head=3), one, rtol=1e-12)
    assert {"mean", "excess", "rank"} <= set(ik.summarise(senders))


def tiny_of_three_layers():
    from zoo import fresh

    return fresh("GPT-2", n_layers=3)


def test_padding_and_batches_change_nothing():
    model = tiny("GPT-2")
    prompts = ik.repeated_tokens(model, bos=0, prompts=4, period=(4, 8))
    whole = ik.scorers.qk_attribution(model, prompts, "L1H2")
    single = ik.scorers.qk_attribution(model, prompts, "L1H2", batch_size=1)
    alone = ik.scorers.qk_attribution(model, prompts[[1]].narrowed(), "L1H2")
    np.testing.assert_allclose(single["score"], whole["score"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alone["score"][0], whole["score"][1], rtol=1e-9, atol=1e-12)


@hooked_only
def test_queries_and_keys_that_are_normalised_pass_their_norms_held():
    model = hooked_with(
        n_layers=2, use_qk_norm=True, normalization_type="RMS", final_rms=True, positional_embedding_type="rotary",
        rotary_dim=4,
    )  # fmt: skip
    check_adds_up(model, 1e-9)


@hooked_only
def test_positions_that_queries_and_keys_alone_read_are_a_component():
    """Shortformer positions, as in the attention-only models of courses: added after the norm."""
    model = hooked_with(n_layers=2, attn_only=True, positional_embedding_type="shortformer")
    check_adds_up(model, 1e-9)
    prompts = ik.repeated_tokens(model, bos=0, prompts=1, period=6)
    raw = ik.scorers.qk_attribution(model, prompts, "L1H2", contrast=False)
    query, key = ((model.W_pos @ weights[1, 2]).detach() for weights in (model.W_Q, model.W_K))
    expected = np.mean([float(query[i] @ key[i - 5]) for i in range(7, 13)]) / 2
    found = raw["score"].sel(query_component="positional embedding", key_component="positional embedding")
    assert float(found[0]) == pytest.approx(expected)


def test_a_bridge_with_norms_of_queries_and_keys_adds_up():
    config = transformers.Qwen3Config(
        num_hidden_layers=2, hidden_size=16, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        intermediate_size=32, max_position_embeddings=40, vocab_size=50, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    check_adds_up(bridge_around(config), 1e-5)


def bridge_around(config):
    with quietly(), torch.random.fork_rng(devices=[]):
        theirs = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", dtype=torch.float64
        )
        randomise(theirs)
        model = build_bridge_from_module(
            theirs.eval(),
            type(theirs).__name__,
            hf_config=theirs.config,
            tokenizer=None,
            model_name="made up",
        )
    model.cfg.n_ctx = 40
    return model.eval()


def check_adds_up(model, within):
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=6)
    found = ik.scorers.qk_attribution(model, prompts, "L1H2")
    np.testing.assert_allclose(found["score"].sum(PAIRS), found["total"], rtol=within, atol=within)
    assert float(abs(found["score"]).max()) > 1e-2


def test_norms_after_attention_alone_are_refused():
    config = transformers.Olmo2Config(
        num_hidden_layers=2, hidden_size=16, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=40, vocab_size=50, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = bridge_around(config)
    with pytest.raises(ik.errors.NotDefined, match="composition compares the weights instead"):
        ik.scorers.qk_attribution(model, ik.repeated_tokens(model, bos=0, prompts=2, period=6), "L1H2")


def test_attention_that_is_no_softmax_of_the_products_is_refused():
    model = fresh_of("attention-only", "native")

    def bent(pattern, hook):
        return pattern**0.3 / (pattern**0.3).sum(-1, keepdim=True)

    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=6)
    with (
        model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", bent)]),
        pytest.raises(ik.errors.NotDefined, match="is not a softmax of the products"),
    ):
        ik.scorers.qk_attribution(model, prompts, "L1H2")


def test_a_head_that_cannot_see_any_entry_is_refused():
    """A window of four tokens, and copies seven back."""
    model = model_of("Mistral", "bridge")
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=12)
    with pytest.raises(ValueError, match="a sliding window"):
        ik.scorers.qk_attribution(model, prompts, "L1H2")


def test_the_embedded_induction_head_reads_the_previous_token_head_by_its_keys():
    model = ik.load("tiny")
    found = ik.scorers.qk_attribution(model, ik.repeated_tokens(model), "L1H7")
    assert ik.top_heads(ik.scorers.qk_senders(found), 1) == [(0, 3)]
    table = ik.scorers.qk_table(found, None)
    assert table.loc[("embedding", "L0H3"), "share"] > 0.5
    np.testing.assert_allclose(float(table["mean"].sum()), float(found["total"].mean()), atol=0.01)
    by_key = ik.scorers.qk_table(found, 3, by="key")
    assert by_key.index[0] == "L0H3"
    assert by_key.index.name == "key"


def test_rows_are_chosen_on_every_other_prompt_and_measured_on_the_others():
    """Of 900 pairs of pure noise the intervals of those chosen hold 0 as often as they say."""
    generator = np.random.default_rng(0)
    names = [f"MLP {i}" for i in range(30)]
    noise = xr.Dataset(
        {
            "score": (("prompt", *PAIRS), generator.normal(size=(40, 30, 30))),
            "total": ("prompt", np.ones(40)),
        },
        coords=dict.fromkeys(PAIRS, names) | {"prompt": np.arange(40)},
    )
    table = ik.scorers.qk_table(noise, 40)
    assert (
        (table["low"] < 0) & (table["high"] > 0)
    ).sum() >= 34  # of 40; chosen on all prompts, nearly none does
    chosen = noise["score"][::2].mean("prompt").stack(row=PAIRS)
    assert table.index[0] == chosen["row"].values[np.abs(chosen.values).argmax()]
    (query, key), one = table.index[0], table.iloc[0]
    there = noise["score"].sel(query_component=query, key_component=key)[1::2]
    assert one["mean"] == pytest.approx(float(there.mean()), abs=6e-4)
    whole = ik.scorers.qk_table(noise, None).loc[(query, key)]
    both = noise["score"].sel(query_component=query, key_component=key)
    assert whole["mean"] == pytest.approx(float(both.mean()), abs=6e-4)  # all rows: none is chosen
    few = ik.scorers.qk_table(noise.isel(prompt=slice(3)), 5)
    assert few["low"].notnull().all()


def test_raw_and_processed_weights_have_one_attribution():
    model = ik.load("tiny")
    prompts = ik.repeated_tokens(model, prompts=3)
    bridge = ik.load("tiny", bridge=True)
    one, other = (ik.scorers.qk_attribution(each, prompts, "L1H7") for each in (model, bridge))
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4, atol=1e-4)


def test_the_map_adds_up_and_names_what_it_shows():
    model = tiny_of_three_layers()
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=6)
    found = ik.scorers.qk_attribution(model, prompts, "L2H1")
    figure = ik.plots.qk_map(found, k=4)
    heat = figure.data[0]
    assert heat.z.shape == (5, 5)
    assert heat.x[-1] == heat.y[-1] == "all others"
    assert heat.z.sum() == pytest.approx(float(found["total"].mean()))
    means = found["score"].mean("prompt")
    assert heat.z[0, 0] == pytest.approx(float(means.sel(query_component=heat.y[0], key_component=heat.x[0])))
    assert "L2H1" in figure.layout.title.text
    assert ik.plots.qk_map(found, k=99).data[0].z.shape == (14, 14)
    without = ik.plots.qk_map(ik.scorers.qk_attribution(model, replace(prompts, control=None), "L2H1"))
    assert "control" not in without.data[0].hovertemplate
