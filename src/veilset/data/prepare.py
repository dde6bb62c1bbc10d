"""`veilset data prepare`: converts an owner's pictures by declared rules only, each picture alone."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import ConfigError, DataError
from veilset.core.io import new_folder, write_bytes
from veilset.core.types import MAX_SIDE
from veilset.data import declare, decode, draft
from veilset.data.faults import Faults
from veilset.data.formats import celeba, table
from veilset.data.formats.detect import detect
from veilset.data.formats.folder import files, folders, png
from veilset.data.load import existing, readable


@dataclass(frozen=True)
class Rules:
    """What is done to every picture; see `prepare`."""

    size: tuple[int, int] | None
    fit: str
    grey: bool
    bits: int
    window: tuple[float, float] | None


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    fit: str = "crop",
    grey: bool = False,
    bits: int | None = None,
    window: tuple[float, float] | None = None,
) -> Path:
    """Write a new image folder, laid out like the old one, that `load` takes once its draft declaration is confirmed.

    No rule looks at more than one picture, and none takes its numbers from the pixels, so what happens to one picture
    tells nothing about another. Transparent pixels become black, palettes and CMYK become RGB.

    Args:
        source: image folder (a sub-folder per class, labels.csv, or CelebA's layout); needs no declaration.
        out: new folder.
        size: side, or (height, width), in pixels; None keeps sizes, which must then be equal.
        fit: "crop" cuts the centre to the wanted proportions, "pad" adds black borders; then the picture is resized.
        grey: True converts colour to grey.
        bits: bit depth of the source, 8 or 16; None means 16 if a window is given, else 8.
        window: (low, high) of the stored values that become 0 and 255. Required for 16 bits: declare it from the format
            (or the scanner), never from the smallest and largest value seen.

    Returns:
        `out`.

    Raises:
        ConfigError: a rule out of range.
        DataError: a picture that cannot be read or does not fit the rules; nothing is left behind.
        RunError: `out` exists or cannot be written.
    """
    rules = _rules(size, fit, grey, bits, window)
    path, out = existing(Path(source)), Path(out)
    if not path.is_dir():
        raise DataError(f"{path}: prepare takes image folders; .npz and IDX files are converted with numpy")
    with readable(str(source)):
        names, labels = _contents(path)
        with new_folder(out) as tmp:
            _convert_all(path, tmp, names, rules)
            for name, data in labels.items():
                write_bytes(tmp / name, data)
            for name in _tables(path):
                (tmp / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / name, tmp / name)
            write_bytes(tmp / declare.FILE, draft.draft(tmp, out.resolve().name).encode())
    return out


def _contents(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """Relative names of the pictures, and the label files of the new folder."""
    if (path / table.FILE).is_file():
        rows = _rows(path)
        return [r["file"] for r in rows], {table.FILE: _table(rows)}
    if celeba.listing(path, celeba.ATTRIBUTES):
        source = celeba.CelebASource(path)
        return source.pictures(), {p.name: p.read_bytes() for p in source.listings}
    return list(_pictures(path)), {}


def _tables(path: Path) -> list[str]:
    """The tables that no reader uses, which stay beside the pictures: one may say whose images are whose."""
    return [e.name for e in detect(path).extras() if e.way and (e.people or not e.closed)]


def _rules(size: Any, fit: str, grey: bool, bits: int | None, window: Any) -> Rules:
    """The rules, checked."""
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and (len(sides) != 2 or not all(1 <= s <= MAX_SIDE for s in sides)):
        raise ConfigError(f"size = {size!r}: must be a side or (height, width), each 1 to {MAX_SIDE} pixels")
    if fit not in ("crop", "pad"):
        raise ConfigError(f"fit = {fit!r}: must be crop or pad")
    depth = bits if bits is not None else 16 if window else 8
    if depth not in (8, 16):
        raise ConfigError(f"bits = {bits!r}: must be 8 or 16")
    if depth == 16 and window is None:
        raise ConfigError("bits = 16: needs window = (low, high), the stored values that become 0 and 255; declare it")
    if window is not None and not (len(window) == 2 and np.isfinite(window).all() and window[0] < window[1]):
        raise ConfigError(f"window = {window!r}: must be (low, high) with low < high")
    return Rules(None if sides is None else (int(sides[0]), int(sides[1])), fit, grey, depth, window)


def _pictures(path: Path) -> Iterator[str]:
    """Relative names of the pictures in class folders (also under train/ and test/)."""
    for folder in folders(path):
        deeper = [f"{folder}/{sub}" for sub in folders(path / folder)]
        for place in (folder, *deeper):
            for name in files(path / place):
                if not decode.is_picture(name):
                    raise DataError(
                        f"{path / place / name}: not an image file by its name; move it out of the class folder"
                    )
                yield f"{place}/{name}"


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of labels.csv, or DataError."""
    faults = Faults(path)
    rows = [row for _, row in table.rows_of(path, faults)]
    faults.raise_first()
    return rows


def _table(rows: list[dict[str, str]]) -> bytes:
    """labels.csv for the converted files, with all other columns of the old one: one may say whose images are whose."""
    extra = [c for c in (rows[0] if rows else ()) if c not in ("file", "label", "class")]
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(["file", "label", *extra])
    out.writerows([png(r["file"]), table.label_of(r), *(r[c] for c in extra)] for r in rows)
    return text.getvalue().encode()


def _convert_all(path: Path, out: Path, names: list[str], rules: Rules) -> None:
    """Convert every picture into `out`, or raise DataError naming the first that does not fit."""
    first: tuple[str, str, tuple[int, int]] | None = None
    for name in names:
        target = out / png(name)
        try:
            image = convert((path / name).read_bytes(), rules)
        except FileNotFoundError:
            raise DataError(f"{path / name}: no such file; add it or remove its row") from None
        except decode.Unfit as e:
            raise DataError(f"{path / name}: {e}") from None
        first = first or (name, image.mode, image.size)
        if image.mode != first[1]:
            raise DataError(
                f"{path / name}: grey and colour are mixed ({first[0]} is the other); use grey=True (--grey)"
            )
        if image.size != first[2]:
            raise DataError(f"{path / name}: sizes are mixed ({first[0]} has another); give a size (--size)")
        if target.exists():
            raise DataError(f"{path / name}: two files would become {png(name)}; rename one")
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, "PNG")


