"""A mechanism is one class: two that only this file knows go from a plan to a verified claim and a report."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sets import facts, gate_for, private

from veilset.audit import canaries
from veilset.audit.selftest import accounting as theme
from veilset.core.errors import ConfigError, PlanError, VeilsetError
from veilset.core.io import canonical, sha256, sha256_file
from veilset.core.types import PublicInfo
from veilset.methods import catalogue
from veilset.methods.base import Synthesizer
from veilset.privacy import mechanisms
from veilset.privacy.account import Account
from veilset.privacy.accounting import Search, Spent, claim
from veilset.privacy.ledger import Ledger, _seal, parse
from veilset.privacy.mechanisms import MECHANISMS, of
from veilset.privacy.mechanisms.base import Known, Line, Mechanism
from veilset.privacy.mechanisms.sampled_gaussian import SampledGaussian
from veilset.privacy.plan import Plan, Release
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy
from veilset.report.page import write_report

PARTS = 4
ONE = SampledGaussian()


class Dealt(Mechanism):
    """A step reads one of K parts, drawn at random, of units that were dealt out once; all of its answer may change."""

    name, label = "dealt", "Gaussian on a part drawn at random"
    rules = {"parts": lambda k: type(k) is int and k >= 2}
    known = (Known("parts", (Spent(1.0, 0.01, 1000, None, "dealt", (("parts", 100),)),), 1e-5, 1.828244),)

    def fits(self, line: Line) -> bool:
        return super().fits(line) and line.sample_rate == 1 / dict(line.facts)["parts"]

    def factor(self, line: Line) -> float:
        return 2

    def chosen(self, release: Any, units: Any, part: Any, step: int, coins: Callable[[str], Any]) -> Any:
        parts = dict(release.facts)["parts"]
        dealt = coins("dealt").uint64(units.count) % parts
        return np.flatnonzero(dealt == coins(str(step)).uint64(1) % parts)

    def divergence(self, s: Spent, orders: Any) -> Any:
        return s.steps * ONE.divergence(_plain(s), orders)

    def second(self, s: Spent, orders: Any) -> Any:
        return ONE.second(_plain(s), orders)

    def span(self, s: Spent) -> tuple[float, float]:
        return ONE.span(_plain(s))

    def loss(self, s: Spent, spacing: float) -> Any:
        return ONE.loss(_plain(s), spacing)

    def sentence(self, line: Line) -> str:
        return f"One of {dict(line.facts)['parts']} parts answers a step; which one, nobody learns."


def _plain(s: Spent) -> Spent:
    return Spent(s.noise_multiplier, s.sample_rate)


class InTurn(Dealt):
    """The same parts, one after the other: a unit is read in every K-th step, with no sampling to count on."""

    name, label = "in-turn", "Gaussian on the next part"
    known = (Known("in turn", (Spent(5.0, 0.25, 40, None, "in-turn", (("parts", PARTS),)),), 1e-5, 2.594383),)

    def squared_mu(self, s: Spent) -> float | None:
        return math.ceil(s.steps / dict(s.facts)["parts"]) / s.noise_multiplier**2

    def divergence(self, s: Spent, orders: Any) -> Any:
        return ONE.divergence(Spent(s.noise_multiplier, 1.0, math.ceil(s.steps / dict(s.facts)["parts"])), orders)


class Laplace(Mechanism):
    """Noise of another law: a count with Laplace noise, of which the exact curve is known."""

    name, label = "laplace", "Laplace"
    # delta of one with parameter b is 1 - exp((epsilon - 1/b) / 2)
    known = (Known("one Laplace", (Spent(2.0, mechanism="laplace"),), 1e-2, 0.5 + 2 * math.log1p(-1e-2)),)

    def divergence(self, s: Spent, orders: Any) -> Any:
        import dp_accounting as dp

        from veilset.privacy.dp_library import rdp_of

        accountant = dp.rdp.RdpAccountant(orders)
        return rdp_of(accountant.compose(dp.LaplaceDpEvent(s.noise_multiplier), s.steps))[1]

    def second(self, s: Spent, orders: Any) -> Any:
        b = s.noise_multiplier  # Mironov 2017, Table II
        return [
            math.log(a / (2 * a - 1) * math.exp((a - 1) / b) + (a - 1) / (2 * a - 1) * math.exp(-a / b)) / (a - 1)
            for a in orders
        ]

    def span(self, s: Spent) -> tuple[float, float]:
        return -1 / s.noise_multiplier, 1 / s.noise_multiplier

    def loss(self, s: Spent, spacing: float) -> Any:
        from dp_accounting.pld import privacy_loss_distribution as library

        return library.from_laplace_mechanism(s.noise_multiplier, value_discretization_interval=spacing)

    def sentence(self, line: Line) -> str:
        return "A count with Laplace noise."


class Mean(Synthesizer):
    """Three dealt sums, and a plain one."""

    name = "dealt-mean"

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return Plan((asked(bound=4.0, steps=3), Release(name="all", bound=4.0)))

    def _fit(self, gate: Any, info: PublicInfo, plan: Plan) -> dict[str, torch.Tensor]:
        mean = sum(gate.sum("part", lambda x, y: x, by_class=True) for _ in range(3))
        mean = mean * PARTS / 3 + gate.sum("all", lambda x, y: x, by_class=True)
        return {"mean": (mean / info.units).float()}

    def _sample(self, state: dict[str, torch.Tensor], info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels]


def asked(**changes: Any) -> Release:
    given = {"name": "part", "mechanism": "dealt", "sample_rate": 1 / PARTS, "facts": {"parts": PARTS}}
    return Release(**given | changes)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (Dealt(), InTurn(), Laplace()):
        monkeypatch.setitem(MECHANISMS, one.name, one)
    monkeypatch.setitem(catalogue.BUILT_IN, "dealt-mean", catalogue.Entry(__name__, "Mean", ""))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release by the new mechanism."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as m:
        m.setitem(MECHANISMS, "dealt", Dealt())
        Mean().fit(private(), Privacy(4.0)).save(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def forge(folder: Path, change: Callable[[dict[str, Any]], Any], kind: str = "charge") -> None:
    """Change the bodies of one kind, seal the chain anew, and make list and receipt fit."""
    forged = Ledger()
    for i, line in enumerate(parse((folder / "ledger.jsonl").read_bytes())):
        if line["body"]["kind"] == kind and "dealt" in json.dumps(line["body"]):
            change(line["body"])
        forged.lines.append(_seal(i, forged.head, line["body"]))
    (folder / "ledger.jsonl").write_bytes(forged.to_bytes())
    digest, sums = sha256_file(folder / "ledger.jsonl"), folder / "SHA256SUMS"
    rows = [f"{digest}  ledger.jsonl" if s.endswith("  ledger.jsonl") else s for s in sums.read_text().splitlines()]
    sums.write_text("\n".join(rows) + "\n")
    said = json.loads((folder / "receipt.json").read_text())
    said |= {"ledger_head": forged.head, "ledger_sha256": digest, "files_sha256": sha256_file(sums)}
    said["seal"] = sha256(canonical({k: v for k, v in said.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(said))


def wrong(folder: Path) -> str:
    """What `verify` finds at the plan, one line."""
    found = verify(folder)
    assert not found.ok
    detail = {c["name"]: c["detail"] for c in found.checks if not c["ok"]}["plan"]
    assert "\n" not in detail and "Error" not in detail
    return str(detail)


# ---------------------------------------------------------------------- from a plan to a report


def test_a_mechanism_goes_from_plan_to_report(folder, tmp_path):
    lines = [line["body"] for line in parse((folder / "ledger.jsonl").read_bytes())]
    planned = lines[0]["plan"]["releases"][0]
    assert (planned["mechanism"], planned["facts"]) == ("dealt", {"parts": PARTS})
    charges = [b for b in lines if b["kind"] == "charge"]
    assert [b["mechanism"] for b in charges] == ["dealt"] * 3 + ["gaussian"]
    assert charges[0]["facts"] == {"parts": PARTS} and "facts" not in charges[3]
    assert [b["sensitivity"] for b in charges] == [8.0] * 3 + [4.0], "twice the bound, as the mechanism says"
    noise, common = charges[0]["noise_multiplier"], charges[3]["noise_multiplier"]
    got = verify(folder)
    assert got.ok and got.release
    assert got.epsilon == claim([Spent(noise, 1 / PARTS, 3), Spent(common)], 1e-5).epsilon, "what it states it costs"
    words = str(Ledger(folder / "ledger.jsonl"))
    assert f"charge part: 1 x Gaussian on a part drawn at random, noise multiplier {noise:.6g}, parts 4" in words
    write_report(folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "part: One of 4 parts answers a step; which one, nobody learns." in page
    assert "all: A sum over records." in page and "1 × Gaussian on a part drawn at random" in page


def test_the_gate_reads_whom_the_mechanism_says_with_its_noise():
    n, info = 400, facts(units=400)
    releases = (asked(steps=40, bound=1.0),)
    gate = gate_for(private(n, info), *releases, epsilon=math.inf)
    ones = [int(round(float(gate.sum("part", lambda x, y: torch.ones(1))))) for _ in range(40)]
    assert len(set(ones)) == PARTS, "the same four parts, in every step one of them"
    assert sum(set(ones)) == n, "which make up the set"
    noisy = gate_for(private(0, info), asked(bound=1.0), epsilon=2.0, seed=3)
    answer = noisy.sum("part", lambda x, y: torch.zeros(20_000))
    assert float(answer.std()) == pytest.approx(2 * noisy.plan["part"].noise_multiplier, rel=0.03), "factor 2"


@pytest.mark.long
def test_its_known_figures_are_asked_for_by_the_self_test(monkeypatch):
    checks = list(theme.vectors())
    assert all(c.ok for c in checks) and "26 vectors" in checks[0].about
    monkeypatch.setattr(Laplace, "known", (Known("wrong", Laplace.known[0].spent, 1e-2, 0.49),))
    assert not all(c.ok for c in theme.vectors())


def test_mechanisms_compose():
    laplace = Spent(2.0, mechanism="laplace")
    dealt = Spent(1.0, 0.01, 1000, None, "dealt", (("parts", 100),))
    alone = [claim([s], 1e-5).epsilon for s in (laplace, dealt, Spent(20.0))]
    whole = claim([laplace, dealt, Spent(20.0)], 1e-5)
    assert max(alone) < whole.epsilon < sum(alone) and whole.accountant == "PLD"
    assert whole.epsilon <= whole.epsilon_rdp
    twice = claim([laplace, laplace], 1e-5).epsilon
    assert twice == pytest.approx(claim([Spent(2.0, steps=2, mechanism="laplace")], 1e-5).epsilon, rel=1e-9)
    assert alone[0] < twice <= 1.0 + 1e-3, "pure epsilon adds up at most"


def test_a_mechanism_may_count_its_steps_otherwise():
    one = Spent(5.0, 0.25, 1, None, "in-turn", (("parts", PARTS),))
    blocks = [one] * 40
    got = claim(blocks, 1e-5)
    assert got == claim([Spent(5.0, 1.0, 10)], 1e-5) and got.accountant == "exact Gaussian"
    assert claim([*blocks, one], 1e-5).epsilon > got.epsilon
    plan = Plan((asked(mechanism="in-turn", steps=40),)).price(Privacy(2.594383), facts(units=500))
    assert plan["part"].noise_multiplier == pytest.approx(5.0, rel=1e-5)


def test_a_part_of_the_partition_and_a_price():
    info = facts(units=500)
    plan = Plan((asked(steps=2, partition="class"), Release(name="all"))).price(Privacy(1.0), info)
    assert [s.part for s in plan.spent()] == [0, 1, 2, None] and plan.claim().epsilon <= 1.0
    assert plan.to_json()["releases"][0]["mechanism"] == "dealt"
    assert plan.to_json()["releases"][0]["facts"] == {"parts": PARTS}
    assert sum(share for share, _ in plan.shares()) == pytest.approx(1.0)


def test_account_and_search_hold_it(tmp_path):
    info, plan = facts(units=500), Plan((asked(steps=2),)).price(Privacy(1.0), facts(units=500))
    account = Account(tmp_path / "account.jsonl")
    account.create(info, Privacy(4.0))
    account.draw(info, plan.cost(), "dealt")
    search = Search(2, (tuple(plan.spent()),))
    account.draw(info, search, "search")
    charges = account.balance().to_json()["charges"]
    assert charges[0]["releases"] == [s.to_json() for s in plan.spent()]
    assert charges[0]["releases"][0]["mechanism"] == "dealt" and "2 dealt release(s)" in str(account.balance())
    assert Search.from_json(json.loads(json.dumps(charges[1]["search"]))) == search


def test_what_was_not_modelled_is_not_attacked_by_canaries():
    plan = Plan((asked(steps=2),)).price(Privacy(1.0), facts(units=500))
    with pytest.raises(ConfigError, match="canaries are modelled for the mechanism 'gaussian', not for 'dealt'"):
        canaries.audit(plan)


# ---------------------------------------------------------------------- what a stranger may have written


def test_a_version_without_the_mechanism_says_so(folder, monkeypatch):
    monkeypatch.delitem(MECHANISMS, "dealt")
    assert wrong(folder).startswith("mechanism = 'dealt': not known to this version")


FORGED = {
    "no facts": (lambda b: b.pop("facts"), "misses 'facts'"),
    "no noise": (lambda b: b.pop("noise_multiplier"), "misses 'noise_multiplier'"),
    "an odd fact": (lambda b: b.update(shuffled=1), "must not have 'shuffled'"),
    "an odd fact inside": (lambda b: b["facts"].update(copies=1), "not allowed; it states parts"),
    "another fact": (lambda b: b.update(facts={"parts": 5}), "not allowed"),
    "both that go together": (lambda b: b.update(facts={"parts": 8}, sample_rate=1 / 8), "otherwise than planned"),
    "a fact of another type": (lambda b: b.update(facts={"parts": "4"}), "not allowed"),
    "a list in a fact": (lambda b: b.update(facts={"parts": [4]}), "names are lower-case words"),
    "facts that are none": (lambda b: b.update(facts=[1]), "must be names with values"),
    "half the sensitivity": (lambda b: b.update(sensitivity=4.0), "otherwise than planned"),
    "less noise": (lambda b: b.update(noise_multiplier=b["noise_multiplier"] / 2), "otherwise than planned"),
    "the first mechanism": (lambda b: (b.pop("facts"), b.update(mechanism="gaussian")), "otherwise than planned"),
    "no mechanism": (lambda b: b.pop("mechanism"), "mechanism = 'None': not known"),
    "a mechanism that is no word": (lambda b: b.update(mechanism=["dealt"]), "not known to this version"),
    "a rate that is none": (lambda b: b.update(sample_rate="x"), "a release with sample_rate = 'x'"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_charge_is_refused_in_one_line(folder, what):
    change, expected = FORGED[what]
    forge(folder, change)
    assert expected in wrong(folder)


def test_a_forged_plan_is_refused_in_one_line(folder):
    forge(folder, lambda b: b["plan"]["releases"][0].update(facts={"parts": 4, "more": 1}), "open")
    assert "not allowed; it states parts" in wrong(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mechanism": "nothing"}, "mechanism = 'nothing': not known to this version"),
        ({"facts": {}}, "with facts {} at rate 0.25: not allowed; it states parts"),
        ({"facts": {"parts": 4, "Bad name": 1}}, "names are lower-case words"),
        ({"facts": {"parts": math.nan}}, "names are lower-case words"),
        ({"sample_rate": 0.5}, "at rate 0.5: not allowed"),
        ({"verb": "grad"}, "verb = 'grad' is not allowed"),
        ({"mechanism": "gaussian"}, "not allowed; it states none"),
    ],
)
def test_a_release_that_its_mechanism_cannot_answer(changes, expected):
    with pytest.raises(VeilsetError) as e:
        asked(**changes)
    assert expected in str(e.value) and "\n" not in str(e.value)


# ---------------------------------------------------------------------- today's files stay as they are


def test_what_names_no_mechanism_is_written_as_before():
    common = {"name", "verb", "bound", "sample_rate", "steps", "weight", "partition", "noise_multiplier"}
    assert Release(name="a").to_json().keys() == common
    assert Spent(2.0).to_json() == {"noise_multiplier": 2.0, "sample_rate": 1.0, "steps": 1, "part": None}
    assert Release(**Release(name="a").to_json()) == Release(name="a")
    gate = gate_for(private(), Release(name="a", bound=4))
    gate.sum("a", lambda x, y: x)
    (body,) = gate.ledger.bodies("charge")
    assert body == {
        "kind": "charge", "release": "a", "part": None, "mechanism": "gaussian", "sensitivity": 4, "steps": 1,
        "noise_multiplier": gate.plan["a"].noise_multiplier, "sample_rate": 1.0,
    }  # fmt: skip
    assert type(body["sensitivity"]) is int, "a bound is written as it was planned: 4 and 4.0 are other bytes"
    assert mechanisms.read(body) == Spent(gate.plan["a"].noise_multiplier)
    assert of(gate.plan["a"]) is MECHANISMS["gaussian"]


def test_every_mechanism_has_what_the_self_test_and_a_reader_need():
    for name, one in MECHANISMS.items():
        assert one.name == name and one.known and one.label and one.verbs
        for known in one.known:
            assert all(of(s) in (one, MECHANISMS["gaussian"]) for s in known.spent)
            assert one.sentence(known.spent[0]).endswith(".")
    with pytest.raises(PlanError, match="known: gaussian"):
        of(Spent(1.0, mechanism="other"))
