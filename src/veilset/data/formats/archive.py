"""A zip of an image folder (classes, splits, labels.csv), read in place: nothing of it is unpacked to a named file."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import IO

from veilset.core.errors import DataError
from veilset.data.columns import CLOSED, INTO_TABLE, READABLE, Extra, extra, fold
from veilset.data.decode import Unfit, is_picture
from veilset.data.faults import Faults
from veilset.data.formats.folder import class_of, litter, note_skipped
from veilset.data.formats.items import Item, ItemSource, inside
from veilset.data.formats.table import COLUMNS, FILE, label_of, parse_rows
from veilset.data.people import looks_like_people
from veilset.data.reading import LEFT_OUT, part_of, same

MOST_PICTURE = 1 << 28  # bytes of one picture
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HEAD = struct.Struct("<4s22xHH")  # of a member: mark, lengths of name and of what follows it
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


class ZipSource(ItemSource):
    """One zip file. Its names are looked at before anything is unpacked."""

    uses: tuple[str, ...] = ("label_from", "most_bytes")

    def has_test(self) -> bool:
        """Whether a folder or a row is of the test split."""
        if FILE in self._members:
            return super().has_test()
        deep = (n for n in self._members if n.count("/") > 1 and is_picture(n))
        return any(part_of(n.split("/", 1)[0]) == 1 for n in deep)

    def extras(self) -> list[Extra]:
        """Other columns of labels.csv, and other tables in the archive."""
        used = ("file", "split", fold(self._reading.label_from)) if self._reading.label_from else COLUMNS
        head = self._text(FILE).split("\n", 1)[0] if FILE in self._members else ""
        columns = [extra(c.strip(), "column", FILE) for c in head.split(",") if c.strip() and fold(c) not in used]
        for name in self._members:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in READABLE + CLOSED and name not in (FILE, "veilset.toml"):
                people = last if looks_like_people(last := stem.rpartition("/")[2]) else ""
                columns.append(Extra(name, "file", name, people, INTO_TABLE, closed=True))
        return columns

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            z = zipfile.ZipFile(self._path)
        except BROKEN:
            raise DataError(f"{self._path}: not a zip archive, or cut short; restore it") from None
        size, most = sum(m.file_size for m in z.infolist()), self._reading.most_bytes
        if size > most:
            what = f"would unpack to {size} bytes, most_bytes is {most}"
            raise DataError(f"{self._path}: {what}; declare more (--most-bytes) if it is meant")
        return z

    @cached_property
    def _file(self) -> IO[bytes]:
        return open(self._path, "rb")  # closed with the reader

    @cached_property
    def _skipped(self) -> list[str]:
        return []

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        """Files by their path below the folder that all share, without litter.

        Raises:
            DataError: a path that leads out of the archive, an encrypted file, or two of one name.
        """
        found: dict[str, zipfile.ZipInfo] = {}
        for m in self._zip.infolist():
            name = m.orig_filename
            if not inside(name.removesuffix("/")):
                raise DataError(f"{self._path}: member {name!r} is not a path inside the archive; write it again")
            if m.is_dir():
                continue
            if m.flag_bits & 1:
                raise DataError(f"{self._path}: member {name!r} is encrypted; write the archive without a password")
            if name in found:
                raise DataError(f"{self._path}: holds {name!r} twice; write it again")
            parts = name.split("/")
            if any(litter(p) for p in parts):
                self._skipped.append(next(p for p in parts if litter(p)))
            elif not any(p.startswith(".") for p in parts):
                found[name] = m
        return {n.split("/", 1)[1]: m for n, m in found.items()} if _wrapped(found) else found

    def _read(self, name: str) -> bytes:
        m = self._members[name]
        if m.file_size > MOST_PICTURE:
            raise Unfit(f"would unpack to {m.file_size} bytes, a picture has {MOST_PICTURE} at most")
        try:
            return _unpacked(self._file, m) if m.compress_type in PLAIN else self._zip.read(m)
        except BROKEN as e:
            raise Unfit(f"damaged in the archive ({str(e)[:60] or type(e).__name__})") from None

    def _text(self, name: str) -> str:
        try:
            return self._read(name).decode("utf-8-sig")
        except (Unfit, UnicodeDecodeError) as e:
            raise DataError(f"{self._path}: {name}: cannot be read ({e}); write it as UTF-8 with commas") from None

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every picture, by the rows of labels.csv or by folders."""
        members = self._members
        note_skipped(self._skipped, faults, self._path.name)
        if FILE in members:
            yield from self._rows(faults)
            return
        for name in members:
            label, part = class_of(name)
            if is_picture(name):
                yield Item(name, label, part, partial(self._read, name))
            elif label and name.count("/"):
                faults.add(name, "not an image file by its name", "leave it out of the archive")

    def _rows(self, faults: Faults) -> Iterator[Item]:
        names, listed = {same(n): n for n in self._members}, set[str]()
        f = io.StringIO(self._text(FILE), newline="")
        original = {fold(e.name): e.name for e in self.extras()}
        for line, row in parse_rows(f, faults, fold(self._reading.label_from)):
            where, name = f"{FILE} line {line}: {row['file']}", names.get(same(row["file"]))
            if name is None or name in listed:
                faults.add(where, "no such file" if name is None else "is listed twice", "correct the row")
                continue
            listed.add(name)
            part = part_of(row.get("split", "train"))
            values = {original[c]: v for c, v in row.items() if c in original}
            yield Item(where, label_of(row), LEFT_OUT if part is None else part, partial(self._read, name), values)
        for name in self._members:
            if is_picture(name) and name not in listed:
                faults.add(name, f"label is missing: no row in {FILE}", "add a row or leave it out")


def _unpacked(f: IO[bytes], m: zipfile.ZipInfo) -> bytes:
    """One member; as zipfile reads it, in a third of the time for small ones. Raises one of BROKEN."""
    head = os.pread(f.fileno(), HEAD.size, m.header_offset)
    mark, name, more = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0)
    if mark != b"PK\3\4":
        raise zipfile.BadZipFile("its header is damaged")
    data = os.pread(f.fileno(), m.compress_size, m.header_offset + HEAD.size + name + more)
    if m.compress_type == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, m.file_size + 1)
    if len(data) != m.file_size or zlib.crc32(data) != m.CRC:
        raise zipfile.BadZipFile("its checksum or size is wrong")
    return data


def _wrapped(names: Iterable[str]) -> bool:
    """Whether all lies in one folder that is neither a class nor a split."""
    names = list(names)
    tops = {n.split("/")[0] for n in names}
    if len(tops) != 1 or not all("/" in n for n in names) or part_of(top := tops.pop()) is not None:
        return False
    return f"{top}/{FILE}" in names or not any(n.count("/") == 1 and is_picture(n) for n in names)


def is_zip(path: Path) -> bool:
    """Whether a file is called .zip."""
    return path.suffix.lower() == ".zip"
