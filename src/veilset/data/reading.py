"""How the files of a set are to be read where they do not say it themselves: the owner declares it once."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from veilset.core.errors import DataError
from veilset.data.records import Array

MOST_CLASSES = 10_000  # more are dates, ids or measurements, not classes
MOST_BYTES = 1 << 38  # what an archive may unpack to, unless declared otherwise: 256 GiB
# Words for the parts of a set, in any case; -1: neither training nor test.
PARTS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("test", "testing"), 1),
    **dict.fromkeys(("val", "validation", "valid", "dev", "eval"), -1),
}
SPLITS = ("train", "test")
LEFT_OUT = -1


@dataclass(frozen=True)
class Reading:
    """What a declaration says about reading files; each is left out where it is not needed.

    Attributes:
        source: where the set lies, if the declaration lies elsewhere.
        label_from: the column, tag, array or key that is the label; "y[3]" is column 3 of array y.
        labels: a table of labels, by path from the set's folder.
        label_offset: what is taken from a label that is a number before it counts as an index into `classes`.
        transpose: whether rows and columns of each image are exchanged (EMNIST's IDX files).
        window: (low, high) of the stored values that become 0 and 255.
        axis: the axis along which a volume is cut into images, 0, 1 or 2.
        most_bytes: what an archive may unpack to.
    """

    source: str = ""
    label_from: str = ""
    labels: str = ""
    label_offset: int = 0
    transpose: bool = False
    window: tuple[float, float] | None = None
    axis: int = 2
    most_bytes: int = MOST_BYTES

    def given(self) -> dict[str, Any]:
        """The fields that are not as usual."""
        usual = Reading()
        return {n: v for n, v in dataclasses.asdict(self).items() if v != getattr(usual, n)}

    def __post_init__(self) -> None:
        if self.window and not self.window[0] < self.window[1]:
            raise DataError(f"window = {list(self.window)}: must be [low, high] with low < high")
        if self.axis not in (0, 1, 2):
            raise DataError(f"axis = {self.axis}: must be 0, 1 or 2")
        if self.most_bytes < 1:
            raise DataError(f"most_bytes = {self.most_bytes}: must be at least 1")


def part_of(word: str) -> int | None:
    """0 for a word that means training, 1 for test, LEFT_OUT for validation, None for any other word."""
    return PARTS.get(word.strip().casefold())


def part_in(path: str) -> int:
    """The part by the first word in a path that means one: "train-00000-of-00002.parquet"; training if none does."""
    words = (part_of(word) for word in re.split(r"[^A-Za-z]+", path))
    return next((part for part in words if part is not None), 0)


def same(name: str) -> str:
    """A name as names of classes and files are compared: composed, so that two ways to write an accent are one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class Numbers:
    """Which class a label that is a number means.

    If all declared classes are numbers, a label is one of them: 30 means the class "30". Else it is an index into them,
    less the declared offset.
    """

    def __init__(self, classes: tuple[str, ...], reading: Reading):
        named = all(c.isascii() and c.removeprefix("-").isdigit() for c in classes) and not reading.label_offset
        self._of = {int(c) if named else k + reading.label_offset: k for k, c in enumerate(classes)}

    def indices(self, numbers: Array) -> Array:
        """The index of the class of each number [n], -1 for one that is not declared."""
        seen, inverse = np.unique(numbers, return_inverse=True)
        return np.array([self._of.get(int(v), -1) for v in seen], np.int64)[inverse.reshape(-1)]

    def __len__(self) -> int:
        return len(self._of)

    def __str__(self) -> str:
        """The labels that are declared: "0..9" or "10, 30"."""
        some = sorted(self._of)
        if some[-1] - some[0] == len(some) - 1:
            return f"{some[0]}..{some[-1]}"
        return ", ".join(map(str, some[:10])) + (", ..." if len(some) > 10 else "")


def check_count(count: int, what: str) -> None:
    """Refuse more classes than anybody has.

    Raises:
        DataError: more than MOST_CLASSES.
    """
    if count > MOST_CLASSES:
        raise DataError(
            f"{what}: {count} different labels, at most {MOST_CLASSES} can be classes; choose what is the label"
        )
