"""The claim, and its check: `verify` recomputes epsilon from the ledger and the hash of every file, offline.

It proves that the claim follows from the ledger and that files are unchanged. It cannot prove that the owner ran
honest code. It detects every change but a rewrite of the whole chain; against a rewrite there are signatures.
"""

from __future__ import annotations

import math
import os
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from veilset.core.errors import ConfigError, RunError, VeilsetError
from veilset.core.facts import processor, selftest, versions
from veilset.core.io import canonical, no_links, read_capped, read_json, sha256, write_bytes, write_json
from veilset.core.listing import RECEIPT, SIGNATURE, STAMP, check_list, write_list
from veilset.core.rendering import as_html, one_line, public_words, receipt_lines
from veilset.core.types import PublicInfo
from veilset.privacy import mechanisms
from veilset.privacy.accounting import Search, claim
from veilset.privacy.known_faults import known_fault
from veilset.privacy.ledger import MOST_LEDGER, Ledger, parse
from veilset.privacy.noise import GENERATOR
from veilset.privacy.plan import Plan, Release
from veilset.privacy.public_data import read_public, written_public
from veilset.privacy.spec import RELATION, Privacy

FORMAT = "veilset-receipt/1"
LEDGER = "ledger.jsonl"
RESEARCH = "NOT A RELEASE: research mode, the noise can be regenerated from the seed"
NON_PRIVATE = "NON-PRIVATE: epsilon is infinite, no noise was added"


KINDS = {  # what every receipt has
    "epsilon": int | float | None,
    "epsilon_rdp": int | float | None,
    "delta": int | float,
    "accountant": str,
    "relation": str,
    "unit": str,
    "method": str,
    "mode": str,
    "stamp": str,
    "config": dict,
    "data": dict,
    "ledger_lines": int,
    "ledger_head": str,
    "files_sha256": str,
}


@dataclass(frozen=True)
class Receipt:
    """What is claimed about a fitted model and everything sampled from it. `facts` holds the JSON keys.

    Examples:
        >>> model.receipt_.epsilon <= 1.0 and model.receipt_.facts["unit"]
        'one image'
    """

    facts: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def file_name(self) -> str:
        """receipt.json, or NON-PRIVATE.json: without noise there is no receipt."""
        return RECEIPT if self.facts["epsilon"] is not None else STAMP

    def __str__(self) -> str:
        f = self.facts
        if f["epsilon"] is None:
            return f"{NON_PRIVATE}\nmethod {f['method']}, data {f['data']['name']}"
        return receipt_lines(f)

    _repr_html_ = as_html


def make_receipt(ledger: Ledger, plan: Plan, method: str, config: dict[str, Any]) -> Receipt:
    """Compute the claim from the ledger, and from nothing else, and add what a reader needs to understand it."""
    assert plan.privacy is not None and plan.info is not None
    mode = ledger.lines[0]["body"]["mode"]
    inspected = any(True for _ in ledger.bodies("inspect"))
    private = plan.privacy.private
    got = claim(plan.search or ledger.spent(), plan.privacy.delta)
    stamp = "" if private and mode == "release" else RESEARCH if private else NON_PRIVATE
    return Receipt(
        {
            "format": FORMAT,
            "epsilon": got.epsilon if private else None,
            "delta": plan.privacy.delta,
            "epsilon_rdp": got.epsilon_rdp if private else None,
            "accountant": got.accountant,
            "epsilon_budget": plan.privacy.epsilon if private else None,
            "relation": RELATION,
            "unit": plan.info.unit,
            "max_images_per_unit": plan.info.max_images_per_unit,
            "large_delta": plan.privacy.delta >= 1 / plan.info.units,
            "mode": mode,
            "release": stamp == "" and not inspected,
            "stamp": stamp,
            "inspected": inspected,
            "generator": GENERATOR,
            # Two runs of one plan have equal ledgers; the account tells them, and what was sampled from each, by this.
            "run": secrets.token_hex(16) if mode == "release" else "",
            "account": ledger.lines[0]["body"].get("account"),
            "stream": ledger.lines[0]["body"]["plan"].get("stream"),
            "method": method,
            "config": config,
            "data": plan.info.to_json(),
            "ledger_lines": len(ledger.lines),
            "ledger_head": ledger.head,
            "ledger_sha256": sha256(ledger.to_bytes()),
            "versions": versions(),
            "processor": processor(),
            "selftest": selftest(),
        }
        | written_public(plan.public)
    )


