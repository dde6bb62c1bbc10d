"""The `private/` folder of a run: what was paid for, the state of training, and a hash of the data. Never released."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset import __version__
from veilset.core.errors import RunError
from veilset.core.io import no_links, read_json, write_bytes, write_json
from veilset.privacy.run.checkpoint import freeze, pack, unpack

if TYPE_CHECKING:
    import torch

KEEPING = 0.01  # share of a loop's time that may go into its checkpoints


class RunStore:
    """Keeps answers and checkpoints of one run, mode 0600; without a folder it keeps nothing.

    Args:
        folder: run folder, or None.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, folder: Path | None):
        self._home = folder / "private" if folder else None
        self._known: dict[str, Any] = {}  # data.json
        self._next: dict[str, float] = {}  # when a loop's next checkpoint is due
        if self._home is None:
            return
        if self._home.parent.is_dir():
            no_links(self._home.parent)
        try:
            for name in ("answers", "checkpoints", "hidden"):
                (self._home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._home.chmod(0o700)
            for cut in self._home.rglob(".*.partial"):  # a process was killed while it wrote
                cut.unlink()
        except OSError as e:
            raise RunError(f"cannot write {self._home}: {e.strerror}; free some space or choose another folder") from e

    def data_key(self, seed: int | None, started: bool) -> str:
        """The key of the data's HMAC in hex: random, and kept here only, so that the hash tells others nothing.

        Args:
            seed: of a research run; None in release mode.
            started: the run has a ledger already.

        Raises:
            RunError: the run was started with another seed, or by another version; or the key is gone.
        """
        fresh = {"key": secrets.token_hex(32), "seed": seed, "version": __version__}
        path = self._home / "data.json" if self._home else None
        if path and started and not path.exists():
            raise RunError(f"private/{path.name} is gone, so this run cannot go on; start a new one in a new folder")
        known = read_json(path) if path and path.exists() else fresh
        if known["seed"] != seed:
            raise RunError("this run was started with another seed; use the same seed, or a new folder")
        if known.get("version") != __version__:  # the receipt names one version, and some have faults
            raise RunError(
                f"this run was started by another version of veilset ({known.get('version', 'older than 0.2.0')}); "
                f"finish it with that one, or start a new run with {__version__} in a new folder"
            )
        self._known = known if path else {}
        return str(known["key"])

    def same_data(self, digest: str) -> None:
        """Keep the data's HMAC, or refuse to go on with other data than that of the interrupted run.

        Args:
            digest: hex HMAC of all records under `data_key`.

        Raises:
            RunError: other data.
        """
        if "hmac" not in self._known and self._home:
            write_json(self._home / "data.json", self._known | {"hmac": digest}, mode=0o600)
        elif not hmac.compare_digest(self._known.get("hmac", digest), digest):
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
        if self._home:
            from safetensors.torch import save

            path = self._home / "answers" / f"{tag}.safetensors"
            write_bytes(path, save({"answer": answer.contiguous()}), mode=0o600)

    def hidden(self, tag: str) -> dict[str, Any] | None:
        """What was kept of shards and hidden models; raises RunError if it is not whole."""
        path = self._home / "hidden" / f"{tag}.ckpt" if self._home else None
        return unpack(path.read_bytes()) if path and path.exists() else None

    def keep_hidden(self, tag: str, state: Mapping[str, Any]) -> None:
        """Keep the table of shards, or hidden models: private as records are."""
        if self._home:
            write_bytes(self._home / "hidden" / f"{tag}.ckpt", pack(state), mode=0o600)

    def checkpoint(self, tag: str) -> dict[str, Any] | None:
        """The newest whole checkpoint of this loop; one that was cut short is passed over for the one before it."""
        for path in [] if self._home is None else sorted((self._home / "checkpoints").glob(f"{tag}.*.ckpt"))[::-1]:
            try:
                return unpack(path.read_bytes())
            except RunError:
                continue
        return None

    def keep_checkpoint(self, tag: str, step: int, state: Mapping[str, Any], *, last: bool) -> None:
        """Keep a loop's state after `step` steps, and the one before it, if it is due.

        It is due after the first step of this process, after the last, and between them so often that writing takes
        about 1 % of the time.

        Args:
            tag: the loop.
            step: how many steps its state has seen.
            state: things with `state_dict`, by name.
            last: no step will follow.

        Raises:
            RunError: it cannot be written; the older ones stay.
        """
        begun = time.monotonic()
        if self._home and (last or begun >= self._next.get(tag, 0.0)):
            home = self._home / "checkpoints"
            write_bytes(home / f"{tag}.{step:09d}.ckpt", pack(freeze(state, step)), mode=0o600)
            for old in sorted(home.glob(f"{tag}.*.ckpt"))[:-2]:
                old.unlink()
            now = time.monotonic()
            self._next[tag] = now + (now - begun) / KEEPING


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that has no end. It was never synced, so nothing was answered on its account.

    Args:
        path: a file of lines, such as a ledger, that one process appends to and syncs before it acts.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as f:
            f.truncate(whole)
