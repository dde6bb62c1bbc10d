"""Write the report: one HTML file that loads nothing, runs nothing and can be read on a phone, a desk or paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, RunError
from veilset.core.io import no_links, write_bytes
from veilset.core.rendering import public_words
from veilset.report import charts, claims, evidence, samples
from veilset.report import nearest as panels
from veilset.report.evidence import NON_PRIVATE, RESEARCH, UNCOVERED, Evidence

if TYPE_CHECKING:
    from jinja2 import Environment

    from veilset.core.types import Images

MARK = "veilset-report/1"  # in the first lines of every page; a file without it is never overwritten


CLAIMING = ("promise", "bounds", "risk", "limits", "verify")  # parts that a page without a claim has not
PARTS = {  # of a page about one folder, in order
    "samples": "Samples",
    "promise": "Promise",
    "bounds": "Claim and attack",
    "risk": "Risk sheet",
    "limits": "Limits",
    "budget": "Budget",
    "figures": "Figures",
    "ledger": "Ledger",
    "verify": "Check it",
}


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    images: Images | None = None,
    scores: dict[str, Any] | None = None,
    audit: str | Path | None = None,
    nearest: str | None = None,
) -> Path:
    """Write one self-contained HTML page about a run or release folder. The folder is verified, and not changed.

    Args:
        folder: what `fit` or `sample` wrote.
        out: the page; default FOLDER-report.html beside the folder, since the receipt covers every file inside.
        images: shown instead of the folder's images.
        scores: what `veilset evaluate --out` wrote, or `Scores.to_json() | {"files_sha256": receipt.files_sha256}`;
            default what lies with the folder. Figures that do not name this release are not shown, nor, of a release,
            those that read private records.
        audit: what `veilset audit RUN --out` wrote; default the one kept with a run, or FOLDER-audit.json beside. It
            must name this release too.
        nearest: the set that a research run was fitted on; the page then shows raw private records, and is written to
            private/report.html of the run, readable by its owner only.

    Returns:
        The page's path.

    Raises:
        RunError: no such folder, or `out` lies inside it, is another file, or cannot be written.
        ConfigError: `scores` are of another shape, or `out` is given with `nearest`.
        ModeError: `images` hold private records, or `nearest` for a release. DataError: `nearest` is another set.

    Examples:
        >>> vs.write_report("release").name
        'release-report.html'
    """
    folder = _folder(folder)
    if nearest is not None and out is not None:
        raise ConfigError(f"out = {out}: with the nearest training images the page holds private records; leave it out")
    page = Path(os.path.abspath(out)) if out is not None else folder.with_name(f"{folder.name}-report.html")
    if nearest is not None:
        page = no_links(folder) / "private" / "report.html"
    else:
        _check_place(page, [folder])
    html = render(folder, images, scores, audit, nearest)
    write_bytes(page, html.encode("utf-8", errors="replace"), mode=0o644 if nearest is None else 0o600)
    return page


def write_comparison(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write one page that compares several run or release folders: claims, audits, quality over epsilon, figures.

    Args:
        folders: two or more; each is verified, and none is changed. Those that do not verify show nothing but that.
        out: the page, in none of them.

    Raises:
        RunError, ConfigError: as `write_report`, or fewer than two folders.
    """
    from veilset.report import compare

    if len(folders) < 2:
        raise ConfigError(f"runs = {len(folders)}: name at least two to compare")
    places = [_folder(f) for f in folders]
    page = Path(os.path.abspath(out))
    _check_place(page, places)
    html = _environment().get_template("compare.html.j2").render(mark=MARK, **compare.content(places))
    write_bytes(page, html.encode("utf-8", errors="replace"))
    return page


def _folder(folder: str | Path) -> Path:
    path = Path(os.path.abspath(folder))
    if not path.is_dir():
        raise RunError(f"{path}: no such folder; give what `veilset fit` or `veilset sample` wrote")
    return path


