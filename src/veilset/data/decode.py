"""Picture files: what veilset takes as it is (8-bit grey or RGB), and what it sends to `prepare`."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.types import PublicInfo
from veilset.data.faults import Faults
from veilset.data.records import Array, Spool

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"))
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
KINDS = {"1": "black and white", "P": "palette", "LA": "grey with alpha", "RGBA": "RGB with alpha", "CMYK": "CMYK"}


class Unfit(Exception):
    """A picture that is not taken as it is.

    Args:
        what: what is wrong with it, in words.
        convertible: whether `prepare` can convert it.
    """

    def __init__(self, what: str, convertible: bool = False):
        super().__init__(what)
        self.convertible = convertible


def is_picture(name: str) -> bool:
    """Whether a file name has a picture's suffix and is not hidden."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


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
    if image.format in ("TIFF", "PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise Unfit("holds several pictures")
    return image


def is_16_bit(image: Any) -> bool:
    """Whether a channel has more than 8 bits. Pillow reduces 16-bit colour silently; only its raw mode tells."""
    if image.mode.startswith(("I", "F")):
        return True
    raw = str([tile[3] for tile in image.tile])
    deep_ppm = image.format == "PPM" and any(isinstance(t[3], tuple) and t[3][-1] > 255 for t in image.tile)
    return ";16" in raw or deep_ppm


def load(image: Any) -> Any:
    """Decode the pixels. Raises Unfit if the file is truncated or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except Exception as e:
        raise Unfit(f"cannot be decoded ({_short(e)})") from None
    return image


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
    return (1 if image.mode in ("L", "1", "LA") or image.mode.startswith(("I", "F")) else 3, image.height, image.width)


def as_is(data: bytes, info: PublicInfo) -> Array:
    """A picture that needs no conversion, as uint8 [C, H, W]. Raises Unfit."""
    image = open_picture(data)
    if is_16_bit(image):
        raise Unfit("has 16 bits a channel", True)
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        kind = KINDS.get(image.mode, image.mode) if image.mode not in ("L", "RGB") else "transparent"
        raise Unfit(f"is {kind}, not 8-bit grey or RGB", True)
    shape = describe(image)
    if shape[1:] != info.shape[1:]:
        raise Unfit(f"is {shape[1]}x{shape[2]}, declared are {info.shape[1]}x{info.shape[2]} (height x width)", True)
    if shape[0] != info.shape[0]:
        words = {1: "grey", 3: "RGB"}
        raise Unfit(f"is {words[shape[0]]}, declared is {words[info.shape[0]]}", True)
    a = np.asarray(load(image))
    return a[None] if a.ndim == 2 else a.transpose(2, 0, 1)


def spool_picture(path: Path, where: str, info: PublicInfo, faults: Faults, spool: Spool) -> bool:
    """Add one picture to the spool, or report why not."""
    from veilset.data.faults import check_values

    try:
        row = as_is(path.read_bytes(), info)[None]
    except FileNotFoundError:
        faults.add(where, "no such file", "add the file or remove its row")
        return False
    except OSError as e:
        faults.add(where, f"cannot be read ({e.strerror})", "repair the file or its permissions")
        return False
    except Unfit as e:
        if e.convertible:
            faults.convert(where, str(e))
        else:
            faults.add(where, str(e), "restore or remove this file")
        return False
    check_values(faults, info, row, 0, where)
    spool.append(row)
    return True
