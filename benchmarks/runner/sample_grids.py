"""Grids of released images side by side, as one SVG file that holds its pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from veilset.core.types import Images

PER_CLASS = 5
SCALE, GAP, LINE = 1, 16, 22  # of a pixel; between grids; height of a line of text


def sample_grid(images: Images) -> str:
    """The first images of each class, one row per class, as the text of a PNG file (base64)."""
    from veilset.core.pictures import grid

    out = io.BytesIO()
    grid(images, PER_CLASS, scale=SCALE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def side_by_side(grids: Mapping[tuple[str, str], str], rows: Sequence[str], columns: Sequence[str]) -> str:
    """An SVG table of grids.

    Args:
        grids: (row, column) -> what `sample_grid` made; places without one stay empty.
        rows, columns: names, in order.
    """
    wide, high = (max((_size(s)[i] for s in grids.values()), default=100) for i in (0, 1))
    width, height = GAP + len(columns) * (wide + GAP), LINE + len(rows) * (LINE + high + GAP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">']
    out.append(f'<rect width="{width}" height="{height}" fill="#fff"/><g font-family="sans-serif" font-size="13">')
    for j, column in enumerate(columns):
        out.append(f'<text x="{GAP + j * (wide + GAP)}" y="15" font-weight="bold">{escape(column)}</text>')
    for i, row in enumerate(rows):
        top = LINE + i * (LINE + high + GAP)
        out.append(f'<text x="{GAP}" y="{top + 15}">{escape(row)}</text>')
        for j, column in enumerate(columns):
            if (found := grids.get((row, column))) is not None:
                w, h = _size(found)
                place = f'x="{GAP + j * (wide + GAP)}" y="{top + LINE}" width="{w}" height="{h}"'
                out.append(f'<image {place} href="data:image/png;base64,{found}"/>')
    return "\n".join([*out, "</g></svg>"]) + "\n"


def _size(picture: str) -> tuple[int, int]:
    """Width and height in pixels, from a PNG file's header."""
    head = base64.b64decode(picture[:44])
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
