"""Several runs on one page: claims and figures side by side, quality over epsilon, and what must not be compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from veilset.core.errors import ConfigError, VeilsetError
from veilset.report import charts, evidence
from veilset.report.claims import AuditNote, find_audit, read_audit, together
from veilset.report.evidence import NON_PRIVATE, VERIFIED, Evidence

MOST_CHARTS = 6
PREFERRED = ("gen2real-cnn", "gen2real-logreg", "ref-mmd", "ref-fd", "fd-gabor")  # drawn first


@dataclass(frozen=True)
class Run:
    """One column of the comparison.

    Attributes:
        name: of the folder, made distinct.
        found: what its check found.
        figures: its measures; None for a folder that does not verify.
        audit: what an audit found.
        rate: the best attacker's finds at 1 % false alarms; None without a claim.
    """

    name: str
    found: Evidence
    figures: evidence.Figures | None
    audit: AuditNote
    rate: float | None

    @property
    def measures(self) -> list[dict[str, Any]]:
        """Rows of its figures."""
        return self.figures.rows if self.figures else []

    @property
    def epsilon(self) -> float:
        """For the axis: infinity without noise."""
        return math.inf if self.found.verdict is NON_PRIVATE else float(self.found.result.epsilon or math.inf)

    @property
    def good(self) -> bool:
        """Its numbers may be shown."""
        return self.found.info is not None

    @property
    def method(self) -> str:
        """As its receipt states."""
        return str(self.found.facts.get("method", "unknown method"))

    @property
    def data(self) -> str:
        """The declared name of its set."""
        return self.found.info.name if self.found.info else "unknown data"


def content(folders: Sequence[Path]) -> dict[str, Any]:
    """Every name that the template uses.

    Raises:
        ConfigError: a folder is named twice. RunError: one is neither run nor release.
    """
    if len({f.resolve() for f in folders}) < len(folders):
        raise ConfigError(f"runs = {[f.name for f in folders]}: one folder is named twice; name each once")
    runs = [_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    good = [run for run in runs if run.good]
    return {
        "runs": runs,
        "warnings": _warnings(runs),
        "parts": [part for part in (_part(good, covered) for covered in (True, False)) if part["figures"]],
        "sums": _sums(good),
        "reads_private": sorted({m["name"] for run in good for m in run.measures if m["reads_private"]}),
        "left_out": sorted({name for run in good if run.figures for name in run.figures.left_out}),
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names, with their parents' where they are equal."""
    names = [f.name for f in folders]
    return [f"{f.parent.name}/{f.name}" if names.count(f.name) > 1 else f.name for f in folders]


def _read(folder: Path, name: str) -> Run:
    found = evidence.examine(folder)
    if found.info is None or found.ledger is None:
        return Run(name, found, None, AuditNote(), None)
    try:
        figures = evidence.figures(folder, found)
    except VeilsetError as e:
        raise ConfigError(f"{name}: {str(e).replace(f'{folder}/', '')}") from e
    claimed = found.verdict is not NON_PRIVATE
    rate = dict(evidence.attack(found.ledger)["rows"])[0.01] if claimed else None
    audit = read_audit(find_audit(folder, None), found.result.epsilon, found.result.delta, folder, found.facts)
    return Run(name, found, figures, audit if claimed else AuditNote(), rate)


def _set(run: Run) -> tuple[Any, ...]:
    """What makes two sets the same, by their declarations."""
    info = run.found.info
    assert info is not None
    return info.name, info.classes, info.units, info.unit


