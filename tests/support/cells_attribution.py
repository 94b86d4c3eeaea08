"""The matrix's cells of logit attribution: by component, position and source token, and the logit lens."""

import functools
from dataclasses import replace

import naive
import numpy as np
import torch
from logit_lens import lens_of, parts_of, sources_of, wanted_of
from zoo import RMS, model_of

import induction_kernel as ik

POSITIONAL = ("attention-only", "GPT-2", "GPT-Neo", "OPT")
READINGS = ("next token", "answers")
NORMED = "attention's output is normalised before it is added to the residual stream"


@functools.cache
def seen(name, kind):
    return naive.measured(model_of(name, kind), centred=name not in RMS)


@functools.cache
def ready(name, kind):
    """Two prompts of different lengths, longer than every window, with answers."""
    prompts = ik.repeated_tokens(model_of(name, kind), bos=0, prompts=2, period=(4, 7))
    return replace(prompts, answers=torch.tensor([[3, 7], [11, 2]]))


def close(found, twin, within=1e-9):
    np.testing.assert_allclose(np.asarray(found), np.asarray(twin), rtol=within, atol=within)


def rounding(name, kind):
    """How far the model's own logits may be from what float64 gives: RMS norms of Bridges are in float32."""
    return 1e-4 if name in RMS and kind != "converted" else 1e-9


def components(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    for on in READINGS:
        apart = ik.direct_effect(model, prompts, on=on, by=("component", "position"))
        mean = ik.direct_effect(model, prompts, on=on, by=("component",))
        for variable, tokens in (("score", prompts.tokens), ("control", prompts.control)):
            twin = parts_of(model, prompts, tokens, on, seen(name, kind), positional=name in POSITIONAL)
            names = [*list(twin[0][2])[:-1], "final norm bias", "unembedding bias"]
            assert apart["component"].values.tolist() == mean["component"].values.tolist() == names
            for p, i, parts in twin:
                found, within = apart[variable].values[p, :, i], rounding(name, kind)
                close([*found[:-2], found[-2:].sum()], list(parts.values()), max(within, 1e-9))
            read = {(p, i) for p, i, _ in twin}
            assert {
                tuple(at) for at in np.argwhere(apart[variable].notnull().all("component").values)
            } == read
            for p in range(2):
                each = [list(parts.values()) for at, _, parts in twin if at == p]
                found = mean[variable].values[p]
                close([*found[:-2], found[-2:].sum()], np.mean(each, 0), max(within, 1e-9))
        with torch.no_grad():
            logits = model(prompts.tokens, return_type="logits")
        for p, i, _ in parts_of(model, prompts, prompts.tokens, on, seen(name, kind), positional=False):
            close(apart["total"][p, i], wanted_of(prompts, p, i, on)(logits[p, i]), 1e-9)
        for found in (apart, mean):
            assert float(abs(found["missing"]).max()) < rounding(name, kind)
            close(found["score"].sum("component", skipna=False) + found["missing"], found["total"])


def by_position(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    for on in READINGS:
        found = ik.direct_effect(model, prompts, on=on, by=("head", "position"))
        for variable, tokens in (("score", prompts.tokens), ("control", prompts.control)):
            twin = np.full(found[variable].shape, np.nan)
            for p, i, parts in parts_of(model, prompts, tokens, on, seen(name, kind), positional=False):
                for layer, head in np.ndindex(2, 4):
                    twin[p, layer, head, i] = parts[f"L{layer}H{head}"]
            close(found[variable], twin)


def by_source(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    for on in READINGS:
        found = ik.direct_effect(model, prompts, on=on, by=("head", "key"))
        for variable, tokens in (("score", prompts.tokens), ("control", prompts.control)):
            twin = sources_of(model, prompts, tokens, on, seen(name, kind))
            padding = np.arange(tokens.shape[1]) >= prompts.lengths[:, None].numpy()
            close(found[variable], np.where(padding[:, None, None], np.nan, twin))
        heads = ik.direct_effect(model, prompts, on=on)["score"]
        close(found["score"].sum("key") + found["missing"], heads)
        assert float(abs(found["missing"]).max()) < max(1e-5 * (kind != "converted"), 1e-9)


def lens(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    twin = lens_of(model, prompts.tokens)
    within = rounding(name, kind)
    for on in READINGS:
        found = ik.scorers.logit_lens(model, prompts, on=on)
        assert found["layer"].values.tolist() == [-1, 0, 1]
        for p, (layer, logits) in ((p, each) for p in range(2) for each in enumerate(twin)):
            end = int(prompts.lengths[p]) - (on == "next token")
            for i in range(end):
                right = int(prompts.answers[p, 0] if on == "answers" else prompts.tokens[p, i + 1])
                one, here = logits[p, i].double(), found.isel(prompt=p, layer=layer, position=i)
                close(here["logit"], one[right] - one.mean(), within)
                close(here["probability"], one.softmax(-1)[right], within)
                assert int(here["rank"]) == 1 + int((one > one[right]).sum())
                assert here["top"].item() == int(one.argmax())
                if on == "answers":
                    close(here["difference"], one[right] - one[int(prompts.answers[p, 1])], within)
            assert found["logit"][p, :, end:].isnull().all()


CELLS = {
    "direct_effect by component": components,
    "direct_effect by position": by_position,
    "direct_effect by source token": by_source,
    "logit_lens": lens,
}
REFUSED = {("Gemma 2", cell): NORMED for cell in CELLS if cell != "logit_lens"}
