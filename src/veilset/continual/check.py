"""The stranger's check of a stream: every task as `veilset verify` does, then the total, anew from the ledgers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from veilset.continual.plan import composition, total
from veilset.continual.stream import BOOK, TaskStream, membership, planned
from veilset.core.errors import RunError
from veilset.core.io import no_links
from veilset.core.types import PublicInfo
from veilset.privacy.account import Account
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Plan
from veilset.privacy.receipt import LEDGER, RESEARCH, Verification, read_receipt, verify
from veilset.privacy.spec import Privacy


def is_stream(folder: str | Path) -> bool:
    """Whether this is the folder of a stream."""
    return (Path(folder) / BOOK).is_file()


def verify_stream(folder: str | Path, public_key: str | Path | None = None) -> Verification:
    """Check a stream's folder. Reads only that folder; never raises for a bad one.

    Each released task must be there, verify by itself, be bound to this stream at its place, and have kept to its plan.
    The total is composed anew from the ledgers of released tasks and the plans of all others, so it covers tasks that
    were begun and those to come; it is what the stream's first line claims, or less.

    Args:
        folder: what `TaskStream.create` made; `private/` may be left out.
        public_key: PEM file of the signer; then each task's receipt needs a valid signature by it.
    """
    folder, result = Path(folder).resolve(), Verification()

    check = result.check
    opened: list[TaskStream] = []
    if not check("stream", lambda: _chain(folder, opened)):
        return result
    stream = opened[0]
    result.delta, result.stamp = stream.facts["delta"], RESEARCH if stream.facts["mode"] == "research" else ""
    for number, state in enumerate(stream.states, 1):
        if state == "released":
            check(f"task-{number}", lambda n=number: _task(stream, n, public_key, result))  # type: ignore[misc]
    check("folder", lambda: _folder(stream))
    check("epsilon", lambda: _epsilon(stream, result))
    result.release = result.ok and not result.stamp
    return result


def draw_stream(account: Account, folder: str | Path, purpose: str) -> dict[str, Any]:
    """Write a stream that was made without the account down in it: all tasks that it plans, released or to come.

    Args:
        account: of the set that the stream is on.
        folder: its folder.
        purpose: words for the account's reader.

    Returns:
        The line of the account.

    Raises:
        RunError: the folder does not verify as a release, was paid for, or stands in the account already.
        BudgetExceeded: it is written down, and the account is overdrawn now. DataError: the stream is on another set.
    """
    seen = verify_stream(folder)
    if not (seen.ok and seen.release):
        raise RunError(
            f"{folder}: does not verify as a release ({seen.known_fault or seen.stamp or 'see veilset verify'}); "
            "nothing charged"
        )
    stream = TaskStream(folder)
    f = stream.facts
    if f["account"]:
        raise RunError(f"{folder}: this stream was paid for by an account; nothing charged")
    cost = total(stream.info, [(t["classes"], _plan(t).spent()) for t in f["tasks"]], f["one_class"])
    return account.draw(stream.info, cost, purpose, released=True, run=f["id"])


def _chain(folder: Path, opened: list[TaskStream]) -> str:
    """The chain, and an order of lines that `TaskStream.fit` can have written."""
    stream = TaskStream(no_links(folder) if folder.is_dir() else folder)
    seen: list[tuple[str, int]] = []
    for line in stream.book.lines[1:]:
        kind, number = line["body"]["kind"], line["body"]["task"]
        fits = kind == "begin" or (kind == "release" and ("begin", number) in seen)
        if not fits or (kind, number) in seen or not 1 <= number <= len(stream.facts["tasks"]):
            raise RunError(f"{BOOK}: line {line['seq']} ({kind} of task {number}) cannot stand there")
        seen.append((kind, number))
    opened.append(stream)
    return f"{len(stream.book.lines)} lines, head {stream.book.head[:16]}"


def _task(stream: TaskStream, number: int, public_key: str | Path | None, result: Verification) -> str:
    """One released task: by itself, and as a part of this stream."""
    home = stream.folder / f"task-{number}"
    if not home.is_dir():
        raise RunError(f"{home.name} was released and is missing")
    seen = verify(home, public_key)
    bad = [f"{c['name']}: {c['detail']}" for c in seen.checks if not c["ok"]]
    if bad or not seen.recomputes:
        raise RunError(f"{home.name} does not verify: {'; '.join(bad)}")
    line = next(b for b in stream.book.bodies("release") if b["task"] == number)
    receipt, start = read_receipt(home).facts, _ledger(home).lines[0]["body"]
    facts = dict(start["plan"])
    said = {
        "stream": (facts.pop("stream", None), membership(stream.book, number)),
        "plan": (facts, stream.facts["tasks"][number - 1]["plan"]),
        "mode": (start["mode"], stream.facts["mode"]),
        "account": (start.get("account"), stream.facts["account"]),
        "method": (receipt["method"], stream.facts["tasks"][number - 1]["method"]),
        "ledger_head": (receipt["ledger_head"], line["ledger_head"]),
        "files_sha256": (receipt["files_sha256"], line["files_sha256"]),
    }
    for name, (own, wanted) in said.items():
        if own != wanted:
            raise RunError(f"{home.name}: its {name} is not that of task {number} of this stream")
    if seen.known_fault:
        result.known_fault = f"{home.name}: {seen.known_fault}"
    return f"epsilon {seen.epsilon:.6g} alone, head {receipt['ledger_head'][:16]}"


def _folder(stream: TaskStream) -> str:
    """Nothing lies beside what the stream's ledger names."""
    names = {f"task-{n}" for n, state in enumerate(stream.states, 1) if state == "released"}
    for path in sorted(stream.folder.iterdir()):
        if path.name not in names | {BOOK, "private"}:
            raise RunError(f"{path.name} is not covered by the stream's ledger; move it elsewhere")
    return f"{len(names)} of {len(stream.states)} tasks released"


