"""Write the evidence that `veilset recommend` reads from benchmarks/leaderboard.json: python docs/make_evidence.py"""

from __future__ import annotations

import json
from pathlib import Path

from veilset.bench.evidence import FILE, gathered
from veilset.core.io import read_json

LEADERBOARD = Path(__file__).parents[1] / "benchmarks" / "leaderboard.json"


def text() -> str:
    """The file: one row a line, so that a change can be read."""
    rows = ",\n".join(json.dumps(row) for row in gathered(read_json(LEADERBOARD)))
    return f"[\n{rows}\n]\n"


if __name__ == "__main__":
    FILE.write_text(text())
