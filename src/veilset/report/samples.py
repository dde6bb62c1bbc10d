"""The first images of each class, read from a release folder or drawn from a run's model, as data URIs."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veilset.core.errors import ModeError, VeilsetError
from veilset.core.pictures import open_pictures, png_bytes, to_pil
from veilset.core.types import Images, PublicInfo

PER_CLASS, MAX_CLASSES = 10, 50
SIDE = 128  # larger pictures are reduced to this many pixels per side, to keep the page small
CELL = 72  # pixels on a desktop screen; small pictures are enlarged by whole numbers up to it


@dataclass(frozen=True)
class Samples:
    """What the page shows.

    Attributes:
        rows: (class name, PNG data URIs) in class order.
        origin: where they come from, in a sentence; or why there are none.
        shape: (channels, height, width) of an image.
        left_out: classes beyond MAX_CLASSES.
    """

    rows: list[tuple[str, list[str]]]
    origin: str
    shape: tuple[int, ...] = (1, 1, 1)
    left_out: int = 0

    @property
    def cell(self) -> int:
        """Width of one picture on a wide screen, in pixels: a multiple of its own width, so that pixels stay square."""
        width = self.shape[2]
        return CELL // width * width if width <= CELL else 96

    @property
    def crisp(self) -> bool:
        """Whether pictures are enlarged; then they must not be smoothed."""
        return self.shape[2] <= CELL


def collect(folder: Path, info: PublicInfo, images: Images | None) -> Samples:
    """Find or draw the pictures of a folder.

    Args:
        folder: a run or release folder.
        info: its declared facts.
        images: shown instead, if given.

    Raises:
        ModeError: `images` hold raw private records.
    """
    if images is not None:
        if images.reads_private:
            raise ModeError("images hold raw private records: a report is made to be handed on; pass synthetic images")
        return _show(images, "given by whoever made this page; the receipt does not cover them")
    try:
        if (folder / "model.json").exists():
            from veilset.methods.catalogue import open_model

            shown = info.classes[:MAX_CLASSES]
            drawn = open_model(folder).sample(PER_CLASS * len(shown), classes=shown, seed=0)
            return _show(drawn, "drawn from the model for this page; drawing costs no privacy")
        return _show(_stored(folder, info), "the first of each class in this folder, not a selection")
    except Exception as e:  # a page about privacy must not fail because a picture does
        ours = isinstance(e, VeilsetError)  # one line that is fit to print, once it does not say where the folder is
        reason = str(e).replace(f"{folder}/", "") if ours else f"their files do not open ({type(e).__name__})"
        return Samples([], reason)


def _show(images: Images, origin: str) -> Samples:
    shown = images.classes[:MAX_CLASSES]
    rows = [(name, [uri(x) for x in images.x[images.y == k][:PER_CLASS]]) for k, name in enumerate(shown)]
    return Samples(rows, origin, tuple(images.x.shape[1:]), len(images.classes) - len(shown))


def uri(x: Any) -> str:
    """One uint8 [C, H, W] tensor as a data URI, reduced to SIDE pixels if it is larger."""
    if max(x.shape[1:]) <= SIDE:
        data = png_bytes(x)
    else:
        import io

        out, picture = io.BytesIO(), to_pil(x)
        picture.thumbnail((SIDE, SIDE))
        picture.save(out, "PNG")
        data = out.getvalue()
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _stored(folder: Path, info: PublicInfo) -> Images:
    """The first images of each class out of the files of `Images.save`."""
    import numpy as np
    import torch

    stored = open_pictures(folder, info)
    wanted = dict(_first(stored.labels, len(info.classes)))
    picked = list(stored.pictures(wanted))
    x = torch.from_numpy(np.stack([picture for _, picture in picked]))
    return Images(x, torch.tensor([wanted[i] for i, _ in picked]), info.classes)


def _first(labels: Iterable[int], classes: int) -> Iterator[tuple[int, int]]:
    """(position, label) of the first PER_CLASS of each class; stops when every class has enough."""
    seen: Counter[int] = Counter()
    for i, k in enumerate(labels):
        seen[k] += 1
        if seen[k] <= PER_CLASS and k < MAX_CLASSES:
            yield i, k
        if seen[k] == PER_CLASS and sum(c >= PER_CLASS for c in seen.values()) >= classes:
            return
