"""Write, read back and show `Images`: PNG grid, PNG folder, npz, parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, RunError
from veilset.core.io import canonical, no_links, read_capped

if TYPE_CHECKING:
    from veilset.core.types import Images, PublicInfo

PICTURES = ("labels.csv", "images.npz", "images.parquet")  # one of them lies in a folder of images
MOST_PIXELS = 512 << 20  # bytes of decoded images that any folder may ask for ...
RATIO = 20  # ... or this many times its size on disk: synthetic images are noisy, and compress less
PNG = b"\x89PNG\r\n\x1a\n"
PLAIN = re.compile(r'(?![\s.])[^<>:"/\\|?*\x00-\x1f\x7f]{1,60}(?<![\s.])')  # what every system takes as a file's name
MOST_TABLE = 64 << 20  # bytes of labels.csv, some million rows


def to_pil(x: Any) -> Any:
    """One uint8 [C, H, W] tensor as a PIL image (grey or RGB)."""
    from PIL import Image

    a = x.numpy()
    return Image.fromarray(a[0] if a.shape[0] == 1 else a.transpose(1, 2, 0))


def png_bytes(x: Any) -> bytes:
    """One uint8 [C, H, W] tensor as PNG bytes."""
    out = io.BytesIO()
    to_pil(x).save(out, "PNG")
    return out.getvalue()


def grid(images: Images, per_class: int, scale: int | None = None, gap: int = 1) -> Any:
    """A contact sheet: one row per class, the first `per_class` images of each; missing ones stay background."""
    from PIL import Image

    c, h, w = images.x.shape[1:]
    scale = scale or max(1, 64 // max(h, w))
    mode, back = ("L", 255) if c == 1 else ("RGB", (255, 255, 255))
    sheet = Image.new(mode, (per_class * (w + gap) + gap, len(images.classes) * (h + gap) + gap), back)
    for k in range(len(images.classes)):
        for j, x in enumerate(images.x[images.y == k][:per_class]):
            sheet.paste(to_pil(x), (gap + j * (w + gap), gap + k * (h + gap)))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


def write_pngs(images: Images, folder: Path) -> None:
    """PNG files images/CLASS/000000.png ..., as many tools expect them, and labels.csv (file, label, class)."""
    places = class_folders(images.classes)
    with open(folder / "labels.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["file", "label", "class"])
        for i, (x, y) in enumerate(zip(images.x, images.y.tolist(), strict=True)):
            name = f"images/{places[y]}/{i:06d}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(png_bytes(x))
            table.writerow([name, y, images.classes[y]])


def class_folders(classes: Sequence[str]) -> list[str]:
    """A folder for each class: its name, if every system takes all of the names and tells them apart, else class-K."""
    plain = all(map(PLAIN.fullmatch, classes)) and len({n.casefold() for n in classes}) == len(classes)
    return list(classes) if plain else [f"class-{k}" for k in range(len(classes))]


def write_npz(images: Images, folder: Path) -> None:
    """images.npz: x uint8 [N,C,H,W], y int64 [N], classes (unicode). Opens with allow_pickle=False."""
    import numpy as np

    np.savez_compressed(
        folder / "images.npz", x=images.x.numpy(), y=images.y.numpy(), classes=np.array(images.classes, dtype=np.str_)
    )


def write_parquet(images: Images, folder: Path) -> None:
    """images.parquet: `picture_table` as a file."""
    table = picture_table(images, "format = 'parquet'")
    import pyarrow.parquet as pq

    pq.write_table(table, folder / "images.parquet")


def picture_table(images: Images, what: str) -> Any:
    """A pyarrow table of `image` (PNG bytes and path), `label`, `class`, with the features of Hugging Face image sets.

    Raises:
        ConfigError: no pyarrow; the message begins with `what`.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(f"{what}: needs pyarrow; pip install 'veilset[parquet]'") from None
    rows = [{"bytes": png_bytes(x), "path": f"{i:06d}.png"} for i, x in enumerate(images.x)]
    label = {"names": list(images.classes), "_type": "ClassLabel"}
    kinds = {"image": {"_type": "Image"}, "label": label, "class": {"dtype": "string", "_type": "Value"}}
    table = pa.table({"image": rows, "label": images.y.numpy(), "class": [images.classes[y] for y in images.y]})
    return table.replace_schema_metadata({"huggingface": canonical({"info": {"features": kinds}})})


# ---------------------------------------------------------------------- reading, perhaps what a stranger sent


