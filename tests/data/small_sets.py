"""Small image sets on disk, written from scratch so that their bytes are known."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from veilset.core.types import PublicInfo
from veilset.data import declare, draft


def confirm(path: Path, **facts: object) -> PublicInfo:
    """Write a confirmed declaration for the set at `path`."""
    base = {"name": "pets", "classes": ("cat", "dog"), "shape": (1, 5, 4), "units": 6, **facts}
    info = PublicInfo(**base)  # type: ignore[arg-type]
    declare.path_for(path).write_text(draft.text(info).replace("confirmed = false", "confirmed = true"))
    return info


def pixels(n: int, shape: tuple[int, int, int] = (1, 5, 4), seed: int = 0) -> np.ndarray:
    """Random uint8 [n, C, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def png(path: Path, x: np.ndarray) -> None:
    """Write uint8 [C, H, W] as a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x[0] if len(x) == 1 else x.transpose(1, 2, 0)).save(path)


def class_folder(root: Path, x: np.ndarray, names: Iterable[str] = ("cat", "dog")) -> Path:
    """A sub-folder per class; record i belongs to class i mod K."""
    names = tuple(names)
    for i, a in enumerate(x):
        png(root / names[i % len(names)] / f"{i:03d}.png", a)
    return root


def table_folder(root: Path, x: np.ndarray, **columns: list[str]) -> Path:
    """PNGs with labels.csv; record i belongs to class i mod 2."""
    for i, a in enumerate(x):
        png(root / "img" / f"{i:03d}.png", a)
    with open(root / "labels.csv", "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["file", "label", *columns])
        for i in range(len(x)):
            out.writerow([f"img/{i:03d}.png", ("cat", "dog")[i % 2], *(c[i] for c in columns.values())])
    return root


def idx_bytes(a: np.ndarray) -> bytes:
    """An array of uint8 as an IDX file."""
    return bytes((0, 0, 8, a.ndim)) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()


def idx_pair(folder: Path, prefix: str, x: np.ndarray, y: np.ndarray, gz: bool = False) -> Path:
    """x [n, H, W] (or [n, C, H, W]) and y [n] as an IDX pair."""
    folder.mkdir(exist_ok=True)
    for name, a in ((f"images-idx{x.ndim}", x), ("labels-idx1", y)):
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(idx_bytes(a)) if gz else idx_bytes(a))
    return folder
