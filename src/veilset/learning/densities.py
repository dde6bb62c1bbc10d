"""Densities of Gaussian mixtures by class."""

from __future__ import annotations

import math

import torch

RIDGE = 0.05  # deviation of a pixel that is added to Gaussians


def log_density(
    mean: torch.Tensor, root: torch.Tensor, part: torch.Tensor, z: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Log density [n] of coordinates z [n, d] under the mixture of Gaussians of their class.

    Args:
        mean: [K, M, d]. root: [K, M, d, r], covariances are root root' + RIDGE^2. part: [K, M] weights.
        z, y: coordinates and labels.
    """
    out = torch.zeros(len(y))
    for k in y.unique().tolist():
        here = y == k
        terms = []
        for j in range(mean.shape[1]):
            r = root[k, j].double()
            covariance = r @ r.T + RIDGE**2 * torch.eye(len(r), dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(mean[k, j].double(), covariance)
            terms.append(normal.log_prob(z[here].double()) + math.log(max(float(part[k, j]), 1e-9)))
        out[here] = torch.stack(terms).logsumexp(0).float()
    return out
