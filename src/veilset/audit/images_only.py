"""An attacker who sees released images only: thousands of tiny trainings, half of them with one more record.

A training is what `dp-merf` does, made small: the real gate releases the noisy embedding of 16 images of 8x8, and eight
images are fitted to it by Adam. All trainings of a block are one batch of tensors. Only one Gaussian touches the data,
and whatever follows cannot undo its noise, so the bound of a Gaussian mechanism holds for the images too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from veilset.audit.bounds import Counts, Tradeoff, dp_epsilon, gaussian_dp_epsilon
from veilset.audit.mechanism.audit import Asked, count, excess, no_errors
from veilset.audit.verdict import CONFIDENCE, FAMILY_ERROR, Check
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    import numpy as np
    import torch

TRAININGS = 8000
SIDE, RECORDS, RELEASED, FREQUENCIES = 8, 16, 8, 128
STEPS, RATE = 60, 0.15
SHADOW = 0.25  # of the trainings: the attacker's own, to choose the question; they are not counted
BLOCK = 250  # trainings in one batch
THREAT = (
    "the attacker knows every other record and the method with its public random features, chooses the record in "
    "question, trains shadow models of its own, and sees only the released images"
)
INFO = PublicInfo(name="audit", classes=("any",), shape=(1, SIDE, SIDE), units=RECORDS)


def audit(
    *,
    epsilon: float = 4.0,
    delta: float = 1e-5,
    trainings: int = TRAININGS,
    seed: int | None = None,
    checks: int = 1,
    noise: float = 1.0,
) -> Check:
    """Attack the images of a small mean-embedding release.

    Args:
        epsilon, delta: the claim.
        trainings: in all; half of them with the record.
        seed: None for release mode; an integer repeats the audit.
        checks: how many checks share the family-wise error.
        noise: what the gate adds, in units of what the claim needs; below 1 is a planted fault, as a control.

    Raises:
        ConfigError: fewer than 40 trainings.
    """
    if trainings < 40:
        raise ConfigError(f"trainings = {trainings}: must be at least 40; 8000 take less than a minute")
    plan = Plan((Release(name="embedding"),)).price(Privacy(epsilon, delta, True), INFO)
    curve = Tradeoff(plan.spent())
    each = trainings // 2
    worlds = [_world(plan, present, each, seed, noise) for present in (False, True)]
    images = _attack([w.pictures for w in worlds])
    embedding = _attack([w.embedding for w in worlds])
    findings = excess(curve, [Asked("released images", images)], [FAMILY_ERROR / checks])
    return Check(
        name="images-only",
        threat_model=THREAT,
        claim=plan.claim().epsilon,
        delta=delta,
        lower_bound=_bound(images, delta),
        draws=each,
        findings=tuple(findings),
        enough=bool(excess(curve, [no_errors(images.present)], [FAMILY_ERROR / checks])),
        method="Gaussian DP and Clopper-Pearson",
        details=(
            ("counts", [images.false_alarms, images.absent, images.hits, images.present]),
            ("lower_bound_of_the_embedding", _bound(embedding, delta)),
        ),
    )


def _bound(counts: Counts, delta: float) -> float:
    return max(dp_epsilon(counts, delta, 1 - CONFIDENCE), gaussian_dp_epsilon(counts, delta, 1 - CONFIDENCE))


# ---------------------------------------------------------------------- the release


@lru_cache(maxsize=1)
def _public() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], torch.Tensor]:
    """(records [16, 1, 8, 8], the record in question [1, 8, 8], frequencies [F, 64]), the same in every audit."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centre = 3.5 + rng.uniform(-1.0, 1.0, (RECORDS, 2))
    square = (rows - centre[:, :1, None]) ** 2 + (columns - centre[:, 1:, None]) ** 2
    records = (255 * np.exp(-square / 4)).astype(np.uint8)[:, None]
    record = (255 * ((rows + columns) % 2)).astype(np.uint8)[None]  # saturated, and unlike all others
    length = math.sqrt(SIDE * SIDE / 7)  # as dp-merf
    w = torch.from_numpy(rng.standard_normal((FREQUENCIES, SIDE * SIDE)) / length).float()
    return records, record, w


