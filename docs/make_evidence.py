"""Write from committed figures what leans on them: python docs/make_evidence.py

That is the evidence which `veilset recommend` reads (of benchmarks/leaderboard.json and, for pictures, headline.json),
and the figures in the README's table of methods (of the former).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from veilset.bench.evidence import FILE, gathered
from veilset.bench.leaderboard import SETS
from veilset.bench.quality import plus_minus
from veilset.core.io import read_json

ROOT = Path(__file__).parents[1]
LEADERBOARD, HEADLINE = (ROOT / "benchmarks" / f"{name}.json" for name in ("leaderboard", "headline"))
README = ROOT / "README.md"
ROW = re.compile(r"^(\| \[`(.+?)`\].*\| )[^|]* \|$", re.MULTILINE)  # of the README's table of methods
EPSILON, ALL = 1.0, 3  # of the figures; seeds that go without saying


def text() -> str:
    """The file of evidence: one row a line, so that a change can be read."""
    rows = ",\n".join(json.dumps(row) for row in gathered(read_json(LEADERBOARD), read_json(HEADLINE)))
    return f"[\n{rows}\n]\n"


def readme() -> str:
    """README.md with the committed figures in the last column of its table of methods."""
    rows = {(r["method"], r["data"]): r for r in read_json(LEADERBOARD)["rows"] if r["epsilon"] == EPSILON}
    return ROW.sub(lambda m: f"{m[1]}{_figures([rows[m[2], name] for name in SETS])} |", README.read_text())


def _figures(rows: list[dict[str, Any]]) -> str:
    """Accuracy on both sets, with the number of seeds where it is not three."""
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
