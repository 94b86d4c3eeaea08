"""Plain runs of a model on one prompt alone, unpadded: what hooks see, edited runs, linear maps found by probing.

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


def logits(model: Any, ids: Sequence[int], hooks: Sequence[Any] = (), *, grad: bool = False) -> Tensor:
    """`[position, vocab]`."""
    tokens = torch.tensor([list(ids)])
    given = {"attention_mask": torch.ones_like(tokens)} if is_hooked(model) and model.tokenizer else {}
    modules = list(model.modules())
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


# Weights, by probing: what becomes of unit vectors put into a run -----------------------------------------------


class Maps:
    """The linear maps of a model, norms folded in: no parameter is looked at."""

    def __init__(self, model: Any) -> None:
        self.model, self.size = model, model.cfg.d_model
        self.unit = torch.eye(self.size, dtype=torch.float64)
        self.n_heads, self.d_head = model.cfg.n_heads, model.cfg.d_head
        self._kept: dict[Any, Any] = {}

    def of(self, site: str, layer: int) -> tuple[Tensor, Tensor]:
        """W `[d_model, ...]` and its value at a stream of zeros, of q, k, v `[head, d_head]` or logits `[vocab]`."""
        key = (site, layer)
        if key not in self._kept:
            long = (
                1 if self.model.cfg.normalization_type is None else 2**20
            )  # a norm's epsilon is nothing beside it
            one, two, other = (self._through(site, layer, by * self.unit) for by in (long, 2 * long, -long))
            at_zero = (one + other) / 2
            odd = (one - other) / 2
            if float((two - one).abs().max()) > 1e-3 * float((one - at_zero).abs().max()):  # no norm
                self._kept[key] = odd / long, at_zero[0]
            else:
                centred = self.centred(site, layer)
                size = (self.unit - centred / self.size).square().mean(-1).sqrt()
                self._kept[key] = odd * size[0], at_zero[0]
        return self._kept[key]

    def centred(self, site: str, layer: int) -> bool:
        """Whether the norm that reads the stream takes its mean away."""
        long = 2**10 * self.unit
        one, shifted = self._through(site, layer, long), self._through(site, layer, long + 2**12)
        return bool((one - shifted).abs().max() < 1e-5 * one.abs().max())

    def _through(self, site: str, layer: int, rows: Tensor) -> Tensor:
        """What `rows [row, d_model]` in the stream before a layer become; one row a prompt of one token."""
        put = (
            name("resid_post", self.model.cfg.n_layers - 1) if site == "logits" else name("resid_pre", layer)
        )
        found = []
        for row in rows.split(1):
            hooks: list[Any] = [(put, lambda old, hook, row=row: row[None].to(old))]
            if site == "logits":
                out = uncapped(self.model, logits(self.model, [0], hooks))
            else:
                kept = []
                hooks.append((name(site, layer), lambda old, hook, kept=kept: kept.append(old[0].clone())))
                logits(self.model, [0], hooks)
                out = kept[0]
                if out.shape[1] != self.n_heads:
                    out = out.repeat_interleave(self.n_heads // out.shape[1], 1)
            found.append(out[0])
        return torch.stack(found)

    def value(self, layer: int) -> tuple[Tensor, Tensor]:
        """W_V `[head, d_model, d_head]` and b_V `[head, d_head]`."""
        w, bias = self.of("v", layer)
        return w.transpose(0, 1), bias

    def reading(self, site: str, layer: int) -> Tensor:
        """W_Q or W_K `[head, d_model, d_head]`."""
        return self.of(site, layer)[0].transpose(0, 1)

    def output(self, layer: int) -> Tensor:
        """W_O `[head, d_head, d_model]`, without a mean where the norms take it away."""
        if ("o", layer) not in self._kept:
            zeros = torch.zeros(self.n_heads, self.d_head, dtype=torch.float64)
            base, rows = self._written(layer, zeros), []
            ones = [self._written(layer, by * torch.ones_like(zeros)) - base for by in (1, 2)]
            if float((ones[1] - 2 * ones[0]).abs().max()) > 1e-3 * float(ones[1].abs().max()):
                return self.model.blocks[
                    layer
                ].attn.W_O.detach()  # a norm behind attention: nothing linear to probe
            for head in range(self.n_heads):
                for i in range(self.d_head):
                    z = zeros.clone()
                    z[head, i] = 1
                    rows.append(self._written(layer, z) - base)
            w = torch.stack(rows).unflatten(0, (self.n_heads, self.d_head))
            if self.final_centred():
                w = w - w.mean(-1, keepdim=True)
            self._kept["o", layer] = w
        return self._kept["o", layer]

    def final_centred(self) -> bool:
        if "centred" not in self._kept:
            w, _ = self.of("logits", -1)
            self._kept["centred"] = bool(w.sum(0).abs().max() < 1e-5 * w.abs().max()) and self.centred(
                "logits", -1
            )
        return self._kept["centred"]

    def _written(self, layer: int, z: Tensor) -> Tensor:
        hooks = [(name("z", layer), lambda old, hook: z[None, None].to(old))]
        return seen(self.model, [0], ["attn_out"], hooks)["attn_out", layer][0]

    def unembedding(self) -> Tensor:
        """W_U `[d_model, vocab]`, as it reads the stream."""
        return self.of("logits", -1)[0]

    def embedding(self) -> Tensor:
        """W_E `[vocab, d_model]`, as it enters the stream, positions apart."""
        if "e" not in self._kept:
            rows = []
            for token in range(self.model.cfg.d_vocab):
                kept: dict[str, Tensor] = {}

                def keep(key: str, kept: dict[str, Tensor] = kept) -> Any:
                    return lambda old, hook: kept.update({key: old.reshape(-1, old.shape[-1])[0].clone()})

                hooks = [(name("resid_pre", 0), keep("stream"))]
                if "hook_pos_embed" in self.model.hook_dict:
                    hooks.append(("hook_pos_embed", keep("position")))
                logits(self.model, [token], hooks)
                shortformer = getattr(self.model.cfg, "positional_embedding_type", "") == "shortformer"
                rows.append(kept["stream"] - (0 if shortformer else kept.get("position", 0)))
            self._kept["e"] = torch.stack(rows)
        return self._kept["e"]

    def with_first_mlp(self, embedded: Tensor) -> Tensor:
        """What block 0 makes of each row where its attention adds nothing."""
        out = []
        for row in embedded:
            hooks = [
                (name("resid_pre", 0), lambda old, hook, row=row: row[None, None].to(old)),
                (name("attn_out", 0), lambda old, hook: torch.zeros_like(old)),
            ]
            out.append(seen(self.model, [0], ["resid_post"], hooks)["resid_post", 0][0])
        return torch.stack(out)


def cap_of(model: Any) -> float:
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0) or -1.0
    return cap if cap > 0 else 0.0


def uncapped(model: Any, found: Tensor) -> Tensor:
    """Logits before a soft cap."""
    cap = cap_of(model)
    return found if not cap else cap * torch.atanh((found / cap).clamp(-1 + 1e-15, 1 - 1e-15))
