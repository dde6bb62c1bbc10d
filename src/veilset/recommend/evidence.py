"""The measured figures of every method, as the package carries them: a recommendation needs no copy of the repository.

`evidence.json` is made from the committed leaderboard, and for pictures from the committed headline, by
`python docs/make_evidence.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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


def gathered(leaderboard: Mapping[str, Any], headline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of evidence in a leaderboard's summary: those of its sets that have at least one seed.

    Args:
        leaderboard: benchmarks/leaderboard.json; accuracy and minutes.
        headline: benchmarks/headline.json; distances.
    """
    from veilset.bench.headline import DISTANCE
    from veilset.bench.leaderboard import EPSILONS, SETS
    from veilset.data.load import load

    facts = {name: load(name).info for name in SETS}
    pictures = {_key(r): r["figures"][DISTANCE] for r in headline["rows"] if DISTANCE in r["figures"]}
    out = []
    for r in leaderboard["rows"]:
        if r["data"] in SETS and r["epsilon"] in EPSILONS and r["seeds"]:
            accuracy, distance = r["figures"]["gen2real-cnn"], pictures.get(_key(r), {"mean": None, "sd": None})
            row = {k: r[k] for k in ("method", "data", "epsilon", "seeds")}
            row |= {"units": facts[r["data"]].units, "classes": len(facts[r["data"]].classes)}
            row |= {"accuracy": _short(accuracy["mean"]), "sd": _short(accuracy["sd"])}
            row |= {"distance": _short(distance["mean"]), "distance_sd": _short(distance["sd"])}
            out.append(row | {"minutes": _short(r["fit_minutes"])})
    return out


def _key(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["method"], row["data"], row["epsilon"]


def _short(x: float | None) -> float | None:
    return None if x is None else round(x, 2)


@cache
def evidence() -> tuple[Row, ...]:
    """All rows."""
    return tuple(Row(**row) for row in read_json(FILE))
