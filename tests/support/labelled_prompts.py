"""Repeated tokens with demonstrations added, so that few-shot scorers run on them too."""

import torch

import induction_kernel as ik


def labelled(prompts):
    """Repeated prompts with demonstrations added: token 2 k + 1 of each first copy is the label of token 2 k."""
    from induction_kernel.prompts import Demonstrations, FewShotPrompts

    n = len(prompts)
    spans = torch.tensor([[[1, 3], [3, 5]]]).repeat(n, 1, 1)
    return FewShotPrompts(
        **vars(prompts),
        demonstrations=Demonstrations(
            spans=spans,
            label_positions=spans[..., 1] - 1,
            classes=torch.tensor([[0, 1]]).repeat(n, 1),
            mask=torch.ones(n, 2, dtype=torch.bool),
            label_ids=torch.tensor([3, 4]),
            target=torch.zeros(n).long(),
            labels=("a", "b"),
        ),
    )


def prompts_for(model, **options):
    return labelled(ik.repeated_tokens(model, bos=0, **({"prompts": 4, "period": (5, 9)} | options)))
