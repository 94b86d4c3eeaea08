"""One whole run a cell: `transformer_lens.patching`, loops over hooks of TransformerLens or of torch.

What every loop takes from the clean run is read before its time is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .cases import BY, Case
from .models import questions

Cells = list[tuple[int, ...]]
SETTERS = {
    "residual": ("layer_pos_patch_setter", ["layer", "pos"]),
    "heads": ("layer_head_vector_patch_setter", ["layer", "head"]),
    "heads by position": ("layer_pos_head_vector_patch_setter", ["layer", "pos", "head"]),
}


def differences(case: Case) -> Callable[[torch.Tensor], torch.Tensor]:
    """The logit difference `[prompt]` at the last position that is there."""
    rows, answers = torch.arange(case.prompts), questions(case)[2]
    return lambda logits: logits[:, -1][rows, answers[:, 0]] - logits[:, -1][rows, answers[:, 1]]


def patching(model: Any, case: Case) -> Any:
    """`transformer_lens.patching` as it is (3.9 for HookedTransformers, `PatchingResult` of 4.3 for Bridges)."""
    import pandas as pd
    from transformer_lens import patching as theirs

    if case.metric == "loss":
        return partial(ablated, model, questions(case)[1])
    theirs.tqdm = lambda iterable=None, *_, **__: iterable  # its bar costs it time
    clean, corrupted, _ = questions(case)
    setter, axes = SETTERS[case.what]
    site, each = "resid_pre" if case.what == "residual" else "z", differences(case)
    by_prompt = hasattr(theirs, "PatchingResult")
    options = {"reduce": "none"} if by_prompt else {}

    def measure(logits: torch.Tensor) -> torch.Tensor:
        return each(logits) if by_prompt else each(logits).mean()

    _, cache = model.run_with_cache(clean)
    order = [0, 2, 1] if case.what == "heads by position" else [0, 1]

    def ask(cells: Cells) -> list[float]:
        frame = pd.DataFrame([[cell[i] for i in order] for cell in cells], columns=axes)
        found = theirs.generic_activation_patch(
            model, corrupted, cache, measure, getattr(theirs, setter), site, index_df=frame, **options
        )
        return (found if isinstance(found, torch.Tensor) else found.mean()).flatten().tolist()

    return ask


def mended(model: Any, case: Case) -> Any:
    """The same, but W_U is not copied in each run, and only the last position is unembedded where only it is read."""
    unembed, from_ = model.unembed, 0 if case.metric == "loss" else -1

    def forward(residual: torch.Tensor) -> torch.Tensor:
        return unembed.hook_out(unembed.hook_in(residual)[:, from_:] @ unembed.W_U + unembed.b_U)

    unembed.forward = forward
    return patching(model, case)


def ablated(model: Any, tokens: torch.Tensor, cells: Cells) -> list[float]:
    """Each head's z set to zero by `run_with_hooks`, the mean loss."""

    def zero(z: torch.Tensor, hook: Any, head: int) -> torch.Tensor:
        z[:, :, head] = 0
        return z

    def run(layer: int, head: int) -> float:
        hooks = [(f"blocks.{layer}.attn.hook_z", partial(zero, head=head))]
        return float(model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks))

    return [run(*cell) for cell in cells]


def bridge_hooks(model: Any, case: Case) -> Any:
    """What `transformer_lens.patching` does, by the Bridge's own `run_with_hooks`."""
    from induction_kernel.model import hook_name

    clean, corrupted, _ = questions(case)
    measure, site = differences(case), "resid_pre" if case.what == "residual" else "z"
    _, cache = model.run_with_cache(clean)

    def put(activation: torch.Tensor, hook: Any, name: str, at: dict[str, int]) -> torch.Tensor:
        activation = activation.clone()
        where = (slice(None), at["position"]) if "position" in at else (slice(None), slice(None), at["head"])
        activation[where] = cache[name][where]
        return activation

    def run(cell: tuple[int, ...]) -> float:
        at = dict(zip(BY[case.what], cell, strict=True))
        name = hook_name(site, at["layer"])
        return float(
            measure(
                model.run_with_hooks(corrupted, fwd_hooks=[(name, partial(put, name=name, at=at))])
            ).mean()
        )

    return lambda cells: [run(cell) for cell in cells]


def torch_hooks(model: Any, case: Case) -> Any:
    """A Hugging Face model, one forward pre-hook of torch a cell, only the last position unembedded."""
    clean, corrupted, _ = questions(case)
    measure, blocks = differences(case), model.transformer.h
    d_head = model.config.n_embd // model.config.n_head
    options = {} if case.metric == "loss" else {"logits_to_keep": 1}

    def edited(layer: int) -> Any:  # the block, or the linear map that reads z
        if case.what == "residual":
            return blocks[layer]
        attention = blocks[layer].attn
        return attention.c_proj if hasattr(attention, "c_proj") else attention.out_proj

    taken: dict[int, torch.Tensor] = {}
    if case.metric != "loss":
        for layer in range(len(blocks)):
            keep = edited(layer).register_forward_pre_hook(
                lambda _, given, layer=layer: taken.update({layer: given[0].clone()})
            )
            model(clean, **options)
            keep.remove()

    def put(_: Any, given: tuple[Any, ...], at: dict[str, int]) -> tuple[Any, ...]:
        here = given[0].clone()
        where: list[Any] = [slice(None), at.get("position", slice(None))]
        if "head" in at:
            where.append(slice(at["head"] * d_head, (at["head"] + 1) * d_head))
        here[tuple(where)] = 0 if case.metric == "loss" else taken[at["layer"]][tuple(where)]
        return here, *given[1:]

    def run(cell: tuple[int, ...]) -> float:
        at = dict(zip(BY[case.what], cell, strict=True))
        hook = edited(at["layer"]).register_forward_pre_hook(partial(put, at=at))
        try:
            logits = model(corrupted, use_cache=False, **options).logits
        finally:
            hook.remove()
        if case.metric == "loss":
            lost = torch.nn.functional.cross_entropy
            return float(lost(logits[:, :-1].flatten(0, 1), corrupted[:, 1:].flatten()))
        return float(measure(logits).mean())

    return lambda cells: [run(cell) for cell in cells]
