"""Images that are declared public, for methods that start from them: by name, or a set that its owner declares so.

They are read by the ordinary readers, never through a gate. Three sets are built in and made on the spot: `glyphs`,
`glyph-letters` and `dead-leaves`. Any other is a set as `load` reads it, whose declaration says under which `licence`
it may be used, and who says that it is public (`declared_by`). Nothing here can check that word; what rests on it says
so.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.data import declare, partition, public
from veilset.data.load import existing, load, training_images
from veilset.data.simulators import dead_leaves, glyphs
from veilset.privacy.public_data import PublicData

MADE = (glyphs.NAME, glyphs.LETTERS, dead_leaves.NAME)
NAMES = (*MADE, *public.NAMES)
US = "veilset"  # who declares what is built in
LICENCES = {
    "digits": "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
    "mnist": "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    "fashion-mnist": "MIT (Zalando SE)",
}
LICENCES |= dict.fromkeys(partition.DIGITS, LICENCES[partition.WHOLE])
LUMA = 0.299, 0.587, 0.114  # ITU-R 601
STRETCH = 1.25  # the most by which a side may be stretched more than the other


@dataclass(frozen=True)
class PublicSet:
    """A set that is declared public.

    Attributes:
        declaration: what plan, ledger and receipt say of it.
        images: shape -> (uint8 [n, C, H, W], the class name of each, or "" where it has none).
    """

    declaration: PublicData
    images: Callable[[tuple[int, int, int]], tuple[torch.Tensor, tuple[str, ...]]]


@cache
def open_public(source: str) -> PublicSet:
    """A public set by name or path. Its images are read once in a process.

    Args:
        source: glyphs, glyph-letters, dead-leaves, a built-in set (its training split), or the path of a set as `load`
            takes it.

    Raises:
        DataError: no such set, or its declaration does not say that it is public.
        ConfigError: glyphs without the package that brings its faces.
    """
    if source in glyphs.SETS:
        made = functools.partial(glyphs.images, symbols=glyphs.SETS[source])
        return _made(source, glyphs.recipe(source), glyphs.IMAGES, glyphs.LICENCE, made)
    if source == dead_leaves.NAME:
        n = dead_leaves.IMAGES
        return _made(
            source, dead_leaves.recipe(), n, dead_leaves.LICENCE, lambda shape: (dead_leaves.images(shape), ("",) * n)
        )
    _word(source)  # before its files are read
    found = training_images(source)
    names = tuple(found.classes[k] for k in found.y.tolist())
    return PublicSet(declared(source, found), lambda shape: (converted(found.x, shape, source), names))


def declared(source: str, images: Images) -> PublicData:
    """What is said of images of a set that is not made here.

    Raises:
        DataError: its declaration does not say that it is public.
    """
    licence, who = _word(source)
    name = load(source).name
    return PublicData(name=name, sha256=_digest(images), images=len(images), licence=licence, declared_by=who)


def _made(
    name: str,
    recipe: str,
    n: int,
    licence: str,
    images: Callable[[tuple[int, int, int]], tuple[torch.Tensor, tuple[str, ...]]],
) -> PublicSet:
    return PublicSet(PublicData(name=name, sha256=recipe, images=n, licence=licence, declared_by=US), images)


def _word(source: str) -> tuple[str, str]:
    """(licence, who says that it is public), or DataError."""
    if public.named(source):
        return LICENCES[source], US
    if not Path(source).exists() and "/" not in source:
        raise DataError(f"public = {source!r}: no such file or folder, nor a built-in set ({', '.join(NAMES)})")
    said = declare.confirmed(existing(Path(source)))
    if not (said.licence and said.declared_by):
        raise DataError(
            f"public = {source!r}: {declare.path_for(Path(source))} does not say that the set is public; "
            "if it is, declare licence = and declared_by = there, or take glyphs or dead-leaves"
        )
    return said.licence, said.declared_by


def _digest(found: Images) -> str:
    """SHA-256 of images, labels and class names, whatever files held them."""
    facts = f"{list(found.x.shape)} {list(found.classes)}".encode()
    return hashlib.sha256(facts + found.x.numpy().tobytes() + found.y.numpy().tobytes()).hexdigest()


def converted(x: torch.Tensor, shape: tuple[int, int, int], what: str) -> torch.Tensor:
    """Public images in the shape of a private set, by rules that look at shapes alone.

    Grey is repeated for colour; colour becomes grey by its luma; sides are resized, smoothed where they shrink.

    Args:
        x: uint8 [n, c, h, w].
        shape: (C, H, W) that is wanted.
        what: the set's name, for the message.

    Returns:
        uint8 [n, C, H, W].

    Raises:
        DataError: the sides have another ratio than those that are wanted.
    """
    c, h, w = shape
    high, wide = h / x.shape[2], w / x.shape[3]
    if max(high, wide) > STRETCH * min(high, wide):
        raise DataError(
            f"public = {what!r}: its images are {x.shape[2]}x{x.shape[3]}, the private ones {h}x{w}: another ratio of "
            f"sides; convert a copy first by `veilset data prepare --size {h}x{w}`"
        )
    y = x.float()
    if c < len(y[0]):
        y = (y * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    if y.shape[2:] != (h, w):
        y = F.interpolate(y, (h, w), mode="bilinear", antialias=True, align_corners=False)
    return y.round().clamp(0, 255).to(torch.uint8).expand(-1, c, -1, -1)
