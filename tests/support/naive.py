"""The obvious slow twin of every fast path: loops over prompts, heads and positions, straight from the definitions."""

import numpy as np
import torch


def all_patterns(model, tokens):
    """`[layer][prompt, head, query, key]` by run_with_cache."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    return [cache["pattern", layer].clone() for layer in range(model.cfg.n_layers)]


def induction(pattern, tokens, lengths, scored, *, latest=True):
    """`[prompt, head]`: attention to the token after the latest (or after every) earlier copy."""
    out = np.zeros(pattern.shape[:2])
    for p in range(len(tokens)):
        for h in range(pattern.shape[1]):
            values = []
            for i in range(int(lengths[p])):
                copies = [j for j in range(i) if tokens[p, j] == tokens[p, i]]
                if scored[p, i] and copies:
                    keys = [copies[-1] + 1] if latest else [j + 1 for j in copies]
                    values.append(sum(float(pattern[p, h, i, key]) for key in keys))
            out[p, h] = np.mean(values)
    return out


def previous(pattern, lengths, scored, bos):
    out = np.zeros(pattern.shape[:2])
    for p in range(len(pattern)):
        for h in range(pattern.shape[1]):
            queries = [i for i in range(1, int(lengths[p])) if scored[p, i] and not (bos and i == 1)]
            out[p, h] = np.mean([float(pattern[p, h, i, i - 1]) for i in queries])
    return out


def duplicate(pattern, tokens, lengths, scored):
    out = np.zeros(pattern.shape[:2])
    for p in range(len(tokens)):
        for h in range(pattern.shape[1]):
            values = []
            for i in range(int(lengths[p])):
                copies = [j for j in range(i) if tokens[p, j] == tokens[p, i]]
                if scored[p, i] and copies:
                    values.append(sum(float(pattern[p, h, i, j]) for j in copies))
            out[p, h] = np.mean(values)
    return out


def weight_of(pattern, prompts, p, h, i, pooling):
    """The weight of demonstration i of prompt p under head h."""
    row = pattern[p, h, int(prompts.lengths[p]) - 1]
    found = prompts.demonstrations
    if pooling == "label":
        return float(row[int(found.label_positions[p, i])])
    start, stop = found.spans[p, i].tolist()
    return float({"max": torch.amax, "sum": torch.sum, "mean": torch.mean}[pooling](row[start:stop]))


def second_copy_loss(model, prompts):
    """`[prompt]`: mean over scored positions that have a next token."""
    out = []
    for p in range(len(prompts)):
        length = int(prompts.lengths[p])
        with torch.no_grad():
            logs = model(prompts.tokens[p : p + 1, :length], return_type="logits").log_softmax(-1)[0]
        losses = [
            -float(logs[i, prompts.tokens[p, i + 1]]) for i in range(length - 1) if prompts.scored[p, i]
        ]
        out.append(np.mean(losses))
    return np.array(out)


def ov_ratio(w_e, w_v, w_o, w_u):
    """Sum of eigenvalues over the sum of their sizes, of the whole vocabulary x vocabulary matrix."""
    values = torch.linalg.eigvals((w_e @ w_v @ w_o @ w_u).double())
    return float(values.real.sum() / values.abs().sum())


def ols_copying(values, w_o, w_u, tokens):
    """One head, one prompt: `values [position, d_head]`, `w_u` centred over the vocabulary; mean of 4 share - 1."""
    scores = []
    for j, token in enumerate(tokens):
        logits = values[j] @ w_o @ w_u
        raised = torch.relu(logits - logits.mean())[tokens]
        own = raised[tokens.index(token)]
        scores.append(float(4 * own / (own + raised.sum()) - 1))
    return np.nanmean(scores)


def ban_copying(values, pattern, w_o, w_u, tokens, *, at="query"):
    """One head, one prompt without repeated tokens, as Bansal et al.'s released code has it; `at` "source" the variant.

    The share of the token attended most among those at or before the query, in what the value raises; 0 / 0 is 0.
    """
    scores = []
    for j in range(len(tokens)):
        source = max(range(j + 1), key=lambda i: float(pattern[j, i]))
        logits = values[j if at == "query" else source] @ w_o @ w_u
        chances = [float(x) for x in torch.softmax(logits, -1)[tokens[: j + 1]]]
        raised = [max(0.0, chance - sum(chances) / (j + 1)) for chance in chances]
        scores.append(raised[source] / sum(raised) if j and sum(raised) else 0.0)
    return sum(scores) / len(scores)


def logits_with_z(model, tokens, layer, head, value):
    """Logits with one head's z put to a value everywhere, by a plain hook."""

    def hook(z, hook):
        z = z.clone()
        z[:, :, head] = value
        return z

    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", hook)])


