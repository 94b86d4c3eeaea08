"""Function vectors, writers and ablated sets, the obvious slow way: whole runs with plain hooks, prompt by prompt."""

import naive
import numpy as np
import torch


def last_run(model, prompts, p, hooks=()):
    """Logits `[position, vocab]` of prompt p without its padding, with hooks."""
    tokens = prompts.tokens[p : p + 1, : int(prompts.lengths[p])]
    with torch.no_grad(), model.hooks(fwd_hooks=list(hooks)):
        return model(tokens, return_type="logits")[0].double()


def last_z(model, prompts):
    """`[prompt][layer] -> [head, d_head]` at each prompt's last token."""
    out = []
    for p in range(len(prompts)):
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens[p : p + 1, : int(prompts.lengths[p])])
        out.append([cache["z", layer][0, -1].clone() for layer in range(model.cfg.n_layers)])
    return out


def mean_z(model, prompts):
    """`[layer] -> [head, d_head]`, one prompt after the other."""
    every = last_z(model, prompts)
    return [sum(each[layer] for each in every) / len(every) for layer in range(model.cfg.n_layers)]


def vector(model, prompts, heads, layers):
    """Sum of what these heads write on average; `layers` are weights that were measured (`naive.measured`)."""
    means, out = mean_z(model, prompts), 0
    for layer, head in heads:
        _, b_v, w_o = layers[layer]
        out = out + (means[layer][head] - b_v[head]) @ w_o[head]
    return out.numpy()


def with_vector(model, prompts, p, layer, added, site):
    """Probabilities `[vocab]` at the last token of prompt p with a vector added there after (or before) a layer."""

    def add(old, hook):
        new = old.clone()
        new[0, -1] += torch.from_numpy(added).to(old)
        return new

    return last_run(model, prompts, p, [(f"blocks.{layer}.hook_{site}", add)])[-1].softmax(-1)


def writing(model, prompts, layers, w_u, *, right, wrong, centred, epsilon):
    """`[prompt, layer, head]`: (c - mean c) u / s of Wang 2026, c what the head writes at the last token."""
    every, out = last_z(model, prompts), np.zeros((len(prompts), model.cfg.n_layers, model.cfg.n_heads))
    for p in range(len(prompts)):
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens[p : p + 1, : int(prompts.lengths[p])])
        stream = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][0, -1]
        stream = stream - stream.mean() * centred
        scale = (stream.square().mean() + epsilon).sqrt()
        u = w_u[:, right[p]] - sum(w_u[:, each] for each in wrong[p]) / len(wrong[p])
        for layer, head in np.ndindex(out.shape[1:]):
            mean = sum(each[layer][head] for each in every) / len(every)
            out[p, layer, head] = float((every[p][layer][head] - mean) @ layers[layer][2][head] @ u / scale)
    return out


def labels_without(model, prompts, heads, means):
    """Label log-probabilities `[prompt, label]` with the heads' z at the last token put to their means."""
    out = []
    for p in range(len(prompts)):
        hooks = []
        for layer, head in heads:

            def write(z, hook, layer=layer, head=head):
                z = z.clone()
                z[0, -1, head] = means[layer][head]
                return z

            hooks.append((f"blocks.{layer}.attn.hook_z", write))
        logs = last_run(model, prompts, p, hooks)[-1].log_softmax(-1)
        out.append(logs[prompts.demonstrations.label_ids].numpy())
    return np.array(out)


def late_less_early(model, text, heads, early, late, width):
    """`[window]`: loss around `late` less loss around `early`, the heads' z put to the mean at each position."""
    with torch.no_grad():
        _, cache = model.run_with_cache(text.tokens)
    hooks = []
    for layer, head in heads:
        mean = cache["z", layer][:, :, head].mean(0)

        def write(z, hook, mean=mean, head=head):
            z = z.clone()
            z[:, :, head] = mean
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", write))
    out = []
    for p in range(len(text)):
        logs = last_run(model, text, p, hooks).log_softmax(-1)
        losses = [-float(logs[i, text.tokens[p, i + 1]]) for i in range(int(text.lengths[p]) - 1)]
        bands = [losses[at - width // 2 : at - width // 2 + width] for at in (early, late)]
        out.append(np.mean(bands[1]) - np.mean(bands[0]))
    return np.array(out)


def weights(model, name):
    """W_V, b_V and W_O by layer, and W_U, measured by runs."""
    from zoo import RMS

    _, layers, w_u = naive.measured(model, centred=name not in RMS)
    return layers, w_u
