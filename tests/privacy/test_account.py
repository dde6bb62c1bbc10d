"""The privacy account: a Renyi filter over all runs on a set, in a chained file that two processes cannot overdraw."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
from sets import facts, gate_for, pixels, private

from veilset.audit.selftest.together import alone, copy_of_this, end_of, told
from veilset.core.errors import BudgetExceeded, ConfigError, DataError, LedgerError, ModeError, RunError
from veilset.privacy import account as module
from veilset.privacy.account import Account, Payment
from veilset.privacy.accounting import Search, Spent, cost_curve, gaussian_epsilon, search_claim
from veilset.privacy.ledger import Ledger, _seal
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

CAP, DELTA = 1.0, 1e-5
SMALL = [Spent(20.0)]


@pytest.fixture
def account(tmp_path) -> Account:
    out = Account(tmp_path / "set.account")
    out.create(facts(), Privacy(CAP, DELTA))
    return out


def fill(account: Account, cost) -> int:
    """Draw until the account refuses; how often it paid."""
    for n in range(1000):
        try:
            account.draw(facts(), cost, "again")
        except BudgetExceeded:
            return n
    raise AssertionError("the account never refuses")


# ---------------------------------------------------------------------- the filter


@pytest.mark.parametrize(("order", "share", "epsilon"), [(17.0, 0.5, 1.0), (3.3, 1 / 12, 10.0), (64.0, 1.0, 0.3)])
def test_the_cap_of_an_order_is_the_librarys_conversion_at_its_share_of_delta(order, share, epsilon):
    from dp_accounting import rdp

    cap = module._order_cap(order, share, Privacy(epsilon, DELTA))
    assert rdp.compute_epsilon([order], [cap], share * DELTA)[0] == pytest.approx(epsilon, rel=1e-12)


def test_the_cap_of_an_order_is_the_supremum_over_losses():
    """exp((a - 1)(B - epsilon)) sup over l of (1 - exp(epsilon - l)) exp(-(a - 1)(l - epsilon)) is the delta of a."""
    import numpy as np

    for order, share, epsilon in [(5.0, 0.5, 1.0), (2.2, 0.1, 4.0)]:
        cap = module._order_cap(order, share, Privacy(epsilon, DELTA))
        over = np.linspace(1e-6, 5, 2_000_000)
        worst = np.max(-np.expm1(-over) * np.exp(-(order - 1) * over)) * np.exp((order - 1) * (cap - epsilon))
        assert worst == pytest.approx(share * DELTA, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 4.0, 10.0])
def test_shares_of_delta_add_up_and_a_full_account_is_within_its_cap(tmp_path, epsilon):
    account = Account(tmp_path / "a")
    orders = account.create(facts(), Privacy(epsilon, DELTA)).book.lines[0]["body"]["orders"]
    assert sum(share for _, share in orders) == pytest.approx(1, abs=1e-12)
    assert all(order > 1 for order, _ in orders) and len(orders) == 7
    noise = 8 / epsilon
    paid = fill(account, [Spent(noise)])
    exact = gaussian_epsilon((paid**0.5) / noise, DELTA)
    assert exact <= epsilon, "more was drawn than the cap allows"
    assert gaussian_epsilon((paid + 1) ** 0.5 / noise, DELTA) > 0.82 * epsilon, (
        "the filter wastes a large part of the cap"
    )


def test_what_is_left_is_just_affordable(account):
    account.draw(facts(), [Spent(6.0)], "first")
    left = account.balance().epsilon_left
    from veilset.privacy.accounting import gaussian_noise_multiplier

    with pytest.raises(BudgetExceeded):
        account.draw(facts(), [Spent(gaussian_noise_multiplier(left * 1.001, DELTA))], "too much")
    account.draw(facts(), [Spent(gaussian_noise_multiplier(left * 0.999, DELTA))], "the rest")
    assert account.balance().share > 0.99


def test_sampled_releases_are_drawn_at_the_order_that_suits_them(tmp_path):
    account = Account(tmp_path / "a")
    account.create(facts(), Privacy(10.0, DELTA))
    account.draw(facts(), [Spent(1.1, 256 / 60000, 14062)], "training")  # epsilon 2.38 by PLD, 2.60 by RDP
    assert account.balance().share < 0.35


def test_parts_of_a_partition_are_drawn_once(account):
    parts = [Spent(20.0, part=k) for k in range(10)]
    assert cost_curve(parts, [3.0])[1] == pytest.approx(cost_curve(SMALL, [3.0])[1])
    account.draw(facts(), parts, "by class")
    once = account.balance().share
    account.draw(facts(), [Spent(20.0) for _ in range(10)], "not by class")
    assert account.balance().share == pytest.approx(11 * once)


@pytest.mark.parametrize("dear", [0, 1, 2])
def test_of_unequal_parts_the_dearest_is_drawn(account, dear):
    """What a stream of tasks asks of one class may cost more than what it asks of another."""
    account.draw(facts(), [Spent(20.0 if k == dear else 60.0, part=k) for k in range(3)], "by class")
    by_part, alone = account.balance(), Account(account.path.with_name("alone"))
    alone.create(facts(), Privacy(CAP, DELTA))
    alone.draw(facts(), SMALL, "the dearest part")
    assert by_part.share == pytest.approx(alone.balance().share) and by_part.share > 0


def test_order_of_draws_does_not_matter_and_no_draw_is_lost(account):
    before = account.balance()
    assert before.share == 0 and before.to_json()["charges"] == []
    heads = [account.draw(facts(), SMALL, f"run {i}")["head"] for i in range(3)]
    after = account.balance().to_json()
    assert [c["purpose"] for c in after["charges"]] == ["run 0", "run 1", "run 2"]
    assert [c["head"] for c in after["charges"]] == heads and after["head"] == heads[-1]


def test_a_search_is_drawn_as_a_whole(account):
    search = Search(10, ((Spent(30.0),), (Spent(40.0),)))
    account.draw(facts(), search, "tune")
    line = account.balance().to_json()["charges"][0]
    assert Search.from_json(line["search"]) == search
    one = Account(account.path.with_name("one"))
    one.create(facts(), Privacy(CAP, DELTA))
    one.draw(facts(), [Spent(30.0)], "one trial")
    assert account.balance().share > 2 * one.balance().share  # more than one trial


def test_a_search_costs_what_the_library_says_of_its_worst_candidate():
    import math

    from dp_accounting import dp_event, rdp

    for trials, noise in [(1, 4.0), (5, 8.0), (20, 12.0)]:
        accountant = rdp.RdpAccountant()
        accountant.compose(dp_event.RepeatAndSelectDpEvent(dp_event.GaussianDpEvent(noise), trials, 1))
        got = search_claim(Search(trials, ((Spent(noise),), (Spent(2 * noise),))), DELTA)
        assert got.epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-12)
        assert "RDP" in got.accountant
    # Theorem 2 of Papernot and Steinke by hand, for a Gaussian (rho a at order a) and a geometric number (eta = 1).
    orders, curve = cost_curve(Search(5, ((Spent(8.0),),)))
    rho = 1 / (2 * 8.0**2)
    hat = min(2 * ((1 - 1 / a) * rho * a + math.log(5) / a) for a in orders)
    at = list(orders).index(20.0)
    assert curve[at] <= rho * 20 + hat + math.log(5) / 19 + 1e-12
    assert min(rho * a + hat + math.log(5) / (a - 1) for a in orders if a >= 20) == pytest.approx(curve[at], rel=1e-9)


# ---------------------------------------------------------------------- bad input


def test_an_account_is_bound_to_its_set_but_not_to_the_size_of_the_images(account):
    account.draw(facts(shape=(3, 8, 8)), SMALL, "the same people, larger")
    for other in ({"name": "blots"}, {"units": 51}, {"unit": "one patient"}, {"max_images_per_unit": 2}):
        with pytest.raises(DataError, match=next(iter(other))):
            account.draw(facts(**other), SMALL, "others")
    assert len(account.balance().book.lines) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"epsilon":1.0', b'"epsilon":9.0'),
        (b'"noise_multiplier":20.0', b'"noise_multiplier":200.0'),
        (b'"units":50', b'"units":60'),
        (b'"kind":"charge"', b'"kind":"remark"'),
    ],
)
def test_an_account_that_was_edited_by_hand_is_refused(account, old, new):
    account.draw(facts(), SMALL, "run")
    raw = account.path.read_bytes()
    assert old in raw
    account.path.write_bytes(raw.replace(old, new, 1))
    for use in (account.balance, lambda: account.draw(facts(), SMALL, "run")):
        with pytest.raises(LedgerError, match="account line"):
            use()
    assert len(account.path.read_bytes().splitlines()) == 2


def test_a_dropped_middle_line_shows_and_a_dropped_end_shows_by_a_head_kept_elsewhere(account):
    heads = [account.draw(facts(), SMALL, f"run {i}")["head"] for i in range(2)]
    lines = account.path.read_bytes().splitlines(keepends=True)
    account.path.write_bytes(lines[0] + lines[2])
    with pytest.raises(LedgerError, match="line 1"):
        account.balance()
    account.path.write_bytes(lines[0] + lines[1])  # set back to an older copy
    account.check_holds(heads[0])
    with pytest.raises(LedgerError, match="set back"):
        account.check_holds(heads[1])


def test_sealed_nonsense_is_refused_in_one_line(account):
    for start in ({}, {"set": {}, "epsilon": -1, "delta": 1e-5, "orders": []}, {"set": 1, "epsilon": "x"}):
        account.path.write_text(
            json.dumps(_seal(0, "0" * 64, {"kind": "open", "format": "veilset-account/1", **start})) + "\n"
        )
        with pytest.raises(LedgerError, match="account"):
            account.balance()


def test_another_file_is_no_account(tmp_path, account):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("open", format="veilset-ledger/1")
    with pytest.raises(LedgerError, match="veilset-account/1"):
        Account(tmp_path / "ledger.jsonl").balance()
    with pytest.raises(LedgerError, match="veilset-ledger/1"):
        Ledger(account.path)
    with pytest.raises(RunError, match="account create"):
        Account(tmp_path / "absent").draw(facts(), SMALL, "run")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(LedgerError):
        Account(tmp_path / "empty").balance()


def test_an_account_is_never_overwritten_and_needs_a_cap(account, tmp_path):
    before = account.path.read_bytes()
    with pytest.raises(RunError, match="never overwritten"):
        account.create(facts(), Privacy(5.0))
    assert account.path.read_bytes() == before
    with pytest.raises(ConfigError, match="finite"):
        Account(tmp_path / "b").create(facts(), Privacy(float("inf")))
    with pytest.raises(ConfigError, match="1/N"):
        Account(tmp_path / "b").create(facts(), Privacy(1.0, 0.5))
    assert not (tmp_path / "b").exists()


def test_a_read_only_disk_shows_the_balance_and_refuses_draws(account, monkeypatch):
    real = os.open

    def read_only(path, flags, *rest, **named):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert account.balance().share == 0
    with pytest.raises(RunError, match="Read-only file system; nothing was drawn"):
        account.draw(facts(), SMALL, "run")
    with pytest.raises(RunError, match="cannot write"):
        Account(account.path.with_name("new")).create(facts(), Privacy(1.0))


def test_a_full_disk_draws_nothing(account, monkeypatch):
    before = account.path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        account.draw(facts(), SMALL, "run")
    monkeypatch.undo()
    assert account.path.read_bytes() == before


def test_a_spent_account_refuses_everything_but_the_truth(account):
    account.draw(facts(), [Spent(4.5)], "large")
    lines = len(account.balance().book.lines)
    with pytest.raises(BudgetExceeded, match="nothing was drawn"):
        account.draw(facts(), [Spent(4.5)], "second")
    with pytest.raises(BudgetExceeded):
        account.draw(facts(), [Spent(0.0)], "no noise at all")
    assert len(account.balance().book.lines) == lines
    with pytest.raises(BudgetExceeded, match="overdrawn"):  # it is out already: to leave it out would be a lie
        account.draw(facts(), [Spent(4.5)], "second", released=True)
    assert len(account.balance().book.lines) == lines + 1
    assert account.balance().share > 1 and account.balance().epsilon_left == 0
    with pytest.raises(BudgetExceeded):
        account.draw(facts(), [Spent(1000.0)], "tiny")
    assert "nothing" in str(account.balance())


# ---------------------------------------------------------------------- several processes, and lost power


def test_two_processes_that_draw_at_once_never_overdraw(account, tmp_path):
    affordable = fill_twin(account)
    outs = [tmp_path / f"{i}.result" for i in range(3)]
    pids = [copy_of_this(lambda: fill(account, SMALL), out) for out in outs]
    assert [end_of(pid) for pid in pids] == [0, 0, 0]
    paid = [told(out) for out in outs]
    assert sum(paid) == affordable and len(account.balance().book.lines) == 1 + affordable
    assert account.balance().share <= 1


def test_what_others_draw_while_it_waits_for_the_lock_counts(account, monkeypatch):
    real = module.lock

    def busy(*args, **how):
        monkeypatch.setattr(module, "lock", real)
        account.draw(facts(), [Spent(4.5)], "theirs")
        return real(*args, **how)

    monkeypatch.setattr(module, "lock", busy)
    with pytest.raises(BudgetExceeded, match="nothing was drawn"):
        account.draw(facts(), [Spent(4.5)], "ours")
    assert [c["purpose"] for c in account.balance().to_json()["charges"]] == ["theirs"]


def fill_twin(account: Account) -> int:
    twin = Account(account.path.with_name("twin"))
    twin.create(facts(), Privacy(CAP, DELTA))
    return fill(twin, SMALL)


def test_the_charge_is_synced_before_draw_returns(account, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), real(fd)))
    account.draw(facts(), SMALL, "run")
    assert synced[-1] == account.path.stat().st_size


def test_power_lost_before_the_answer_leaves_the_charge(account, tmp_path):
    def job():
        gate = gate_for(
            private(), RELEASE, seed=None, epsilon=0.3, folder=tmp_path / "run", payment=Payment(account, "fit")
        )
        gate._noised = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        gate.sum("mean", pixels)

    assert alone(job, tmp_path)[0] == -signal.SIGKILL
    assert [c["purpose"] for c in account.balance().to_json()["charges"]] == ["fit"]


def test_power_lost_between_account_and_ledger_is_paid_twice_rather_than_not_at_all(account, tmp_path, monkeypatch):
    def lost(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("veilset.privacy.run.journal.Journal.log", lost)
        gate_for(private(), RELEASE, seed=None, epsilon=0.3, folder=tmp_path / "run", payment=Payment(account, "fit"))
    assert not (tmp_path / "run" / "ledger.jsonl").exists()
    gate_for(private(), RELEASE, seed=None, epsilon=0.3, folder=tmp_path / "run", payment=Payment(account, "fit"))
    assert len(account.balance().to_json()["charges"]) == 2


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_was_never_answered_for(account, cut):
    account.draw(facts(), SMALL, "kept")
    whole = account.path.read_bytes()
    account.draw(facts(), SMALL, "torn")
    account.path.write_bytes(account.path.read_bytes()[:-cut])
    assert len(account.balance().to_json()["charges"]) == 1
    account.draw(facts(), SMALL, "next")
    assert account.path.read_bytes().startswith(whole)
    assert [c["purpose"] for c in account.balance().to_json()["charges"]] == ["kept", "next"]


# ---------------------------------------------------------------------- at the gate

RELEASE = Release(name="mean", bound=4.0)


def test_the_gate_draws_the_whole_plan_before_anything_is_asked(account):
    gate = gate_for(private(), RELEASE, seed=None, epsilon=0.5, payment=Payment(account, "fit"))
    line = account.balance().to_json()["charges"][0]
    assert line["releases"][0]["noise_multiplier"] == gate.plan["mean"].noise_multiplier
    assert gate.ledger.lines[0]["body"]["account"] == {"line": 1, "head": line["head"]}
    assert [b["body"]["kind"] for b in gate.ledger.lines] == ["open"]


def test_a_gate_that_is_not_paid_for_does_not_open(account, tmp_path):
    with pytest.raises(BudgetExceeded):
        gate_for(private(), RELEASE, seed=None, epsilon=2.0, folder=tmp_path / "run", payment=Payment(account, "fit"))
    assert not (tmp_path / "run" / "ledger.jsonl").exists()
    with pytest.raises(DataError):
        gate_for(private(info=facts(name="other")), RELEASE, seed=None, payment=Payment(account, "fit"))


def test_runs_without_privacy_are_not_accounted_for(account):
    with pytest.raises(ModeError, match="account"):
        gate_for(private(), RELEASE, seed=0, payment=Payment(account, "fit"))
    with pytest.raises(ModeError, match="account"):
        gate_for(private(), RELEASE, seed=None, epsilon=float("inf"), payment=Payment(account, "fit"))
    assert account.balance().share == 0


def test_a_run_that_goes_on_is_not_paid_again_and_shows_a_rollback(account, tmp_path):
    start = account.path.read_bytes()
    options = {"seed": None, "epsilon": 0.5, "folder": tmp_path / "run"}
    gate_for(private(), RELEASE, payment=Payment(account, "fit"), **options)
    gate_for(private(), RELEASE, payment=Payment(account, "fit"), **options)
    assert len(account.balance().to_json()["charges"]) == 1
    with pytest.raises(RunError, match="account"):
        gate_for(private(), RELEASE, **options)
    account.path.write_bytes(start)
    with pytest.raises(LedgerError, match="set back"):
        gate_for(private(), RELEASE, payment=Payment(account, "fit"), **options)


def test_a_run_without_an_account_cannot_go_on_with_one(account, tmp_path):
    gate_for(private(), RELEASE, seed=None, folder=tmp_path / "run")
    with pytest.raises(RunError, match="account"):
        gate_for(private(), RELEASE, seed=None, epsilon=0.3, folder=tmp_path / "run", payment=Payment(account, "fit"))
    assert account.balance().share == 0


def test_one_payment_serves_all_gates_of_a_search(account):
    payment = Payment(account, "tune")
    plan = Plan((RELEASE,)).price(Privacy(0.3), facts())
    assert payment.make(plan) == payment.make(plan)
    assert len(account.balance().to_json()["charges"]) == 1