def read_images(folder: Path, info: PublicInfo, label: str = "") -> Images:
    """Read back a folder that `Images.save` wrote, in any of its formats. No pickle is opened, no link followed.

    Memory is bounded by the declared shape times the number of images, which is checked before it is taken: at most
    MOST_PIXELS bytes, or RATIO times what lies on disk if that is more.

    Args:
        folder: a release folder.
        info: the declared facts, from its receipt: every picture has this shape, every label is of these classes.
        label: where the images came from.

    Raises:
        RunError: no images there, or images that the declared facts do not describe.
    """
    import numpy as np
    import torch

    from veilset.core.types import Images

    stored = open_pictures(folder, info)
    y = stored.labels
    x = np.empty((len(y), *info.shape), np.uint8)
    for i, picture in stored.pictures(range(len(y))):
        x[i] = picture
    return Images(torch.from_numpy(x), torch.tensor(y, dtype=torch.int64), info.classes, label=label)


@dataclass(frozen=True)
class Stored:
    """The pictures of a folder, before any is decoded.

    Attributes:
        labels: of all, as indices into the declared classes.
        pictures: positions, ascending -> (position, uint8 [C, H, W]) of each; decodes no more than it must.
    """

    labels: list[int]
    pictures: Callable[[Iterable[int]], Iterator[tuple[int, Any]]]


def open_pictures(folder: Path, info: PublicInfo) -> Stored:
    """Find the pictures of a release folder and check, before any is decoded, what they say they are.

    Args:
        folder: a release folder.
        info: its declared facts.

    Raises:
        RunError: none, or none that the declared facts describe. `pictures` raises it for a damaged picture.
    """
    folder = no_links(folder)
    name = pictures_file(folder)
    with picture_faults(folder / name):
        found = READERS[name](folder, info)
    return Stored(found.labels, lambda wanted: _decoded(folder / name, found, wanted))


def pictures_file(folder: Path) -> str:
    """Which of PICTURES lies in a folder.

    Raises:
        RunError: none of them.
    """
    if name := next((name for name in PICTURES if (folder / name).exists()), None):
        return name
    raise RunError(f"{folder}: no images here; expected {', '.join(PICTURES)}")


def _decoded(path: Path, stored: Stored, wanted: Iterable[int]) -> Iterator[tuple[int, Any]]:
    with picture_faults(path):
        yield from stored.pictures(wanted)


@contextlib.contextmanager
def picture_faults(path: Path) -> Iterator[None]:
    """What can go wrong with a stranger's file, in one line."""
    try:
        yield
    except RunError:
        raise
    except Exception as e:  # the decoders raise many kinds of error; each means that the file is damaged or forged
        what = str(e) or type(e).__name__
        raise RunError(f"{path}: the images cannot be read ({what}); sample them again, or get another copy") from e


def _room(rows: int, info: PublicInfo, on_disk: int) -> None:
    """Refuse more pixels than a set of this size on disk can hold."""
    size, most = rows * math.prod(info.shape), max(MOST_PIXELS, RATIO * on_disk)
    if rows < 1:
        raise ValueError("there are no images")
    if size > most:
        raise ValueError(f"{rows} images of the declared shape take {size} bytes, at most {most} are read")


def decode_png(data: bytes, shape: tuple[int, ...]) -> Any:
    """PNG bytes as uint8 [C, H, W] of the declared shape: the one decoder for pictures of a release.

    A release holds PNG and nothing else, so no other decoder is asked, whatever the bytes announce; size and mode are
    read from the header before any pixel is.

    Raises:
        ValueError, OSError: it is no PNG, another shape, or damaged.
    """
    import numpy as np
    from PIL import Image

    if data[:8] != PNG or data[12:16] != b"IHDR":
        raise ValueError("a picture is no PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of a decompression bomb, and goes on
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if (picture.mode, picture.size) != ("L" if shape[0] == 1 else "RGB", (shape[2], shape[1])):
            seen = f"{picture.mode} {picture.size[0]} x {picture.size[1]}"
            raise ValueError(f"a picture is {seen}, not of the declared shape {list(shape)}")
        a = np.asarray(picture)
    return np.array(a[None] if a.ndim == 2 else a.transpose(2, 0, 1), order="C")


def _pngs(folder: Path, info: PublicInfo) -> Stored:
    """labels.csv and the files that it names, each once, all of them inside the folder."""
    names: dict[str, int] = {}
    table = csv.DictReader(io.StringIO(read_capped(folder / "labels.csv", MOST_TABLE).decode()), strict=True)
    on_disk = 0
    for row in table:
        name, label = row["file"], int(row["label"])
        if name in names:
            raise ValueError(f"{name} is named twice")
        on_disk += plain_size(folder, name)
        names[name] = _label(label, info)
    _room(len(names), info, on_disk)
    order = list(names)

    def pictures(wanted: Iterable[int]) -> Iterator[tuple[int, Any]]:
        most = 4 * math.prod(info.shape) + 65536  # noise does not compress, but no PNG grows fourfold
        for i in wanted:
            yield i, decode_png(read_capped(folder / order[i], most), info.shape)

    return Stored(list(names.values()), pictures)


def plain_size(folder: Path, name: str) -> int:
    """Bytes of a file that a table names by a plain path inside the folder."""
    parts = PurePosixPath(name).parts
    if not name.endswith(".png") or "\\" in name or "\0" in name or name.startswith("/") or ".." in parts:
        raise ValueError(f"{name!r} is not the plain name of a PNG file inside the folder")
    found = os.lstat(folder / name)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} is no ordinary file")
    return found.st_size


