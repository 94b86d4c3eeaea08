"""Errors of TransformerLens, transformers and huggingface_hub, and what to do about them.

The whole chain of errors is searched for a cause: transformers raises its own OSError from the hub's error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from ..errors import Refused
from ._names import hub_spelling, unknown_name

__all__ = ["explained"]

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
