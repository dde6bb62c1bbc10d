"""What methods share that release a few images a class and nothing else."""

from __future__ import annotations

import torch


def picked(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """An image a label: all images of a class in a random order, then all of them again.

    Args:
        x: [K, S, C, H, W], the released images.
        labels: int64 [n].

    Returns:
        [n, C, H, W].
    """
    each, turn = x.shape[1], torch.zeros_like(labels)
    for k in range(len(x)):
        many = int((labels == k).sum())
        turn[labels == k] = torch.cat([torch.randperm(each) for _ in range(many // each + 1)])[:many]
    return x[labels, turn]
