"""IDX files, the format of MNIST: P-images-idx3-ubyte with P-labels-idx1-ubyte, plain or .gz; idx4 for colour."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data import declare
from veilset.data.columns import Extra, beside
from veilset.data.decode import Look
from veilset.data.faults import Faults, check_empty, check_labels, check_units, check_values
from veilset.data.formats.detect import Glimpse
from veilset.data.reading import Numbers, Reading
from veilset.data.records import Array, FileRecords, Spool, rows_per_chunk, small_ints
from veilset.privacy.private import Opened

IMAGES = re.compile(r"^(?P<prefix>.*?)-?images[-.]idx[34]-ubyte(\.gz)?$")
CUT = "restore the file from its origin"
INTO_ARRAY = "write the set as .npz with this as an array"
DTYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}


class IdxSource:
    """A training pair and perhaps a test pair (prefix t10k or test).

    Args:
        source: a folder, a prefix, or the images file itself.
        reading: whether images are transposed, and what is taken from a label.
    """

    uses: tuple[str, ...] = ("transpose", "label_offset")

    def __init__(self, source: Path, reading: Reading | None = None):
        self._source, self._reading = source, reading or Reading()
        self._pairs = _find_pairs(source)

    def has_test(self) -> bool:
        """Whether there is a second pair named t10k or test."""
        return "test" in self._pairs

    def extras(self) -> list[Extra]:
        """The other files in the folder, or of this prefix; the pairs hold nothing but pictures and labels."""
        used = [p.name for pair in self._pairs.values() for p in pair]
        folder, begins = (self._source, "") if self._source.is_dir() else (self._source.parent, self._source.name)
        if m := IMAGES.match(begins):
            begins = m["prefix"]
        own = declare.path_for(self._source).name
        return beside(folder, [*used, own], way=INTO_ARRAY, begins=begins)

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check one split; return it opened, or None if it cannot be."""
        images, labels = self._pairs[split]
        y, count, records = None, None, None
        with _damage(labels, faults):
            y = _read_labels(labels, faults)
        with _damage(images, faults):
            records, count = _scan_images(images, info, faults, keep, self._reading.transpose)
        if y is None or count is None:
            return None
        if len(y) != count:
            kind = "missing" if len(y) < count else "extra"
            faults.add(labels.name, f"{len(y)} labels for {count} images: labels are {kind}", CUT)
            return None
        y = check_labels(faults, Numbers(info.classes, self._reading), y, labels.name).clip(0)
        if split == "train":
            check_empty(faults, info, y)
            check_units(faults, info, count, None, images.name)
        return Opened(records, small_ints(y, len(info.classes))) if records else None

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: the class numbers, the shape and the count."""
        faults = Faults(self._source)
        images, labels = self._pairs["train"]
        head, y = None, None
        with _damage(images, faults), _stream(images) as f:
            head = _header(f, images, faults)
        with _damage(labels, faults):
            y = _read_labels(labels, faults)
        faults.raise_first()
        assert head is not None and y is not None
        if len(head) < 3:
            raise DataError(f"{images}: has {len(head)} axes: images have three or four")
        seen = np.unique(y).tolist() or [0]
        c, h, w = _chw(head[1:]) or (1, head[-2], head[-1])
        shape = (c, w, h) if self._reading.transpose else (c, h, w)
        return Glimpse(tuple(map(str, seen)), Look(shape), (0.0, 255.0), head[0])


def _find_pairs(source: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> (images, labels). Raises DataError when there is no training pair or more than one."""
    folder = source if source.is_dir() else source.parent
    wanted = "" if source.is_dir() else source.name
    one_file = IMAGES.match(source.name) if source.is_file() else None
    pairs: dict[str, tuple[Path, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        m = IMAGES.match(path.name)
        if not m or (path != source if one_file else not (m["prefix"] + "-").startswith(wanted and wanted + "-")):
            continue
        # A pair that is named outright is the training split, whatever it is called.
        named = one_file or m["prefix"] == wanted
        split = "test" if re.search(r"(^|[-_.])(t10k|test)$", m["prefix"]) and not named else "train"
        base = re.sub(r"images([-.])idx[34]-ubyte(\.gz)?$", r"labels\1idx1-ubyte", path.name)
        labels = next((p for p in (folder / base, folder / f"{base}.gz") if p.is_file()), None)
        if labels is None:
            raise DataError(f"{path}: labels are missing: there is no {base}[.gz] beside it; add it")
        if split in pairs:
            raise DataError(
                f"{source}: {pairs[split][0].name} and {path.name} are both the {split} split; name one by its prefix"
            )
        pairs[split] = (path, labels)
    if "train" not in pairs:
        raise DataError(f"{source}: no training pair *-images-idx3-ubyte[.gz] with *-labels-idx1-ubyte[.gz]; add it")
    return pairs


def _stream(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed where the name ends in .gz."""
    return io.BufferedReader(gzip.open(path)) if path.suffix == ".gz" else open(path, "rb")


@contextlib.contextmanager
def _damage(path: Path, faults: Faults) -> Iterator[None]:
    """Report a compressed stream that is cut, changed or followed by something else."""
    try:
        yield
    except EOFError:
        faults.add(path.name, "cut short: its compressed data ends early", CUT)
    except (zlib.error, gzip.BadGzipFile) as e:
        faults.add(path.name, f"its compressed data is damaged or has trailing bytes ({e})", CUT)


def _read(f: IO[bytes], n: int) -> bytes:
    """Up to n bytes, fewer at the end of the file; in pieces, so that a false header cannot ask for much memory."""
    parts = []
    while n > 0 and (part := f.read(min(n, 1 << 20))):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def _header(f: IO[bytes], path: Path, faults: Faults) -> tuple[int, ...] | None:
    """The axes of an IDX file of bytes, with the file placed behind its header; None after reporting a fault."""
    magic = _read(f, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= 4:
        faults.add(path.name, "not an IDX file (its first four bytes say so)", CUT)
        return None
    if magic[2] != 8:
        faults.add(
            path.name, f"wrong dtype {DTYPES[magic[2]]}", "IDX files must hold unsigned bytes; use .npz for others"
        )
        return None
    sizes = _read(f, 4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        faults.add(path.name, "cut short in its header", CUT)
        return None
    return struct.unpack(f">{magic[3]}I", sizes)


def _chw(axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Record axes as (C, H, W), or None where channels do not come first."""
    if len(axes) == 2:
        return (1, axes[0], axes[1])
    return (axes[0], axes[1], axes[2]) if len(axes) == 3 and axes[0] in (1, 3) else None


def _read_labels(path: Path, faults: Faults) -> Array | None:
    """Labels uint8 [n], or None after reporting a fault."""
    with _stream(path) as f:
        head = _header(f, path, faults)
        if head is None:
            return None
        if len(head) != 1:
            faults.add(path.name, f"has {len(head)} axes: labels have one", CUT)
            return None
        data = _read(f, head[0])
        if not _length(faults, path, f, len(data), head[0], "labels"):
            return None
    return np.frombuffer(data, np.uint8)


def _length(faults: Faults, path: Path, f: IO[bytes], got: int, said: int, what: str) -> bool:
    """Compare what was read with what the header said; report a cut or trailing bytes."""
    if got < said:
        faults.add(path.name, f"cut short: {got} of {said} {what}", CUT)
        return False
    if _read(f, 1):
        faults.add(path.name, f"has trailing bytes after its {said} {what}", CUT)
        return False
    return True


def _scan_images(path: Path, info: PublicInfo, faults: Faults, keep: bool, transpose: bool) -> tuple[Any, int | None]:
    """Check an images file: (records or None, count or None)."""
    with _stream(path) as f:
        head = _header(f, path, faults)
        if head is None:
            return None, None
        stored = _chw(head[1:])
        shape = (stored[0], stored[2], stored[1]) if stored and transpose else stored
        if stored is None or shape != info.shape:
            faults.add(
                path.name,
                f"images are {list(shape or head[1:])}, declared shape is {list(info.shape)}",
                "correct the declaration or the file",
            )
            return None, head[0]
        start = 4 + 4 * len(head)
        # A plain file is read in place; one that is compressed or transposed is written once to an unnamed file.
        in_place = path.suffix != ".gz" and not transpose
        spool = Spool(info.shape, np.uint8, keep and not in_place)
        size, done = info.pixels, 0
        step = rows_per_chunk(info.shape, 1)
        while done < head[0]:
            want = min(step, head[0] - done)
            data = _read(f, want * size)
            whole = len(data) // size
            rows = np.frombuffer(data, np.uint8, whole * size).reshape(whole, *stored)
            rows = rows.transpose(0, 1, 3, 2) if transpose else rows
            check_values(faults, info, rows, done, path.name)
            spool.append(rows)
            done += whole
            if whole < want:
                break
        if not _length(faults, path, f, done, head[0], "images"):
            return None, None
    if not keep:
        return None, head[0]
    if not in_place:
        return spool.records(), head[0]
    return FileRecords(open(path, "rb"), start, head[0], info.shape, np.dtype(np.uint8)), head[0]
