"""Files written completely or not at all, and folders of results from which an interrupted call can be resumed.

A file is made in memory, written beside its target, then renamed to it: an existing file stays until the new one is
complete, even if the disk is full or the process is killed. If two processes write to one path, the later one wins. In
a folder of results each result is a netCDF file that carries a mark, a string (`fingerprint`) that says what it was
computed from. Nothing is computed here; formats are in `formats`.
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
from typing import TYPE_CHECKING, Any

from .errors import Refused
from .formats import netcdf_of, read_json, read_netcdf

if TYPE_CHECKING:  # the command line checks where it will write before it imports this
    import xarray as xr

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

_WANTED = "wanted a file name in an existing folder that can be written to and has space"
_TRIES = 5
_FORMAT = 3  # format number of folders of results


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> Path:
    """Write `content` (bytes, or text in UTF-8) to `path`, completely or not at all; returns the path.

    An existing file stays until all is written. Unfinished files that killed processes left of it are removed.

    Raises:
        Refused: a path that cannot be written to, or a full disk; the folder is then as it was before.
    """
    target = _target(path)
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    remove_unfinished(target.parent, glob.escape(_short(target)))
    for attempt in range(_TRIES):
        try:
            _written(target, data)
            break
        except (
            FileNotFoundError
        ) as error:  # another process took the unfinished file for that of a killed one
            if attempt == _TRIES - 1 or not target.parent.is_dir():
                raise _refused(path, error) from error
        except OSError as error:
            raise _refused(path, error) from error
    return Path(path)


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path, after a trial of writing beside it: so it can be refused before anything is computed.

    Raises:
        Refused: a folder that does not exist or cannot be written to, an empty or too long name, a path that is a
            folder or a device.
    """
    target = _target(path)
    try:
        _part(target).unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error
    return Path(path)


def checked_folder(path: str | os.PathLike[str], *, parents: bool = False) -> Path:
    """The folder at `path`, made if it does not exist, after a trial of writing into it.

    Args:
        path: of the folder.
        parents: whether to make the folders above it too.

    Raises:
        Refused: a file, an empty or too long name, no folder above it, a folder that cannot be written to.
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
    """The folder of results with this mark: a new one, or that of an earlier call that was interrupted.

    Unfinished files of killed processes are removed. Several processes may share the folder: results that two of them
    compute are the same, so either may write them.

    Args:
        path: of the folder, in an existing folder.
        mark: says what the results are computed from; it is kept in the folder's file `<kind>.json`.
        kind: what the results are together ("sweep").
        differs: how two of that kind may differ, for error messages ("measures or options").

    Raises:
        Refused: as in `checked_folder`; a folder with other files or other results.
    """
    folder, label = checked_folder(path).absolute(), f"{kind}.json"
    said = {"format": _FORMAT, "fingerprint": mark}
    names = [file.name for file in folder.iterdir()]
    if label not in names:
        # From one listing: another process that starts meanwhile writes the label before any result.
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
    """Write a result to a netCDF file with its mark: that of the folder, or one of its own."""
    write_whole(path, netcdf_of(result.assign_attrs(fingerprint=mark)))


def read_result(path: Path, mark: str) -> xr.Dataset | None:
    """The result in a netCDF file that `write_result` wrote with this mark; None if there is no file.

    Raises:
        Refused: a result with another mark, or a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        found = read_netcdf(path)
    except Refused as error:
        raise Refused(
            f"{str(path)!r} is damaged: delete it, and it is computed again ({error.__cause__})"
        ) from error
    if found.attrs.pop("fingerprint", None) != mark:
        raise Refused(
            f"{str(path)!r} is of another source (other prompts, recipe, seed or log): delete it, and it is computed "
            "again, or give another folder"
        )
    return found


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove the unfinished files (of one name, a glob pattern) that killed processes left in a folder."""
    for part in folder.glob(f".{name}.????????.part"):
        with suppress(OSError), part.open("rb") as file:
            if _locked(file.fileno()):
                part.unlink()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock a folder: inside the `with` block no other process or thread can lock it too.

    The lock ends with the process. On systems and file systems without such locks, nothing is locked or refused.

    Raises:
        Refused: another process or thread holds the lock.
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
    """The file that `path` means, with links followed; Refused if it cannot be one."""
    try:
        target = Path(os.path.realpath(path))
        if _is_file_or_nothing(target):
            return target
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    raise Refused(f"cannot write {_named(path)}: {_WANTED}")


def _is_file_or_nothing(target: Path) -> bool:
    """Whether the path is free or that of a regular file."""
    try:
        return stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return True


def _locked(handle: int) -> bool:
    """Lock an open file until it is closed; False if another process or thread has locked it.

    True as well if the system or the file system has no such locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, network file systems
        return True
    return True


def _written(target: Path, data: bytes | memoryview) -> None:
    """Write the data to an unfinished file beside the target, and rename it to the target."""
    handle, name = _made(target)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _locked(handle)  # until it is renamed: others would take it for that of a killed process
            file.write(data)
            file.flush()
            os.fsync(handle)  # some disks report only here that they are full
            part.chmod(0o644)
            if os.name != "nt":  # there, open files cannot be renamed, and there are no locks
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
    """A new unfinished file beside the target: its open handle and its path."""
    return tempfile.mkstemp(dir=target.parent, prefix=f".{_short(target)}.", suffix=".part")


def _short(target: Path) -> str:
    """The beginning of the target's name, for unfinished files; names are limited to 255 bytes."""
    return target.name[:40]


def _refused(path: Any, error: Exception) -> Refused:
    """The error of a path that cannot be written to, with the system's reason."""
    why = getattr(error, "strerror", None) or str(error)
    return Refused(f"cannot write {_named(path)}: {_WANTED}, got: {why}")


def _named(path: Any) -> str:
    """A path for an error message; the middle of a very long one is left out."""
    text = str(path)
    return repr(text if len(text) < 200 else f"{text[:100]}...{text[-60:]}")
