"""The token batches that a call runs through a model, one entry a forward pass, on HookedTransformer and Bridge."""

from contextlib import contextmanager

from torch import Tensor


@contextmanager
def counted(model):
    """Inside, every forward pass of this kind of model adds its tokens, as nested tuples, to the list yielded."""
    kind, seen = type(model), []
    own = kind.forward

    def forward(self, tokens, *args, **kwargs):
        if isinstance(tokens, Tensor):
            seen.append(tuple(map(tuple, tokens.tolist())))
        return own(self, tokens, *args, **kwargs)

    kind.forward = forward
    try:
        yield seen
    finally:
        kind.forward = own


def times_run(seen, prompts):
    """How often each of these prompts, in its own tokens, is among the rows of the batches; most and least."""
    rows = [row for batch in seen for row in batch]
    wanted = [
        tuple(row[:n]) for row, n in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
    ]
    counts = [sum(row[: len(each)] == each for row in rows) for each in wanted]
    return min(counts), max(counts)
