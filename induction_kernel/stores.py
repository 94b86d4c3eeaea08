"""Files written whole or not at all, and folders of results with which a call that was stopped goes on.

A file is made in memory, written beside its place, then renamed into it: what stands at a path stays there until the
new file is complete, also when the disk is full or the process is killed; of two processes that write to one path, the
later one wins. In a folder of results each result is a netCDF file that carries a mark, a string (`fingerprint`) that
says of what it is. Nothing here knows who computes, or in what order.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr

from .errors import Refused
from .formats import netcdf_of, read_json, read_netcdf

__all__ = [
    "checked_folder",
    "checked_target",
    "only_one",
    "read_result",
    "remove_unfinished",
    "result_folder",
    "write_result",
    "write_whole",
]

_WANTED = "wanted a file name in an existing folder that can be written to and has room"
_TRIES = 5
_FORMAT = 3  # of what stands in a folder of results


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> Path:
    """Write `content` (a text in UTF-8) to `path`, which an existing file keeps until all of it is written.

    What a killed process left unfinished of this file is removed.

    Raises:
        Refused: a path that cannot be written to, or a full disk; nothing is left but what was there.
    """
    target = _target(path)
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    remove_unfinished(target.parent, glob.escape(_short(target)))
    for attempt in range(_TRIES):
        try:
            _written(target, data)
            break
        except FileNotFoundError as error:  # another process took the unfinished file for a killed one's
            if attempt == _TRIES - 1 or not target.parent.is_dir():
                raise _refused(path, error) from error
        except OSError as error:
            raise _refused(path, error) from error
    return Path(path)


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path, after a trial: what cannot be written is refused before anything is computed.

    Raises:
        Refused: the folder does not exist or cannot be written to, a name that is none or too long, a path of a
            folder or a device.
    """
    target = _target(path)
    try:
        _part(target).unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error
    return Path(path)


def checked_folder(path: str | os.PathLike[str], *, parents: bool = False) -> Path:
    """The folder at `path`, made where it is not there, after a trial of writing into it.

    With `parents` the folders above it too.

    Raises:
        Refused: a file, a name that is none or too long, no folder above it, a folder that cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
        _part(folder / "trial").unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "it is a file" if is_file else getattr(error, "strerror", None) or str(error)
        above = "" if parents else ", in an existing one"
        raise Refused(
            f"wanted a folder, new or of an earlier run{above}, that can be written to, got {_named(path)} ({why})"
        ) from error
    return folder


def result_folder(path: str | os.PathLike[str], mark: str, *, kind: str, differs: str) -> Path:
    """The folder of the results with this mark: new, or of an earlier call that was stopped.

    What a killed call left unfinished is removed. Several processes may share the folder: what both compute, both write
    alike.

    Args:
        path: of the folder, in an existing one.
        mark: says of what the results are; it stands in the folder's file `<kind>.json`.
        kind: what they make up together ("sweep").
        differs: in what two of that kind may differ, for errors ("measures or options").

    Raises:
        Refused: as `checked_folder`; a folder with other files, or with other results.
    """
    folder, label = checked_folder(path).absolute(), f"{kind}.json"
    said = {"format": _FORMAT, "fingerprint": mark}
    names = [file.name for file in folder.iterdir()]
    if label not in names:
        # One listing: where another process has begun meanwhile, the label comes before its results.
        if any(not name.startswith(".") for name in names):
            raise Refused(f"{str(path)!r} holds other files: give a new folder")
        write_whole(folder / label, json.dumps(said))
    if read_json(folder / label) != said:
        raise Refused(
            f"{str(path)!r} holds another {kind} (other {differs}): give another folder, or delete this one"
        )
    remove_unfinished(folder)
    return folder


def write_result(path: Path, result: xr.Dataset, mark: str) -> None:
    """Keep a result under its mark, the folder's or one of its own."""
    write_whole(path, netcdf_of(result.assign_attrs(fingerprint=mark)))


def read_result(path: Path, mark: str) -> xr.Dataset | None:
    """The result that was kept; None where there is none.

    Raises:
        Refused: one with another mark, or a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        found = read_netcdf(path)
    except Refused as error:
        raise Refused(
            f"{str(path)!r} is damaged: delete it, and it is computed anew ({error.__cause__})"
        ) from error
    if found.attrs.pop("fingerprint", None) != mark:
        raise Refused(
            f"{str(path)!r} is of another source (other prompts, recipe, seed or log): delete it, and it is computed "
            "anew, or give another folder"
        )
    return found


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left unfinished in a folder, but not what another is still writing."""
    for part in folder.glob(f".{name}.????????.part"):
        with suppress(OSError), part.open("rb") as file:
            if _locked(file.fileno()):
                part.unlink()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Inside, no other process and no other thread enters with this folder; the system ends it with the process.

    Where the system or the file system has no such locks, nothing is refused.

    Raises:
        Refused: another one is inside.
    """
    if os.name == "nt":  # a folder cannot be opened there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle):
            raise Refused(
                f"another process is writing to {str(folder)!r}: wait until it has ended, or give another folder"
            )
        yield
    finally:
        os.close(handle)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means, through links, in a folder that exists."""
    try:
        target = Path(os.path.realpath(path))
        if _is_file_or_nothing(target) and target.parent.is_dir():
            return target
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    raise Refused(f"cannot write {_named(path)}: {_WANTED}")


def _is_file_or_nothing(target: Path) -> bool:
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return True


def _locked(handle: int) -> bool:
    """Whether nobody else has locked this open file; now it is locked until it is closed, where there are locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, file systems of a network
        return True
    return True


def _written(target: Path, data: bytes | memoryview) -> None:
    handle, name = _made(target)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _locked(handle)  # until it has its name: else others would take it for a killed process's
            file.write(data)
            file.flush()
            os.fsync(handle)  # some disks say only now that they are full
            part.chmod(0o644)
            if os.name != "nt":  # where an open file cannot be renamed, and there are no locks
                part.replace(target)
        if os.name == "nt":
            part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    """A new empty file beside the target."""
    handle, name = _made(target)
    os.close(handle)
    return Path(name)


def _made(target: Path) -> tuple[int, str]:
    return tempfile.mkstemp(dir=target.parent, prefix=f".{_short(target)}.", suffix=".part")


def _short(target: Path) -> str:
    return target.name[:40]  # a name may have 255 bytes in all


def _refused(path: Any, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or str(error)
    return Refused(f"cannot write {_named(path)}: {_WANTED}, got: {why}")


def _named(path: Any) -> str:
    text = str(path)
    return repr(text if len(text) < 200 else f"{text[:100]}...{text[-60:]}")
