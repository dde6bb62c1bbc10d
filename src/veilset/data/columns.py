"""What a set holds beside pictures and labels: columns, arrays and tables, each named, one of them perhaps the unit.

Whose images belong together decides what the guarantee is for. So a name that looks like people is never passed over:
it is the unit, or the declaration says in `ignored` that it is not.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from veilset.core.errors import suggest
from veilset.core.types import PublicInfo
from veilset.data.faults import Faults
from veilset.data.people import looks_like_people

UNIT = "unit"  # the name that needs no declaration
HEAD = 1 << 16  # what is read of a table that no reader uses: enough for its header
READABLE = (".csv", ".tsv", ".tab", ".psv", ".dat", ".txt", ".json", ".jsonl", ".ndjson")
CLOSED = (
    ".xlsx",
    ".xls",
    ".ods",
    ".parquet",
    ".feather",
    ".npz",
    ".npy",
    ".mat",
    ".h5",
    ".hdf5",
    ".db",
    ".sqlite",
    ".xml",
    ".yaml",
    ".yml",
    ".gz",
    ".zip",
)
PROSE = re.compile(r"(?i)(readme|licen[cs]e|copying|notice|citation|changes|changelog|requirements)\b")
OWN = ("receipt.json", "ledger.jsonl")  # what a release brings along, which speaks of a unit, too
INTO_TABLE = "list the images in labels.csv with file, label and this column"
LONGEST = 100  # characters of a foreign name in a message


@dataclass(frozen=True)
class Choice:
    """What a declaration says about columns (or arrays, or files) beside pictures and labels.

    Attributes:
        unit_column: the one that says to whom an image belongs; empty: `unit`, where there is one that is not ignored.
        ignored: names that the owner has seen and does not use.
    """

    unit_column: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extra:
    """One thing in a set that is neither picture, label nor split.

    Attributes:
        name: as the owner writes it in the declaration.
        kind: "column", "array" or "file".
        where: the file it is in.
        people: the name that looks like people, or "".
        way: what must be done before it can be the unit; "" if it can be as it lies there.
        default: whether it is the unit where the declaration does not say so.
        closed: whether its contents were not looked at.
    """

    name: str
    kind: str
    where: str
    people: str = ""
    way: str = ""
    default: bool = False
    closed: bool = False


def extra(name: str, kind: str, where: str, plain: str | None = None) -> Extra:
    """A column or array by its name; `plain` is that name without the split it is for."""
    people = name if looks_like_people(name) else ""
    return Extra(name, kind, where, people, default=fold(plain or name) == UNIT)


def fold(name: str) -> str:
    """A name as names are compared: without case, outer blanks, and differences of Unicode that nobody sees."""
    return unicodedata.normalize("NFKC", name).strip().strip("\ufeff").casefold()


def quoted(name: str) -> str:
    """A foreign name in quotes, fit for one line of a terminal and for TOML."""
    text = name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
    return json.dumps(text, ensure_ascii=not text.isprintable()).replace("\x7f", "\\u007f")


def choose(extras: list[Extra], choice: Choice, info: PublicInfo, faults: Faults) -> Extra | None:
    """The unit column; None if each image is a unit. Reports a name that looks like people and is not decided on."""
    ignored = {fold(n) for n in choice.ignored}
    open_ = [e for e in extras if fold(e.name) not in ignored]
    wanted = fold(choice.unit_column)
    unit = next((e for e in open_ if (fold(e.name) == wanted if wanted else e.default)), None)
    if wanted and (unit is None or unit.way):
        _nowhere(choice.unit_column, extras, faults)
        return None
    for e in open_:
        if e.people and e is not unit:
            _undecided(e, unit, faults)
    _unused([e for e in open_ if not e.people and e is not unit], faults)
    for name in choice.ignored:
        if fold(name) not in {fold(e.name) for e in extras}:
            faults.note("ignored", f"{quoted(name)} is not in this set", "correct the name, or remove it")
    given_up = [e.name for e in extras if e.people and fold(e.name) in ignored]
    if unit is None and given_up and info.unit != "one image":
        what = f"{info.unit!r} is declared, and {quoted(given_up[0])} is ignored, so each image counts as a unit"
        faults.add("unit", what, f'write unit = "one image", or unit_column = {quoted(given_up[0])}')
    if wanted and info.unit == "one image":
        what = f"'one image' is declared, and unit_column = {quoted(choice.unit_column)}"
        faults.add("unit", what, 'say what a unit is, for example unit = "one patient"')
    return unit


def _nowhere(name: str, extras: list[Extra], faults: Faults) -> None:
    """Report a declared unit column that is not in the set, or lies in a table that is not used."""
    table = next((e for e in extras if e.way and fold(name) in (fold(e.name), fold(e.people))), None)
    if table:
        faults.add("unit_column", f"{quoted(name)} is in {quoted(table.name)}, which is not used", f"first {table.way}")
        return
    have = [e.name for e in extras if not e.way]
    what = f"{quoted(name)} is not in this set; it has {', '.join(map(quoted, have)) or 'no such column'}"
    faults.add("unit_column", what, f'name one that it has, or write unit_column = "".{suggest(name, have)}')


def _undecided(e: Extra, unit: Extra | None, faults: Faults) -> None:
    """Report a name that looks like people and that the declaration does not mention: what it means, both ways out."""
    name = quoted(e.people)
    held = f"{name}, in a table that is not used," if e.kind == "file" else f"{e.kind} {name}"
    counts = f"the unit is {quoted(unit.name)}" if unit else "each image counts as a unit"
    kept = "one of them" if unit else "one image"
    take = f"unit_column = {name} (with unit, units and max_images_per_unit to match)"
    if e.way:
        take = f"{take} once you {e.way}"
    faults.add(
        e.where,
        f"{held} looks like people and the declaration says nothing about it: without it {counts}, "
        f"and a person with several is protected for {kept} only",
        f"declare {take}, or ignored = [{quoted(e.name)}] to write down that it is not used",
    )


def _unused(rest: list[Extra], faults: Faults) -> None:
    """One remark for each file about what is in it and not used."""
    for where, kind in dict.fromkeys((e.where, e.kind) for e in rest):
        some = [e for e in rest if (e.where, e.kind) == (where, kind)]
        if kind == "file":
            what = "this file is not used, nor looked into" if some[0].closed else "this table is not used"
            faults.note(where, what, f"if it says whose images are whose, {some[0].way}; else declare it as ignored")
        else:
            names = ", ".join(quoted(e.name) for e in some)
            todo = "if one says whose image it is, declare it as unit_column; else as ignored"
            faults.note(
                where,
                f"{kind if len(some) == 1 else f'{kind}s'} {names} {'is' if len(some) == 1 else 'are'} not used",
                todo,
            )


def beside(
    folder: Path, known: Iterable[str], under: str = "", way: str = INTO_TABLE, begins: str | None = None
) -> list[Extra]:
    """Tables in a folder that no reader uses, each with the first name in it that looks like people.

    Args:
        folder: where to look; not below it.
        known: names of files that are used.
        under: what to put before a name, for example "train/".
        way: how a column of such a table becomes one that can be the unit.
        begins: names of all files that begin so, whatever their form; None: tables only.
    """
    found, known = [], {*known, *OWN}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        suffix = path.suffix.lower()
        used = path.name in known or path.name.startswith(".") or PROSE.match(path.name) or not path.is_file()
        if used or (suffix not in READABLE + CLOSED if begins is None else not path.name.startswith(begins)):
            continue
        names = [*_header(path, suffix), path.stem]
        people = next((n for n in names if looks_like_people(n)), "")
        name = f"{under}{path.name}"
        found.append(
            Extra(
                name, "file", name if name.isprintable() else quoted(name), people, way, closed=suffix not in READABLE
            )
        )
    return found


def _header(path: Path, suffix: str) -> list[str]:
    """The names of the columns of a table, from its first lines; of JSON the keys. Nothing of a closed format."""
    if suffix not in READABLE:
        return []
    with path.open("rb") as f:
        data = f.read(HEAD)
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    if "json" in suffix:
        return list(dict.fromkeys(re.findall(r'"([^"\\\n]{1,100})"\s*:', text)))
    lines = [t.lstrip("# ") for t in text.splitlines() if t.strip("# ")][:3]
    lines = lines[1:] if lines and lines[0].strip().isdecimal() else lines[:2]  # some begin with the count
    mark = max(",;\t|", key=lines[0].count) if lines else ","
    rows = [next(csv.reader([t], delimiter=mark), []) if mark in lines[0] else t.split() for t in lines]
    if not rows or (suffix == ".txt" and len({len(r) for r in rows}) > 1):  # a text is not a table
        return []
    return [c.strip() for c in rows[0]]
