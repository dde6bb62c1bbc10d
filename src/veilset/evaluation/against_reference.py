"""Fidelity against a private reference: free, however often, and each figure with the standard deviation of its noise.

The noise was drawn once with the reference. It is the same for every set that is compared with it, so differences
between two sets are surer than either figure, and more seeds do not average it out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError
from veilset.core.types import Images
from veilset.evaluation.buying import check_match
from veilset.evaluation.reference import RADIUS, Reference, describe, with_products
from veilset.evaluation.scores import Metric, Scores

if TYPE_CHECKING:
    import torch

DRAWS = 100  # of the noise, to see what it does to figures that are not linear in it
PIECE = 500  # images described at a time

Figure = tuple[float, float]  # value, standard deviation of its noise


def compare(
    images: Images | Callable[[int], Images],
    reference: Reference,
    *,
    seeds: int = 3,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Measure an image set against a private reference. Costs no privacy.

    Args:
        images: a set, or a function from a seed to a set, as in `evaluate`.
        reference: what `open_reference` read.
        seeds: how many sets to draw from a function.
        progress: called with one line of text before each seed.

    Returns:
        ref-mmd: squared kernel distance within a class, mean over classes, in thousandths (0: equal; at most 2000).
        ref-fd: Frechet distance of a public descriptor, in squared grey levels.
        ref-labels: total variation distance of the label shares, in percent.
        detail["noise_sd"] is the standard deviation that the reference's noise gives the value.

    Raises:
        ConfigError: seeds below 1. DataError: classes or shape differ. ModeError: `images` are private records.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds = {seeds!r}: must be a whole number of at least 1")
    rows: list[dict[str, Figure]] = []
    n, reads_private = 0, bool(reference.receipt.facts["stamp"])  # a research reference is no release
    for seed in range(seeds if callable(images) else 1):
        if progress:
            progress(f"seed {seed + 1} of {seeds}: private reference")
        drawn: Any = images(seed) if callable(images) else images
        _check(drawn, reference)
        n, reads_private = len(drawn), reads_private or drawn.reads_private
        rows.append(figures(drawn, reference))
    units = {"ref-mmd": "1/1000", "ref-fd": "grey levels²", "ref-labels": "%"}
    return Scores(tuple(_metric(name, unit, rows, n, reference, reads_private) for name, unit in units.items()))


def figures(images: Images, reference: Reference) -> dict[str, Figure]:
    """The three figures of one set."""
    import torch

    classes = len(reference.info.classes)
    parts = [describe(x) for x in images.x.split(PIECE)]
    embedded, z = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    count = images.y.bincount(minlength=classes).double()
    mean = torch.zeros(classes, embedded.shape[1], dtype=torch.float64).index_add_(0, images.y, embedded)
    return {
        "ref-mmd": _mmd(mean / count.clamp_min(1)[:, None], count, reference),
        "ref-fd": _frechet(z, reference),
        "ref-labels": _labels(count / count.sum(), reference),
    }


def _mmd(mean: torch.Tensor, count: torch.Tensor, reference: Reference) -> Figure:
    """Unbiased squared distance of mean embeddings within each class, averaged, in thousandths.

    With t the reference's noisy mean (noise of deviation s in each of D entries) and m the images', |t - m|^2 exceeds
    the squared distance of the distributions by D s^2, by r^2 |t|^2 for the relative noise r in the number of units,
    and by (1 - |mean|^2) / (n - 1) for the n images behind each mean. Its noise has variance 4 s^2 |t - m|^2 + 2 D s^4,
    and what the noise in the number of units adds, to first order.
    """
    import torch

    size, seen, units = mean.shape[1], count >= 2, reference.labels.clamp_min(1.0)
    t, s = reference.embedding / units[:, None], reference.noise["embedding"] / units
    relative, bias = reference.noise["labels"] / units, size * s**2
    length = (t.square().sum(1) - bias).clamp(0, 1)
    own, theirs = (1 - mean.square().sum(1)) / (count - 1).clamp_min(1), (1 - length) / (units - 1).clamp_min(1)
    distance = (t - mean).square().sum(1) - bias
    tilt = 2 * relative * ((t * (t - mean)).sum(1) - bias)
    variance = 4 * s**2 * distance.clamp_min(0) + 2 * size * s**4 + tilt**2 + 2 * (relative**2 * length) ** 2
    distance = distance - relative**2 * length
    if not bool(seen.any()):
        raise DataError("images: every class has fewer than two images; sample more of them")
    value = torch.where(seen, distance - own - theirs, 0).sum() / seen.sum()
    return 1000 * float(value), 1000 * float(torch.where(seen, variance, 0).sum().sqrt() / seen.sum())


def _frechet(z: torch.Tensor, reference: Reference) -> Figure:
    """Frechet distance of the descriptors, less what the noise alone would add to it."""
    import torch

    from veilset.evaluation.distances import frechet

    radius = RADIUS * math.sqrt(reference.info.shape[0])
    mean, centred = z.mean(0), z - z.mean(0)
    cov = centred.T @ centred / (len(z) - 1)
    total = reference.labels.sum(0, keepdim=True).clamp_min(2.0)  # its noise counts too
    noise = torch.full_like(reference.moments, reference.noise["moments"])
    deviation = torch.cat([noise, math.sqrt(len(reference.labels)) * torch.full_like(total, reference.noise["labels"])])

    def distance(sums: torch.Tensor) -> float:
        means = sums[:-1] / sums[-1].clamp_min(2.0)
        return radius**2 * frechet(mean, cov, *_unpacked(means, z.shape[1]))

    same = torch.cat([with_products(z).mean(0) * total, total])
    return _less_noise(distance, torch.cat([reference.moments, total]), same, deviation)


def _unpacked(v: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and covariance [d, d] out of the mean of `with_products`; noise may make eigenvalues negative."""
    import torch

    mean, packed = v[:size] * math.sqrt(2), v[size:] * math.sqrt(2)
    i, j = torch.triu_indices(size, size)
    square = torch.zeros(size, size, dtype=torch.float64)
    square[i, j] = torch.where(i == j, packed, packed / math.sqrt(2))
    square[j, i] = square[i, j]
    return mean, square - torch.outer(mean, mean)