def write_release(folder: Path, receipt: Receipt, ledger: bytes) -> Receipt:
    """Put ledger, hash list and receipt beside the files that are in `folder` already.

    SHA256SUMS lists every other file (checkable with `sha256sum -c`); the receipt holds the hash of that list.
    """
    no_links(folder)
    write_bytes(folder / LEDGER, ledger)
    count, digest = write_list(folder)
    bound = Receipt(receipt.facts | {"files": count, "files_sha256": digest})
    bound.facts["seal"] = _seal(bound.facts)
    write_json(folder / bound.file_name, bound.facts)
    return bound


def _seal(facts: dict[str, Any]) -> str:
    """The hash of all other facts: an edit of any of them shows."""
    return sha256(canonical({k: v for k, v in facts.items() if k != "seal"}))


@dataclass
class Verification:
    """The outcome of `verify`: each check by name, whether it held, and what was seen.

    Attributes:
        known_fault: why the claim is too small, or not known to hold, though it recomputes; then nothing is `ok`.
        notes: what a reader must know and is no fault.
    """

    epsilon: float | None = None
    delta: float | None = None
    release: bool = False
    stamp: str = ""
    fingerprint: str | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    known_fault: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def recomputes(self) -> bool:
        """True when every check held."""
        return bool(self.checks) and all(c["ok"] for c in self.checks)

    @property
    def ok(self) -> bool:
        """True when every check held, and the version that made the release has no known fault."""
        return self.recomputes and not self.known_fault

    def check(self, name: str, test: Callable[[], str]) -> bool:
        """Whether a step holds: it returns what was seen, or raises."""
        try:
            detail, good = test(), True
        except Exception as e:  # a forged file may break any step; that is an answer, not a crash
            detail, good = f"{e}" if isinstance(e, VeilsetError) else f"{type(e).__name__}: {e}", False
        self.checks.append({"name": name, "ok": good, "detail": one_line(detail)})
        return good

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset verify --json`."""
        keys = ("ok", "epsilon", "delta", "release", "stamp", "fingerprint", "known_fault", "notes", "checks")
        return {k: getattr(self, k) for k in keys}

    def __str__(self) -> str:
        rows = [f"  {'ok  ' if c['ok'] else 'FAIL'}  {c['name']:<12} {c['detail']}" for c in self.checks]
        rows += [f"  note  {note}" for note in self.notes]
        head = f"VERIFIED: epsilon = {self.epsilon:.6g} at delta = {self.delta:g}" if self.ok else "NOT VERIFIED"
        if self.ok and self.stamp:
            head = f"RECOMPUTES, BUT {one_line(self.stamp)}"
        if self.recomputes and self.known_fault:
            unknown = "not known whether" in self.known_fault
            head = one_line(("NOT KNOWN TO HOLD: " if unknown else "KNOWN TO BE TOO SMALL: ") + self.known_fault)
        return "\n".join(rows + [head])


def verify(folder: str | Path, public_key: str | Path | None = None) -> Verification:
    """Check a run or release folder. Reads only that folder, follows no link in it; never raises for a bad one.

    Args:
        folder: what `fit` or `sample` wrote.
        public_key: PEM file of the signer; then a valid signature by it is required.

    Examples:
        >>> vs.verify("release").ok
        True
    """
    folder, result = Path(os.path.realpath(folder)), Verification()

    check = result.check
    facts: dict[str, Any] = {}
    ledger = Ledger()

    def open_receipt() -> str:
        if folder.is_dir():
            no_links(folder)
        if (folder / STAMP).exists():
            result.stamp = NON_PRIVATE
            raise RunError(f"{NON_PRIVATE}; there is nothing to verify")
        facts.update(read_receipt(folder).facts)
        if facts.get("seal") != _seal(facts):
            raise RunError("the receipt was edited: its seal does not fit")
        result.delta, result.stamp = facts["delta"], facts["stamp"]
        return f"{facts['method']} on {facts['data']['name']}"

    if not check("receipt", open_receipt):
        return result
    if not check("chain", lambda: _chain(folder, facts, ledger)):
        return result
    check("plan", lambda: _within_plan(facts, ledger))
    check("epsilon", lambda: _epsilon(facts, ledger, result))
    check("files", lambda: check_list(folder, facts["files_sha256"], result.notes))
    if public_key is not None or (folder / SIGNATURE).exists():
        from veilset.core.signing import check_signature

        def signature() -> str:
            result.fingerprint = check_signature(folder / RECEIPT, folder / SIGNATURE, public_key)
            return f"Ed25519, key {result.fingerprint}"

        check("signature", signature)
    else:
        result.notes.append(
            "not signed: it does not show who made it; ask its maker for the hash of receipt.json, or for a signature"
        )
    result.notes += public_words(facts)
    if result.recomputes:
        result.known_fault = known_fault(facts, ledger.lines[0]["body"]["plan"])
    result.release = result.ok and bool(facts["release"])
    return result


def _chain(folder: Path, facts: dict[str, Any], ledger: Ledger) -> str:
    raw = read_capped(folder / LEDGER, MOST_LEDGER)
    ledger.lines = list(parse(raw))
    if (len(ledger.lines), ledger.head, sha256(raw)) != (
        facts["ledger_lines"],
        facts["ledger_head"],
        facts["ledger_sha256"],
    ):
        raise RunError(
            f"the ledger has {len(ledger.lines)} lines and head {ledger.head[:12]}, the receipt says "
            f"{facts['ledger_lines']} and {facts['ledger_head'][:12]}; lines were added, dropped or replaced"
        )
    if not any(True for _ in ledger.bodies("close")):
        raise RunError("the ledger has no closing line; its last lines were dropped, or the run has not ended")
    return f"{len(ledger.lines)} lines, head {ledger.head[:16]}"


def _within_plan(facts: dict[str, Any], ledger: Ledger) -> str:
    """Every charge was planned, with no less noise, and not more often; and the receipt repeats the ledger's facts."""
    start = ledger.lines[0]["body"]
    plan = {r["name"]: Release(**r) for r in start["plan"]["releases"]}
    _trial(start["plan"], list(plan.values()))
    steps: Counter[tuple[str, int | None]] = Counter()
    for b in ledger.bodies("charge"):
        mechanisms.read(b)
        r = plan.get(b["release"])
        if r is None or b["mechanism"] != r.mechanism or not mechanisms.of(r).as_planned(b, r):
            raise RunError(f"release {b['release']!r} was charged otherwise than planned")
        steps[b["release"], b["part"]] += b["steps"]
        if (
            steps[b["release"], b["part"]] > r.steps
            or b["part"] not in ([None] if r.partition is None else range(len(start["plan"]["info"]["classes"])))
            or type(b["steps"]) is not int
            or b["steps"] < 1
        ):
            raise RunError(f"release {b['release']!r} was charged more often, or for another part, than planned")
    said = {
        "data": start["plan"]["info"],
        "mode": start["mode"],
        "unit": start["plan"]["info"]["unit"],
        "relation": RELATION,
        "generator": start["generator"],
        "account": start.get("account"),
        "stream": start["plan"].get("stream"),
        "public": start["plan"].get("public"),
        "max_images_per_unit": start["plan"]["info"]["max_images_per_unit"],
        "epsilon_budget": start["plan"]["privacy"]["epsilon"],
    }
    said["inspected"] = any(True for _ in ledger.bodies("inspect"))
    said["stamp"] = "" if start["mode"] == "release" else RESEARCH
    said["release"] = said["stamp"] == "" and not said["inspected"]
    PublicInfo.from_json(start["plan"]["info"])  # what is declared must describe a set
    read_public(start["plan"])
    for key, value in said.items():
        if facts.get(key) != value:
            raise RunError(f"the receipt says {key} = {facts.get(key)!r}, the ledger {value!r}")
    return f"{sum(1 for _ in ledger.bodies('charge'))} charge(s), all planned"


def _trial(plan: dict[str, Any], releases: list[Release]) -> None:
    """The trial that a search kept costs what one of its candidates does."""
    if "search" not in plan:
        return
    parts = len(plan["info"]["classes"])
    own = tuple(replace(s, noise_multiplier=r.noise_multiplier) for r in releases for s in r.spent(1.0, parts))
    if own not in Search.from_json(plan["search"]).candidates:
        raise RunError("the plan is none of the candidates of the search that it says it is a trial of")


def _epsilon(facts: dict[str, Any], ledger: Ledger, result: Verification) -> str:
    plan = ledger.lines[0]["body"]["plan"]
    budget = Privacy(**plan["privacy"])
    budget.check_units(plan["info"]["units"])
    got = claim(Search.from_json(plan["search"]) if "search" in plan else ledger.spent(), budget.delta)
    result.epsilon = got.epsilon if math.isfinite(got.epsilon) else None
    for name, said, seen in (
        ("epsilon", facts["epsilon"], got.epsilon),
        ("epsilon_rdp", facts["epsilon_rdp"], got.epsilon_rdp),
    ):
        # Another release of the accountant may differ in the last digits; a claim may never be smaller than recomputed.
        if not (math.isfinite(seen) and abs(said - seen) <= 1e-3 * seen + 1e-12 and said >= seen * (1 - 1e-6) - 1e-12):
            raise RunError(f"{name} recomputes to {seen:.8g}, the receipt says {said:.8g}")
    if facts["accountant"] != got.accountant:
        raise RunError(f"epsilon is claimed by {got.accountant}, the receipt says {str(facts['accountant'])[:80]!r}")
    if facts["delta"] != budget.delta or got.epsilon > budget.epsilon * (1 + 1e-9):
        raise RunError(f"epsilon {got.epsilon:.8g} at delta {budget.delta:g} passes the budget {budget.epsilon:g}")
    return f"{got.epsilon:.8g} at delta {budget.delta:g} ({got.accountant}; RDP {got.epsilon_rdp:.6g})"


def list_hash(folder: str | Path) -> str:
    """The hash of a folder's list of files, once the list is the receipt's, and every file the one that is listed.

    Figures name it, so that nobody takes them for those of another release.

    Raises:
        RunError: no receipt, or a file that it does not cover as it is.
    """
    home = no_links(Path(folder))
    facts = read_receipt(home).facts
    try:
        check_list(home, facts["files_sha256"], [])
    except RunError as e:
        raise RunError(f"{folder}: {e}; sample or fit again, or get an unchanged copy") from e
    return str(facts["files_sha256"])


def read_receipt(folder: str | Path) -> Receipt:
    """The receipt (or the NON-PRIVATE stamp) of a run or release folder.

    Raises:
        RunError: there is none.
        ConfigError: it is of another format.
    """
    folder = Path(folder)
    path = folder / (STAMP if (folder / STAMP).exists() else RECEIPT)
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a {FORMAT}; use the version that wrote it, or get another copy")
    for key, kind in KINDS.items():
        if not isinstance(facts.get(key), kind):
            raise ConfigError(f"{path}: its {key} is missing or of another type than a {FORMAT} has; get another copy")
    try:
        PublicInfo.from_json(facts["data"])
        read_public(facts)
        _ = [float(facts[key] or 0) for key in ("epsilon", "epsilon_rdp", "delta")]  # thousands of digits are no float
    except (ArithmeticError, LookupError, TypeError, ValueError) as e:
        raise ConfigError(f"{path}: its declared facts or numbers describe no set ({e}); get another copy") from e
    return Receipt(facts)
