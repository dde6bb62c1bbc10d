"""The account of one private set: what all its runs may cost together, in a file of the ledger's kind.

A receipt covers one run. Runs add up, and the next one is often chosen after seeing the last, which the composition of
a fixed plan does not cover. The account is a Renyi filter (Feldman and Zrnic 2021, "Individual privacy accounting via a
Renyi filter"; Lecuyer 2021, "Practical privacy filters and odometers"): before a run opens, its planned Renyi
divergences rho(a) are added to the sums R(a), and it is refused once no order a stays under its cap B(a).

Why (epsilon, delta) holds for all that was ever drawn. Let L be the privacy loss of everything seen so far under one of
two neighbouring sets. However each run is chosen from what was seen before, E exp((a - 1)(L - R(a))) <= 1: each factor
has conditional mean at most 1. For l > epsilon, 1 - exp(epsilon - l) is at most exp((a - 1)(l - epsilon)) times
(1 - 1/a)^(a - 1) / a (Canonne, Kamath and Steinke 2020, Proposition 12). Which order is under its cap may depend on
what was seen, so each order owns a share w(a) of delta, and B(a) solves

    exp((a - 1)(B(a) - epsilon)) (1 - 1/a)^(a - 1) / a = w(a) delta.

Split E max(0, 1 - exp(epsilon - L)) by the order that is under its cap: each part is at most w(a) delta, the sum delta.
To judge all orders against the whole delta, as if the best one had been known in advance, has no such proof.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veilset.core.errors import BudgetExceeded, ConfigError, DataError, LedgerError, ModeError, RunError
from veilset.core.io import lock, read_capped
from veilset.core.rendering import account_table
from veilset.core.types import PublicInfo
from veilset.privacy.accounting import (
    Cost,
    Search,
    Spent,
    cost_curve,
    gaussian_epsilon,
    gaussian_noise_multiplier,
    rdp_epsilon,
)
from veilset.privacy.ledger import FORMATS, MOST_LEDGER, Ledger, parse
from veilset.privacy.plan import Plan
from veilset.privacy.run.run_store import drop_torn_line
from veilset.privacy.spec import RELATION, Privacy

MAIN = 0.5  # share of delta for the order that suits Gaussian releases; the rest goes to the six below it,
BELOW = [2 ** (-k / 4) for k in range(1, 7)]  # which suit sampled ones


class Balance:
    """What an account holds: its cap, what was drawn, and what is left. Made from its lines and from nothing else.

    Args:
        book: the lines.

    Attributes:
        cap: the budget of all runs together.
    """

    def __init__(self, book: Ledger):
        start = book.lines[0]["body"]
        self.book, self.set = book, start["set"]
        self.cap = Privacy(start["epsilon"], start["delta"], allow_large_delta=True)
        self._orders = [a for a, _ in start["orders"]]
        self._caps = [_order_cap(a, share, self.cap) for a, share in start["orders"]]
        self._sums = [0.0] * len(self._orders)
        for body in book.bodies("charge"):
            self._sums = self.after(_cost(body))

    def after(self, cost: Cost) -> list[float]:
        """The sums R(a) once this is drawn too."""
        return [r + float(c) for r, c in zip(self._sums, cost_curve(cost, self._orders)[1], strict=True)]

    def share_of(self, sums: list[float]) -> float:
        """The least R(a) / B(a), infinite if no order has a cap above 0; above 1 the account is overdrawn."""
        return min((r / b for r, b in zip(sums, self._caps, strict=True) if b > 0), default=math.inf)

    @property
    def share(self) -> float:
        """How much of the cap is spent."""
        return self.share_of(self._sums)

    @property
    def epsilon_left(self) -> float:
        """The largest epsilon, at the account's delta, of one unsampled Gaussian release that it still pays."""
        rest = zip(self._orders, self._sums, self._caps, strict=True)
        rho = max((b - r) / a for a, r, b in rest)  # R(a) of a Gaussian is a rho, with rho = 1 / (2 noise^2)
        return gaussian_epsilon(math.sqrt(2 * rho), self.cap.delta) if rho > 0 else 0.0

    def check_set(self, info: PublicInfo) -> None:
        """Refuse another set than the account's.

        Raises:
            DataError: naming the first difference.
        """
        for name, value in _bound(info).items():
            if self.set[name] != value:
                raise DataError(
                    f"account: it is for {name} = {self.set[name]!r}, this set declares {value!r}; "
                    "use the account of this set, or create one"
                )

    def check(self, cost: Cost) -> None:
        """Refuse what is not covered.

        Raises:
            BudgetExceeded: with this, no order stays under its cap.
        """
        share = self.share_of(self.after(cost))
        if not share <= 1:
            raise BudgetExceeded(
                f"account: {self.share:.1%} of epsilon = {self.cap.epsilon:g} is spent, and with this {share:.1%} "
                f"would be; nothing was drawn. One Gaussian release may still take epsilon {self.epsilon_left:.3g}"
            )

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset account show --json`."""
        return {
            "set": self.set,
            "epsilon": self.cap.epsilon,
            "delta": self.cap.delta,
            "share_spent": self.share if math.isfinite(self.share) else None,
            "epsilon_left": self.epsilon_left,
            "charges": [line["body"] | {"head": line["hash"]} for line in self.book.lines[1:]],
            "lines": len(self.book.lines),
            "head": self.book.head,
        }

    def __str__(self) -> str:
        return account_table(self.to_json())


@dataclass(frozen=True)
class Account:
    """The account in a file; nothing is read or written before a method is called.

    Args:
        path: the file.

    Examples:
        >>> account = vs.Account(Path("digits.account"))
        >>> balance = account.create(data.info, vs.Privacy(epsilon=3.0))  # the most that all runs may spend
        >>> balance.share  # of it spent so far; `fit(..., account=account)` draws from it
        0.0
    """

    path: Path

    def create(self, info: PublicInfo, cap: Privacy) -> Balance:
        """Write a new account for a set: its name, number of units, unit, relation, and the cap on all runs together.

        Raises:
            RunError: the file exists, or cannot be written.
            ConfigError: an infinite cap, or delta >= 1/N without permission.
        """
        if not cap.private:
            raise ConfigError("epsilon = inf: the cap of an account must be finite")
        cap.check_units(info.units)
        one = [Spent(gaussian_noise_multiplier(cap.epsilon, cap.delta))]
        best = float(cost_curve(one)[0][rdp_epsilon(one, cap.delta)[1]])
        orders = [(best, MAIN)] + [(1 + (best - 1) * r, (1 - MAIN) / len(BELOW)) for r in BELOW]
        if self.path.exists():
            raise RunError(f"{self.path} exists; an account is never overwritten")
        with self._locked():
            book = Ledger(self.path.resolve(), "account")
            if book.lines:  # made since then
                raise RunError(f"{self.path} exists; an account is never overwritten")
            facts = {"set": _bound(info), "epsilon": cap.epsilon, "delta": cap.delta, "orders": orders}
            book.append("open", format=FORMATS["account"], **facts)
            return Balance(book)

    def balance(self) -> Balance:
        """What the account holds now; works on a read-only disk.

        Raises:
            LedgerError: a line was edited, dropped or swapped. RunError: there is no such file.
        """
        book = Ledger(kind="account")
        try:
            data = read_capped(self.path, MOST_LEDGER)
        except RunError as e:
            raise RunError(f"{e}; make an account with `veilset account create`") from e
        # Another process may be writing the last line. It is answered for only once it has its end.
        book.lines = list(parse(data[: data.rfind(b"\n") + 1], "account"))
        return _read(book)

    def draw(
        self, info: PublicInfo | None, cost: Cost, purpose: str, *, released: bool = False, run: str | None = None
    ) -> dict[str, Any]:
        """Pay for something that is about to be asked; the charge is on disk, synced, when this returns.

        Args:
            info: the declared facts of the set it is asked of; None if the owner says that it is the account's.
            cost: all that it may ask, as planned.
            purpose: words for the account's reader, such as the method's name.
            released: it is out already, so it is written down even if the account does not cover it.
            run: the `run` of the receipt of a run that is written down afterwards, which is done once only.

        Returns:
            Which line it is: {"line", "head"}, for the run's ledger. Kept elsewhere, they show a rollback.

        Raises:
            BudgetExceeded: no order stays under its cap.
            DataError: the account is another set's. LedgerError: it was edited.
            RunError: it cannot be written, or the run stands in it already.
        """
        self.balance()  # what is wrong with the file is said before a lock is taken
        with self._locked():
            drop_torn_line(self.path)
            book = Ledger(self.path.resolve(), "account")
            balance = _read(book)
            if info:
                balance.check_set(info)
            if run and any(run == body.get("run") for body in book.bodies("charge")):
                raise RunError(f"{self.path}: this run stands in the account already; nothing was charged")
            if not released:
                balance.check(cost)
            book.append("charge", purpose=purpose, **_body(cost), **({"run": run} if run else {}))
        share = _read(book).share
        if not share <= 1:
            raise BudgetExceeded(
                f"{self.path}: written down, but the account is overdrawn now ({share:.1%} of its cap): the cap does "
                "not hold for what was released, and nothing more can be drawn"
            )
        return {"line": len(book.lines) - 1, "head": book.head}

    def check_holds(self, head: str) -> None:
        """Refuse an account that was set back: a head that was once seen must stand in it for ever.

        Raises:
            LedgerError: no line has this hash.
        """
        if not any(line["hash"] == head for line in self.balance().book.lines):
            raise LedgerError(
                f"{self.path}: no line has the head {head[:16]}; the account was set back to an older "
                "copy, or is another one"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file itself; other processes wait."""
        try:
            with lock(self.path, str(self.path), wait=True):
                yield
        except OSError as e:
            raise RunError(f"cannot write {self.path}: {e.strerror}; nothing was drawn or asked") from e


class Payment:
    """One draw on an account for one run: made when its first gate opens, and known to those that follow.

    Args:
        account: where to draw.
        purpose: what the account's line says.
    """

    def __init__(self, account: Account, purpose: str):
        self._account, self._purpose = account, purpose
        self._made: dict[str, Any] | None = None

    def make(self, plan: Plan, drawn: dict[str, Any] | None = None) -> dict[str, Any]:
        """Draw the plan's price, once. The line that a run drew before it was interrupted must still be there.

        Returns:
            The line of the account, as `Account.draw` does.
        """
        if drawn:
            self._account.check_holds(drawn["head"])
        self._made = self._made or drawn or self._account.draw(plan.info, plan.cost(), self._purpose)
        return self._made


def check_mode(seed: int | None, privacy: Privacy) -> None:
    """Refuse to account for a run that gives no privacy.

    Raises:
        ModeError: it has a seed, from which its noise follows, or no noise.
    """
    if seed is not None or not privacy.private:
        raise ModeError("account: a run with a seed or without noise gives no privacy to account for; leave one out")


def _bound(info: PublicInfo) -> dict[str, Any]:
    """What an account is bound to. Not the shape: the same people at another image size are the same people."""
    names = ("name", "units", "unit", "max_images_per_unit")
    return {name: getattr(info, name) for name in names} | {"relation": RELATION}


def _order_cap(order: float, share: float, cap: Privacy) -> float:
    """B(a), the largest Renyi divergence of order a that is (epsilon, share x delta)-DP."""
    return cap.epsilon - math.log1p(-1 / order) + math.log(share * cap.delta * order) / (order - 1)


def _read(book: Ledger) -> Balance:
    """The balance of chained lines, whose content may still be nonsense that somebody sealed."""
    try:
        return Balance(book)
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise LedgerError(f"account: its lines do not say what an account says ({e}); restore a copy of it") from e


def _body(cost: Cost) -> dict[str, Any]:
    if isinstance(cost, Search):
        return {"search": cost.to_json()}
    return {"releases": [s.to_json() for s in cost]}


def _cost(body: dict[str, Any]) -> Cost:
    return Search.from_json(body["search"]) if "search" in body else [Spent(**s) for s in body["releases"]]
