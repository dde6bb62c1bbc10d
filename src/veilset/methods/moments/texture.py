"""Texture: drawn images get the grey levels and the fine structure that the private images have on average.

Paper: Heeger and Bergen, SIGGRAPH 1995 (texture by matching the histograms of a pyramid, round after round). Ours: the
histograms are one noisy sum over private images, and what is changed are images drawn from a private model.

An image is split into a rest that is smooth and three bands per scale (edges upright, level, and both), each of the
image's size; bands and rest add up to it. The histograms of the bands and of the pixels are pooled over positions,
colours and classes. Pixels are counted twice: as they are, which tells of a ground that all images share, and relative
to the mean and deviation of their own image, which tells of ink and paper where each image has other ones. One round
maps each band, then the relative and then the plain pixels, by the monotone curve that gives drawn images the private
histogram. The map of a band changes the others, so there are several rounds. Band densities decrease with magnitude,
and their noisy estimates are made to.

Histograms have cells of unequal width, finest about 0: u = sqrt(v) for pixels, and its signed form for the others,
whose values lie in -1/2..1/2. One cell holds exactly 0, which is most of many images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from veilset.core.types import PublicInfo
from veilset.methods.base import State
from veilset.methods.moments.histograms import peaked, stepped
from veilset.methods.stages import Asked, Earlier, Stage
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

SCALES = (1, 2, 4)  # distances of neighbours, in pixels
CELLS = 129  # of each histogram
FINE = 2048  # entries less one of the tables that images go through
WIDE, FLAT = 16.0, 0.03  # deviations of an image that relative pixels can differ by; what counts as no deviation
PART = 160_000  # pixels that go through the curves at a time
ROUNDS, VALUES = 8, 2_400_000  # of matching, and pixels of drawn images that the curves are made of
SHARE = 0.02  # of the images' part of the budget, in units of 1 / noise_multiplier^2
COARSE = 0.03  # the largest error of a noisy share of all values that is worth having
SECONDS = 60.0  # what learning of it and more drawing take, about


def release(info: PublicInfo) -> Release:
    """The noisy histograms. Each of an image is a distribution, of norm at most 1."""
    return Release(name="detail", bound=math.sqrt(2 + 3 * len(_scales(info))))


def least(info: PublicInfo, privacy: Privacy, share: float) -> float:
    """How many units must be declared for this share of the budget to tell histograms well enough.

    Half of the cells of a histogram, summed, have noise of sqrt(CELLS / 2) times that of one. Images too small for a
    band have no histograms worth having.
    """
    if not _scales(info):
        return math.inf
    noise = gaussian_noise_multiplier(privacy.epsilon, privacy.delta) if privacy.private else 0.0
    return noise / math.sqrt(share) * release(info).bound * math.sqrt(CELLS / 2) / COARSE


def measure(gate: Asked, info: PublicInfo) -> torch.Tensor:
    """Ask for the histograms: each row of [2 + bands, CELLS] is a distribution; those of the pixels come first."""
    scales = _scales(info)

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _, bands = split(x[None], scales)
        signed = [_relative(x[None])[0], *bands]
        cells = torch.stack([_cell(x[None], False), *(_cell(v, True) for v in signed)]).flatten(1)
        none = torch.zeros(len(cells), CELLS, device=x.device)
        return none.scatter_add(1, cells, torch.full_like(cells, 1 / x.numel(), dtype=x.dtype))

    deviation = gate.deviation("detail") / info.units
    plain, relative, *bands = gate.sum("detail", f).float() / info.units
    pixels = [stepped(row, deviation) for row in (plain, relative)]
    widths = _widths()
    return torch.stack([*pixels, *(peaked(row, deviation, widths) for row in bands)])


def enough(info: PublicInfo) -> int:
    """How many drawn images per class `learn` should have."""
    return max(10, VALUES // info.pixels // len(info.classes))


def learn(wanted: torch.Tensor, drawn: torch.Tensor, info: PublicInfo) -> torch.Tensor:
    """The curves [rounds, 2 + bands, CELLS] that take drawn images [n, C, H, W] to the wanted histograms. Free."""
    rounds = []
    for _ in range(ROUNDS):
        rest, bands = split(drawn, _scales(info))
        others = [_curve(_histogram(band, True), goal) for band, goal in zip(bands, wanted[2:], strict=True)]
        whole = _joined(rest, bands, [_table(curve, True) for curve in others])
        relative = _curve(_histogram(_relative(whole)[0], True), wanted[1])
        whole = _redrawn(whole, _table(relative, True))
        pixels = _curve(_histogram(whole, False), wanted[0])
        drawn = _through(whole, _table(pixels, False), False)
        rounds.append(torch.stack([pixels, relative, *others]))
    return torch.stack(rounds)


def apply(curves: torch.Tensor, x: torch.Tensor, info: PublicInfo) -> torch.Tensor:
    """Images [n, C, H, W] in [0, 1] after all rounds; some at a time, so that bands stay in the processor's cache."""
    scales, parts = _scales(info), []
    tables = [[_table(curve, i > 0) for i, curve in enumerate(one)] for one in curves]  # a round's; the first of pixels
    for part in x.split(max(1, PART // info.pixels)):
        for pixels, relative, *others in tables:
            whole = _redrawn(_joined(*split(part, scales), others), relative)
            part = _through(whole, pixels, False)
        parts.append(part)
    return torch.cat(parts)


def split(x: torch.Tensor, scales: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(smooth rest, bands), each of the shape of x [..., C, H, W]; they add up to x."""
    bands = []
    for s in scales:
        upright, level = _smooth(x, s, -2), _smooth(x, s, -1)
        both = _smooth(level, s, -2)
        bands += [upright - both, level - both, x - upright - level + both]
        x = both
    return x, bands


class Texture(Stage):
    """Histograms of the private images, and curves that give them to what an earlier stage draws.

    Args:
        images: the stage whose draws are changed, and its name.
    """

    def __init__(self, images: Stage, name: str):
        self._images, self._name = images, name

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One sum."""
        return Plan((release(info),), seconds=SECONDS)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "curves" for `apply`."""
        wanted = measure(gate, info)
        labels = torch.arange(len(info.classes)).repeat(enough(info))
        drawn = self._images.draw_many(earlier[self._name], info, labels)
        return {"curves": learn(wanted, drawn, info)}


# ---------------------------------------------------------------------- the pieces


def _joined(rest: torch.Tensor, bands: Sequence[torch.Tensor], tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rest, and each band after its table."""
    for band, table in zip(bands, tables, strict=True):
        rest = rest + _through(band, table, True)
    return rest


def _relative(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(pixels about their image's mean in units of WIDE of its deviations, that mean, that unit) of [n, C, H, W]."""
    deviation, mean = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
    unit = WIDE * deviation.clamp_min(FLAT)
    return (x - mean) / unit, mean, unit


def _redrawn(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Images after the table of their relative pixels."""
    relative, mean, unit = _relative(x)
    return mean + unit * _through(relative, table, True)


def _scales(info: PublicInfo) -> tuple[int, ...]:
    """Those of SCALES that fit into an image."""
    return tuple(s for s in SCALES if 2 * s < min(info.shape[1:]))


def _smooth(x: torch.Tensor, s: int, dim: int) -> torch.Tensor:
    """Weights 1/4, 1/2, 1/4 at distance s along dim -1 or -2; edges are mirrored."""
    wide = pad(x, (s, s, 0, 0) if dim == -1 else (0, 0, s, s), mode="reflect")
    n = x.shape[dim]
    return x / 2 + (wide.narrow(dim, 0, n) + wide.narrow(dim, 2 * s, n)) / 4


def _u(v: torch.Tensor, band: bool) -> torch.Tensor:
    """Where values lie in 0..1, finest about 0."""
    if not band:
        return v.clamp(0, 1).sqrt()
    v = (2 * v).clamp(-1, 1)
    return (v.sign() * v.abs().sqrt() + 1) / 2


def _v(u: torch.Tensor, band: bool) -> torch.Tensor:
    """The inverse of `_u`."""
    return (2 * u - 1) * (2 * u - 1).abs() / 2 if band else u.square()


def _cell(v: torch.Tensor, band: bool) -> torch.Tensor:
    """Number of the cell of each value; what is no number counts in the first."""
    return (_u(v, band) * CELLS).long().clamp(0, CELLS - 1)


def _widths() -> torch.Tensor:
    """Of the cells of a band."""
    return _v(torch.arange(CELLS + 1) / CELLS, True).diff()


def _histogram(v: torch.Tensor, band: bool) -> torch.Tensor:
    return torch.bincount(_cell(v, band).flatten(), minlength=CELLS) / v.numel()


def _curve(own: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """For the middle of each cell: the u in 0..1 below which `wanted` has as much as `own` has below that middle."""
    below = own.double().cumsum(0) - own / 2
    edges = torch.cat([torch.zeros(1), wanted]).double().cumsum(0)
    cell = torch.searchsorted(edges[1:].contiguous(), below).clamp_max(CELLS - 1)
    part = ((below - edges[cell]) / (edges[cell + 1] - edges[cell]).clamp_min(1e-12)).clamp(0, 1)
    return ((cell + part) / CELLS).float()


def _table(curve: torch.Tensor, band: bool) -> torch.Tensor:
    """New values of FINE + 1 equidistant old ones."""
    u = _u(torch.arange(FINE + 1) / FINE - (0.5 if band else 0.0), band) * CELLS - 0.5
    low = u.floor().clamp(0, CELLS - 2).long()
    part = (u - low).clamp(-0.5, 1.5)  # to the outer edges of the outer cells
    return _v((curve[low] * (1 - part) + curve[low + 1] * part).clamp(0, 1), band)


def _through(v: torch.Tensor, table: torch.Tensor, band: bool) -> torch.Tensor:
    """Values by the table, each at its nearest entry."""
    nearest = ((v + (0.5 if band else 0.0)) * FINE + 0.5).to(torch.int32).clamp_(0, FINE)
    return table.index_select(0, nearest.flatten()).view_as(v)  # in half the time of table[nearest]
