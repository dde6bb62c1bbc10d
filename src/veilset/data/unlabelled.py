"""Images without labels, for a classifier: a folder of pictures, or an .npz file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.decode import Unfit, as_is, is_picture
from veilset.data.faults import Faults
from veilset.data.formats.folder import litter
from veilset.data.formats.npz import lone_pixels
from veilset.data.load import to_bytes
from veilset.data.records import Array

ROWS = 1000  # images in memory at a time
WAYS = "give a folder of pictures, or an .npz file with an array x"


def read_unlabelled(source: str | Path, info: PublicInfo) -> Iterator[tuple[list[str], Array]]:
    """The images of a folder (with all that lies in it, by path) or of an .npz file (by number), some at a time.

    Args:
        source: folder, or file with `x` [N, H, W], [N, C, H, W] or [N, H, W, C]: uint8, or floats.
        info: declared facts; every image must have their shape, and its values lie in their range.

    Yields:
        Names, and uint8 [n, C, H, W].

    Raises:
        DataError: nothing there, or an image that cannot be read or is of another kind; it names the first.
    """
    path = Path(source)
    if path.is_dir():
        yield from _pictures(path, info)
    elif path.is_file() and path.suffix == ".npz":
        yield from _arrays(path, info)
    elif path.exists():
        raise DataError(f"{path}: neither a folder nor an .npz file; {WAYS}")
    else:
        raise DataError(f"{path}: no such folder or file; {WAYS}")


def _pictures(folder: Path, info: PublicInfo) -> Iterator[tuple[list[str], Array]]:
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if is_picture(p.name) and p.is_file())
    names = [name for name in found if not any(part.startswith(".") or litter(part) for part in name.split("/"))]
    if not names:
        raise DataError(f"{folder}: no picture in it; {WAYS}")
    for i in range(0, len(names), ROWS):
        rows = []
        for name in names[i : i + ROWS]:
            try:
                rows.append(as_is((folder / name).read_bytes(), info))
            except Unfit as e:
                raise DataError(
                    f"{folder / name}: {e}; images must be as those that the teacher learned from"
                ) from None
        yield names[i : i + ROWS], np.stack(rows)


def _arrays(path: Path, info: PublicInfo) -> Iterator[tuple[list[str], Array]]:
    faults = Faults(path)
    records = lone_pixels(path, info, faults)
    if faults.found or records is None:
        raise DataError(f"{path}: {faults.found[0]}")
    if not records.count:
        raise DataError(f"{path}: no image in it; {WAYS}")
    for i in range(0, records.count, ROWS):
        index = np.arange(i, min(i + ROWS, records.count))
        rows = np.empty((len(index), *info.shape), records.dtype)
        records.read(index, rows)
        yield [str(k) for k in index.tolist()], to_bytes(info, rows)
