"""What the page says, as plain values. Everything about privacy is recomputed from the folder, nothing is trusted.

A folder that does not verify shows its checks and nothing else: nobody vouches for its numbers or its pictures.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any

from veilset.core.errors import ConfigError, LedgerError, RunError, VeilsetError
from veilset.core.io import read_capped, read_json
from veilset.core.listing import RECEIPT, STAMP
from veilset.core.types import PublicInfo
from veilset.privacy.accounting import true_positive_rate
from veilset.privacy.ledger import MOST_LEDGER, Ledger, parse
from veilset.privacy.mechanisms import of, read
from veilset.privacy.plan import Plan, Release
from veilset.privacy.receipt import LEDGER, Verification, verify
from veilset.privacy.spec import Privacy

FALSE_ALARMS = (0.001, 0.01, 0.1)  # the rows of the attacker table
CURVE = 16  # points of its curve
VERBS = {"grad": "gradient"}  # of the gate, in words that are not the verb's own
LINES = 12  # ledger lines that are shown; the file has them all
WEAK, FAIR = 0.25, 0.05  # true-positive rates at 1 % false alarms above which the page calls the protection weak, fair


@dataclass(frozen=True)
class Verdict:
    """The line on top: `kind` chooses the colour."""

    kind: str  # "good", "warn" or "bad"
    words: str
    meaning: str


VERIFIED = Verdict(
    "good",
    "VERIFIED",
    "The privacy claim follows from the ledger, and every file is the one that the receipt covers. "
    "This was recomputed when the page was made; you can repeat it below.",
)
RESEARCH = Verdict(
    "warn",
    "RECOMPUTES, BUT NOT A RELEASE",
    "The numbers follow from the ledger, but this is a research run: its noise can be made again from the seed and "
    "then be taken away. Nothing here is protected. Do not hand it on.",
)
NON_PRIVATE = Verdict(
    "bad",
    "NON-PRIVATE",
    "No noise was added, so there is no privacy claim at all. What is shown here may repeat private "
    "records. Do not hand it on.",
)
FAILED = Verdict(
    "bad",
    "NOT VERIFIED",
    "A check failed, so nothing in this folder may be relied on: neither its epsilon nor its images. "
    "Ask the owner for an unchanged copy.",
)


FAULTY = Verdict(
    "bad",
    "KNOWN TO BE TOO SMALL",
    "The claim recomputes, but the version of veilset that made this folder accounted for something else than it did: ",
)
UNCOVERED = "measured by whoever made this page, covered by no receipt"  # the heading of such figures


@dataclass(frozen=True)
class Evidence:
    """A folder after its check. `ledger`, `plan` and `info` are None where they could not be read or do not count."""

    verdict: Verdict
    result: Verification
    facts: dict[str, Any]
    ledger: Ledger | None = None
    plan: Plan | None = None
    info: PublicInfo | None = None


def examine(folder: Path) -> Evidence:
    """Verify a folder and read what may be shown of it.

    Raises:
        RunError: it is no run or release folder at all.
    """
    if not any((folder / name).is_file() for name in (RECEIPT, STAMP, LEDGER)):
        raise RunError(f"{folder}: neither receipt nor ledger here; give what `veilset fit` or `veilset sample` wrote")
    result = verify(folder)
    for check in result.checks:  # the page says nothing about where it was made
        check["detail"] = check["detail"].replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    stamped = (folder / STAMP).exists()
    facts = _facts(folder / (STAMP if stamped else RECEIPT))
    if result.recomputes and result.known_fault:
        words = "NOT KNOWN TO HOLD" if "not known whether" in result.known_fault else FAULTY.words
        return Evidence(replace(FAULTY, words=words, meaning=FAULTY.meaning + result.known_fault), result, facts)
    if not (result.ok or stamped):
        return Evidence(FAILED, result, facts)
    try:
        ledger = Ledger()
        ledger.lines = list(parse(read_capped(folder / LEDGER, MOST_LEDGER)))
        start = ledger.lines[0]["body"]["plan"]
        info = PublicInfo.from_json(start["info"])
        plan = _spent_plan(ledger, info)
    except (VeilsetError, ArithmeticError, OSError, LookupError, TypeError, ValueError, AttributeError) as e:
        detail = (
            str(e)
            if isinstance(e, LedgerError)
            else f"the ledger's first line does not hold a plan ({type(e).__name__})"
        )
        result.checks.append({"name": "ledger", "ok": False, "detail": detail})
        return Evidence(FAILED, result, facts)
    verdict = NON_PRIVATE if stamped else VERIFIED if result.release else RESEARCH
    return Evidence(verdict, result, facts, ledger, plan, info)


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path)
    except (RunError, OSError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _spent_plan(ledger: Ledger, info: PublicInfo) -> Plan:
    """The plan as it was charged: only releases that were asked, with the steps and the noise of the ledger."""
    start = ledger.lines[0]["body"]["plan"]
    steps_of: dict[str, Counter[int | None]] = defaultdict(Counter)
    noise_of: dict[str, float] = {}
    for b in ledger.bodies("charge"):
        steps_of[b["release"]][b["part"]] += b["steps"]
        noise_of[b["release"]] = min(b["noise_multiplier"], noise_of.get(b["release"], math.inf))
    asked = []
    for release in (Release(**r) for r in start["releases"]):
        if release.name in noise_of:
            steps, noise = max(steps_of[release.name].values()), noise_of[release.name]
            asked.append(replace(release, steps=steps, noise_multiplier=noise))
    budget = dict(start["privacy"])
    budget["epsilon"] = math.inf if budget["epsilon"] is None else budget["epsilon"]
    return Plan(tuple(asked), info=info, privacy=Privacy(**budget))


# ---------------------------------------------------------------------- the claim


def attack(ledger: Ledger) -> dict[str, Any]:
    """What the best attacker finds at each rate of false alarms, by the ledger's lines.

    Returns:
        rows: (false-positive rate, true-positive rate) of the table; curve: the same for the chart;
        strength: "strong", "fair" or "weak", in the page's own words.
    """
    spent = ledger.spent()
    rows = [(f, true_positive_rate(spent, f)) for f in FALSE_ALARMS]
    between = [10 ** (-3 + 3 * i / (CURVE - 1)) for i in range(1, CURVE - 1)]
    curve = sorted([*rows, *((f, true_positive_rate(spent, f)) for f in between), (1.0, 1.0)])
    at_one = dict(rows)[0.01]
    return {
        "rows": rows,
        "curve": curve,
        "strength": "weak" if at_one > WEAK else "fair" if at_one > FAIR else "strong",
    }


def releases(plan: Plan) -> list[dict[str, Any]]:
    """One row per release, in order of use."""
    private = plan.privacy is not None and plan.privacy.private
    shares = plan.shares() if private else [(None, None)] * len(plan.releases)
    return [
        {
            "name": r.name,
            "verb": ("noisy " if private else "exact ") + VERBS.get(r.verb, r.verb),
            "times": f"{r.steps:,}" + (" per class" if r.partition else ""),
            "rate": percent(r.sample_rate) if r.sample_rate < 1 else "all units",
            "noise": f"{r.noise_multiplier:.4g}" if private else "none",
            "bound": f"{r.bound:g}",
            "share": share,
            "alone": up(alone) if alone is not None else "infinite",
        }
        for r, (share, alone) in zip(plan.releases, shares, strict=True)
    ]


def how(plan: Plan) -> list[str]:
    """How the releases are answered, as their mechanisms say it, and which ones if not all are answered alike."""
    named: dict[str, list[str]] = {}
    for r in plan.releases:
        named.setdefault(of(r).sentence(r), []).append(r.name)
    return [words if len(named) == 1 else f"{', '.join(names)}: {words}" for words, names in named.items()]


# ---------------------------------------------------------------------- measures


def measures(raw: Any, where: str) -> list[dict[str, Any]]:
    """Rows of the table from {"metrics": [{"name", "value", "spread", "unit", "better", "reads_private", ...}]}.

    Raises:
        ConfigError: another shape.
    """
    try:
        return [_measure(m) for m in raw["metrics"]]
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as e:
        raise ConfigError(
            f"{where}: not scores ({type(e).__name__}: {e}); pass what `veilset evaluate --json` printed"
        ) from e


@dataclass(frozen=True)
class Figures:
    """The measures of a folder that may stand on a page.

    Attributes:
        covered: those in a file that the receipt covers.
        loose: measured by whoever made the page, of this very release: their file names the hash of its list of files.
        unnamed: a line on each file that does not, and is not shown.
        left_out: names of figures that read private records, of a release.
    """

    covered: list[dict[str, Any]]
    loose: list[dict[str, Any]]
    unnamed: list[str]
    left_out: list[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All that are shown."""
        return [*self.covered, *self.loose]

    def only(self, covered: bool) -> Figures:
        """Those that the receipt covers, or those that it does not."""
        return replace(self, loose=[]) if covered else replace(self, covered=[])


