"""A model's name or path looked up before anything is loaded, so that a mistyped one is refused within seconds.

Neither torch nor TransformerLens is imported. A name on the hub is asked for there, by its configuration, which loading
needs too; that the weights are complete is seen when they are loaded.
"""

from __future__ import annotations

from ..errors import Refused
from ._failures import explained
from ._names import EARLY, as_path, hub_spelling, is_embedded, official_names, unknown_name, where_of

__all__ = ["check_source"]


def check_source(source: str) -> None:
    """Raise what `load` would for a name or path at which there is no model.

    Args:
        source: as in `load`.

    Raises:
        Refused: no such path or name, with the nearest names; a folder or file that is no model.
        ImportError: a GGUF file without the package that reads it.
        ConnectionError: a name on the hub, without a connection to it, that was not fetched before.
        PermissionError: a name on the hub whose licence must be accepted first.
    """
    path = None if source == "tiny" else as_path(source)
    if path is not None:
        if not is_embedded(path):
            where_of(path)
    elif source != "tiny":
        _check_on_hub(source)


def _check_on_hub(name: str) -> None:
    official = official_names().get(name.lower())
    if official is None and "/" not in name:
        raise Refused(unknown_name(name))
    full = official or hub_spelling(name)
    if full.startswith(EARLY):
        return  # has no configuration in Hugging Face's format
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(full, "config.json")
    except Exception as error:
        better = explained(error, name, listed=official is not None)
        # What TransformerLens lists it may load otherwise, but not without the hub, or past a licence.
        if better is not None and (official is None or not isinstance(better, Refused)):
            raise better from error
