"""A priced search: the price is that of all trials, only the best one leaves, and their number stays secret."""

from __future__ import annotations

import itertools
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import two_sums
import veilset as vs
from veilset import tune as module
from veilset.cli.main import main
from veilset.core.errors import BudgetExceeded, ConfigError, ModeError, RunError
from veilset.core.types import Images, PublicInfo
from veilset.data import declare, draft
from veilset.data.load import load
from veilset.methods import catalogue
from veilset.privacy.account import Account
from veilset.privacy.accounting import Search, Spent, claim
from veilset.privacy.receipt import LEDGER, verify
from veilset.privacy.spec import Privacy
from veilset.runs import draw_run
from veilset.tune import Judge, Tuning, price, tune

INFO = PublicInfo(name="set", classes=("0", "1"), shape=(1, 4, 4), units=400)


class Means(vs.Synthesizer):
    """Class means, brightened by `shift`."""

    name = "means"
    Config = two_sums.Config

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean", bound=4.0),), seconds=1.0)

    def _fit(self, gate, info, plan):
        mean = gate.sum("mean", lambda x, y: x, by_class=True) / (info.units / len(info.classes))
        return {"mean": mean.float() + self.config.shift}

    def _sample(self, state, info, labels):
        return state["mean"][labels] + 0.1 * torch.rand(len(labels), *info.shape)


@dataclass(frozen=True)
class Counted:
    times: int = vs.option(1, "how often the mean is asked", ge=1)


class Often(Means):
    """The same, asked several times, so that candidates have different plans."""

    name = "often"
    Config = Counted

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean", bound=4.0, steps=self.config.times),), seconds=1.0)


@pytest.fixture(scope="module", autouse=True)
def _method():
    real, own = catalogue._load, {c.name: c for c in (Means, Often)}
    catalogue._load = lambda name, *kind: own.get(name) or real(name, *kind)
    yield
    catalogue._load = real


@pytest.fixture
def data(tmp_path) -> str:
    """400 images whose left or right half is light."""
    g = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = g.integers(0, 60, (400, 4, 4, 1))
    x[y == 0, :, :2] += 180
    x[y == 1, :, 2:] += 180
    path = tmp_path / "set.npz"
    np.savez(path, x=x.astype(np.uint8), y=y)
    text = draft.text(INFO)
    declare.path_for(path).write_text(text.replace("confirmed = false", "confirmed = true"))
    return str(path)


def asked(data: str, **changes) -> Tuning:
    given = {"method": "means", "data": data, "epsilon": 2.0, "grid": {"shift": [0.0, 1.0]}, "trials": 4, "seed": 0}
    return Tuning(**given | changes)


def test_the_price_uses_the_budget_and_grows_with_the_trials(data):
    prices = {n: price(asked(data, trials=n)) for n in (1, 4, 16)}
    for got in prices.values():
        assert 0.98 * 2 < got.epsilon <= 2
        assert claim(got.search, 1e-5).epsilon == got.epsilon and "RDP" in claim(got.search, 1e-5).accountant
    assert prices[1].trial_epsilon > prices[4].trial_epsilon > prices[16].trial_epsilon > 2 / 5
    alone = claim(prices[4].plans[0].spent(), 1e-5).epsilon
    assert prices[4].trial_epsilon < alone < 1.1 * prices[4].trial_epsilon, "the score is a small part of a trial"
    assert "no record has been read" in str(prices[4])


def test_a_search_costs_more_than_its_trial_whatever_the_candidates(data):
    got = price(asked(data))
    assert got.epsilon > 1.5 * claim(got.plans[0].spent(), 1e-5).epsilon
    assert len(got.search.candidates) == 1, "equal plans are one candidate to the accountant"
    worst = Search(4, ((Spent(4.0),), (Spent(9.0),)))
    assert claim(worst, 1e-5).epsilon == claim(Search(4, ((Spent(4.0),),)), 1e-5).epsilon


def test_the_price_of_a_search_holds_for_every_candidate(data):
    """Candidates of one epsilon may have curves of other shapes; a trial draws any of them."""
    got = price(asked(data, method="often", grid={"times": [1, 3, 3]}))
    paid = {candidate: claim(Search(4, (candidate,)), 1e-5).epsilon for candidate in got.search.candidates}
    assert {tuple(p.spent()) for p in got.plans} == set(paid) and len(paid) == 2
    assert max(paid.values()) <= got.epsilon <= 2


