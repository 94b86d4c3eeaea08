"""Errors of TransformerLens, transformers and huggingface_hub, and what to do about them.

The whole chain of errors is searched for a cause: transformers raises its own OSError from the hub's error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from difflib import get_close_matches

from ..errors import Refused

__all__ = ["explained", "hub_spelling", "official_names", "unknown_name"]

_UNKNOWN_ARCHITECTURE = (
    "Could not determine supported architecture",
    "Unsupported architecture",
    "does not recognize this architecture",
)


def explained(error: Exception, name: str, *, listed: bool) -> Exception | None:
    """An error that says what to do; None if the given one is not of a known kind.

    Args:
        error: what loading the model of this name raised.
        name: as the user wrote it.
        listed: whether TransformerLens lists it.
    """
    from huggingface_hub import errors

    causes = list(_causes(error))

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any(_unreachable(cause) for cause in causes):
        return ConnectionError(_no_connection(name, listed))
    if any("custom code" in str(cause) for cause in causes):
        return Refused(
            f'"{name}" needs to run its own Python code, which is done only with trust_remote_code=True; read '
            f"it first, on https://huggingface.co/{hub_spelling(name)}"
        )
    if any_of(errors.GatedRepoError):
        return PermissionError(
            f'"{name}" is behind a licence: accept it on https://huggingface.co/{hub_spelling(name)}, then log '
            "in here with `hf auth login` (or set HF_TOKEN)"
        )
    if any_of(errors.RevisionNotFoundError):
        return Refused(f'"{name}" has no such revision on the hub: leave revision out, or check its branches')
    if any_of(errors.RepositoryNotFoundError, errors.HFValidationError):
        return Refused(f"{unknown_name(name)} (a private model needs `hf auth login`, or HF_TOKEN, first)")
    if any_of(errors.EntryNotFoundError):
        return Refused(
            f'"{name}" is on the hub, but is not a Hugging Face model folder: {_first_line(error)}. A GGUF file in '
            "it can be downloaded and loaded by its path"
        )
    if any(words in str(cause) for cause in causes for words in _UNKNOWN_ARCHITECTURE):
        return Refused(
            f'"{name}" has an architecture that the installed TransformerLens or transformers does not know'
        )
    return None


def official_names() -> dict[str, str]:
    """Every name and alias TransformerLens lists, in lower case -> the name on the hub."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    aliases = {alias.lower(): name for name, others in MODEL_ALIASES.items() for alias in others}
    return aliases | {name.lower(): name for name in OFFICIAL_MODEL_NAMES}


def hub_spelling(name: str) -> str:
    """The name with the hub's upper and lower case, by TransformerLens' register; unchanged if it is not in there."""
    return official_names().get(name.lower()) or _register().get(name.lower(), name)


def unknown_name(name: str) -> str:
    """The message for an unknown name, with the nearest known names."""
    names = official_names() | {"tiny": "tiny"}
    bare = [full for low, full in _register().items() if low.rpartition("/")[2] == name.lower()]
    near = [names[match] for match in get_close_matches(name.lower(), names, n=8, cutoff=0.5)]
    near = list(dict.fromkeys([*bare, *near]))[:5]
    hint = f"did you mean {', '.join(near)}?" if near else 'for example "gpt2" or "EleutherAI/pythia-70m"'
    return (
        f'no model "{name}": it is neither "tiny" (the embedded model), nor a local folder or GGUF file, nor '
        f"a name TransformerLens or the hub knows; {hint}"
    )


def _register() -> dict[str, str]:
    """The repositories whose architecture TransformerBridge knows, in lower case -> the hub's spelling."""
    from transformer_lens.tools.model_registry import api

    return {model.model_id.lower(): model.model_id for model in api.get_supported_models()}


def _unreachable(cause: BaseException) -> bool:
    import httpx
    from huggingface_hub import errors

    # LocalEntryNotFoundError: no connection, and not among the files downloaded before.
    kinds = (
        ConnectionError,
        TimeoutError,
        socket.gaierror,
        httpx.TransportError,
        errors.LocalEntryNotFoundError,
    )
    if isinstance(cause, kinds):  # OfflineModeIsEnabled is a ConnectionError
        return True
    if isinstance(cause, errors.HfHubHTTPError):
        return cause.response.status_code >= 500 or cause.response.status_code == 429
    return isinstance(cause, OSError) and "couldn't connect" in str(cause).lower()


def _no_connection(name: str, listed: bool) -> str:
    unsure = (
        ""
        if listed
        else f" TransformerLens does not list this name ({unknown_name(name).rpartition('; ')[2]})"
    )
    return (
        f'"{name}" is loaded from the Hugging Face hub, which cannot be reached from here (and no model folder or file '
        f"of that name is here).{unsure} Without "
        'a network, use load("tiny"), the embedded model, or load(path) of a Hugging Face folder or a '
        "GGUF file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