def _epsilon(stream: TaskStream, result: Verification) -> str:
    """The total of all tasks: planned, and recomputed from the ledgers that are there."""
    f, info = stream.facts, stream.info
    tasks: list[tuple[list[str], list[Spent]]] = []
    for number, task in enumerate(f["tasks"], 1):
        plan = _plan(task)
        assert plan.info is not None
        if list(plan.info.classes) != task["classes"] or plan.budget.delta != f["delta"]:
            raise RunError(f"task {number}: its plan is for other classes, or another delta, than the stream says")
        own = plan.spent()
        if claim(own, plan.budget.delta).epsilon > plan.budget.epsilon * (1 + 1e-9):
            raise RunError(f"task {number}: its plan passes its own budget")
        if stream.state(number) == "released":
            own = _ledger(stream.folder / f"task-{number}").spent()
        tasks.append((task["classes"], own))
    got = claim(total(info, tasks, f["one_class"]), f["delta"])
    words = composition([t["classes"] for t in f["tasks"]], f["one_class"], info)
    if f["composition"] != words:
        raise RunError(f"the stream says {f['composition']!r}, its tasks make it {words!r}")
    result.epsilon = got.epsilon if math.isfinite(got.epsilon) else None
    for name, seen in (("epsilon", got.epsilon), ("epsilon_rdp", got.epsilon_rdp)):
        # As for a receipt: another release of the accountant may differ in the last digits. The claim is for all that
        # was planned, so it may be larger; never smaller.
        if not (math.isfinite(seen) and f[name] >= seen * (1 - 1e-6) - 1e-12):
            raise RunError(f"{name} of all tasks recomputes to {seen:.8g}, the stream says {f[name]:.8g}")
    return f"{got.epsilon:.8g} at delta {f['delta']:g} for all tasks (claimed {f['epsilon']:.6g}); {words}"


def _plan(task: dict[str, Any]) -> Plan:
    """The priced plan of a task, as the stream's first line holds it."""
    info, privacy = PublicInfo.from_json(task["plan"]["info"]), Privacy(**task["plan"]["privacy"])
    return Plan(planned(task["plan"]), info=info, privacy=privacy)


def _ledger(home: Path) -> Ledger:
    return Ledger(home / LEDGER)
