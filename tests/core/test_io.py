"""Reading what a stranger wrote, and writing nothing through a link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from veilset.core.errors import RunError
from veilset.core.io import MOST_DEPTH, no_links, parse_json, private_part, read_capped, read_json
from veilset.core.pictures import decode_png, png_bytes
from veilset.core.rendering import LONGEST, legible, one_line
from veilset.privacy.ledger import Ledger


@pytest.mark.parametrize("open_, close", [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_limit(open_: str, close: str) -> None:
    def nested(times: int) -> bytes:
        return (open_ * times + "1" + close * times).encode()

    assert parse_json(nested(MOST_DEPTH - 1))
    for times in (MOST_DEPTH, 900, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(nested(times))


@pytest.mark.parametrize("raw", [b"", b"9" * 100_000, b"\xff", b"[1", b'{"a": 1}x'])
def test_what_is_no_json_is_told_in_one_line(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(RunError, match="a.json: not valid JSON") as told:
        read_json(tmp_path / "a.json")
    assert len(str(told.value).splitlines()) == 1


def test_size_and_kind_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_capped(tmp_path / "a", 5) == b"12345"
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for path, most, words in (
        (tmp_path / "a", 4, "at most 4 are read"),
        (tmp_path / "link", 9, "a link or a special file"),
        (tmp_path, 9, "a folder"),
        (tmp_path / "none", 9, "no such file"),
        (tmp_path / "a" / "b", 9, "no such file"),
    ):
        with pytest.raises(RunError, match=words):
            read_capped(path, most)


def test_the_folder_itself_may_be_a_link_and_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "real" / "private").mkdir(parents=True)
    (tmp_path / "named").symlink_to(tmp_path / "real")
    assert no_links(tmp_path / "named") == (tmp_path / "real").resolve()
    assert private_part(tmp_path / "named") == (tmp_path / "real" / "private").resolve()
    (tmp_path / "real" / "private").rmdir()
    assert private_part(tmp_path / "named") is None
    (tmp_path / "real" / "private").symlink_to(tmp_path)
    with pytest.raises(RunError, match="private is a link"):
        private_part(tmp_path / "named")


def test_a_ledger_is_not_begun_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")  # to nothing yet
    with pytest.raises(RunError, match="cannot write ledger.jsonl"):
        Ledger(tmp_path / "ledger.jsonl").append("open")
    assert not (tmp_path / "elsewhere").exists()


def test_no_decoder_but_that_of_png_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    asked: list[Any] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda f, **how: asked.append(how) or real(f, **how))  # type: ignore[func-returns-value]
    x = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    assert np.array_equal(decode_png(png_bytes(x), (1, 8, 8)), x.numpy())
    assert asked == [{"formats": ["PNG"]}]
    with pytest.raises(ValueError, match="no PNG"):
        decode_png(b"P5 8 8 255 " + bytes(64), (1, 8, 8))
    assert len(asked) == 1  # its bytes announce something else, so nobody is asked


def test_legible_text_changes_nothing_that_is_harmless() -> None:
    for plain in ("Kräuter ✓", "日本語", "कक्षा", "می\u200cخواهم", '{"a": "b\\n"}'):
        assert legible(plain) == plain
    for c in (
        "\x00",
        "\x1b",
        "\x7f",
        "\x85",
        "\x9b",
        "\u061c",
        "\u200f",
        "\u202e",
        "\u2028",
        "\u2066",
        "\ufeff",
        "\ud800",
    ):
        assert legible(f"a{c}b").isascii() and json.loads(f'"{legible(c)}"') == c
    assert legible("a\nb") == "a\\u000ab" and legible("a\nb\r", lines=True) == "a\nb\\u000d"
    assert one_line("x" * 10**7).startswith("x" * LONGEST) and len(one_line("x" * 10**7)) < LONGEST + 20