def measured(model, *, centred):
    """W_E, and by layer W_V, b_V, W_O, and W_U: what becomes of unit vectors put into a run, no parameter looked at.

    They are as `induction_kernel.model._weights` has them, norms folded in. `centred`: whether the norms of this model
    take the mean away, as LayerNorm does, so that none counts. Vectors are long: a norm's
    epsilon is nothing.
    """
    cfg = model.cfg
    unit = torch.eye(cfg.d_model, dtype=torch.float64)
    vectors = unit - centred / cfg.d_model
    size = vectors.square().mean(-1)[0].sqrt()
    both = 2**14 * torch.stack([unit, -unit])
    tokens = torch.zeros(2, cfg.d_model, dtype=torch.long)

    def shown(put, read, new):
        found = []
        hooks = [
            (put, lambda old, hook: new.to(old)),
            (read, lambda old, hook: found.append(old.detach().clone().double())),
        ]
        with torch.no_grad():
            logits = model.run_with_hooks(
                tokens[: len(new), : new.shape[1]], fwd_hooks=hooks[: 1 + (read is not None)]
            )
        return logits if read is None else found[0]

    layers = []
    for layer in range(cfg.n_layers):
        stem = f"blocks.{layer}."
        plus, minus = shown(f"{stem}hook_resid_pre", f"{stem}attn.hook_v", both)
        group = cfg.n_heads // plus.shape[1]
        w_v, b_v = size * (plus - minus) / 2, ((plus + minus) / 2).mean(0)
        w_v, b_v = w_v.repeat_interleave(group, 1).transpose(0, 1), b_v.repeat_interleave(group, 0)
        z = torch.eye(cfg.n_heads * cfg.d_head, dtype=torch.float64).unflatten(1, (cfg.n_heads, cfg.d_head))
        written = shown(f"{stem}attn.hook_z", f"{stem}hook_attn_out", torch.stack([z, 0 * z]))
        w_o = (written[0] - written[1]).unflatten(0, (cfg.n_heads, cfg.d_head))
        w_o = w_o - centred * w_o.mean(-1, keepdim=True)
        layers.append((w_v, b_v, w_o))
    plus, minus = shown(f"blocks.{cfg.n_layers - 1}.hook_resid_post", None, both)
    w_u = size * (plus - minus) / 2
    words = torch.arange(cfg.d_vocab)[:, None]
    with torch.no_grad():
        _, cache = model.run_with_cache(words)
    w_e = cache["blocks.0.hook_resid_pre"][:, 0]
    if "hook_pos_embed" in cache:
        w_e = w_e - cache["hook_pos_embed"].reshape(-1, cfg.d_model)[:1]
    return w_e, layers, w_u - w_u.mean(-1, keepdim=True)


def first_mlp(model, rows):
    """What block 0 adds to `rows [row, d_model]`, put into its stream, where its attention adds nothing."""
    kept = []
    hooks = [
        ("blocks.0.hook_resid_pre", lambda old, hook: rows[:, None].to(old)),
        ("blocks.0.hook_attn_out", lambda old, hook: torch.zeros_like(old)),
        ("blocks.0.hook_resid_post", lambda old, hook: kept.append(old.detach().clone())),
    ]
    with torch.no_grad():
        model.run_with_hooks(torch.zeros(len(rows), 1, dtype=torch.long), fwd_hooks=hooks)
    return kept[0][:, 0] - rows


def read_directions(prompts, p, on, w_u):
    """[(position, direction in the final stream)] of what a direct effect on one prompt reads."""
    length, tokens = int(prompts.lengths[p]), prompts.tokens[p].tolist()
    if on == "answers":
        right, wrong = prompts.answers[p].tolist()
        return [(length - 1, w_u[:, right] - w_u[:, wrong])]
    return [(i, w_u[:, tokens[i + 1]]) for i in range(length - 1) if prompts.scored[p, i]]


