"""CIFAR's binary form: records of one label (CIFAR-10) or two (CIFAR-100) and 3 x 32 x 32 bytes. Never its pickles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from veilset.core.errors import DataError
from veilset.data.columns import Extra, beside
from veilset.data.faults import Faults
from veilset.data.formats.detect import natural
from veilset.data.formats.items import Item, ItemSource
from veilset.data.reading import Reading

FILES = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")
NAMES = {"": "batches.meta.txt", "fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"}
PIXELS, CHUNK = 3072, 1000


def is_cifar(path: Path) -> bool:
    """Whether a folder holds such files."""
    return any(FILES.fullmatch(p.name) for p in path.iterdir())


class CifarSource(ItemSource):
    """A folder of data_batch_1.bin ... test_batch.bin, or train.bin and test.bin, and the names of the classes."""

    uses: tuple[str, ...] = ("label_from",)

    def __init__(self, path: Path, reading: Reading | None = None):
        super().__init__(path, reading)
        self._files = sorted((p for p in path.iterdir() if FILES.fullmatch(p.name)), key=lambda p: natural(p.name))
        self._two = (path / NAMES["fine"]).is_file() or any(p.name in ("train.bin", "test.bin") for p in self._files)
        kind = self._reading.label_from or ("fine" if self._two else "")
        if kind not in (("fine", "coarse") if self._two else ("",)):
            allowed = "fine or coarse" if self._two else "left out"
            raise DataError(f"label_from = {kind!r}: must be {allowed} for this set")
        self._at, names = int(kind == "fine"), path / NAMES[kind]
        self._names = [n for n in names.read_text().split("\n") if n.strip()] if names.is_file() else []

    def has_test(self) -> bool:
        """Whether there is a file for it."""
        return any(p.name.startswith("test") for p in self._files)

    def extras(self) -> list[Extra]:
        """Tables beside the files."""
        return beside(self._path, NAMES.values())

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every record of every file."""
        size = PIXELS + 1 + self._two
        for path in self._files:
            if path.stat().st_size % size:
                faults.add(path.name, f"cut short: its size is no multiple of {size} bytes", "restore it")
                continue
            part, done = int(path.name.startswith("test")), 0
            with path.open("rb") as f:
                while data := f.read(size * CHUNK):
                    for i, record in enumerate(np.frombuffer(data, np.uint8).reshape(-1, size), start=done):
                        label, pixels = int(record[self._at]), record[-PIXELS:].reshape(3, 32, 32).transpose(1, 2, 0)
                        name = str(label)
                        if self._names and label >= len(self._names):
                            faults.add(f"{path.name} record {i}", f"label {label} has no name", "restore the file")
                        elif self._names:
                            name = self._names[label].strip()
                        yield Item(f"{path.name} record {i}", name, part, partial(np.asarray, pixels))
                    done += len(data) // size
