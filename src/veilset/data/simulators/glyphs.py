"""Glyphs: digits and letters in the faces that matplotlib brings, bent, turned, slanted, stretched and made bolder.

A glyph is described by numbers: which symbol, which face, and how it is deformed. So one may draw at random, and
change a little what was drawn. Each face is drawn once, as the distance of every place to the edge of the ink; its
strokes then are as bold as one likes. Light ink on black paper, as in the sets of handwriting.
"""

from __future__ import annotations

import hashlib
import json
import math
import string
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from veilset.core.errors import ConfigError

NAME, LETTERS = "glyphs", "glyph-letters"
LICENCE = "DejaVu fonts (Bitstream Vera licence), STIX fonts (SIL OFL 1.1), Computer Modern (BSD-like, from matplotlib)"
SYMBOLS = string.digits + string.ascii_uppercase + string.ascii_lowercase
SETS = {NAME: SYMBOLS, LETTERS: string.ascii_uppercase + string.ascii_lowercase}
ALIKE = {"0": "Oo", "1": "Il", "2": "Zz", "4": "y", "5": "Ss", "6": "b", "8": "B", "9": "gq"}  # as some write digits
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono"),
    *("DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
SIDE, SIZE, FAR = 64, 54, 15.0  # of a master and its font, and the largest distance that it tells, in its pixels
TURN, SLANT, WIDE, HIGH, SHIFT, BEND = 0.5, 0.5, 0.4, 0.3, 0.12, 0.14  # radians, slope, logarithms, halves of a side
THIN, BOLD = 0.0, 3.5  # pixels of a master by which the edge of the ink moves
MODES = tuple((u, v) for u in range(3) for v in range(3) if u + v)  # of the field that bends a glyph
HOW = 7 + 2 * len(MODES)  # numbers that deform a glyph, each from -1 to 1
VERSION = 1  # of the recipe: another number where the same numbers give another image
IMAGES = 20_000  # of the set as a list


def recipe(name: str = NAME) -> str:
    """SHA-256 of all that decides what is drawn: the constants of this file, and the bytes of the faces."""
    facts = {
        "name": name, "version": VERSION, "symbols": SETS[name], "side": [SIDE, SIZE, FAR],
        "how": [TURN, SLANT, WIDE, HIGH, SHIFT, BEND, THIN, BOLD, MODES], "images": IMAGES,
        "faces": {name: hashlib.sha256(_file(name).read_bytes()).hexdigest() for name in FACES},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _file(face: str) -> Path:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            f"public = {NAME!r}: its faces come with matplotlib, which is not installed; pip install 'veilset[glyphs]'"
        ) from None
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


@cache
def masters(symbols: str = SYMBOLS) -> torch.Tensor:
    """int8 [symbols, faces, SIDE, SIDE]: distance to the edge of the ink, positive inside, in units of FAR / 127."""
    from PIL import Image, ImageDraw, ImageFont
    from scipy.ndimage import distance_transform_edt

    out = np.zeros((len(symbols), len(FACES), SIDE, SIDE), np.int8)
    for f, face in enumerate(FACES):
        font = ImageFont.truetype(str(_file(face)), SIZE)
        for s, symbol in enumerate(symbols):
            left, top, right, bottom = font.getbbox(symbol)
            picture = Image.new("L", (SIDE, SIDE))
            at = (SIDE - right - left) / 2, (SIDE - bottom - top) / 2
            ImageDraw.Draw(picture).text(at, symbol, font=font, fill=255)
            ink = np.asarray(picture) > 127
            far = distance_transform_edt(ink) - distance_transform_edt(~ink)
            out[s, f] = np.rint(far.clip(-FAR, FAR) * 127 / FAR)
    return torch.from_numpy(out)


def rendered(
    masters: torch.Tensor, which: torch.Tensor, how: torch.Tensor, shape: tuple[int, int, int]
) -> torch.Tensor:
    """Images float [n, C, H, W] in [0, 1].

    Args:
        masters: int8 [symbols, faces, SIDE, SIDE].
        which: int64 [n, 2], symbol and face.
        how: float [n, HOW] in [-1, 1]: turn, slant, width, height, shifts, boldness, and the field that bends.
        shape: (C, H, W).
    """
    c, h, w = shape
    rows, columns = (torch.linspace(-1 + 0.5 / n, 1 - 0.5 / n, 2 * n) for n in (h, w))
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)  # [2h, 2w, (x, y)]
    a, slant = how[:, 0] * TURN, how[:, 1] * SLANT
    wide, high = (how[:, 2] * WIDE).exp(), (how[:, 3] * HIGH).exp()
    turn = torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], 1).unflatten(1, (2, 2))
    zero = torch.zeros_like(a)
    lean = torch.stack([wide, slant * high, zero, high], 1).unflatten(1, (2, 2))
    back = torch.linalg.inv(turn @ lean)  # from a place in the image to one in the master
    bent = _bent(place, how[:, 7:])
    there = (place + bent - SHIFT * how[:, None, None, 4:6]).flatten(1, 2) @ back.mT
    far = masters[which[:, 0], which[:, 1]][:, None].float() * (FAR / 127)
    far = F.grid_sample(far, there.unflatten(1, (2 * h, 2 * w)), padding_mode="border", align_corners=False)
    edge = THIN + (BOLD - THIN) * (how[:, 6] + 1) / 2
    scale = 2 * min(h, w) / SIDE  # an edge is about as wide as a pixel of the fine grid
    ink = ((far + edge[:, None, None, None]) * scale + 0.5).clamp(0, 1)
    return F.avg_pool2d(ink, 2).expand(-1, c, -1, -1)


def _bent(place: torch.Tensor, how: torch.Tensor) -> torch.Tensor:
    """Shifts [n, h, w, 2] of all places: low cosines, finer ones smaller."""
    waves = [
        (math.pi * u * (place[..., 0] + 1) / 2).cos() * (math.pi * v * (place[..., 1] + 1) / 2).cos() / (u + v)
        for u, v in MODES
    ]
    return BEND * torch.einsum("nmc,mhw->nhwc", how.unflatten(1, (len(MODES), 2)), torch.stack(waves))


def drawn_at_random(n: int, symbols: int = len(SYMBOLS)) -> tuple[torch.Tensor, torch.Tensor]:
    """(which int64 [n, 2], symbols in turn and faces at random; how [n, HOW], uniform), by torch's generator."""
    which = torch.stack([torch.arange(n) % symbols, torch.randint(len(FACES), (n,))], 1)
    return which, 2 * torch.rand(n, HOW) - 1


def images(shape: tuple[int, int, int], symbols: str = SYMBOLS) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The set as a list: uint8 [IMAGES, C, H, W], always the same, and the symbol of each."""
    with torch.random.fork_rng():
        torch.manual_seed(VERSION)
        which, how = drawn_at_random(IMAGES, len(symbols))
    parts = zip(which.split(1000), how.split(1000), strict=True)
    x = torch.cat([(255 * rendered(masters(symbols), k, h, shape)).round().to(torch.uint8) for k, h in parts])
    return x, tuple(symbols[k] for k in which[:, 0].tolist())
