"""`build`: a TransformerLens model made of plain tensors, under both major versions.

TransformerLens 3.x gives a `HookedTransformer` (unless a `TransformerBridge` is asked for), 4.x has only the
Bridge; both compute the same logits. It reads no files: see `_embedded`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from ..errors import OUT_OF_MEMORY, Refused
from ..model._runs import is_out_of_memory
from ._parameters import BUFFERS, bridge_parameter, checked_architecture, checked_weights

__all__ = ["build", "has_hooked_transformer", "quietly", "self_contained"]


def build(
    architecture: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    tokenizer: Any = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str = "custom",
    bridge: bool = False,
) -> Any:
    """A TransformerLens model in evaluation mode with the given weights; the same logits under 3.x and 4.x.

    The global random state is not changed, and the weights are copied.

    Args:
        architecture: by TransformerLens' names; `n_layers`, `d_model`, `n_heads`, `d_head`, `n_ctx` and
            `d_vocab` are needed. Rotary embeddings rotate adjacent pairs of dimensions. With `smeared_keys` the weights
            also have `blocks.0.attn.smear` `[head]`, and the model has permanent hooks on its keys.
        weights: parameter name of a `HookedTransformer` -> tensor, such as `blocks.0.attn.W_Q`
            `[head, d_model, d_head]`. Missing biases are zeros.
        tokenizer: a Hugging Face tokenizer; it may exist only in memory.
        device: of the parameters.
        dtype: of the parameters.
        name: becomes `cfg.model_name`.
        bridge: make a `TransformerBridge` even if TransformerLens has `HookedTransformer`.

    Raises:
        Refused: an architecture or weights that are incomplete, unknown, of the wrong shape or not finite.
        MemoryError: a model that does not fit in memory.
    """
    settings = checked_architecture(architecture)
    full = checked_weights(settings, weights, dtype)
    smear = {key: full.pop(key) for key in list(full) if key.endswith(".smear")}
    del settings["smeared_keys"]
    settings = {
        key: value for key, value in settings.items() if value is not None or key == "normalization_type"
    }
    tokenizer = None if tokenizer is None else self_contained(tokenizer)
    make = _hooked if has_hooked_transformer() and not bridge else _bridge
    try:
        with quietly(), torch.random.fork_rng(devices=[]):  # creating torch's layers draws random numbers
            model = make(settings, full, tokenizer, torch.device(device), dtype, name).eval()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"{OUT_OF_MEMORY} a model of this architecture: n_ctx is {settings['n_ctx']}"
        ) from error
    for key, strength in smear.items():
        model.add_hook(key.removesuffix("smear") + "hook_k", SmearedKeys(strength), is_permanent=True)
    return model


@dataclass(frozen=True, eq=False)
class SmearedKeys:
    """A permanent hook that smears keys (Olsson et al. 2022), which no TransformerLens configuration does.

    k_j := s(a_h) k_j + (1 - s(a_h)) k_(j-1), the first key unchanged.

    Attributes:
        smear: a, by head.
    """

    smear: Tensor

    def __call__(self, k: Tensor, hook: Any) -> Tensor:
        """Keys `[row, position, head, d_head]`, each mixed with the one before it."""
        own = self.smear.sigmoid().to(k)[:, None]
        return own * k + (1 - own) * torch.cat([k[:, :1], k[:, :-1]], 1)


def has_hooked_transformer() -> bool:
    """Whether this TransformerLens still has `HookedTransformer` (3.x; 4.x raises for the name)."""
    try:
        from transformer_lens import HookedTransformer  # noqa: F401  # imported only to see if it exists
    except ImportError:
        return False
    return True


_QUIET = RLock()  # what is restored afterwards belongs to the process, not to a thread


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No prints and no deprecation warnings of HookedTransformer inside; logging is restored afterwards.

    Only one thread enters at a time, so that other things restored inside, such as the global random state, do not
    interleave.
    """
    with _QUIET:
        root, theirs = logging.getLogger(), logging.getLogger("transformers")
        handlers, level = list(root.handlers), theirs.level
        theirs.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.filterwarnings(
                    "ignore", message=r"HookedTransformer.* is deprecated", category=DeprecationWarning
                )
                yield
        finally:
            root.handlers[:] = handlers  # `logging.warning` installs one if there was none
            theirs.setLevel(level)


def self_contained(tokenizer: Any) -> Any:
    """A copy that adds the beginning-of-sequence token itself.

    TransformerLens would read such a copy from the tokenizer's `name_or_path`, which may not exist (in memory), have
    another format (GGUF) or be a name on the hub. A tokenizer that already adds the token is used as it is.
    """
    from transformers import AutoTokenizer

    if tokenizer.bos_token is None:
        return tokenizer
    with tempfile.TemporaryDirectory() as folder, quietly():
        tokenizer.save_pretrained(folder)
        try:
            copy = AutoTokenizer.from_pretrained(
                folder, add_bos_token=True, local_files_only=True, trust_remote_code=False
            )
        except ValueError:  # the rule that adds tokens cannot express a few special tokens
            return tokenizer
    copy.padding_side = tokenizer.padding_side
    copy.name_or_path = copy.init_kwargs["name_or_path"] = tokenizer.name_or_path
    return copy


def _hooked(
    settings: dict[str, Any],
    weights: dict[str, Tensor],
    tokenizer: Any,
    device: torch.device,
    dtype: torch.dtype,
    name: str,
) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    # No seed: a config's seed reseeds torch, numpy and random for the whole process.
    options: dict[str, Any] = {**settings, "rotary_adjacent_pairs": "rotary_dim" in settings}
    cfg = HookedTransformerConfig(
        **options, device=str(device), dtype=dtype, model_name=name, init_weights=False
    )
    model = HookedTransformer(cfg, tokenizer=tokenizer)
    kept = {key: value for key, value in model.state_dict().items() if key.endswith(BUFFERS)}
    model.load_state_dict(kept | weights, strict=True)
    return model


def _bridge(
    settings: dict[str, Any],
    weights: dict[str, Tensor],
    tokenizer: Any,
    device: torch.device,
    dtype: torch.dtype,
    name: str,
) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_native(
        dict(settings), tokenizer=tokenizer, device=device, dtype=dtype, model_name=name
    )
    converted = dict(bridge_parameter(key, value) for key, value in weights.items())
    expected = model.state_dict()
    for key in [key for key in converted if key not in expected]:
        if converted[key].any():
            raise Refused(f"TransformerBridge has no parameter for {key}, and it is not zero")
        del converted[key]
    model.load_state_dict(converted, strict=True)
    return model
