"""Cells of the matrix of tests/test_matrix.py: first and current token, and head sizes, against their slow twins."""

import functools

import naive
import numpy as np
import text_naive
import torch
from zoo import RMS, model_of

import induction_kernel as ik
from induction_kernel.scorers._text_scores import beside_neighbours


def close(found, twin, within=1e-9):
    np.testing.assert_allclose(np.asarray(found), np.asarray(twin), rtol=within, atol=within)


@functools.cache
def ready(name, kind):
    """Three prompts of different lengths; their second copies are scored."""
    return ik.repeated_tokens(model_of(name, kind), bos=0, prompts=3, period=(5, 8))


def text_scores(name, kind):
    """Beside a scorer of the prompts' own control, so that each is seen to have its own."""
    model, prompts = model_of(name, kind), ready(name, kind)
    found = ik.observe(model, prompts, [ik.induction, ik.first_token, ik.current_token], progress=False)
    replaced = ik.first_token.replaced(model, prompts)
    assert torch.equal(replaced[:, 1:], prompts.tokens[:, 1:])
    runs = {"score": prompts.tokens, "control": replaced}
    of_runs = {run: naive.all_patterns(model, tokens) for run, tokens in runs.items()}
    own = naive.all_patterns(model, prompts.control)
    given = prompts.lengths, prompts.scored
    for layer in range(2):
        for run, patterns in of_runs.items():
            twin = text_naive.first_token(patterns[layer], *given)
            close(found[run].sel(scorer="first_token", layer=layer), twin)
        score, control = text_naive.current_token(of_runs["score"][layer], *given)
        close(found["score"].sel(scorer="current_token", layer=layer), score)
        rests = found["control"].sel(scorer="current_token", layer=layer)
        close(rests, control, 1e-6)  # rows add up to 1 as far as a softmax in float32 does
        twin = naive.induction(own[layer], prompts.tokens, *given)
        close(found["control"].sel(scorer="induction", layer=layer), twin)


def neighbours(name, kind):
    """The current and the previous token of a census, beside attention that falls off evenly."""
    model, prompts = model_of(name, kind), ready(name, kind)
    patterns = naive.all_patterns(model, prompts.tokens)
    scorers = [beside_neighbours(f"lag {lag}", lag, "", "") for lag in (0, 1)]
    found = ik.observe(model, prompts, scorers, progress=False)
    for layer, pattern in enumerate(patterns):
        for lag in (0, 1):
            twins = text_naive.beside_neighbours(pattern, prompts.lengths, prompts.scored, lag)
            for key, twin in zip(("score", "control"), twins, strict=True):
                close(found[key].sel(scorer=f"lag {lag}", layer=layer), twin)


def sizes(name, kind):
    model, prompts = model_of(name, kind), ready(name, kind)
    given = prompts.lengths, prompts.scored
    whole, single = (ik.scorers.head_sizes(model, prompts, batch_size=size) for size in (None, 1))
    for layer, pattern in enumerate(naive.all_patterns(model, prompts.tokens)):
        for key, twin in text_naive.sizes_of_attention(pattern, *given).items():
            for found in (whole, single):
                close(found[key].sel(layer=layer), twin)
    if name == "Gemma 2":  # what attention writes is normed there
        assert whole["norm"].isnull().all()
        assert "normalised before it is added" in whole.attrs["norm_left_out"]
        return
    assert "norm_left_out" not in whole.attrs
    _, layers, _ = naive.measured(model, centred=name not in RMS)
    with torch.no_grad():
        _, cache = model.run_with_cache(prompts.tokens)
    for layer, (_, b_v, w_o) in enumerate(layers):
        stream, z = cache[f"blocks.{layer}.hook_resid_pre"], cache["z", layer]
        twin = text_naive.norms(z, b_v, w_o, stream, *given, centred=name not in RMS)
        for found in (whole, single):
            close(found["norm"].sel(layer=layer), twin)


CELLS = {"first and current token": text_scores, "lags beside neighbours": neighbours, "head sizes": sizes}
REFUSED = {}
