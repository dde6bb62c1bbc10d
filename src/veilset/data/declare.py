"""The declaration: the small TOML in which the owner says what is public about a set. Nothing else about it is."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veilset.core.errors import DataError, suggest
from veilset.core.types import PublicInfo
from veilset.data.columns import Choice, fold
from veilset.data.faults import command
from veilset.data.reading import Reading

FILE = "veilset.toml"
SUFFIXES = "npz|zip|tar|tar.gz|tgz|parquet|nii|nii.gz|bin|tif|tiff|dcm"  # of sets that are one file
REQUIRED = ("name", "classes", "shape", "value_range", "units")
CHOICE = ("unit_column", "ignored")
READING = tuple(f.name for f in dataclasses.fields(Reading))
GIVEN = ("licence", "declared_by")  # of a set that methods may use as public data
OPTIONAL = ("unit", *CHOICE, *READING, *GIVEN, "max_images_per_unit", "access", "confirmed")


@dataclass(frozen=True)
class Declaration:
    """What the owner wrote.

    Attributes:
        info: the declared facts, which become public.
        confirmed: whether the owner confirmed them.
        choice: how columns of this set are read; it stays with the set.
        reading: how its files are read; it stays with the set, too.
        licence, declared_by: of a set that is public: under which licence it may be used, and who says so; else empty.
    """

    info: PublicInfo
    confirmed: bool = True
    choice: Choice = Choice()
    reading: Reading = Reading()
    licence: str = ""
    declared_by: str = ""


def path_for(source: Path) -> Path:
    """Where the declaration of a set lies: inside a folder, beside a file or prefix (x.npz -> x.veilset.toml).

    A declaration that lies elsewhere says where the set is (`source`), and is named in place of the set.
    """
    if source.is_dir():
        return source / FILE
    if source.suffix == ".toml":
        return source
    stem = re.sub(rf"(\.({SUFFIXES})|-images-idx[34]-ubyte(\.gz)?)$", "", source.name)
    return source.with_name(f"{stem}.{FILE}")


def read(source: Path) -> Declaration:
    """The declaration of a set, confirmed or not.

    Args:
        source: folder, file or prefix of the set.

    Raises:
        DataError: no declaration, or not a valid one.
    """
    path = path_for(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{source} has no declaration ({path.name}); run {command('init', source)}, read the draft, confirm it"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read ({e}); repair it, or remove it and run `veilset data init`") from None
    return parse(text, str(path))


def place(source: Path, reading: Reading) -> Path:
    """Where the files of a set are: `source` itself, unless that is a declaration that says so."""
    if source.suffix != ".toml" or source.is_dir():
        return source
    if not reading.source:
        raise DataError(f"{source}: does not say where the set is; name the set itself, or write source = PATH into it")
    if not (found := source.parent / reading.source).exists():
        raise DataError(f"{source}: source = {reading.source!r}: there is no such file or folder; correct it")
    return found


def confirmed(source: Path) -> Declaration:
    """The declaration, or DataError if the owner has not confirmed it."""
    declared = read(source)
    if not declared.confirmed:
        path = path_for(source)
        raise DataError(
            f"{path} is a draft (confirmed = false); what it says becomes public: read it, then set confirmed = true"
        )
    return declared


def parse(text: str, where: str) -> Declaration:
    """The declaration in a TOML text."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"{where}: not valid TOML: {e}") from None
    known = (*REQUIRED, *OPTIONAL)
    for k in table:
        if k not in known:
            raise DataError(f"{where}: unknown key {k!r}.{suggest(k, known)} Keys are: {', '.join(known)}")
    for k in REQUIRED:
        if k not in table:
            raise DataError(f"{where}: {k} is missing; declare it")
    try:
        facts = {k: _typed(k, v) for k, v in table.items()}
        choice = Choice(**{k: facts.pop(k) for k in CHOICE if k in facts})
        reading = Reading(**{k: facts.pop(k) for k in READING if k in facts})
        yes = facts.pop("confirmed", False)
        given = {k: facts.pop(k) for k in GIVEN if k in facts}
        if choice.unit_column and fold(choice.unit_column) in map(fold, choice.ignored):
            raise DataError(f"ignored = {list(choice.ignored)!r}: names the unit_column too; keep it in one of them")
        return Declaration(PublicInfo.from_json(facts), yes, choice, reading, **given)
    except DataError as e:
        raise DataError(f"{where}: {e}") from None


def _typed(name: str, v: Any) -> Any:
    """The value of one key, or DataError if it has the wrong type."""

    def whole(a: Any) -> bool:
        return isinstance(a, int) and not isinstance(a, bool)

    def number(a: Any) -> bool:
        return whole(a) or (isinstance(a, float) and math.isfinite(a))

    if name == "classes":
        ok, rule = _names(v), "a list of names in quotes"
    elif name == "ignored":
        ok, rule = _names(v), "a list of column names in quotes"
        v = tuple(v) if ok else v
    elif name in ("unit_column", "label_from", "labels"):
        ok, rule = isinstance(v, str), "the name of a column in quotes, or empty"
    elif name == "shape":
        ok, rule = isinstance(v, list) and len(v) == 3 and all(map(whole, v)), "[channels, height, width]"
    elif name in ("value_range", "window"):
        ok, rule = isinstance(v, list) and len(v) == 2 and all(map(number, v)), "[low, high], finite, low < high"
        v = tuple(float(a) for a in v) if ok else v
    elif name in ("units", "max_images_per_unit", "label_offset", "axis", "most_bytes"):
        ok, rule = whole(v), "a whole number"
    elif name in ("confirmed", "transpose"):
        ok, rule = isinstance(v, bool), "true or false"
    else:
        ok, rule = isinstance(v, str) and bool(v), "a text in quotes"
    if not ok:
        raise DataError(f"{name} = {v!r}: must be {rule}")
    return v


def _names(v: Any) -> bool:
    """Whether a value is a list of texts that are not empty."""
    return isinstance(v, list) and all(isinstance(c, str) and c for c in v)
