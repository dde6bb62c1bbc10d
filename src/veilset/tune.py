"""A hyper-parameter search with a price: a random number of private trials, of which only the best one leaves.

Papernot and Steinke 2022 ("Hyperparameter tuning with Renyi differential privacy", arXiv 2110.03620): each trial draws
a candidate by public coins, fits it, and scores it; after each trial the search ends with probability 1 / trials (their
Theorem 2 with eta = 1). Only the best trial's model leaves, with its score; how many trials there were, and what the
others gave, is neither kept nor printed. The price is that of the whole search, by RDP; it is known, and drawn from the
account if there is one, before a record is read. A search that is interrupted stays spent, and has to be started anew.

Scores, of a logistic regression trained on images that the trial's model draws:
  paid-accuracy      share of private training images that it classifies well, with noise, through the trial's own gate
  synthetic-holdout  share of other images of the same model that it classifies well: free, reads nothing private, and
                     likes models whose classes are easy to tell apart, whether or not they look like the private ones
A public test split is never used: what was chosen by it could not be measured on it.

Examples:
    >>> grid = {"basis_size": [10, 20]}
    >>> priced = vs.tune.price(vs.tune.Tuning(method="dp-moments", data="digits", epsilon=3.0, grid=grid, trials=2))
    >>> priced.epsilon <= 3.0  # of the whole search
    True
    >>> model, score = vs.tune(priced, "tuned")
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, RunError
from veilset.core.facts import check_tested
from veilset.core.modules import called
from veilset.core.rendering import as_html
from veilset.privacy.account import Account, Payment, check_mode
from veilset.privacy.accounting import Search, gaussian_noise_multiplier, search_claim
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images, PublicInfo
    from veilset.methods.base import Synthesizer
    from veilset.privacy.session import Session

called(__name__, __name__, "tune")  # `veilset.tune(priced, out)` is the search

SCORES = ("paid-accuracy", "synthetic-holdout")
SCORE = "tune-score"  # name of the release
CHEAP = 4.0  # noise of the score, relative to that of one Gaussian at a trial's epsilon: about 1/16 of its cost
IMAGES = 5000  # drawn to train the judge
MOST = 1000  # candidates


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Everything that decides a search.

    Attributes:
        method: a name in `veilset.methods()`.
        data: a built-in name or a path.
        epsilon, delta, allow_large_delta: the budget of the whole search.
        grid: parameter -> the values to try; every combination is a candidate.
        trials: mean number of trials.
        score: one of SCORES.
        seed: None for release mode; an integer for research mode.
        recipe, device: as in `RunSpec`.
        account: file of the set's privacy account, or None.
    """

    method: str
    data: str
    epsilon: float
    delta: float = 1e-5
    allow_large_delta: bool = False
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trials: int = 8
    score: str = SCORES[0]
    seed: int | None = None
    recipe: str | None = None
    device: str = "cpu"
    account: str | None = None

    def __post_init__(self) -> None:
        if type(self.trials) is not int or self.trials < 1:
            raise ConfigError(f"trials = {self.trials!r}: must be a whole number of at least 1, for example 8")
        if self.score not in SCORES:
            raise ConfigError(f"score = {self.score!r}: must be one of {', '.join(SCORES)}")
        if not 1 <= math.prod(len(v) for v in self.grid.values()) <= MOST:
            raise ConfigError(f"grid: must hold 1 to {MOST} candidates; give fewer values")

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of values."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Priced:
    """A search with its price, before any record is read.

    Attributes:
        tuning: what was asked for.
        info: declared facts of the set.
        search: what is paid.
        plans: one per candidate, priced for one trial.
        trial_epsilon: what each trial's own plan was priced for, without its score.
        epsilon: the price of the whole search.
    """

    tuning: Tuning
    info: PublicInfo
    search: Search
    plans: tuple[Plan, ...]
    trial_epsilon: float
    epsilon: float

    def gate_plan(self, trial: Plan) -> Plan:
        """What a trial's gate is opened with: its releases, under the budget and the price of the whole search."""
        t = self.tuning
        return replace(trial, privacy=Privacy(t.epsilon, t.delta, t.allow_large_delta), search=self.search)

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset tune --dry --json`."""
        t = self.tuning
        accuracy = self.plans[0][SCORE].noise_multiplier / self.info.units if t.score == SCORES[0] else None
        seconds = sum(p.seconds for p in self.plans) / len(self.plans) * t.trials
        return {
            "method": t.method,
            "data": self.info.name,
            "candidates": t.candidates(),
            "trials": t.trials,
            "trials_95": math.ceil(math.log(0.05) / math.log1p(-1 / t.trials)) if t.trials > 1 else 1,
            "score": t.score,
            "score_sd": accuracy,
            "trial_epsilon": self.trial_epsilon,
            "epsilon": self.epsilon,
            "delta": t.delta,
            "unit": self.info.unit,
            "seconds": seconds,
        }

    def __str__(self) -> str:
        j = self.to_json()
        noise = "" if j["score_sd"] is None else f", noise ± {100 * j['score_sd']:.2g} points"
        return "\n".join(
            [
                f"search of {j['method']} on {j['data']}: {len(j['candidates'])} candidate(s), drawn at random",
                f"trials   {j['trials']} in the mean, 95 % of searches make at most {j['trials_95']}",
                f"trial    epsilon {j['trial_epsilon']:.4g} and a score ({j['score']}{noise})",
                f"price    epsilon {j['epsilon']:.4f} at delta {j['delta']:g} for the whole search, by RDP, "
                f"unit: {j['unit']}; no record has been read",
                f"about {j['seconds']:.0f} s on two cores in the mean",
            ]
        )

    _repr_html_ = as_html


def price(tuning: Tuning) -> Priced:
    """The price of a search whose trials get as much of the budget as it leaves them; reads the declaration only.

    Raises:
        ConfigError: a parameter is wrong, or the budget is infinite or too small.
    """
    from veilset.data.load import load
    from veilset.methods.catalogue import make, method_class

    whole = Privacy(tuning.epsilon, tuning.delta, tuning.allow_large_delta)
    if not whole.private:
        raise ConfigError("epsilon = inf: a search without a budget has no price; give a finite one")
    info = load(tuning.data).info
    whole.check_units(info.units)
    tuning = replace(tuning, grid=method_class(tuning.method).modern(tuning.grid))
    models = [make(tuning.method, recipe=tuning.recipe, **params) for params in tuning.candidates()]
    trial, best = whole.epsilon / 2.5, None
    for _ in range(12):  # the price is nearly a multiple of the trial's epsilon
        budget = replace(whole, epsilon=trial)
        plans = tuple(_with_score(model.plan(info, budget), tuning.score) for model in models)
        search = Search(tuning.trials, tuple(dict.fromkeys(tuple(p.spent()) for p in plans)))
        epsilon = search_claim(search, whole.delta).epsilon
        if epsilon <= whole.epsilon:
            best = Priced(tuning, info, search, plans, trial, epsilon)
            if epsilon > 0.98 * whole.epsilon:
                break
        trial *= 0.995 * whole.epsilon / epsilon
    if best is None:
        raise ConfigError(f"epsilon = {whole.epsilon:g}: no trial fits into it; give more, or fewer trials")
    return best


def _with_score(plan: Plan, score: str) -> Plan:
    """The plan and, if the score reads private images, its release."""
    if score != SCORES[0]:
        return plan
    noise = CHEAP * gaussian_noise_multiplier(plan.budget.epsilon, plan.budget.delta)
    return replace(plan, releases=(*plan.releases, Release(name=SCORE, noise_multiplier=noise)))


def tune(priced: Priced, out: str | Path) -> tuple[Synthesizer, float]:
    """Search, and write the best trial's model into a new run folder.

    Args:
        priced: what `price` returned.
        out: run folder to make; `sample`, `verify` and `evaluate` take it as they take any run.

    Returns:
        The model, and its score (with its noise, if it has any).

    Raises:
        RunError: the folder exists, or the last self-test failed. BudgetExceeded: the account does not cover the price;
            nothing was read.
        ModeError: an account for a search with a seed. DataError: a file fault.
    """
    from veilset.data.load import load

    t = priced.tuning
    if Path(out).exists():
        raise RunError(f"{out} exists; choose another folder")
    check_tested(t.seed)
    payment = None
    if t.account:
        check_mode(t.seed, Privacy(t.epsilon, t.delta))
        payment = Payment(Account(Path(t.account)), f"tune {t.method}")
    data = load(t.data).train
    data.check()
    if payment:
        payment.make(priced.gate_plan(priced.plans[0]))  # before the first coin: to stop early saves nothing
    coin = random.Random(t.seed) if t.seed is not None else secrets.SystemRandom()
    best: Any = (-math.inf, None, None)
    for number in itertools.count():
        seed = None if t.seed is None else 100_003 * t.seed + number
        best = max(best, _trial(priced, data, coin.randrange(len(priced.plans)), seed, payment), key=lambda b: b[0])
        if coin.randrange(t.trials) == 0:
            break
    score, model, session = best
    model.settle(session)
    model.save(out)
    return model, score


def _trial(
    priced: Priced, data: Any, which: int, seed: int | None, payment: Payment | None
) -> tuple[float, Synthesizer, Session]:
    """Fit one candidate and score it."""
    from veilset.methods.catalogue import make

    t, plan = priced.tuning, priced.plans[which]
    model = make(t.method, recipe=t.recipe, **t.candidates()[which])
    session = model.session(data, priced.gate_plan(plan), seed=seed, device=t.device, payment=payment)
    model.learn(session, plan)
    draw = seed if seed is not None else secrets.randbits(63)
    judge = Judge(model.sample(IMAGES, seed=draw))
    if t.score != SCORES[0]:
        return judge.accuracy(model.sample(IMAGES, seed=draw + 1)), model, session
    right = session.gate.sum(SCORE, lambda x, y: (judge.scores(x).argmax(-1) == y).float()[None])
    return float(right) / priced.info.units, model, session


class Judge:
    """Multinomial logistic regression on pixels, as a linear map that the gate can run on one image.

    Args:
        images: to train on.
    """

    def __init__(self, images: Images):
        import torch

        from veilset.evaluation.training import train_logreg

        model = train_logreg(images, 0)
        rows, shift = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
        if len(rows) == 1:  # two classes share one row
            rows, shift = torch.cat([-rows, rows]) / 2, torch.cat([-shift, shift]) / 2
        self._weight = torch.zeros(len(images.classes), rows.shape[1])
        self._bias = torch.full((len(images.classes),), -torch.inf)
        self._weight[model.classes_], self._bias[model.classes_] = rows, shift

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Images [..., C, H, W] in [0, 1] -> logits [..., K]."""
        return x.flatten(-3).float() @ self._weight.T.to(x.device) + self._bias.to(x.device)

    def accuracy(self, images: Images) -> float:
        """Share of labels that it finds."""
        return (self.scores(images.x.float() / 255).argmax(1) == images.y).double().mean().item()


def facts(priced: Priced, model: Synthesizer, score: float) -> dict[str, Any]:
    """The keys of `veilset tune --json`."""
    assert model.receipt_ is not None
    return {"search": priced.to_json(), "config": asdict(model.config), "score": score, "receipt": model.receipt_.facts}
