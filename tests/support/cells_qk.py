"""QK attribution on every family: the package's pairs of components against loops over vectors of the stream.

The twin looks at no parameter where it can help it: weights and biases of queries and keys are what becomes of long
unit vectors put into the stream; what a head writes is measured likewise by `naive.measured`.
"""

import functools

import naive
import numpy as np
import torch
from zoo import RMS, WINDOWED, model_of

import induction_kernel as ik

HEADS = ((1, 0), (1, 3))
ADJACENT = ("GPT-J",)  # pairs of neighbouring dimensions are rotated; elsewhere one of each half


@functools.cache
def seen(name, kind):
    return naive.measured(model_of(name, kind), centred=name not in RMS)


@functools.cache
def ready(name, kind):
    period = (2, 3) if name in WINDOWED else (5, 8)  # entries have to lie in the window
    return ik.repeated_tokens(model_of(name, kind), bos=0, prompts=3, period=period)


@functools.cache
def cached(name, kind, control=False):
    prompts = ready(name, kind)
    with torch.no_grad():
        _, cache = model_of(name, kind).run_with_cache(prompts.control if control else prompts.tokens)
    return cache


@functools.cache
def reading(name, kind, layer=1):
    """Site -> `(weights [head, d_model, d_head], bias [head, d_head])` of queries or keys, from unit vectors."""
    model = model_of(name, kind)
    width, centred = model.cfg.d_model, name not in RMS
    unit = torch.eye(width, dtype=torch.float64)
    vectors = unit - centred / width
    size = vectors.square().mean(-1)[0].sqrt()
    both = 2**14 * torch.stack([unit, -unit])
    found = {}
    for site in "qk":
        kept = []
        hooks = [
            (f"blocks.{layer}.hook_resid_pre", lambda old, hook: both.to(old)),
            (f"blocks.{layer}.attn.hook_{site}", lambda old, hook, kept=kept: kept.append(old.clone())),
        ]
        with torch.no_grad():
            model.run_with_hooks(torch.zeros(2, width, dtype=torch.long), fwd_hooks=hooks)
        plus, minus = kept[0].double()
        weights, bias = (size * (plus - minus) / 2).transpose(0, 1), ((plus + minus) / 2).mean(0)
        group = model.cfg.n_heads // len(bias)
        found[site] = weights.repeat_interleave(group, 0), bias.repeat_interleave(group, 0)
    return found


def stream_of(name, kind, prompt, *, control=False):
    """Component -> `[position, d_model]`: the stream before layer 1, taken apart."""
    model, cache = model_of(name, kind), cached(name, kind, control)
    prompts = ready(name, kind)
    tokens = (prompts.control if control else prompts.tokens)[prompt]
    first, attention = cache["blocks.0.hook_resid_pre"][prompt], cache["blocks.0.hook_attn_out"][prompt]
    embedding, z = seen(name, kind)[0][tokens], cache["z", 0][prompt]
    found = {"embedding": embedding}
    if model.cfg.positional_embedding_type == "standard":
        found["positional embedding"] = first - embedding
    _, b_v, w_o = seen(name, kind)[1][0]
    if name == "Gemma 2":  # a norm stands between the heads and the stream, and acts alike on each
        w_o = model.blocks[0].attn.W_O.detach()
        whole = torch.einsum("phd,hdm->pm", z, w_o)
        found |= {f"L0H{head}": z[:, head] @ w_o[head] * attention / whole for head in range(4)}
    else:
        found |= {f"L0H{head}": (z[:, head] - b_v[head]) @ w_o[head] for head in range(4)}
    heads = sum(found[f"L0H{head}"] for head in range(4))
    if not model.cfg.attn_only:
        found["MLP 0"] = cache["blocks.0.hook_mlp_out"][prompt]
    found["attention biases"] = attention - heads
    return found


def turned(name, model, vector, position):
    """A query or key rotated by its position, one pair of dimensions after the other."""
    if model.cfg.positional_embedding_type != "rotary":
        return vector
    width = 2 if name in ("GPT-J", "GPT-NeoX", "Phi") else 4
    out, half = vector.clone(), width // 2
    for pair in range(half):
        a, b = (2 * pair, 2 * pair + 1) if name in ADJACENT else (pair, pair + half)
        angle = position * 10000.0 ** (-2 * pair / width)
        c, s = np.cos(angle), np.sin(angle)
        out[a], out[b] = vector[a] * c - vector[b] * s, vector[a] * s + vector[b] * c
    return out


def scale_of(name):
    return {"GPT-Neo": 1.0, "Gemma 2": 3.0}.get(name, 2.0)


def twin(name, kind, prompt, head, *, control=False):
    """`(names, [query component, key component])`: mean over queries of the entry's score less the others' mean."""
    model, prompts = model_of(name, kind), ready(name, kind)
    stream = cached(name, kind, control)["blocks.1.hook_resid_pre"][prompt]
    stream = stream if name in RMS else stream - stream.mean(-1, keepdim=True)
    scales = (stream.square().mean(-1) + (1e-6 if name in RMS else 1e-5)).sqrt()
    components = stream_of(name, kind, prompt, control=control)
    names, length = [*components, "own bias"], int(prompts.lengths[prompt])
    made = {}
    for site in "qk":
        weights, bias = (each[head] for each in reading(name, kind)[site])
        for at in range(length):
            rows = [rows[at] @ weights / scales[at] for rows in components.values()] + [bias]
            made[site, at] = torch.stack([turned(name, model, row, at) for row in rows])
    pattern, tokens = cached(name, kind, control)["pattern", 1][prompt, head], prompts.tokens[prompt].tolist()
    found = []
    for i in range(length):
        copies = [j for j in range(i) if tokens[j] == tokens[i]]
        visible = [j for j in range(i + 1) if float(pattern[i, j]) > 0]
        if not prompts.scored[prompt, i] or not copies or copies[-1] + 1 not in visible:
            continue
        others = [j for j in visible if j != copies[-1] + 1]
        if others:
            scores = {j: made["q", i] @ made["k", j].T / scale_of(name) for j in visible}
            found.append(scores[copies[-1] + 1] - sum(scores[j] for j in others) / len(others))
    return names, (sum(found) / len(found)).numpy() if found else None


def qk_attribution(name, kind):
    """Also: the pairs add up to the run's own scores. A Bridge computes norms and angles in float32."""
    model, prompts = model_of(name, kind), ready(name, kind)
    within = 1e-8 if kind != "bridge" else 1e-5
    for head in HEADS:
        found = ik.scorers.qk_attribution(model, prompts, head, progress=False)
        total = found["score"].sum(("query_component", "key_component"))
        np.testing.assert_allclose(total, found["total"], rtol=within, atol=within)
        for prompt in range(3):
            for variable, control in (("score", False), ("control", True)):
                names, expected = twin(name, kind, prompt, head[1], control=control)
                values = found[variable][prompt]
                assert sorted(names) == sorted(values["key_component"].values.tolist())
                values = values.sel(query_component=names, key_component=names)
                np.testing.assert_allclose(values, expected, rtol=within, atol=within)


CELLS = {"qk_attribution": qk_attribution}