@pytest.mark.parametrize("score", module.SCORES)
def test_the_best_candidate_leaves_and_verifies(data, tmp_path, score):
    """shift = 1 paints everything white."""
    model, seen = tune(price(asked(data, score=score, trials=8, seed=None)), tmp_path / "run")
    got = verify(tmp_path / "run")
    assert got.ok and got.release and 1.9 < got.epsilon <= 2
    assert "RDP of a search" in model.receipt_.accountant and model.receipt_.epsilon == model.receipt_.epsilon_rdp
    charges = [json.loads(line)["body"] for line in (tmp_path / "run" / LEDGER).read_text().splitlines()]
    names = [b["release"] for b in charges if b["kind"] == "charge"]
    assert names == ["mean"] + (["tune-score"] if score == "paid-accuracy" else [])
    if model.config.shift == 0:  # else no trial drew it, which happens in one search of about ten
        assert seen > 0.8
        assert catalogue.open_model(tmp_path / "run").sample(4, seed=0).x.float().mean() < 200


def test_research_repeats_and_is_stamped(data, tmp_path):
    one = [tune(price(asked(data, seed=3)), tmp_path / f"{i}") for i in range(2)]
    assert one[0][1] == one[1][1]
    for name in ("model.safetensors", LEDGER):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    assert verify(tmp_path / "0").ok and not verify(tmp_path / "0").release


def test_the_number_of_trials_is_geometric_and_every_candidate_is_drawn(data, tmp_path, monkeypatch):
    drawn: list[int] = []
    given = load(data)  # checked once is enough
    monkeypatch.setattr(sys.modules["veilset.data.load"], "load", lambda source: given)

    class Fake:
        def settle(self, session): ...

        def save(self, out): ...

    priced, score = price(asked(data, grid={"shift": [0.0, 0.5, 1.0]}, seed=None)), random.Random(0)
    monkeypatch.setattr(
        module, "_trial", lambda p, d, which, s, pay: (drawn.append(which) or 2 * score.random(), Fake(), 0)
    )
    counts, first, again = [], [], []
    for _ in range(many := 200):
        drawn.clear()
        tune(priced, tmp_path / "never")
        counts.append(len(drawn))
        first.append(drawn[0])
        again += [a == b for a, b in itertools.pairwise(drawn)]
    # Every trial draws anew from all candidates: the theorem is about repetitions of one mechanism.
    for share, of in [*((np.mean(np.array(first) == k), many) for k in range(3)), (np.mean(again), len(again))]:
        assert abs(share - 1 / 3) < 5 * np.sqrt(2 / 9 / of)
    # Five standard deviations of a geometric number of mean 4, and of the share 1/4 of searches with one trial.
    assert abs(np.mean(counts) - 4) < 5 * np.sqrt(12 / many)
    assert abs(np.mean(np.array(counts) == 1) - 0.25) < 5 * np.sqrt(0.1875 / many)
    assert min(counts) == 1


def test_how_many_trials_there_were_is_told_nowhere(data, tmp_path, capfd):
    folders = set()
    for seed in range(6):
        tune(price(asked(data, seed=seed)), tmp_path / f"{seed}")
        ledger = (tmp_path / f"{seed}" / LEDGER).read_text().splitlines()
        folders.add((len(ledger), tuple(sorted(p.name for p in (tmp_path / f"{seed}").iterdir()))))
    assert len(folders) == 1
    assert capfd.readouterr() == ("", "")


def test_a_plan_that_is_no_candidate_does_not_verify(data, tmp_path):
    from dataclasses import replace

    got = price(asked(data, seed=None))
    cheap = replace(got, search=Search(4, ((Spent(50.0), Spent(50.0)),)))
    tune(cheap, tmp_path / "forged")
    seen = verify(tmp_path / "forged")
    assert not seen.ok and any("none of the candidates" in c["detail"] for c in seen.checks)


# ---------------------------------------------------------------------- the account


