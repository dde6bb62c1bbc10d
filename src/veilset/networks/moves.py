"""Small movements of images: one affine map, drawn at random, for all images that are to be moved alike."""

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
    """Images [n, C, H, W], all moved by the same map [2, 3]; None: as they are.

    Args:
        x: images. move: the map.
        outside: what comes in: "zeros" (black) or "border" (the outermost pixels).
    """
    if move is None:
        return x
    grid = F.affine_grid(move.to(x)[None], [1, 1, *x.shape[2:]], align_corners=False)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode=outside, align_corners=False)
