"""Draw benchmarks/accuracy.svg from the committed leaderboard: python docs/make_plot.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.runner.plot import Panel, Series, draw  # noqa: E402 the checkout is not installed

PLOT = ROOT / "benchmarks" / "accuracy.svg"
METHODS = ("taught-moments", "dp-moments", "dp-cvae", "dp-merf", "dp-feta")  # as many as the legend has room for
SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


def text() -> str:
    """The plot, as SVG."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "leaderboard.json").read_text())["rows"]
    budgets = sorted({r["epsilon"] for r in rows})
    panels = []
    for data, title in SETS.items():
        series = []
        for method in METHODS:
            found = [r for r in rows if (r["method"], r["data"]) == (method, data) and r["seeds"] > 1]
            cnn = [(float(budgets.index(r["epsilon"])), r["figures"]["gen2real-cnn"]) for r in found]
            series.append(Series(method, [(x, f["mean"], f["sd"]) for x, f in cnn]))
        panels.append(Panel(f"{title}: accuracy of a CNN, %", series, "epsilon", [f"{e:g}" for e in budgets]))
    return draw(panels, ["Trained on released images, tested on the public test split; mean and deviation over seeds."])


if __name__ == "__main__":
    PLOT.write_text(text())
    print(PLOT.relative_to(ROOT))
