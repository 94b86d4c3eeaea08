"""What a model's logits are over: its own tokens, or something else (the classes of a classifier, sums, ...).

Next tokens and labels of prompts can be read where it is the former, next tokens only where attention is causal.
"""

from __future__ import annotations

from ..errors import NotDefined
from ._anatomy import Model, check_model, sizes
from ._self_check import is_causal

__all__ = ["check_next_token", "check_words", "n_outputs", "outputs_are_tokens"]

_INSTEAD = (
    "give answers by number, with_answers(model, prompts, [(right, wrong), ...]), for logit_difference, probability or "
    "direct_effect, or use kl_to or a function of logits and prompts"
)


def n_outputs(model: Model) -> int:
    """How many logits there are at a position."""
    check_model(model)
    return model.W_U.shape[-1]


def outputs_are_tokens(model: Model) -> bool:
    """Whether logits are over the tokens that go in; an embedding may have rows that are not words."""
    return n_outputs(model) in (sizes(model).d_vocab, len(model.W_E))


def check_words(model: Model, name: str, instead: str = _INSTEAD) -> None:
    """Raise NotDefined unless the model's logits are over its own tokens, which is what `name` reads.

    `instead` is what the message advises.
    """
    if not outputs_are_tokens(model):
        raise NotDefined(
            f"{name} reads logits of the prompts' own tokens, got a model of {sizes(model).d_vocab} tokens whose "
            f"{n_outputs(model)} outputs are others (d_vocab_out): {instead}"
        )


def check_next_token(model: Model, name: str, instead: str = _INSTEAD) -> None:
    """Raise NotDefined unless the model can be asked for next tokens, which `name` reads, and does not see them."""
    check_words(model, name, instead)
    if not is_causal(model):
        raise NotDefined(
            f"{name} reads how well next tokens are predicted, got a model that attends to them (bidirectional "
            f"attention): {instead}"
        )
