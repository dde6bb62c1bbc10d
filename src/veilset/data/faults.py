"""What can be wrong with an image set. Faults speak to the owner only and are outside the guarantee (threat model)."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.reading import Numbers
from veilset.data.records import Array


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, in one line.

    Attributes:
        where: the file, and the row or record in it.
        what: what is wrong.
        todo: the way out.
        severity: "fault" keeps the gate closed; "note" is a remark for the owner.
    """

    where: str
    what: str
    todo: str
    severity: str = "fault"

    def __str__(self) -> str:
        return re.sub(r"[\r\n\t\v\f]+", " ", f"{self.where}: {self.what}; {self.todo}")


def command(verb: str, source: str | Path, options: str = "") -> str:
    """`veilset data VERB SOURCE ...` in backquotes, so that a shell runs it as it is printed."""
    path = str(source)
    return f"`veilset data {verb} {shlex.quote(f'./{path}' if path.startswith('-') else path)}{options}`"


def prepare_command(source: str | Path, options: str = "") -> str:
    """The command that converts a set into a folder beside where the user stands."""
    name = Path(source).name.split(".")[0] or "images"
    return command("prepare", source, f" --out {shlex.quote(f'{name}-prepared')}{options and f' {options}'}")


class Faults:
    """Collects what one pass over a set finds.

    Args:
        source: the set as the user named it, for the messages.
        jobs: on how many processes readers may look for faults.
    """

    def __init__(self, source: str | Path, jobs: int = 1):
        self.source, self.jobs = source, jobs
        self.found: list[Fault] = []

    def add(self, where: str, what: str, todo: str) -> None:
        """A fault: the set cannot be used as it is."""
        self.found.append(Fault(where, what, todo))

    def note(self, where: str, what: str, todo: str) -> None:
        """A remark: the set can be used."""
        self.found.append(Fault(where, what, todo, "note"))

    def convert(self, where: str, what: str, options: str = "") -> None:
        """A fault that a declared conversion repairs, by `prepare` with these options."""
        self.add(where, what, f"convert the set by declared rules, for example {prepare_command(self.source, options)}")

    def raise_first(self) -> None:
        """Raise DataError with the first fault and the number of others, if there is any fault."""
        real = [f for f in self.found if f.severity == "fault"]
        if real:
            more = f" (and {len(real) - 1} more; run {command('check', self.source)})" if len(real) > 1 else ""
            raise DataError(f"{real[0]}{more}")


def takes_bytes(info: PublicInfo) -> bool:
    """Whether every byte lies in the declared range."""
    return info.value_range[0] <= 0 and info.value_range[1] >= 255


def check_values(faults: Faults, info: PublicInfo, rows: Array, first: int, where: str) -> None:
    """Report every record of rows [n, ...], numbered from `first`, with a value that is not finite or out of range."""
    low, high = info.value_range
    if rows.dtype == np.uint8 and takes_bytes(info):
        return
    flat = rows.reshape(len(rows), -1)
    finite = np.isfinite(flat).all(axis=1) if rows.dtype.kind == "f" else np.ones(len(rows), bool)
    # A comparison with NaN is false, so a record with NaN is reported once, as not finite.
    outside = finite & ((flat < low) | (flat > high)).any(axis=1)
    for i in np.flatnonzero(~finite).tolist():
        faults.add(f"{where} record {first + i}", "holds NaN or infinity", "repair or remove this image")
    for i in np.flatnonzero(outside).tolist():
        faults.add(
            f"{where} record {first + i}",
            f"holds a value outside the declared value_range [{low:g}, {high:g}]",
            "repair this image, or declare another range (it is public)",
        )


def check_labels(faults: Faults, numbers: Numbers, labels: Array, where: str, first: int = 0) -> Array:
    """The index of the class of each label [n], numbered from `first`; reports those that are none (index -1)."""
    out = numbers.indices(labels)
    for i in np.flatnonzero(out < 0).tolist():
        faults.add(
            f"{where} record {first + i}",
            f"label {int(labels[i])} is not one of the {len(numbers)} declared classes ({numbers})",
            "correct the label, or declare the class (the list is public)",
        )
    return out


def check_empty(faults: Faults, info: PublicInfo, labels: Array) -> None:
    """Name the declared classes of which the training labels [n] hold none: a release has images of noise for them."""
    seen = np.bincount(labels[(labels >= 0) & (labels < len(info.classes))], minlength=len(info.classes))
    names = [repr(name) for name, n in zip(info.classes, seen.tolist(), strict=True) if not n]
    if names and len(labels):
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        what = f"no training image has the label {', '.join(names[:10])}{more}"
        faults.note("classes", what, "a release holds noise under it; declare other classes if that is not meant")


def check_units(faults: Faults, info: PublicInfo, count: int, units: Array | None, where: str) -> None:
    """Compare the training split with what was declared about units: [n] dense ids, or None for one image per unit."""
    if units is None:
        if info.max_images_per_unit > 1:
            faults.add(
                where,
                f"max_images_per_unit = {info.max_images_per_unit} is declared but no column is the unit",
                "declare one as unit_column, or max_images_per_unit = 1",
            )
        elif info.unit != "one image":
            faults.note(
                where,
                f"the declared unit is {info.unit!r} but no column is the unit, so each image counts as one",
                "this is right only if no two images belong to the same unit",
            )
        actual = count
    else:
        sizes = np.bincount(units) if len(units) else np.zeros(0, np.int64)
        actual, over = len(sizes), int((sizes > info.max_images_per_unit).sum())
        if over:
            faults.note(
                where,
                f"{over} units have more than the declared max_images_per_unit = {info.max_images_per_unit} images",
                "images above it are left out",
            )
        if info.unit == "one image":
            faults.note(where, "a column is the unit, the declared unit is 'one image'", "say what a unit is")
    if actual != info.units:
        faults.note(
            where,
            f"the training split holds {actual} units, declared are {info.units}",
            "nothing to do if the declared number is the one you want to be public",
        )
