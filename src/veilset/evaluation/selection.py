"""Choose one classifier among several without looking at the set it is tested on.

The habit of reporting the best of several classifiers on the test set overstates every figure, and on private test
records it is a disclosure. Three rules are offered: none (every classifier is reported, the default), `synthetic`
(the best on a tenth of the synthetic images that is held out; free), and `private` (the best on private records,
paid for once).

The private rule is a report-noisy-max with one Gaussian answer: each record says for each candidate how often it was
right, minus the mean over candidates. Its L2 norm is at most sqrt(m) / 2 for m candidates, since values of 0 to 1 that
sum to s have squares of at most s, and s - s^2 / m <= m / 4. The whole noisy vector is paid for, so it may be printed
too; what a noisy maximum alone would not allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from veilset.core.errors import ConfigError, DataError, suggest
from veilset.evaluation.protocols import CLASSIFIERS
from veilset.evaluation.registry import Answer, Trial

if TYPE_CHECKING:
    import torch

    from veilset.privacy.account import Account
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import PrivateImages
    from veilset.privacy.receipt import Receipt
    from veilset.privacy.spec import Privacy

HELD_OUT, WHAT, FIGURES = 0.1, "private-selection", "selection.json"


@dataclass(frozen=True)
class Selection:
    """Which rule chooses, among which classifiers, and who pays.

    Attributes:
        rule: "synthetic" or "private".
        candidates: classifiers of `protocols.CLASSIFIERS`, at least two.
        data: private records that choose, for "private".
        privacy: what they may cost; it adds to everything else that is released about them.
        out: folder for ledger and receipt of the choice.
        seed: None for a release; an integer for research, which is stamped NOT A RELEASE.
        account: the privacy account of the set, which pays; None adds to what is spent without an account.
    """

    rule: Literal["synthetic", "private"]
    candidates: tuple[str, ...] = ("logreg", "mlp", "cnn")
    data: PrivateImages | None = None
    privacy: Privacy | None = None
    out: Path | None = None
    seed: int | None = None
    account: Account | None = None

    def __post_init__(self) -> None:
        if self.rule not in ("synthetic", "private"):
            raise ConfigError(f"select = {self.rule!r}: must be synthetic or private; leave it out for no selection")
        for name in self.candidates:
            if name not in CLASSIFIERS:
                raise ConfigError(
                    f"candidates = {name!r}: unknown.{suggest(name, CLASSIFIERS)} Known: {', '.join(CLASSIFIERS)}"
                )
        if len(set(self.candidates)) < 2 or len(set(self.candidates)) < len(self.candidates):
            raise ConfigError(f"candidates = {list(self.candidates)}: name at least two different classifiers")
        if self.rule == "private" and None in (self.data, self.privacy, self.out):
            raise ConfigError("select = 'private': needs private records, a budget and a new folder for its receipt")

    @property
    def name(self) -> str:
        """Of the figure it makes."""
        return f"gen2real-selected-{self.rule}"

    def plan(self) -> Plan:
        """The one release of the private rule, priced; ask for it before anything is paid."""
        from veilset.privacy.plan import Plan, Release

        assert self.data is not None and self.privacy is not None
        bound = math.sqrt(len(self.candidates)) / 2
        return Plan((Release(name="selection", bound=bound),)).price(self.privacy, self.data.info)

    def check(self) -> None:
        """Refuse what cannot be paid, before any work is done for it.

        Raises:
            BudgetExceeded, DataError: the account does not cover the choice, or is of another set.
        """
        if self.rule == "private" and self.account is not None and self.data is not None:
            balance = self.account.balance()
            balance.check_set(self.data.info)
            balance.check(self.plan().cost())


@dataclass(frozen=True)
class Chosen:
    """The classifier that won, and what a reader must know about how."""

    classifier: str
    facts: dict[str, Any]

    def answer(self, trial: Trial) -> Answer:
        """Accuracy on the real set of the chosen classifier, trained on all images."""
        from veilset.evaluation.utility import gen2real

        found = gen2real(self.classifier, trial)
        return Answer(found.value, facts={**found.facts, **self.facts})


def choose_classifier(selection: Selection, trials: Sequence[Trial]) -> Chosen:
    """Apply the rule once, to the mean over seeds.

    Raises:
        DataError: too few images to hold some out. BudgetExceeded, RunError: as `buying.buy`.
    """
    names = selection.candidates
    if selection.rule == "synthetic":
        scores = [sum(_held_out_accuracy(name, t) for t in trials) / len(trials) for name in names]
        winner = names[max(range(len(names)), key=scores.__getitem__)]
        return Chosen(winner, {"selected": winner, "rule": "synthetic hold-out", "scores": _table(names, scores)})
    leads, receipt = _noisy_leads(selection, trials)
    winner = names[max(range(len(names)), key=leads.__getitem__)]
    claim = {"epsilon": receipt.facts["epsilon"], "delta": receipt.facts["delta"], "out": str(selection.out)}
    return Chosen(
        winner, {"selected": winner, "rule": "private, paid once", "leads": _table(names, leads), "paid": claim}
    )


def _table(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in zip(names, values, strict=True)}


def _held_out_accuracy(name: str, trial: Trial) -> float:
    """Accuracy in percent on a random tenth of the synthetic images, of a classifier trained on the rest."""
    import torch

    from veilset.evaluation.training import predict, train_any
    from veilset.evaluation.utility import accuracy

    images, count = trial.images, round(HELD_OUT * len(trial.images))
    if count < 1:
        raise DataError(f"select = 'synthetic' holds out {HELD_OUT:.0%} of {len(images)} images: none; sample more")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(trial.seed))
    held, rest = images[order[:count]], images[order[count:]]
    return accuracy(predict(train_any(name, rest, trial.seed, trial.protocol_of(name)), held.x), held.y)


def _noisy_leads(selection: Selection, trials: Sequence[Trial]) -> tuple[list[float], Receipt]:
    """(noisy accuracy of each candidate minus the mean over candidates, in percent of the declared units; receipt)."""
    import json

    import torch

    from veilset.evaluation.buying import buy
    from veilset.networks.architectures import as_module

    assert selection.data is not None and selection.out is not None
    names, units = selection.candidates, selection.data.info.units
    classes = len(trials[0].against.classes)
    models = [[as_module(t.classifier(name), classes) for t in trials] for name in names]

    def lead(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        right = [torch.stack([(net(2 * x[None] - 1)[0].argmax() == y).float() for net in row]).mean() for row in models]
        values = torch.stack(right)
        return values - values.mean()

    leads: list[float] = []

    def ask(gate: Gate) -> dict[str, bytes]:
        with torch.no_grad():
            noisy = gate.sum("selection", lead)
        leads.extend((100 * noisy / units).tolist())
        return {FIGURES: json.dumps({"leads": _table(names, leads)}, sort_keys=True).encode()}

    config = {"candidates": list(names), "seeds": [t.seed for t in trials]}
    how: dict[str, Any] = {"what": WHAT, "config": config, "seed": selection.seed, "account": selection.account}
    receipt = buy(selection.data, selection.plan(), selection.out, ask, **how)
    return leads, receipt
