"""Ten public sets of very different kinds, drawn by this file or cut from pictures that ordinary packages carry.

Each is the same for everybody. Half of them (UNSEEN) were named before they had a figure; nothing is chosen on them.

| set | what | from | licence |
|---|---|---|---|
| digits | grey 8 x 8, 10 handwritten digits, 1,438 | scikit-learn | CC BY 4.0 (UCI optical digits) |
| shapes | colour 32 x 32, 6 drawn forms on shaded grounds, 4,200 | drawn here | none needed |
| spots | colour 32 x 32, 3 kinds of spot on skin 90 : 9 : 1, 900 people of up to 8 images | drawn here | none needed |
| weave | grey 64 x 64, 4 generated textures, 960 | drawn here | none needed |
| letters | grey 20 x 20, 26 printed capitals, 12,000 | matplotlib's fonts | DejaVu, STIX: free |
| faces | grey 25 x 25, photographed faces and other patches, 150 | scikit-image | public domain (LFW subset) |
| photographs | colour 64 x 64, patches of 5 photographs, 3,000 | scikit-learn and -image | CC BY 2.0, CC0 |
| materials | grey 48 x 48, brick, grass, gravel 90 : 9 : 1, 2,000 | scikit-image | CC0 |
| phantoms | grey 128 x 128, drawn scans with or without a mass, 400 people, 4 slices | drawn here | none needed |
| signs | colour 24 x 24, 50 characters on coloured plates, 60,000 | matplotlib's fonts | DejaVu, STIX: free |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veilset.core.errors import ConfigError

TUNED = ("digits", "shapes", "spots", "weave", "letters")
UNSEEN = ("faces", "photographs", "materials", "phantoms", "signs")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIGNS = LETTERS + "abdefghmnqrt" + "0123456789" + "&%"  # 50, without small letters that are capitals made smaller
LARGE = 48  # side of the square in which a character is drawn once a font
SKEWED = (0.9, 0.09, 0.01)

Array = NDArray[Any]
Part = tuple[Array, Array, Array]  # images [n, H, W] or [n, H, W, 3] in [0, 1], labels [n], units [n]


@dataclass(frozen=True)
class Field:
    """A set: how it is made, and what is declared of it.

    Attributes:
        classes: their names.
        make: a generator of random numbers to its training and its test part.
        units: declared; the same as in the training part.
        most: images of a unit, at most.
    """

    classes: Sequence[str]
    make: Callable[[np.random.Generator], tuple[Part, Part]]
    units: int
    most: int = 1


def build(name: str, folder: Path) -> Path:
    """Write a set with its declaration into a folder: NAME.npz, which `veilset.load` reads.

    Raises:
        ConfigError: unknown, or a package whose pictures are used is not installed.
    """
    if name not in FIELD:
        raise ConfigError(f"data = {name!r}: unknown set of the field; known: {', '.join(FIELD)}")
    field = FIELD[name]
    train, test = field.make(np.random.default_rng(2027))
    names = np.array(list(field.classes))
    parts: dict[str, Any] = {}
    for split, (x, y, unit) in (("", train), ("_test", test)):
        parts["x" + split] = _bytes(x)
        parts["y" + split] = names[y]
        if field.most > 1:
            parts["unit" + split] = unit
    path = folder / f"{name}.npz"
    np.savez(path, **parts)
    c, (h, w) = (3 if train[0].ndim == 4 else 1), train[0].shape[1:3]
    lines = [f'name = "{name}"', "classes = [" + ", ".join(f'"{k}"' for k in field.classes) + "]"]
    lines += [f"shape = [{c}, {h}, {w}]", "value_range = [0.0, 255.0]", f"units = {field.units}"]
    if field.most > 1:
        lines += ['unit = "one person"', 'unit_column = "unit"', f"max_images_per_unit = {field.most}"]
    lines += ['access = "public"', "confirmed = true", ""]
    path.with_name(f"{name}.veilset.toml").write_text("\n".join(lines), encoding="utf-8")
    return path


def _bytes(x: Array) -> Array:
    return x if x.dtype == np.uint8 else np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)


# ---------------------------------------------------------------------- digits


def _digits(rng: np.random.Generator) -> tuple[Part, Part]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, own, test = x.reshape(-1, 8, 8) / 16, np.arange(len(x)), np.arange(len(x)) % 5 == 0
    return (x[~test], y[~test], own[~test]), (x[test], y[test], own[test])


# ---------------------------------------------------------------------- shapes


def _places(n: int, side: int) -> tuple[Array, Array]:
    """Coordinates (across, down) of pixels in [-1, 1], [1, side, side]."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    return np.broadcast_to(at[None, None], (1, side, side)), np.broadcast_to(at[None, :, None], (1, side, side))


