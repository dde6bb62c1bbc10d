"""One run of a whole plan with many canaries: the real gate is asked every planned release, as often as planned.

Canaries are records with Dirac gradients (Nasr and others 2023, arXiv 2302.07956): canary i moves coordinate i of an
answer by the whole bound, and nothing else. Each takes part by a fair coin (Steinke, Nasr, Jagielski 2023, arXiv
2305.08846), so one run is as many experiments as there are canaries. Gradients are those of a network that learns, with
one more layer for the canaries; ordinary records train it meanwhile.

The printed bound is Steinke's, which needs no independence. The verdict also compares rates with the accountant's
curve: the canaries of a sound gate are independent, since each has coordinates and coins of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from veilset.audit.bounds import STRICT, Counts, Tradeoff, one_run_epsilon, one_run_p_value
from veilset.audit.mechanism.audit import Asked, count, doubled, excess, shares, total
from veilset.audit.verdict import CONFIDENCE, FAMILY_ERROR, Check
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy import accounting
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spent import GAUSSIAN

if TYPE_CHECKING:
    import numpy as np
    import torch

    from veilset.privacy.private import PrivateImages

FEWEST, MOST = 1000, 8000  # canaries, if their number is not given
ORDINARY = 64  # records that train the network
LOUD = 100.0
MARK, HIGH, LOW = 0, 1, 2  # the first three pixels: whether it is a canary, and its number
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of the canaries, about which a guess is made
MODELLED = 4000
THREAT = (
    "the attacker inserts canaries that pull a coordinate of their own, each by a fair coin, and sees every noisy "
    "answer of one whole run"
)


def audit(plan: Plan, *, canaries: int | None = None, seed: int | None = None, checks: int = 1) -> Check:
    """Attack a priced plan as a whole: a method's, or a run's.

    Args:
        plan: priced; all its releases are asked.
        canaries: how many, 20 to 10,000 and at most four times the declared N; None: 1000, 2000, ... until half of the
            noise missing would be seen, up to 8000.
        seed: None for release mode; an integer repeats the audit.
        checks: how many checks share the family-wise error.

    Raises:
        ConfigError: too few or too many canaries, or a plan without noise.
    """
    import numpy as np

    largest = min(10_000, 4 * _info(plan).units)
    if canaries is not None and not 20 <= canaries <= largest:
        raise ConfigError(f"canaries = {canaries}: must be 20 to {largest} (10000, or four times the declared N)")
    _check_modelled(plan)
    delta, spent = plan.budget.delta, plan.spent()
    claim = accounting.claim(spent, delta).epsilon
    model = _model(plan.releases)
    thresholds = [float(t) for t in np.quantile(model, QUANTILES)]
    curve, alpha = Tradeoff(spent), shares(1 + len(thresholds), FAMILY_ERROR / checks)

    def enough(canaries: int) -> bool:
        faulty = _model(plan.releases, 0.5)
        return bool(excess(curve, [_expected(faulty, t, canaries) for t in thresholds], alpha[1:]))

    if canaries is None:
        tried = doubled(min(FEWEST, largest), min(MOST, largest))
        canaries = next((n for n in tried if enough(n)), min(MOST, largest))
    guesses = _best_guesses(model, canaries, delta)
    run = Run(plan, canaries, seed)
    score, present = run.scores(), run.present
    right = _right(score, present, guesses)
    asked = [
        Asked(f"canaries, threshold {i + 1}", count(score[~present], score[present], t))
        for i, t in enumerate(thresholds)
    ]
    findings = [*run.findings, *excess(curve, asked, alpha[1:])]
    strict = accounting.claim(spent, STRICT).epsilon  # the same mechanism's claim at a smaller delta
    if one_run_p_value(strict, STRICT, guesses, right, canaries) < alpha[0]:
        findings.append(f"canaries: {right} of {guesses} guesses are right; no run with this claim allows that")
    return Check(
        name="canaries",
        threat_model=THREAT,
        claim=claim,
        delta=delta,
        lower_bound=one_run_epsilon(delta, guesses, right, canaries, 1 - CONFIDENCE),
        draws=canaries,
        findings=tuple(findings),
        enough=enough(canaries),
        method="one run with Dirac canaries",
        details=(("guesses", guesses), ("right", right), ("included", int(present.sum()))),
    )


# ---------------------------------------------------------------------- the run


class Run:
    """A plan, and a set of ordinary records and canaries, of which a fair coin each takes part.

    Attributes:
        present: bool [m], the coins.
        findings: inconsistencies in its ledger after the run.
    """

    def __init__(self, plan: Plan, canaries: int, seed: int | None):
        import numpy as np

        self.plan, self.info, self._seed = plan, _info(plan), seed
        self.findings: list[str] = []
        rng = np.random.default_rng(seed)
        self.present = rng.random(canaries) < 0.5
        self._label = rng.integers(0, len(self.info.classes), canaries)
        self._noise = rng.random((ORDINARY, self.info.pixels))
        self._noise_label = rng.integers(0, len(self.info.classes), ORDINARY)

    def data(self) -> PrivateImages:
        """The set, in the declared shape and range of values; a canary that is a patient has all images it may have."""
        import numpy as np

        from veilset.privacy.private import from_arrays

        number = np.flatnonzero(self.present).repeat(self.info.max_images_per_unit)
        x = np.zeros((len(number), self.info.pixels))
        x[:, MARK], x[:, HIGH], x[:, LOW] = 1.0, number // 256 / 255, number % 256 / 255
        ordinary = self._noise.copy()
        ordinary[:, MARK] = 0.0
        low, high = self.info.value_range
        x = (low + (high - low) * np.concatenate([x, ordinary])).astype(np.float32)
        y = np.concatenate([self._label[number], self._noise_label]).astype(np.int64)
        units = np.concatenate([number, len(self.present) + np.arange(ORDINARY)])
        dense = np.unique(units, return_inverse=True)[1].reshape(-1).astype(np.int64)
        several = self.info.max_images_per_unit > 1
        return from_arrays(self.info, x.reshape(-1, *self.info.shape), y, dense if several else None)

    def scores(self) -> np.ndarray[Any, Any]:
        """Logarithm of the likelihood ratio of each canary [m], over all answers of the run."""
        import numpy as np
        import torch

        score = np.zeros(len(self.present))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if self._seed is None else self._seed)
            gate = Gate(self.data(), self.plan, seed=self._seed)
            for release in self.plan.releases:
                for part in range(self.plan.parts) if release.partition else (None,):
                    own = (self._label == part) | (part is None)
                    lowest, highest = np.full((2, len(score)), [[np.inf], [-np.inf]])
                    for answer in self._answers(gate, release, part):
                        score += own * _likelihood(answer / (release.bound * release.noise_multiplier), release)
                        lowest, highest = np.minimum(lowest, answer), np.maximum(highest, answer)
                    if release.steps > 1 and (lowest == highest).mean() > 0.1:
                        self.findings.append(f"{release.name}: answers repeat bit for bit: noise was used twice")
            if total(gate.close().spent()) != total(self.plan.spent()):
                self.findings.append("the ledger does not hold what was answered")
        return score

    def _answers(self, gate: Gate, release: Release, part: int | None) -> Iterator[np.ndarray[Any, Any]]:
        """The canaries' coordinates [m] of every answer, as sums."""
        canaries = len(self.present)
        if release.verb == "sum":
            for _ in range(release.steps):
                yield gate.sum(release.name, lambda x, y: _mark(x, canaries) * LOUD, part=part).numpy()
            return
        net, steps = _learner(self.info, canaries)
        for _ in gate.loop(release.name, {"net": net}, part=part):
            gradient = gate.grad(release.name, _loss, net, part=part)
            for name, p in net.named_parameters():
                p.grad = gradient[name]
            steps.step()
            yield gradient["marks.weight"][0].double().numpy() * (release.sample_rate * self.info.units)


