"""Ways in which a disk, a folder or a file is not what it should be."""

import errno
import os
import resource
import tempfile
from contextlib import contextmanager

LONG = "a" * 300
FULL = 1 << 16


@contextmanager
def full_disk(most=FULL):
    """Inside, no file can grow beyond `most` bytes: writing on fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def read_only(monkeypatch):
    """No file can be made; for the administrator the rights of a folder would not say so."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)


def bad_targets(tmp_path):
    """Name -> path of a file that cannot be written."""
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe.html")
    return {
        "no folder": tmp_path / "nowhere" / "a.html",
        "a folder": tmp_path / "folder.html",
        "in a file": tmp_path / "file" / "a.html",
        "null byte": tmp_path / "a\0b.html",
        "too long": tmp_path / f"{LONG}.html",
        "a pipe": tmp_path / "pipe.html",
    }


def bad_folders(tmp_path):
    """Name -> path of a folder that cannot be made."""
    (tmp_path / "taken").write_text("")
    return {
        "a file": tmp_path / "taken",
        "in a file": tmp_path / "taken" / "sub",
        "null byte": tmp_path / "a\0b",
        "too long": tmp_path / LONG,
    }


def everything(folder):
    """Path in the folder -> content, of all files."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
