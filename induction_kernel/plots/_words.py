"""Names of sites, edits, metrics and paths in the titles of figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["effect", "intervention", "metric"]

SITES = {
    "z": "head outputs",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "attention patterns",
    "attn_out": "attention outputs",
    "mlp_out": "MLP outputs",
    "resid_pre": "the residual stream before each layer",
    "resid_mid": "the residual stream after attention",
    "resid_post": "the residual stream after each layer",
}
EDITS = {
    "Zero": "zero ablation of",
    "ZeroValues": "ablation to the value bias of",
    "Mean": "mean ablation of",
    "Resample": "resample ablation of",
    "FromRun": "activation patching of",
    "Scale": "scaling of",
    "Add": "a vector added to",
    "KnockOut": "attention knock-out in",
    "Given": "given values of",
}
METRICS = {
    "repeat_loss": "the loss on the repeat",
    "loss": "the loss",
    "label_accuracy": "the accuracy of labels",
    "logit_difference": "the logit difference",
    "probability": "the probability of the right answer",
    "kl_to": "the KL divergence from the clean run",
    "banded_icl_score": "the in-context-learning score",
}
LISTED = 4  # receivers that a title names


def intervention(attrs: Mapping[Any, Any]) -> str:
    """ "mean ablation of head outputs": the edit and its site, by a result's attributes; "" where there is none."""
    if attrs.get("method") == "path_patch":
        return f"path patching from each head (sender) to {_receivers(attrs)}"
    edit, site = str(attrs.get("edit", "")), str(attrs.get("site", "z"))
    if not edit:
        return ""
    return f"{EDITS.get(edit, f'{edit} of')} {SITES.get(site, site)}"


def effect(attrs: Mapping[Any, Any]) -> str:
    """ "effect of mean ablation of head outputs on the loss": edit, site, metric and hold, where they are known."""
    done, measured = intervention(attrs), metric(attrs)
    said = "effect" + (f" of {done}" if done else "") + (f" on {measured}" if measured else "")
    return said + (", attention patterns held" if attrs.get("hold") == "patterns" else "")


def metric(attrs: Mapping[Any, Any]) -> str:
    """ "the loss on the repeat": the metric; "" where there is none."""
    name = str(attrs.get("metric", ""))
    return METRICS.get(name, name.replace("_", " "))


def _receivers(attrs: Mapping[Any, Any]) -> str:
    """ "the keys of L1H0 (receiver)": what path patching changes."""
    site, names = str(attrs.get("site", "")), str(attrs.get("receivers", "")).split()
    if site == "resid_post":
        return "the logits (receiver)"
    listed = ", ".join(names[:LISTED])
    listed += f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    what = "the MLP" if site == "mlp_out" else f"the {SITES.get(site, site)}"
    role = "receivers" if len(names) > 1 else "receiver"
    return f"{what} of {listed} ({role})" if listed else f"{what} ({role})"
