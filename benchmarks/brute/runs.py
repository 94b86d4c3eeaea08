"""Plain runs of a model on one prompt alone, unpadded: what hooks see, and edited runs.

Nothing here knows the package: a model, ids, and torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

INSIDE = ("z", "q", "k", "v", "pattern")


def name(site: str, layer: int) -> str:
    return f"blocks.{layer}.attn.hook_{site}" if site in INSIDE else f"blocks.{layer}.hook_{site}"


def is_hooked(model: Any) -> bool:
    return type(model).__name__ == "HookedTransformer"


def sees_all(model: Any) -> bool:
    """Whether attention reaches later positions too."""
    return getattr(model.cfg, "attention_dir", "causal") == "bidirectional"


def logits(model: Any, ids: Sequence[int], hooks: Sequence[Any] = (), *, grad: bool = False) -> Tensor:
    """`[position, vocab]`."""
    tokens = torch.tensor([list(ids)])
    given = {"attention_mask": torch.ones_like(tokens)} if is_hooked(model) and model.tokenizer else {}
    roots = [
        model,
        getattr(model, "original_model", None),
    ]  # a Bridge does not count the latter among its own
    modules = [each for root in roots if root is not None for each in root.modules()]
    flags = [module.training for module in modules]
    model.eval()
    try:
        with torch.set_grad_enabled(grad):
            out = model.run_with_hooks(tokens, fwd_hooks=list(hooks), return_type="logits", **given)
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
    return out[0]


def seen(
    model: Any, ids: Sequence[int], sites: Sequence[str], hooks: Sequence[Any] = ()
) -> dict[tuple[str, int], Tensor]:
    """(site, layer) -> activation of one run, without its dimension of prompts; "logits" too, at layer -1.

    The stream between attention and MLP is what attention was added to, and what it wrote.
    """
    found: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int) -> Any:
        def hook(activation: Tensor, hook: Any) -> None:
            found[site, layer] = activation.detach()[0].clone()

        return name(site, layer), hook

    needed = [site for site in sites if site != "resid_mid"]
    needed += [site for site in ("resid_pre", "attn_out") if "resid_mid" in sites and site not in sites]
    reads = [keep(site, layer) for site in needed for layer in range(model.cfg.n_layers)]
    found["logits", -1] = logits(model, ids, [*hooks, *reads])
    if "resid_mid" in sites:
        for layer in range(model.cfg.n_layers):
            found["resid_mid", layer] = found["resid_pre", layer] + found["attn_out", layer]
    return found


New = Callable[[int, Tensor], Tensor]
"""(layer, the activation `[position, ...]` or the pattern `[head, query, key]`) -> what stands in its place."""
Touched = dict[int, list[int] | None]


def edited(
    model: Any, ids: Sequence[int], site: str, touched: Touched, positions: Sequence[int] | None, new: New,
    held: dict[int, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Logits `[position, vocab]` of one whole run with the edit of these heads (None: no heads) and positions."""
    places = list(range(len(ids))) if positions is None else list(positions)

    def put(layer: int, old: Tensor) -> Tensor:
        made, out = new(layer, old), old.clone()
        heads = touched[layer]
        for position in places:
            for head in [None] if heads is None else heads:
                if site == "pattern":
                    out[head, position] = made[head, position]
                elif head is None:
                    out[position] = made[position]
                else:
                    out[position, head] = made[position, head]
        return out

    if site != "pattern":
        return logits(model, ids, _hooks(model, site, touched, put, held or {}))
    put_there: dict[int, Tensor] = dict(held or {})
    for layer in sorted(touched):  # the pattern here, where the patterns before it are edited
        shown = seen(model, ids, ["pattern"], _hooks(model, "", {}, put, put_there))
        put_there[layer] = put(layer, shown["pattern", layer])
    return logits(model, ids, _hooks(model, "", {}, put, put_there))


def _hooks(
    model: Any, site: str, touched: Touched, put: Callable[[int, Tensor], Tensor], held: dict[int, Tensor]
) -> list[Any]:
    hooks: list[Any] = []
    values: dict[int, Tensor] = {}
    entering: dict[int, Tensor] = {}

    def plain(layer: int) -> Any:
        return name(site, layer), lambda old, hook: put(layer, old[0])[None].to(old)

    def keep(kept: dict[int, Tensor], layer: int) -> Any:
        def hook(activation: Tensor, hook: Any) -> None:
            kept[layer] = activation

        return hook

    def from_pattern(layer: int) -> Any:
        def hook(z: Tensor, hook: Any) -> Tensor:
            v = values[layer][0]
            v = v.repeat_interleave(z.shape[2] // v.shape[1], 1)
            made = torch.einsum("hqk,khd->qhd", held[layer].to(v), v)
            return made[None].to(z)

        return hook

    def between(layer: int) -> Any:
        def hook(written: Tensor, hook: Any) -> Tensor:
            before = entering[layer][0]
            return (put(layer, before + written[0]) - before)[None].to(written)

        return hook

    for layer in range(model.cfg.n_layers):
        if layer in touched and site in ("q", "k", "v"):
            hooks.append(plain(layer))
        if layer in held:
            hooks.append((name("v", layer), keep(values, layer)))
            hooks.append((name("z", layer), from_pattern(layer)))
        if layer in touched and site == "resid_mid":
            hooks.append((name("resid_pre", layer), keep(entering, layer)))
            hooks.append((name("attn_out", layer), between(layer)))
        elif layer in touched and site not in ("q", "k", "v"):
            hooks.append(plain(layer))
    return hooks


def cap_of(model: Any) -> float:
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0) or -1.0
    return cap if cap > 0 else 0.0


def uncapped(model: Any, found: Tensor) -> Tensor:
    """Logits before a soft cap."""
    cap = cap_of(model)
    return found if not cap else cap * torch.atanh((found / cap).clamp(-1 + 1e-15, 1 - 1e-15))
