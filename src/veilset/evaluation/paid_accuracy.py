"""Accuracy on private test records, released with noise: one sum pays for all classifiers and seeds together.

Each record says, for each of F classifiers, how often it was classified rightly over the seeds, on a scale from -1
(never) to 1 (always), times a; and b, once, to be counted. With a^2 = 1 / (F + sqrt F) and b^2 = 1 / (1 + sqrt F) the
norm is at most 1, whatever the record: F a^2 + b^2 = 1. Of all such pairs this one gives the least noise to an accuracy
near 1: its variance is proportional to 1 / a^2 + (2 accuracy - 1)^2 / b^2 (Lagrange). The number of test records is not
needed, and not told without noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, ModeError, suggest
from veilset.core.types import Images
from veilset.evaluation.buying import buy, check_match
from veilset.evaluation.protocols import CLASSIFIERS
from veilset.evaluation.scores import Metric, Scores
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import PrivateImages

if TYPE_CHECKING:
    import torch

    from veilset.core.types import PublicInfo
    from veilset.evaluation.protocols import Protocol
    from veilset.privacy.account import Account
    from veilset.privacy.gate import Gate
    from veilset.privacy.receipt import Receipt
    from veilset.privacy.spec import Privacy

WHAT, FIGURES, RELEASE = "private-accuracy", "metrics.json", "accuracy"


def weights(classifiers: int) -> tuple[float, float]:
    """(a, b) for this many classifiers."""
    root = math.sqrt(classifiers)
    return 1 / math.sqrt(classifiers + root), 1 / math.sqrt(1 + root)


def accuracy_plan(info: PublicInfo, privacy: Privacy) -> Plan:
    """The one release, priced."""
    return Plan((Release(name=RELEASE),), seconds=60.0, memory_mb=600.0).price(privacy, info)


def buy_accuracy(
    images: Images | Callable[[int], Images],
    test: PrivateImages,
    privacy: Privacy,
    out: str | Path,
    *,
    classifiers: Sequence[str] = ("logreg", "cnn"),
    seeds: int = 3,
    protocol: Protocol | None = None,
    seed: int | None = None,
    account: Account | None = None,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Train classifiers on synthetic images and release their accuracy on private test records, with noise.

    Everything is trained before the gate opens, so a failure there costs nothing.

    Args:
        images: a synthetic set, or a function from a seed to one.
        test: private records to test on.
        privacy: what it may cost; it adds to everything else that is released about these records.
        out: folder to make: metrics.json, ledger and receipt.
        classifiers: names of `protocols.CLASSIFIERS`.
        seeds: how many seeds; only the mean over seeds is released.
        protocol: as in `evaluate`.
        seed, account: as in `buy`.
        progress: called with one line of text before each step of work.

    Returns:
        gen2real-NAME for each classifier, in percent of the units; detail["noise_sd"] says how sure.

    Raises:
        ModeError: the test records are public. ConfigError, DataError, RunError, BudgetExceeded: as they say.
    """
    import torch

    _check(test, classifiers, seeds, out)
    plan = accuracy_plan(test.info, privacy)
    models, n, reads_private = _train(images, test.info, classifiers, seeds, protocol, progress)
    reads_private = reads_private or seed is not None
    a, b = weights(len(classifiers))

    def right(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        said = [torch.stack([(net(2 * x[None] - 1)[0].argmax() == y).float() for net in row]).mean() for row in models]
        return torch.cat([a * (2 * torch.stack(said) - 1), x.new_full((1,), b)])

    kept: list[Metric] = []

    def ask(gate: Gate) -> dict[str, bytes]:
        with torch.no_grad():
            noisy = gate.sum(RELEASE, right).tolist()
        sd = plan[RELEASE].noise_multiplier * plan[RELEASE].bound
        facts = {"train_images": n, "split": "test", "protocol": protocol.name if protocol else "each its own"}
        kept.extend(_metrics(classifiers, noisy, sd, seeds, facts, reads_private))
        return {FIGURES: json.dumps(Scores(tuple(kept)).to_json(), indent=2, allow_nan=False).encode() + b"\n"}

    config = {"classifiers": list(classifiers), "seeds": seeds, "train_images": n, "split": "test"}
    receipt = buy(test, plan, out, ask, what=WHAT, config=config, seed=seed, account=account)
    return Scores(tuple(kept), notes=(_paid(receipt, out),))


def _train(
    images: Images | Callable[[int], Images],
    info: PublicInfo,
    classifiers: Sequence[str],
    seeds: int,
    protocol: Protocol | None,
    progress: Callable[[str], None] | None,
) -> tuple[list[list[torch.nn.Module]], int, bool]:
    """(networks of each classifier, one per seed; images each was trained on; whether those hold private records)."""
    from veilset.evaluation.training import train_any
    from veilset.networks.architectures import as_module

    models: list[list[torch.nn.Module]] = [[] for _ in classifiers]
    n, reads_private = 0, False
    for s in range(seeds):
        drawn: Any = images(s) if callable(images) else images
        check_match(drawn, info, "the test records are of")
        n, reads_private = len(drawn), reads_private or drawn.reads_private
        for row, name in zip(models, classifiers, strict=True):
            if progress:
                progress(f"seed {s + 1} of {seeds}: {name}")
            by = CLASSIFIERS[name] and (protocol or CLASSIFIERS[name])
            row.append(as_module(train_any(name, drawn, s, by), len(info.classes)))
    return models, n, reads_private


def _metrics(
    names: Sequence[str], noisy: Sequence[float], sd: float, seeds: int, facts: dict[str, Any], reads_private: bool
) -> list[Metric]:
    """Accuracies in percent out of the noisy sums, with the deviation of their noise to first order."""
    a, b = weights(len(names))
    units = noisy[-1] / b
    out = []
    for name, value in zip(names, noisy[:-1], strict=True):
        lead = min(1.0, max(-1.0, value / a / max(units, 1.0)))  # twice the accuracy, less 1
        error = 50 * sd / max(units, 1.0) * math.hypot(1 / a, lead / b)
        detail: dict[str, Any] = {
            "noise_sd": min(error, 50.0),
            "test_units": round(max(units, 0.0)),
            "test_units_noise_sd": sd / b,
        }
        if error > 10:
            detail["note"] = f"gen2real-{name}: noise of ± {min(error, 50.0):.0f} % says little; test on more records"
        out.append(
            Metric(f"gen2real-{name}", 50 + 50 * lead, None, "%", "higher", reads_private, seeds, {**detail, **facts})
        )
    return out


def _paid(receipt: Receipt, out: str | Path) -> str:
    f = receipt.facts
    return f"paid: epsilon {f['epsilon']:.4g} at delta {f['delta']:g} ({f['unit']}); ledger and receipt in {out}"


def _check(test: object, classifiers: Sequence[str], seeds: int, out: str | Path) -> None:
    """All that can be refused before anything is trained."""
    from veilset.core.errors import RunError

    if isinstance(test, Images):
        raise ModeError("the test split is public, so exact figures cost nothing; use `veilset evaluate --against`")
    if not isinstance(test, PrivateImages):
        raise ModeError("this set has no test split; add one (a `test` folder or a split column)")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds = {seeds!r}: must be a whole number of at least 1")
    for name in classifiers:
        if name not in CLASSIFIERS:
            raise ConfigError(
                f"classifiers = {name!r}: unknown.{suggest(name, CLASSIFIERS)} Known: {', '.join(CLASSIFIERS)}"
            )
    if not classifiers or len(set(classifiers)) < len(classifiers):
        raise ConfigError(f"classifiers = {list(classifiers)}: name one or more different ones")
    if Path(out).exists():
        raise RunError(f"{out} exists; choose another folder")
