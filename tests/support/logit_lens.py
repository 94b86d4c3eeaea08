"""A cached run, and what a vector in its residual stream reads off as logits."""

import torch


def cached(model, tokens):
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    return cache


def read_off(model, cache, vector, p, i):
    """Logits `[vocab]` of a vector `[d_model]` in the stream, less their mean, through the norm of this position."""
    kind = model.cfg.normalization_type
    if kind in ("LN", "LNPre"):
        vector = vector - vector.mean()
    if kind is not None:
        vector = vector / cache["ln_final.hook_scale"][p, i]
    if kind in ("LN", "RMS"):
        vector = vector * getattr(model.ln_final, "w", None)
    logits = vector @ model.W_U
    return logits - logits.mean()
