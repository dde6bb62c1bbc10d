"""One research run of real size: whose neighbourhood do the released images fill more than a reference set does?

Candidates are slots, each filled by the toss of a fair coin with a member or with an outsider, so that the one-run
bound applies (Steinke, Nasr, Jagielski 2023) if members and outsiders come from one distribution. The score is a
calibrated density ratio (van Breugel and others 2023, arXiv 2302.12580): how near the released images are, less how
near a reference set is that was in no run. How many guesses are made is fixed beforehand.

Records outside the run come from the set's test split, or from a set that the user names. The bound is small for every
sound release, and for most unsound ones: it shows copies, not privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from veilset.audit.bounds import STRICT, one_run_epsilon, one_run_p_value
from veilset.audit.verdict import CONFIDENCE, FAMILY_ERROR, Check
from veilset.privacy.accounting import Spent
from veilset.privacy.accounting import claim as claim_of
from veilset.privacy.ledger import Ledger
from veilset.privacy.receipt import LEDGER

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

CANDIDATES = 2000
GUESSED = 0.25  # of the candidates, those of the most extreme scores
FEATURES = ("nearest", "density-narrow")
NAME = "nearest"


def audit(
    folder: str | Path,
    *,
    outsiders: str | None = None,
    candidates: int = CANDIDATES,
    images: int = 10_000,
    seed: int = 0,
    checks: int = 1,
) -> Check:
    """Attack the images of a research run. Reads raw records: the figure is no release.

    Args:
        folder: run folder made with a seed.
        outsiders: a set none of whose training records were in the run; None: the test split of the run's set.
        candidates: slots; as many outsiders are needed, and as many more serve for reference.
        images: drawn from the model.
        seed: of coins and images.
        checks: how many checks share the family-wise error.

    Raises:
        RunError, ModeError: not a research run, or its records changed.
        DataError: too few records, or an outsider equals a member.
    """
    from veilset.audit.membership.records import open_run, records_of

    run = open_run(Path(folder))
    members, others, origin = records_of(run, outsiders)
    released = run.model.sample(images, seed=seed)
    right, guesses, slots = guess(members, others, origin, released, candidates=candidates, seed=seed)
    assert run.model.receipt_ is not None  # a folder without a claim is no run
    spent, delta = Ledger(Path(folder) / LEDGER).spent(), float(run.model.receipt_.facts["delta"])
    return check(right, guesses, slots, spent, delta, origin, checks)


def guess(
    members: Images,
    others: Images,
    origin: str,
    released: Images,
    *,
    candidates: int = CANDIDATES,
    seed: int = 0,
    drop_duplicates: bool = False,
) -> tuple[int, int, int]:
    """(right guesses, guesses, slots) of the attack; half of the others, by lot, are the reference.

    Raises:
        DataError: see `make_pool`.
    """
    from veilset.audit.membership.records import make_pool

    strangers, reference = _halves(len(others), seed)
    pool = make_pool(members, others[strangers], origin, targets=candidates, seed=seed, drop_duplicates=drop_duplicates)
    return *attack(pool.candidates, released, others[reference], seed), pool.each


def check(
    right: int, guesses: int, slots: int, spent: Sequence[Spent], delta: float, origin: str, checks: int = 1
) -> Check:
    """What so many right guesses say.

    Args:
        right: guesses that are right.
        guesses: all of them.
        slots: candidates.
        spent: the ledger's lines.
        delta: of the claim.
        origin: where the outsiders come from.
        checks: how many checks share the family-wise error.
    """
    claim, strict = claim_of(spent, delta).epsilon, claim_of(spent, STRICT).epsilon
    alpha = FAMILY_ERROR / checks
    findings = []
    if one_run_p_value(strict, STRICT, guesses, right, slots) < alpha:
        findings.append(
            f"nearest: {right} of {guesses} guesses are right; no run with this claim allows that, "
            f"unless outsiders ({origin}) are of another kind than members"
        )
    return Check(
        name=NAME,
        threat_model=f"the attacker has the released images and labels, and records outside the run: {origin}",
        claim=claim,
        delta=delta,
        lower_bound=one_run_epsilon(delta, guesses, right, slots, 1 - CONFIDENCE),
        draws=slots,
        findings=tuple(findings),
        enough=one_run_p_value(strict, STRICT, guesses, guesses, slots) < alpha,
        method="one run, density ratio",
        details=(
            ("guesses", guesses),
            ("right", right),
            ("outsiders", origin),
            ("largest_possible_bound", one_run_epsilon(delta, guesses, guesses, slots, 1 - CONFIDENCE)),
        ),
    )


def _halves(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 1))
    return order[: n // 2], order[n // 2 :]


def attack(pair: Images, released: Images, reference: Images, seed: int) -> tuple[int, int]:
    """(right guesses, guesses) about slots filled by fair coins.

    Args:
        pair: 2 m images: m members, then m outsiders; slot i holds the i-th of one or the other.
        released: what the attacker sees.
        reference: records of the same kind that are in no run, and none of the candidates.
        seed: of the coins.
    """
    import torch

    from veilset.audit.membership.features import Candidates, image_features

    m = len(pair) // 2
    present = torch.rand(m, generator=torch.Generator().manual_seed(seed + 2)) < 0.5
    slots = pair[torch.where(present, torch.arange(m), m + torch.arange(m))]
    them = Candidates.of(slots)
    near, usual = image_features(released, them), image_features(reference, them)
    ratios = torch.stack([near[name] - usual[name] for name in FEATURES], 1)
    score = ((ratios - ratios.mean(0)) / ratios.std(0).clamp_min(1e-12)).sum(1)
    order, guesses = score.argsort(), max(2, int(GUESSED * m))
    low, high = order[: guesses // 2], order[m - (guesses - guesses // 2) :]
    return int((~present[low]).sum() + present[high].sum()), guesses
