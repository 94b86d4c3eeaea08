"""Path patching by plain hooks: a run with all else frozen, then the receivers put into a plain run."""

import numpy as np
import torch
from naive import together
from whole_runs import NARROW, answer, tokens_for, weighed
from zoo import PARALLEL, model_of

from induction_kernel.interventions._paths import path_patch

# Bridges around Llama, and Bridges on TransformerLens' own layers, take the norm in float32: where two orders of
# adding differ in the last bit of float64, its input may be rounded to the next float32.
FLOAT32_NORM = {("Llama", "bridge"), ("MQA", "bridge"), ("Llama", "native")}


def place(site, layer):
    return f"blocks.{layer}.{'attn.' if site in ('z', 'q', 'k', 'v') else ''}hook_{site}"


def keeping(model, sites, found):
    """Hooks that put `{(site, layer): activation}` of a run into `found`."""

    def keep(key):
        def hook(activation, hook):
            found.setdefault(key, activation.clone())
            return activation

        return hook

    return [
        (place(site, layer), keep((site, layer))) for site in sites for layer in range(model.cfg.n_layers)
    ]


def kept(model, tokens, sites):
    """`{(site, layer): activation}` and logits of one plain run."""
    found = {}
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=keeping(model, sites, found))
    return found, logits


def put(new):
    return lambda activation, hook: new.to(activation)


def naive_values(model, into, source, senders, receivers, site, metric):
    """`[sender][prompt]`: a run with all else frozen shows what the receivers become; they are put into a plain run.

    The runs of the senders are rows of one batch.
    """
    stream = ["z"] + ([] if model.cfg.attn_only else ["mlp_out"])
    clean, _ = kept(model, into.tokens, stream)
    other, _ = kept(model, source.tokens, ["z"])
    frozen = []
    for layer, head in senders:
        changed = clean["z", layer].clone()
        changed[:, :, head] = other["z", layer][:, :, head]
        frozen.append([(place(*at), put(new)) for at, new in {**clean, ("z", layer): changed}.items()])
    if site == "resid_post":
        return [metric(logits, into) for logits in together(model, into.tokens, frozen)]
    found = [{} for _ in senders]  # before they are frozen, where they are
    shown = [keeping(model, [site], here) + hooks for here, hooks in zip(found, frozen, strict=True)]
    together(model, into.tokens, shown)
    plain, _ = kept(model, into.tokens, [site])
    changes = []
    for of_sender in found:
        changes.append([])
        for r, heads in receivers.items():
            new = of_sender[site, r]
            if site != "mlp_out":
                new = plain[site, r].clone()
                new[:, :, heads] = of_sender[site, r][:, :, heads]
            changes[-1].append((place(site, r), put(new)))
    return [metric(logits, into) for logits in together(model, into.tokens, changes)]


def compared(name, kind, site, receivers, *, metric=weighed, close=None, lengths=(4, 6, 3), **options):
    """`receivers {layer: heads}`."""
    model = model_of(name, kind)
    source, into = tokens_for(model, list(lengths), seed=5), tokens_for(model, list(lengths))
    asked = {"resid_post": None, "mlp_out": list(receivers)}.get(
        site, [(layer, head) for layer, heads in receivers.items() for head in heads or ()]
    )
    found = path_patch(
        model, source=source, into=into, receivers=asked, site=site,
        metric=NARROW if metric == "narrow" else metric, progress=False, **options,
    )  # fmt: skip
    function = answer if metric == "narrow" else metric
    value = np.full((len(lengths), 2, 4), np.nan)
    same = site == "resid_post" or (site == "mlp_out" and name not in PARALLEL)
    # a receiver that is not after the sender gets the value it has anyway
    last = max(receivers)
    senders = [(layer, head) for layer, head in np.ndindex(2, 4) if layer < last or (same and layer == last)]
    twins = naive_values(model, into, source, senders, receivers, site, function)
    for (layer, head), twin in zip(senders, twins, strict=True):
        value[:, layer, head] = twin
    close = close or (1e-5 if (name, kind) in FLOAT32_NORM else 1e-10)
    np.testing.assert_allclose(found["value"].values, value, rtol=0, atol=close)
    with torch.no_grad():
        baseline = function(model(into.tokens), into)
        source_value = function(model(source.tokens), into)
    np.testing.assert_allclose(found["baseline"], baseline, rtol=0, atol=close)
    np.testing.assert_allclose(found["source_value"], source_value, rtol=0, atol=close)
    moved = (value - baseline.numpy()[:, None, None]).mean(0) / float((source_value - baseline).mean())
    np.testing.assert_allclose(found["normalised"], moved, rtol=1e-4, atol=1e-4)
    assert float(abs(found["effect"]).max()) > 1e-4
    return found
