"""Inputs on which other tools go wrong in silence: each kind, in the layouts that it concerns."""

from __future__ import annotations

import io
import os
import shlex
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, confirm, idx_pair, pixels, png, table_folder
from test_data_celeba import celeba, declared

from veilset.cli.main import main
from veilset.core.errors import DataError
from veilset.data import check, declare, init, load, prepare


def faults(source: Path, severity: str = "fault") -> list[str]:
    return [str(f) for f in check(source) if f.severity == severity]


# ---------------------------------------------------------------------- pictures that are stored turned

UPRIGHT = np.repeat(np.array([[255], [0]], np.uint8), 4, 0).repeat(8, 1)  # [8, 8], white above


def turned(folder: Path) -> Path:
    tag = Image.Exif()
    tag[0x0112] = 6
    stored = Image.fromarray(UPRIGHT).transpose(Image.Transpose.ROTATE_90)
    (folder / "a").mkdir(parents=True)
    for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
        stored.save(folder / "a" / f"turned{suffix}.{suffix}", kind, exif=tag)
    return folder


def test_a_picture_with_a_turning_tag_is_a_fault_in_every_format(tmp_path: Path) -> None:
    root = turned(tmp_path / "s")
    confirm(root, classes=("a",), shape=(1, 8, 8))
    (root / "a" / "turnedwebp.webp").unlink()  # has no grey: a fault for another reason
    found = faults(root)
    assert len(found) == 3
    assert all("is stored turned (its tag Orientation is 6); convert the set" in f for f in found)


def test_a_turning_tag_is_a_fault_in_tables_and_celeba_too(tmp_path: Path) -> None:
    root = turned(tmp_path / "t")
    (root / "labels.csv").write_text("file,label\n" + "".join(f"a/turned{s}.{s},a\n" for s in ("jpg", "png", "tif")))
    (root / "a" / "turnedwebp.webp").unlink()
    confirm(root, classes=("a",), shape=(1, 8, 8))
    assert len([f for f in faults(root) if "Orientation is 6" in f]) == 3


def test_prepare_turns_every_format_once(tmp_path: Path) -> None:
    out = prepare(turned(tmp_path / "s"), tmp_path / "out", grey=True)
    for path in (out / "a").iterdir():
        assert np.abs(np.asarray(Image.open(path)).astype(int) - UPRIGHT).max() < 30, path.name


def test_prepare_turns_deep_pictures_too(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    (tmp_path / "s" / "a").mkdir(parents=True)
    stored = Image.fromarray(np.rot90(UPRIGHT).astype(np.uint16) * 16)
    stored.save(tmp_path / "s" / "a" / "x.png", exif=tag)
    stored.save(tmp_path / "s" / "a" / "y.tif", exif=tag)
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4080))
    for path in (out / "a").iterdir():
        assert (np.asarray(Image.open(path)) == UPRIGHT).all(), path.name


# ---------------------------------------------------------------------- more than 8 bits a channel


def deep_png(path: Path, values: np.ndarray) -> None:
    """uint16 [H, W, channels] as a PNG: 2 channels are grey with alpha, 3 colour, 4 colour with alpha."""

    def part(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
    )


def deep_tiff(path: Path, values: np.ndarray) -> None:
    """uint16 [H, W, 3] as an uncompressed TIFF of little-endian bytes."""
    h, w, c = values.shape
    tags = [(256, 3, 1, w), (257, 3, 1, h), (258, 3, 3, 8 + h * w * c * 2), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, h), (279, 4, 1, h * w * c * 2)]
    body = values.astype("<u2").tobytes() + struct.pack("<3H", 16, 16, 16)
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + struct.pack("<I", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + ifd)


def deep_values(channels: int, top: int = 4095) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, top + 1, (6, 5, channels)).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_12_bits_of_colour_in_16_are_refused_without_a_window_and_scaled_with_it(tmp_path: Path, suffix: str) -> None:
    values, path = deep_values(3), tmp_path / "s" / "a" / f"x.{suffix}"
    if suffix == "ppm":
        path.parent.mkdir(parents=True)
        path.write_bytes(b"P6\n5 6\n4095\n" + values.astype(">u2").tobytes())
    else:
        (deep_png if suffix == "png" else deep_tiff)(path, values)
    with pytest.raises(DataError, match="has 16 bits a channel; declare a window"):
        prepare(tmp_path / "s", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4095))
    wanted = np.rint(values * (255 / 4095)).astype(np.uint8)
    assert (np.asarray(Image.open(out / "a" / "x.png")) == wanted).all()
    confirm(tmp_path / "s", classes=("a",), shape=(3, 6, 5))
    assert "--window 0,65535`" in faults(tmp_path / "s")[0]


def test_colour_with_alpha_of_16_bits_is_laid_on_black(tmp_path: Path) -> None:
    values = deep_values(4, 65535)
    deep_png(tmp_path / "s" / "a" / "x.png", values)
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 65535))
    wanted = values[..., :3] * (values[..., 3:] / 65535) / 257
    assert np.abs(np.asarray(Image.open(out / "a" / "x.png")) - wanted).max() <= 0.5 + 1e-9


def test_grey_with_alpha_of_16_bits_has_one_channel(tmp_path: Path) -> None:
    values = deep_values(2, 65535)
    deep_png(tmp_path / "s" / "a" / "x.png", values)
    init(tmp_path / "s")
    assert declare.read(tmp_path / "s").info.shape == (1, 6, 5)
    with pytest.raises(DataError, match="has 16 bits a channel; declare a window"):
        prepare(tmp_path / "s", tmp_path / "out")
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 65535))
    wanted = values[..., 0] * (values[..., 1] / 65535) / 257
    assert np.abs(np.asarray(Image.open(out / "a" / "x.png")) - wanted).max() <= 0.5 + 1e-9


def test_values_of_a_12_bit_pgm_are_the_stored_ones(tmp_path: Path) -> None:
    values, path = deep_values(1)[..., 0], tmp_path / "s" / "a" / "x.pgm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"P5\n# made by a scanner\n5 6\n4095\n" + values.astype(">u2").tobytes())
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4095))
    assert (np.asarray(Image.open(out / "a" / "x.png")) == np.rint(values * (255 / 4095))).all()
