"""Data that the owner declares to be public, on which a claim then rests: in the plan, the ledger and the receipt.

Absent where there is none. That such data is public is the owner's word, which nothing here can check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from veilset.core.errors import ConfigError

LONGEST = 200  # characters of a word


@dataclass(frozen=True, kw_only=True)
class PublicData:
    """One declared set.

    Attributes:
        name: of the set.
        sha256: of its files, in hex: which data it was.
        images: how many there are.
        licence: under which they may be used.
        declared_by: who says that they are public.

    Raises:
        ConfigError: a value out of range; it may come from a file that a stranger wrote.
    """

    name: str
    sha256: str
    images: int
    licence: str
    declared_by: str

    def __post_init__(self) -> None:
        for key in ("name", "sha256", "licence", "declared_by"):
            value = getattr(self, key)
            if not (isinstance(value, str) and 0 < len(value) <= LONGEST):
                raise ConfigError(f"public: {key} = {str(value)[:40]!r}: must be a text of 1 to {LONGEST} characters")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"public: sha256 = {self.sha256[:80]!r}: must be 64 lower-case hex digits")
        if type(self.images) is not int or self.images < 1:
            raise ConfigError(f"public: images = {str(self.images)[:40]!r}: must be a whole number of at least 1")


def written_public(public: Sequence[PublicData]) -> dict[str, Any]:
    """What plan, ledger and receipt say of it: nothing where there is none."""
    return {"public": [asdict(p) for p in public]} if public else {}


def read_public(facts: Any) -> tuple[PublicData, ...]:
    """Read the facts of a plan or receipt back, which a stranger may have written.

    Raises:
        ConfigError: they are not what `written_public` writes.
    """
    if "public" not in facts:
        return ()
    raw, keys = facts["public"], {f.name for f in fields(PublicData)}
    if not (isinstance(raw, list) and raw and all(isinstance(p, dict) and p.keys() == keys for p in raw)):
        raise ConfigError(f"public = {str(raw)[:80]!r}: must be one or more of {', '.join(sorted(keys))}, or left out")
    return tuple(PublicData(**p) for p in raw)
