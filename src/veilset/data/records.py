"""Where pixels lie on disk and how they are read: positioned reads into the caller's buffer, never a mapped file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from veilset.core.errors import DataError

Array = np.ndarray[Any, Any]
CHUNK_BYTES = 4 << 20  # what a reader holds of the pixels at a time


class FileRecords:
    """Records of one shape and dtype, one after another in a file (veilset.privacy.private.Records).

    Mapped pages would count as this process's memory; bytes that are read into a reused buffer do not pile up.
    The file object is held open here, so an unnamed temporary file lives exactly as long as its records.

    Args:
        file: an open binary file, on disk.
        start: byte offset of record 0.
        count: number of records.
        shape: (channels, height, width) of one record.
        dtype: dtype of the stored values.
    """

    def __init__(self, file: IO[bytes], start: int, count: int, shape: tuple[int, int, int], dtype: np.dtype[Any]):
        self._file, self._start, self.count, self._shape, self.dtype = file, start, count, tuple(shape), np.dtype(dtype)
        self._size = int(np.prod(shape)) * self.dtype.itemsize

    def read(self, index: Array, out: Array) -> None:
        """Fill out [n, C, H, W] with the records index [n] (int64, ascending); neighbours are read together.

        Raises:
            DataError: the file became shorter since it was checked.
            IndexError: an index lies outside 0..count-1.
        """
        index = np.asarray(index, dtype=np.int64)
        if out.shape != (len(index), *self._shape):
            raise ValueError(f"out has shape {out.shape}: must be {(len(index), *self._shape)}")
        if not len(index):
            return
        if int(index.min()) < 0 or int(index.max()) >= self.count:
            raise IndexError(f"a record index lies outside 0..{self.count - 1}")
        if out.dtype != self.dtype or not out.flags.c_contiguous:
            buffer = np.empty(out.shape, self.dtype)
            self.read(index, buffer)
            out[...] = buffer
            return
        target = out.reshape(-1).view(np.uint8).data
        ends = np.append(np.flatnonzero(np.diff(index) != 1) + 1, len(index)).tolist()
        begin = 0
        for end in ends:
            self._fill(target[begin * self._size : end * self._size], self._start + int(index[begin]) * self._size)
            begin = end

    def _fill(self, target: memoryview, offset: int) -> None:
        """Read until the target is full; one system call may give less than was asked for."""
        fd = self._file.fileno()
        while len(target):
            got = os.preadv(fd, [target], offset)
            if not got:
                raise DataError("the image file became shorter while it was in use; restore it and start again")
            target, offset = target[got:], offset + got


class Spool:
    """Collects decoded records in an unnamed temporary file: it vanishes with the process, however that ends.

    Args:
        shape: (channels, height, width) of one record.
        dtype: dtype of the values.
        keep: False to count only (a check needs no copy of the pixels).
    """

    def __init__(self, shape: tuple[int, int, int], dtype: Any, keep: bool = True):
        self._shape, self._dtype, self._count = shape, np.dtype(dtype), 0
        self._file: IO[bytes] | None = tempfile.TemporaryFile(prefix="veilset-") if keep else None  # noqa: SIM115

    @property
    def keeps(self) -> bool:
        """Whether pixels are kept, and not only counted."""
        return self._file is not None

    def skip(self, n: int) -> None:
        """Count n records that were looked at and are not kept."""
        self._count += n

    def append(self, rows: Array) -> None:
        """Add rows [n, C, H, W].

        Raises:
            DataError: the disk of the temporary folder is full.
        """
        if self._file:
            data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8)
            with _disk_full():
                self._file.write(data.data)
        self._count += len(rows)

    def records(self) -> FileRecords | None:
        """What was collected, ready to be read; None if nothing was kept."""
        if not self._file:
            return None
        with _disk_full():
            self._file.flush()
        return FileRecords(self._file, 0, self._count, self._shape, self._dtype)


@contextlib.contextmanager
def _disk_full() -> Iterator[None]:
    """Say where the decoded images were going when the disk was full."""
    try:
        yield
    except OSError as e:
        raise DataError(
            f"cannot decode the images into {tempfile.gettempdir()}: {e.strerror}; "
            "free some space or set TMPDIR to a folder on a larger disk"
        ) from None


def rows_per_chunk(shape: tuple[int, ...], itemsize: int) -> int:
    """How many records of this shape fill a chunk."""
    return max(1, CHUNK_BYTES // (int(np.prod(shape)) * itemsize))


def small_ints(values: Iterable[int] | Array, top: int) -> Array:
    """Values 0..top-1 in the smallest of uint8, int16, int32: a label costs one byte where it can."""
    kind = np.uint8 if top <= 256 else np.int16 if top <= 32768 else np.int32
    return np.fromiter(values, kind) if not isinstance(values, np.ndarray) else values.astype(kind)


def key(text: str) -> int:
    """A 64-bit digest that stands for a unit id or file name, so that a million of them cost 8 MB."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def dense(keys: Array) -> Array:
    """Unit keys [n] as int32 ids [n] in 0..U-1, numbered in order of first appearance."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse.reshape(-1)]
