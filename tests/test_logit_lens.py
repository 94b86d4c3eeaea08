"""The logit lens: on paper, beside TransformerLens' own functions, and the model's own logits at its end.

The cells of the matrix compare it with its slow twin on every family (`cells_attribution.py`).
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, GAIN, VOCAB, hand_weights
from zoo import ARCHITECTURES, fresh, has_hooked_transformer, hooked_only, model_of, tiny

import induction_kernel as ik
from induction_kernel.loading import build
from induction_kernel.scorers import _logit_lens

logit_lens = ik.scorers.logit_lens


def prompts_for(model):
    prompts = ik.repeated_tokens(model, bos=0, prompts=3, period=(4, 6))
    return replace(prompts, answers=torch.tensor([[3, 7], [11, 2], [30, 31]]))


@pytest.mark.parametrize("bridge", [False, True] if has_hooked_transformer() else [True])
def test_on_paper(bridge):
    """Nothing is unembedded before layer 1, which writes GAIN to the right token of the second copy."""
    model = build(ARCHITECTURE, hand_weights(), name="by hand", bridge=bridge)
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    found = logit_lens(model, prompts)
    before = found.sel(layer=[-1, 0], position=slice(0, 9))
    np.testing.assert_allclose(before["probability"], 1 / VOCAB, rtol=1e-6)
    np.testing.assert_allclose(before["logit"], 0, atol=1e-6)
    assert (before["rank"] == 1).all()  # none is higher
    after = found.sel(layer=1, position=slice(6, 9))
    np.testing.assert_allclose(after["logit"], GAIN - GAIN / VOCAB, rtol=1e-6)
    np.testing.assert_allclose(after["probability"], math.exp(GAIN) / (math.exp(GAIN) + VOCAB - 1), rtol=1e-6)
    np.testing.assert_array_equal(after["top"].values, prompts.tokens[:, 7:11].numpy())
    assert found["logit"].sel(position=10).isnull().all()  # nothing follows


@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_layer_is_the_model_and_what_its_components_add_up_to(name, bridge):
    model = tiny(name, bridge=bridge)
    prompts = prompts_for(model)
    within = {"rtol": 1e-9, "atol": 1e-9} if name != "Llama" else {"rtol": 1e-5, "atol": 1e-5}
    lens = logit_lens(model, prompts, on="next token").sel(layer=1)
    np.testing.assert_allclose(
        -np.log(lens["probability"]), ik.loss_by_position(model, prompts)["loss"], rtol=1e-5, atol=1e-5
    )
    parts = ik.direct_effect(model, prompts, on="next token", by=("component", "position"))
    read = parts["total"].notnull()
    np.testing.assert_allclose(lens["logit"].where(read), parts["total"], **within)
    answers = logit_lens(model, prompts).sel(layer=1)
    found = answers["difference"].values[range(3), prompts.lengths - 1]
    np.testing.assert_allclose(found, ik.logit_difference(model, prompts)["value"], **within)


@hooked_only
def test_transformer_lens_says_the_same():
    """`accumulated_resid(apply_ln=True)`, which takes the norm's scale anew for each stream, and the unembedding."""
    model = fresh("GPT-2")
    prompts = prompts_for(model)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
        theirs = cache.accumulated_resid(apply_ln=True) @ model.W_U + model.b_U
    found = logit_lens(model, prompts, on="next token")
    for p in range(3):
        for i in range(int(prompts.lengths[p]) - 1):
            probabilities = theirs[:, p, i].softmax(-1)[:, prompts.tokens[p, i + 1]]
            np.testing.assert_allclose(found["probability"][p, :, i], probabilities.detach(), rtol=1e-9)


def test_batches_layers_and_files(tmp_path):
    model = tiny("GPT-2")
    prompts = prompts_for(model)
    whole = logit_lens(model, prompts)
    xr.testing.assert_allclose(whole, logit_lens(model, prompts, batch_size=1), rtol=1e-9)
    one = logit_lens(model, prompts, layers=[0])
    assert one["layer"].values.tolist() == [-1, 0]
    xr.testing.assert_allclose(one["logit"], whole["logit"].sel(layer=[-1, 0]), rtol=1e-9)
    whole.to_netcdf(tmp_path / "lens.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "lens.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), whole)


def test_every_position_is_read_not_only_the_scored():
    model = tiny("GPT-2")
    prompts = prompts_for(model)
    unscored = replace(prompts, scored=torch.zeros_like(prompts.scored))
    xr.testing.assert_equal(
        logit_lens(model, unscored, on="next token"), logit_lens(model, prompts, on="next token")
    )


def test_a_long_token_makes_the_result_no_larger(monkeypatch):
    """Cells hold ids, and each text stands once: one as long as a page costs a page, not a page per cell."""
    monkeypatch.setattr(_logit_lens, "decoded", lambda tokenizer, ids: "-" * 5000 + str(ids[0]))
    model = tiny("GPT-2")
    found = logit_lens(model, prompts_for(model))
    assert found["top"].nbytes == 4 * found["top"].size
    assert len(set(found["top_id"].values.tolist())) == found.sizes["top_id"] <= 51
    texts = found["top_token"].sel(top_id=found["top"])
    assert texts.dims == found["top"].dims
    for token, text in zip(found["top"].values.flat, texts.values.flat, strict=True):
        assert text == ("" if token < 0 else "-" * 5000 + str(token))


def test_a_text():
    model = ik.load("tiny")
    found = logit_lens(model, "fox dax ; apple wug ; fox")
    assert found["top"].dims == ("prompt", "layer", "position")
    top = found["top_token"].sel(top_id=found["top"])
    assert str(top.values[0, -1, -2]).strip() == "fox" or found["rank"].values[0, -1, -2] > 1
    assert found.attrs["method"] == "logit_lens"


def test_a_norm_behind_every_block_leaves_nothing_to_read_through():
    model = model_of("OPT-350m", "bridge")
    with pytest.raises(ik.errors.NotDefined, match="no norm before its unembedding"):
        logit_lens(model, torch.tensor([[1, 2, 3]]))


def test_logits_that_are_scaled_afterwards_are_refused(monkeypatch):
    model = fresh("GPT-2", bridge=True)
    inner = model.original_model
    plain = type(inner).forward

    def scaled(self, *given, **options):
        out = plain(self, *given, **options)
        return out / 8 if isinstance(out, torch.Tensor) else type(out)(**{**out, "logits": out.logits / 8})

    monkeypatch.setattr(type(inner), "forward", scaled)
    prompts = prompts_for(model)
    with pytest.raises(ik.errors.NotDefined, match="it scales them"):
        logit_lens(model, prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "repeat"}, 'wanted on="next token"'),
        ({"on": "answers"}, "needs prompts with answers"),
        ({"layers": [5]}, "layers from 0 to 1"),
        ({"batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_what_users_get_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        logit_lens(tiny("GPT-2"), torch.tensor([[1, 2, 3]]), **options)


def test_a_prompt_of_one_token_has_no_next():
    with pytest.raises(ValueError, match="logit_lens has nothing to read in prompt 0"):
        logit_lens(tiny("GPT-2"), torch.tensor([[1]]))