def _hue(h: Array, value: Array, strength: Array) -> Array:
    """Colours [n, 3] of a hue in turns, a value and a saturation."""
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (h[:, None] - np.array([0, 1 / 3, 2 / 3])))
    return value[:, None] * (1 - strength[:, None] * (1 - wave))


def _shapes(rng: np.random.Generator) -> tuple[Part, Part]:
    def part(n: int) -> Part:
        y = rng.permutation(np.arange(n) % 6)
        across, down = _places(n, 32)
        a, size = rng.uniform(-0.5, 0.5, n), rng.uniform(0.4, 0.7, n)
        dx, dy = rng.uniform(-0.3, 0.3, (2, n))
        u, v = across - dx[:, None, None], down - dy[:, None, None]
        c, s = np.cos(a)[:, None, None], np.sin(a)[:, None, None]
        u, v = (c * u + s * v) / size[:, None, None], (c * v - s * u) / size[:, None, None]
        r, box = np.hypot(u, v), np.maximum(abs(u), abs(v))
        forms = [1 - r, 0.25 - abs(r - 0.75), 0.9 - box, np.minimum(0.5 + v / 2 - abs(u), 0.8 - v)]
        forms += [np.maximum(0.25 - abs(u), 0.25 - abs(v)) - 5 * (box > 1), 0.15 - abs((v * 2.5) % 1 - 0.5) - (box > 1)]
        ink = np.clip(np.stack(forms)[y, np.arange(n)] * size[:, None, None] * 16 + 0.5, 0, 1)[..., None]
        shade = rng.normal(0, 0.12, (n, 2, 1, 1, 3))
        paper = _hue(rng.uniform(0, 1, n), rng.uniform(0.2, 0.9, n), rng.uniform(0, 0.6, n))[:, None, None]
        paper = paper + shade[:, 0] * across[..., None] + shade[:, 1] * down[..., None]
        own = _hue(y / 6 + rng.normal(0, 0.15, n), rng.uniform(0.4, 1, n), rng.uniform(0.3, 0.9, n))[:, None, None]
        return ink * own + (1 - ink) * paper + rng.normal(0, 0.04, (n, 32, 32, 3)), y, np.arange(n)

    return part(4200), part(1500)


# ---------------------------------------------------------------------- spots, of people with several images


def _skewed(n: int, rng: np.random.Generator) -> Array:
    counts = np.round(np.array(SKEWED) * n).astype(int)
    counts[0] = n - counts[1:].sum()
    return rng.permutation(np.repeat(np.arange(3), counts))


