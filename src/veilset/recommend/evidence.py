"""The measured figures of every method, as the package carries them: a recommendation needs no copy of the repository.

`evidence.json` is made from the committed leaderboard, and for pictures from the committed headline, by
`python -m benchmarks.runner.evidence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from veilset.core.io import read_json

FILE = Path(__file__).with_name("evidence.json")


@dataclass(frozen=True)
class Row:
    """What was measured of a method's defaults on one set at one budget.

    Attributes:
        method, data, epsilon: at delta 1e-5.
        units, classes: declared facts of the set.
        seeds: of how many runs the accuracy is the mean.
        accuracy: of the CNN protocol on the public test split, in %.
        sd: its sample standard deviation over seeds; None for one seed.
        distance, distance_sd: Frechet distance on features of a public network (FD-lite0), which is not FID; and over
            seeds, as above. None where no suite compared the method's pictures.
        minutes: of one core, for the fit.
    """

    method: str
    data: str
    epsilon: float
    units: int
    classes: int
    seeds: int
    accuracy: float
    sd: float | None
    distance: float | None
    distance_sd: float | None
    minutes: float


@cache
def evidence() -> tuple[Row, ...]:
    """All rows."""
    return tuple(Row(**row) for row in read_json(FILE))
