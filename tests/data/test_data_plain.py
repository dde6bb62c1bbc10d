"""The quick look at plain PNGs: it passes what every decoder decodes, and nothing else; on two processes alike."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, confirm, pixels, table_folder

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.data import check, decode
from veilset.data.formats import items
from veilset.data.plain import is_sound

SHAPES = [(1, 5, 4), (3, 9, 7), (1, 1, 1)]


def file(shape: tuple[int, int, int], **how: object) -> bytes:
    a, out = pixels(1, shape, seed=3)[0], io.BytesIO()
    Image.fromarray(a[0] if len(a) == 1 else a.transpose(1, 2, 0)).save(out, "PNG", **how)
    return out.getvalue()


def part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def written(
    lines: bytes, head: tuple[int, ...] = (4, 5, 8, 0, 0, 0, 0), before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of 5 x 4 grey pixels from its lines, with other parts before and behind its pixels."""
    begin = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", *head))
    return begin + before + part(b"IDAT", zlib.compress(lines)) + after + part(b"IEND", b"")


GOOD = b"\0abcd" * 5
TAG = Image.Exif()
TAG[0x0112] = 6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", [{}, {"compress_level": 0}, {"optimize": True}, {"dpi": (72, 72)}])
def test_what_pillow_writes_is_plain(shape: tuple[int, int, int], how: dict[str, object]) -> None:
    assert is_sound(file(shape, **how), shape)
    assert is_sound(written(GOOD), (1, 5, 4)) and is_sound(written(GOOD, before=part(b"gAMA", b"\0\0\0\1")), (1, 5, 4))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_changed_byte_and_no_cut_passes(shape: tuple[int, int, int]) -> None:
    data = file(shape)
    for i in range(len(data)):
        assert not is_sound(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], shape), i
        assert not is_sound(data[:i], shape), i


@pytest.mark.parametrize(
    "data",
    [
        file((1, 4, 5)),
        file((3, 5, 4)),
        file((1, 5, 4)) + b"x",
        file((1, 5, 4), exif=TAG),
        file((1, 5, 4), transparency=3),
        written(GOOD, (4, 5, 8, 0, 0, 0, 1)),
        written(GOOD, (4, 5, 16, 0, 0, 0, 0)),
        written(b"\5abcd" * 5),
        written(GOOD + b"\0"),
        written(GOOD[:-1]),
        written(GOOD, before=part(b"acTL", b"\0" * 8)),
        written(GOOD, after=part(b"eXIf", TAG.tobytes())),
        written(GOOD, after=part(b"tEXt", b"Raw profile type exif\0")),
        b"",
    ],
)
def test_what_is_not_plain_is_looked_at_closer(data: bytes) -> None:
    assert not is_sound(data, (1, 5, 4))


@pytest.mark.parametrize("make", [class_folder, table_folder])
def test_two_processes_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(decode, "SHARE", 3)
    root = make(tmp_path / "s", pixels(30))
    names = sorted(root.rglob("*.png"))
    names[2].write_bytes(names[2].read_bytes()[:-20])
    names[11].write_bytes(b"")
    Image.new("RGB", (4, 5)).save(names[12])
    Image.new("L", (9, 9)).save(names[20])
    confirm(root, units=30)
    one, two = check(root), check(root, jobs=2)
    assert one == two and len([f for f in one if f.severity == "fault"]) == 4
    with pytest.raises(ConfigError, match="jobs = 0"):
        check(root, jobs=0)


def test_a_check_decodes_no_plain_picture_but_a_declared_range_needs_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folder(tmp_path / "s", np.full((4, 1, 5, 4), 200, np.uint8))
    confirm(root, units=4, value_range=(0.0, 100.0))
    assert sum("outside the declared value_range" in f.what for f in check(root)) == 4
    confirm(root, units=4)
    monkeypatch.setattr(decode, "as_is", lambda *_: pytest.fail("decoded"))
    assert check(root) == []


def test_a_check_of_a_zip_decodes_no_plain_picture_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real, seen = class_folder(tmp_path / "s", pixels(6)), decode.as_is, list[int]()
    Image.new("L", (9, 9)).save(root / "cat" / "000.png")
    (root / "dog" / "001.png").write_bytes((root / "dog" / "001.png").read_bytes()[:-20])
    shutil.make_archive(str(root), "zip", root)
    confirm(tmp_path / "s.zip")

    def counted(data: bytes, info: PublicInfo) -> np.ndarray:
        seen.append(len(data))
        return real(data, info)

    monkeypatch.setattr(items, "as_is", counted)
    wrong = sorted(f.where for f in check(tmp_path / "s.zip") if f.severity == "fault")
    assert wrong == ["cat/000.png", "dog/001.png"] and len(seen) == 2