HEAD_SITES = ("z", "q", "k", "v", "pattern")


def sweep(
    model,
    prompts,
    *,
    edit,
    site,
    by,
    metric_function,
    hold=None,
    heads=None,
    layers=None,
    positions=None,
    drawn=None,
    at_once=64,
):
    """`(value [prompt, *by], baseline [prompt])`: one whole hooked run a cell, straight from the definitions.

    `heads` are (layer, head) pairs, the only ones touched; `drawn [prompt]` is which reference prompt a Resample took.
    The runs of `at_once` cells are rows of one batch.
    """
    n_layers, length = model.cfg.n_layers, prompts.tokens.shape[1]
    grouped = getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
    all_heads = range(grouped if site in ("k", "v") else model.cfg.n_heads)
    every = {
        "layer": list(range(n_layers)) if layers is None else list(layers),
        "head": list(all_heads) if site in HEAD_SITES else [None],
        "position": list(range(length)) if positions is None else list(positions),
    }
    if heads is None:
        heads = [(layer, head) for layer in every["layer"] for head in every["head"]]
    given = values_given(model, prompts, edit, site, drawn)
    clean = all_patterns(model, prompts.tokens) if hold == "patterns" else None
    value = np.full((len(prompts), *(len(every[dim]) for dim in by)), np.nan)
    asked = {}  # cell -> ({layer: heads touched}, positions)
    for cell in np.ndindex(value.shape[1:]):
        here = dict(every)
        for dim, index in zip(by, cell, strict=True):
            here[dim] = [every[dim][index]]
        touched = {
            layer: [head for head in here["head"] if (layer, head) in heads] for layer in here["layer"]
        }
        touched = {layer: those for layer, those in touched.items() if those}
        if touched:
            asked[cell] = touched, here["position"]
    for first in range(0, len(asked), at_once):
        some = list(asked)[first : first + at_once]
        cells = [asked[cell] for cell in some]
        old = patterns_on_the_way(model, prompts, edit, site, cells)
        hooks = [
            hooks_of(model, edit, site, there or given, *cell, clean)
            for there, cell in zip(old, cells, strict=True)
        ]
        for cell, logits in zip(some, together(model, prompts.tokens, hooks), strict=True):
            found = metric_function(logits, prompts)
            for p in range(len(prompts)):
                if "position" not in by or asked[cell][1][0] < int(prompts.lengths[p]):
                    value[(p, *cell)] = float(found[p])
    with torch.no_grad():
        baseline = metric_function(model(prompts.tokens), prompts)
    return value, np.array([float(number) for number in baseline])


