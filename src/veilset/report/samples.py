"""The first images of each class, read from a release folder or drawn from a run's model, as data URIs."""

from __future__ import annotations

import base64
import csv
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import DataError, ModeError, VeilsetError
from veilset.core.pictures import png_bytes, to_pil
from veilset.core.types import Images, PublicInfo

if TYPE_CHECKING:
    import numpy as np

PER_CLASS, MAX_CLASSES = 10, 50
SIDE = 128  # larger pictures are reduced to this many pixels a side, to keep the page small
CELL = 72  # pixels on a desktop screen; small pictures are enlarged by whole numbers up to it

Numbered = tuple[int, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Samples:
    """What the page shows.

    Attributes:
        rows: (class name, PNG data URIs) in class order.
        origin: where they come from, in a sentence; or why there are none.
        shape: (channels, height, width) of an image.
        left_out: classes beyond MAX_CLASSES.
    """

    rows: list[tuple[str, list[str]]]
    origin: str
    shape: tuple[int, ...] = (1, 1, 1)
    left_out: int = 0

    @property
    def cell(self) -> int:
        """Width of one picture on a wide screen, in pixels: a multiple of its own width, so that pixels stay square."""
        width = self.shape[2]
        return CELL // width * width if width <= CELL else 96

    @property
    def crisp(self) -> bool:
        """Whether pictures are enlarged; then they must not be smoothed."""
        return self.shape[2] <= CELL


def collect(folder: Path, info: PublicInfo, images: Images | None) -> Samples:
    """Find or draw the pictures of a folder.

    Args:
        folder: a run or release folder.
        info: its declared facts.
        images: shown instead, if given.

    Raises:
        ModeError: `images` hold raw private records.
    """
    if images is not None:
        if images.reads_private:
            raise ModeError("images hold raw private records: a report is made to be handed on; pass synthetic images")
        return _show(images, "given by whoever made this page; the receipt does not cover them")
    try:
        if (folder / "model.json").exists():
            from veilset.methods.catalogue import open_model

            shown = info.classes[:MAX_CLASSES]
            drawn = open_model(folder).sample(PER_CLASS * len(shown), classes=shown, seed=0)
            return _show(drawn, "drawn from the model for this page; drawing costs no privacy")
        return _show(_stored(folder, info), "the first of each class in this folder, not a selection")
    except Exception as e:  # a page about privacy must not fail because a picture does
        ours = isinstance(e, VeilsetError)  # one line that is fit to print, once it does not say where the folder is
        reason = str(e).replace(f"{folder}/", "") if ours else f"their files do not open ({type(e).__name__})"
        return Samples([], reason)


def _show(images: Images, origin: str) -> Samples:
    shown = images.classes[:MAX_CLASSES]
    rows = [(name, [uri(x) for x in images.x[images.y == k][:PER_CLASS]]) for k, name in enumerate(shown)]
    return Samples(rows, origin, tuple(images.x.shape[1:]), len(images.classes) - len(shown))


def uri(x: Any) -> str:
    """One uint8 [C, H, W] tensor as a data URI, reduced to SIDE pixels if it is larger."""
    if max(x.shape[1:]) <= SIDE:
        data = png_bytes(x)
    else:
        import io

        out, picture = io.BytesIO(), to_pil(x)
        picture.thumbnail((SIDE, SIDE))
        picture.save(out, "PNG")
        data = out.getvalue()
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _stored(folder: Path, info: PublicInfo) -> Images:
    """The first images of each class out of the files of `Images.save`."""
    import numpy as np
    import torch

    readers = {"labels.csv": _from_pngs, "images.npz": _from_npz, "images.parquet": _from_parquet}
    for name, read in readers.items():
        if (folder / name).exists():
            picked = _checked(read(folder, len(info.classes)), info)
            x = torch.from_numpy(np.stack([p for _, p in picked]))
            return Images(x, torch.tensor([k for k, _ in picked]), info.classes)
    raise DataError("there are no images in this folder")


def _checked(found: Iterable[Numbered], info: PublicInfo) -> list[Numbered]:
    """The pictures with their labels; refuses what is not of the declared shape."""
    picked = list(found)
    for k, x in picked:
        if x.shape != tuple(info.shape) or x.dtype != "uint8" or not 0 <= k < len(info.classes):
            raise DataError("an image or label in this folder does not fit the declared shape and classes")
    if not picked:
        raise DataError("there are no images in this folder")
    return picked


def _first(labels: Iterable[int], classes: int) -> Iterator[tuple[int, int]]:
    """(position, label) of the first PER_CLASS of each class; stops when every class has enough."""
    seen: Counter[int] = Counter()
    for i, k in enumerate(labels):
        seen[k] += 1
        if seen[k] <= PER_CLASS and k < MAX_CLASSES:
            yield i, k
        if seen[k] == PER_CLASS and sum(c >= PER_CLASS for c in seen.values()) >= classes:
            return


def _from_pngs(folder: Path, classes: int) -> Iterator[Numbered]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for i, k in _first((int(r["label"]) for r in rows), classes):
        path = folder / rows[i]["file"]
        # The table may come from a stranger: it must not make this page show a file from elsewhere.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError("labels.csv names a file outside its folder")
        yield k, _decode(path.read_bytes())


def _decode(data: bytes) -> Any:
    """PNG bytes as uint8 [C, H, W]."""
    import io

    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=["PNG"])
    if picture.mode not in ("L", "RGB") or max(picture.size) > 1024:
        raise DataError("an image in this folder is not an 8-bit grey or RGB picture")
    a = np.asarray(picture)
    return np.ascontiguousarray(a[None] if a.ndim == 2 else a.transpose(2, 0, 1))


def _from_npz(folder: Path, classes: int) -> Iterator[Numbered]:
    """Streams: a release of any size costs the memory of a few images."""
    import math

    import numpy as np
    from numpy.lib import format as npy

    with np.load(folder / "images.npz", allow_pickle=False) as z:
        wanted = dict(_first(z["y"].tolist(), classes))
    with zipfile.ZipFile(folder / "images.npz") as z, z.open("x.npy") as f:
        header = npy.read_array_header_1_0 if npy.read_magic(f) == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(f)
        if fortran or dtype != np.uint8 or len(shape) != 4 or math.prod(shape[1:]) > 3 * 1024**2:
            raise DataError("images.npz does not hold 8-bit images")
        for i in range(max(wanted, default=-1) + 1):
            raw = f.read(math.prod(shape[1:]))
            if i in wanted:
                yield wanted[i], np.frombuffer(raw, np.uint8).reshape(shape[1:]).copy()


def _from_parquet(folder: Path, classes: int) -> Iterator[Numbered]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError("showing images.parquet needs pyarrow; pip install 'veilset[parquet]'") from None
    table = pq.ParquetFile(folder / "images.parquet")
    wanted = dict(_first((k for b in table.iter_batches(columns=["label"]) for k in b["label"].to_pylist()), classes))
    last, at = max(wanted, default=-1), 0
    for batch in table.iter_batches(256, columns=["image"]):
        for j in range(len(batch)):
            if at + j in wanted:
                yield wanted[at + j], _decode(batch["image"][j]["bytes"].as_py())
        at += len(batch)
        if at > last:
            return
