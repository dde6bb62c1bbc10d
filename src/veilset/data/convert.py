"""What `prepare` does to one picture, and to sets that are no folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data import decode, deep
from veilset.data.columns import Choice, choose, fold, quoted
from veilset.data.declare import Declaration
from veilset.data.faults import Faults
from veilset.data.formats.detect import Source
from veilset.data.formats.items import Item, ItemSource
from veilset.data.load import to_bytes
from veilset.data.making import Tally, Task, write_pictures
from veilset.data.reading import LEFT_OUT, SPLITS

FOLDER = "images"  # where numbered pictures go
MANY = 1000  # pictures a sub-folder
MOST_STRETCHED = 1 << 15  # pixels a side


@dataclass(frozen=True)
class Rules:
    """What is done to every picture; see `prepare`."""

    size: tuple[int, int] | None
    fit: str
    grey: bool
    bits: int
    window: tuple[float, float] | None


def convert(data: bytes, rules: Rules, tally: Tally) -> Any:
    """One picture as an 8-bit PIL image, grey or RGB; counts what was done to it. Raises decode.Unfit."""
    image = decode.open_picture(data)
    is_deep = decode.is_16_bit(image)
    if is_deep != (rules.bits == 16):
        raise decode.Unfit(
            "has 16 bits a channel; declare a window (--window LOW,HIGH)"
            if is_deep
            else "has 8 bits a channel, declared are 16; convert such pictures apart"
        )
    if is_deep:
        with decode.decoding():
            values = deep.values(image, data)
    else:
        decode.load(image)
        values = np.asarray(_plain(image, tally))
    return converted(values, rules, tally, decode.turned(image))  # after loading: Pillow turns a TIFF by itself


def converted(values: Any, rules: Rules, tally: Tally, turn: int = 1, aspect: float = 1.0) -> Any:
    """Values [H, W] or [H, W, 3] as an 8-bit PIL image by the rules, upright, with square pixels. Raises Unfit."""
    from PIL import Image, ImageOps

    if rules.window:
        if not np.isfinite(values).all():
            raise decode.Unfit("holds NaN or infinity; repair or remove it")
        low, high = rules.window
        values = np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
        tally["through the window"] += 1
    image = Image.fromarray(values)
    image.getexif()[decode.TURN] = turn
    image = ImageOps.exif_transpose(image)
    tally["turned upright"] += turn != 1
    if rules.grey and image.mode != "L":
        image = image.convert("L")
        tally["made grey"] += 1
    if aspect != 1:
        height, width = image.height * max(aspect, 1), image.width * max(1 / aspect, 1)
        if max(height, width) > MOST_STRETCHED:
            raise decode.Unfit(f"has pixels {aspect:.3g} times as high as wide; correct its spacing")
        image = image.resize((round(width), round(height)), Image.Resampling.LANCZOS)
        tally["stretched to square pixels"] += 1
    return _fit(image, rules, tally)


def _plain(image: Any, tally: Tally) -> Any:
    """An 8-bit picture of any kind as grey or RGB; transparency is laid on black."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
        tally["transparent, laid on black"] += 1
    return image.convert(mode)


def _fit(image: Any, rules: Rules, tally: Tally) -> Any:
    """Crop or pad, then resize."""
    from PIL import Image, ImageOps

    if rules.size is None or image.size == rules.size[::-1]:
        return image
    size = (rules.size[1], rules.size[0])  # PIL says (width, height)
    tally[f"resized from {image.height} x {image.width}"] += 1
    act = ImageOps.fit if rules.fit == "crop" else ImageOps.pad
    return act(image, size, method=Image.Resampling.LANCZOS)


