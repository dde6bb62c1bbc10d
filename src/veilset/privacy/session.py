"""A private run from its opening to its claim, for all that ask a gate: fits, searches, streams, bought measures.

    with Session(data, plan, what="count", config={}) as session:
        count = session.gate.sum("count", lambda x, y: torch.ones(1))
    session.write(folder)

Leaving the block closes the gate and makes the claim, so nobody who asks can forget it. After an error there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from veilset.core.facts import check_tested
from veilset.privacy.account import Payment
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan
from veilset.privacy.private import PrivateImages
from veilset.privacy.receipt import Receipt, make_receipt, write_release


class Session:
    """An open gate, and the claim that it ends with.

    Args:
        data: the private images.
        plan: priced.
        what: is run: a method, a measure. It stands in the receipt.
        config: its parameters.
        seed: None for release mode.
        folder: where ledger and paid answers are kept, so that an interrupted run goes on.
        device: where records are mapped.
        payment: of the set's account, which pays for the whole plan before anything is asked.

    Attributes:
        gate: answers what was planned.
        receipt: the claim, once it is closed; before, None.
        ledger: what was asked, once it is closed; before, nothing.

    Raises:
        RunError: without a seed, after a self-test that failed.
    """

    def __init__(
        self,
        data: PrivateImages,
        plan: Plan,
        *,
        what: str,
        config: Mapping[str, Any],
        seed: int | None = None,
        folder: Path | None = None,
        device: str = "cpu",
        payment: Payment | None = None,
    ):
        check_tested(seed)
        self.plan, self.seed, self.device, self.folder = plan, seed, device, folder
        self._what, self._config = what, dict(config)
        self.gate = Gate(data, plan, seed=seed, folder=folder, device=device, payment=payment)
        self.receipt: Receipt | None = None
        self.ledger = b""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def close(self) -> Receipt:
        """Close the gate and make the claim, once."""
        if self.receipt is None:
            ledger = self.gate.close()
            self.ledger = ledger.to_bytes()
            self.receipt = make_receipt(ledger, self.gate.plan, self._what, self._config)
        return self.receipt

    def write(self, folder: Path) -> Receipt:
        """Write ledger and receipt beside the files of a folder; returns the receipt, which covers them."""
        return write_release(folder, self.close(), self.ledger)
