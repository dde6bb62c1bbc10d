"""What a run keeps: its ledger and its private folder, on the first process's disk, and known to all its processes."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from veilset.core.errors import RunError
from veilset.core.io import canonical
from veilset.privacy.ledger import Ledger, parse
from veilset.privacy.run.process_group import Team
from veilset.privacy.run.run_store import RunStore, drop_torn_line


class Journal:
    """A new journal, or that of an interrupted run, which must have had the same plan, mode, seed and data.

    Args:
        team: the processes of the run.
        folder: run folder, used by the first of them only; None keeps all in memory.
        seed: of a research run; None in release mode.
        start: what the ledger's first line says.
        pieces: the bytes of all records, for a keyed hash; read only if there is something to compare it with.
        pay: draws on the account, if there is one, and returns the line of the account; given the line that an
            interrupted run has drawn, it checks that the account still holds it.

    Attributes:
        ledger: on the first process the one on disk, on the others a copy in memory.
        before: what the interrupted run had charged.
        store: answers and checkpoints; empty on all processes but the first.

    Raises:
        RunError: the folder belongs to another run, or the processes have different arguments or data.
    """

    def __init__(
        self,
        team: Team,
        folder: Path | None,
        seed: int | None,
        start: dict[str, Any],
        pieces: Iterable[bytes],
        pay: Callable[[dict[str, Any] | None], dict[str, Any]] | None = None,
    ):
        self._team = team
        self.ledger, self.before, self.store = Ledger(), Ledger(), RunStore(None)

        def find() -> dict[str, str]:
            if folder:
                self.store = RunStore(folder)
                drop_torn_line(folder / "ledger.jsonl")
                self.ledger = Ledger(folder / "ledger.jsonl")
            key = self.store.data_key(seed, bool(self.ledger.lines))
            return {"ledger": self.ledger.to_bytes().decode(), "key": key}

        found = team.share(find)
        self.before.lines = list(parse(found["ledger"].encode()))
        if not team.first:
            self.ledger.lines = list(self.before.lines)
        if folder or team.size > 1:
            digest = hmac.new(bytes.fromhex(found["key"]), digestmod=hashlib.sha256)
            for piece in pieces:
                digest.update(piece)
            team.agree("data, plan and seed", canonical([start, seed, digest.hexdigest()]))
            team.share(lambda: self.store.same_data(digest.hexdigest()))
        drawn = self.ledger.lines[0]["body"].get("account") if self.ledger.lines else None
        if self.ledger.lines and (drawn is None) != (pay is None):
            raise RunError("account: this run was started with one, or without; go on with the same arguments")
        if pay:  # written and synced there before anything is written here, let alone asked
            start = start | {"account": team.share(lambda: pay(drawn))}
        if not self.ledger.lines:
            self.log("open", **start)
        elif self.ledger.lines[0]["body"] != {"kind": "open", **json.loads(json.dumps(start))}:
            raise RunError(
                "this run was started with another plan, budget or mode; use the same arguments, or a new folder"
            )

    def log(self, kind: str, **body: Any) -> None:
        """Add a line to every process's ledger; it is on disk before any of them goes on."""
        self._team.share(lambda: self.ledger.append(kind, **body))
        if not self._team.first:
            self.ledger.append(kind, **body)
