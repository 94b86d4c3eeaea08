"""A model that does kernel regression, by hand: its heads' attention is an exponential kernel, exactly.

Two layers, no norms, no MLP. Tokens are words, each with a vector, and labels; a prompt is `word label word label ...
word`. The residual stream has blocks: vector, kind (word or label), label, position, vector before, output.
  L0H0  previous token: writes the vector of the token before into the block "vector before"
  L0H1  nothing: attention uniform over the past, values of 0 (it could write to the output: so edits of z act)
  L1H0  word kernel: the last token attends to the words, with exp(<vector, vector of the word> / WORD_BANDWIDTH)
  L1H1  label kernel: it attends to the labels, with exp(<vector, vector before the label> / LABEL_BANDWIDTH), and
        writes what it finds there to the output: the model's label logits are GAIN times the kernel's vote
Neither kernel head sees the query itself (its own position is masked by BIG), nor tokens of the other kind.
"""

import numpy as np
import torch

from induction_kernel.loading import build
from induction_kernel.prompts import Demonstrations, FewShotPrompts
from induction_kernel.prompts._prompts import pad

WORDS, LABELS, FEATURES, CONTEXT, BIG, GAIN = 40, 3, 5, 16, 1e4, 6.0
WORD_BANDWIDTH, LABEL_BANDWIDTH = 0.7, 1.9
BLOCKS = {
    "vector": FEATURES,
    "kind": 2,
    "label": LABELS,
    "position": CONTEXT,
    "before": FEATURES,
    "output": LABELS,
}
VOCAB, WIDTH = WORDS + LABELS, sum(BLOCKS.values())
D_HEAD = FEATURES + CONTEXT + 2
ARCHITECTURE = {
    "n_layers": 2, "d_model": WIDTH, "n_heads": 2, "d_head": D_HEAD, "n_ctx": CONTEXT, "d_vocab": VOCAB,
    "attn_only": True, "normalization_type": None, "positional_embedding_type": "standard",
}  # fmt: skip


def block(name):
    """Where a block lies in the residual stream."""
    start = sum(size for key, size in BLOCKS.items() if list(BLOCKS).index(key) < list(BLOCKS).index(name))
    return slice(start, start + BLOCKS[name])


def word_vectors():
    """[word, feature]."""
    return np.random.default_rng(0).normal(size=(WORDS, FEATURES))


def kernel_model():
    """The model, in float64."""
    return build(ARCHITECTURE, weights(), dtype=torch.float64, name="kernel by hand")


def weights():
    w = {f"blocks.{layer}.attn.W_{key}": zeros(2, WIDTH, D_HEAD) for layer in (0, 1) for key in "QKV"}
    w |= {f"blocks.{layer}.attn.W_O": zeros(2, D_HEAD, WIDTH) for layer in (0, 1)}
    embed = w["embed.W_E"] = zeros(VOCAB, WIDTH)
    embed[:WORDS, block("vector")] = torch.from_numpy(word_vectors())
    embed[:WORDS, block("kind").start] = 1
    embed[WORDS:, block("kind").start + 1] = 1
    embed[WORDS:, block("label")] = torch.eye(LABELS, dtype=torch.float64)
    w["pos_embed.W_pos"] = zeros(CONTEXT, WIDTH)
    w["pos_embed.W_pos"][:, block("position")] = torch.eye(CONTEXT, dtype=torch.float64)
    w["unembed.W_U"] = zeros(WIDTH, VOCAB)
    w["unembed.W_U"][block("output"), WORDS:] = GAIN * torch.eye(LABELS, dtype=torch.float64)
    features, places, kinds = (
        slice(0, FEATURES),
        slice(FEATURES, FEATURES + CONTEXT),
        slice(D_HEAD - 2, D_HEAD),
    )
    scale = D_HEAD**0.5  # attention scores are q . k / sqrt(d_head)
    w["blocks.0.attn.W_K"][0, block("position"), places] = torch.eye(CONTEXT, dtype=torch.float64)
    w["blocks.0.attn.W_Q"][0, block("position"), places] = scale * BIG * one_before()
    w["blocks.0.attn.W_V"][0, block("vector"), features] = torch.eye(FEATURES, dtype=torch.float64)
    w["blocks.0.attn.W_O"][0, features, block("before")] = torch.eye(FEATURES, dtype=torch.float64)
    w["blocks.0.attn.W_O"][1, :LABELS, block("output")] = torch.eye(LABELS, dtype=torch.float64)
    for head, key, h, hidden in ((0, "vector", WORD_BANDWIDTH, 1), (1, "before", LABEL_BANDWIDTH, 0)):
        q, k = w["blocks.1.attn.W_Q"][head], w["blocks.1.attn.W_K"][head]
        q[block("vector"), features] = scale / h * torch.eye(FEATURES, dtype=torch.float64)
        k[block(key), features] = torch.eye(FEATURES, dtype=torch.float64)
        q[block("position"), places] = -scale * BIG * torch.eye(CONTEXT, dtype=torch.float64)
        k[block("position"), places] = torch.eye(CONTEXT, dtype=torch.float64)
        q[block("kind"), kinds] = -scale * BIG * torch.eye(2, dtype=torch.float64)[[hidden, hidden]]
        k[block("kind"), kinds] = torch.eye(2, dtype=torch.float64)
    w["blocks.1.attn.W_V"][1, block("label"), :LABELS] = torch.eye(LABELS, dtype=torch.float64)
    w["blocks.1.attn.W_O"][1, :LABELS, block("output")] = torch.eye(LABELS, dtype=torch.float64)
    return w


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


def one_before():
    """Row i has its one at i - 1, row 0 at 0."""
    out = zeros(CONTEXT, CONTEXT)
    out[torch.arange(CONTEXT), (torch.arange(CONTEXT) - 1).clamp(min=0)] = 1
    return out


def kernel_prompts(n=24, seed=0):
    """Prompts of 3 to 7 demonstrations of random classes, every word at most once in a prompt."""
    rng = np.random.default_rng(seed)
    rows, width = [], 7
    classes, mask = torch.zeros(n, width).long(), torch.zeros(n, width, dtype=torch.bool)
    for p in range(n):
        shots = 3 + p % (width - 2)
        words, y = rng.permutation(WORDS)[: shots + 1], rng.integers(0, LABELS, shots)
        rows.append([*np.stack([words[:-1], WORDS + y], 1).ravel().tolist(), int(words[-1])])
        classes[p, :shots], mask[p, :shots] = torch.from_numpy(y), True
    tokens, lengths = pad(rows)
    starts = torch.where(mask, 2 * torch.arange(width), 0)
    found = Demonstrations(
        spans=torch.stack([starts, torch.where(mask, starts + 2, 0)], -1),
        label_positions=torch.where(mask, starts + 1, 0),
        classes=classes,
        mask=mask,
        label_ids=torch.arange(WORDS, VOCAB),
        target=torch.from_numpy(rng.integers(0, LABELS, n)),
        labels=tuple(f"label {y}" for y in range(LABELS)),
    )
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    return FewShotPrompts(tokens, lengths, scored, demonstrations=found)


def vectors_of(prompts):
    """Vectors of the queries [prompt, feature] and demonstrations [prompt, demonstration, feature]; NaN where none."""
    vectors, found = word_vectors(), prompts.demonstrations
    queries = vectors[prompts.tokens[torch.arange(len(prompts)), prompts.lengths - 1].numpy()]
    words = prompts.tokens.gather(1, found.spans[..., 0]).numpy()
    return queries, np.where(found.mask.numpy()[..., None], vectors[np.minimum(words, WORDS - 1)], np.nan)
