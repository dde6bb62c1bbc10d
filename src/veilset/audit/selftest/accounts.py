"""The account of a set: what all runs cost together, paid before anything is asked, and once, whoever else draws."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from veilset.audit.selftest.base import Check, facts, flat, gate_for, hidden, pictures, refused, wrong
from veilset.audit.selftest.together import copy_of_this, end_of, told
from veilset.core.errors import BudgetExceeded, DataError, LedgerError, RunError
from veilset.core.io import lock
from veilset.privacy import account as accounts
from veilset.privacy import gaussian, renyi
from veilset.privacy.account import Account, Payment
from veilset.privacy.accounting import Search, Spent, cost_curve, search_claim, together
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy


class Killed(Exception):
    """As if the process ended there."""


CAP, DELTA = 1.0, 1e-5
LARGE, SMALL = [Spent(4.5)], [Spent(20.0)]  # of the first an account pays one, of the second about twenty
ORDERS = (2, 3, 8, 30)
COMMON, CHEAP, DEAR = Spent(9.0), Spent(60.0), Spent(2.0, 0.1, 7)
OTHER_SET: dict[str, Any] = {"name": "other", "units": 51, "unit": "one person", "max_images_per_unit": 2}
BESIDE = 1e-6  # relative: what two implementations of one divergence may differ by


def costs() -> Iterator[Check]:
    """The divergence that is drawn against a second implementation of it, for the part that pays most."""

    def own(*spent: Spent) -> list[float]:
        return [sum(s.steps * renyi.divergence(s.noise_multiplier, s.sample_rate, a) for s in spent) for a in ORDERS]

    def parts(*each: Sequence[Spent]) -> list[Spent]:
        return [COMMON, *(replace(s, part=k) for k, spent in enumerate(each) for s in spent)]

    cases = {
        "one release": ([COMMON], own(COMMON)),
        "several": ([COMMON, CHEAP, DEAR, DEAR], own(COMMON, CHEAP, DEAR, DEAR)),
        "equal parts": (parts([DEAR], [DEAR]), own(COMMON, DEAR)),
        "the first part is the dearest": (parts([DEAR], [CHEAP]), own(COMMON, DEAR)),
        "the middle part is": (parts([CHEAP], [DEAR], [CHEAP]), own(COMMON, DEAR)),
        "the last part is": (parts([CHEAP], [CHEAP], [DEAR, DEAR]), own(COMMON, DEAR, DEAR)),
        "a part that nothing reads": (parts([CHEAP], [], [DEAR]), own(COMMON, DEAR)),
        "tasks that share a class": (together([((0, 1), [COMMON]), ((1, 2), [DEAR])], True), own(COMMON, DEAR)),
        "the same with nothing declared": (together([((0,), [COMMON]), ((1,), [DEAR])], False), own(COMMON, DEAR)),
        "a class in every task": (together([((0, 1), [DEAR]), ((0, 2), [DEAR]), ((3, 0), [COMMON])], True),
                                  own(DEAR, DEAR, COMMON)),
        "tasks on other classes": (together([((0,), [DEAR]), ((1,), [DEAR])], True), own(DEAR)),
    }  # fmt: skip
    short = long = 0.0
    for spent, known in cases.values():
        for got, true in zip(cost_curve(spent, ORDERS)[1], known, strict=True):
            short, long = max(short, 1 - got / true), max(long, got / true - 1)
    yield Check("what is drawn is not below a second sum", short, BESIDE, f"largest relative shortfall of {len(cases)}")
    yield Check("what is drawn is not far above a second sum", long, BESIDE, "largest relative excess")


def searches() -> Iterator[Check]:
    """A search against the library's own event, wherever its worst candidate stands."""
    from dp_accounting import dp_event, rdp

    of = {}
    for trials, noise in ((1, 4.0), (5, 8.0), (20, 12.0)):
        accountant = rdp.RdpAccountant()
        accountant.compose(dp_event.RepeatAndSelectDpEvent(dp_event.GaussianDpEvent(noise), trials, 1))
        known = float(accountant.get_epsilon(DELTA))
        for place in range(3):
            candidates = [(Spent(3 * noise),), (Spent(2 * noise),)]
            candidates.insert(place, (Spent(noise),))
            got = search_claim(Search(trials, tuple(candidates)), DELTA).epsilon
            of[f"{trials} trials, worst candidate {place}"] = abs(got / known - 1) < BESIDE
    yield wrong("a search costs what its worst candidate makes it", "prices that another library denies", of=of)