def _spots(rng: np.random.Generator) -> tuple[Part, Part]:
    def part(y: Array) -> Part:
        n = len(y)
        tone = np.array([0.85, 0.66, 0.55]) * rng.uniform(0.5, 1.1, (n, 1)) + rng.normal(0, 0.03, (n, 3))
        size = np.array([0.3, 0.45, 0.6])[y] * np.exp(rng.normal(0, 0.2, n))
        dark, ragged = np.array([0.75, 0.5, 0.35])[y] + rng.normal(0, 0.1, n), np.array([0.05, 0.15, 0.35])[y]
        phase, lobes = rng.uniform(0, 2 * np.pi, n), rng.integers(2, 6, n)
        unit = np.repeat(np.arange(n), rng.integers(1, 9, n))
        m, (across, down) = len(unit), _places(n, 32)
        turn, grow = rng.uniform(0, 2 * np.pi, m), np.exp(rng.normal(0, 0.1, m))
        u, v = (p - rng.normal(0, 0.12, m)[:, None, None] for p in (across, down))
        angle = np.arctan2(v, u) + (turn + phase[unit])[:, None, None]
        edge = (size[unit] * grow)[:, None, None] * (
            1 + ragged[y[unit], None, None] * np.cos(lobes[unit, None, None] * angle)
        )
        ink = np.clip((edge - np.hypot(u, v)) * 8 + 0.5, 0, 1)[..., None]
        light = 1 + rng.normal(0, 0.08, (m, 1, 1, 1)) + rng.normal(0, 0.1, (m, 1, 1, 1)) * across[..., None]
        skin = tone[unit][:, None, None] * light
        x = skin * (1 - ink) + skin * np.clip(dark[unit], 0.1, 1)[:, None, None, None] * np.array([1, 0.85, 0.8]) * ink
        return x + rng.normal(0, 0.02, x.shape), y[unit], unit

    return part(_skewed(900, rng)), part(np.arange(240) % 3)


# ---------------------------------------------------------------------- textures


def _weave(rng: np.random.Generator) -> tuple[Part, Part]:
    def part(n: int) -> Part:
        y = rng.permutation(np.arange(n) % 4)
        return np.stack([_woven(int(k), rng) for k in y]), y, np.arange(n)

    return part(960), part(400)


def _woven(kind: int, rng: np.random.Generator, side: int = 64) -> Array:
    """One texture: bars, cells, clouds or grains, of random scale, turn and contrast."""
    across, down = (p[0] for p in _places(1, side))
    if kind == 0:
        a, f = rng.uniform(0, np.pi), rng.uniform(4, 9)
        x = np.sin(2 * np.pi * (f / 2 * (np.cos(a) * across + np.sin(a) * down) + rng.uniform())) ** 3
    elif kind == 1:
        points = rng.uniform(-1.1, 1.1, (2, rng.integers(12, 40)))
        far = np.hypot(across[..., None] - points[0], down[..., None] - points[1])
        near = np.sort(far, -1)
        x = 2 * np.clip((near[..., 1] - near[..., 0]) * 6, 0, 1) - 1
    else:
        f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
        fall = (
            (f + 0.01) ** -rng.uniform(1.4, 2) if kind == 2 else np.exp(-(((f - rng.uniform(0.15, 0.25)) / 0.04) ** 2))
        )
        x = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * fall, (side, side))
        x = (x - x.mean()) / x.std() / 2
    return rng.uniform(0.35, 0.65) + rng.uniform(0.15, 0.3) * x + rng.normal(0, 0.02, (side, side))


def _materials(rng: np.random.Generator) -> tuple[Part, Part]:
    pictures = [_picture(f"{name}.png").mean(-1) for name in ("brick", "grass", "gravel")]
    side = 48

    def part(y: Array, low: float, high: float) -> Part:
        rows = 512 - side
        x = np.stack([_patch(pictures[k], side, rng, (0, rows), (low * rows, high * rows)) for k in y])
        return x, y, np.arange(len(y))

    return part(_skewed(2000, rng), 0, 0.65), part(np.arange(600) % 3, 0.75, 1)


# ---------------------------------------------------------------------- photographs


def _picture(file: str) -> Array:
    """A picture of scikit-image, [H, W, 3] in [0, 1]; its files are read without importing it."""
    from PIL import Image

    with Image.open(_scikit_image() / file) as picture:
        return np.asarray(picture.convert("RGB"), np.float64) / 255


def _scikit_image() -> Path:
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("data: its pictures come with scikit-image, which is not installed; pip install scikit-image")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _patch(
    picture: Array, side: int, rng: np.random.Generator, rows: tuple[float, float], columns: tuple[float, float]
) -> Array:
    """A square of a picture whose corner is within these rows and columns, half of them mirrored, lighter or darker."""
    i, j = (int(rng.integers(int(a), max(int(a) + 1, int(b)))) for a, b in (rows, columns))
    cut = picture[i : i + side, j : j + side]
    return (cut[:, ::-1] if rng.random() < 0.5 else cut) * rng.uniform(0.8, 1.15)