def figures(folder: Path, found: Evidence, scores: dict[str, Any] | None = None) -> Figures:
    """Sort the measures that lie with a folder: covered ones, and a run's last ones, exact and against a reference.

    Args:
        folder: a run or release folder.
        found: its check.
        scores: taken instead of what lies in private/.

    Raises:
        ConfigError, RunError: they are damaged, or of another shape.
    """
    covered: list[dict[str, Any]] = []
    if found.result.recomputes and (folder / "metrics.json").is_file():
        covered = measures(read_json(folder / "metrics.json"), "metrics.json")
    files = [("scores", scores)] if scores is not None else []
    for name in ("private/metrics.json", "private/reference-metrics.json") if scores is None else ():
        if (folder / name).is_file():
            files.append((name, read_json(folder / name)))
    loose, unnamed = [], []
    for name, raw in files:
        rows = measures(raw, name)
        if names_release(raw, found.facts):
            loose += rows
        else:
            unnamed.append(
                f"{name} does not name the list of files of this release (files_sha256), as files of older versions do "
                "not, so its figures may be of other images: not shown. Measure again with veilset evaluate"
            )
    release = found.verdict is VERIFIED
    (covered, hidden), (loose, also) = shown(covered, release), shown(loose, release)
    return Figures(covered, loose, unnamed, [*hidden, *also])


