"""The section of README.md on planted faults. `make faults` makes the table: a patch needs a copy of the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SEEN = ("caught_by_tests", "caught_by_selftest", "caught_by_audit")


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: who noticed how many, and which faults nobody but a test noticed.

    Args:
        rows: {"fault", "caught_by_tests", "caught_by_selftest", "caught_by_audit"} for each fault; None: not asked,
            since somebody had noticed it already.
    """
    tests, selftest, audit = ({r["fault"] for r in rows if r[key]} for key in SEEN)
    everything, many = {r["fault"] for r in rows}, len(rows)
    asked = sum(r[SEEN[2]] is not None for r in rows)
    lines = [
        "## faults\n",
        "`python tests/faults/run.py --quick` (about half an hour of one core): [faults.json](faults.json). Each",
        f"of {many} privacy faults ([docs/selftest.md](../../docs/selftest.md)) was planted alone in a copy of the",
        "package.\n",
        "| noticed by | faults | goal |",
        "|---|---|---|",
        f"| the tests that the fault names | {len(tests)} of {many} | all |",
        f"| `veilset selftest` alone | {len(selftest)} of {many} | |",
        f"| the mechanism audit alone, 400 draws a world, claim 4 | {len(audit)} of {asked} asked | |",
        f"| either of these two | {len(selftest | audit)} of {many} | nine of ten |",
        f"| nobody | {len(everything - tests - selftest - audit)} | 0 |\n",
        f"By tests only: {_named(tests - selftest - audit)}. The audit noticed {_named(audit)}; it looks",
        "at what an attacker can see in answers, so faults of books, receipts, accountants and resumed runs are not",
        "its business. The checks of the self-test were written with these faults in view: the share says less of",
        "faults that nobody thought of.",
    ]
    return "\n".join(lines) + "\n"


def _named(faults: set[str]) -> str:
    return ", ".join(f"`{f}`" for f in sorted(faults)) or "none"
