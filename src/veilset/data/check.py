"""`veilset data check`: all file faults of a set, for its owner."""

from __future__ import annotations

from pathlib import Path

from veilset.data import declare, public
from veilset.data.faults import Fault, Faults
from veilset.data.load import existing, readable, reader, scan


def check(source: str | Path) -> list[Fault]:
    """Find everything that is wrong with the files of a set, and remarks for its owner.

    What it says is about private records: it is for the owner and outside the guarantee.

    Args:
        source: a built-in name or a path, as for `load`. A declaration that is not confirmed yet is good enough.

    Returns:
        Faults (severity "fault": `fit` refuses the set) and remarks ("note"), in the order they were met.

    Raises:
        DataError: there is no such set, it is laid out in no way that veilset reads, or has no valid declaration.
    """
    faults = Faults(source)
    if public.named(source):
        declared, choice = declare.Declaration(public.info(str(source))), None
    else:
        declared = declare.read(existing(Path(source)))
        choice = declared.choice
    if not declared.confirmed:
        faults.note(declare.FILE, "is not confirmed yet", "read it, correct it and set confirmed = true")
    with readable(str(source)):
        files = reader(source)
        for split in ("train", "test") if files.has_test() else ("train",):
            scan(files, declared.info, choice, split, faults, keep=False)
    return list(dict.fromkeys(faults.found))  # both splits look at what they share; say it once
