"""The mechanism audit: ask the real gate thousands of times about worst-case neighbours, and compare what an attacker
sees with what the accountant admits.

Questions are fixed in advance: statistics of the answers, and thresholds at quantiles of a sound mechanism. The printed
bound rests on one threshold of the likelihood ratio. The verdict rests on all questions: whether any pair of rates lies
above the accountant's trade-off curve, at a family-wise error that is shared out in advance too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from veilset.audit.bounds import Counts, Tradeoff, dp_epsilon, gaussian_dp_epsilon, lower_rate, upper_rate
from veilset.audit.mechanism.neighbours import PIXELS, Neighbours, catalogue
from veilset.audit.verdict import CONFIDENCE, FAMILY_ERROR, Check
from veilset.core.errors import BudgetExceeded, ConfigError, PlanError, suggest
from veilset.privacy.accounting import Spent
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    import numpy as np

    Worlds = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # a statistic without and with the record

FEWEST, MOST = 1000, 16_000  # draws, if they are not given
BLOCK = 50  # draws that share a gate, and so its key
QUANTILES = (0.002, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.998)
MODELLED = 20_000  # draws of the sound mechanism that choose thresholds, and tell what a fault would look like
THREAT = (
    "the attacker knows every other record, chooses the record in question and the function that is summed, and sees "
    "each noisy answer of the gate"
)
PRIMARY = "likelihood ratio"


def verbs() -> tuple[str, ...]:
    """The names that `audit` takes."""
    return tuple(catalogue())


def audit(
    verb: str,
    *,
    epsilon: float = 4.0,
    delta: float = 1e-5,
    draws: int | None = None,
    seed: int | None = None,
    checks: int = 1,
) -> Check:
    """Attack one verb of the gate.

    Args:
        verb: one of `verbs()`.
        epsilon, delta: the claim; the gate's noise is priced for it as for any plan.
        draws: asks with the record, and as many without; None: 1000, or twice, four times, ... as many until half of
            the noise missing would be seen, up to 16,000.
        seed: None for release mode, as users run it; an integer repeats the audit.
        checks: how many checks share the family-wise error.

    Raises:
        ConfigError: unknown verb, or fewer than 2 draws.
    """
    if verb not in catalogue():
        raise ConfigError(
            f"verb {verb!r} is not one of the gate's.{suggest(verb, verbs())} Known: {', '.join(verbs())}"
        )
    if draws is not None and draws < 2:
        raise ConfigError(f"draws = {draws}: must be at least 2; 1000 takes a second or two")
    pair = catalogue()[verb]
    plan = priced(pair, epsilon, delta)
    claim, release = plan.claim().epsilon, plan.releases[0]
    curve, alpha = _curve(pair, release), FAMILY_ERROR / checks
    question = Questions(pair, release, delta)
    if draws is None:
        draws = next((n for n in doubled(FEWEST, MOST) if enough(question, n, alpha)), MOST)
    absent, books = collect(pair, plan, False, draws, seed)
    present, more = collect(pair, plan, True, draws, seed)
    asked = question.ask(fixed(question, draws), absent, present)
    findings = [
        *dict.fromkeys([*books, *more, *_repeated(absent, present)]),
        *excess(curve, asked, shares(len(asked), alpha)),
    ]
    return Check(
        name=verb,
        threat_model=THREAT,
        claim=claim,
        delta=delta,
        lower_bound=question.bound(asked[0].counts),
        draws=draws,
        findings=tuple(findings),
        enough=enough(question, draws, alpha),
        method="Gaussian DP and Clopper-Pearson" if curve.gaussian else "Clopper-Pearson",
        details=(
            ("neighbours", pair.words),
            ("noise_multiplier", release.noise_multiplier),
            ("roc", _roc(curve, asked)),
        ),
    )


def doubled(start: int, end: int) -> Iterator[int]:
    """start, twice, four times, ... as much, up to end."""
    while start <= end:
        yield start
        start *= 2


@lru_cache(maxsize=256)
def _curve(pair: Neighbours, release: Release) -> Tradeoff:
    return Tradeoff(release.spent(release.noise_multiplier / release.weight, len(pair.parts)))


# ---------------------------------------------------------------------- asking the gate


@lru_cache(maxsize=256)
def priced(pair: Neighbours, epsilon: float, delta: float) -> Plan:
    """The plan of one draw, its noise set as for any user's plan. A sampled one takes a second to price."""
    return Plan((pair.release,)).price(Privacy(epsilon, delta, True), pair.info)


