"""What one head's queries and keys read, as a sum: embedding, earlier heads, MLPs and biases, through the norms held.

The residual stream before a layer is a sum of what came before. Queries and keys are linear in it once each norm's
scale is held at what it was in the run, so that they are sums too (Elhage et al. 2021, "QK circuit"). `_qk_scores` says
how attention scores come of queries and keys, `_qk_attribution` multiplies the two sums out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import NotDefined, Refused
from ..heads._names import Head
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._norms import norm_scale, normed
from ..model._runs import stream
from ..model._self_check import loose
from ..model._weights import fold_norm, norm_parts, token_embedding, value_weights

__all__ = ["Components", "Run", "components_of", "embedded_tokens", "read_run"]

EMBEDDING, POSITIONAL = "embedding", "positional embedding"
ATTENTION_BIASES, BIAS = "attention biases", "own bias"


class Components(NamedTuple):
    """The components of a stream, in order.

    Attributes:
        names: "embedding", "positional embedding", "L0H3", "MLP 0", "attention biases", "own bias".
        layers: of heads; -1 for everything else.
        heads: of heads; -1 for everything else.
    """

    names: list[str]
    layers: list[int]
    heads: list[int]


class Run(NamedTuple):
    """One head in one run, `[prompt, position, ...]`, in float64, before any rotation.

    Attributes:
        parts: `[prompt, position, component, 2, d_head]`: what each component adds to the query (0) and the key (1).
        whole: `[prompt, position, 2, d_head]`: the run's own query and key.
        pattern: `[prompt, query, key]`.
    """

    parts: Tensor
    whole: Tensor
    pattern: Tensor


def components_of(model: Model, layer: int) -> Components:
    """The components of the stream before a layer, and the bias of its own queries and keys."""
    found = [(EMBEDDING, -1, -1)] + [(POSITIONAL, -1, -1)] * bool(_positions(model))
    for earlier in range(layer):
        found += [(str(Head(earlier, head)), earlier, head) for head in range(sizes(model).n_heads)]
        found += [(f"MLP {earlier}", -1, -1)] * _has_mlp(model)
    found += [(ATTENTION_BIASES, -1, -1)] * (layer > 0) + [(BIAS, -1, -1)]
    return Components(*(list(each) for each in zip(*found, strict=True)))


def embedded_tokens(model: Model) -> Tensor | None:
    """What each token adds to the stream, where positions add to it too; else None, for the stream tells it."""
    return token_embedding(model).detach() if _positions(model) == "in the stream" else None


def _positions(model: Model) -> str:
    """Where learned positions are added: "in the stream", "to queries and keys" alone (shortformer), or "" for none."""
    kinds = {"standard": "in the stream", "shortformer": "to queries and keys"}
    return kinds.get(str(getattr(model.cfg, "positional_embedding_type", None)), "")


def _has_mlp(model: Model) -> bool:
    return not getattr(model.cfg, "attn_only", False)


def read_run(model: Model, head: Head, tokens: Tensor, lengths: Tensor, embedded: Tensor | None) -> Run:
    """One pass up to the head's layer.

    Raises:
        Refused: queries or keys that are not finite.
        NotDefined: queries or keys that are not what the components add up to.
    """
    stack = _Stack(model, head, tokens, embedded)
    kept: dict[str, Tensor] = {}

    def read(site: str, layer: int, activation: Tensor) -> None:
        here = activation.detach()
        if site == "resid_pre":
            stack.entering(layer, full_precision(here))
        elif site == "z":
            stack.attention(layer, full_precision(here))
        elif site == "pattern":
            kept[site] = here[:, head.head].cpu().double()
        else:  # key and value heads are fewer under grouped-query attention
            kept[site] = here[:, :, head.head * here.shape[2] // sizes(model).n_heads].cpu().double()

    before, own = set(range(head.layer)), {head.layer}
    sites = {"resid_pre": before | own, "z": before, "q": own, "k": own, "pattern": own}
    stream(model, tokens, read, {site: layers for site, layers in sites.items() if layers}, lengths=lengths)
    parts = stack.finished()
    whole = torch.stack([kept["q"], kept["k"]], 2)
    if not bool(whole.isfinite().all()):
        raise Refused(
            f"the queries and keys of {head} are not finite: look for NaN or infinite weights in the model"
        )
    _check_sum(model, head, parts.sum(2), whole, lengths)
    return Run(*_through_norms(model, head, parts, whole), kept["pattern"])


class _Stack:
    """Collects what each component adds to queries and keys, `[prompt, position, 2 d_head]` each, in the pass."""

    def __init__(self, model: Model, head: Head, tokens: Tensor, embedded: Tensor | None) -> None:
        self.model, self.head, self.tokens, self.embedded = model, head, tokens, embedded
        self.norm: Any = getattr(model.blocks[head.layer], "ln1", None)
        self.reads, self.bias, self.positional = _reading_weights(model, head)
        self.found: list[Tensor] = []  # [prompt, position, component, 2 d_head]
        self.biases: Tensor | float = 0.0
        self.last: Tensor | None = None  # the stream, as far as it is accounted for
        self.scale: Tensor | None = None

    def entering(self, layer: int, stream: Tensor) -> None:
        """The stream before a layer: what is not accounted for yet is the MLP before it, or the embedding."""
        if self.last is None:
            whole = self.embedded
            first = stream if whole is None else whole[self.tokens.to(whole.device)].to(stream)
            self._add(first)
            if whole is not None:
                self._add(stream - first)
        elif _has_mlp(self.model):
            self._add(stream - self.last.to(stream.device))
        self.last = stream
        if layer == self.head.layer:
            self.scale = norm_scale(self.model, self.norm, stream).cpu().double()

    def attention(self, layer: int, z: Tensor) -> None:
        """What each head of an earlier layer wrote, without its share of the value bias, and the biases together."""
        _, b_v, w_o = (each.to(z) for each in value_weights(self.model, layer))
        block: Any = self.model.blocks[layer]
        b_o = getattr(block.attn, "b_O", None)
        bias = torch.einsum("hd,hdm->m", b_v, w_o) + (0.0 if b_o is None else b_o.detach().to(z))
        own = z - b_v
        post, reads = getattr(block, "ln1_post", None), self.reads.to(z)
        written = torch.einsum("pshd,hdm->psm", own, w_o) + bias
        scale = norm_scale(self.model, post, written)[..., None]
        if post is not None:
            reads, written = fold_norm(self.model, post, reads), normed(self.model, post, written)
        heads = torch.einsum("pshd,hde->pshe", own, torch.einsum("hdm,me->hde", w_o, reads))
        self.found.append((heads / scale[..., None]).cpu().double())
        shift = norm_parts(self.model, post)[2]
        fixed = bias @ reads / scale
        fixed = fixed if shift is None else fixed + shift.to(z) @ self.reads.to(z)
        self.biases = self.biases + fixed.cpu().double()
        assert self.last is not None  # the stream before the layer comes first
        self.last = self.last.to(z.device) + written

    def _add(self, rows: Tensor) -> None:
        self.found.append((rows @ self.reads.to(rows))[:, :, None].cpu().double())

    def finished(self) -> Float[Tensor, "prompt position component 2 d_head"]:
        """Everything over the norm's scale, and the head's own bias."""
        assert self.scale is not None  # the last stream has been read
        if isinstance(self.biases, Tensor):
            self.found.append(self.biases[:, :, None])
        parts = torch.cat(self.found, 2) / self.scale[..., None, None]
        if self.positional is not None:  # added after the norm
            beside = self.positional[: parts.shape[1]].cpu().double().expand(len(parts), -1, -1)[:, :, None]
            parts = torch.cat([parts[:, :, :1], beside, parts[:, :, 1:]], 2)
        own = self.bias.cpu().double().expand(*parts.shape[:2], 1, -1)
        return torch.cat([parts, own], 2).unflatten(-1, (2, -1))


def _reading_weights(model: Model, head: Head) -> tuple[Tensor, Tensor, Tensor | None]:
    """W_Q and W_K side by side, `[d_model, 2 d_head]`, with the norm folded in, and their biases `[2 d_head]`.

    And what positions add, `[position, 2 d_head]`, where they are added after the norm.
    """
    block: Any = model.blocks[head.layer]
    norm, n_heads = getattr(block, "ln1", None), sizes(model).n_heads
    shift, weights, biases, whole = norm_parts(model, norm)[2], list[Tensor](), list[Tensor](), list[Tensor]()
    for key in "QK":
        plain = full_precision(
            per_query_head(getattr(block.attn, f"W_{key}").detach(), n_heads, 0)[head.head]
        )
        given = getattr(block.attn, f"b_{key}", None)
        bias = plain.new_zeros(plain.shape[1])
        bias = bias if given is None else bias + per_query_head(given.detach(), n_heads, 0)[head.head]
        biases.append(bias if shift is None else bias + shift.to(plain) @ plain)
        weights.append(fold_norm(model, norm, plain))
        whole.append(plain)
    beside = _positions(model) == "to queries and keys"
    positions: Any = getattr(model, "W_pos", None)
    positional = full_precision(positions.detach()) @ torch.cat(whole, 1) if beside else None
    return torch.cat(weights, 1), torch.cat(biases), positional


def _check_sum(model: Model, head: Head, found: Tensor, whole: Tensor, lengths: Tensor) -> None:
    """Raise NotDefined unless the components add up to the run's own queries and keys."""
    real = (torch.arange(whole.shape[1]) < lengths[:, None])[:, :, None, None]
    apart = ((found - whole) * real).abs().max()
    if not bool(apart <= loose(model) * (1 + (whole * real).abs().max())):
        raise NotDefined(
            f"the queries and keys of {head} are not what embedding, heads, MLPs and biases add up to (they differ by "
            f"{float(apart):.2g}): a norm after attention, keys that are smeared, or a hook on the model; composition "
            "compares the weights instead"
        )


def _through_norms(model: Model, head: Head, parts: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Both through the norms of queries and keys where the model has them (Qwen 3, Gemma 3), each held at its scale."""
    attention: Any = model.blocks[head.layer].attn
    for side, name in enumerate(("q_norm", "k_norm")):
        norm: Any = getattr(attention, name, None)
        if norm is None:
            continue
        centred, factor, shift = norm_parts(model, norm)
        if factor is not None and factor.numel() != whole.shape[-1]:
            raise NotDefined(
                f"queries and keys of all heads are normalised together in this model, so those of {head} alone are "
                "no sum: composition compares the weights instead"
            )
        scale = norm_scale(model, norm, whole[:, :, side])[..., None]
        mine = parts[:, :, :, side]
        mine = (mine - mine.mean(-1, keepdim=True) if centred else mine) / scale[:, :, None]
        parts[:, :, :, side] = mine if factor is None else mine * factor.cpu().double()
        if shift is not None:
            parts[:, :, -1, side] += shift.cpu().double()
        whole[:, :, side] = normed(model, norm, whole[:, :, side])
    return parts, whole
