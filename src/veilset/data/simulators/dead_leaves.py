"""Dead leaves: discs of random sizes and greys (or colours) that fall on each other. They need no package.

Paper: Lee, Mumford, Huang 2001 (radii by a power law of exponent 3, which gives the statistics of natural images).
"""

from __future__ import annotations

import hashlib
import json

import torch

NAME = "dead-leaves"
LICENCE = "none needed: made by this package (Apache-2.0)"
LEAVES, SMALLEST, LARGEST = 60, 0.06, 0.8  # discs of an image; radii relative to its smaller side
VERSION = 1  # of the recipe: another number where the same numbers give another image
IMAGES = 5000  # of the set as a list


def recipe() -> str:
    """SHA-256 of all that decides what is drawn."""
    facts = {"name": NAME, "version": VERSION, "leaves": [LEAVES, SMALLEST, LARGEST], "images": IMAGES}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def images(shape: tuple[int, int, int]) -> torch.Tensor:
    """The set as a list: uint8 [IMAGES, C, H, W], always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(VERSION)
        parts = [_fallen(n, shape) for n in torch.full((IMAGES // 500,), 500).tolist()]
    return torch.cat(parts)


def _fallen(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    c, h, w = shape
    rows, columns = torch.arange(h)[:, None] + 0.5, torch.arange(w) + 0.5
    x = torch.rand(n, c, 1, 1).expand(n, c, h, w).clone()
    low, high = SMALLEST**-2.0, LARGEST**-2.0
    for _ in range(LEAVES):
        radius = min(h, w) * (low + (high - low) * torch.rand(n, 1, 1)).rsqrt()
        away = (rows - h * torch.rand(n, 1, 1)).square() + (columns - w * torch.rand(n, 1, 1)).square()
        x = torch.where((away < radius.square())[:, None], torch.rand(n, c, 1, 1), x)
    return (255 * x).round().to(torch.uint8)
