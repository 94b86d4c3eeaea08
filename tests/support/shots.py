"""Few-shot prompts for tests: of random tokens, ragged in every way, and of the embedded model's own words."""

import numpy as np
import torch

import induction_kernel as ik
from induction_kernel.prompts import Demonstrations, FewShotPrompts
from induction_kernel.prompts._prompts import pad
from induction_kernel.training import _vocabulary as vocabulary

LABELS = ("a", "b c", "d")
TOKENS = ([3], [4, 5], [6])  # of each label: one of them has two


def random_shots(n=4, shots=4, seed=0, *, vocabulary=50, labels=LABELS, known=True):
    """Ragged: prompts of two lengths or more, inputs of one to three tokens, one demonstration missing in prompt 0."""
    rng = np.random.default_rng(seed)
    rows, spans, positions, classes = [], [], [], []
    for prompt in range(n):
        row, of_row = [0], []
        for _ in range(shots - (prompt == 0)):
            begin, y = len(row), int(rng.integers(len(labels)))
            row += rng.integers(7, vocabulary, size=int(rng.integers(1, 4))).tolist()
            of_row.append((begin, len(row) + len(TOKENS[y]), len(row), y))
            row += [*TOKENS[y], 2]
        rows.append([*row, *rng.integers(7, vocabulary, size=2).tolist()])
        of_row += [(0, 0, 0, 0)] * (shots - len(of_row))
        spans.append([each[:2] for each in of_row])
        positions.append([each[2] for each in of_row])
        classes.append([each[3] for each in of_row])
    tokens, lengths = pad(rows)
    spans = torch.tensor(spans)
    target = torch.from_numpy(rng.integers(len(labels), size=n)) if known else torch.full((n,), -1)
    found = Demonstrations(
        spans, torch.tensor(positions), torch.tensor(classes), spans[..., 1] > 0,
        torch.tensor([each[0] for each in TOKENS[: len(labels)]]), target, tuple(labels),
    )  # fmt: skip
    scored = torch.arange(tokens.shape[1]) == lengths[:, None] - 1
    return FewShotPrompts(tokens, lengths, scored, demonstrations=found)


def noisy_words(model, *, prompts=200, shots=12, classes=4, noise=0.3, seed=0, one_answer=False):
    """The embedded model's few-shot task: words of topics, arbitrary labels, some words replaced by any other."""
    rng = np.random.default_rng(seed)
    labels, every = (
        list(vocabulary.LABELS[:classes]),
        [word for words in vocabulary.TOPICS.values() for word in words],
    )
    demonstrations, queries = [], []
    for _ in range(prompts):
        topics = rng.choice(vocabulary.TRAINING_TOPICS, classes, replace=False)
        words = [rng.permutation(vocabulary.TOPICS[topic]).tolist() for topic in topics]
        target = 0 if one_answer else int(rng.integers(classes))
        queries.append((words[target].pop(), target))
        order = rng.permutation(np.arange(shots) % classes).tolist()
        demonstrations.append(
            [(words[y].pop() if rng.random() >= noise else str(rng.choice(every)), y) for y in order]
        )
    return ik.few_shot_prompts(
        model, demonstrations, queries, template="{x} {y} ;", labels=labels, separator=" "
    )


def with_rows(model, tokens, change):
    """Logits `[vocab]` of the last token of one prompt, with rows of attention changed, layer by layer: plain hooks.

    `change[layer](row [head, key], v [key, head, d_head], z [head, d_head]) -> z`, of the last token, where row is what
    it attends to in the run as changed so far.
    """
    hooks = []
    for layer in sorted(change):
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            _, cache = model.run_with_cache(tokens)
        row, v, z = cache["pattern", layer][0, :, -1], cache["v", layer][0], cache["z", layer][0, -1]
        new = change[layer](row, v.repeat_interleave(row.shape[0] // v.shape[1], 1), z)

        def write(z, hook, new=new):
            z = z.clone()
            z[0, -1] = new
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", write))
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(tokens, return_type="logits")[0, -1].double()
