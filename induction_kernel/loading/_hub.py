"""Models by name from the Hugging Face hub, by TransformerLens itself.

`HookedTransformer.from_pretrained` for the names TransformerLens 3.x converts, and for every other
repository, and under 4.x, `TransformerBridge.boot_transformers` (`boot_tl_legacy` for TransformerLens' own
early models); all keywords are passed on. Local files are read in `_local`; `_failures` explains errors.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch

from ..errors import NotDefined, Refused
from ._build import has_hooked_transformer, quietly
from ._conversion import PROCESSING
from ._failures import explained
from ._names import EARLY, hub_spelling, official_names, unknown_name

__all__ = ["hub_checkpoints", "load_from_hub"]

# Listed by TransformerLens, but not decoders, so HookedTransformer is not their class.
_OTHER_KINDS = ("google-bert/", "google-t5/", "facebook/hubert", "facebook/wav2vec2")
# Tokens in a training batch: Biderman et al. 2023, section 2.1; 512 rows of 1024 tokens (Mistral's GPT-2).
_TOKENS_A_STEP = {"EleutherAI/pythia": 2**21, "stanford-crfm/": 2**19}


def load_from_hub(
    name: str,
    *,
    checkpoint: int | None = None,
    checkpoint_index: int | None = None,
    bridge: bool = False,
    **kwargs: Any,
) -> Any:
    """The model with this name on the hub, as TransformerLens loads it.

    Args:
        name: a name or alias TransformerLens knows, or any repository "owner/name", in any case.
        checkpoint: a training step (TransformerLens' `checkpoint_value`), for models that have them.
        checkpoint_index: instead, its place among the checkpoints, from the end if negative.
        bridge: make a TransformerBridge even if TransformerLens has HookedTransformer.
        kwargs: TransformerLens' own.

    Raises:
        Refused: a name that neither TransformerLens nor the hub knows, with the nearest ones; a checkpoint or revision
            that does not exist; a repository that runs its own code, without `trust_remote_code=True`.
        TypeError: keywords that TransformerLens does not take for this model.
        ConnectionError: the hub cannot be reached.
        PermissionError: a repository with a licence to accept first, or a private one.
    """
    official = official_names().get(name.lower())
    if official is None and "/" not in name:
        raise Refused(unknown_name(name))
    full = official or hub_spelling(name)
    boot = _door(full, official is not None, bridge)
    _refuse_unknown(boot, kwargs)
    if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(boot).parameters.values()):
        kwargs = {"trust_remote_code": False, **kwargs}  # without it, transformers would ask the user
    try:
        with (
            quietly(),
            _running_no_code(bool(kwargs.get("trust_remote_code"))),
            torch.random.fork_rng(devices=[]),
        ):
            chosen = _checkpoint(full, official is not None, checkpoint, checkpoint_index)
            model = boot(full, **chosen, **kwargs).eval()
    except Exception as error:
        better = explained(error, name, listed=official is not None)
        if better is None:
            raise
        raise better from error
    if chosen:  # neither the Bridge of 3.x nor a revision records it
        model.cfg.checkpoint_value = chosen.get("checkpoint_value", checkpoint)
    return model


def hub_checkpoints(name: str) -> tuple[str, dict[int, float]]:
    """The name as the hub spells it, and its training checkpoints: label -> tokens seen, NaN if unknown.

    The labels are TransformerLens': training steps, or tokens seen (some of TransformerLens' early models).

    Raises:
        NotDefined: a name without checkpoints that TransformerLens knows.
        ConnectionError: the list is on the hub (for early models), which cannot be reached.
    """
    official = official_names().get(name.lower())
    full = official or hub_spelling(name)
    pythia = full.startswith("EleutherAI/pythia")  # unlisted ones have the same steps
    if official is None and not pythia:
        raise NotDefined(
            f'TransformerLens knows no training checkpoints of "{name}": wanted "tiny", a folder that '
            "`induction-kernel train` wrote, or a name such as EleutherAI/pythia-70m"
        )
    try:
        with quietly():
            labels, kind = _labels("EleutherAI/pythia-70m" if official is None else full)
    except Exception as error:
        better = explained(error, name, listed=official is not None)
        if better is None:
            raise
        raise better from error
    batch = next((n for start, n in _TOKENS_A_STEP.items() if full.startswith(start)), float("nan"))
    return full, {label: float(label) * (1 if kind == "token" else batch) for label in labels}


def _door(name: str, listed: bool, bridge: bool) -> Callable[..., Any]:
    """The function of TransformerLens that loads the model of this name."""
    hooked = has_hooked_transformer() and not bridge and not name.startswith(_OTHER_KINDS)
    if hooked and listed:
        from transformer_lens import HookedTransformer

        return HookedTransformer.from_pretrained
    from transformer_lens.model_bridge import TransformerBridge

    if not name.startswith(EARLY):
        return TransformerBridge.boot_transformers
    legacy = getattr(TransformerBridge, "boot_tl_legacy", None)
    if legacy is None and listed:
        raise Refused(
            f'"{name}" is one of TransformerLens\' own early models, which TransformerLens 3.x loads only as '
            "HookedTransformers: leave bridge out, or use TransformerLens 4.x"
        )
    return legacy or TransformerBridge.boot_transformers


def _refuse_unknown(boot: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    known = inspect.signature(boot).parameters
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    if passes_on and "device_map" in kwargs:
        raise Refused(
            "device_map is for a TransformerBridge: pass bridge=True, or n_devices=, by which TransformerLens "
            "spreads a HookedTransformer"
        )
    unknown = [] if passes_on else sorted(set(kwargs) - set(known))
    if set(unknown) & set(PROCESSING):
        raise TypeError(
            f"{', '.join(unknown)}: only a HookedTransformer is processed on loading, and this model becomes a "
            "TransformerBridge; call its enable_compatibility_mode() instead"
        )
    if unknown:
        taken = ", ".join(name for name in known if not name.startswith(("checkpoint", "model_name")))
        raise TypeError(f"load() of this model takes no {', '.join(unknown)}; TransformerLens takes {taken}")


@contextlib.contextmanager
def _running_no_code(trusted: bool) -> Iterator[None]:
    """Inside, TransformerLens runs no repository's Python code, unless the user trusts it.

    For the names in this list it would do so without being asked.
    """
    if trusted or not has_hooked_transformer():
        yield
        return
    from transformer_lens import loading_from_pretrained as theirs

    names = theirs.NEED_REMOTE_CODE_MODELS
    theirs.NEED_REMOTE_CODE_MODELS = ()
    try:
        yield
    finally:
        theirs.NEED_REMOTE_CODE_MODELS = names


def _checkpoint(name: str, listed: bool, step: int | None, index: int | None) -> dict[str, Any]:
    """The keyword that selects this checkpoint in TransformerLens or on the hub; none for the trained model."""
    if step is None and index is None:
        return {}
    if not listed:
        if index is None and name.startswith("EleutherAI/pythia"):  # another run of it: same revisions
            return {"revision": f"step{step}"}
        raise Refused(
            f'TransformerLens knows no training checkpoints of "{name}"; if the repository keeps them as '
            'revisions, pass revision="..."'
        )
    steps = _steps(name)
    if index is not None:
        if not -len(steps) <= index < len(steps):
            raise Refused(f'checkpoint_index must be from 0 to {len(steps) - 1} for "{name}", got {index}')
        return {"checkpoint_value": steps[index]}
    if step not in steps:
        near = sorted(sorted(steps, key=lambda other: abs(other - (step or 0)))[:4])
        raise Refused(
            f'"{name}" has no checkpoint of step {step}: there are {len(steps)} from {steps[0]} to {steps[-1]}, '
            f"the nearest are {', '.join(map(str, near))}"
        )
    return {"checkpoint_value": step}


def _steps(name: str) -> list[int]:
    return _labels(name)[0]


def _labels(name: str) -> tuple[list[int], str]:
    """TransformerLens' labels of this model's checkpoints, ascending, and their kind: "step" or "token"."""
    where = "loading_from_pretrained" if has_hooked_transformer() else "tools.model_registry.checkpoints"
    try:
        labels, kind = import_module(f"transformer_lens.{where}").get_checkpoint_labels(name)
        return sorted(labels), kind
    except (ValueError, IndexError) as error:  # 3.x takes the last element of an empty list
        raise NotDefined(
            f'"{name}" has no training checkpoints that TransformerLens knows: leave checkpoint out'
        ) from error
