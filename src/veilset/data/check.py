"""`veilset data check`: all file faults of a set, for its owner."""

from __future__ import annotations

from pathlib import Path

from veilset.core.types import Images
from veilset.data import declare, public
from veilset.data.faults import Fault, Faults
from veilset.data.load import existing, images_of, readable, reader, scan
from veilset.data.making import check_jobs


def check(source: str | Path, public_source: str | None = None, jobs: int = 1) -> list[Fault]:
    """Find everything that is wrong with the files of a set, and remarks for its owner.

    What it says is about private records: it is for the owner and outside the guarantee.

    Args:
        source: a built-in name or a path, as for `load`. A declaration that is not confirmed yet is good enough.
        public_source: a public set that a method is to start from, by name or path: it is looked whether private
            images are in it. That is a remark and no fault, since whether a run exists must not depend on it.
        jobs: how many processes look at the pictures of folders, with or without a table; they find the same.

    Returns:
        Faults (severity "fault": `fit` refuses the set) and remarks ("note"), in the order they were met.

    Raises:
        DataError: there is no such set, it is laid out in no way that veilset reads, or has no valid declaration.
    """
    faults = Faults(source, check_jobs(jobs))
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
            part = scan(files, declared.info, choice, split, faults, keep=split == "train" and bool(public_source))
            if part and public_source and split == "train":
                _compare(images_of(declared.info, part), public_source, faults)
    return list(dict.fromkeys(faults.found))  # both splits look at what they share; say it once


def _compare(private: Images, source: str, faults: Faults) -> None:
    """Say how many public images equal a private one, or nearly do."""
    import torch

    from veilset.data.overlap import overlap
    from veilset.data.public_set import MADE, open_public

    if source in MADE:
        faults.note("public", f"{source} is made from no image", "nothing to do: no private image is in it")
        return
    given = open_public(source)
    x, _ = given.images(tuple(private.x.shape[1:]))  # type: ignore[arg-type]
    got = overlap(private, Images(x, torch.zeros(len(x), dtype=torch.int64), ("any",)))
    what = f"{got.exact} of {got.of} images of {given.declaration.name} equal a private one, {got.near} nearly do"
    way = "take them out of the public set: for an image that is in both, the claim does not hold"
    faults.note("public", what, way if got.exact + got.near else "nothing to do")
