"""`veilset data prepare`: converts an owner's pictures by declared rules only, each picture alone."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from veilset import __version__
from veilset.core.errors import ConfigError, DataError
from veilset.core.io import write_bytes
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
from veilset.data.making import Tally, Task, check_jobs, unfinished, write_pictures
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
    jobs: int = 1,
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
        jobs: how many processes make pictures; the result is the same. A call that was killed goes on when it is made
            again with the same arguments; until then its pictures are in a hidden folder beside `out`.

    Returns:
        `out`.

    Raises:
        ConfigError: a rule out of range.
        DataError: a picture that cannot be read or does not fit the rules; nothing is left behind.
        RunError: `out` exists or cannot be written.
    """
    return prepared(source, out, rules_of(size, fit, grey, bits, window), reading, jobs).path


def prepared(source: str | Path, out: str | Path, rules: Rules, reading: Reading | None, jobs: int) -> Prepared:
    """As `prepare`, with what was done to how many pictures: exact counts, for the owner only."""
    check_jobs(jobs)
    path, out = existing(Path(source)), Path(out)
    declared = declare.read(path) if declare.path_for(path).is_file() else None
    how = reading or (declared.reading if declared else Reading())
    path = declare.place(path, how)
    with readable(str(source)):
        found = detect(path, how)
        if rules.window and "window" in found.uses:  # applied where values are read, in their own units
            how = replace(how, window=rules.window)
        choice = declared.choice if declared else Choice()
        begun = path.stat() if path.exists() else path.parent.stat()
        facts: dict[str, Any] = {"version": __version__, "set": [str(path.resolve()), begun.st_size, begun.st_mtime_ns]}
        facts |= {"rules": asdict(rules), "reading": asdict(how), "choice": asdict(choice)}
        with unfinished(out, facts) as tmp:
            make: Any = partial(detect, path, how)
            if isinstance(found, FolderSource | table.TableSource):
                tally = _prepare_folder(path, tmp, rules, how, jobs)
            elif isinstance(found, ItemSource):
                tally = prepare_items(make, tmp, rules, choice, jobs)
            else:
                tally = prepare_arrays(make, declared, tmp, rules, jobs)
            kept = Reading(label_from=how.label_from) if isinstance(found, celeba.CelebASource) else None
            words, g = draft.draft(tmp, out.resolve().name, kept)
            write_bytes(tmp / declare.FILE, words.encode())
    return Prepared(out, g.words(next(iter(g.people), "")), dict(sorted(tally.items())))


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        path: the new folder.
        found: what it holds, in a line, as `init` says it.
        done: what was done -> to how many pictures.
    """

    path: Path
    found: str
    done: dict[str, int]

    def __str__(self) -> str:
        lines = [f"made {self.found}", *(f"  {n:>8} {what}" for what, n in self.done.items())]
        return "\n".join(lines)


def _prepare_folder(path: Path, tmp: Path, rules: Rules, how: Reading, jobs: int) -> Tally:
    """Convert a folder of pictures into one that is laid out alike."""
    names, labels = _contents(path, how)
    old: dict[str, str] = {}
    for name in names:
        if png(name) in old:
            raise DataError(f"{path / name}: two files would become {png(name)} ({old[png(name)]} too); rename one")
        old[png(name)] = name

    def tasks() -> Iterator[Task]:
        for name in names:
            yield Task(str(path / name), png(name), partial(_picture, path, name, rules))

    tally = write_pictures(tmp, tasks, (), jobs)
    for name, data in labels.items():
        write_bytes(tmp / name, data)
    for name in _tables(path, how):
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, tmp / name)
    return tally


def _picture(path: Path, name: str, rules: Rules, tally: Tally) -> Any:
    """One picture of a folder, converted, or DataError."""
    try:
        return convert((path / on_disk(path, name)).read_bytes(), rules, tally)
    except FileNotFoundError:
        raise DataError(f"{path / name}: no such file; add it or remove its row") from None
    except decode.Unfit as e:
        raise DataError(f"{path / name}: {e}") from None


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


def rules_of(size: Any, fit: str, grey: bool, bits: int | None, window: Any) -> Rules:
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
