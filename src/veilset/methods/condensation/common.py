"""What methods share that release a few images per class and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from veilset.core.errors import ConfigError

if TYPE_CHECKING:
    from veilset.core.types import PublicInfo


def each(wanted: int | None, default: int, info: PublicInfo) -> int:
    """Images a class that are released.

    Args:
        wanted: as the user says; None: `default`, or N / K if that is less.
        default: of the method.
        info: declared facts.

    Raises:
        ConfigError: more than a class is declared to have.
    """
    most = info.units // len(info.classes)
    many = max(1, min(default, most)) if wanted is None else wanted
    if many > most:
        raise ConfigError(
            f"per_class = {many}: must be at most N / K = {info.units} / {len(info.classes)}, the declared units "
            "of a class; ask for fewer images, or declare more units"
        )
    return many


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