def names_release(raw: Any, facts: Mapping[str, Any]) -> bool:
    """Whether a file of figures names the hash of this release's list of files."""
    wanted = facts.get("files_sha256")
    return isinstance(raw, dict) and isinstance(wanted, str) and raw.get("files_sha256") == wanted


def shown(rows: list[dict[str, Any]], release: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows that may stand on the page, names of those that may not): a release shows no exact private figure."""
    if not release:
        return rows, []
    return [m for m in rows if not m["reads_private"]], private_names(rows)


def _measure(m: dict[str, Any]) -> dict[str, Any]:
    detail = m.get("detail") or {}
    value, spread, noise = float(m["value"]), m.get("spread"), detail.get("noise_sd")
    digits = 2 if m["unit"] == "%" or abs(value) < 100 else 1
    parts = [(str(c["class"]), c["value"]) for c in detail.get("by_class", [])]
    by_class = [{"name": name, "value": None if v is None else float(v)} for name, v in parts]
    if not all(math.isfinite(float(v)) for v in (value, spread or 0.0, noise or 0.0)):
        raise ValueError("not finite")
    return {
        "name": str(detail.get("label", m["name"])),
        "doc": _described().get(str(m["name"]), ""),
        "value": f"{value:.{digits}f}",
        "number": value,
        "spread": "" if spread is None else f"± {float(spread):.{digits}f}",
        "spread_number": None if spread is None else float(spread),
        "noise": "" if noise is None else f"± {float(noise):.2g}",
        "noise_number": None if noise is None else float(noise),
        "unit": str(m["unit"]),
        "better": str(m["better"]),
        "reads_private": bool(m["reads_private"]),
        "seeds": int(m.get("seeds", 0)),
        "how": _how(detail),
        "note": str(detail.get("note") or ""),
        "by_class": by_class if m["unit"] == "%" else [],
    }


def _how(detail: dict[str, Any]) -> str:
    """What must be equal for two figures to be compared, in words."""
    reference = detail.get("reference") or {}
    head = str(reference.get("ledger_head", ""))[:12]
    known = {
        "protocol": detail.get("protocol"),
        "trained on": detail.get("train_images"),
        "images": detail.get("images"),
        "reference": head or None,
    }
    return ", ".join(f"{k} {v}" for k, v in known.items() if v is not None) or "no facts"


def _described() -> dict[str, str]:
    from veilset.evaluation.registry import entries

    own = {
        "ref-mmd": "Squared kernel distance to the private reference within each class, in thousandths.",
        "ref-fd": "Frechet distance to the private reference on a public descriptor of brightness and texture.",
        "ref-labels": "Total variation distance of the label shares to the private reference.",
    }
    return own | {name: entry.doc for name, entry in entries().items()}


# ---------------------------------------------------------------------- ledger and making


def ledger_rows(ledger: Ledger) -> tuple[list[dict[str, Any]], int]:
    """(rows with the line number, a short hash and words; how many lines in the middle are left out)."""
    rows = [{"seq": line["seq"], "hash": line["hash"][:12], "words": _words(line["body"])} for line in ledger.lines]
    if len(rows) <= LINES:
        return rows, 0
    return rows[: LINES - 3] + rows[-3:], len(rows) - LINES


def _words(body: dict[str, Any]) -> str:
    kind = body["kind"]
    if kind == "charge":
        part = "" if body["part"] is None else f", class {body['part']}"
        line = read(body)
        return f"charge {body['release']}{part}: {line.steps} × {of(line).words(line)}"
    fixed = {"open": "open: plan, declared facts and budget", "close": "close: nothing can be asked any more"}
    return fixed.get(kind, f"{kind}: {body.get('purpose', '')}")


def pairs(value: Any) -> list[tuple[str, str]]:
    """Items of a JSON object as text; nothing for anything else, since `verify` does not look at these facts."""
    return [(str(k), str(v)) for k, v in value.items()] if isinstance(value, dict) else []


def circumstances(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who paid, and whether the installation had been tested, as the receipt states it; its types are not trusted."""
    account, tested = dict(pairs(facts.get("account"))), dict(pairs(facts.get("selftest")))
    paid = f"line {account.get('line')}, head {account.get('head', '')[:16]}" if account else "none was given"
    held = f"{tested.get('checks')} checks held" if tested.get("ok") == "True" else "FAILED: do not rely on this run"
    return [("privacy account", paid), ("self-test before", held if tested else "not run on this installation")]


# ---------------------------------------------------------------------- numbers for people


def up(x: float, digits: int = 4) -> str:
    """x with this many significant digits, rounded up: a bound is never understated."""
    if not math.isfinite(x):
        return "infinite"
    rounded = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(x)))
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(rate: float) -> str:
    """A rate in percent with three significant digits, rounded up."""
    return f"{up(100 * rate, 3)}\u202f%"


def short(x: float) -> str:
    """A small number as people write it: 1e-05 becomes 1e-5."""
    return re.sub(r"e([+-])0+", r"e\1", f"{x:g}")


def private_names(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The measures that read private records."""
    return [m["name"] for m in rows if m["reads_private"]]
