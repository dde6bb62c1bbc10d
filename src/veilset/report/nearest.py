"""The nearest training image of each sample shown: for the owner's eyes, in research mode, and never in a release.

It shows raw private records. A near copy is worth a look; that there is none proves nothing (that is what the claim is
for). The yardstick is how near training images of the same class are to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from veilset.core.errors import DataError, ModeError
from veilset.core.types import Images, PublicInfo
from veilset.report.evidence import NON_PRIVATE, RESEARCH, Evidence

if TYPE_CHECKING:
    import torch

EACH = 4  # samples of a class that are looked up
CLASSES = 12  # classes that are shown
YARDSTICK = 200  # training images of a class whose own nearest neighbour is found
PURPOSE = "nearest training images"


@dataclass(frozen=True)
class Pair:
    """A sample, its nearest training image of the same class, and their distance.

    Attributes:
        sample, near: PNG data URIs.
        distance: root mean square difference of pixels, in grey levels.
        ratio: distance / the median distance of a training image of that class to its nearest other one.
    """

    sample: str
    near: str
    distance: float
    ratio: float


@dataclass(frozen=True)
class Panel:
    """What the page shows: (class name, pairs), and how many pairs are nearer than training images mostly are."""

    rows: list[tuple[str, list[Pair]]]
    close: int
    total: int


def refuse(found: Evidence, folder: Path) -> None:
    """Raise ModeError unless raw records may be looked at beside this folder.

    Raises:
        ModeError: it is a release, or a folder that was sampled to be handed on.
    """
    if found.verdict not in (RESEARCH, NON_PRIVATE):
        raise ModeError(
            f"{folder.name}: nearest training images are raw private records; they are shown for research runs only, "
            "so fit with --seed"
        )
    if not (folder / "private").is_dir():
        raise ModeError(
            f"{folder.name}: no run folder with a private/ part; the page holds private records and is written there"
        )


def panel(source: str, info: PublicInfo, samples: Images) -> Panel:
    """Find the nearest training images of samples.

    Args:
        source: the set that the run was fitted on, by name or path.
        info: the run's declared facts.
        samples: what is shown, some of each class.

    Raises:
        DataError: the set is another one than the run's.
    """
    from veilset.data.load import load
    from veilset.evaluation.inspected import inspected

    data = load(source)
    if data.info != info:
        raise DataError(f"nearest = {source!r}: its declared facts are not those of the run's set {info.name!r}")
    members = inspected(data.train, PURPOSE)
    rows = []
    for k, name in enumerate(info.classes[:CLASSES]):
        own, shown = members.x[members.y == k], samples.x[samples.y == k][:EACH]
        if len(own) > 1 and len(shown):
            rows.append((name, _pairs(shown, own)))
    pairs = [pair for _, row in rows for pair in row]
    return Panel(rows, sum(p.ratio < 1 for p in pairs), len(pairs))


def _pairs(shown: torch.Tensor, own: torch.Tensor) -> list[Pair]:
    from veilset.report.samples import uri

    distance, index = _distances(shown, own).min(1)
    few = own[:YARDSTICK]
    between = _distances(few, own)
    between[range(len(few)), range(len(few))] = float("inf")
    typical = max(float(between.min(1).values.median()), 1e-9)
    return [
        Pair(uri(x), uri(own[i]), float(d), float(d) / typical)
        for x, d, i in zip(shown, distance.tolist(), index.tolist(), strict=True)
    ]


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Root mean square differences [len(a), len(b)] in grey levels, in pieces of b.

    Not by a matrix product, whose rounding lets another image pass for nearer than an exact copy.
    """
    import torch

    flat, exact = a.flatten(1).float(), "donot_use_mm_for_euclid_dist"
    parts = [torch.cdist(flat, part.flatten(1).float(), compute_mode=exact) for part in b.split(4096)]
    return torch.cat(parts, 1) / a[0].numel() ** 0.5
