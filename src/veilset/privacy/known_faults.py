"""Faults of earlier versions that make a claim too small, or leave it unknown: the one table that `verify` asks.

Before 0.2.0 a loss that drew at random inside `gate.grad` got a draw for each record that followed from the record's
place in its step. One unit more shifted all later records to other draws, so the sum moved by many times its bound.
What a version and a method are is read from the receipt, as its owner stated it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MENDED = (0, 2, 0)
PLACE = "its loss drew {} for each record, and which draw a record got followed from its place in the set"
# Every method and teacher of 0.1.0 -> what its loss drew for each record; empty: nothing, so it is not affected.
DRAWN = {
    "dp-diffusion": "noise and noise levels",
    "dp-feta": "noise and noise levels",
    "dp-cvae": "a code",
    "vae-gm": "a code",
    "au-gm": "",  # it drew codes of deviation 0: its sums were measured, and did not move
    "dp-gan": "",  # unless its `fakes` are "paired", below
    "dp-cgan": "",
    "dp-merf": "",
    "dp-moments": "",
    "taught-moments": "",
    "dp-kip": "",
    "private-set": "",
    "dp-condense": "",
    "dp-scatter": "",  # the teacher
}


def known_fault(facts: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Why the claim of a receipt is too small, or not known to hold, though it recomputes; empty if nothing is known.

    Args:
        facts: of the receipt.
        plan: the keys of the plan in the ledger's first line. Losses are asked by releases with the verb "grad".
    """
    if _version(facts) >= MENDED or not any(r.get("verb") != "sum" for r in plan["releases"]):
        return ""
    method = facts["method"]
    drawn = "a generated image" if _paired(facts) else DRAWN.get(method)
    if drawn is None:
        return (
            f"not known whether the claim holds: {method} is no method of veilset's own, and before 0.2.0 a loss that "
            "draws at random broke the claim; ask its author, or make the release anew"
        )
    return drawn and f"the true epsilon is larger, by an unknown factor: before 0.2.0 {PLACE.format(drawn)}"


def _paired(facts: Mapping[str, Any]) -> bool:
    return facts["method"] in ("dp-gan", "dp-cgan") and facts["config"].get("fakes") != "public"


def _version(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """The version that made a receipt; one that cannot be read counts as the oldest."""
    stated = facts.get("versions")
    text = stated.get("veilset") if isinstance(stated, dict) else None
    found = re.match(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?![\d.])", text) if isinstance(text, str) else None
    return tuple(map(int, found.groups())) if found else (0, 0, 0)
