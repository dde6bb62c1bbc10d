"""Ten Greek capitals in fourteen fonts, turned, slanted, stretched and shaded: a set on which no default was chosen.

It is drawn from a fixed seed, so that everybody gets the same set from the fonts that come with matplotlib
(`pip install 'veilset[glyphs]'`): 60,000 images for training and 10,000 for the test, grey, 28 x 28.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import ConfigError

NAME, LETTERS, SIDE = "greek", "ΓΔΘΛΞΠΣΦΨΩ", 28
TRAIN, TEST = 60_000, 10_000
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono"),
    *("DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
LARGE = 96  # side of the square in which a letter is drawn once a font; its box fills at most half of it
TURN, SLANT, STRETCH, SHIFT = 20, 0.25, 0.25, 3  # degrees, shear, relative size a side, pixels
DECLARATION = """name = "{name}"
classes = [{classes}]
shape = [1, {side}, {side}]
value_range = [0.0, 255.0]
units = {units}
access = "public"
confirmed = true
"""


def make(folder: Path, train: int = TRAIN, test: int = TEST) -> Path:
    """Draw the set into a folder, with its declaration: greek.npz, which `veilset.load` reads.

    Args:
        folder: exists.
        train, test: images, in turn of the letters.

    Raises:
        ConfigError: matplotlib, whose fonts are used, is not installed.
    """
    masters = _masters()
    rng = np.random.default_rng(2026)
    parts: dict[str, Any] = {}
    for split, n in (("", train), ("_test", test)):
        y = np.arange(n) % len(LETTERS)
        font = rng.integers(len(FONTS), size=n)
        parts["x" + split] = np.stack([_drawn(masters[f, k], rng) for f, k in zip(font, y, strict=True)])
        parts["y" + split] = np.array(list(LETTERS))[y]
    path = folder / f"{NAME}.npz"
    np.savez(path, **parts)
    names = ", ".join(f'"{letter}"' for letter in LETTERS)
    declaration = DECLARATION.format(name=NAME, classes=names, side=SIDE, units=train)
    path.with_name(f"{NAME}.veilset.toml").write_text(declaration, encoding="utf-8")
    return path


def _masters() -> np.ndarray:
    """Every letter in every font, uint8 [fonts, letters, LARGE, LARGE], ink 255, its box in the middle."""
    from PIL import Image, ImageDraw, ImageFont

    folder = font_folder()
    out = np.zeros((len(FONTS), len(LETTERS), LARGE, LARGE), np.uint8)
    for f, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), LARGE * 5 // 8)
        for k, letter in enumerate(LETTERS):
            left, top, right, bottom = font.getbbox(letter)
            at = (LARGE - right - left) / 2, (LARGE - bottom - top) / 2
            picture = Image.new("L", (LARGE, LARGE))
            ImageDraw.Draw(picture).text(at, letter, font=font, fill=255)
            out[f, k] = np.asarray(picture)
    return out


def font_folder() -> Path:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            f"data = {NAME!r}: its fonts come with matplotlib, which is not installed; pip install 'veilset[glyphs]'"
        ) from None
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _drawn(master: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One image, uint8 [SIDE, SIDE]: the letter moved, ink and paper of random grey, paper shaded from side to side."""
    from PIL import Image

    turn = math.radians(rng.uniform(-TURN, TURN))
    slant, wide, high = rng.uniform(-SLANT, SLANT), *(1 + rng.uniform(-STRETCH, STRETCH, 2))
    there = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    there = there @ np.array([[1, slant], [0, 1]]) @ np.diag([wide, high]) * (SIDE / LARGE * 1.1)
    back = np.linalg.inv(there)
    middle, moved = np.full(2, LARGE / 2), np.full(2, SIDE / 2) + rng.uniform(-SHIFT, SHIFT, 2)
    offset = middle - back @ moved
    # Twice the size first: a letter shrunk in one step would have steps on its edges.
    fine = Image.fromarray(master).transform(
        (2 * SIDE, 2 * SIDE),
        Image.Transform.AFFINE,
        (*back[0] / 2, offset[0], *back[1] / 2, offset[1]),
        Image.Resampling.BILINEAR,
    )
    ink = np.asarray(fine.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) / 255
    paper, dark = rng.uniform(0, 0.35), rng.uniform(0.6, 1)
    across = np.linspace(-0.5, 0.5, SIDE)
    side = rng.uniform(0, 2 * math.pi)
    shade = paper + rng.uniform(0, 0.3) * (math.cos(side) * across[None] + math.sin(side) * across[:, None])
    value = shade * (1 - ink) + dark * ink
    return np.round(255 * np.clip(value, 0, 1)).astype(np.uint8)