def _photographs(rng: np.random.Generator) -> tuple[Part, Part]:
    from sklearn.datasets import load_sample_images

    found = [np.asarray(p, np.float64) / 255 for p in load_sample_images().images]
    found += [_picture(file) for file in ("coffee.png", "chelsea.png", "astronaut.png")]
    side = 64

    def part(n: int, low: float, high: float) -> Part:
        y = rng.permutation(np.arange(n) % len(found))
        x = []
        for k in y:
            h, w = (s - side for s in found[k].shape[:2])
            x.append(_patch(found[k], side, rng, (0, h), (low * w, high * w)))
        return np.stack(x), y, np.arange(n)

    return part(3000, 0, 0.62), part(1000, 0.8, 1)  # no patch of one part overlaps one of the other


def _faces(rng: np.random.Generator) -> tuple[Part, Part]:
    x = np.load(_scikit_image() / "lfw_subset.npy", allow_pickle=False)  # 100 faces, then 100 other patches
    y, own = np.repeat([0, 1], 100), np.arange(200)
    test = own % 4 == 0
    return (x[~test], y[~test], own[~test]), (x[test], y[test], own[test])


# ---------------------------------------------------------------------- scans


def _phantoms(rng: np.random.Generator) -> tuple[Part, Part]:
    def part(n: int) -> Part:
        y = rng.permutation(np.arange(n) % 2)
        unit = np.repeat(np.arange(n), rng.integers(1, 5, n))
        body = rng.uniform(0.6, 0.9, (n, 2))
        mass = np.stack([rng.uniform(-0.35, 0.35, n), rng.uniform(-0.3, 0.3, n), rng.uniform(0.12, 0.25, n)], 1)
        return np.stack([_slice(body[i], mass[i], bool(y[i]), rng) for i in unit]), y[unit], unit

    return part(400), part(200)


def _slice(body: Array, mass: Array, ill: bool, rng: np.random.Generator) -> Array:
    """One slice: body, two dark lungs, a spine, coils' shading, noise that is Rician, and perhaps a mass."""
    across, down = (p[0] for p in _places(1, 128))
    dx, dy = rng.normal(0, 0.05, 2)
    u, v = across - dx, down - dy

    def disc(x: float, y: float, a: float, b: float) -> Array:
        return np.clip((1 - np.hypot((u - x) / a, (v - y) / b)) * 12 + 0.5, 0, 1)

    x = 0.55 * disc(0, 0, body[0], body[1])
    for where in (-0.38, 0.38):
        x = x - 0.4 * disc(where * body[0] / 0.75, -0.05, 0.26 * body[0] / 0.75, 0.5 * body[1] / 0.75)
    x = x + 0.4 * disc(0, 0.45, 0.1, 0.12)
    if ill:
        size = mass[2] * rng.uniform(0.7, 1.1)
        x = x + 0.35 * disc(mass[0], mass[1], size, size)
    x = np.clip(x, 0, 1) * (1 + rng.normal(0, 0.15) * across + rng.normal(0, 0.15) * down)
    return np.hypot(x + rng.normal(0, 0.04, x.shape), rng.normal(0, 0.04, x.shape))


# ---------------------------------------------------------------------- characters


def _masters(symbols: str) -> Array:
    """Every symbol in every font of the glyph set, float32 [fonts, symbols, LARGE, LARGE], ink 1."""
    from PIL import Image, ImageDraw, ImageFont

    from benchmarks.runner.glyphs import FONTS, font_folder

    folder, out = font_folder(), np.zeros((len(FONTS), len(symbols), LARGE, LARGE), np.float32)
    for f, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), LARGE * 5 // 8)
        for k, symbol in enumerate(symbols):
            left, top, right, bottom = font.getbbox(symbol)
            picture = Image.new("L", (LARGE, LARGE))
            at = (LARGE - right - left) / 2, (LARGE - bottom - top) / 2
            ImageDraw.Draw(picture).text(at, symbol, font=font, fill=255)
            out[f, k] = np.asarray(picture) / 255
    return out


