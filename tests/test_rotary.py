"""Rotary positions of each row: what TransformerLens and Hugging Face rotate, at any positions."""

import pytest
import torch
import zoo

from induction_kernel.replay._layers import Layers
from induction_kernel.replay._rotary import rotary_of

FAMILIES = (
    "GPT-J",
    "GPT-NeoX",
    "Llama",
    "MQA",
    "Phi",
)  # adjacent pairs or halves, of all dimensions or of some
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def heads(*shape, dtype=torch.float64):
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@zoo.hooked_only
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_consecutive_positions_are_rotated_exactly_as_transformer_lens_does(name, dtype):
    attention = zoo.fresh_of(name, "hooked", dtype=dtype).blocks[1].attn
    for start, n_heads in ((0, 4), (7, 1)):
        x = heads(2, 9, n_heads, dtype=dtype)
        found = rotary_of(attention, 16).rotated(x, torch.arange(start, start + 9))
        assert torch.equal(found, attention.apply_rotary(x, start))
        assert not torch.equal(found, x)


@zoo.hooked_only
@pytest.mark.parametrize("name", FAMILIES)
def test_each_row_has_positions_of_its_own(name):
    model = zoo.model_of(name, "hooked")
    x, positions = heads(3, 2, 5, 4), torch.randint(40, (3, 2, 5), generator=torch.Generator().manual_seed(2))
    found = Layers(model, 40)._rotated(1, x, positions)
    for row in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(5)):
        one = x[tuple(row)][None, None]
        wanted = model.blocks[1].attn.apply_rotary(one, int(positions[tuple(row)]))
        assert torch.equal(found[tuple(row)], wanted[0, 0])


@zoo.hooked_only
def test_prompts_longer_than_the_table_make_it_longer(monkeypatch):
    monkeypatch.setitem(zoo.BASE, "n_ctx", 2100)
    attention = zoo.fresh_of("Llama", "hooked").blocks[0].attn
    assert len(attention.rotary_cos) < 2100
    x = heads(1, 2100, 2)
    found = rotary_of(attention, 2100).rotated(x, torch.arange(2100))
    assert torch.equal(found, attention.apply_rotary(x))