def _labels(shares: torch.Tensor, reference: Reference) -> Figure:
    """Total variation distance of the label shares, in percent, less what the noise alone would add to it."""
    total = float(reference.labels.sum().clamp_min(2.0))

    def distance(labels: torch.Tensor) -> float:
        counts = labels.clamp_min(0.0)
        return 50 * float((counts / counts.sum().clamp_min(1.0) - shares).abs().sum())

    deviation = reference.labels.new_full((), reference.noise["labels"])
    return _less_noise(distance, reference.labels, shares * total, deviation)


def _less_noise(
    distance: Callable[[torch.Tensor], float], noisy: torch.Tensor, same: torch.Tensor, deviation: torch.Tensor
) -> Figure:
    """A distance of noisy sums that is not linear in them, with the bias and deviation that noise gives it.

    Two biases are seen by public draws of the same law: `alone`, of sums that equal the images' own, which is right
    for equal sets; and `again`, of noise that is added once more to the released sums, which is right (zero) where sets
    are so far apart that the distance is linear in the noise. At equal sets noise of twice the variance has sqrt(2)
    times the bias, so there `again` is sqrt(2) - 1 of `alone`; scaled by that, the smaller one is taken.
    Equal sets give 0 on average, so values below 0 occur.
    """
    import torch

    public = torch.Generator().manual_seed(0)
    noise = [deviation * torch.randn(noisy.shape, generator=public, dtype=torch.float64) for _ in range(DRAWS)]
    value, again = distance(noisy), [distance(noisy + e) for e in noise]
    alone = sum(distance(same + e) for e in noise) / DRAWS - distance(same)
    bias = min(alone, max(0.0, sum(again) / DRAWS - value) / (math.sqrt(2) - 1))
    return value - bias, statistics.stdev(again)


def _metric(
    name: str, unit: str, rows: list[dict[str, Figure]], n: int, reference: Reference, reads_private: bool
) -> Metric:
    """Mean and spread over seeds; the noise is common to all of them."""
    values = [row[name][0] for row in rows]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    facts = reference.receipt.facts
    detail = {
        "noise_sd": math.sqrt(sum(row[name][1] ** 2 for row in rows) / len(rows)),
        "values": values,
        "images": n,
        "reference": {k: facts[k] for k in ("epsilon", "delta", "unit", "ledger_head", "stamp")}
        | {"data": facts["data"]["name"], "split": reference.split},
    }
    return Metric(name, mean, spread or None, unit, "lower", reads_private, len(values), detail)


def _check(images: Images, reference: Reference) -> None:
    check_match(images, reference.info, "the reference is of")
    if len(images) < 2:
        raise DataError(f"images holds {len(images)}: a comparison needs at least 2, and some thousands to be steady")
