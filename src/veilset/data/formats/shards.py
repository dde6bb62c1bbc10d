"""WebDataset's tar shards: members that share a name up to its first dot are one image with its label."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from veilset.core.errors import DataError
from veilset.data.columns import Extra, extra, fold
from veilset.data.decode import is_picture
from veilset.data.faults import Faults
from veilset.data.formats.detect import natural
from veilset.data.formats.folder import has_pictures, litter, utf8
from veilset.data.formats.items import Item, ItemSource, inside, only, text
from veilset.data.reading import part_in

SUFFIXES = (".tar", ".tar.gz", ".tgz")
LABELS = ("cls", "class", "label", "txt")  # members that are a label as a whole
KEYS = ("label", "class", "cls")  # keys of a .json member that are the label
MOST_MEMBER = 1 << 28
BROKEN = (tarfile.TarError, zlib.error, EOFError, OSError)


def is_shards(path: Path) -> bool:
    """Whether a path is a shard, or a folder that holds some."""
    return any(_shards(path)) and (path.is_file() or not has_pictures(path))


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(SUFFIXES) else []
    found = [p for p in path.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES) and p.name[0] != "."]
    inner = [p for d in path.iterdir() if d.is_dir() for p in d.iterdir() if p.name.lower().endswith(SUFFIXES)]
    return sorted(found or inner, key=lambda p: natural(p.as_posix()))


class ShardSource(ItemSource):
    """A shard, or a folder of them; train, val or test in the name of a shard or of its folder is its part."""

    uses: tuple[str, ...] = ("label_from", "most_bytes")

    def has_test(self) -> bool:
        """Whether a shard is of the test split."""
        return any(self._part(p) == 1 for p in _shards(self._path))

    def _part(self, path: Path) -> int:
        return part_in(path.relative_to(self._path).as_posix() if path != self._path else path.name)

    def extras(self) -> list[Extra]:
        """Keys of the first .json member that are not the label."""
        return [extra(k, "key", self._path.name) for k in self._keys if fold(k) != fold(self._label_key)]

    @cached_property
    def _keys(self) -> list[str]:
        for path in _shards(self._path)[:1]:
            for _, members in self._samples(path, Faults(self._path), headers=True):
                return [k for k, v in _facts(members.get("json", b"")).items() if isinstance(v, str | int | float)]
        return []

    @property
    def _label_key(self) -> str:
        if self._reading.label_from:
            return self._reading.label_from
        return only([k for k in KEYS if k in self._keys], self._keys, str(self._path))

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every sample of every shard."""
        for path in _shards(self._path):
            for key, members in self._samples(path, faults, headers):
                where = f"{path.name}: {key}"
                picture = next((v for k, v in members.items() if is_picture(f"x.{k}")), None)
                if picture is None:
                    faults.add(where, "has no picture", "write the shard again")
                    continue
                facts = _facts(members.get("json", b""))
                label = self._label_of(members, facts)
                yield Item(
                    where, label, self._part(path), partial(bytes, picture), {k: text(v) for k, v in facts.items()}
                )

    def _label_of(self, members: dict[str, bytes], facts: dict[str, Any]) -> str:
        """The declared key or member, else the first that is called like a label."""
        wanted = self._reading.label_from
        if wanted and wanted not in members:
            return text(facts.get(wanted))
        name = wanted or next((n for n in LABELS if n in members), "")
        if name:
            return members[name].decode("utf-8", "replace").strip()
        return text(facts.get(self._label_key))

    def _samples(self, path: Path, faults: Faults, headers: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
        """(key, member by the rest of its name); with `headers` pictures are empty, but for a shard's first sample."""
        key, members, total, first = "", dict[str, bytes](), 0, True
        try:
            with tarfile.open(path, "r|*") as tar:
                for m in tar:
                    if m.isdir() or litter(Path(m.name).name) or Path(m.name).name.startswith("."):
                        continue
                    if not inside(m.name.removeprefix("./")) or not m.isreg():
                        what = "is a link or device" if not m.isreg() else "is not a path inside the archive"
                        shown = m.name.encode("utf-8", "backslashreplace").decode()
                        faults.add(f"{path.name}: {shown}", what, "write the shard again")
                        continue
                    utf8(Path(m.name))
                    total += m.size
                    if total > self._reading.most_bytes or m.size > MOST_MEMBER:
                        what = f"would unpack to more than {min(self._reading.most_bytes, MOST_MEMBER)} bytes"
                        raise DataError(f"{path}: {m.name} {what}; declare more (most_bytes) if it is meant")
                    folder, _, last = m.name.rpartition("/")
                    stem, _, rest = last.partition(".")
                    name = f"{folder}/{stem}" if folder else stem
                    if name != key and members:
                        yield key, members
                        members, first = {}, False
                    key = name
                    skip = headers and not first and is_picture(last)
                    f = tar.extractfile(m)
                    members[rest.lower()] = b"" if skip or f is None else f.read()
        except BROKEN as e:
            faults.add(path.name, f"damaged or cut short ({str(e)[:60] or type(e).__name__})", "restore the shard")
            return
        if members:
            yield key, members


def _facts(data: bytes) -> dict[str, Any]:
    """What a .json member says; nothing if it is no object."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
