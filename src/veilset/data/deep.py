"""Pictures with more than 8 bits a channel, of which Pillow hands out the upper bytes only, or scaled values."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np

from veilset.data.records import Array

# The raw mode that hands out the other byte of each value: Pillow keeps the byte that it takes for the upper one.
OTHER = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B",
         "RGBX;16B": "RGBX;16L", "RGBX;16L": "RGBX;16B", "RGB;16N": "RGB;16B", "RGBA;16N": "RGBA;16B"}  # fmt: skip
GREY_ALPHA = "LA;16B"  # of PNG only
PNM = re.compile(rb"P([2356])\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s")


def raw_modes(image: Any) -> list[str]:
    """The raw modes of a picture that is not decoded yet: what its bytes mean."""
    return [str(a[0] if isinstance(a := tile[3], tuple) else a) for tile in image.tile]


def channels(image: Any) -> int:
    """1 for grey kinds, 3 for all others, by a picture's header."""
    grey = image.mode in ("L", "1", "LA") or image.mode.startswith(("I", "F")) or GREY_ALPHA in raw_modes(image)
    return 1 if grey else 3


def values(image: Any, data: bytes) -> Array:
    """The stored values [H, W] (grey) or [H, W, 3] as float64; what is transparent is laid on black.

    Args:
        image: what `decode.open_picture` gave: header read, pixels not decoded.
        data: the whole file.

    Raises:
        ValueError: a kind whose values cannot be had; Pillow raises others for a damaged file.
    """
    if image.format == "PPM":
        return _pnm(data)
    kinds = set(raw_modes(image))
    if not any(k.startswith(("RGB", "LA;")) for k in kinds):
        image.load()
        return np.asarray(image).astype(np.float64)
    if len(kinds) != 1 or not kinds <= {*OTHER, GREY_ALPHA}:
        raise ValueError("16-bit colour of a kind that cannot be read")
    kind = kinds.pop()
    if kind == GREY_ALPHA:
        a = _four_bytes(data).astype(np.float64)
        grey, alpha = a[..., 0] * 256 + a[..., 1], a[..., 2] * 256 + a[..., 3]
        return grey * (alpha / 65535)
    upper, lower = (_decoded(data, kind, k).astype(np.float64) for k in (kind, OTHER[kind]))
    both = upper * 256 + lower
    return both[..., :3] * (both[..., 3:] / 65535) if kind.startswith("RGBA") else both[..., :3]


def _four_bytes(data: bytes) -> Array:
    """A PNG of two values of 16 bits as one of four values of 8 bits, uint8 [H, W, 4]: only its header differs."""
    from PIL import Image

    head = data[12:24] + bytes((8, 6)) + data[26:29]
    return np.asarray(Image.open(io.BytesIO(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])))


def _decoded(data: bytes, was: str, kind: str) -> Array:
    """The bytes of a picture, decoded under another raw mode."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))

    def swap(args: Any) -> Any:
        return kind if args == was else (kind, *args[1:]) if isinstance(args, tuple) and args[0] == was else args

    image.tile = [tile._replace(args=swap(tile[3])) for tile in image.tile]
    image.load()
    return np.asarray(image)


def _pnm(data: bytes) -> Array:
    """A portable anymap; Pillow scales its values to the largest one that it declares."""
    m = PNM.match(data)
    if not m:
        raise ValueError("not a portable anymap with one comment or none a field")
    kind, width, height, _ = (int(g) for g in m.groups())
    count = width * height * (3 if kind in (3, 6) else 1)
    if kind < 4:
        flat = np.array(data[m.end() :].split()[:count], np.float64)
    else:
        flat = np.frombuffer(data[m.end() : m.end() + 2 * count], ">u2").astype(np.float64)
    if len(flat) < count:
        raise ValueError("truncated")
    return flat.reshape((height, width, 3) if kind in (3, 6) else (height, width))