def _written(masters: Array, y: Array, side: int, rng: np.random.Generator) -> Array:
    """Ink [n, side, side] of symbols y in random fonts, turned, slanted, stretched and shifted a little."""
    import torch
    from torch.nn import functional as F

    n = len(y)
    a, slant = rng.uniform(-0.25, 0.25, n), rng.uniform(-0.2, 0.2, n)
    wide, high = np.exp(rng.normal(0, 0.12, (2, n))) * 0.75
    c, s = np.cos(a), np.sin(a)
    move = np.stack([c * wide, (slant * c - s) * high, rng.normal(0, 0.07, n)], 1)
    move = np.stack([move, np.stack([s * wide, (slant * s + c) * high, rng.normal(0, 0.07, n)], 1)], 1)
    which, parts = rng.integers(len(masters), size=n), []
    for at in np.split(np.arange(n), range(4000, n, 4000)):
        grid = F.affine_grid(torch.tensor(move[at], dtype=torch.float32), [len(at), 1, 2 * side, 2 * side], False)
        ink = F.grid_sample(torch.tensor(masters[which[at], y[at]])[:, None], grid, align_corners=False)
        parts.append(F.avg_pool2d(ink, 2)[:, 0].numpy())
    return np.concatenate(parts)


def _letters(rng: np.random.Generator) -> tuple[Part, Part]:
    masters = _masters(LETTERS)

    def part(n: int) -> Part:
        y = rng.permutation(np.arange(n) % len(LETTERS))
        ink, paper = _written(masters, y, 20, rng), rng.uniform(0.8, 1, (n, 1, 1))
        x = paper * (1 - ink) + rng.uniform(0, 0.3, (n, 1, 1)) * ink
        return x + rng.normal(0, 0.03, x.shape), y, np.arange(n)

    return part(12_000), part(1560)


def _signs(rng: np.random.Generator) -> tuple[Part, Part]:
    masters = _masters(SIGNS)

    def some(y: Array) -> Array:
        n = len(y)
        ink, (across, down) = _written(masters, y, 24, rng)[..., None], _places(n, 24)
        rim = rng.uniform(0.75, 1, (n, 1, 1)) - np.maximum(abs(across), abs(down))
        plate = np.clip(rim * 12 + 0.5, 0, 1)[..., None]
        ground, own, text = (_hue(rng.uniform(0, 1, n), v, s)[:, None, None] for v, s in _tones(n, rng))
        x = ground * (1 - plate) + plate * (own * (1 - ink) + text * ink)
        return _bytes(x + rng.normal(0, 0.02, x.shape))

    def part(n: int) -> Part:
        y = rng.permutation(np.arange(n) % len(SIGNS))
        return np.concatenate([some(few) for few in np.split(y, range(2000, n, 2000))]), y, np.arange(n)

    return part(60_000), part(2000)


def _tones(n: int, rng: np.random.Generator) -> list[tuple[Array, Array]]:
    """(value, saturation) of the ground, the plate and its character: dull, strong, and light or dark."""
    light = np.where(rng.random(n) < 0.7, rng.uniform(0.85, 1, n), rng.uniform(0, 0.15, n))
    return [
        (rng.uniform(0.2, 0.8, n), rng.uniform(0, 0.4, n)),
        (rng.uniform(0.35, 0.65, n), rng.uniform(0.5, 1, n)),
        (light, rng.uniform(0, 0.2, n)),
    ]


FIELD = {
    "digits": Field("0123456789", _digits, 1437),
    "shapes": Field(("disc", "ring", "square", "triangle", "cross", "bars"), _shapes, 4200),
    "spots": Field(("mild", "odd", "grave"), _spots, 900, 8),
    "weave": Field(("bars", "cells", "clouds", "grains"), _weave, 960),
    "letters": Field(LETTERS, _letters, 12_000),
    "faces": Field(("face", "other"), _faces, 150),
    "photographs": Field(("china", "flower", "coffee", "cat", "person"), _photographs, 3000),
    "materials": Field(("brick", "grass", "gravel"), _materials, 2000),
    "phantoms": Field(("clear", "mass"), _phantoms, 400, 4),
    "signs": Field(SIGNS, _signs, 60_000),
}
