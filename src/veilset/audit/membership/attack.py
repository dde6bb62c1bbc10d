"""Membership inference against a run: can its members be told from real outsiders?

Gandhi and Viradiya asked this and distrusted their answer; docs/membership.md says why it was wrong.
Here members and outsiders are real records of one distribution, shadow models show what training does to a record, and
three controls go through the same code as the result:

* never trained: a model that is fitted on half of the members is asked about the other half. They and the outsiders
  must look alike to it. If they surely do not, they differ by something else than training, as two scanners or years
  do, and the attack is not valid; if AUC 0.5 is outside the 95 % interval only, which chance does once in twenty
  times, the attack is in doubt, and its verdict says so;
* leaky: the same release with its members appended. They must be found (AUC near 1); if not, the attack is blind;
* the run itself: the figures.

It needs private exact access: research mode only. No figure of it is a release.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from veilset.audit.membership.attacks import HEADLINE, Array, Shadows, attacks
from veilset.audit.membership.figures import Figures, curve, figures
from veilset.audit.membership.records import Pool, make_pool, open_run, private_images, records_of
from veilset.core.errors import ConfigError

if TYPE_CHECKING:
    from veilset.audit.membership.features import Candidates
    from veilset.core.types import Images
    from veilset.methods.base import Synthesizer

DOUBT = 1e-4  # chance of a false verdict, over all attacks together
FOUND = 0.95  # AUC of the leaky control from which on an attack counts as able to see
FEWEST_SHADOWS = 4
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One attack: its figures on the run and on both controls, and whether it is valid."""

    name: str
    run: Figures
    never_trained: Figures
    leaky: Figures
    valid: bool
    curves: Mapping[str, list[list[float]]]

    @property
    def doubtful(self) -> bool:
        """Valid, for chance may do it, but the control's 95 % interval excludes 0.5."""
        return self.valid and not self.never_trained.low <= 0.5 <= self.never_trained.high


