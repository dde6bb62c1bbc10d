"""Small movements of images by affine maps drawn at random: one for all images, or one for each."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def drawn_move(shift: float, scale: float, turn: float) -> torch.Tensor:
    """One random affine map [2, 3]: a shift, a scale of each side, or a turn.

    Args:
        shift: at most, as a part of a side. scale: at most, relative. turn: at most, in degrees.
    """
    move, kind = torch.eye(2, 3), int(torch.randint(3, ()))
    if kind == 0:
        move[:, 2] = 2 * shift * (2 * torch.rand(2) - 1)
    elif kind == 1:
        move[:, :2] /= 1 + scale * (2 * torch.rand(2) - 1)
    else:
        angle = math.radians(turn) * (2 * torch.rand(()) - 1)
        move[:, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    return move


def moved(x: torch.Tensor, move: torch.Tensor | None, outside: str = "zeros") -> torch.Tensor:
    """Images [n, C, H, W], all moved by one map [2, 3] or each by its own of [n, 2, 3]; None: as they are.

    Args:
        x: images. move: the map or maps.
        outside: what comes in: "zeros" (black) or "border" (the outermost pixels).
    """
    if move is None:
        return x
    maps = move.to(x).view(-1, 2, 3)
    grid = F.affine_grid(maps, [len(maps), 1, *x.shape[2:]], align_corners=False)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode=outside, align_corners=False)


def moved_apart(x: torch.Tensor, shift: float, scale: float, slant: float, turn: float) -> torch.Tensor:
    """Images [n, C, H, W], each turned, slanted, stretched and shifted by a map of its own.

    Uses torch's global generator. The outermost pixels go on outside.

    Args:
        x: images.
        shift, scale, slant, turn: the most, as a part of a side, relative for each side, as a slope, in degrees; each
            is drawn uniformly, in both directions.
    """

    def drawn(most: float) -> torch.Tensor:
        return most * (2 * torch.rand(len(x)) - 1)

    ratio = x.shape[2] / x.shape[3]  # sides are 2 units long in a map, whatever their number of pixels
    angle, wide, high, lean = drawn(math.radians(turn)), 1 + drawn(scale), 1 + drawn(scale), drawn(slant)
    first = [angle.cos() * wide, (lean - angle.sin() * high) * ratio, drawn(2 * shift)]
    second = [angle.sin() * wide / ratio, angle.cos() * high, drawn(2 * shift)]
    maps = torch.stack([torch.stack(first, 1), torch.stack(second, 1)], 1)
    return moved(x, maps, outside="border")
