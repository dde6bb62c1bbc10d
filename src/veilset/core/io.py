"""Files that are whole or absent: atomic writes, new folders, canonical JSON, hashes, locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veilset.core.errors import RunError


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, and no NaN or infinity: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in this folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    tmp = path.with_name(f".{path.name}.partial")
    try:
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
        sync_folder(path.parent)
    except OSError as e:
        tmp.unlink(missing_ok=True)
        raise RunError(f"cannot write {path.name}: {e.strerror}; free some space or choose another folder") from e


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write readable JSON atomically."""
    write_bytes(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n", mode)


def read_json(path: Path) -> Any:
    """Read JSON, or raise RunError naming the file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; is this a veilset folder?") from None
    except ValueError as e:
        raise RunError(f"{path}: not valid JSON ({e})") from None


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a hidden sibling folder that becomes `folder` on success and vanishes on failure.

    Raises:
        RunError: `folder` exists, or its parent cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise RunError(f"{folder} exists; choose another folder or remove it")
    tmp = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tmp.mkdir()
        yield tmp
        os.rename(tmp, folder)
        sync_folder(folder.parent)
    except OSError as e:
        raise RunError(f"cannot write {folder}: {e.strerror}; nothing was left behind") from e
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


@contextlib.contextmanager
def lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock file; the system drops it when the process dies, however it dies.

    Args:
        path: the file, made if it is not there.
        what: names it in the message.
        wait: wait for another process instead of refusing.

    Raises:
        RunError: another process holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise RunError(f"{what} is in use by another process; wait for it or choose another folder") from None
        yield
    finally:
        os.close(fd)
