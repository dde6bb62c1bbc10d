"""A private run from its opening to its claim, for all that ask a gate: fits, searches, streams, bought measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
        seed: None for release mode.
        folder: where ledger and paid answers are kept, so that an interrupted run goes on.
        device: where records are mapped.
        payment: of the set's account, which pays for the whole plan before anything is asked.

    Attributes:
        gate: answers what was planned.
        ledger: what was asked, once it is closed; before, nothing.

    Raises:
        RunError: without a seed, after a self-test that failed.
    """

    def __init__(
        self,
        data: PrivateImages,
        plan: Plan,
        *,
        seed: int | None = None,
        folder: Path | None = None,
        device: str = "cpu",
        payment: Payment | None = None,
    ):
        check_tested(seed)
        self.plan, self.device, self.folder = plan, device, folder
        self.gate = Gate(data, plan, seed=seed, folder=folder, device=device, payment=payment)
        self.ledger = b""

    def close(self, what: str, config: Mapping[str, Any]) -> Receipt:
        """Close the gate and make the claim.

        Args:
            what: was run: a method, a measure.
            config: its parameters.
        """
        ledger = self.gate.close()
        self.ledger = ledger.to_bytes()
        return make_receipt(ledger, self.gate.plan, what, dict(config))

    def write(self, folder: Path, receipt: Receipt) -> Receipt:
        """Write ledger and receipt beside the files of a folder; returns the receipt, which covers them."""
        return write_release(folder, receipt, self.ledger)
