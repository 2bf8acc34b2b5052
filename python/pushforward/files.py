# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced whole: whoever reads one, whenever, finds the old or the new contents."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix: one writer at a time is then the caller's to keep
    fcntl = None  # type: ignore[assignment]

__all__ = ["FULL", "check_writable", "locked", "sync_folder", "write_atomically"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the system's errors that mean that no more may be written."""


def write_atomically(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Replace the contents of ``path``, or leave them as they are.

    They go to ``.<name>.part`` in the same folder, which is synchronised and renamed. A process
    that is killed on the way leaves that file behind; nobody reads it, and the next write of the
    same path takes it over.

    Args:
        path: the file; a symbolic link is followed, and stays one.
        parts: the contents, one after the other.

    Raises:
        BlockingIOError: somebody else is writing the same path.
        OSError: the folder or the disk refuses; the old contents are then kept.

    """
    path, temporary = _names(path)
    with _owned(temporary) as handle:
        try:
            os.ftruncate(handle, 0)
            for part in parts:
                _write_all(handle, part)
            os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Raise now if :func:`write_atomically` could not begin to write ``path``.

    Raises:
        BlockingIOError: somebody else is writing the same path.
        OSError: the folder refuses.

    """
    path, temporary = _names(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _owned(temporary):
        os.unlink(temporary)


def _names(path: Path) -> tuple[Path, Path]:
    """Return where a file lies, past symbolic links, and where its next contents are written."""
    path = Path(os.path.realpath(path))
    return path, path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def _owned(temporary: Path) -> Iterator[int]:
    """Open a file that nobody else writes; whoever held it may have renamed it meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        handle = os.open(temporary, flags, 0o666)
        try:
            locked(handle)
            if _is_at(handle, temporary):
                yield handle
                return
        finally:
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def locked(handle: int) -> None:
    """Lock an open file or folder until it is closed.

    Raises:
        BlockingIOError: somebody else holds it.

    """
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another run is writing it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise  # those three: a file system without locks


def _write_all(handle: int, part: bytes | memoryview) -> None:
    view = memoryview(part).cast("B")
    while len(view):
        view = view[os.write(handle, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
