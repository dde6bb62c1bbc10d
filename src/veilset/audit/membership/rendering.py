"""How the result of a membership attack reads: for machines, for people, as a picture."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from veilset.audit.membership.attacks import CALIBRATED, HEADLINE, LIRA, SHADOW
from veilset.audit.membership.picture import Curve, Panel, draw
from veilset.core.rendering import legible

if TYPE_CHECKING:
    from veilset.audit.membership.attack import Membership
    from veilset.audit.membership.figures import Figures, Rate


STAMP = "NOT A RELEASE: figures computed from private records"


def as_json(m: Membership) -> dict[str, Any]:
    """Plain values only, no NaN; rates that cannot be given are null beside the reason."""
    return {
        "ok": m.ok,
        "verdict": m.verdict,
        "stamp": STAMP,
        **m.facts,
        "claim": m.claim,
        "headline": HEADLINE,
        "repeats": {"auc": list(m.repeats)} | _spread(m),
        "attacks": [
            {"name": r.name, "valid": r.valid}
            | {k: asdict(getattr(r, k)) for k in ("run", "never_trained", "leaky")}
            | {"curves": dict(r.curves)}
            for r in m.results
        ],
    }


def as_table(m: Membership) -> str:
    """One row per attack: the run, then both controls."""
    f, claim = m.facts, m.claim
    epsilon = "no privacy" if claim["epsilon"] is None else f"epsilon {claim['epsilon']:.4g}"
    rows: list[tuple[str, ...]] = [
        ("attack", "AUC, 95 % interval", "TPR at 0.1 %", "TPR at 1 %", "never trained", "leaky", "valid")
    ]
    for r in m.results:
        mark = "*" if r.name == HEADLINE else ""
        rates = [_rate(x) for x in r.run.rates]
        valid = "in doubt" if r.doubtful else "yes" if r.valid else "NO"
        rows.append((r.name + mark, _area(r.run), *rates, _area(r.never_trained), f"{r.leaky.auc:.3f}", valid))
    if claim["epsilon"] is not None:
        most = [f"{100 * t:.3g} %" for t in claim["tpr"]]
        rows.append(("the claim allows", f"{claim['auc']:.3f}", *most, "", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = sorted({x.why for r in m.results for x in r.run.rates if x.why})
    lot = _spread(m)
    data, whence = legible(f["data"]), legible(f["outsiders_from"])
    spread = "" if not m.repeats else f" On each shadow model, members by lot: AUC {lot['mean']:.3f} ± {lot['sd']:.3f}"
    return "\n".join([
        f"{f['method']} on {data}, {epsilon}, {f['trained_on']:,} members; asked about {f['candidates']:,} of "
        f"them and {f['candidates']:,} outsiders ({whence}; {f['near_duplicates']} nearly equal a member)",
        *table,
        *(f"not given: {why}" for why in reasons),
        f"* fixed in advance; {f['shadows']} shadow models.{spread}",
        m.verdict,
        STAMP,
    ])  # fmt: skip


def picture(m: Membership) -> str:
    """The ROC of the run by the attacks that learn, the headline's controls dashed, the claim's limit shaded (SVG)."""
    shown = {r.name: r for r in m.results}
    curves = [Curve(name, shown[name].curves["run"]) for name in (CALIBRATED, LIRA, SHADOW)]
    h = shown[HEADLINE]
    curves.append(Curve(f"control: never trained, {HEADLINE}", h.curves["never_trained"], dashed=True))
    curves.append(Curve(f"control: leaky release, {HEADLINE}", h.curves["leaky"], dashed=True))
    f, epsilon = m.facts, m.claim["epsilon"]
    budget = "no privacy" if epsilon is None else f"epsilon {epsilon:.3g}"
    notes = [STAMP] + (["Shaded: what the claim excludes."] if epsilon is not None else [])
    return draw([Panel(f"{f['method']} on {f['data']}, {budget}", curves, m.claim["curve"] or ())], notes)


def _spread(m: Membership) -> dict[str, float | None]:
    """Mean and sample standard deviation over shadow models."""
    if not m.repeats:
        return {"mean": None, "sd": None}
    return {"mean": statistics.fmean(m.repeats), "sd": statistics.stdev(m.repeats)}


def _area(f: Figures) -> str:
    return f"{f.auc:.3f} [{f.low:.3f}, {f.high:.3f}]"


def _rate(r: Rate) -> str:
    if r.tpr is None or r.low is None or r.high is None:
        return "too few"
    return f"{100 * r.tpr:.2f} % [{100 * r.low:.2f}, {100 * r.high:.2f}]"
