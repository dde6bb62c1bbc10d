"""The section of README.md on planted faults. `make faults` makes the table: a patch needs a copy of the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SEEN = ("caught_by_tests", "caught_by_selftest", "caught_by_audit")


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown: who noticed how many, and which faults one of them alone noticed.

    Args:
        rows: {"fault", "caught_by_tests", "caught_by_selftest", "caught_by_audit"} for each fault; None: not measured.
    """
    tests, selftest, audit = ({r["fault"] for r in rows if r[key]} for key in SEEN)
    everything, many = {r["fault"] for r in rows}, len(rows)
    waiting = {r["fault"] for r in rows if None in r.values()}  # for the self-test and the audit
    measured = many - len(waiting)
    lines = [
        "## faults\n",
        f"`make faults` (about half an hour of one core): [faults.json](faults.json). Each of {many} privacy faults",
        "([docs/selftest.md](../../docs/selftest.md)) was planted alone in a copy of the package.\n",
        "| noticed by | faults | aim |",
        "|---|---|---|",
        f"| the tests that the fault names | {len(tests)} of {many} | all |",
        f"| `veilset selftest` alone | {len(selftest)} of {measured} measured | |",
        f"| the mechanism audit alone, 400 draws a world, claim 4 | {len(audit)} of {measured} measured | |",
        f"| either of these two | {len(selftest | audit)} of {measured} measured | 30 of 40 |",
        f"| nobody | {len(everything - tests - selftest - audit)} | 0 |\n",
        f"By tests only: {_named(tests - selftest - audit - waiting)}. These are faults of methods, streams, searches",
        f"and the account, of several processes, and of losing power. The audit noticed {_named(audit)}; it looks at",
        "what an attacker can see in answers, so faults of books, receipts, accountants and resumed runs are not its",
        "business.",
    ]
    return "\n".join(lines) + "\n"


def _named(faults: set[str]) -> str:
    return ", ".join(f"`{f}`" for f in sorted(faults)) or "none"