def convert(data: bytes, rules: Rules) -> Any:
    """One picture as an 8-bit PIL image, grey or RGB. Raises decode.Unfit."""
    from PIL import Image, ImageOps

    image = decode.load(decode.open_picture(data))
    deep = decode.is_16_bit(image)
    image = ImageOps.exif_transpose(image)
    if deep != (rules.bits == 16):
        raise decode.Unfit(
            "has 16 bits a channel; declare a window (--window LOW,HIGH)"
            if deep
            else "has 8 bits a channel, declared are 16; convert such pictures apart"
        )
    if deep and not image.mode.startswith("I"):
        raise decode.Unfit("has 16-bit colour or fractions, which cannot be read; save it as 8-bit RGB or 16-bit grey")
    if not deep:
        image = _plain(image)
    if rules.window:
        low, high = rules.window
        values = np.rint((np.asarray(image).astype(np.float64) - low) * (255.0 / (high - low)))
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if rules.grey:
        image = image.convert("L")
    return _fit(image, rules)


def _plain(image: Any) -> Any:
    """An 8-bit picture of any kind as grey or RGB; transparency is laid on black."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert(mode)


def _fit(image: Any, rules: Rules) -> Any:
    """Crop or pad, then resize."""
    from PIL import Image, ImageOps

    if rules.size is None:
        return image
    size = (rules.size[1], rules.size[0])  # PIL says (width, height)
    act = ImageOps.fit if rules.fit == "crop" else ImageOps.pad
    return act(image, size, method=Image.Resampling.LANCZOS)
