"""Write from committed figures what leans on them: `python -m benchmarks.runner.evidence`

That is the evidence which `veilset recommend` reads (of the results' leaderboard.json and, for
pictures, headline.json), and the figures in the README's table of methods (of the former).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.runner.suite import ROOT
from benchmarks.suites.headline import DISTANCE
from benchmarks.suites.leaderboard import EPSILONS, SETS
from veilset.core.io import read_json
from veilset.core.rendering import plus_minus
from veilset.recommend.evidence import FILE

LEADERBOARD, HEADLINE = (ROOT / "benchmarks" / "results" / f"{name}.json" for name in ("leaderboard", "headline"))
README = ROOT / "README.md"
ROW = re.compile(r"^(\| \[`(.+?)`\].*\| )[^|]* \|$", re.MULTILINE)  # of the README's table of methods
EPSILON, ALL = 1.0, 3  # of the figures; seeds that go without saying


def gathered(leaderboard: Mapping[str, Any], headline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of evidence in a leaderboard's summary: those of its sets that have at least one seed.

    Args:
        leaderboard: leaderboard.json of the results; accuracy and minutes.
        headline: headline.json of the results; distances.
    """
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


def text() -> str:
    """The file of evidence: one row per line, so that a change can be read."""
    rows = ",\n".join(json.dumps(row) for row in gathered(read_json(LEADERBOARD), read_json(HEADLINE)))
    return f"[\n{rows}\n]\n"


def readme() -> str:
    """README.md with the committed figures in the last column of its table of methods."""
    rows = {(r["method"], r["data"]): r for r in read_json(LEADERBOARD)["rows"] if r["epsilon"] == EPSILON}
    return ROW.sub(lambda m: f"{m[1]}{_figures([rows.get((m[2], s)) for s in SETS])} |", README.read_text())


def _figures(found: list[dict[str, Any] | None]) -> str:
    """Accuracy on both sets, with the number of seeds where it is not three; a method may not be in the suite yet."""
    rows = [r for r in found if r and r["seeds"]]
    if len(rows) < len(found):
        return "not measured"
    texts = [plus_minus(r["figures"]["gen2real-cnn"], 1) or "not measured" for r in rows]
    seeds = [r["seeds"] for r in rows]
    if seeds[0] == seeds[1]:
        return " / ".join(texts) + _seeds(seeds[0])
    return " / ".join(t + _seeds(n) for t, n in zip(texts, seeds, strict=True))


def _seeds(n: int) -> str:
    return "" if n in (0, ALL) else f" ({n} seed{'s' if n > 1 else ''})"


if __name__ == "__main__":
    FILE.write_text(text())
    README.write_text(readme())
