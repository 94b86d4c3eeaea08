"""Token and concept copying on every family: each score against a hooked run of its own, head by head."""

import functools

import numpy as np
import torch
from zoo import WINDOWED, model_of

from induction_kernel.head_census._concept_copying import _copying
from induction_kernel.head_census._concept_prompts import entity_prompts

WORDS = [[3, 7], [11, 2], [20, 21, 22], [30, 31, 32], [40, 41]]
GIVEN = {"prompts": 8, "length": 8, "seed": 3}


def probability(logits, prompt, at, token):
    return float(logits[prompt, at].double().softmax(-1)[token])


def twin(model, group, of):
    """`(score, control [prompt, layer, head], baseline [prompt])`: z at position -2 put in by a plain hook."""
    into, entities = group.into.tokens, group.entities
    at, token = (-2, entities[:, 0]) if of == "token" else (-1, entities[:, 1])
    n, out = len(into), {}
    with torch.no_grad():
        clean = model(into)
        base = np.array([probability(clean, p, at, token[p]) for p in range(n)])
        for key, source in (("score", group.source), ("control", group.other)):
            _, cache = model.run_with_cache(source.tokens)
            out[key] = np.zeros((n, model.cfg.n_layers, model.cfg.n_heads))
            for layer, head in np.ndindex(out[key].shape[1:]):

                def put(z, hook, layer=layer, head=head, cache=cache):
                    z = z.clone()
                    z[:, -2, head] = cache["z", layer][:, -2, head]
                    return z

                logits = model.run_with_hooks(into, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)])
                out[key][:, layer, head] = [probability(logits, p, at, token[p]) for p in range(n)] - base
    return out["score"], out["control"], base


def copying(of, name, kind):
    model, entities = model_of(name, kind), WORDS if of == "concept" else None
    options = {"heads": None, "layers": None, "max_tokens": None, "progress": False}
    found = _copying(model, entities, of, **GIVEN, **options)
    groups = entity_prompts(model, entities, **GIVEN)
    parts = [twin(model, group, of) for group in groups]
    for key, values in zip(("score", "control", "baseline"), zip(*parts, strict=True), strict=True):
        # Some Bridges' attention is in float32 whatever the model's dtype, and token copying runs shorter prompts.
        np.testing.assert_allclose(found[key], np.concatenate(values), rtol=1e-7, atol=1e-8)
    if of == "token" or name not in (*WINDOWED, "Gemma"):  # a window does not reach the first part
        assert float(abs(found["score"]).max()) > 1e-6


CELLS = {
    "token_copying": functools.partial(copying, "token"),
    "concept_copying": functools.partial(copying, "concept"),
}
