"""A sweep against one whole hooked run a cell: what may be asked, prompts and edits to ask it with, the comparison."""

from dataclasses import replace

import naive
import numpy as np
import torch
from zoo import PARALLEL

import induction_kernel as ik
from induction_kernel.interventions._edits import Add, KnockOut, Scale, Zero, ZeroValues
from induction_kernel.interventions._edits_from_runs import FromRun, Mean, Resample
from induction_kernel.metrics import Metric

EDITS = ("Zero", "Scale", "Add", "Mean", "Resample", "FromRun", "KnockOut", "ZeroValues")


HEAD_SITES = ("z", "q", "k", "v", "pattern")


SITES = (*HEAD_SITES, "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")


BYS = ((), ("layer",), ("layer", "head"), ("layer", "position"), ("layer", "head", "position"))


def legal(name, edit, site, by, hold):
    """The table of what may be asked of a model of this architecture."""
    if (site == "mlp_out" and name == "attention-only") or (
        site == "resid_mid" and name in ("attention-only", *PARALLEL)
    ):
        return False
    if (edit == "KnockOut") != (site == "pattern") and not (
        site == "pattern" and edit in ("Mean", "Resample", "FromRun")
    ):
        return False
    if edit == "ZeroValues" and site not in ("z", "v"):
        return False
    if by not in BYS or ("head" in by and site not in HEAD_SITES):
        return False
    return hold is None or (hold == "patterns" and site not in ("q", "k", "pattern"))


# Absolute, on values of order 1 in float64; also where a Bridge's norms and rotations compute in float32, since both
# sides round the same numbers.
CLOSE = 1e-10


def tokens_for(model, lengths, *, seed=0, **fields):
    drawn = torch.randint(
        model.cfg.d_vocab, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed)
    )
    if len(set(lengths)) > 1:
        drawn[:, 0] = 0  # they begin alike
    return replace(ik.as_prompts(model, drawn, lengths=torch.tensor(lengths)), **fields)


def edit_for(name, model, prompts, site):
    """An edit of this kind that suits the prompts, and which reference prompts a Resample draws."""
    n, length = prompts.tokens.shape
    equal = len(set(prompts.lengths.tolist())) == 1
    generator = torch.Generator().manual_seed(3)
    if name == "Zero":
        return Zero(), None
    if name == "ZeroValues":
        return ZeroValues(), None
    if name == "Scale":
        return Scale(-0.7), None
    if name == "Add":
        width = model.cfg.d_head if site in HEAD_SITES else model.cfg.d_model
        shape = (width,) if equal else (n, length, *([1] if site in HEAD_SITES else []), width)
        dtype = next(model.parameters()).dtype
        return Add(torch.randn(shape, generator=generator, dtype=dtype)), None
    if name == "Mean":
        return Mean(None if equal else tokens_for(model, [6, 2, 5, 6], seed=4)), None
    if name == "Resample":
        if equal:
            edit = Resample(seed=2)
            return edit, edit.drawn(n, None)
        edit = Resample(tokens_for(model, [6, 7], seed=4), seed=2)
        return edit, edit.drawn(n, 2)
    if name == "FromRun":
        other = tokens_for(model, prompts.lengths.tolist(), seed=5)
        if not equal:
            other.tokens[:, :3] = prompts.tokens[:, :3]  # and so does the other run, until they part
            other.tokens[1, 2] += 1
        return FromRun(other), None
    mask = torch.rand((length, length) if equal else (n, 4, length, length), generator=generator) < 0.5
    return KnockOut(mask & ~torch.eye(length, dtype=torch.bool)), None


def weighed(logits, prompts):
    """`[prompt]`: reads every real position."""
    logs = logits.log_softmax(-1)
    place = torch.arange(logs.shape[1])
    real = place < prompts.lengths[:, None]
    return (torch.where(real, logs[..., 7] + 0.1 * place * logs[..., 9], 0)).sum(1) / prompts.lengths


def answer(logits, prompts):
    """`[prompt]`: reads the last real position."""
    rows = torch.arange(len(prompts))
    logs = logits.log_softmax(-1)[rows, prompts.lengths - 1]
    return logs[rows, prompts.tokens[:, 0]] - 0.5 * logs[rows, 8]


def answer_read(found, prompts):
    return found[:, 0, 0] - 0.5 * found[:, 0, 1]


NARROW = Metric(
    "answer",
    "nats",
    answer_read,
    reads=lambda prompts: torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1,
    targets=lambda prompts: torch.stack([prompts.tokens[:, 0], torch.full((len(prompts),), 8)], 1),
)


def compared(model, prompts, *, edit, site, by, hold, metric, drawn=None, close, **chosen):
    found = ik.sweep(
        model, prompts, edit=edit, site=site, by=by, hold=hold, metric=metric, progress=False, **chosen
    )
    value, baseline = naive.sweep(
        model,
        prompts,
        edit=edit,
        site=site,
        by=by,
        hold=hold,
        metric_function=answer if metric is NARROW else metric,
        drawn=drawn,
        heads=chosen.get("heads"),
        layers=chosen.get("layers"),
        positions=chosen.get("positions"),
    )
    assert found["value"].dims == ("prompt", *by)
    every = {
        "layer": chosen.get("layers", range(2)),
        "position": chosen.get("positions", range(prompts.tokens.shape[1])),
    }
    found = found.reindex(
        {dim: list(every[dim]) for dim in by if dim in every}
    )  # layers without heads are left out
    np.testing.assert_allclose(found["baseline"].values, baseline, rtol=0, atol=close)
    np.testing.assert_allclose(found["value"].values, value, rtol=0, atol=close, err_msg=str(by))
    np.testing.assert_allclose(
        found["effect"].values, (found["value"] - found["baseline"]).values, rtol=0, atol=1e-12
    )
    return found


def halved(activation, hook):
    return activation * 0.5
