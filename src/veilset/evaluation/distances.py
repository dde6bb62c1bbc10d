"""Arithmetic on features, in float64: Frechet distance, kernel distance, Inception Score. No image is seen here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veilset.core.errors import DataError

if TYPE_CHECKING:
    import torch

SUBSETS, SUBSET = 100, 1000  # of the kernel distance
SPLITS = 10  # of the Inception Score
ROUNDED = 4 * 2.0**-52  # how far an eigenvalue may be off, relative to the largest
NEGLIGIBLE = 1e-4  # of a Frechet distance


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution: mean [D], and a covariance [D, D] or, where that is singular, a factor [D, R] of it.

    Attributes:
        mean: float64 [D].
        factor: covariance = factor @ factor.T; lower triangular where `covariance` is given.
        covariance: float64 [D, D], positive definite; None where it is not.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    covariance: torch.Tensor | None = None


def fit(features: torch.Tensor) -> Gaussian:
    """The normal distribution with the mean and the unbiased covariance of features float64 [N, D].

    Raises:
        DataError: fewer than 2 images.
    """
    import torch

    count, width = features.shape
    if count < 2:
        raise DataError(f"a Frechet distance got {count} images: it needs at least 2 on each side")
    mean = features.mean(0)
    centred = (features - mean).div_((count - 1) ** 0.5)
    if count <= width:  # the covariance is singular; the features themselves are a factor
        return Gaussian(mean, centred.T)
    rows = centred.numpy()  # numpy sees that both sides of the product are one matrix, and does half of the work
    return from_moments(mean, torch.from_numpy(rows.T @ rows))


def from_moments(mean: torch.Tensor, covariance: torch.Tensor) -> Gaussian:
    """A normal distribution from its mean float64 [D] and covariance [D, D]; negative eigenvalues count as 0."""
    import torch

    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return Gaussian(mean, factor, covariance)
    values, vectors = torch.linalg.eigh(covariance)
    return Gaussian(mean, vectors * values.clamp(min=0).sqrt())


def frechet_between(a: Gaussian, b: Gaussian) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), at least 0 (Heusel et al. 2017, equation 6).

    With A = F F^T and B = G G^T the last trace is the sum of singular values of F^T G, or of roots of eigenvalues of
    F^T B F, which takes half the time. How much rounding may move the sum of roots is estimated (some hundred times
    too high on spectra of many kinds); where that is more than a ten-thousandth of the distance, or a covariance is
    singular, singular values are taken. So no matrix square root is iterated, singular covariances do no harm, and
    equal arguments give 0 to rounding.
    """
    import torch

    # The traces are taken from the factors, so that what their making rounds away cancels.
    apart = (a.mean - b.mean).square().sum() + a.factor.square().sum() + b.factor.square().sum()
    if a.covariance is not None and b.covariance is not None:
        squares = torch.linalg.eigvalsh(a.factor.T @ b.covariance @ a.factor).clamp_(min=0)
        distance = apart - 2 * squares.sqrt().sum()
        moved = (squares + ROUNDED * squares.max()).sqrt() - squares.sqrt()
        if 2 * moved.square().sum().sqrt() <= NEGLIGIBLE * distance:
            return distance.item()
    return max(0.0, (apart - 2 * torch.linalg.svdvals(a.factor.T @ b.factor).sum()).item())


def frechet(mean_a: torch.Tensor, cov_a: torch.Tensor, mean_b: torch.Tensor, cov_b: torch.Tensor) -> float:
    """`frechet_between` two distributions given by mean [D] and covariance [D, D], float64."""
    return frechet_between(from_moments(mean_a, cov_a), from_moments(mean_b, cov_b))


def squared_mmd(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3; may be below 0.

    Gretton et al. 2012 (lemma 6) with the kernel of Binkowski et al. 2018.

    Args:
        a, b: features float64 [N, D], [M, D] with N, M of at least 2.
    """
    n, m, width = len(a), len(b), a.shape[1]

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T).div_(width).add_(1).pow_(3)

    inside = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
    return (inside[0] + inside[1] - 2 * kernel(a, b).sum() / (n * m)).item()


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float | None, int]:
    """KID (Binkowski et al. 2018): mean of `squared_mmd` over 100 random subsets of 1,000.

    The subsets are the same for every call with the same sizes. Sets below 1,000 images are used whole, once.

    Returns:
        (mean, standard deviation over subsets or None for one subset, images in a subset).

    Raises:
        DataError: fewer than 2 images on a side.
    """
    import statistics

    import torch

    size = min(SUBSET, len(a), len(b))
    if size < 2:
        raise DataError(f"a kernel distance got {size} images: it needs at least 2 on each side")
    if size < SUBSET:
        return squared_mmd(a, b), None, size
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(SUBSETS):
        i, j = (torch.randperm(len(x), generator=generator)[:size] for x in (a, b))
        values.append(squared_mmd(a[i], b[j]))
    return statistics.fmean(values), statistics.pstdev(values), size


def inception_score(logits: torch.Tensor) -> tuple[float, float]:
    """exp of the mean divergence between p(y|x) and p(y) (Salimans et al. 2016), over 10 splits in a fixed order.

    The order is a random one because images that are sorted by class would leave each split with one class.

    Args:
        logits: float64 [N, K] with N of at least 10.

    Returns:
        (mean, standard deviation) over splits; 1 is no class or no variety, K the most.

    Raises:
        DataError: fewer images than splits.
    """
    import torch

    if len(logits) < SPLITS:
        raise DataError(f"an Inception Score got {len(logits)} images: it needs at least {SPLITS}, one per split")
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
    log_p = logits[order].log_softmax(1)
    scores = []
    for part in log_p.tensor_split(SPLITS):
        log_marginal = part.exp().mean(0).log()
        divergence = (part.exp() * (part - log_marginal)).nan_to_num(0.0).sum(1)  # 0 log 0 is 0
        scores.append(divergence.mean().exp())
    deviation, mean = torch.std_mean(torch.stack(scores), correction=0)
    return mean.item(), deviation.item()
