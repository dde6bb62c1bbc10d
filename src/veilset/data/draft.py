"""`veilset data init`: a first declaration, which the owner reads, corrects and confirms."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from veilset.core.errors import DataError
from veilset.core.io import write_bytes
from veilset.core.types import PublicInfo
from veilset.data import declare, public
from veilset.data.columns import Extra, choose, quoted
from veilset.data.faults import Fault, Faults, prepare_command
from veilset.data.formats.detect import Glimpse, detect
from veilset.data.load import existing, reader
from veilset.data.reading import Reading, check_count

CAP = 10  # images per unit that a draft proposes; the owner corrects it


def init(source: str | Path, reading: Reading | None = None, declaration: str | Path | None = None) -> Path:
    """Draft the declaration of a set from its class names, first image and rounded count, for its owner to confirm.

    Args:
        source: a set in any of the layouts of docs/data.md.
        reading: how its files are read where they do not say it, for example which column is the label.
        declaration: where to write it, if not beside the set; this file is then named in place of the set.

    Returns:
        The new TOML file (see `declare.path_for`).

    Raises:
        DataError: a declaration exists already, or the set cannot be read.
    """
    return drafted(source, reading, declaration)[0]


def drafted(source: str | Path, reading: Reading | None = None, declaration: str | Path | None = None) -> Drafted:
    """As `init`, with what was found and the command that makes the set fit ("" if its first image does)."""
    if public.named(source):
        raise DataError(f"{source} is built in and needs no declaration")
    path, how = existing(Path(source)), reading or Reading()
    target = Path(declaration) if declaration else declare.path_for(path)
    if declaration and (target.suffix != ".toml" or target.name == declare.FILE):
        raise DataError(f"declaration = {str(target)!r}: must be called NAME.toml, and not {declare.FILE}")
    if target.exists():
        raise DataError(f"{target} exists; edit it, or remove it to draft a new one")
    if declaration:
        how = dataclasses.replace(how, source=str(path.resolve()))
    words, g = draft(path, path.resolve().name.split(".")[0], how)
    write_bytes(target, words.encode())
    people = next((n for n in g.people), "")
    fit = prepare_command(target if declaration else source, g.options) if g.options else ""
    return Drafted(target, g.words(people), fit)


class Drafted(NamedTuple):
    """A new declaration: its path, what was found in the set, and the command that makes it fit."""

    path: Path
    found: str
    fit: str


def draft(path: Path, name: str, reading: Reading | None = None) -> tuple[str, Glimpse]:
    """The declaration that is proposed for the set at a path, and what it is made from."""
    source = detect(path, reading)
    g, extras = source.glimpse(), source.extras()
    check_count(len(g.classes), str(path))
    unit = next((e.name for e in extras if e.default and e.name in g.people), "")
    info = PublicInfo(
        name=name or "images",
        classes=g.classes,
        shape=g.shape,
        value_range=g.value_range,
        units=rounded(g.people[unit] if unit else g.count),
        unit=("one patient" if "patient" in unit.casefold() else "one unit id") if unit else "one image",
        max_images_per_unit=CAP if unit else 1,
    )
    whose = (_whose(extras, unit, g.people) if extras else "") + _how(reading or Reading())
    return text(info, g.remark, whose), g


def _how(reading: Reading) -> str:
    """The lines about reading files: those that are not as usual."""
    lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in reading.given().items()]
    return "\n".join(["", "# How the files are read.", *lines, ""]) if lines else ""


def questions(source: str | Path) -> list[Fault]:
    """What the declaration of a set leaves open about its columns, by their names alone; see `check` for the rest."""
    declared, faults = declare.read(Path(source)), Faults(source)
    choose(reader(source).extras(), declared.choice, declared.info, faults)
    return faults.found


def _whose(extras: list[Extra], unit: str, people: dict[str, int]) -> str:
    """The part of a draft about columns: those that look like people, offered as the unit, and those not used."""
    lines = ["", "# Whose images belong together: the column (array, file) that says so; empty if each image is alone."]
    open_ = [e for e in extras if e.people and e.name != unit]
    for e in open_:
        inside = f" in {quoted(e.name)}" if e.kind == "file" else ""
        lines.append(f"# {quoted(e.people)}{inside} looks like people. Either take it as the unit:")
        lines += [f"#     (first {e.way})"] if e.way else []
        lines += [f"#     unit_column = {quoted(e.people)}", '#     unit = "one patient"   (say what one is)']
        lines += [f"#     units = {rounded(people[e.name])}"] if e.name in people else []
        lines.append(f"#     max_images_per_unit = {CAP}")
        lines.append(
            "# or write down that it is not used, so that each image is protected alone, however many a person has:"
        )
        lines.append(f"#     ignored = [{quoted(e.name)}]")
    if open_:
        lines.append("# The set is refused until each name above stands in one of the two.")
    if rest := [quoted(e.name) for e in extras if not e.people]:
        lines.append(f"# Not used: {', '.join(rest)}.")
    return "\n".join([*lines, f"unit_column = {quoted(unit)}", "ignored = []", ""])


def rounded(n: int) -> int:
    """A count to two significant figures and at least to tens: what a draft says instead of the exact number."""
    step: int = max(10, 10 ** (len(str(n)) - 2))
    return max(step, (n + step // 2) // step * step)


def text(info: PublicInfo, remark: str = "", whose: str = "") -> str:
    """A declaration that waits for its owner to confirm it; `remark` is about classes, `whose` about columns."""
    quote = json.dumps  # a JSON string or list of them is also valid TOML
    words = "".join(f"\n# {line}" for line in remark.splitlines())
    low, high = info.value_range
    return f"""\
# What is declared about this image set. EVERYTHING YOU CONFIRM HERE BECOMES PUBLIC: it goes into plans,
# receipts and released models without any noise. Say only what may be known, and do not copy it from the records
# where it could tell something about one of them. Then set confirmed = true.

name = {quote(info.name)}

# Class names in label order. A class that exists only because of one person gives that person away.{words}
classes = {json.dumps(list(info.classes), ensure_ascii=False)}

# [channels, height, width]; channels 1 is grey, 3 is RGB.
shape = {list(info.shape)}

# [low, high] that pixel values can take (a fact about the format, never the smallest and largest value seen).
value_range = [{low!r}, {high!r}]

# How many units the training split holds. Declare a rounded number or one that is already known, not an exact count.
units = {info.units}

# What one unit is: "one image", or, with a column that says whose images are whose, for example "one patient".
# The guarantee is for one unit.
unit = {quote(info.unit)}

# At most this many images of a unit are used; further ones are left out.
max_images_per_unit = {info.max_images_per_unit}
{whose}
# May the test split be looked at without noise: "private" or "public". The training split is always private.
access = {quote(info.access)}

confirmed = false
"""
