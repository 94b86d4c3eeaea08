"""Attribution against slopes of the sweep: small steps of an edit up and down, measured by whole runs."""

import naive
import numpy as np
import torch
from whole_runs import HEAD_SITES, tokens_for, weighed
from zoo import model_of

import induction_kernel as ik
from induction_kernel.interventions._activations import New
from induction_kernel.interventions._attribution import attribution
from induction_kernel.interventions._edits import Add

BY_HEAD, BY_POSITION, BY_BOTH = ("layer", "head"), ("layer", "position"), ("layer", "head", "position")


# These Bridges take the norm or the softmax, or turn by the position, in float32: small steps drown in its rounding.
FLOAT32_INSIDE = {("Llama", "native")} | {
    (name, "bridge")
    for name in (
        "Llama", "MQA", "GPT-J", "GPT-Neo", "OPT", "BLOOM", "Mistral", "Qwen2", "Gemma", "Gemma 2", "Phi",
    )
}  # fmt: skip


class Toward:
    """Some of the way to another pattern: `KnockOut` and the like take large steps only."""

    def __init__(self, step):
        self.step = step

    def new(self, model, prompts, site, layers):
        length = prompts.tokens.shape[1]
        rows = torch.rand(
            length, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).tril()
        rows = rows / rows.sum(-1, keepdim=True)
        return dict.fromkeys(layers, New(1 - self.step, self.step * rows))


def small_edit(model, site, length, step):
    if site == "pattern":
        return Toward(step)
    shape = (length, 1, model.cfg.d_head) if site in HEAD_SITES else (length, model.cfg.d_model)
    return Add(step * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def exact(model, prompts, edit, site, by, metric):
    """The effect, `[prompt, *by]`, by whole runs."""
    if isinstance(edit, Toward):
        found = ik.sweep(model, prompts, edit=edit, site=site, by=by, metric=metric, progress=False)
        return found["effect"].values
    value, baseline = naive.sweep(model, prompts, edit=edit, site=site, by=by, metric_function=metric)
    return value - baseline.reshape(-1, *[1] * len(by))


def estimated(model, prompts, edit, site, by, metric, **options):
    found = attribution(model, prompts, edit=edit, site=site, by=by, metric=metric, progress=False, **options)
    return found["estimate"].values


def check_slope(name, kind, site, by, model=None, **options):
    model = model or model_of(name, kind)
    prompts = tokens_for(model, [4, 6, 3])
    step, close = (3e-3, 5e-3) if (name, kind) in FLOAT32_INSIDE else (1e-4, 1e-6)

    def slope(function, **options):
        up, down = (
            function(model, prompts, small_edit(model, site, 6, sign * step), site, by, weighed, **options)
            for sign in (1, -1)
        )
        return (up - down) / (2 * step)

    twin, found = slope(exact), slope(estimated, **options)
    np.testing.assert_allclose(found, twin, rtol=close, atol=close)
    assert np.nanmax(abs(found)) > 1e-2
