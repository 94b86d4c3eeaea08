"""What stands in a head's place by the model's own hooks: the right values of edits, for several test files."""

import torch

TOKENS = torch.tensor([[0, 7, 3, 9, 4], [0, 1, 2, 3, 8]])


def last_logit(logits, prompts):
    return logits[torch.arange(len(prompts)), prompts.lengths - 1, 7]


def written(model, site, layer, value, head=1):
    """The last logit where `value(old)` stands in the place of a head, at TransformerLens' own hook."""

    def hook(old, hook):
        new = old.clone()
        new[:, :, head] = value(old[:, :, head])
        return new

    with torch.no_grad():
        logits = model.run_with_hooks(TOKENS, fwd_hooks=[(f"blocks.{layer}.attn.hook_{site}", hook)])
    return logits[:, -1, 7].numpy()
