"""Have GPT-2 small's heads the published values? Induction scores and copy suppression, as published.

    python benchmarks/published.py gpt2
    python benchmarks/published.py gpt2 --random

The first command needs the weights of GPT-2 small, from the hub or a local folder given instead of the name; `--random`
runs the same on a model of its shape with random weights, whose heads have none of these values. Compared are

- the induction scores of five heads: ten prompts `[BOS, r, r]` of 50 random tokens with ids from 1,000 to 10,000, and
  the mean of the diagonal of the attention pattern at offset 1 - 50, over all its entries (two of which are none of
  induction, so that a perfect head gets about .96), as in TransformerLens' main demo. The values are third parties',
  who do not say which tokens they drew;
- copy suppression in L10H7 (McDougall et al. 2023): its mean direct effect on the logit of the right next token of the
  repeat, less the mean over the vocabulary, is below zero.

A table is printed, and written as JSON to `benchmarks/results/published.json` (`published_random.json`) or to `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import measuring

INDUCTION = {"L5H5": 0.93, "L6H9": 0.91, "L7H10": 0.91, "L5H1": 0.91, "L7H2": 0.83}
SUPPRESSES = "L10H7"
PROMPTS, PERIOD, IDS = 10, 50, (1000, 10000)
SHAPE = {
    "n_layers": 12, "n_heads": 12, "d_model": 768, "d_head": 64, "d_mlp": 3072, "d_vocab": 50257, "n_ctx": 1024,
    "act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "standard",
}  # fmt: skip
END_OF_TEXT = 50256


def main() -> None:
    asked = arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import induction_kernel as ik

    model = random_model(SHAPE) if asked.random else ik.load(asked.model)
    rows = compared(model, seed=asked.seed)
    print(table(rows))
    name = "published_random" if asked.random else "published"
    target = asked.out or measuring.RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found_on(model, rows, asked), indent=1) + "\n")
    print(target)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="gpt2, or a folder with its weights")
    parser.add_argument("--random", action="store_true", help="a model of GPT-2's shape with random weights")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument("--out", type=Path, help="a JSON file, instead of one in benchmarks/results")
    return parser.parse_args()


def compared(model: Any, *, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each published value: head, measure, ours, published, their difference, and the head's rank of all.

    Raises:
        ValueError: a model of another shape.
    """
    import induction_kernel as ik

    shape = {key: getattr(model.cfg, key) for key in ("n_layers", "n_heads")}
    if shape != {key: SHAPE[key] for key in shape}:
        raise ValueError(f"wanted GPT-2 small, of 12 layers of 12 heads, got {shape}")
    prompts = repeats(model, seed)
    induction = ik.induction(model, prompts, compat="diagonal", progress=False)["score"].mean("prompt")
    effect = ik.direct_effect(model, prompts, on="next token", progress=False)["score"].mean("prompt")
    rows = []
    for name, value in INDUCTION.items():
        ours, rank = of_head(induction, name)
        rows.append({"head": name, "measure": "induction, diagonal", "ours": ours, "published": value,
                     "difference": round(ours - value, 4), "rank": rank})  # fmt: skip
    ours, rank = of_head(-effect, SUPPRESSES)
    rows.append({"head": SUPPRESSES, "measure": "direct effect, logits", "ours": -ours, "published": "below 0",
                 "agrees": bool(ours > 0), "rank": rank})  # fmt: skip
    return rows


def repeats(model: Any, seed: int) -> Any:
    """Ten prompts [BOS, r, r]; tokens of r are all different, so that the period is the only lag of a repeat."""
    import torch

    from induction_kernel.prompts import Prompts

    generator, (low, high) = torch.Generator().manual_seed(seed), IDS
    drawn = [low + torch.randperm(high - low, generator=generator)[:PERIOD] for _ in range(PROMPTS)]
    bos = getattr(model.tokenizer, "bos_token_id", None)
    first = torch.tensor([min(END_OF_TEXT, model.cfg.d_vocab - 1) if bos is None else bos])
    tokens = torch.stack([torch.cat([first, row, row]) for row in drawn])
    scored = (torch.arange(tokens.shape[1]) > PERIOD).repeat(PROMPTS, 1)
    lengths = torch.full((PROMPTS,), tokens.shape[1])
    return Prompts(tokens, lengths, scored, bos=True, tokenizer=model.tokenizer)


def of_head(scores: Any, name: str) -> tuple[float, int]:
    """The score of a head, and its rank among all heads, 1 for the largest."""
    layer, head = map(int, name[1:].split("H"))
    value = float(scores.sel(layer=layer, head=head))
    return round(value, 4), int((scores > value).sum()) + 1


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [f"{'head':8}{'measure':24}{'ours':>9}{'published':>12}{'difference':>12}{'rank':>6}"]
    for row in rows:
        apart = row.get("difference", "as said" if row.get("agrees") else "not so")
        said = f"{apart:+.3f}" if isinstance(apart, float) else apart
        lines.append(
            f"{row['head']:8}{row['measure']:24}{row['ours']:9.3f}{row['published']!s:>12}{said:>12}{row['rank']:6}"
        )
    return "\n".join(lines)


def found_on(model: Any, rows: list[dict[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """What the JSON file holds."""
    options = f"{' --random' if asked.random else ''}{f' --seed {asked.seed}' if asked.seed else ''}"
    return {
        "command": f"python benchmarks/published.py {asked.model}{options}",
        "model": str(model.cfg.model_name),
        "random": asked.random,
        "machine": measuring.machine(),
        "rows": rows,
    }


def random_model(shape: dict[str, Any]) -> Any:
    """A model of this shape with GPT-2's initial weights: normal, of standard deviation .02."""
    import torch

    from induction_kernel.loading import build

    layers, heads, wide, of_head, inner, vocab, length = (shape[key] for key in list(shape)[:7])
    sizes = {"embed.W_E": (vocab, wide), "pos_embed.W_pos": (length, wide), "unembed.W_U": (wide, vocab)}
    for layer in range(layers):
        stem = f"blocks.{layer}."
        sizes |= {f"{stem}attn.W_{key}": (heads, wide, of_head) for key in "QKV"}
        sizes |= {f"{stem}attn.W_O": (heads, of_head, wide)}
        sizes |= {f"{stem}mlp.W_in": (wide, inner), f"{stem}mlp.W_out": (inner, wide)}
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.02 * torch.randn(size, generator=generator) for key, size in sizes.items()}
    norms = ["ln_final.w", *(f"blocks.{layer}.ln{i}.w" for layer in range(layers) for i in (1, 2))]
    weights |= {key: torch.ones(wide) for key in norms}
    return build(shape, weights, name="GPT-2's shape, random")


if __name__ == "__main__":
    main()
