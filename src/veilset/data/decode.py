"""Picture files: what veilset takes as it is (8-bit grey or RGB), and what it sends to `prepare`."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from veilset.core.types import PublicInfo
from veilset.data import deep
from veilset.data.faults import Fault, Faults, check_values, takes_bytes
from veilset.data.plain import is_sound
from veilset.data.records import Array, Spool

SHARE = 500  # pictures that a process checks at a time
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"))
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
TURN = 0x0112  # EXIF's orientation; 1 is upright
TELLS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # what Pillow finds the tag in, TIFF apart
KINDS = {"1": "black and white", "P": "palette", "LA": "grey with alpha", "RGBA": "RGB with alpha", "CMYK": "CMYK"}


class Unfit(Exception):
    """A picture that is not taken as it is.

    Args:
        what: what is wrong with it, in words.
        convertible: whether `prepare` can convert it.
        options: the options of `prepare` that do.
    """

    def __init__(self, what: str, convertible: bool = False, options: str = ""):
        super().__init__(what)
        self.convertible, self.options = convertible, options


def is_picture(name: str) -> bool:
    """Whether a file name has a picture's suffix and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def open_picture(data: bytes) -> Any:
    """The PIL image in a file's bytes, header read, pixels not decoded yet. Raises Unfit."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one line a fault; Pillow's own remarks would be noise between them
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as e:  # Pillow raises many types for damaged files
        raise Unfit(f"cannot be decoded ({_short(e)})") from None
    if image.format == "PNG" and b"IEND" not in data[-4096:]:
        raise Unfit("truncated: the end of the PNG is missing")
    with decoding():  # counting the pictures of a TIFF reads more of it
        if image.format in ("TIFF", "PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise Unfit("holds several pictures")
    return image


def is_16_bit(image: Any) -> bool:
    """Whether a channel has more than 8 bits. Pillow reduces 16-bit colour silently; only its raw mode tells."""
    if image.mode.startswith(("I", "F")):
        return True
    deep_ppm = image.format == "PPM" and any(isinstance(t[3], tuple) and t[3][-1] > 255 for t in image.tile)
    return any(";16" in raw for raw in deep.raw_modes(image)) or deep_ppm


def load(image: Any) -> Any:
    """Decode the pixels. Raises Unfit if the file is truncated or damaged."""
    with decoding():
        image.load()
    return image


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Raise Unfit for whatever a decoder raises, and keep its remarks to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Unfit:
        raise
    except Exception as e:  # decoders raise many types for damaged files
        raise Unfit(f"cannot be decoded ({_short(e)})") from None


def turned(image: Any) -> int:
    """How a picture must be turned to stand upright, 1 to 8 as EXIF says it (1: not at all). Raises Unfit.

    Ask before the pixels are loaded: Pillow turns a TIFF by itself then, and no other format.
    """
    if image.format != "TIFF":
        load(image)  # a PNG may say it behind its pixels
        if not TELLS & image.info.keys():
            return 1
    with decoding():
        turn = image.getexif().get(TURN, 1)
    return turn if turn in range(1, 9) else 1


def _short(e: Exception) -> str:
    """An exception of Pillow in one short line without the object's address."""
    text = " ".join(str(e).split())
    return (
        "not a PNG, JPEG, BMP, TIFF, WebP or PNM picture"
        if "cannot identify" in text
        else text[:80] or type(e).__name__
    )


def describe(image: Any) -> tuple[int, int, int]:
    """(channels, height, width) of a picture by its header: grey kinds have 1 channel, all others 3."""
    return (deep.channels(image), image.height, image.width)


class Look(NamedTuple):
    """What a draft says of a picture: (channels, height, width), its depth if it is not 8 bits, and a window for it."""

    shape: tuple[int, int, int]
    bits: str = ""
    window: str = ""


def look(data: bytes) -> Look:
    """The header of a picture. Raises Unfit."""
    image = open_picture(data)
    return Look(describe(image), "16 bits a channel", "0,65535") if is_16_bit(image) else Look(describe(image))


def as_is(data: bytes, info: PublicInfo) -> Array:
    """A picture that needs no conversion, as uint8 [C, H, W]. Raises Unfit."""
    image = open_picture(data)
    side = f"--size {info.shape[1]}x{info.shape[2]}"
    if is_16_bit(image):
        raise Unfit("has 16 bits a channel (give the values that become black and white)", True, "--window 0,65535")
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        kind = KINDS.get(image.mode, image.mode) if image.mode not in ("L", "RGB") else "transparent"
        raise Unfit(f"is {kind}, not 8-bit grey or RGB", True)
    shape = describe(image)
    if shape[1:] != info.shape[1:]:
        raise Unfit(
            f"is {shape[1]}x{shape[2]}, declared are {info.shape[1]}x{info.shape[2]} (height x width)", True, side
        )
    if shape[0] != info.shape[0]:
        words = {1: "grey", 3: "RGB"}
        what = f"is {words[shape[0]]}, declared is {words[info.shape[0]]}"
        raise Unfit(what, info.shape[0] == 1, "--grey")
    if (turn := turned(image)) != 1:
        raise Unfit(f"is stored turned (its tag Orientation is {turn})", True)
    a = np.asarray(load(image))
    return a[None] if a.ndim == 2 else a.transpose(2, 0, 1)


def spool_pictures(
    folder: Path, names: Sequence[tuple[str, str]], info: PublicInfo, faults: Faults, spool: Spool
) -> list[bool]:
    """Add pictures of a folder to the spool, or report why not: (path in the folder, words for messages) of each.

    A check, which keeps no pixels, is shared out to `faults.jobs` processes where there are many.
    """
    if spool.keeps or faults.jobs < 2 or len(names) < 2 * SHARE:
        return [_spooled(f"{folder}/{name}", where, info, faults, spool) for name, where in names]
    parts = [names[i : i + SHARE] for i in range(0, len(names), SHARE)]
    good: list[bool] = []
    with ProcessPoolExecutor(faults.jobs, get_context("fork")) as pool:
        for part, found in pool.map(partial(_checked, folder, info, faults.source), parts):
            faults.found += found
            good += part
    spool.skip(sum(good))
    return good


def _checked(
    folder: Path, info: PublicInfo, source: str | Path, names: Sequence[tuple[str, str]]
) -> tuple[list[bool], list[Fault]]:
    """What another process finds in its share."""
    faults, spool = Faults(source), Spool(info.shape, np.uint8, keep=False)
    return [_spooled(f"{folder}/{name}", where, info, faults, spool) for name, where in names], faults.found


def _spooled(path: str, where: str, info: PublicInfo, faults: Faults, spool: Spool) -> bool:
    """Add one picture to the spool, or report why not."""
    try:
        with open(path, "rb", buffering=0) as f:
            data = f.read()
        if not spool.keeps and takes_bytes(info) and is_sound(data, info.shape):
            spool.skip(1)
            return True
        row = as_is(data, info)[None]
    except FileNotFoundError:
        faults.add(where, "no such file", "add the file or remove its row")
        return False
    except OSError as e:
        faults.add(where, f"cannot be read ({e.strerror})", "repair the file or its permissions")
        return False
    except Unfit as e:
        if e.convertible:
            faults.convert(where, str(e), e.options)
        else:
            faults.add(where, str(e), "restore or remove this file")
        return False
    check_values(faults, info, row, 0, where)
    spool.append(row)
    return True
