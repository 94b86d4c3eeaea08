"""Slow twins of logit attribution and of the logit lens: what vectors in the residual stream read off as logits."""

import naive
import numpy as np
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


def parts_of(model, prompts, tokens, on, seen, *, positional):
    """[(prompt, position, {component: what it adds to the logit})] of every position that is read, by loops.

    `seen` is what `naive.measured` found; `positional` whether positions are added to the stream. The last two
    components are together: what the biases of the final norm and of the unembedding add.
    """
    w_e, layers, w_u = seen
    cache, centred = cached(model, tokens), model.cfg.normalization_type in ("LN", "LNPre")
    last, biases = model.cfg.n_layers - 1, biases_of(model)
    out = []
    for p in range(len(prompts)):
        for i, direction in naive.read_directions(prompts, p, on, w_u):
            scale = scale_of(model, cache[f"blocks.{last}.hook_resid_post"][p, i], centred=centred)
            parts = {"embedding": w_e[tokens[p, i]]}
            if positional:
                where = cache["hook_pos_embed"]
                parts["positional embedding"] = where[p if len(where) > 1 else 0, i]
            for layer, (_, b_v, w_o) in enumerate(layers):
                here = {
                    key: cache[f"blocks.{layer}.hook_{key}"][p, i]
                    for key in ("resid_pre", "attn_out", "resid_post")
                }
                z = cache["z", layer][p, i]
                heads = [(z[head] - b_v[head]) @ w_o[head] for head in range(len(z))]
                parts |= {f"L{layer}H{head}": each for head, each in enumerate(heads)}
                parts[f"attention biases {layer}"] = here["attn_out"] - sum(heads)
                if not model.cfg.attn_only:
                    parts[f"MLP {layer}"] = here["resid_post"] - here["resid_pre"] - here["attn_out"]
            found = {key: float(each @ direction / scale) for key, each in parts.items()}
            out.append((p, i, found | {"biases": wanted_of(prompts, p, i, on)(biases)}))
    return out


def scale_of(model, stream, *, centred):
    """What the final norm divides this stream `[d_model]` by."""
    if model.cfg.normalization_type is None:
        return 1.0
    stream = stream - stream.mean() if centred else stream
    return (stream.square().mean() + getattr(model.cfg, "eps", 1e-5)).sqrt()


def biases_of(model):
    """Logits `[vocab]` of a last stream of zeros."""
    tokens = torch.zeros(1, 1, dtype=torch.long)
    hooks = [(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", lambda old, hook: torch.zeros_like(old))]
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=hooks)[0, 0]


def wanted_of(prompts, p, i, on):
    """The number that is read off logits `[vocab]`: the right token's less the mean, or less the wrong one's."""
    if on == "answers":
        right, wrong = prompts.answers[p].tolist()
        return lambda logits: float(logits[right] - logits[wrong])
    token = int(prompts.tokens[p, i + 1])
    return lambda logits: float(logits[token] - logits.mean())


def sources_of(model, prompts, tokens, on, seen):
    """`[prompt, layer, head, key]`: what heads write about each key, averaged over what is read, by loops."""
    _, layers, w_u = seen
    cache, centred = cached(model, tokens), model.cfg.normalization_type in ("LN", "LNPre")
    n_heads, length = model.cfg.n_heads, tokens.shape[1]
    out = np.zeros((len(prompts), len(layers), n_heads, length))
    for p, layer, head in np.ndindex(out.shape[:3]):
        _, b_v, w_o = layers[layer]
        pattern, v = cache["pattern", layer][p, head], cache["v", layer][p]
        values = v[:, head // (n_heads // v.shape[1])] - b_v[head]
        read = naive.read_directions(prompts, p, on, w_u)
        for i, direction in read:
            scale = scale_of(model, cache[f"blocks.{len(layers) - 1}.hook_resid_post"][p, i], centred=centred)
            for key in range(length):
                out[p, layer, head, key] += (
                    float(pattern[i, key] * (values[key] @ w_o[head] @ direction)) / scale / len(read)
                )
    return out


def lens_of(model, tokens):
    """Logits `[prompt, position, vocab]` with each stream in place of the last, the embedding first."""
    cache, last = cached(model, tokens), model.cfg.n_layers - 1
    streams = [cache["blocks.0.hook_resid_pre"]] + [
        cache[f"blocks.{i}.hook_resid_post"] for i in range(last + 1)
    ]
    out = []
    for stream in streams:
        hooks = [(f"blocks.{last}.hook_resid_post", lambda old, hook, stream=stream: stream.clone())]
        with torch.no_grad():
            out.append(model.run_with_hooks(tokens, fwd_hooks=hooks))
    return out