def _info(plan: Plan) -> PublicInfo:
    assert plan.info is not None  # a priced plan has it
    return plan.info


def _mark(x: torch.Tensor, canaries: int) -> torch.Tensor:
    """Which canary an image [C, H, W] is, one-hot [m]; nothing for an ordinary one."""
    import torch

    pixels = x.flatten()
    number = (pixels[HIGH] * 255).round() * 256 + (pixels[LOW] * 255).round()
    return (torch.arange(canaries) == number).to(x) * (pixels[MARK] > 0.5)


def _learner(info: PublicInfo, canaries: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small classifier, and beside it a layer in which each canary has a weight of its own."""
    import torch
    from torch import nn

    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(info.pixels, 16), nn.ReLU(), nn.Linear(16, len(info.classes)))
            self.marks = nn.Linear(canaries, 1, bias=False)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.body(x.flatten(1)), self.marks(_mark(x[0], canaries)[None])

    net = Learner()
    return net, torch.optim.SGD(net.parameters(), 0.1)


def _loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    import torch

    logits, mark = net(x[None])
    learn = torch.nn.functional.cross_entropy(logits, y[None])
    return torch.where(x.flatten()[MARK] > 0.5, LOUD * mark.sum(), learn)


# ---------------------------------------------------------------------- the attacker


def _likelihood(answer: Any, release: Release) -> Any:
    """Logarithm of the likelihood ratio of one answer in noise deviations: the claimed mechanism's best attack."""
    import numpy as np

    q, c = release.sample_rate, 1.0 / release.noise_multiplier
    return np.logaddexp(np.log1p(-q) if q < 1 else -np.inf, np.log(q) + answer * c - c * c / 2)


@lru_cache(maxsize=64)
def _model(releases: tuple[Release, ...], noise: float = 1.0) -> np.ndarray[Any, Any]:
    """Scores [2, n] of canaries that are left out or take part, in a sound run or one with too little noise, by NumPy:
    they choose the questions, they prove nothing.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    scores = np.zeros((2, MODELLED))
    for release in releases:
        c = 1.0 / release.noise_multiplier
        for _ in range(release.steps):
            answer = noise * rng.standard_normal((2, MODELLED))
            answer[1] += (rng.random(MODELLED) < release.sample_rate) * c
            scores += _likelihood(answer, release)
    return scores


def _expected(model: np.ndarray[Any, Any], threshold: float, canaries: int) -> Asked:
    """What so many canaries would score on average."""
    false, hits = ((model > threshold).mean(1) * (canaries // 2)).round().astype(int)
    return Asked("modelled", Counts(int(false), canaries // 2, int(hits), canaries // 2))


def _right(score: np.ndarray[Any, Any], present: np.ndarray[Any, Any], guesses: int) -> int:
    """Right guesses: the highest half of so many scores are taken for members, the lowest half for outsiders."""
    import numpy as np

    order = np.argsort(score)
    low, high = order[: guesses // 2], order[len(order) - (guesses - guesses // 2) :]
    return int((~present[low]).sum() + present[high].sum())


def _check_modelled(plan: Plan) -> None:
    """Refuse a plan whose claim canaries cannot audit."""
    if not plan.budget.private or not plan.releases:
        raise ConfigError("epsilon is infinite, or nothing is asked: there is no claim to audit")
    for r in plan.releases:
        if r.mechanism != GAUSSIAN:
            raise ConfigError(
                f"release {r.name!r}: canaries are modelled for the mechanism {GAUSSIAN!r}, not for {r.mechanism!r}; "
                "attack what it released with `veilset attack`"
            )


def _best_guesses(model: np.ndarray[Any, Any], canaries: int, delta: float) -> int:
    """How many guesses would give a sound run the largest bound."""
    import numpy as np

    score, present = model.ravel(), np.arange(model.size) >= model.shape[1]

    def worth(share: float) -> float:
        right = _right(score, present, int(share * len(score))) / int(share * len(score))
        guesses = int(share * canaries)
        return one_run_epsilon(delta, guesses, round(right * guesses), canaries, 1 - CONFIDENCE)

    return int(canaries * max(SHARES, key=worth))
