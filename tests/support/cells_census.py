"""The census's rows of the matrix (tests/test_matrix.py): its passages equal their slow twin on every family."""

import census_naive
import naive
import numpy as np
import torch
from zoo import RMS, model_of

import induction_kernel as ik


def passages(name, kind):
    model = model_of(name, kind)
    prompts = ik.repeated_tokens(model, bos=0, prompts=3, period=(5, 8))
    patterns = naive.all_patterns(model, prompts.tokens)
    _, layers, _ = naive.measured(model, centred=name not in RMS)
    norms = []
    for layer, (_, b_v, w_o) in enumerate(layers):
        with torch.no_grad():
            _, cache = model.run_with_cache(prompts.tokens)
        v = cache["v", layer]
        of_heads = [
            ((v[:, :, head // (4 // v.shape[2])] - b_v[head]) @ w_o[head]).norm(dim=-1) for head in range(4)
        ]
        norms.append(torch.stack(of_heads, 1))
    found = ik.head_census.passages(model, prompts, rows=3, progress=False)
    strings = [row[: int(n)] for row, n in zip(prompts.strings(model), prompts.lengths, strict=True)]
    twin = census_naive.passages(patterns, norms, strings, 3)
    for (layer, head), pairs in twin.items():
        of_head = found.sel(layer=layer, head=head)
        for row, (weighted, *_) in enumerate(pairs):
            at = of_head.isel(row=row)
            p, q, k = (int(at[key]) for key in ("prompt", "query", "key"))
            if name != "Gemma 2":  # what its values write is normed, and naive measures that
                np.testing.assert_allclose(float(at["weighted"]), weighted, rtol=1e-5, atol=1e-6)
                own = float(patterns[layer][p, head, q, k] * norms[layer][p, head, k])
                np.testing.assert_allclose(float(at["weighted"]), own, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                float(at["weight"]), patterns[layer][p, head, q, k], rtol=1e-5, atol=1e-6
            )
            in_brackets = str(at["key_text"].item()).partition("[")[2].partition("]")[0]
            assert in_brackets.strip() == strings[p][k]


CELLS = {"passages": passages}