@dataclass(frozen=True)
class _World:
    """What trainings without, or with, the record gave: an attacker's view of each [n, D]."""

    embedding: np.ndarray[Any, Any]
    pictures: np.ndarray[Any, Any]


def _world(plan: Plan, present: bool, trainings: int, seed: int | None, noise: float) -> _World:
    import numpy as np
    import torch

    from veilset.methods.embedding.dp_merf import features
    from veilset.privacy.private import from_arrays

    records, record, w = _public()
    x = np.concatenate([records, record[None]]) if present else records
    data = from_arrays(INFO, x, np.zeros(len(x), np.int64))
    released, seen = [], []
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(2 * seed + present)
        for block, start in enumerate(range(0, trainings, BLOCK)):
            n = min(BLOCK, trainings - start)
            # One gate answers n trainings, each with the noise of one; see `mechanism.collect`.
            asked = replace(plan.releases[0], steps=n, noise_multiplier=noise * plan.releases[0].noise_multiplier)
            many = replace(plan, releases=(asked,), privacy=Privacy(math.inf, 0.5, True))
            gate = Gate(data, many, seed=None if seed is None else 2 * (seed * 1_000_003 + block) + present)
            noisy = torch.stack([gate.sum("embedding", lambda x, y: features(x[None], w)[0]) for _ in range(n)])
            pictures = _fit(noisy.float() / RECORDS, w)
            released.append(noisy.numpy())
            waves = features(pictures.flatten(0, 1)[:, None, None].float() / 255, w)
            seen.append(_mean(waves).numpy())
    return _World(np.concatenate(released), np.concatenate(seen))


def _fit(target: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Eight images a training whose mean embedding is near target [n, 2 F] -> uint8 [n, 8, pixels].

    The gradient of the squared distance is written out: sines and cosines are most of the work, and autograd would
    compute them twice.
    """
    import torch

    logits = torch.randn(len(target) * RELEASED, w.shape[1], requires_grad=True)
    adam = torch.optim.Adam([logits], RATE)
    for _ in range(STEPS):
        with torch.no_grad():
            x = logits.sigmoid()
            angle = x @ w.T
            cos, sin = angle.cos(), angle.sin_()
            waves = torch.cat([_mean(cos), _mean(sin)], 1) / math.sqrt(len(w))
            left = (waves - target).repeat_interleave(RELEASED, 0)
            pull = cos.mul_(left[:, len(w) :]).sub_(sin.mul_(left[:, : len(w)]))
            logits.grad = (pull @ w).mul_(x * (1 - x)).mul_(2 / RELEASED / math.sqrt(len(w)))
        adam.step()
    return (logits.detach().sigmoid() * 255).round().to(torch.uint8).unflatten(0, (-1, RELEASED))


def _mean(rows: torch.Tensor) -> torch.Tensor:
    return rows.unflatten(0, (-1, RELEASED)).mean(1)


# ---------------------------------------------------------------------- the attack


def _attack(views: list[np.ndarray[Any, Any]]) -> Counts:
    """Learn a direction and a threshold from the shadow trainings; count yes and no in all others.

    Of an embedding only three directions can matter, and so few shadows could not weigh more: towards the record,
    towards the others, and its length.
    """
    import numpy as np
    import torch

    from veilset.methods.embedding.dp_merf import features

    records, record, w = _public()
    waves = features(torch.from_numpy(np.concatenate([records, record[None]])).float() / 255, w).numpy()
    towards = np.stack([waves[-1], waves[:-1].mean(0)], 1)
    seen = [np.column_stack([v @ towards, (v**2).sum(1)]) for v in views]
    n = int(SHADOW * len(views[0]))
    means = [v[:n].mean(0) for v in seen]
    spread = np.concatenate([v[:n] - m for v, m in zip(seen, means, strict=True)])
    direction = np.linalg.solve(spread.T @ spread / len(spread), means[1] - means[0])
    threshold = float(direction @ (means[0] + means[1]) / 2)
    return count(seen[0][n:] @ direction, seen[1][n:] @ direction, threshold)