def _label(label: int, info: PublicInfo) -> int:
    if not 0 <= label < len(info.classes):
        raise ValueError(f"a label is {label}, and there are {len(info.classes)} classes")
    return label


def _npz(folder: Path, info: PublicInfo) -> Stored:
    """images.npz, whose arrays are looked at by their headers first, and read in pieces."""
    import numpy as np

    path = folder / "images.npz"
    on_disk = path.stat().st_size
    with npz_array(path, "x") as (shape, dtype, _):
        if dtype != np.uint8 or len(shape) != 4 or tuple(shape[1:]) != tuple(info.shape):
            raise ValueError(f"x is {dtype} {list(shape)}, not uint8 [N, {', '.join(map(str, info.shape))}]")
        _room(shape[0], info, on_disk)
        rows = shape[0]
    with npz_array(path, "y") as (shape, dtype, f):
        if dtype.kind not in "iu" or shape != (rows,):
            raise ValueError(f"y is {dtype} {list(shape)}, not one whole number per image ([{rows}])")
        labels = np.frombuffer(f.read(rows * dtype.itemsize), dtype).tolist()

    def pictures(wanted: Iterable[int]) -> Iterator[tuple[int, Any]]:
        each = math.prod(info.shape)
        with npz_array(path, "x") as (_, _, f):
            at = 0
            for i in wanted:
                while at <= i:
                    raw, at = f.read(each), at + 1
                yield i, np.frombuffer(raw, np.uint8).reshape(info.shape).copy()

    return Stored([_label(k, info) for k in labels], pictures)


@contextlib.contextmanager
def npz_array(path: Path, name: str) -> Iterator[tuple[tuple[int, ...], Any, Any]]:
    """(shape, type, open stream at the first value) of one array of an npz file, in C order and without objects."""
    from numpy.lib import format as npy

    with zipfile.ZipFile(path) as z, z.open(f"{name}.npy") as f:
        header = npy.read_array_header_1_0 if npy.read_magic(f) == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(f)
        if fortran or dtype.hasobject:
            raise ValueError(f"{name} is not a plain array")
        yield shape, dtype, f


def _parquet(folder: Path, info: PublicInfo) -> Stored:
    """images.parquet, in batches; rows and sizes are in its footer."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise RunError("images.parquet: reading it needs pyarrow; pip install 'veilset[parquet]'") from None
    path = folder / "images.parquet"
    table = pq.ParquetFile(path)
    rows, on_disk = table.metadata.num_rows, path.stat().st_size
    _room(rows, info, on_disk)
    unpacked = sum(table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups))
    if unpacked > max(MOST_PIXELS, RATIO * on_disk):
        raise ValueError(f"it unpacks to {unpacked} bytes")
    labels = [_label(k, info) for b in table.iter_batches(columns=["label"]) for k in b["label"].to_pylist()]

    def pictures(wanted: Iterable[int]) -> Iterator[tuple[int, Any]]:
        left, at = iter(wanted), 0
        i = next(left, None)
        for batch in table.iter_batches(256, columns=["image"]):
            while i is not None and i < at + len(batch):
                yield i, decode_png(batch["image"][i - at]["bytes"].as_py(), info.shape)
                i = next(left, None)
            if i is None:
                return
            at += len(batch)

    return Stored(labels, pictures)


READERS = dict(zip(PICTURES, (_pngs, _npz, _parquet), strict=True))
