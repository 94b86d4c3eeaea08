"""Masks over attention patterns, from tokens and lengths: which entries a score reads.

Every mask is bool `[prompt, query, key]`, causal (key <= query), and False wherever query or key is padding; at most
one more array of that size is in memory. Definitions: induction reads the token after the *latest* earlier copy of the
query token, prefix matching the tokens after *all* earlier copies (Olsson et al. 2022, "prefix-matching score"). No
model is needed; `scorers` reads the entries.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = [
    "after_all_copies",
    "after_latest_copy",
    "current_key",
    "earlier_copies",
    "first_key",
    "one_lag",
    "previous_key",
]

Tokens = Int[Tensor, "prompt position"]
Lengths = Int[Tensor, " prompt"]
Mask = Bool[Tensor, "prompt query key"]


def after_latest_copy(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, j + 1), where j < i is the latest position with the token of i: the induction mask.

    Args:
        tokens: ids `[prompt, position]`, padded on the right.
        lengths: `[prompt]`, beyond which is padding.

    Returns:
        bool `[prompt, query, key]`.
    """
    latest = _latest_copy(tokens)
    prompt, query = ((latest >= 0) & _real(tokens, lengths)).nonzero(as_tuple=True)
    mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool, device=tokens.device)
    mask[prompt, query, latest[prompt, query] + 1] = True
    return mask


def after_all_copies(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, j + 1) for every j < i with the token of i: the prefix-matching mask, bool `[prompt, query, key]`."""
    copies = earlier_copies(tokens, lengths)
    return torch.nn.functional.pad(copies, (1, 0))[..., :-1]  # causal because every copy is strictly earlier


def earlier_copies(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, j) for every j < i with the token of i: the duplicate-token mask, bool `[prompt, query, key]`."""
    same = (tokens[:, :, None] == tokens[:, None, :]).tril_(-1)
    return same.logical_and_(_real(tokens, lengths)[:, :, None])


def previous_key(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, i - 1): the previous-token mask, bool `[prompt, query, key]`."""
    return _at_lag(torch.ones_like(lengths), tokens, lengths)


def current_key(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, i) for i > 1: the current-token mask, bool `[prompt, query, key]`.

    Queries 0 and 1 see no key but the first and themselves.
    """
    mask = _at_lag(torch.zeros_like(lengths), tokens, lengths)
    mask[:, :2] = False
    return mask


def first_key(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, 0) for i > 0: the first-token mask, bool `[prompt, query, key]`; query 0 sees no other key."""
    mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool, device=tokens.device)
    mask[:, 1:, 0] = _real(tokens, lengths)[:, 1:]
    return mask


def one_lag(tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, i - period + 1) for *every* query i; the period is a prompt's smallest lag between copies of a token.

    On `[BOS, r, r]` this is the widely used diagonal at offset `1 - len(r)`, which has two entries more than
    `after_latest_copy`. A prompt without copies has no entries. Bool `[prompt, query, key]`.
    """
    latest, n = _latest_copy(tokens), tokens.shape[1]
    lags = torch.arange(n, device=tokens.device) - latest
    period = torch.where((latest >= 0) & _real(tokens, lengths), lags, n + 1).amin(1)
    return _at_lag(period - 1, tokens, lengths)


def _latest_copy(tokens: Tokens) -> Tokens:
    """`[prompt, position]`: the latest earlier position with the same token, -1 if there is none."""
    order = tokens.argsort(dim=1, stable=True)
    ordered = tokens.gather(1, order)
    earlier = torch.where(ordered[:, 1:] == ordered[:, :-1], order[:, :-1], -1)
    return torch.full_like(order, -1).scatter_(1, order[:, 1:], earlier)


def _at_lag(lag: Lengths, tokens: Tokens, lengths: Lengths) -> Mask:
    """True at (i, i - lag), with one lag >= 0 per prompt."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    there = place[:, None] == (place + lag[:, None].to(place))[:, None, :]
    return there.logical_and_(_real(tokens, lengths)[:, :, None])


def _real(tokens: Tokens, lengths: Lengths) -> Bool[Tensor, "prompt position"]:
    """True at positions that are not padding; keys before such a query are not padding either."""
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