def filled() -> Iterator[Check]:
    """What an account pays in all, against the exact sum of Gaussians; with others that draw at the same time."""
    with tempfile.TemporaryDirectory() as home:
        alone, shared = (_account(Path(home) / name) for name in ("alone", "shared"))
        paid, outs = _fill(alone), [Path(home) / f"{i}.result" for i in range(2)]
        pids = [copy_of_this(lambda: _fill(shared), out) for out in outs]
        ended = [end_of(pid) for pid in pids]
        of = {
            "two processes pay what one does": ended == [0, 0] and sum(told(out) for out in outs) == paid,
            "each draw is a line": len(shared.balance().book.lines) == 1 + paid,
            "what others draw while one waits counts": _overtaken(_account(Path(home) / "overtaken")),
        }
        most = _epsilon_of_caps(alone)
        epsilon = gaussian.gaussian_epsilon(paid**0.5 / SMALL[0].noise_multiplier, DELTA)
    yield Check("an account pays no more than its cap", epsilon / CAP, 1.0, "epsilon of all it paid, over the cap")
    about = "largest epsilon by the library of an order's cap at its share of delta, over the account's"
    yield Check("an account's orders share its cap", most / CAP, 1 + BESIDE, about)
    yield wrong("no two draws pay with the same money", "ways to overdraw an account", of=of)


def paid() -> Iterator[Check]:
    """A run pays for its whole plan when it opens, once; and is not opened, or not gone on with, unless it has paid."""
    with tempfile.TemporaryDirectory() as home:
        account, folder = _account(Path(home) / "account"), Path(home) / "run"
        seen: list[int] = []

        def stopped(*a: Any) -> None:
            seen.append(_charges(account))
            raise Killed

        with mock.patch.object(Gate, "_noised", stopped):
            of = {"killed": refused(lambda: _gate(folder, account).sum("r", flat), Killed)}
        nothing: dict[str, Any] = {"releases": [{}], "head": ""}
        line = next(iter(account.balance().to_json()["charges"]), nothing)
        again = _gate(folder, account)
        of |= {
            "the charge is there before an answer is": seen == [1],
            "all of the plan is paid": [line["releases"][0].get(k) for k in ("noise_multiplier", "steps")]
            == [again.plan["r"].noise_multiplier, 2],
            "the ledger names the account's line": again.ledger.lines[0]["body"].get("account")
            == {"line": 1, "head": line["head"]},
            "a run that goes on is not paid twice": _charges(account) == 1,
            "another run is": bool(_gate(Path(home) / "more", account)) and _charges(account) == 2,
            "a run that is not covered": refused(lambda: _gate(Path(home) / "x", account, 0.9), BudgetExceeded)
            and not (Path(home) / "x" / "ledger.jsonl").exists(),
            "a run that goes on without its account": refused(lambda: _gate(folder, None), RunError),
            "other sets": all(
                refused(lambda i=info: account.draw(i, SMALL, "other"), DataError)  # type: ignore[misc]
                for info in (facts(**{name: value}) for name, value in OTHER_SET.items())
            ),
        }
        of |= _written(account)
    yield wrong("an account is charged before anything is asked", "ways to have answers unpaid", of=of)


