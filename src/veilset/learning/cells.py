"""A few Gaussian cells per class: found by noisy sums, and drawn from."""

from __future__ import annotations

from collections.abc import Callable

import torch


def private_kmeans(
    ask: Callable[[torch.Tensor], torch.Tensor],
    mean: torch.Tensor,
    covariance: torch.Tensor,
    centre: torch.Tensor,
    *,
    rounds: int,
    constant: float,
    deviation: float,
    least: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move centres to where the points of their cells lie, round after round (Su et al. 2016, arXiv 1504.05998).

    What is noise in a step is taken off by a Wiener filter along the axes of the class's covariance.

    Args:
        ask: centres [K, M, d] to noisy sums [K, M, d + 1] of offsets from the nearest one and of `constant`.
        mean, covariance: of each class, [K, d] and [K, d, d].
        centre: where they are at first, [K, M, d].
        rounds: how often it asks, at least once.
        constant: what a point adds to its cell's count.
        deviation: of the noise of each number of an answer.
        least: points that a cell is taken to have.

    Returns:
        Centres [K, M, d], and the shares [K, M] of each class's points in its cells.
    """
    values, axes = torch.linalg.eigh(covariance)
    prior = (values / 2).clamp_min(1e-6)[:, None]  # about half of a class's spread lies between its cells
    for _ in range(rounds):
        answer = ask(centre).float()
        n = (answer[..., -1] / constant).clamp_min(least)
        error = (deviation / n).square()[..., None]
        moved = centre + answer[..., :-1] / n[..., None] - mean[:, None]
        centre = mean[:, None] + (moved @ axes * prior / (prior + error)) @ axes.mT
        part = n / n.sum(1, keepdim=True)
    return centre, part


def draw(mean: torch.Tensor, root: torch.Tensor, part: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Points [n, d] from the cells of the labels [n].

    Args:
        mean: [K, M, d]. root: [K, M, d, d], covariances are root root'. part: [K, M] shares.
        labels: of the points.
    """
    cells = part.shape[1]
    row = labels * cells + torch.multinomial(part[labels], 1)[:, 0]
    mean, root, e = mean.flatten(0, 1), root.flatten(0, 1), torch.randn(len(labels), mean.shape[-1])
    out = mean[row]
    for r in row.unique():  # one product per cell, instead of one gathered matrix per point
        out[row == r] += e[row == r] @ root[r].T
    return out
