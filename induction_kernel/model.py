"""How is a TransformerLens model asked? The only door to it: sizes, hook names, one run, the weights of heads.

Works alike on `HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x, 4.x). A run leaves
nothing behind: hooks, training mode, gradients and random state are as before, also after an exception. Work is
done in z-space (`z == pattern @ v` on both). It loads nothing: see `loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import __version__

__all__ = [
    "Model",
    "Sizes",
    "all_modules",
    "batches",
    "bos_id",
    "check_model",
    "check_weights",
    "describe",
    "device_of",
    "full_precision",
    "hook_name",
    "kept_as_it_was",
    "per_query_head",
    "progress_bar",
    "run",
    "sizes",
    "stream",
    "unembedding",
    "value_weights",
]

Hook = tuple[str, Callable[..., Any]]


class Model(Protocol):
    """What this package needs of a model: a TransformerLens `HookedTransformer` or `TransformerBridge`."""

    cfg: Any
    tokenizer: Any
    blocks: Any
    W_E: Tensor
    W_U: Tensor

    def hooks(self, fwd_hooks: Any = ...) -> Any:
        """A context in which these forward hooks are on the model."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward pass."""
        ...


class Sizes(NamedTuple):
    """The sizes of a model, by their TransformerLens names."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int


def check_model(model: Any) -> None:
    """Raise TypeError unless `model` is a TransformerLens model with attention heads."""
    has_hooks = callable(getattr(model, "hooks", None)) and callable(model)
    if not has_hooks or not all(
        getattr(getattr(model, "cfg", None), key, None) for key in ("n_layers", "n_heads")
    ):
        raise TypeError(
            "wanted a TransformerLens HookedTransformer or TransformerBridge, "
            f"got {type(model).__name__}: load one with induction_kernel.load(...)"
        )


def sizes(model: Model) -> Sizes:
    """The sizes of the model.

    Raises:
        TypeError: not a TransformerLens model.
    """
    check_model(model)
    cfg = model.cfg
    grouped = not getattr(cfg, "ungroup_grouped_query_attention", False)
    n_key_value_heads = (getattr(cfg, "n_key_value_heads", None) if grouped else None) or cfg.n_heads
    return Sizes(
        cfg.n_layers,
        cfg.n_heads,
        n_key_value_heads,
        cfg.d_head,
        cfg.d_model,
        cfg.d_vocab,
        getattr(cfg, "n_ctx", None) or 2**31,
    )


def bos_id(model: Model) -> int | None:
    """The id of the beginning-of-sequence token; None without a tokenizer, or where it has none."""
    return getattr(getattr(model, "tokenizer", None), "bos_token_id", None)


def describe(model: Model) -> dict[str, str | int]:
    """What a result says of the model and versions it came from."""
    return {
        "model": str(getattr(model.cfg, "model_name", None) or "unnamed"),
        "model_class": type(model).__name__,
        "transformer_lens": version("transformer-lens"),
        "induction_kernel": __version__,
        "format": 1,
    }


def hook_name(site: str, layer: int) -> str:
    """The TransformerLens name of a hook point: of attention ("q", "k", "v", "pattern", "z") or of the stream."""
    return f"blocks.{layer}.{'attn.' if site in ('q', 'k', 'v', 'pattern', 'z') else ''}hook_{site}"


def all_modules(model: Model) -> dict[torch.nn.Module, str]:
    """Every module and its name; a Bridge does not count the root of the model it wraps among its own."""
    named: dict[torch.nn.Module, str] = {}
    for root in (model, getattr(model, "original_model", None)):
        if isinstance(root, torch.nn.Module):
            named |= {module: name for name, module in root.named_modules() if module not in named}
    return named


@contextmanager
def kept_as_it_was(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module's training flag put back outside."""
    check_model(model)
    modules = all_modules(model)
    flags = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def run(model: Model, tokens: Tensor, hooks: Sequence[Hook] = ()) -> Tensor:
    """Logits `[prompt, position, vocab]` of one forward pass with `hooks` for its duration.

    The model's dtype and device; right-padded tokens need no mask under causal attention.
    """
    with kept_as_it_was(model), model.hooks(fwd_hooks=list(hooks)):
        return model(tokens.to(device_of(model)), return_type="logits", **_no_left_padding(model, tokens))


class _Enough(Exception):
    """Raised by the last hook needed, to end a pass whose remaining layers nobody reads."""


def stream(
    model: Model, tokens: Tensor, read: Callable[[str, int, Tensor], None], sites: dict[str, set[int]]
) -> None:
    """One forward pass that hands each wanted activation to `read(site, layer, activation)`; ends after the last.

    Args:
        model: as it is.
        tokens: `[prompt, position]`.
        read: called in the order of the pass; must not keep the activation.
        sites: site ("pattern", "v", "z", ...) -> layers.

    Raises:
        RuntimeError: a hook never fired.
    """
    wanted = [(site, layer) for site, layers in sites.items() for layer in layers]
    missing = set(wanted)
    last = max((layer for _, layer in wanted), default=-1)

    def hook(activation: Tensor, hook: Any, *, site: str, layer: int) -> None:
        read(site, layer, activation)
        missing.discard((site, layer))
        if layer == last and not missing:
            raise _Enough

    hooks = [(hook_name(site, layer), _bound(hook, site=site, layer=layer)) for site, layer in wanted]
    with kept_as_it_was(model), model.hooks(fwd_hooks=hooks):
        try:
            model(tokens.to(device_of(model)), return_type=None, **_no_left_padding(model, tokens))
        except _Enough:
            return
    if missing:
        site, layer = min(missing)
        raise RuntimeError(
            f"hook {hook_name(site, layer)} of {type(model).__name__} {describe(model)['model']} never fired; "
            "the architecture is not supported: see the README's recipe for a new one"
        )