def test_a_search_is_drawn_once_and_before_the_first_trial(data, tmp_path, monkeypatch):
    account = Account(tmp_path / "account")
    account.create(INFO, Privacy(3.0))
    model, _ = tune(price(asked(data, seed=None, account=str(account.path))), tmp_path / "run")
    charges = account.balance().to_json()["charges"]
    assert [c["purpose"] for c in charges] == ["tune means"] and charges[0]["search"]["trials"] == 4
    assert model.receipt_.account == {"line": 1, "head": charges[0]["head"]}
    assert verify(tmp_path / "run").ok
    with pytest.raises(BudgetExceeded, match="nothing was drawn"):
        tune(price(asked(data, seed=None, account=str(account.path))), tmp_path / "two")

    def crash(*_):
        assert len(account.balance().to_json()["charges"]) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_trial", crash)
    with pytest.raises(KeyboardInterrupt):
        tune(price(asked(data, seed=None, epsilon=0.1, account=str(account.path))), tmp_path / "three")
    assert len(account.balance().to_json()["charges"]) == 2 and not (tmp_path / "three").exists()
    with pytest.raises(ModeError, match="account"):
        tune(price(asked(data, account=str(account.path))), tmp_path / "four")


def test_a_search_that_is_written_down_afterwards_costs_the_whole_search(data, tmp_path):
    paid, late = (Account(tmp_path / name) for name in ("paid", "late"))
    for account in (paid, late):
        account.create(INFO, Privacy(3.0))
    tune(price(asked(data, seed=None, account=str(paid.path))), tmp_path / "one")
    tune(price(asked(data, seed=None)), tmp_path / "two")
    draw_run(late, tmp_path / "two", "late")
    assert "search" in late.balance().to_json()["charges"][0]
    assert late.balance().share == paid.balance().share > 0


# ---------------------------------------------------------------------- scores and bad input


@pytest.mark.parametrize("classes", [2, 3])
def test_the_judge_is_the_logistic_regression(classes):
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % classes
    x = (torch.randint(0, 120, (300, 1, 4, 4), generator=g) + 60 * y[:, None, None, None] // 2).to(torch.uint8)
    x[:, 0, 0, 0] = (y * 100).to(torch.uint8)
    images = Images(x, y, tuple("abcd"))  # class d never occurs
    judge = Judge(images)
    model = LogisticRegression(max_iter=60).fit(x.flatten(1).float().div(255).numpy(), y.numpy())
    assert (
        judge.scores(x.float() / 255).argmax(1).tolist()
        == model.predict(x.flatten(1).float().div(255).numpy()).tolist()
    )
    assert judge.accuracy(images) > 0.9
    assert torch.isneginf(judge.scores(x.float() / 255)[:, 3]).all()


def test_a_paid_score_is_the_accuracy_with_the_noise_that_was_printed(data, tmp_path):
    priced = price(asked(data, epsilon=60.0, grid={}, seed=0))
    score = tune(priced, tmp_path / "run")[1]
    assert priced.to_json()["score_sd"] < 0.01 and 0.95 < score < 1.05


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"trials": 0}, "trials"),
        ({"trials": 2.5}, "trials"),
        ({"score": "test-accuracy"}, "score"),
        ({"grid": {"shift": []}}, "grid"),
        ({"grid": {"shift": [0.0] * 1001}}, "grid"),
        ({"grid": {"shrift": [0.0]}}, "shift"),
        ({"grid": {"shift": [3.0]}}, "shift"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"delta": 0.5}, "1/N"),
    ],
)
def test_bad_input(data, changes, word):
    with pytest.raises(ConfigError, match=word):
        price(asked(data, **changes))


def test_the_command(data, tmp_path, capsys):
    command = ["tune", "means", "--data", data, "--epsilon", "2", "--trials", "3", "--shift", "0,1"]
    assert main([*command, "--dry", "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert len(dry["candidates"]) == 2 and dry["epsilon"] <= 2 and dry["score"] == "paid-accuracy"
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert told.err.index("price") >= 0 and "best      shift" in told.out and "RDP of a search" in told.out
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_an_existing_folder_is_left_alone(data, tmp_path):
    with pytest.raises(RunError, match="exists"):
        tune(price(asked(data)), Path(tmp_path))