def synced() -> Iterator[Check]:
    """What a ledger or account says is on the disk itself before anything follows from it."""
    with tempfile.TemporaryDirectory() as home:
        folder, account, of = Path(home) / "run", _account(Path(home) / "account"), dict[str, bool]()
        sizes: dict[int, int] = {}
        sync, noised = os.fsync, Gate._noised

        def syncing(fd: int) -> None:
            sync(fd)
            sizes[os.fstat(fd).st_ino] = os.fstat(fd).st_size

        def safe(path: Path) -> bool:
            return sizes.get(path.stat().st_ino) == path.stat().st_size

        def noising(self: Gate, exact: Any, release: Any, purpose: str) -> Any:
            of[f"a charge, {purpose}"] = safe(folder / "ledger.jsonl") and self.ledger.steps(release.name, None) > 0
            return noised(self, exact, release, purpose)

        with mock.patch.object(os, "fsync", syncing), mock.patch.object(Gate, "_noised", noising):
            gate = _gate(folder, account)
            of["a draw"], of["the first line"] = safe(account.path), safe(folder / "ledger.jsonl")
            of["a new file's name"] = folder.stat().st_ino in sizes
            for _ in range(2):
                gate.sum("r", flat)
            account.draw(facts(), SMALL, "more")
            of["another draw"] = safe(account.path)
    yield wrong("charges are on disk before answers", "lines that a power cut takes back", of=of)


CHECKS = (costs, searches, filled, paid, synced)


def _account(path: Path) -> Account:
    account = Account(path)
    account.create(facts(), Privacy(CAP, DELTA))
    return account


def _charges(account: Account) -> int:
    return len(account.balance().to_json()["charges"])


def _fill(account: Account) -> int:
    """Draw until the account refuses; how often it paid."""
    for n in range(1000):
        if refused(lambda: account.draw(facts(), SMALL, "again"), BudgetExceeded):
            return n
    raise RunError("the account never refuses")


def _epsilon_of_caps(account: Account) -> float:
    """What an account that is full at every order claims, if the shares of delta are what they must be."""
    from dp_accounting import rdp

    balance = account.balance()
    orders = balance.book.lines[0]["body"]["orders"]
    if not sum(share for _, share in orders) <= 1 + 1e-12:
        return math.inf
    caps = zip(orders, balance._caps, strict=True)
    return max(float(rdp.compute_epsilon([a], [cap], share * DELTA)[0]) for (a, share), cap in caps)


def _overtaken(account: Account) -> bool:
    """Whether one that waits for the lock sees what the holder drew."""
    real = lock

    def busy(*a: Any, **how: Any) -> Any:
        with mock.patch.object(accounts, "lock", real):
            account.draw(facts(), LARGE, "theirs")
        return real(*a, **how)

    with mock.patch.object(accounts, "lock", busy):
        late = refused(lambda: account.draw(facts(), LARGE, "ours"), BudgetExceeded)
    return late and _charges(account) == 1


def _gate(folder: Path, account: Account | None, epsilon: float = 0.3) -> Gate:
    info = facts()
    data, payment = hidden(info, *pictures(20, info)), Payment(account, "selftest") if account else None
    release = Release(name="r", steps=2)
    return gate_for(data, release, privacy=Privacy(epsilon, DELTA), folder=folder, payment=payment)


def _written(account: Account) -> dict[str, bool]:
    """What was released already is written down, covered or not, and once; an account that was changed is refused."""
    draw: Callable[..., Any] = lambda run, cost=SMALL: account.draw(facts(), cost, "late", released=True, run=run)  # noqa: E731
    before, kept = _charges(account), account.path.read_bytes()
    draw("one")
    of = {
        "a run that stands in it": refused(lambda: draw("one"), RunError),
        "another run does not": bool(draw("two")) and _charges(account) == before + 2,
        "what is released is written down though it is too much": refused(lambda: draw("three", LARGE), BudgetExceeded)
        and _charges(account) == before + 3
        and account.balance().share > 1,
    }
    head = account.balance().book.head
    whole = account.path.read_bytes()
    account.path.write_bytes(kept)
    of["an account that was set back"] = refused(lambda: account.check_holds(head), LedgerError)
    account.path.write_bytes(whole.replace(b'"noise_multiplier":20.0', b'"noise_multiplier":99.0'))
    of["an account that was edited"] = refused(account.balance, LedgerError)
    of["a ledger in its place"] = refused(lambda: Ledger(account.path), LedgerError)
    return of