def _warnings(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before comparing."""
    good = [run for run in runs if run.good]
    claims = [run for run in good if run.found.verdict is not NON_PRIVATE]
    out = []
    if bad := [run.name for run in runs if not run.good]:
        out.append(f"Not verified, so nothing of them is shown: {', '.join(bad)}.")
    if len(sets := sorted({run.data for run in good})) > 1 or len({_set(run) for run in good}) > 1:
        out.append(
            f"These runs are of different sets ({', '.join(sets)}): compare figures within a set only. "
            "Every series below belongs to one set."
        )
    if len(units := sorted({run.found.info.unit for run in good if run.found.info})) > 1:
        out.append(f"They protect different units ({', '.join(units)}): equal epsilons are not equal protection.")
    if len(deltas := sorted({run.found.result.delta or 0.0 for run in claims})) > 1:
        out.append(
            f"Their deltas differ ({', '.join(evidence.short(d) for d in deltas)}): so do their epsilons' meanings."
        )
    if loose := [run.name for run in good if run.found.verdict is not VERIFIED]:
        out.append(f"Not releases (research mode, or no noise), not to be handed on: {', '.join(loose)}.")
    if wrong := [run.name for run in good if run.audit.ok is False]:
        out.append(f"An audit showed a fault in: {', '.join(wrong)}. Do not rely on the claim.")
    if faulty := [f"{run.name} ({run.audit.fault})" for run in good if run.audit.fault]:
        out.append(f"Audits that cannot be read: {'; '.join(faulty)}.")
    out += [f"{run.name}: {line}." for run in good if run.figures for line in run.figures.unnamed]
    for name, rows in _by_measure(good).items():
        if len(ways := sorted({m["how"] for _, m in rows})) > 1:
            out.append(f"{name} was measured in different ways ({'; '.join(ways)}).")
    return out


def _part(runs: Sequence[Run], covered: bool) -> dict[str, Any]:
    """Charts and tables of the figures that receipts cover, or of those that none covers: never in one table."""
    own = [replace(run, figures=run.figures and run.figures.only(covered)) for run in runs]
    heading = "Figures that the receipts cover" if covered else f"Figures: {evidence.UNCOVERED}"
    return {"heading": heading, "charts": _charts(own), "figures": _figures(own)}


def _by_measure(runs: Sequence[Run]) -> dict[str, list[tuple[Run, dict[str, Any]]]]:
    rows: dict[str, list[tuple[Run, dict[str, Any]]]] = defaultdict(list)
    for run in runs:
        for m in run.measures:
            rows[m["name"]].append((run, m))
    order = {name: i for i, name in enumerate(PREFERRED)}
    return dict(sorted(rows.items(), key=lambda item: order.get(item[0], len(order))))


def _charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One picture a measure that at least two runs have; a series is one method on one set."""
    out: list[dict[str, Any]] = []
    for name, rows in _by_measure(runs).items():
        series: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        several = len({run.data for run in runs}) > 1
        for run, m in rows:
            error = math.hypot(m["spread_number"] or 0.0, m["noise_number"] or 0.0)
            series[f"{run.method} on {run.data}" if several else run.method].append((run.epsilon, m["number"], error))
        if len(rows) < 2 or len(out) == MOST_CHARTS:
            continue
        lines = [charts.Series(key, points) for key, points in series.items()]
        first = rows[0][1]
        out.append(
            {
                "name": name,
                "doc": first["doc"],
                "better": first["better"],
                "svg": charts.quality(name, first["unit"], lines),
                "legend": [(charts.legend(i), line.name) for i, line in enumerate(lines)],
            }
        )
    return out


def _figures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One table a measure: its runs, by set and epsilon."""
    return [
        {
            "name": name,
            "unit": rows[0][1]["unit"],
            "better": rows[0][1]["better"],
            "rows": sorted(rows, key=lambda row: (row[0].data, row[0].epsilon, row[0].name)),
        }
        for name, rows in _by_measure(runs).items()
    ]


def _sums(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each set with several claims, what they cost together."""
    by_set: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.found.verdict is not NON_PRIVATE:
            by_set[_set(run)].append(run)
    out = []
    for key, same in by_set.items():
        if len(same) > 1:
            epsilon, delta = together([run.found for run in same])
            out.append({"data": key[0], "runs": len(same), "epsilon": epsilon, "delta": delta})
    return out
