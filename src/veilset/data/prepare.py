"""`veilset data prepare`: converts an owner's pictures by declared rules only, each picture alone."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import ConfigError, DataError
from veilset.core.io import new_folder, write_bytes
from veilset.core.types import MAX_SIDE
from veilset.data import declare, decode, draft
from veilset.data.columns import Choice, fold
from veilset.data.convert import Rules, convert, prepare_arrays, prepare_items
from veilset.data.faults import Faults
from veilset.data.formats import celeba, table
from veilset.data.formats.detect import detect
from veilset.data.formats.folder import FolderSource, files, folders, on_disk, png
from veilset.data.formats.items import ItemSource
from veilset.data.load import existing, readable
from veilset.data.reading import Reading


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    fit: str = "crop",
    grey: bool = False,
    bits: int | None = None,
    window: tuple[float, float] | None = None,
    reading: Reading | None = None,
) -> Path:
    """Write a new image folder that `load` takes once its draft declaration is confirmed.

    A folder of pictures stays laid out as it is. Any other set becomes numbered pictures with a labels.csv, in which
    ids of people are numbers: nothing else of the files, nor their names, is taken over.

    No rule looks at more than one picture, and none takes its numbers from the pixels, so what happens to one picture
    tells nothing about another. Transparent pixels become black, palettes and CMYK become RGB.

    Args:
        source: a set in any of the layouts of docs/data.md; needs no declaration, but one that is there is obeyed.
        out: new folder.
        size: side, or (height, width), in pixels; None keeps sizes, which must then be equal.
        fit: "crop" cuts the centre to the wanted proportions, "pad" adds black borders; then the picture is resized.
        grey: True converts colour to grey.
        bits: bit depth of the source, 8 or 16; None means 16 if a window is given, else 8.
        window: (low, high) of the stored values that become 0 and 255. Required for 16 bits: declare it from the format
            (or the scanner), never from the smallest and largest value seen.
        reading: how the files are read, in place of what the set's declaration says about that.

    Returns:
        `out`.

    Raises:
        ConfigError: a rule out of range.
        DataError: a picture that cannot be read or does not fit the rules; nothing is left behind.
        RunError: `out` exists or cannot be written.
    """
    rules = _rules(size, fit, grey, bits, window)
    path, out = existing(Path(source)), Path(out)
    declared = declare.read(path) if declare.path_for(path).is_file() else None
    how = reading or (declared.reading if declared else Reading())
    path = declare.place(path, how)
    with readable(str(source)):
        found = detect(path, how)
        if window and "window" in found.uses:  # applied where values are read, in their own units
            found = detect(path, replace(how, window=window))
        with new_folder(out) as tmp:
            if isinstance(found, FolderSource | table.TableSource):
                _prepare_folder(path, tmp, rules, how)
            elif isinstance(found, ItemSource):
                prepare_items(found, tmp, rules, declared.choice if declared else Choice())
            else:
                prepare_arrays(found, declared, tmp, rules)
            kept = Reading(label_from=how.label_from) if isinstance(found, celeba.CelebASource) else None
            write_bytes(tmp / declare.FILE, draft.draft(tmp, out.resolve().name, kept)[0].encode())
    return out


def _prepare_folder(path: Path, tmp: Path, rules: Rules, how: Reading) -> None:
    """Convert a folder of pictures into one that is laid out alike."""
    names, labels = _contents(path, how)
    _convert_all(path, tmp, names, rules)
    for name, data in labels.items():
        write_bytes(tmp / name, data)
    for name in _tables(path, how):
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, tmp / name)


def _contents(path: Path, how: Reading) -> tuple[list[str], dict[str, bytes]]:
    """Relative names of the pictures, and the label files of the new folder."""
    if (path / table.FILE).is_file():
        rows = _rows(path, fold(how.label_from))
        return [r["file"] for r in rows], {table.FILE: _table(rows)}
    if celeba.listing(path, celeba.ATTRIBUTES):
        source = celeba.CelebASource(path)
        return source.pictures(), {p.name: p.read_bytes() for p in source.listings}
    return list(_pictures(path)), {}


def _tables(path: Path, how: Reading) -> list[str]:
    """The tables that no reader uses, which stay beside the pictures: one may say whose images are whose."""
    return [e.name for e in detect(path, how).extras() if e.way and (e.people or not e.closed)]


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


def _rows(path: Path, column: str) -> list[dict[str, str]]:
    """The rows of labels.csv, or DataError."""
    faults = Faults(path)
    rows = [row for _, row in table.rows_of(path, faults, column)]
    faults.raise_first()
    return rows


def _table(rows: list[dict[str, str]]) -> bytes:
    """labels.csv for the converted files, with all other columns of the old one: one may say whose images are whose."""
    extra = [c for c in (rows[0] if rows else ()) if c not in ("file", "label", "class", table.CHOSEN)]
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
            image = convert((path / on_disk(path, name)).read_bytes(), rules)
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