def prepare_items(make: Callable[[], ItemSource], out: Path, rules: Rules, choice: Choice, jobs: int) -> Tally:
    """Convert every image of training and test into a numbered picture, and write labels.csv.

    Whatever says whose images belong together becomes numbers in order of appearance; the unit is called `unit`.
    """
    files, faults, ignored = make(), Faults(out), set(map(fold, choice.ignored))
    open_ = [e for e in files.extras() if (e.people or e.default) and fold(e.name) not in ignored]
    if lost := next((e for e in open_ if e.way), None):
        what = f"{quoted(lost.people)} looks like people, and nothing would say whose images are whose any more"
        raise DataError(f"{lost.where}: {what}; {lost.way}, or declare ignored = [{quoted(lost.name)}]")
    extras = [e for e in open_ if not e.way]
    unit = next((e.name for e in extras if fold(e.name) == fold(choice.unit_column)), "")
    unit = unit or next((e.name for e in extras if e.default), "")
    names = {e.name: "unit" if e.name == unit else e.name for e in extras}
    split = files.has_test()

    def tasks() -> Iterator[Task]:
        ids: dict[str, dict[str, int]] = {name: {} for name in names}
        i = 0
        for item in make().items(faults):
            if item.part == LEFT_OUT:
                continue
            if not item.label:
                raise DataError(f"{item.where}: label is missing; give the class name")
            if missing := next((n for n in names if not item.row.get(n)), ""):
                raise DataError(f"{item.where}: {missing} is missing; give the unit id, or declare it as ignored")
            who = [str(ids[n].setdefault(item.row[n], len(ids[n]))) for n in names]
            yield _numbered(
                i, item.where, partial(_image, item, rules), SPLITS[item.part] if split else "", item.label, who
            )
            i += 1
        faults.raise_first()

    return write_pictures(out, tasks, ["file", "label", *(["split"] if split else []), *names.values()], jobs)


def _numbered(i: int, where: str, make: Callable[[Tally], Any], part: str, label: str, who: list[str]) -> Task:
    """Picture i of a set that is no folder of pictures, with its row: nothing of its old name."""
    name = f"{FOLDER}/{i // MANY:04}/{i:07}.png"
    return Task(where, name, make, [name, label, *([part] if part else []), *who])


def _image(item: Item, rules: Rules, tally: Tally) -> Any:
    """One item as an 8-bit PIL image. A reader that hands out values has applied the window itself."""
    try:
        data = item.pixels()
        if isinstance(data, bytes):
            return convert(data, rules, tally)
        if data.dtype != np.uint8:
            raise decode.Unfit("has more than 8 bits; declare a window (--window LOW,HIGH)")
        return converted(data, replace(rules, bits=8, window=None), tally, aspect=item.aspect)
    except decode.Unfit as e:
        raise DataError(f"{item.where}: {e}") from None


def prepare_arrays(
    make: Callable[[], Source], declared: Declaration | None, out: Path, rules: Rules, jobs: int
) -> Tally:
    """Convert a set that is arrays, which opens at once, into numbered pictures with labels.csv."""
    files = make()
    if declared:
        info, choice = declared.info, declared.choice
    else:
        g, choice = files.glimpse(), Choice()
        info = PublicInfo(name="set", classes=g.classes, shape=g.shape, value_range=g.value_range, units=1)
    if rules.window:
        raise DataError(f"window = {rules.window}: values of arrays are read by value_range; declare that instead")
    splits = [s for s in SPLITS if s == "train" or files.has_test()]
    undecided = Faults(out)
    unit = choose(files.extras(), choice, info, undecided)
    undecided.raise_first()

    def tasks() -> Iterator[Task]:
        i = 0
        for split in splits:
            faults = Faults(out)
            opened = make().scan(info, split, faults, unit=unit.name if unit else None)
            faults.raise_first()
            assert opened is not None, "a split without faults opens"
            for k in range(len(opened.labels)):
                who = [] if opened.units is None else [f"{split}{opened.units[k]}"]
                part, label = split if len(splits) > 1 else "", info.classes[opened.labels[k]]
                yield _numbered(
                    i, f"{split} image {k}", partial(_record, info, opened.records, k, rules), part, label, who
                )
                i += 1

    return write_pictures(
        out, tasks, ["file", "label", *(["split"] if splits[1:] else []), *(["unit"] if unit else [])], jobs
    )


def _record(info: PublicInfo, records: Any, k: int, rules: Rules, tally: Tally) -> Any:
    """Record k of an array as an 8-bit PIL image."""
    one = np.empty((1, *info.shape), records.dtype)
    records.read(np.array([k]), one)
    values = to_bytes(info, one)[0]
    return converted(values[0] if len(values) == 1 else values.transpose(1, 2, 0), rules, tally)
