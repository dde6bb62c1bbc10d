"""`veilset account` and `fit --account`: paid before a folder is made, shown in the receipt, refused when spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "object"]


@pytest.fixture
def account(veilset: Run, tmp_path: Path) -> Path:
    path = tmp_path / "digits.account"
    assert veilset("account", "create", path, "--data", "digits", "--epsilon", "1").status == 0
    return path


def shown(veilset: Run, path: Path) -> dict:
    return veilset("account", "show", path, "--json").json


def fit(veilset: Run, out: Path, *more: object):
    return veilset("fit", "tiny", "--data", "digits", "--out", out, "--json", *more)


def test_a_fit_draws_and_its_receipt_names_the_line(veilset: Run, account: Path, tmp_path: Path) -> None:
    facts = fit(veilset, tmp_path / "run", "--epsilon", "0.5", "--account", account).json["receipt"]
    seen = shown(veilset, account)
    assert facts["account"] == {"line": 1, "head": seen["head"]} and seen["lines"] == 2
    assert 0.3 < seen["share_spent"] < 0.4 and seen["charges"][0]["purpose"] == "fit tiny"
    assert veilset("verify", tmp_path / "run", "--json").json["release"] is True
    assert str(tmp_path) not in (tmp_path / "run" / "receipt.json").read_text()
    words = veilset("account", "show", account, "--expect", seen["head"]).out
    assert "fit tiny" in words and "cap: epsilon 1" in words and seen["head"] in words


def test_a_receipt_that_hides_its_account_fails(veilset: Run, account: Path, tmp_path: Path) -> None:
    fit(veilset, tmp_path / "run", "--epsilon", "0.5", "--account", account)
    path = tmp_path / "run" / "receipt.json"
    from veilset.privacy.receipt import _seal

    facts = json.loads(path.read_text()) | {"account": None}
    path.write_text(json.dumps(facts | {"seal": _seal(facts)}))
    assert veilset("verify", tmp_path / "run", "--json").status == 1


def test_a_spent_account_refuses_before_a_folder_is_made(veilset: Run, account: Path, tmp_path: Path) -> None:
    fit(veilset, tmp_path / "one", "--epsilon", "0.8", "--account", account)
    fit(veilset, tmp_path / "two", "--epsilon", "0.8", "--account", account).refused("is spent", "nothing was drawn")
    assert not (tmp_path / "two").exists() and shown(veilset, account)["lines"] == 2


def test_refused_in_one_line(veilset: Run, account: Path, tmp_path: Path) -> None:
    half = ("--epsilon", "0.5", "--account")
    fit(veilset, tmp_path / "r", *half, tmp_path / "absent").refused("account create")
    fit(veilset, tmp_path / "r", *half, account, "--seed", "1").refused("account", "seed")
    fit(veilset, tmp_path / "r", "--epsilon", "inf", "--account", account).refused("account")
    veilset("account", "create", account, "--data", "digits", "--epsilon", "2").refused("never overwritten")
    veilset("account", "create", tmp_path / "b", "--data", "digits", "--epsilon", "0").refused("epsilon")
    veilset("account", "show", account, "--expect", "0" * 64).refused("set back")
    veilset("account", "charge", account).refused("--run", "--noise-multiplier")
    veilset("account", "charge", account, "--noise-multiplier", "nan").refused("noise_multiplier")
    veilset("account", "charge", account, "--noise-multiplier", "1", "--sample-rate", "2").refused("sample_rate")
    veilset("account", "charge", account, "--noise-multiplier", "0.5").refused("nothing was drawn")
    account.write_bytes(account.read_bytes().replace(b'"epsilon":1.0', b'"epsilon":8.0'))
    fit(veilset, tmp_path / "r", *half, account).refused("account line 0")
    assert not (tmp_path / "r").exists() and not (tmp_path / "b").exists()


def test_a_run_made_without_the_account_is_written_down_once(
    veilset: Run, account: Path, made: Path, tmp_path: Path
) -> None:
    fit(veilset, tmp_path / "late", "--epsilon", "0.5")
    seen = veilset("account", "charge", account, "--run", tmp_path / "late", "--json").json
    assert 0.3 < seen["share_spent"] < 0.4 and seen["charges"][0]["purpose"] == "run late"
    veilset("account", "charge", account, "--run", tmp_path / "late").refused("already")
    veilset("account", "charge", account, "--run", made / "research").refused("does not verify as a release")
    veilset("account", "charge", account, "--run", made / "public").refused("does not verify as a release")
    fit(veilset, tmp_path / "paid", "--epsilon", "0.2", "--account", account)
    veilset("account", "charge", account, "--run", tmp_path / "paid").refused("was paid for by an account")
    assert shown(veilset, account)["lines"] == 3
    veilset("account", "charge", account, "--run", made / "run").refused("written down", "overdrawn")
    assert shown(veilset, account)["share_spent"] > 1
    fit(veilset, tmp_path / "next", "--epsilon", "0.01", "--account", account).refused("is spent")


def test_another_run_of_the_same_plan_is_written_down_too(veilset: Run, account: Path, tmp_path: Path) -> None:
    """Their ledgers are equal, line for line; what they released is not."""
    one, two, out = (tmp_path / name for name in ("one", "two", "out"))
    for run in (one, two):
        fit(veilset, run, "--epsilon", "0.4")
    assert (one / "ledger.jsonl").read_bytes() == (two / "ledger.jsonl").read_bytes()
    assert veilset("sample", one, "-n", 20, "--out", out).status == 0
    veilset("account", "charge", account, "--run", one)
    share = shown(veilset, account)["share_spent"]
    veilset("account", "charge", account, "--run", out).refused("already")  # drawn from the first run: the same noise
    assert veilset("account", "charge", account, "--run", two).status == 0
    assert shown(veilset, account)["share_spent"] == pytest.approx(2 * share)
    veilset("account", "charge", account, "--run", two).refused("already")


def test_a_run_of_an_earlier_version_is_charged_by_what_its_folder_holds(
    veilset: Run, account: Path, tmp_path: Path
) -> None:
    from veilset.privacy.receipt import _seal

    for name in ("one", "two"):
        fit(veilset, tmp_path / name, "--epsilon", "0.4")
        path = tmp_path / name / "receipt.json"
        facts = json.loads(path.read_text())
        del facts["run"]
        path.write_text(json.dumps(facts | {"seal": _seal(facts)}))
        assert veilset("account", "charge", account, "--run", tmp_path / name).status == 0
    veilset("account", "charge", account, "--run", tmp_path / "one").refused("already")
    assert shown(veilset, account)["lines"] == 3


def test_a_release_made_elsewhere_is_charged_by_its_noise(veilset: Run, account: Path) -> None:
    options = ("--noise-multiplier", "8", "--steps", "2", "--purpose", "a poster")
    seen = veilset("account", "charge", account, *options, "--json").json
    assert seen["charges"][0]["purpose"] == "a poster" and seen["charges"][0]["releases"][0]["steps"] == 2
    veilset("account", "charge", account, "--noise-multiplier", "1", "--released").refused("overdrawn")
    assert shown(veilset, account)["epsilon_left"] == 0


def test_a_run_that_goes_on_with_another_account_is_refused(
    veilset: Run, account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from veilset.privacy.gate import Gate

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as m:
        m.setattr(Gate, "_noised", killed)
        assert fit(veilset, out, "--epsilon", "0.3", "--account", account).status == 130
    fit(veilset, out, "--epsilon", "0.3", "--resume").refused("account")
    assert shown(veilset, account)["lines"] == 2
