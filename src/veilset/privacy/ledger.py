"""What was asked of the private data, in order: append-only lines, each chained to the one before by SHA-256.

Three kinds of file have this form: a run's ledger, the account of a set (see `account`), and the ledger of a stream of
tasks (see `veilset.continual`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veilset.core.errors import LedgerError, RunError
from veilset.core.io import MOST_JSON, canonical, parse_json, read_capped, sha256, sync_folder
from veilset.core.rendering import ledger_words
from veilset.privacy.mechanisms import of, read
from veilset.privacy.spent import Spent

FORMATS = {"ledger": "veilset-ledger/1", "account": "veilset-account/1", "stream": "veilset-stream/1"}
FORMAT = FORMATS["ledger"]
GENESIS = "0" * 64
MOST_LEDGER = 32 << 20  # bytes of a ledger that is read: some hundred thousand lines


def _seal(seq: int, prev: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"seq": seq, "prev": prev, "body": body, "hash": sha256(canonical([seq, prev, body]))}


class Ledger:
    """A ledger in memory and, when a path is given, on disk. A line is on disk before `append` returns.

    Args:
        path: file to append to; None keeps it in memory.
        kind: "ledger", "account" or "stream".

    Raises:
        LedgerError: an existing file is cut, edited, reordered or of another format.

    Examples:
        >>> ledger = vs.Ledger(Path("release/ledger.jsonl"))
        >>> [line["body"]["kind"] for line in ledger.lines]
        ['open', 'charge', 'charge', 'close']
    """

    def __init__(self, path: Path | None = None, kind: str = "ledger"):
        self._path = path
        self.lines: list[dict[str, Any]] = []
        if path and path.exists():
            self.lines.extend(parse(read_capped(path, MOST_LEDGER), kind))

    @property
    def head(self) -> str:
        """The hash of the last line: it fixes all lines before it."""
        return self.lines[-1]["hash"] if self.lines else GENESIS

    def append(self, kind: str, **body: Any) -> None:
        """Add one line and sync it."""
        line = _seal(len(self.lines), self.head, {"kind": kind, **body})
        if self._path:
            whole = self._path.stat().st_size if self._path.exists() else 0
            try:
                with open(
                    os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "ab"
                ) as f:
                    f.write(canonical(line) + b"\n")
                    f.flush()
                    os.fsync(f.fileno())
                if whole == 0:
                    sync_folder(self._path.parent)
            except OSError as e:
                if self._path.exists():  # leave no part of a line behind
                    os.truncate(self._path, whole)
                raise RunError(f"cannot write {self._path.name}: {e.strerror}; nothing was released") from e
        self.lines.append(line)

    def bodies(self, kind: str) -> Iterator[dict[str, Any]]:
        """The bodies of one kind, in order."""
        return (line["body"] for line in self.lines if line["body"]["kind"] == kind)

    def steps(self, release: str, part: int | None) -> int:
        """How many steps of a release have been charged."""
        return sum(b["steps"] for b in self.bodies("charge") if b["release"] == release and b["part"] == part)

    def spent(self) -> list[Spent]:
        """The accountant's input: epsilon is computed from these lines and from nothing else."""
        return [read(b) for b in self.bodies("charge")]

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return b"".join(canonical(line) + b"\n" for line in self.lines)

    def __str__(self) -> str:
        rows = [f"{line['seq']:>4}  {line['hash'][:12]}  {words(line['body'])}" for line in self.lines]
        return "\n".join(rows) or "empty ledger"


def words(body: Mapping[str, Any]) -> str:
    """The body of a ledger line, for people."""
    how = of(line := read(body)).words(line) if body["kind"] == "charge" else ""
    return ledger_words(body, how)


def parse(data: bytes, what: str = "ledger") -> Iterator[dict[str, Any]]:
    """Read and check the bytes of a ledger (or of an account, if `what` says so) line by line.

    Raises:
        LedgerError: naming the first line that does not follow from the one before.
    """
    if data and not data.endswith(b"\n"):
        raise LedgerError(f"{what}: the last line is cut short; the file was damaged or edited")
    if b"\r\n" in data:
        raise LedgerError(
            f"{what}: its line ends were changed (CRLF), as some programs do when they copy; get it unchanged"
        )
    prev = GENESIS
    for seq, raw in enumerate(data.split(b"\n")[:-1]):
        try:
            line = parse_json(raw if len(raw) <= MOST_JSON else b"")
            good = line["seq"] == seq and line["prev"] == prev and line == _seal(seq, prev, line["body"])
            kind, form = line["body"]["kind"], line["body"].get("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise LedgerError(f"{what} line {seq}: not a line of such a file; the file was damaged or edited") from None
        if not good:
            raise LedgerError(
                f"{what} line {seq}: does not follow from the line before; a line was edited, dropped or swapped"
            )
        if seq == 0 and (kind != "open" or form != FORMATS[what]):
            raise LedgerError(
                f"{what} line 0: format {form!r} is not {FORMATS[what]}; use the veilset version that wrote it"
            )
        prev = line["hash"]
        yield line
