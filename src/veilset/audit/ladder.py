"""The ladder: which attacks are made on what, sharing one family-wise error that is fixed before the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from veilset.audit.verdict import Audit, Check
from veilset.core.errors import ConfigError, RunError, suggest
from veilset.core.types import PublicInfo
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

LEVELS = ("mechanism", "canaries", "images", "nearest")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is audited.

    Attributes:
        epsilon, delta: the claim.
        plan: a priced plan, a method's or a run's; None audits the gate alone.
        folder: the run folder, if there is one.
    """

    epsilon: float
    delta: float
    plan: Plan | None = None
    folder: Path | None = None

    @property
    def verbs(self) -> tuple[str, ...]:
        """The pairs of neighbours for the verbs of the plan, or all."""
        from veilset.audit.mechanism.audit import verbs

        used = {r.verb for r in self.plan.releases} if self.plan else {"sum", "grad"}
        return tuple(name for name in verbs() if name.split("-")[0] in used)

    @property
    def levels(self) -> tuple[str, ...]:
        """What is done unless the user says otherwise: nothing here reads a private record."""
        return ("mechanism", "canaries") if self.plan else ("mechanism", "images")


def run_target(folder: Path) -> Target:
    """A run, or a sampled folder: the plan that its ledger opens with, and the claim of its receipt.

    Raises:
        RunError: the folder does not verify, or has no claim.
    """
    from veilset.privacy.ledger import parse
    from veilset.privacy.receipt import LEDGER, read_receipt, verify

    if not verify(folder).ok:
        raise RunError(f"{folder}: does not verify, so there is no claim to audit; see `veilset verify {folder}`")
    receipt = read_receipt(folder)
    if receipt.facts["epsilon"] is None:
        raise RunError(f"{folder}: epsilon is infinite, so there is no claim to audit")
    facts = next(iter(parse((folder / LEDGER).read_bytes())))["body"]["plan"]
    plan = Plan(
        tuple(Release(**r) for r in facts["releases"]),
        info=PublicInfo.from_json(facts["info"]),
        privacy=Privacy(**facts["privacy"]),
    )
    return Target(epsilon=receipt.facts["epsilon"], delta=receipt.facts["delta"], plan=plan, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done at each level, and with what.

    Attributes:
        draws, canaries: None: as many as it takes to see half of the noise missing.
        trainings, candidates: see the levels images and nearest.
        outsiders: for the level nearest, a set whose training records were not in the run.
        seed: None for release mode, as users run it.
    """

    draws: int | None = None
    canaries: int | None = None
    trainings: int = 8000
    candidates: int = 2000
    outsiders: str | None = None
    seed: int | None = None


def climb(target: Target, levels: Sequence[str], effort: Effort, tell: Callable[[str], None] | None = None) -> Audit:
    """Make all attacks of these levels.

    Args:
        target: what is audited.
        levels: of LEVELS.
        effort: how much.
        tell: gets one line before each attack.

    Raises:
        ConfigError: unknown level, a level that does not fit the target, or too little of something.
    """
    todo = [step for level in levels for step in _steps(level, target, effort)]
    found: list[Check] = []
    for number, (name, attack) in enumerate(todo, start=1):
        if tell:
            tell(f"{number}/{len(todo)} {name}")
        found.append(attack(checks=len(todo)))
    return Audit(found)


def _steps(level: str, target: Target, effort: Effort) -> list[tuple[str, Callable[..., Check]]]:
    """(name, attack) of one level; the attack still wants to know how many checks there are."""
    from veilset.audit import canaries, images_only, nearest
    from veilset.audit.mechanism.audit import audit

    claim: dict[str, Any] = {"epsilon": target.epsilon, "delta": target.delta, "seed": effort.seed}
    if level == "mechanism":
        return [(v, partial(audit, v, draws=effort.draws, **claim)) for v in target.verbs]
    if level == "images":
        return [("images-only", partial(images_only.audit, trainings=effort.trainings, **claim))]
    if level == "canaries":
        if target.plan is None:
            raise ConfigError("level canaries: attacks a whole plan; name a method or a run")
        return [("canaries", partial(canaries.audit, target.plan, canaries=effort.canaries, seed=effort.seed))]
    if level == "nearest":
        if target.folder is None:
            raise ConfigError("level nearest: attacks the images of a run; name the folder of a research run")
        options: dict[str, Any] = {
            "outsiders": effort.outsiders,
            "candidates": effort.candidates,
            "seed": effort.seed or 0,
        }
        return [("nearest", partial(nearest.audit, target.folder, **options))]
    raise ConfigError(f"level {level!r} is unknown.{suggest(level, LEVELS)} Levels: {', '.join(LEVELS)}")
