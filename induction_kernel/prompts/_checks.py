"""Checks of token ids, and of the numbers, slices and masks that choose prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._given import plain
from ..errors import Refused

__all__ = ["check_ids", "indices"]


def check_ids(tokens: Any, dims: tuple[int, ...] = (2,)) -> None:
    """Raise TypeError or Refused unless these are integer token ids, at least one, with `dims` dimensions."""
    if not isinstance(tokens, Tensor):
        raise TypeError(f"wanted tokens as a torch tensor, got {type(tokens).__name__}")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"wanted integer token ids, got {tokens.dtype}")
    if tokens.ndim not in dims:
        raise Refused(f"wanted tokens [prompt, position], got shape {list(tokens.shape)}")
    if tokens.numel() == 0:
        raise Refused(f"wanted at least one prompt of at least one token, got shape {list(tokens.shape)}")


def indices(index: Any, n: int) -> Tensor:
    """Numbers `[chosen]` of the prompts, out of n, that an int, a slice, whole numbers or a bool mask select."""
    if isinstance(index, slice):
        index = list(range(n)[index])
    found = np.atleast_1d(np.asarray(plain(index)))
    if found.dtype == bool and found.shape != (n,):
        raise Refused(f"wanted a mask of {n} prompts, got one of shape {list(found.shape)}")
    if not found.size or (found.dtype == bool and not found.any()):
        raise Refused(f"wanted at least one of the {n} prompts, got none")
    if found.ndim > 1 or found.dtype.kind not in "iub":
        raise TypeError(f"wanted prompts by a number, a slice, a list of numbers or a mask, got {index!r}")
    chosen = found.nonzero()[0] if found.dtype == bool else found
    if beyond := [int(i) for i in chosen if not -n <= i < n]:
        raise IndexError(f"wanted prompts from 0 to {n - 1}, as there are {n}, got {beyond[0]}: out of range")
    return torch.tensor([range(n)[i] for i in chosen])