def _check_place(page: Path, folders: Sequence[Path]) -> None:
    """Refuse a place where the page would break a receipt or replace something else, before any work is done."""
    if any(page.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise RunError(f"out = {page}: lies inside the folder, whose receipt covers every file; write it beside")
    if not page.parent.is_dir():
        raise RunError(f"out = {page}: there is no folder {page.parent}; make it first")
    if page.is_dir():
        raise RunError(f"out = {page}: is a folder; name a file, for example {page / 'report.html'}")
    if page.exists():
        with open(page, "rb") as f:
            if MARK.encode() not in f.read(1000):
                raise RunError(f"out = {page}: exists and is not a veilset report; choose another name or remove it")


def render(
    folder: Path,
    images: Images | None,
    scores: dict[str, Any] | None,
    audit: str | Path | None = None,
    nearest: str | None = None,
) -> str:
    """The page as text; see `write_report`."""
    found = evidence.examine(folder)
    content = _content(folder, found, images, scores, claims.find_audit(folder, audit))
    content["nearest"] = _nearest(folder, found, images, nearest) if nearest is not None else None
    content["parts"] = [(k, v) for k, v in PARTS.items() if found.verdict is not NON_PRIVATE or k not in CLAIMING]
    if nearest is not None:
        content["parts"].insert(1, ("nearest", "Nearest training images"))
    return str(_environment().get_template("page.html.j2").render(mark=MARK, **content))


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # Autoescape is on for all: class names and receipts may come from a stranger.
    env = Environment(
        loader=FunctionLoader(lambda name: files("veilset.report").joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"percent": evidence.percent, "up": evidence.up, "short": evidence.short}
    env.globals |= {"uncovered": UNCOVERED, "bar": charts.bar, "tones": charts.TONES}
    return env


def _nearest(folder: Path, found: Evidence, images: Images | None, source: str) -> panels.Panel:
    """The owner's panel, refused for a release before anything is read."""
    from veilset.methods.catalogue import open_model

    panels.refuse(found, folder)
    assert found.info is not None
    if images is None:
        names = found.info.classes[: panels.CLASSES]
        images = open_model(folder).sample(panels.EACH * len(names), classes=names, seed=0)
    return panels.panel(source, found.info, images)


def _content(
    folder: Path, found: Evidence, images: Images | None, scores: dict[str, Any] | None, audit: Path | None
) -> dict[str, Any]:
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
    figures = evidence.figures(folder, found, scores)
    content |= {
        "info": found.info,
        "samples": samples.collect(folder, found.info, images),
        "releases": evidence.releases(found.plan),
        "how": evidence.how(found.plan),
        "rests_on": public_words(facts),
        "figures": figures,
        "left_out": figures.left_out,
        "reads_private": evidence.private_names(figures.rows),
        "ledger": evidence.ledger_rows(found.ledger),
        "ledger_head": found.ledger.head,
        "ledger_lines": len(found.ledger.lines),
        "inspected": [str(b.get("purpose", "")) for b in found.ledger.bodies("inspect")],
        "facts": {k: str(facts.get(k, "")) for k in ("accountant", "generator", "processor", "relation", "mode")},
        "circumstances": evidence.circumstances(facts),
        "versions": evidence.pairs(facts.get("versions")),
        "config": evidence.pairs(facts.get("config")),
    }
    if found.verdict is not NON_PRIVATE:
        attack = evidence.attack(found.ledger)
        epsilon, delta = float(found.result.epsilon or 0.0), float(found.result.delta or 0.0)
        note = claims.read_audit(audit, epsilon, delta, folder, facts)
        content |= {
            "audit": note,
            "bounds": charts.bounds(_at_most(found, epsilon), _at_least(note)),
            "risk": claims.risk(epsilon, delta, found.info.units),
            "epsilon": found.result.epsilon,
            "delta": found.result.delta,
            "large_delta": (found.result.delta or 0) >= 1 / found.info.units,
            "attack": attack,
            "chart": charts.attack_curve(attack["curve"], attack["rows"]),
            "stack": charts.stack([r["share"] for r in content["releases"]]),
        }
    return content


def _at_most(found: Evidence, epsilon: float) -> list[tuple[str, float]]:
    """Both accountants, in words; Renyi accounting is done again here, from the ledger."""
    from veilset.privacy.accounting import by_part, rdp_epsilon

    assert found.ledger is not None
    renyi = max(rdp_epsilon(case, float(found.result.delta or 0.0))[0] for case in by_part(found.ledger.spent()))
    name = str(found.facts.get("accountant", "accountant"))
    return [
        (f"claim, by {name}: at most {evidence.up(epsilon)}", epsilon),
        (f"Rényi accounting: at most {evidence.up(renyi)}", renyi),
    ]


def _at_least(note: claims.AuditNote) -> tuple[str, float] | None:
    best = note.best
    if best is None or best.lower_bound is None:
        return None
    return f"audit: at least {best.lower_bound:.2f}, {100 * note.together:.0f} % confidence", best.lower_bound
