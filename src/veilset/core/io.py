"""Files that are whole or absent: atomic writes, new folders, canonical JSON, hashes, locks.

What is read may come from a stranger: sizes and depths have limits, and a link inside a folder is never followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veilset.core.errors import RunError

MOST_JSON = 8 << 20  # bytes of a receipt, declaration, file of figures; real ones have a few kB
MOST_DEPTH = 64  # lists and objects within each other; real files stay below ten
MOST_FILES = 4_000_000  # files of a folder that are looked at


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


def no_links(folder: Path) -> Path:
    """The folder itself, with links in its own name followed once; refuses links and special files inside.

    A link inside could lead a writer out of the folder, and would let a file that is elsewhere count as one of it.

    Raises:
        RunError: naming the first that is neither a file nor a folder; or there are too many.
    """
    home = Path(os.path.realpath(folder))
    todo, seen = [str(home)], 0
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    what = "a link" if entry.is_symlink() else "neither a file nor a folder"
                    name = os.path.relpath(entry.path, home)
                    raise RunError(f"{name} is {what}: nothing in this folder may lead elsewhere; put a copy there")
        if seen > MOST_FILES:
            raise RunError(f"more than {MOST_FILES} files: that is no folder of veilset")
    return home


def private_part(folder: Path) -> Path | None:
    """The private/ of a run, to write what its owner alone may see; None where there is none.

    Raises:
        RunError: a link lies in the folder, so what is written could land elsewhere.
    """
    home = Path(folder)
    return no_links(home) / "private" if os.path.lexists(home / "private") else None


def read_capped(path: Path, most: int) -> bytes:
    """The bytes of a file that may be a stranger's, which is looked at before it is read.

    Raises:
        RunError: it is absent, a link, no ordinary file, or larger than `most` bytes.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a link or a special file"
            raise RunError(f"{path}: is {what}, and must be an ordinary file; put a copy there")
        if found.st_size > most:
            raise RunError(f"{path}: {found.st_size} bytes, at most {most} are read; it is no file that veilset wrote")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path}: no such file; is this a veilset folder?") from None


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
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
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


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """Read JSON of at most `most` bytes that may be a stranger's, or raise RunError naming the file."""
    try:
        return parse_json(read_capped(path, most))
    except ValueError as e:
        raise RunError(f"{path}: not valid JSON ({e})") from None


def parse_json(data: bytes) -> Any:
    """JSON from a stranger.

    Raises:
        ValueError: it is none, is nested deeper than MOST_DEPTH, or a number in it has thousands of digits.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
    if level:
        raise ValueError("nested too deeply")
    return value


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
        RunError: another process holds it, or the disk has no locks; an empty file goes then.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        if e.errno != errno.ELOOP:
            raise
        raise RunError(f"{path}: is a link, and nothing may lead elsewhere from there; remove it") from e
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RunError(f"{what} is in use by another process; wait for it or choose another folder") from None
        except OSError as e:
            if not path.stat().st_size:
                path.unlink()
            raise RunError(f"{what}: its disk gives no locks ({e.strerror}); choose a folder on another disk") from None
        yield
    finally:
        os.close(fd)