def activations(model, tokens, site):
    """`[layer]` activations of a plain run at a site."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    if site in HEAD_SITES:
        return [cache[site, layer].clone() for layer in range(model.cfg.n_layers)]
    if site == "resid_mid":
        return [
            cache[f"blocks.{layer}.hook_resid_pre"] + cache[f"blocks.{layer}.hook_attn_out"]
            for layer in range(model.cfg.n_layers)
        ]
    return [cache[f"blocks.{layer}.hook_{site}"].clone() for layer in range(model.cfg.n_layers)]


def values_given(model, prompts, edit, site, drawn):
    """`[layer]` what Mean, Resample and FromRun put in place, as large as the activation; None for the others."""
    kind = type(edit).__name__
    if kind == "FromRun":
        return activations(model, edit.other.tokens, site)
    if kind == "Resample":
        reference = prompts.tokens if prompts.control is None else prompts.control
        if edit.reference is not None:
            reference = edit.reference.tokens
        found = activations(model, reference, site)
        length = prompts.tokens.shape[1]
        if site == "pattern":
            return [each[drawn][:, :, :length, :length] for each in found]
        return [each[drawn][:, :length] for each in found]
    if kind != "Mean":
        return None
    if edit.reference is not None:
        tokens, lengths = edit.reference.tokens, edit.reference.lengths
    else:
        tokens, lengths = prompts.tokens if prompts.control is None else prompts.control, prompts.lengths
    by_position = edit.by_position
    if by_position is None:
        by_position = len({*lengths.tolist(), *prompts.lengths.tolist()}) == 1
    out = []
    for found in activations(model, tokens, site):
        if by_position:
            mean = sum(found[p] for p in range(len(tokens))) / len(tokens)
        else:
            kept = [found[p, i] for p in range(len(tokens)) for i in range(1, int(lengths[p]))]
            mean = (sum(kept) / len(kept))[None].expand(prompts.tokens.shape[1], *kept[0].shape)
        out.append(mean[None].expand(len(prompts), *mean.shape))
    return out


def value_bias(model, layer, site):
    """What `ZeroValues` leaves: `[head, d_head]` of z or of the value heads."""
    from induction_kernel.model import value_weights

    bias = value_weights(model, layer)[1]
    grouped = getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
    return bias if site == "z" else bias[:: model.cfg.n_heads // grouped]


def edited_activation(model, edit, site, given, layer, old):
    """The whole activation as the edit would have it everywhere."""
    kind = type(edit).__name__
    if kind in ("Zero", "Scale"):
        return old * (0 if kind == "Zero" else edit.factor)
    if kind == "ZeroValues":
        return value_bias(model, layer, site).expand(old.shape)
    if kind == "Add":
        return old + edit.vector
    return given[layer]


def together(model, tokens, hooks_of_runs):
    """`[run]` logits of hooked runs on the same tokens, as rows of one batch: the hooks of each see its rows alone."""
    by_place = {}
    for run, hooks in enumerate(hooks_of_runs):
        for place, function in hooks:
            by_place.setdefault(place, []).append((run, function))

    def on_rows(functions):
        def hook(activation, hook):
            parts = list(activation.split(len(tokens)))
            for run, function in functions:
                new = function(parts[run], hook)
                parts[run] = parts[run] if new is None else new
            return torch.cat(parts)

        return hook

    hooks = [(place, on_rows(functions)) for place, functions in by_place.items()]
    with torch.no_grad():
        logits = model.run_with_hooks(tokens.repeat(len(hooks_of_runs), 1), fwd_hooks=hooks)
    return logits.split(len(tokens))


def patterns_on_the_way(model, prompts, edit, site, cells):
    """`[cell] {layer: pattern}` knocked out, in the run in which all earlier layers are: one run more for each layer.

    A Bridge on TransformerLens' own layers shows its pattern only after z.
    """
    out = [{} for _ in cells]
    if type(edit).__name__ != "KnockOut":
        return out
    for layer in sorted({layer for touched, _ in cells for layer in touched}):
        found, hooks = [[] for _ in cells], []
        for seen, there, (touched, positions) in zip(found, out, cells, strict=True):
            earlier = {key: touched[key] for key in there}
            hooks.append(hooks_of(model, edit, site, there, earlier, positions, None))
            hooks[-1].append(
                (f"blocks.{layer}.attn.hook_pattern", lambda old, hook, seen=seen: seen.append(old))
            )
        together(model, prompts.tokens, hooks)
        for seen, there, (touched, _) in zip(found, out, cells, strict=True):
            if layer in touched:
                left = seen[0] * ~edit.mask
                total = left.sum(-1, keepdim=True)
                there[layer] = left / torch.where(
                    total > 0, total, 1
                )  # only padding may be left with nothing
    return out


def hooks_of(model, edit, site, given, touched, positions, clean):
    """Hooks for one run: what is held, and the edit of `touched {layer: heads}` at `positions`."""
    seen = {}  # of this run: (what, layer) -> activation

    def remember(what, layer):
        def hook(activation, hook):
            seen[what, layer] = activation.detach().clone()
            return activation

        return hook

    def put(layer, old, new):
        old = old.clone()
        for position in positions:
            for head in touched[layer]:
                place = (slice(None), position) if head is None else (slice(None), position, head)
                old[place] = new[place].to(old.dtype)
        return old

    def at_site(layer):
        def hook(old, hook):
            return put(layer, old, edited_activation(model, edit, site, given, layer, old))

        return hook

    def at_mid(layer):
        def hook(attn_out, hook):
            before = seen["resid_pre", layer]
            old = before + attn_out
            return put(layer, old, edited_activation(model, edit, site, given, layer, old)) - before

        return hook

    def at_z(layer):
        def hook(z, hook):
            values = seen["v", layer]
            values = values.repeat_interleave(z.shape[2] // values.shape[2], 2)
            if clean is not None:
                z = torch.einsum("phqk,pkhd->pqhd", clean[layer], values)
            if layer in touched and site == "z":
                z = put(layer, z, edited_activation(model, edit, site, given, layer, z))
            if layer in touched and site == "pattern":
                z = put(layer, z, torch.einsum("phqk,pkhd->pqhd", given[layer], values))
            return z

        return hook

    hooks = []
    for layer in range(model.cfg.n_layers):
        stem = f"blocks.{layer}."
        if layer in touched and site not in ("z", "pattern", "resid_mid"):
            inside = "attn." if site in HEAD_SITES else ""
            hooks.append((f"{stem}{inside}hook_{site}", at_site(layer)))
        if layer in touched and site == "resid_mid":
            hooks.append((f"{stem}hook_resid_pre", remember("resid_pre", layer)))
            hooks.append((f"{stem}hook_attn_out", at_mid(layer)))
        if clean is not None or (layer in touched and site in ("z", "pattern")):
            hooks.append((f"{stem}attn.hook_v", remember("v", layer)))
            hooks.append((f"{stem}attn.hook_z", at_z(layer)))
    return hooks


def folded(model, layer):
    """W_Q, W_K, W_V, W_O of one layer, float64, per query head; norms folded by matrices, not by rules."""
    block = model.blocks[layer]
    size = model.cfg.d_model
    norm = getattr(block, "ln1", None)
    centred = (
        norm is not None and "RMS" not in type(norm).__name__ and not getattr(norm, "uses_rms_norm", False)
    )
    centre = torch.eye(size, dtype=torch.float64) - (1 / size if centred else 0)
    weight = next(
        (getattr(norm, key).detach() for key in ("w", "weight") if hasattr(norm, key)), torch.ones(size)
    )
    read = centre @ torch.diag(weight.double())
    out = []
    for key in ("W_Q", "W_K", "W_V"):
        found = getattr(block.attn, key).detach().double()
        out.append(read @ found.repeat_interleave(model.cfg.n_heads // len(found), 0))
    return [*out, block.attn.W_O.detach().double() @ centre]


def qk_trace(model, weights, layer, head):
    """The trace of the whole matrix [vocab, vocab]; `weights` [layer, head] of the earlier heads."""
    w_q, w_k, _, _ = (w[head] for w in folded(model, layer))
    w_e = model.W_E.detach().double()
    total = torch.zeros(len(w_e), len(w_e), dtype=torch.float64)
    for before in range(layer):
        _, _, w_v, w_o = folded(model, before)
        for k in range(model.cfg.n_heads):
            total += float(weights[before, k]) * w_e @ w_q @ w_k.T @ (w_v[k] @ w_o[k]).T @ w_e.T
    return float(total.trace())


def composition(model, layer, head, later, receiver, by, between=None):
    """The ratio of norms of whole matrices, with `between` them."""
    _, _, w_v, w_o = (w[head] for w in folded(model, layer))
    q, k, v, o = (w[receiver] for w in folded(model, later))
    writes, reads = w_v @ w_o, {"k": k @ q.T, "q": q @ k.T, "v": v @ o}[by]
    turned = writes if between is None else writes @ between
    return float((turned @ reads).norm() / writes.norm() / reads.norm())


def rotated_composition(model, layer, head, later, receiver, *, draws, centred):
    """K-composition with random rotations between, of the subspace without a mean where `centred`."""
    size = model.cfg.d_model
    generator = torch.Generator().manual_seed(0)
    basis = torch.eye(size, dtype=torch.float64)
    if centred:
        basis = torch.linalg.qr(torch.cat([torch.ones(size, 1).double(), basis[:, 1:]], 1))[0][:, 1:]
    out = []
    for _ in range(draws):
        normal = torch.randn(basis.shape[1], basis.shape[1], generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(normal)
        out.append(
            composition(model, layer, head, later, receiver, "k", basis @ (q * r.diagonal().sign()) @ basis.T)
        )
    return np.array(out)
