"""`veilset data init`: a first declaration, which the owner reads, corrects and confirms."""

from __future__ import annotations

import json
from pathlib import Path

from veilset.core.errors import DataError
from veilset.core.io import write_bytes
from veilset.core.types import PublicInfo
from veilset.data import declare, public
from veilset.data.load import existing
from veilset.data.source import detect


def init(source: str | Path) -> Path:
    """Draft the declaration of a set from its class names, first image and rounded count, for its owner to confirm.

    Args:
        source: image folder (in any of its layouts), .npz file, or IDX folder or prefix.

    Returns:
        The new TOML file (see `declare.path_for`).

    Raises:
        DataError: a declaration exists already, or the set cannot be read.
    """
    if public.named(source):
        raise DataError(f"{source} is built in and needs no declaration")
    path = existing(Path(source))
    target = declare.path_for(path)
    if target.exists():
        raise DataError(f"{target} exists; edit it, or remove it to draft a new one")
    write_bytes(target, draft(path, path.resolve().name.split(".")[0]).encode())
    return target


def draft(path: Path, name: str) -> str:
    """The declaration that is proposed for the set at a path."""
    g = detect(path).glimpse()
    unit, cap = ("one unit id", 10) if g.has_units else ("one image", 1)
    info = PublicInfo(
        name=name or "images",
        classes=g.classes,
        shape=g.shape,
        value_range=g.value_range,
        units=rounded(g.count),
        unit=unit,
        max_images_per_unit=cap,
    )
    return text(info, g.remark)


def rounded(n: int) -> int:
    """A count to two significant figures and at least to tens: what a draft says instead of the exact number."""
    step: int = max(10, 10 ** (len(str(n)) - 2))
    return max(step, (n + step // 2) // step * step)


def text(info: PublicInfo, remark: str = "") -> str:
    """A declaration that waits for its owner to confirm it, with a remark about its classes."""
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

# What one unit is: "one image", or, with a column `unit`, for example "one patient". The guarantee is for one unit.
unit = {quote(info.unit)}

# At most this many images of a unit are used; further ones are left out.
max_images_per_unit = {info.max_images_per_unit}

# May the test split be looked at without noise: "private" or "public". The training split is always private.
access = {quote(info.access)}

confirmed = false
"""
