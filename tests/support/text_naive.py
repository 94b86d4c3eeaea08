"""Slow twins of first-token and current-token scores and of head sizes: loops over prompts, heads, queries and keys."""

import math

import numpy as np


def first_token(pattern, lengths, scored):
    """`[prompt, head]`: attention to position 0, mean over scored queries but the first."""
    out = np.zeros(pattern.shape[:2])
    for p, h in np.ndindex(out.shape):
        queries = [i for i in range(1, int(lengths[p])) if scored[p, i]]
        out[p, h] = np.mean([float(pattern[p, h, i, 0]) for i in queries])
    return out


def current_token(pattern, lengths, scored):
    """Two `[prompt, head]`: attention to itself, and to a mean one of the keys between the first and itself."""
    score, control = np.zeros(pattern.shape[:2]), np.zeros(pattern.shape[:2])
    for p, h in np.ndindex(score.shape):
        queries = [i for i in range(2, int(lengths[p])) if scored[p, i]]
        score[p, h] = np.mean([float(pattern[p, h, i, i]) for i in queries])
        others = [np.mean([float(pattern[p, h, i, j]) for j in range(1, i)]) for i in queries]
        control[p, h] = np.mean(others)
    return score, control


def beside_neighbours(pattern, lengths, scored, lag):
    """Two `[prompt, head]`: attention to one lag, and what attention that falls off evenly has there."""
    score, control = np.zeros(pattern.shape[:2]), np.zeros(pattern.shape[:2])
    for p, h in np.ndindex(score.shape):
        queries = [i for i in range(3, int(lengths[p])) if scored[p, i]]
        current, previous, before = (
            np.mean([float(pattern[p, h, i, i - back]) for i in queries]) for back in range(3)
        )
        score[p, h] = (current, previous)[lag]
        if lag == 1:
            control[p, h] = math.sqrt(current * before)
        elif previous > 0:
            control[p, h] = min(1.0, previous * previous / before) if before > 0 else 1.0
    return score, control


def sizes_of_attention(pattern, lengths, scored):
    """Name -> `[prompt, head]`, of one layer's patterns."""
    names = ("sink", "entropy", "entropy_share", "entropy_rest", "distance", "distance_rest", "content")
    out = {name: np.full(pattern.shape[:2], np.nan) for name in names}
    for p, h in np.ndindex(*pattern.shape[:2]):
        found = {name: [] for name in names}
        for i in range(1, int(lengths[p])):
            if not scored[p, i]:
                continue
            row = [float(pattern[p, h, i, j]) for j in range(i + 1)]
            found["sink"].append(row[0])
            found["entropy"].append(entropy(row))
            found["entropy_share"].append(entropy(row) / math.log(i + 1))
            found["distance"].append(sum(a * (i - j) for j, a in enumerate(row)))
            if i >= 2 and row[0] <= 0.9:
                rest = [a / sum(row[1:]) for a in row[1:]]
                found["entropy_rest"].append(entropy(rest))
                found["distance_rest"].append(sum(a * (i - j) for j, a in enumerate(rest, 1)))
            others = [q for q in range(len(pattern)) if q != p and i < int(lengths[q]) and scored[q, i]]
            if others:
                means = [np.mean([float(pattern[q, h, i, j]) for q in others]) for j in range(i + 1)]
                found["content"].append(sum(abs(a - mean) for a, mean in zip(row, means, strict=True)) / 2)
        for name, values in found.items():
            if values:
                out[name][p, h] = np.mean(values)
    return out


def entropy(row):
    return -sum(a * math.log(a) for a in row if a > 0)


def norms(z, b_v, w_o, stream, lengths, scored, *, centred):
    """`[prompt, head]`: norm of (z - b_V) W_O over that of the stream before the layer, mean over queries."""
    out = np.zeros((z.shape[0], z.shape[2]))
    for p, h in np.ndindex(out.shape):
        ratios = []
        for i in range(1, int(lengths[p])):
            if scored[p, i]:
                before = stream[p, i] - centred * stream[p, i].mean()
                ratios.append(float(((z[p, i, h] - b_v[h]) @ w_o[h]).norm() / before.norm()))
        out[p, h] = np.mean(ratios)
    return out
