"""What a model's name or path means, known before anything is loaded: embedded, a folder, a file, or a name on the hub.

Nothing but Python's own library is imported here, so that a mistyped name is refused at once. TransformerLens' lists of
names are read off its files, since importing it takes longer than all else that a refusal needs.
"""

from __future__ import annotations

import ast
import json
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import Refused

__all__ = [
    "EARLY",
    "TINY",
    "as_path",
    "hub_spelling",
    "is_embedded",
    "official_names",
    "unknown_name",
    "where_of",
]

TINY = Path(__file__).parent.parent / "assets" / "tiny"
# TransformerLens' own models: their weights are not in Hugging Face's format.
EARLY = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


def as_path(name_or_path: str | Path) -> Path | None:
    """The path that is meant; None for a name on the hub.

    Raises:
        Refused: an empty string, a path that cannot be one, a path where nothing is.
    """
    text = str(name_or_path)
    if not text.strip():
        raise Refused('wanted a model\'s name or path, got an empty string; "tiny" is the embedded model')
    path = Path(text)
    try:
        path = path.expanduser()
        path.stat()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, no such user's home
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            why = getattr(error, "strerror", None) or str(error)
            raise Refused(f"wanted a model's name or path, got {text!r:.100}: {why}") from error
    if path.is_file() or (path / "config.json").is_file() or is_embedded(path):
        return path
    looks_like_path = isinstance(name_or_path, Path) or text.startswith((".", "~")) or path.is_absolute()
    if not looks_like_path and path.suffix.lower() not in (".gguf", ".safetensors", ".bin", ".pt"):
        return None
    if not path.exists():
        raise Refused(
            f"{path} does not exist: wanted a Hugging Face folder or a GGUF file (or a model's name)"
        )
    return path


def is_embedded(folder: Path) -> bool:
    """Whether `folder` is meant to hold a model in the embedded format."""
    return (folder / "recipe.json").exists()


def where_of(path: Path) -> dict[str, Any]:
    """The arguments with which transformers' `from_pretrained` finds the model of a folder or GGUF file.

    Raises:
        Refused: a folder without configuration, a file that is no GGUF file.
        ImportError: a GGUF file without the package that reads it.
    """
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise Refused(f"{path} is a file: wanted a Hugging Face folder or a .gguf file")
        if find_spec("gguf") is None:
            raise ImportError(
                'reading a GGUF file needs one more package: pip install "induction-kernel[gguf]"'
            )
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise Refused(f"{path} is not a GGUF file: its first four bytes are not GGUF")
        return {
            "pretrained_model_name_or_path": str(path.parent),
            "gguf_file": path.name,
            "local_files_only": True,
        }
    if not (path / "config.json").is_file():
        inside = sorted(file.name for file in path.glob("*.gguf"))
        hint = f"; it holds {inside[0]}: pass the path of that file" if inside else ""
        raise Refused(f"{path} has no config.json, so it is not a Hugging Face model folder{hint}")
    return {"pretrained_model_name_or_path": str(path), "local_files_only": True}


def official_names() -> dict[str, str]:
    """Every name and alias TransformerLens lists, in lower case -> the name on the hub."""
    listed, others = _listed()
    aliases = {alias.lower(): name for name, each in others.items() for alias in each}
    return aliases | {name.lower(): name for name in listed}


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
    try:
        models = [each["model_id"] for each in _data("supported_models")["models"]]
    except (OSError, ValueError, KeyError, TypeError):  # kept otherwise by this version
        from transformer_lens.tools.model_registry import api

        models = [each.model_id for each in api.get_supported_models()]
    return {name.lower(): name for name in models}


def _listed() -> tuple[list[str], dict[str, list[str]]]:
    """The names that TransformerLens lists, and the aliases of each."""
    try:
        tree = ast.parse((_transformer_lens() / "supported_models.py").read_text(encoding="utf-8"))
        said = {
            each.target.id: each.value
            for each in tree.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value
        }
        names, aliases = ast.literal_eval(said["OFFICIAL_MODEL_NAMES"]), said["MODEL_ALIASES"]
        in_code = isinstance(aliases, ast.Dict)  # 3.x; 4.x keeps them in a file
        return names, ast.literal_eval(aliases) if in_code else _data("model_aliases")["aliases"]
    except (OSError, ValueError, KeyError, TypeError, SyntaxError):  # kept otherwise by this version
        from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

        return OFFICIAL_MODEL_NAMES, MODEL_ALIASES


def _data(name: str) -> dict[str, Any]:
    path = _transformer_lens() / "tools" / "model_registry" / "data" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _transformer_lens() -> Path:
    """The folder of TransformerLens, which is not imported to find it."""
    found = find_spec("transformer_lens")
    return Path(next(iter(found.submodule_search_locations or [])) if found else "")
