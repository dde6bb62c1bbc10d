"""What `prepare` does to one picture, and to sets that are no folders of pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
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
from veilset.data.reading import LEFT_OUT, SPLITS

Row = tuple[str, Any, str, str, list[str]]  # where it was, the picture, its split, its label, whose it is
FOLDER = "images"  # where numbered pictures go
MANY = 1000  # pictures a sub-folder


@dataclass(frozen=True)
class Rules:
    """What is done to every picture; see `prepare`."""

    size: tuple[int, int] | None
    fit: str
    grey: bool
    bits: int
    window: tuple[float, float] | None


def convert(data: bytes, rules: Rules) -> Any:
    """One picture as an 8-bit PIL image, grey or RGB. Raises decode.Unfit."""
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
        values = np.asarray(_plain(image))
    return converted(values, rules, decode.turned(image))  # after loading: Pillow turns a TIFF by itself


def converted(values: Any, rules: Rules, turn: int = 1) -> Any:
    """Values [H, W] or [H, W, 3] as an 8-bit PIL image by the rules, turned upright. Raises decode.Unfit."""
    from PIL import Image, ImageOps

    if rules.window:
        if not np.isfinite(values).all():
            raise decode.Unfit("holds NaN or infinity; repair or remove it")
        low, high = rules.window
        values = np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(values)
    image.getexif()[decode.TURN] = turn
    image = ImageOps.exif_transpose(image)
    if rules.grey:
        image = image.convert("L")
    return _fit(image, rules)


def _plain(image: Any) -> Any:
    """An 8-bit picture of any kind as grey or RGB; transparency is laid on black."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert(mode)


def _fit(image: Any, rules: Rules) -> Any:
    """Crop or pad, then resize."""
    from PIL import Image, ImageOps

    if rules.size is None:
        return image
    size = (rules.size[1], rules.size[0])  # PIL says (width, height)
    act = ImageOps.fit if rules.fit == "crop" else ImageOps.pad
    return act(image, size, method=Image.Resampling.LANCZOS)


def prepare_items(files: ItemSource, out: Path, rules: Rules, choice: Choice) -> None:
    """Convert every image of training and test into a numbered picture, and write labels.csv.

    Whatever says whose images belong together becomes numbers in order of appearance; the unit is called `unit`.
    """
    faults, ignored = Faults(out), set(map(fold, choice.ignored))
    open_ = [e for e in files.extras() if (e.people or e.default) and fold(e.name) not in ignored]
    if lost := next((e for e in open_ if e.way), None):
        what = f"{quoted(lost.people)} looks like people, and nothing would say whose images are whose any more"
        raise DataError(f"{lost.where}: {what}; {lost.way}, or declare ignored = [{quoted(lost.name)}]")
    extras = [e for e in open_ if not e.way]
    unit = next((e.name for e in extras if fold(e.name) == fold(choice.unit_column)), "")
    unit = unit or next((e.name for e in extras if e.default), "")
    names = {e.name: "unit" if e.name == unit else e.name for e in extras}
    ids: dict[str, dict[str, int]] = {name: {} for name in names}

    def rows() -> Iterator[Row]:
        for item in files.items(faults):
            if item.part != LEFT_OUT:
                if not item.label:
                    raise DataError(f"{item.where}: label is missing; give the class name")
                if missing := next((n for n in names if not item.row.get(n)), ""):
                    raise DataError(f"{item.where}: {missing} is missing; give the unit id, or declare it as ignored")
                who = [str(ids[n].setdefault(item.row[n], len(ids[n]))) for n in names]
                yield item.where, _image(item, rules), SPLITS[item.part], item.label, who

    _write(out, rows(), list(names.values()), files.has_test())
    faults.raise_first()


def _image(item: Item, rules: Rules) -> Any:
    """One item as an 8-bit PIL image. A reader that hands out values has applied the window itself."""
    try:
        data = item.pixels()
        if isinstance(data, bytes):
            return convert(data, rules)
        if data.dtype != np.uint8:
            raise decode.Unfit("has more than 8 bits; declare a window (--window LOW,HIGH)")
        return converted(data, Rules(rules.size, rules.fit, rules.grey, 8, None))
    except decode.Unfit as e:
        raise DataError(f"{item.where}: {e}") from None


def prepare_arrays(files: Source, declared: Declaration | None, out: Path, rules: Rules) -> None:
    """Convert a set that is arrays, which opens at once, into numbered pictures with labels.csv."""
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

    def rows() -> Iterator[Row]:
        for split in splits:
            faults = Faults(out)
            opened = files.scan(info, split, faults, unit=unit.name if unit else None)
            faults.raise_first()
            assert opened is not None, "a split without faults opens"
            one = np.empty((1, *info.shape), opened.records.dtype)
            for i in range(len(opened.labels)):
                opened.records.read(np.array([i]), one)
                values = to_bytes(info, one)[0]
                who = [] if opened.units is None else [f"{split}{opened.units[i]}"]
                image = converted(values[0] if len(values) == 1 else values.transpose(1, 2, 0), rules)
                yield f"{split} image {i}", image, split, info.classes[opened.labels[i]], who

    _write(out, rows(), ["unit"] if unit else [], len(splits) > 1)


def _write(out: Path, rows: Iterator[Row], columns: list[str], split: bool) -> None:
    """Write numbered PNGs and labels.csv; sizes and channels must be those of the first."""
    first = None
    (out / FOLDER).mkdir()
    with open(out / "labels.csv", "w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(["file", "label", *(["split"] if split else []), *columns])
        for i, (where, image, part, label, who) in enumerate(rows):
            first = first or (image.mode, image.size)
            if (image.mode, image.size) != first:
                mixed = "sizes are mixed; give a size (--size)"
                what = mixed if image.mode == first[0] else "grey and colour are mixed; use --grey"
                raise DataError(f"{where}: {what}")
            name = f"{FOLDER}/{i // MANY:04}/{i:07}.png"
            if i % MANY == 0:
                (out / name).parent.mkdir()
            image.save(out / name, "PNG", compress_level=1)
            table.writerow([name, label, *([part] if split else []), *who])