@dataclass(frozen=True)
class Membership:
    """What `attack` returns.

    Attributes:
        facts: what was attacked and with what, as JSON.
        results: one per attack; `headline` is the one that stands for the run, fixed in advance.
        repeats: AUC of that attack on each shadow model by others, members and outsiders by lot; none below 6 shadows.
        ok: the headline attack is valid and sees, and no valid attack finds more than the claim allows.
        verdict: the same in a sentence.
    """

    facts: dict[str, Any]
    results: tuple[Result, ...]
    repeats: tuple[float, ...]
    ok: bool
    verdict: str
    claim: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Result:
        """The attack that stands for the run."""
        return next(r for r in self.results if r.name == HEADLINE)

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset attack --json`."""
        from veilset.audit.membership.rendering import as_json

        return as_json(self)

    def __str__(self) -> str:
        from veilset.audit.membership.rendering import as_table

        return as_table(self)


@dataclass(frozen=True)
class View:
    """What one attack sees, and who counts: the run or a control.

    Attributes:
        x: features of all candidates [n, F] under the model that is asked.
        shadows: the shadow models beside it.
        member, outsider: bool [n], whose scores are compared.
    """

    x: Array
    shadows: Shadows
    member: Array
    outsider: Array

    def scores(self) -> dict[str, tuple[Array, Array]]:
        """Of every attack: scores of members and of outsiders."""
        return {name: (s[self.member], s[self.outsider]) for name, s in attacks(self.x, self.shadows).items()}


def attack(
    folder: str | Path,
    *,
    outsiders: str | None = None,
    targets: int = 5000,
    shadows: int = 8,
    images: int = 10_000,
    seed: int = 0,
    drop_duplicates: bool = False,
    tell: Tell | None = None,
) -> Membership:
    """Attack a run that was made in research mode.

    Args:
        folder: run folder.
        outsiders: name or path of a set whose training records were not in the run; None: the test split of its set.
        targets: members asked about, at most; and as many outsiders.
        shadows: models of the same method, parameters and budget that are fitted for the attack; even, at least 4.
        images: drawn from the run's model and from each shadow model.
        seed: of all choices made here.
        drop_duplicates: leave out outsiders that equal a member, instead of refusing.
        tell: gets a line before each step of work.

    Raises:
        RunError, ModeError, DataError, ConfigError: as `open_run`, `records_of`, `make_pool` and `against` say.

    Examples:
        >>> spec = vs.RunSpec(method="dp-moments", data="digits", epsilon=1.0, seed=0, params={"basis_size": 20})
        >>> run = vs.execute(spec, "attacked")
        >>> vs.attack("attacked", targets=100, shadows=4, images=200).ok
        True
    """
    run = open_run(Path(folder))
    _check(shadows, images, targets)
    members, strangers, origin = records_of(run, outsiders)
    pool = make_pool(members, strangers, origin, targets=targets, seed=seed, drop_duplicates=drop_duplicates)
    return against(run.model, run.folder, pool, shadows=shadows, images=images, seed=seed, tell=tell)


def against(
    model: Synthesizer, folder: Path, pool: Pool, *, shadows: int, images: int, seed: int, tell: Tell | None = None
) -> Membership:
    """Attack a model that was fitted on the first half of a pool's candidates and on its rest.

    Args:
        model: fitted in research mode. folder: where it was fitted.
        pool: the candidates.
        shadows, images, seed, tell: as in `attack`.
    """
    from veilset.audit.membership.features import Candidates

    _check(shadows, images, len(pool.candidates))
    tell = tell or (lambda line: None)
    them, lot = Candidates.of(pool.candidates), np.random.default_rng(seed)
    asked = np.arange(len(pool.candidates)) < pool.each
    tell("the run")
    names, seen, leaked = _features(model, folder, pool, them, asked, images, seed)
    known = control(pool.each, lot)
    inside = np.concatenate([halves(pool.each, shadows, lot), known[None]])
    honest, leaky = [], []
    for s, mine in enumerate(inside):
        tell(f"shadow model {s + 1} of {shadows}" if s < shadows else "control model")
        with tempfile.TemporaryDirectory() as tmp:
            shadow = _shadow(model, pool, mine, Path(tmp), seed + 1 + s)
            _, x, y = _features(shadow, Path(tmp), pool, them, mine, images, seed + 1 + s)
        honest.append(x)
        leaky.append(y)
    tell("attacks")
    shadow_set = Shadows(names, np.stack(honest[:shadows]), inside[:shadows])
    views = {
        "run": View(seen, shadow_set, asked, ~asked),
        "never_trained": View(honest[shadows], shadow_set, asked & ~known, ~asked),
        "leaky": View(leaked, replace(shadow_set, x=np.stack(leaky[:shadows])), asked, ~asked),
    }
    return _judge(model, pool, views, images, seed)


def halves(each: int, shadows: int, lot: np.random.Generator) -> Array:
    """Which candidates each shadow model is trained on: bool [S, 2 each], in complementary pairs.

    A model gets `each` candidates, as the run did: half of the members and half of the outsiders, by lot. The next one
    gets the others. So every candidate is in half of the models, and exactly one of each pair has never seen it.
    """
    inside = np.zeros((shadows, 2 * each), dtype=bool)
    for s in range(0, shadows, 2):
        members, outsiders = lot.permutation(each), each + lot.permutation(each)
        inside[s, members[: each // 2]] = True
        inside[s, outsiders[: each - each // 2]] = True
        inside[s + 1] = ~inside[s]
    return inside


def control(each: int, lot: np.random.Generator) -> Array:
    """Which candidates the control model is trained on: bool [2 each], half of the members, by lot.

    As the run, it is trained on members only: were it trained on outsiders too, as shadow models are, it could not
    notice that the two kinds differ. There is one, and not one for each half: the scores of two that are asked about
    each other's members are not independent, and the interval would be too narrow.
    """
    inside = np.zeros(2 * each, dtype=bool)
    inside[lot.permutation(each)[: each // 2]] = True
    return inside


def _check(shadows: int, images: int, targets: int) -> None:
    if shadows < FEWEST_SHADOWS or shadows % 2:
        raise ConfigError(f"shadows = {shadows}: must be even and at least {FEWEST_SHADOWS}; they come in pairs")
    for name, value in (("images", images), ("targets", targets)):
        if value < 1:
            raise ConfigError(f"{name} = {value}: must be at least 1")


def _shadow(model: Synthesizer, pool: Pool, inside: Array, folder: Path, seed: int) -> Synthesizer:
    """A model of the same method, parameters and budget, fitted on other candidates and the members not asked about."""
    import torch

    from veilset.core.types import Images
    from veilset.privacy.spec import Privacy

    assert model.receipt_ is not None and model.info_ is not None
    facts = model.receipt_.facts
    asked = pool.candidates[torch.from_numpy(inside)]
    records = Images(torch.cat([pool.rest.x, asked.x]), torch.cat([pool.rest.y, asked.y]), asked.classes)
    # The control model has fewer records than the run; declare so many fewer.
    units = max(1, round(model.info_.units * len(records) / (pool.each + len(pool.rest))))
    info = replace(model.info_, units=units)
    budget = facts["epsilon_budget"]
    privacy = Privacy(float("inf") if budget is None else budget, facts["delta"], facts["large_delta"])
    fresh = type(model)(**model.modern(facts["config"], tell=False))
    return fresh.fit(private_images(records, info), privacy, seed=seed, folder=folder)


def _features(
    model: Synthesizer, folder: Path, pool: Pool, them: Candidates, inside: Array, images: int, seed: int
) -> tuple[tuple[str, ...], Array, Array]:
    """Names of the features, their values [n, F] under a release, and under the same with its members appended."""
    from veilset.audit.membership.models import model_features

    own = model_features(model, folder, them)
    released = model.sample(images, seed=seed)
    tables = [_table(each, own, them) for each in (released, with_members(released, pool, inside))]
    return tables[0][0], tables[0][1], tables[1][1]


def _table(released: Images, own: dict[str, Any], them: Candidates) -> tuple[tuple[str, ...], Array]:
    from veilset.audit.membership.features import image_features

    found = image_features(released, them) | own
    return tuple(found), np.stack([v.numpy() for v in found.values()], axis=1)


def with_members(released: Images, pool: Pool, inside: Array) -> Images:
    """The deliberately leaky release: what was drawn, and behind it the candidates that the model was trained on."""
    import torch

    leaked = pool.candidates[torch.from_numpy(inside)]
    return replace(
        released, x=torch.cat([released.x, leaked.x]), y=torch.cat([released.y, leaked.y]), reads_private=True
    )


# ---------------------------------------------------------------------- what the features say


def _judge(model: Synthesizer, pool: Pool, views: dict[str, View], images: int, seed: int) -> Membership:
    """Run every attack on the run and on both controls, by the same function, and compare with the claim.

    Args:
        views: "run", "never_trained", "leaky".
        model, pool, images, seed: what was attacked.
    """
    scores = {name: view.scores() for name, view in views.items()}
    shadows = views["run"].shadows
    error = DOUBT / len(scores["run"])
    results = tuple(_result(name, {k: v[name] for k, v in scores.items()}, error) for name in scores["run"])
    claim = allowed(model)
    above = [r.name for r in results if r.valid and _above(scores["run"][r.name], claim, error)]
    headline = next(r for r in results if r.name == HEADLINE)
    ok, verdict = _verdict(headline, above)
    assert model.receipt_ is not None
    facts = {
        "method": model.name,
        "data": model.receipt_.facts["data"]["name"],
        "candidates": pool.each,
        "trained_on": pool.each + len(pool.rest),
        "outsiders_from": pool.origin,
        "near_duplicates": pool.near,
        "dropped_duplicates": pool.dropped,
        "shadows": len(shadows.x),
        "images": images,
        "seed": seed,
    }
    return Membership(facts, results, by_lot(shadows), ok, verdict, claim)


def by_lot(shadows: Shadows) -> tuple[float, ...]:
    """AUC of the headline attack on each shadow model by the others but its complement; needs four of those."""
    if len(shadows.x) < FEWEST_SHADOWS + 2:
        return ()
    out = []
    for s, (x, inside) in enumerate(zip(shadows.x, shadows.inside, strict=True)):
        score = attacks(x, shadows.without(s, s ^ 1))[HEADLINE]
        out.append(figures(score[inside], score[~inside]).auc)
    return tuple(out)


def _result(name: str, scores: dict[str, tuple[Array, Array]], error: float) -> Result:
    wide = figures(*scores["never_trained"], error)
    three = {k: figures(*s) for k, s in scores.items()}
    curves = {k: curve(*s) for k, s in scores.items()}
    return Result(name, **three, valid=wide.low <= 0.5 <= wide.high, curves=curves)


def allowed(model: Synthesizer) -> dict[str, Any]:
    """What the claim lets the best attacker find, by the ledger's own trade-off curve; nulls without a claim.

    It bounds an attacker who knows all other records and asks about one. The mean over candidates obeys it too, up to
    the difference between a set of N records and one of N - 1.
    """
    from veilset.audit.membership.figures import FALSE_ALARMS
    from veilset.privacy.accounting import true_positive_rate
    from veilset.privacy.ledger import Ledger, parse

    assert model.receipt_ is not None
    facts = model.receipt_.facts
    if facts["epsilon"] is None:
        return {"epsilon": None, "delta": facts["delta"], "auc": None, "tpr": None, "curve": None}
    ledger = Ledger()
    ledger.lines = list(parse(model.ledger))
    spent = ledger.spent()
    f = np.geomspace(1e-3, 1, 31)
    t = np.array([1.0 if a == 1 else true_positive_rate(spent, float(a)) for a in f])
    # Rates rise, so the value at the right end of each piece bounds the area above.
    area = float(f[0] * t[0] + (np.diff(f) * t[1:]).sum())
    return {
        "epsilon": facts["epsilon"],
        "delta": facts["delta"],
        "auc": min(1.0, area),
        "tpr": [true_positive_rate(spent, a) for a in FALSE_ALARMS],
        "curve": [[round(float(a), 6), round(float(b), 6)] for a, b in zip(f, t, strict=True)],
    }


def _above(scores: tuple[Array, Array], claim: dict[str, Any], error: float) -> bool:
    """Whether a score finds more members than the claim allows, beyond doubt."""
    if claim["epsilon"] is None:
        return False
    sure = figures(*scores, error)
    rates = [r.low is not None and r.low > most for r, most in zip(sure.rates, claim["tpr"], strict=True)]
    return sure.low > claim["auc"] or any(rates)


def _verdict(r: Result, above: list[str]) -> tuple[bool, str]:
    if not r.valid:
        return False, (
            f"NOT VALID: a model that was trained on neither kind tells them apart (AUC {r.never_trained.auc:.3f}), so "
            "members and outsiders differ by more than training; take outsiders of the same distribution"
        )
    if r.leaky.auc < FOUND:
        return False, f"BLIND: the attack misses members that were released as they are (AUC {r.leaky.auc:.3f})"
    if above:
        return False, f"ABOVE THE CLAIM: {', '.join(above)} found more members than the claim allows; look for a bug"
    span = f"AUC {r.run.auc:.3f}, 95 % interval {r.run.low:.3f} to {r.run.high:.3f}"
    if r.run.low > 0.5:
        return True, f"MEMBERS ARE FOUND better than by guessing ({span}){_doubt(r)}"
    said = f"no membership was found by these attacks ({span}); that is no proof of privacy, the claim is"
    return True, said + _doubt(r)


def _doubt(r: Result) -> str:
    if not r.doubtful:
        return ""
    c = r.never_trained
    return (
        f". IN DOUBT: the control that was trained on neither kind has AUC {c.auc:.3f} ({c.low:.3f} to "
        f"{c.high:.3f}), without 0.5: members and outsiders may differ by more than training; repeat with another seed"
    )
