"""SHA256SUMS: the list of a folder's files and their hashes. A receipt covers the list, and so the files."""

from __future__ import annotations

import io
import os
from pathlib import Path

from veilset.core.errors import RunError
from veilset.core.io import read_capped, sha256, sha256_file, write_bytes
from veilset.core.pictures import PICTURES
from veilset.core.rendering import one_line

RECEIPT, STAMP, SIGNATURE, SUMS = "receipt.json", "NON-PRIVATE.json", "receipt.sig.json", "SHA256SUMS"
MOST_SUMS = 64 << 20  # bytes of the list that are read
LITTER = {".ds_store", "thumbs.db", "desktop.ini", ".directory"}  # what file managers leave, in small letters


def write_list(folder: Path) -> tuple[int, str]:
    """Write SHA256SUMS for all files of a folder, for `sha256sum -c` too; how many, and the hash of the list."""
    for cut in folder.glob(".*.partial"):  # a process was killed while it wrote a file, which is written anew
        cut.unlink()
    names = sorted(name for name, path in _files(folder).items() if not _litter(path))
    sums = "".join(f"{sha256_file(folder / n)}  {n}\n" for n in names).encode()
    write_bytes(folder / SUMS, sums)
    return len(names), sha256(sums)


def check_list(folder: Path, digest: str, notes: list[str]) -> str:
    """Check that every file is listed and unchanged, none is there that is not listed, and no release has a private/.

    Args:
        folder: without links inside.
        digest: hash of the list, from the receipt.
        notes: gets a line on each file that is skipped.

    Returns:
        What was seen.

    Raises:
        RunError: naming the first file that is wrong.
    """
    raw = read_capped(folder / SUMS, MOST_SUMS)
    if sha256(raw) != digest:
        raise RunError(f"{SUMS} is not the list that the receipt covers")
    listed = {}
    for line in io.StringIO(raw.decode(errors="replace"), newline="\n"):
        if line[64:66] != "  " or len(line) < 68:
            raise RunError(f"{SUMS} is not a list of hashes and names, as sha256sum writes it")
        listed[line[66:-1]] = line[:64]
    found = _files(folder)
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            raise RunError(f"{name} is missing")
        if name not in listed and _litter(found[name]):
            notes.append(one_line(f"{name} was left there by a file manager: skipped, the receipt does not cover it"))
        elif name not in listed:
            raise RunError(f"{name} is not covered by the receipt; move it elsewhere")
        elif sha256_file(found[name]) != listed[name]:
            raise RunError(f"{name} was changed")
    if os.path.lexists(folder / "private") and not listed.keys().isdisjoint(PICTURES):
        raise RunError("private/ lies in a release, which never has one: no receipt covers it; move it elsewhere")
    return f"{len(listed)} files unchanged"


def _files(folder: Path) -> dict[str, Path]:
    """Every file that the receipt must cover: all but the receipt, its signature, the list, and private/."""
    out = {}
    for p in sorted(folder.rglob("*")):
        name = p.relative_to(folder).as_posix()
        if p.is_file() and not name.startswith("private/") and name not in {RECEIPT, STAMP, SIGNATURE, SUMS}:
            out[name] = p
    return out


def _litter(path: Path) -> bool:
    return path.name.lower() in LITTER or path.name.startswith("._")
