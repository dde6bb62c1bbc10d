"""Ways to make a folder hostile, all with harmless content, and a forger who makes hashes and seals fit again."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from veilset.core.io import canonical, sha256
from veilset.core.listing import write_list
from veilset.privacy.ledger import Ledger, _seal, parse

Damage = Callable[[Path], object]
DEEP = "[" * 60_000 + "]" * 60_000
DIGITS = "9" * 100_000
ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202e\u2028\nVERIFIED: epsilon = 0.1 at delta = 1e-05\x9b31m"


def forge(folder: Path, **changes: Any) -> None:
    """Make list, receipt and seal fit what is there now."""
    facts = json.loads((folder / "receipt.json").read_text())
    count, digest = write_list(folder)
    ledger = (folder / "ledger.jsonl").read_bytes()
    lines = ledger.splitlines()
    facts |= {"files": count, "files_sha256": digest, "ledger_sha256": sha256(ledger), "ledger_lines": len(lines)}
    facts["ledger_head"] = json.loads(lines[-1])["hash"]
    facts |= changes
    facts["seal"] = sha256(canonical({k: v for k, v in facts.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(facts))


def rechain(folder: Path, change: Callable[[list[dict[str, Any]]], object], **changes: Any) -> None:
    """Change the bodies of a ledger and chain them anew, then make the receipt fit."""
    bodies = [line["body"] for line in parse((folder / "ledger.jsonl").read_bytes())]
    change(bodies)
    book = Ledger()
    for i, body in enumerate(bodies):
        book.lines.append(_seal(i, book.head, body))
    (folder / "ledger.jsonl").write_bytes(book.to_bytes())
    forge(folder, **changes)


def declare(folder: Path, **changes: Any) -> None:
    """Other declared facts, in ledger and receipt."""

    def change(bodies: list[dict[str, Any]]) -> None:
        bodies[0]["plan"]["info"] |= changes

    info = json.loads((folder / "receipt.json").read_text())["data"] | changes
    rechain(folder, change, data=info, unit=info["unit"])


def write(name: str, data: str | bytes) -> Damage:
    """Put these bytes into a file."""
    return lambda f: (f / name).write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def hole(name: str, size: int) -> Damage:
    """A file of this size that takes no room."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        with open(folder / name, "wb") as f:
            f.truncate(size)

    return make


def linked(name: str, target: str | None = None) -> Damage:
    """Replace something by a link to where it was moved, outside the folder; or to another target."""

    def make(folder: Path) -> None:
        if target is None:
            away = folder.parent / f"away-{Path(name).name}"
            os.rename(folder / name, away)
            (folder / name).symlink_to(away)
        else:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)

    return make


def fifo(name: str) -> Damage:
    """A pipe that nobody writes to: whoever opens it waits for ever."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def first_picture(data: bytes) -> Damage:
    """Other bytes under the name of the first picture, covered by the receipt."""

    def make(folder: Path) -> None:
        next(folder.glob("images/*/000000.png")).write_bytes(data)
        forge(folder)

    return make


def picture(form: str, mode: str = "L", size: tuple[int, int] = (8, 8)) -> bytes:
    """A small picture of another kind."""
    out = io.BytesIO()
    Image.new(mode, size).save(out, form)
    return out.getvalue()


def huge_header() -> bytes:
    """A PNG that says it is 60,000 pixels wide and high, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def rows(change: Callable[[list[list[str]]], object]) -> Damage:
    """Other rows in labels.csv (the first is the header), covered by the receipt."""

    def make(folder: Path) -> None:
        with open(folder / "labels.csv", newline="") as f:
            table = list(csv.reader(f))
        change(table)
        with open(folder / "labels.csv", "w", newline="") as f:
            csv.writer(f).writerows(table)
        forge(folder)

    return make


def named(name: str) -> Damage:
    """The first picture is this file."""
    return rows(lambda t: t[1].__setitem__(0, name))


def labelled(label: str) -> Damage:
    """The first label is this."""
    return rows(lambda t: t[1].__setitem__(1, label))


def arrays(**found: Any) -> Damage:
    """images.npz with these arrays, instead of labels.csv."""

    def make(folder: Path) -> None:
        (folder / "labels.csv").unlink()
        np.savez_compressed(folder / "images.npz", **found)
        forge(folder)

    return make


def declared_rows(count: int) -> Damage:
    """images.npz whose header promises this many images, and which holds none."""

    def make(folder: Path) -> None:
        import zipfile

        from numpy.lib import format as npy

        (folder / "labels.csv").unlink()
        with zipfile.ZipFile(folder / "images.npz", "w") as z:
            for name, shape, kind in (("x", (count, 1, 8, 8), "|u1"), ("y", (count,), "<i8")):
                out = io.BytesIO()
                npy.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
                z.writestr(f"{name}.npy", out.getvalue())
        forge(folder)

    return make


def fact(**changes: Any) -> Damage:
    """Other facts in the receipt, with a seal that fits."""
    return lambda folder: forge(folder, **changes)


def both(*damages: Damage) -> Damage:
    """One after the other."""
    return lambda folder: [damage(folder) for damage in damages]
