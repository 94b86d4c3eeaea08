"""Slow twins of the census: passages by loops over all pairs, Holm by the textbook, strengths head by head."""

import numpy as np


def passages(patterns, norms, strings, rows):
    """The strongest pairs of each head: `{(layer, head): [(weighted, weight, prompt, query, key), ...]}`.

    `patterns[layer][prompt, head, query, key]`, `norms[layer][prompt, head, key]`, `strings[prompt]` the tokens.
    """
    found = {}
    for layer, pattern in enumerate(patterns):
        for head in range(pattern.shape[1]):
            pairs = []
            for p, tokens in enumerate(strings):
                for q in range(1, len(tokens)):
                    for k in range(1, len(tokens)):
                        weight = float(pattern[p, head, q, k])
                        if weight > 0:
                            pairs.append((weight * float(norms[layer][p, head, k]), weight, p, q, k))
            pairs.sort(key=lambda pair: -pair[0])
            kept, seen = [], set()
            for pair in pairs:
                _, _, p, q, k = pair
                words = strings[p][q], strings[p][k]
                if words not in seen:
                    seen.add(words)
                    kept.append(pair)
            found[layer, head] = kept[:rows]
    return found


def holm(p_values, level):
    """The names rejected: in order of their p-values, each at the level over the number that are left."""
    rejected, left = [], sorted(p_values, key=lambda name: p_values[name])
    for i, name in enumerate(left):
        if p_values[name] > level / (len(left) - i):
            break
        rejected.append(name)
    return rejected


def strength(score, control, most):
    """`[layer, head]` of `score` and `control` `[prompt, layer, head]`, on these prompts."""
    out = np.zeros(score.shape[1:])
    excesses = [np.mean(score[:, at[0], at[1]] - control[:, at[0], at[1]]) for at in np.ndindex(*out.shape)]
    for at, excess in zip(np.ndindex(*out.shape), excesses, strict=True):
        if most is None:
            total = sum(each for each in excesses if each > 0)
            share = excess / total if total > 0 else 0.0
        else:
            share = excess / (most - np.mean(control[:, at[0], at[1]]))
        out[at] = min(1.0, max(0.0, share))
    return out