def collect(
    pair: Neighbours, plan: Plan, present: bool, draws: int, seed: int | None
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Ask the gate `draws` times about one of two neighbours.

    Returns:
        Answers [draws, asks, d] in noise deviations, and inconsistencies in its ledger.
    """
    import numpy as np
    import torch

    out: list[Any] = []
    findings: list[str] = []
    data = pair.data(present)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        answers = -(-draws // pair.copies)
        for block, start in enumerate(range(0, answers, BLOCK)):
            count = min(BLOCK, answers - start)
            # A gate's plan may be asked for every draw; its noise stays that of one. The budget of so many draws is
            # not this audit's question, so it is left open.
            release = replace(plan.releases[0], steps=plan.releases[0].steps * count)
            many = replace(plan, releases=(release,), privacy=Privacy(float("inf"), 0.5, True))
            gate = Gate(data, many, seed=None if seed is None else 2 * (seed * 1_000_003 + block) + present)
            for _ in range(count):
                asks = [pair.answer(gate, release, part) for _ in range(plan.releases[0].steps) for part in pair.parts]
                out.append(torch.stack(asks, 1).numpy())
            findings += _inconsistencies(pair, gate, release)
    return np.concatenate(out)[:draws], findings


def _inconsistencies(pair: Neighbours, gate: Gate, release: Release) -> Iterator[str]:
    """What an honest gate never shows at the end of its plan."""
    charged = gate.ledger.spent()
    asked = release.spent(release.noise_multiplier / release.weight, len(pair.parts))
    if total(charged) != total(asked):
        yield "the ledger does not hold what was answered"
    for name, part in ((release.name, pair.parts[0]), ("unplanned", None)):
        try:
            pair.ask(gate, replace(release, name=name), part)
        except (BudgetExceeded, PlanError):
            continue
        yield (
            "the gate answers more often than planned"
            if name == release.name
            else "the gate answers what was not planned"
        )


def _repeated(*worlds: np.ndarray[Any, Any]) -> Iterator[str]:
    """Noise that is missing or used again. A sound answer is never the same twice; one float32 of it may be, seldom."""
    import numpy as np

    rows = np.concatenate([w.reshape(-1, w.shape[2]) for w in worlds])
    distinct = min(len(np.unique(column)) for column in rows.T)
    if len(np.unique(rows, axis=0)) < len(rows) or distinct < 0.9 * len(rows):
        yield "answers repeat bit for bit: noise is missing, or was used twice"


def total(spent: Sequence[Spent]) -> dict[Any, int]:
    """Steps of each kind of release, to compare a ledger with what was asked."""
    steps: dict[Any, int] = {}
    for s in spent:
        key = replace(s, steps=1)
        steps[key] = steps.get(key, 0) + s.steps
    return steps


# ---------------------------------------------------------------------- what is made of the answers


@dataclass(frozen=True)
class Questions:
    """Statistics and thresholds for one pair of neighbours, from public facts only."""

    pair: Neighbours
    release: Release
    delta: float

    def model(self, present: bool, noise: float = 1.0) -> np.ndarray[Any, Any]:
        """Answers of a sound mechanism (or one with too little noise), by NumPy: they choose, they prove nothing."""
        import numpy as np

        rng = np.random.default_rng(17 + present)
        asks = self.release.steps * len(self.pair.parts)
        answers = noise * rng.standard_normal((MODELLED, asks, PIXELS))
        if present and self.pair.signal:
            own = np.arange(asks) % len(self.pair.parts) == 0
            answers[:, :, 0] += own * (rng.random((MODELLED, asks)) < self.release.sample_rate) * self._shift
        return answers

    def bound(self, counts: Counts) -> float:
        """The lower bound on epsilon that is printed; a Gaussian's only where the mechanism is claimed to be one."""
        low = dp_epsilon(counts, self.delta, 1 - CONFIDENCE)
        gaussian = self.release.sample_rate == 1
        return max(low, gaussian_dp_epsilon(counts, self.delta, 1 - CONFIDENCE)) if gaussian else low

    @property
    def _shift(self) -> float:
        """How far the record moves an answer, in noise deviations."""
        return 1.0 / self.release.noise_multiplier

    def likelihood(self, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Logarithm of the likelihood ratio of the mechanism that is claimed [draws]: the best attack on it."""
        import numpy as np

        q, c, own = self.release.sample_rate, self._shift, answers[:, :: len(self.pair.parts), 0]
        with np.errstate(over="ignore", divide="ignore"):
            return np.logaddexp(np.log1p(-q) if q < 1 else -np.inf, np.log(q) + own * c - c * c / 2).sum(1)

    def statistics(self, answers: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Further questions, each blind to a sound mechanism beyond its curve, and sharp for some fault.

        Args:
            answers: [n, asks, d]. other: [n, asks, d] answers without the record, independent of them.
        """
        own = answers[:, :, 0]
        found = {
            "every answer": own.sum(1),  # a part or step that should not have held the record
            "bystanders": (answers[:, :, 1:] ** 2).mean((1, 2)),  # noise or a divisor that depends on the record
            "against a bystander": (own - answers[:, :, 1]).mean(1),  # noise shared within an answer
            "against another run": own[:, 0] - other[:, 0, 0],  # noise repeated between runs
        }
        if own.shape[1] > 1:
            found["between answers"] = own.max(1) - own.min(1)  # noise shared between answers
        return found

    def ask(
        self, fixed: Sequence[tuple[str, float]], absent: np.ndarray[Any, Any], present: np.ndarray[Any, Any]
    ) -> list[Asked]:
        """What the fixed questions score."""
        found = self.paired(absent, present)
        return [Asked(name, count(*found[name], threshold)) for name, threshold in fixed]

    def halved(self, fixed: Sequence[tuple[str, float]], draws: int) -> list[Asked]:
        """What the questions would score, on average, if the noise were half of what is claimed."""
        found = self.paired(self.model(False, 0.5), self.model(True, 0.5))
        out = []
        for name, threshold in fixed:
            c = count(*found[name], threshold)
            rates = c.false_alarms / c.absent, c.hits / c.present
            out.append(Asked(name, Counts(round(rates[0] * draws), draws, round(rates[1] * draws), draws)))
        return out

    def paired(self, absent: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> dict[str, Worlds]:
        """Statistics without and with the record; of the draws without it half serve for comparison."""
        one, two = _pairs(len(absent))
        without = self.statistics(absent[one], absent[two])
        with_ = self.statistics(present, absent)
        ratio = {PRIMARY: (self.likelihood(absent), self.likelihood(present))}
        return ratio | {name: (without[name], with_[name]) for name in without}

    def best(self, absent: np.ndarray[Any, Any], present: np.ndarray[Any, Any], draws: int) -> float:
        """The threshold that would give the largest bound on a sound mechanism with so many draws."""
        import numpy as np

        places = np.quantile(np.concatenate([absent, present]), np.linspace(0.02, 0.98, 49))

        def worth(threshold: float) -> float:
            c = count(absent, present, threshold)
            fpr, tpr = c.false_alarms / c.absent, c.hits / c.present
            return self.bound(Counts(round(fpr * draws), draws, round(tpr * draws), draws))

        return float(max(places, key=worth))


def _pairs(n: int) -> tuple[Any, Any]:
    """Disjoint pairs of draws of one world, at the same place in neighbouring gates: repeated noise meets itself."""
    import numpy as np

    place = np.arange(n)
    even = (place // BLOCK % 2 == 0) & (place + BLOCK < n)
    first = place[even] if even.any() else place[: n // 2]
    return (first, first + BLOCK) if even.any() else (first, first + n // 2)


def _roc(curve: Tradeoff, asked: Sequence[Asked]) -> list[list[float]]:
    """[false-positive rate, true-positive rate, largest admitted] of the likelihood ratio, threshold by threshold."""
    rates = [
        (a.counts.false_alarms / a.counts.absent, a.counts.hits / a.counts.present) for a in asked if a.name == PRIMARY
    ]
    return [[fpr, tpr, float(curve(fpr))] for fpr, tpr in rates]


def count(absent: np.ndarray[Any, Any], present: np.ndarray[Any, Any], threshold: float) -> Counts:
    """Draws above the threshold, as an attack's counts; what is not a number counts as above."""
    return Counts(int((~(absent <= threshold)).sum()), len(absent), int((~(present <= threshold)).sum()), len(present))


@lru_cache(maxsize=256)
def fixed(question: Questions, draws: int) -> tuple[tuple[str, float], ...]:
    """The questions and their thresholds, the primary one first; made from public facts only."""
    import numpy as np

    sound = question.paired(question.model(False), question.model(True))
    others = [
        (name, float(threshold))
        for name, worlds in sound.items()
        for threshold in np.quantile(np.concatenate(worlds), QUANTILES)
    ]
    return ((PRIMARY, question.best(*sound[PRIMARY], draws)), *others)


@lru_cache(maxsize=256)
def enough(question: Questions, draws: int, alpha: float) -> bool:
    """Whether so many draws would, on average, see half of the noise missing (or a record that must not show)."""
    asked = fixed(question, draws)
    shown = question.halved(asked, draws) if question.pair.signal else [no_errors(draws)] * len(asked)
    return bool(excess(_curve(question.pair, question.release), shown, shares(len(asked), alpha)))


@dataclass(frozen=True)
class Asked:
    """A question and what it scored."""

    name: str
    counts: Counts


def no_errors(draws: int) -> Asked:
    """What an attack that is always right would score."""
    return Asked("no errors", Counts(0, draws, draws, draws))


def excess(curve: Tradeoff, asked: Sequence[Asked], alpha: Sequence[float]) -> list[str]:
    """Questions whose rates no mechanism below the curve has; a sound one is named with probability sum(alpha) at most.

    Each is looked at from both sides (yes for hits, no for hits), so four limits share its alpha.
    """
    import numpy as np

    out = []
    for question, a in zip(asked, alpha, strict=True):
        c = question.counts
        fpr = np.array(
            [upper_rate(c.false_alarms, c.absent, a / 4), upper_rate(c.absent - c.false_alarms, c.absent, a / 4)]
        )
        tpr = np.array([lower_rate(c.hits, c.present, a / 4), lower_rate(c.present - c.hits, c.present, a / 4)])
        if (tpr > curve(fpr)).any():
            rates = c.false_alarms / c.absent, c.hits / c.present
            out.append(
                f"{question.name}: yes in {rates[0]:.1%} of draws without the record and {rates[1]:.1%} with it; "
                "no mechanism with this claim does that"
            )
    return out


def shares(count: int, alpha: float) -> list[float]:
    """The error of each question: half for the first, the rest in equal parts."""
    return [alpha / 2] + [alpha / 2 / (count - 1)] * (count - 1) if count > 1 else [alpha]