def _bound(function: Callable[..., None], **bound: Any) -> Callable[..., None]:
    # A closure instead of functools.partial: the Bridge looks at a hook's signature and name.
    def hook(activation: Tensor, hook: Any) -> None:
        function(activation, hook, **bound)

    return hook


def device_of(model: Model) -> torch.device:
    """Where the model takes its tokens."""
    return torch.device(getattr(model.cfg, "device", None) or "cpu")


def _no_left_padding(model: Model, tokens: Tensor) -> dict[str, Tensor]:
    # A HookedTransformer whose tokenizer pads on the left would take leading tokens equal to the padding token for
    # padding; ours are padded on the right, which causal attention never sees.
    side = getattr(getattr(model, "tokenizer", None), "padding_side", "right")
    if side == "left" and "HookedTransformer" in {base.__name__ for base in type(model).__mro__}:
        return {"attention_mask": torch.ones_like(tokens, device=device_of(model))}
    return {}


def batches(n_prompts: int, length: int, *, batch_size: int | None, cost: int) -> list[slice]:
    """Slices over prompts: `batch_size` prompts each, or about 2**24 numbers at `cost` numbers a position.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size is not None and (
        not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
    ):
        raise ValueError(f"wanted batch_size >= 1, got {batch_size!r}")
    size = batch_size or max(1, 2**24 // max(1, length * cost))
    return [slice(start, min(start + size, n_prompts)) for start in range(0, n_prompts, size)]


def progress_bar(total: int, *, progress: bool, unit: str = "layer") -> tqdm[Any]:
    """A bar that shows where the work takes longer than two seconds; `TQDM_DISABLE` silences it too."""
    options: dict[str, Any] = {"total": total, "delay": 2, "unit": unit, "leave": False}
    return tqdm(**options) if progress else tqdm(**options, disable=True)


def per_query_head(tensor: Tensor, n_heads: int, dim: int) -> Tensor:
    """Key or value heads repeated, so that `dim` counts query heads (grouped-query attention)."""
    return (
        tensor
        if tensor.shape[dim] == n_heads
        else tensor.repeat_interleave(n_heads // tensor.shape[dim], dim)
    )


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, in which they are reduced; anything better as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def value_weights(model: Model, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """`W_V [head, d_model, d_head]`, `b_V [head, d_head]` and `W_O [head, d_head, d_model]` of one layer.

    Per query head, and as the residual stream meets them: the norm before attention is folded into W_V (its
    weight, and the centring of a LayerNorm) and into b_V (its bias). `b_V` is what every position adds to z
    whatever the prompt, so z - b_V, like W_V and W_O, is the same for raw and processed weights.
    """
    n_heads = sizes(model).n_heads
    block: Any = model.blocks[layer]
    w_v, bias = per_query_head(block.attn.W_V.detach(), n_heads, 0), getattr(block.attn, "b_V", None)
    b_v = w_v.new_zeros(n_heads, w_v.shape[2]) if bias is None else per_query_head(bias.detach(), n_heads, 0)
    norm = getattr(block, "ln1", None)
    shift = getattr(norm, "b", None)
    if shift is None:
        shift = getattr(norm, "bias", None)
    if isinstance(shift, Tensor):
        b_v = b_v + torch.einsum("m,hmd->hd", shift.detach(), w_v)
    return fold_norm(model, norm, w_v), b_v, block.attn.W_O.detach()


def check_weights(model: Model, layers: Sequence[int]) -> None:
    """Raise ValueError where the (un)embedding, or the value and output weights of these layers, are not finite."""
    for layer in layers:
        weights = (*value_weights(model, layer), model.W_E, model.W_U)
        if not all(bool(each.isfinite().all()) for each in weights):
            raise ValueError(
                f"weights of layer {layer}, or of the (un)embedding, are not finite: look for NaN in the model"
            )


def unembedding(model: Model) -> Tensor:
    """`W_U [d_model, vocab]` with the final norm folded in, centred over the vocabulary (softmax sees no mean)."""
    w_u = fold_norm(model, getattr(model, "ln_final", None), model.W_U.detach())
    return w_u - w_u.mean(-1, keepdim=True)


def fold_norm(model: Model, norm: Any, weights: Tensor) -> Tensor:
    """`weights [..., d_model, out]` after a norm as they read the stream before it, but for its scale."""
    scale = getattr(norm, "w", None)
    if scale is None:
        scale = getattr(norm, "weight", None)
    if isinstance(scale, Tensor):
        is_hooked = type(norm).__module__.startswith(
            "transformer_lens.components"
        )  # they add the offset when loading
        offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) and not is_hooked else 0.0
        weights = (scale.detach() + offset)[:, None] * weights
    centres = str(getattr(model.cfg, "normalization_type", None)) in ("LN", "LNPre")
    if centres and "RMS" not in type(norm).__name__ and not getattr(norm, "uses_rms_norm", False):
        weights = weights - weights.mean(-2, keepdim=True)
    return weights
