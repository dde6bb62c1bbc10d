"""The `private/` folder of a run: what was paid for, the state of training, and a hash of the data. Never released."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.checkpoint import pack, unpack
from veilset.core.errors import RunError
from veilset.core.io import read_json, write_bytes, write_json

if TYPE_CHECKING:
    import torch


class Vault:
    """Keeps answers and checkpoints of one run, mode 0600; without a folder it keeps nothing.

    Args:
        folder: run folder, or None.
        writes: False for all processes but the first, which read what the first one keeps.
    """

    def __init__(self, folder: Path | None, writes: bool = True):
        self._home, self._writes = folder / "private" if folder else None, writes
        if self._home and writes:
            for name in ("answers", "checkpoints"):
                (self._home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._home.chmod(0o700)

    def same_data(self, pieces: Iterable[bytes], seed: int | None, started: bool) -> None:
        """Refuse to go on with other data or another seed: an HMAC under a random key that is kept here only.

        Args:
            pieces: the records' bytes, in order.
            seed: of a research run; None in release mode.
            started: the run has a ledger already.

        Raises:
            RunError: other data, another seed, or the HMAC is gone.
        """
        if self._home is None or not self._writes:
            return
        path = self._home / "data.json"
        if started and not path.exists():
            raise RunError(f"private/{path.name} is gone, so this run cannot go on; start a new one in a new folder")
        known: dict[str, Any] = read_json(path) if path.exists() else {"key": secrets.token_hex(32), "seed": seed}
        if known["seed"] != seed:
            raise RunError("this run was started with another seed; use the same seed, or a new folder")
        digest = hmac.new(bytes.fromhex(known["key"]), digestmod=hashlib.sha256)
        for piece in pieces:
            digest.update(piece)
        if "hmac" not in known:
            write_json(path, known | {"hmac": digest.hexdigest()}, mode=0o600)
        elif not hmac.compare_digest(known["hmac"], digest.hexdigest()):
            raise RunError("the data changed since this run was started; resume on the same data, or use a new folder")

    def answer(self, tag: str) -> torch.Tensor | None:
        """A noisy answer that was kept."""
        path = self._home / "answers" / f"{tag}.safetensors" if self._home else None
        if path is None or not path.exists():
            return None
        from safetensors.torch import load

        return load(path.read_bytes())["answer"]

    def keep_answer(self, tag: str, answer: torch.Tensor) -> None:
        """Keep a noisy answer."""
        if self._home and self._writes:
            from safetensors.torch import save

            path = self._home / "answers" / f"{tag}.safetensors"
            write_bytes(path, save({"answer": answer.contiguous()}), mode=0o600)

    def checkpoint(self, tag: str) -> dict[str, Any] | None:
        """The newest whole checkpoint of this loop; one that was cut short is passed over for the one before it."""
        for path in [] if self._home is None else sorted((self._home / "checkpoints").glob(f"{tag}.*.ckpt"))[::-1]:
            try:
                return unpack(path.read_bytes())
            except RunError:
                continue
        return None

    def keep_checkpoint(self, tag: str, step: int, state: Mapping[str, Any]) -> None:
        """Keep a loop's state after `step` steps, and the one before it.

        Raises:
            RunError: it cannot be written; the older ones stay.
        """
        if self._home and self._writes:
            home = self._home / "checkpoints"
            write_bytes(home / f"{tag}.{step:09d}.ckpt", pack(state), mode=0o600)
            for old in sorted(home.glob(f"{tag}.*.ckpt"))[:-2]:
                old.unlink()
