"""What a norm divides by and gives, computed from its parts, against the norm itself, with an epsilon that counts."""

import pytest
import torch
from families import every
from zoo import folded, fresh, fresh_of, hooked_only

import induction_kernel as ik
from induction_kernel.model._norms import final_norm_scale, norm_scale, normed
from induction_kernel.replay._maps import final_norm

EPSILON = 0.3


def norms_of(model):
    found = [getattr(model.blocks[1], key, None) for key in ("ln1", "ln2", "ln1_post")]
    return [model.ln_final, *(norm for norm in found if norm is not None)]


def with_epsilon(model, of_config=EPSILON):
    """The model with a large epsilon in each norm and in the configuration of a Bridge's norms."""
    for norm in norms_of(model):
        config = getattr(norm, "config", None)
        for of in (norm, getattr(norm, "original_component", None), config):
            for name in ("eps", "variance_epsilon"):
                if of is not None and name in vars(of):
                    setattr(of, name, of_config if of is config else EPSILON)
    return model


def rows_for(model):
    return torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        model.W_U.dtype
    )


def check_each(model):
    """Each norm by its parts is what the norm gives, in its own arithmetic."""
    rows, norms = rows_for(model), norms_of(model)
    assert len(norms) > 1
    for norm in norms:
        with torch.no_grad():
            torch.testing.assert_close(normed(model, norm, rows), norm(rows), rtol=1e-5, atol=1e-5)


def check_last(model):
    """So is the final one, as lanes and the logit lens compute it, and its scale."""
    rows, norm = rows_for(model), model.ln_final
    with torch.no_grad():
        torch.testing.assert_close(normed(model, norm, rows), final_norm(model, rows), rtol=1e-5, atol=1e-5)
    scale = final_norm_scale(model, rows)
    assert torch.equal(scale, norm_scale(model, norm, rows))
    centred = rows - rows.mean(-1, keepdim=True) if "LN" in str(model.cfg.normalization_type) else rows
    torch.testing.assert_close(scale, (centred.square().mean(-1) + EPSILON).sqrt())


@every
def test_norms_are_as_the_model_computes_them(name, kind):
    model = with_epsilon(fresh_of(name, kind))
    check_each(model)
    check_last(model)
    check_each(with_epsilon(model, of_config=0.1))  # of the two, the one that the model's run uses


@hooked_only
@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_so_are_folded_ones(name):
    model = with_epsilon(folded(fresh(name, dtype=torch.float32)))
    check_each(model)
    check_last(model)


@every
def test_direct_effects_add_up_whatever_the_epsilon(name, kind):
    """The configuration says what the norms of a HookedTransformer do not use."""
    model = with_epsilon(fresh_of(name, kind))
    prompts = ik.repeated_tokens(model, bos=0, prompts=2, period=5)
    try:
        found = ik.direct_effect(model, prompts, by=("component",))
    except ik.errors.NotDefined:
        assert name == "Gemma 2"  # a norm after attention
        return
    assert float(abs(found["missing"]).max()) < 1e-6


def test_without_norms_rows_are_as_they_are():
    model = fresh("attention-only", normalization_type=None)
    rows = torch.randn(2, 16, dtype=torch.float64)
    assert torch.equal(final_norm_scale(model, rows), torch.ones(2, dtype=torch.float64))
    assert torch.equal(normed(model, None, rows), rows)


def test_a_norm_that_does_not_say_its_epsilon_is_refused():
    model = fresh("GPT-2")
    with pytest.raises(ik.errors.NotDefined, match="does not say what it adds"):
        norm_scale(model, torch.nn.Identity(), torch.ones(2, 16))
