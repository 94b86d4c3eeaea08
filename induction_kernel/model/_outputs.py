"""Whether a model's logits are over its own tokens, or over something else (a classifier's classes, sums, ...).

Metrics of next tokens and labels need logits over the model's tokens; those of next tokens also need causal attention.
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
    """The number of logits at a position."""
    check_model(model)
    return model.W_U.shape[-1]


def outputs_are_tokens(model: Model) -> bool:
    """Whether logits are over the input tokens; an embedding may have rows that are not in the vocabulary."""
    return n_outputs(model) in (sizes(model).d_vocab, len(model.W_E))


def check_words(model: Model, name: str, instead: str = _INSTEAD) -> None:
    """Raise NotDefined unless the model's logits are over its own tokens, which the metric or verb `name` reads.

    `instead` is the message's advice.
    """
    if not outputs_are_tokens(model):
        raise NotDefined(
            f"{name} reads logits of the prompts' own tokens, got a model of {sizes(model).d_vocab} tokens whose "
            f"{n_outputs(model)} outputs are not its tokens (d_vocab_out): {instead}"
        )


def check_next_token(model: Model, name: str, instead: str = _INSTEAD) -> None:
    """Raise NotDefined unless the model predicts next tokens, which `name` needs, without attending to them."""
    check_words(model, name, instead)
    if not is_causal(model):
        raise NotDefined(
            f"{name} reads how well next tokens are predicted, got a model that attends to them (bidirectional "
            f"attention): {instead}"
        )
