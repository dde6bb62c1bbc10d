"""Whether the present code would make a cell again: each cell holds the hash of the code that it was made by.

`closure` says what belongs to that code. Versions of other packages do not; each cell names them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner.closure import Manifest, short
from veilset.core.io import canonical, read_json, write_json

FOLDER = "code"  # of results: the parts of the code, one file for each code that made a cell
FIRST = "2026-11"  # the month from which code is recorded
SIGN = "†"


@dataclass(frozen=True)
class Doubt:
    """Why a cell is not known to be what the present code makes.

    Attributes:
        why: "other code", "not recorded" or "edited".
        version: of veilset that made it.
        differs: the parts of the code that differ.
    """

    why: str
    version: str = ""
    differs: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.why == "not recorded":
            return f"made by {FIRST}, code not recorded"
        if self.why == "edited":
            return "edited since it was made"
        return f"made by other code (veilset {self.version}), which differs in {', '.join(self.differs)}"


def sealed(result: Mapping[str, Any], code: Manifest | None, results: Path) -> dict[str, Any]:
    """A cell's facts with the hash of its code (None: it changed meanwhile) and a checksum against slips of a hand."""
    digest = None if code is None else short(canonical(code))
    if digest and not _kept(results, digest).exists():
        _kept(results, digest).parent.mkdir(exist_ok=True)
        write_json(_kept(results, digest), code)
    facts = dict(result) | {"code": digest}
    return facts | {"checksum": short(canonical(facts))}


def doubt(result: Mapping[str, Any], now: Manifest, results: Path) -> Doubt | None:
    """Why a cell is not known to be what the code `now` makes; None if it is known to be."""
    facts = dict(result)
    checksum, digest = facts.pop("checksum", None), facts.get("code")
    if checksum != (short(canonical(facts)) if checksum or digest else None):
        return Doubt("edited")
    if digest is None:
        return Doubt("not recorded")
    if digest == short(canonical(now)):
        return None
    then = read_json(_kept(results, digest)) if _kept(results, digest).exists() else {}
    differs = sorted(part for part in then.keys() | now.keys() if then.get(part) != now.get(part))
    return Doubt("other code", result.get("versions", {}).get("veilset", "unknown"), tuple(differs))


def counted(doubts: Sequence[Doubt | None]) -> dict[str, Any]:
    """For a summary: how many cells there are, and how many of them are in doubt for each reason."""
    why = sorted(d.why for d in doubts if d)
    return {"cells": len(doubts), "doubts": {reason: why.count(reason) for reason in dict.fromkeys(why)}}


def below(name: str, summary: Mapping[str, Any]) -> str:
    """The paragraph below the tables of a suite; empty if the present code makes every cell."""
    code = summary.get("code", {"doubts": {}})
    if not code["doubts"]:
        return ""
    words = {"other code": "made by other code", "not recorded": f"made by {FIRST}, code not recorded"}
    told = "; ".join(f"{count} {words.get(why, 'edited by hand')}" for why, count in code["doubts"].items())
    return f"\n{SIGN} Not known to be what the present code makes, of {code['cells']} results: {told}. " + (
        f"`veilset bench {name} --stale --list` names them.\n"
    )


def _kept(results: Path, digest: str) -> Path:
    return results / FOLDER / f"{digest}.json"
