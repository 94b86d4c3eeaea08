"""A model whose scores are worked out on paper: every head does one thing, exactly.

Two layers, three heads each, no norms, no MLP. The residual stream has four blocks: token, position, token
before, output.
  L0H0  previous token: position i reads i - 1 and writes its token into the block "token before"
  L0H1  one fixed lag: position i reads i - LAG (itself, where there is none)
  L0H2  nothing: attention uniform over the past
  L1H0  induction: reads where "token before" is the token of the query, and writes the token there to the output
  L1H1  nothing
  L1H2  duplicate token: reads itself and every earlier copy of its token, alike
Attention is so sharp (SHARP in the logits) that the rest of each softmax is 0 in float32.
"""

import torch

VOCAB, CONTEXT, LAG, SHARP, GAIN = 64, 64, 10, 200.0, 8.0
WIDTH = 3 * VOCAB + CONTEXT
TOKEN, POSITION, BEFORE, OUTPUT = (slice(start, start + VOCAB) for start in range(0, WIDTH, VOCAB))
ARCHITECTURE = {
    "n_layers": 2, "d_model": WIDTH, "n_heads": 3, "d_head": VOCAB, "n_ctx": CONTEXT, "d_vocab": VOCAB,
    "attn_only": True, "normalization_type": None, "positional_embedding_type": "standard",
}  # fmt: skip


def hand_weights():
    eye = torch.eye(VOCAB)
    w = {f"blocks.{layer}.attn.W_{key}": torch.zeros(3, WIDTH, VOCAB) for layer in (0, 1) for key in "QKV"}
    w |= {f"blocks.{layer}.attn.W_O": torch.zeros(3, VOCAB, WIDTH) for layer in (0, 1)}
    w["embed.W_E"] = torch.zeros(VOCAB, WIDTH)
    w["embed.W_E"][:, TOKEN] = eye
    w["pos_embed.W_pos"] = torch.zeros(CONTEXT, WIDTH)
    w["pos_embed.W_pos"][:, POSITION] = eye
    w["unembed.W_U"] = torch.zeros(WIDTH, VOCAB)
    w["unembed.W_U"][OUTPUT] = GAIN * eye
    # attention logits are q . k / sqrt(d_head)
    sharp = SHARP * VOCAB**0.5
    for head, lag in (
        (0, 1),
        (1, LAG),
    ):  # the key at position j says e_j, the query at i asks for e_(i - lag)
        w["blocks.0.attn.W_K"][head, POSITION] = eye
        w["blocks.0.attn.W_Q"][head, POSITION] = sharp * shifted(lag)
    w["blocks.0.attn.W_V"][0, TOKEN] = eye
    w["blocks.0.attn.W_O"][0, :, BEFORE] = eye
    for head, key in ((0, BEFORE), (2, TOKEN)):
        w["blocks.1.attn.W_Q"][head, TOKEN] = sharp * eye
        w["blocks.1.attn.W_K"][head, key] = eye
    w["blocks.1.attn.W_V"][0, TOKEN] = eye
    w["blocks.1.attn.W_O"][0, :, OUTPUT] = eye
    return w


def shifted(lag):
    """Row i has its one at i - lag, or at i where that is before the start."""
    out = torch.zeros(CONTEXT, CONTEXT)
    for i in range(CONTEXT):
        out[i, i - lag if i >= lag else i] = 1.0
    return out
