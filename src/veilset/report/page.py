"""Write the report: one HTML file that loads nothing, runs nothing and can be read on a phone, a desk or paper."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import RunError
from veilset.core.io import read_json, write_bytes
from veilset.report import charts, evidence, samples
from veilset.report.evidence import NON_PRIVATE, RESEARCH, Evidence

if TYPE_CHECKING:
    from veilset.core.types import Images

MARK = "veilset-report/1"  # in the first lines of every page; a file without it is never overwritten


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    images: Images | None = None,
    scores: dict[str, Any] | None = None,
) -> Path:
    """Write one self-contained HTML page about a run or release folder. The folder is verified, and not changed.

    Args:
        folder: what `fit` or `sample` wrote.
        out: the page; default FOLDER-report.html beside the folder, since the receipt covers every file inside.
        images: shown instead of the folder's images.
        scores: {"metrics": [...]} as `Scores.to_json` gives; default metrics.json in the folder, if there is one.

    Returns:
        The page's path.

    Raises:
        RunError: no such folder, or `out` lies inside it, is another file, or cannot be written.
        ConfigError: `scores` are of another shape. ModeError: `images` hold private records.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; give what `veilset fit` or `veilset sample` wrote")
    page = Path(os.path.abspath(out)) if out is not None else folder.with_name(f"{folder.name}-report.html")
    _check_place(page, folder)
    html = render(folder, images, scores)
    write_bytes(page, html.encode("utf-8", errors="replace"))
    return page


def _check_place(page: Path, folder: Path) -> None:
    """Refuse a place where the page would break a receipt or replace something else, before any work is done."""
    if page.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"out = {page}: lies inside the folder, whose receipt covers every file; write it beside")
    if not page.parent.is_dir():
        raise RunError(f"out = {page}: there is no folder {page.parent}; make it first")
    if page.is_dir():
        raise RunError(f"out = {page}: is a folder; name a file, for example {page / 'report.html'}")
    if page.exists():
        with open(page, "rb") as f:
            if MARK.encode() not in f.read(1000):
                raise RunError(f"out = {page}: exists and is not a veilset report; choose another name or remove it")


def render(folder: Path, images: Images | None, scores: dict[str, Any] | None) -> str:
    """The page as text; see `report`."""
    from jinja2 import Environment, StrictUndefined

    # Autoescape is on for all: class names and receipts may come from a stranger.
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"percent": evidence.percent, "up": evidence.up, "short": evidence.short}
    env.globals |= {"bar": charts.bar, "tones": charts.TONES}
    template = env.from_string(files("veilset.report").joinpath("page.html.j2").read_text("utf-8"))
    return template.render(mark=MARK, **_content(folder, evidence.examine(folder), images, scores))


def _content(folder: Path, found: Evidence, images: Images | None, scores: dict[str, Any] | None) -> dict[str, Any]:
    """Every name that the template uses."""
    facts = found.facts
    stated = facts.get("data") if isinstance(facts.get("data"), dict) else {}
    content: dict[str, Any] = {
        "verdict": found.verdict,
        "checks": found.result.checks,
        "result": found.result,
        "method": str(facts.get("method", "unknown method")),
        "data": str((stated or {}).get("name", "unknown data")),
        "good": found.info is not None,
        "stamp": found.verdict.words if found.verdict in (RESEARCH, NON_PRIVATE) else "",
        "research": found.verdict is RESEARCH,
        "non_private": found.verdict is NON_PRIVATE,
        "reads_private": [],
    }
    if found.info is None or found.plan is None or found.ledger is None:
        return content
    rows = evidence.measures(scores, "scores") if scores is not None else _own_measures(folder)
    content |= {
        "info": found.info,
        "samples": samples.collect(folder, found.info, images),
        "releases": evidence.releases(found.plan),
        "measures": rows,
        "reads_private": evidence.private_names(rows),
        "ledger": evidence.ledger_rows(found.ledger),
        "ledger_head": found.ledger.head,
        "ledger_lines": len(found.ledger.lines),
        "inspected": [str(b.get("purpose", "")) for b in found.ledger.bodies("inspect")],
        "facts": {k: str(facts.get(k, "")) for k in ("accountant", "generator", "processor", "relation", "mode")},
        "versions": evidence.pairs(facts.get("versions")),
        "config": evidence.pairs(facts.get("config")),
    }
    if found.verdict is not NON_PRIVATE:
        attack = evidence.attack(found.ledger)
        content |= {
            "epsilon": found.result.epsilon,
            "delta": found.result.delta,
            "large_delta": (found.result.delta or 0) >= 1 / found.info.units,
            "attack": attack,
            "chart": charts.attack_curve(attack["curve"], attack["rows"]),
            "stack": charts.stack([r["share"] for r in content["releases"]]),
        }
    return content


def _own_measures(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.json"
    return evidence.measures(read_json(path), "metrics.json") if path.exists() else []
