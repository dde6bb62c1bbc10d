"""The self-test's themes of whole fits, processes, money and folders: a fault of each kind that they look for shows."""

from __future__ import annotations

import os

import pytest
import torch

import veilset.privacy.account
import veilset.privacy.receipt
from veilset import tune as tuning
from veilset.audit.selftest import accounts, folders, methods, processes
from veilset.audit.selftest.coupled import Tape, coupled, moved, strangers, worlds
from veilset.checks import searches, streams
from veilset.continual import check, stream
from veilset.core import pictures
from veilset.methods.moments.dp_moments import DPMoments
from veilset.privacy import accounting, bounding, private
from veilset.privacy.account import Account, Payment
from veilset.privacy.accounting import Spent
from veilset.privacy.draws import shape_of
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import Ledger
from veilset.privacy.run import run_store
from veilset.privacy.run.process_group import Team


def failing(checks) -> list[str]:
    return [c.name for c in checks if not c.ok]


# ---------------------------------------------------------------------- fits

MOMENTS = methods._of("dp-moments")
LEARNS, ASKS = "dp-moments learns from its answers alone", "one unit moves what dp-moments asks by its bound at most"


@pytest.mark.parametrize(
    "leak",
    [
        lambda gate: gate._reader.units.count,
        lambda gate: gate._reader._labels[:5].sum(),
        lambda gate: gate._reader._records._x.mean(),
        lambda gate: len(gate._chosen(gate.plan["mean"], None, 0)),
    ],
    ids=["count", "labels", "pixels", "sample"],
)
def test_a_method_that_reads_past_the_gate_fails(leak, monkeypatch):
    real = DPMoments._fit
    told = lambda gate: {"more": torch.tensor(float(leak(gate)))}  # noqa: E731
    monkeypatch.setattr(DPMoments, "_fit", lambda self, gate, *a: real(self, gate, *a) | told(gate))
    assert failing(MOMENTS()) == [LEARNS]


def test_a_method_that_says_in_its_notes_what_it_saw_fails(monkeypatch):
    real, seen = DPMoments._fit, []
    monkeypatch.setattr(
        DPMoments, "_fit", lambda self, gate, *a: seen.append(gate._reader.units.count) or real(self, gate, *a)
    )
    monkeypatch.setattr(DPMoments, "_notes", lambda self, state: (f"{seen[-1]} units",))
    assert failing(MOMENTS()) == [LEARNS]


def test_sums_that_move_too_far_fail(monkeypatch):
    real = bounding.clip
    monkeypatch.setattr(bounding, "clip", lambda v, bound, weight=1.0: real(v, 1.5 * bound, weight))
    assert ASKS in failing(MOMENTS())


def test_other_questions_are_no_small_move():
    def asked(purpose="a/None/0", sensitivity=2.0, size=3):
        tape = Tape()
        tape.exact.append((purpose, torch.ones(size), sensitivity))
        return tape

    assert moved(asked(), asked()) == 0.0
    for other in (asked(purpose="b/None/0"), asked(sensitivity=3.0), asked(size=4), Tape()):
        assert moved(asked(), other) == moved(other, asked()) == float("inf")
    assert moved(Tape(), Tape()) == float("inf"), "nothing was asked"


def test_every_method_and_teacher_is_seen_to_ask_about_the_unit():
    d, others = worlds(1, methods.WHITE, 0)
    kinds = methods.kinds()
    assert set(kinds) == {*methods.OWN, *methods.TEACHERS}
    with methods.remembered(), methods.worth_all():
        for name in ("dp-kip", "dp-diffusion", "dp-gan", "dp-scatter"):
            with coupled(d) as first:
                kinds[name][0]().fit(d.data.hide(), methods.BUDGET)
            with coupled(others["front"], first) as second:
                kinds[name][0]().fit(others["front"].data.hide(), methods.BUDGET)
            assert 0.3 < moved(first, second) <= methods.MOST
    assert len(strangers().data.y) == 97 != len(d.data.y)


@pytest.mark.long
def test_secrets_from_the_public_seed_fail(monkeypatch):
    chosen = Gate._chosen
    with monkeypatch.context() as m:
        m.setattr(Gate, "_own", lambda self, how, n, purpose: torch.randn(n, *shape_of(how)))
        found = list(methods.secrets_are_fresh())
        assert failing(found) and "draws" in found[0].about
    monkeypatch.setattr(Gate, "_chosen", lambda self, release, *a: chosen(self, release, *a)[:0])
    found = list(methods.secrets_are_fresh())
    assert failing(found) and "coins" in found[0].about


# ---------------------------------------------------------------------- processes


def test_units_in_several_processes_fail(monkeypatch):
    monkeypatch.setattr(Team, "shard", lambda self, units: units)
    assert "several processes answer what one does" in failing(processes.answers())


@pytest.mark.long
def test_noise_that_processes_share_out_or_keys_that_they_share_fail(monkeypatch):
    real = Gate._noised

    def less(self, exact, release, purpose):
        share = bounding.Bounded(exact.value, exact.sensitivity / self._team.size**0.5)
        return real(self, share, release, purpose)

    with monkeypatch.context() as m:
        m.setattr(Gate, "_noised", less)
        assert failing(processes.answers()) == [
            "several processes add the noise of a sum once",
            "several processes add the noise of a gradient once",
        ]
    monkeypatch.setattr(Gate, "_own", lambda self, how, n, purpose: torch.ones(n, *shape_of(how)))
    assert failing(processes.answers()) == ["no two processes draw alike for their records"]


# ---------------------------------------------------------------------- accounts


def test_costs_of_the_wrong_part_or_candidate_fail(monkeypatch):
    real = accounting.by_part
    with monkeypatch.context() as m:
        m.setattr(accounting, "by_part", lambda spent: real(spent)[-1:])
        assert failing(accounts.costs()) == ["what is drawn is not below a second sum"]
        assert failing(accounts.searches()) == []
    with monkeypatch.context() as m:
        m.setattr(accounts, "cost_curve", lambda s, o: (o, 1.1 * accounting.cost_curve(s, o)[1]))
        assert failing(accounts.costs()) == ["what is drawn is not far above a second sum"]
    monkeypatch.setattr(
        accounts, "search_claim", lambda s, d: accounting.search_claim(accounting.Search(s.trials, s.candidates[:1]), d)
    )
    assert failing(accounts.searches()) == ["a search costs what its worst candidate makes it"]


def test_an_account_that_is_overdrawn_fails(monkeypatch, tmp_path):
    real = veilset.privacy.account.Balance.share_of
    monkeypatch.setattr(veilset.privacy.account.Balance, "share_of", lambda self, sums: real(self, sums) / 2)
    assert "an account pays no more than its cap" in failing(accounts.filled())
    monkeypatch.undo()
    real_cap = veilset.privacy.account._order_cap
    with monkeypatch.context() as m:  # as if the best order had been known in advance
        m.setattr(veilset.privacy.account, "_order_cap", lambda order, share, cap: real_cap(order, 1.0, cap))
        assert "an account's orders share its cap" in failing(accounts.filled())
    account = accounts._account(tmp_path / "account")
    monkeypatch.setattr(veilset.privacy.account.Balance, "check", lambda self, cost: None)
    assert not accounts._overtaken(account)


def test_runs_that_do_not_pay_fail(monkeypatch):
    monkeypatch.setattr(Payment, "make", lambda self, plan, drawn=None: {"line": 1, "head": "0" * 64})
    assert failing(accounts.paid()) == ["an account is charged before anything is asked"]
    monkeypatch.undo()
    real = Account.draw
    monkeypatch.setattr(Account, "draw", lambda self, *a, run=None, **k: real(self, *a, **k))
    assert failing(accounts.paid()) == ["an account is charged before anything is asked"]


def test_lines_that_are_not_synced_fail(monkeypatch):
    real = Ledger.append

    def lazy(self, kind, **body):
        fsync, os.fsync = os.fsync, lambda fd: None
        try:
            real(self, kind, **body)
        finally:
            os.fsync = fsync

    monkeypatch.setattr(Ledger, "append", lazy)
    assert failing(accounts.synced()) == ["charges are on disk before answers"]


# ---------------------------------------------------------------------- folders


def test_files_that_are_not_looked_at_fail(monkeypatch):
    monkeypatch.setattr(veilset.privacy.receipt, "check_list", lambda *a: "fine")
    assert failing(folders.changed()) == ["only what was released verifies"]


def test_versions_that_are_taken_at_their_word_fail(monkeypatch):
    monkeypatch.setattr(veilset.privacy.receipt, "known_fault", lambda *a: "")
    assert failing(folders.versions()) == ["claims of versions with a fault are not trusted"]


def test_pictures_of_any_kind_fail(monkeypatch):
    import numpy as np

    def any_kind(data, shape):
        from io import BytesIO

        from PIL import Image

        return np.asarray(Image.open(BytesIO(data)))[None]

    monkeypatch.setattr(folders, "decode_png", any_kind)
    monkeypatch.setattr(pictures, "decode_png", any_kind)
    assert failing(folders.decoded()) == ["a picture of a release is a PNG of the declared shape"]


def test_private_files_for_others_or_elsewhere_fail(monkeypatch):
    real = run_store.write_bytes
    with monkeypatch.context() as m:
        m.setattr(run_store, "write_bytes", lambda path, data, mode=0o644: real(path, data, mode=0o644))
        assert failing(folders.kept()) == ["what a run keeps is for its owner alone"]
    monkeypatch.setattr(run_store, "no_links", lambda folder: folder)
    assert failing(folders.kept()) == ["what a run keeps is for its owner alone"]


def test_other_data_that_a_run_goes_on_with_fails(monkeypatch):
    monkeypatch.setattr(run_store.hmac, "compare_digest", lambda a, b: True)
    assert failing(folders.resumed()) == ["a run goes on with what it was started with"]


# ---------------------------------------------------------------------- searches


@pytest.mark.long
def test_a_search_priced_by_some_candidates_fails(monkeypatch):
    real = tuning.Search
    monkeypatch.setattr(tuning, "Search", lambda trials, candidates: real(trials, candidates[:1]))
    assert failing(searches.prices())


@pytest.mark.parametrize(
    ("ends", "name"),
    [
        (lambda best, which: best > 0.99, "no score ends a search, or lets it go on"),
        (lambda best, which: best < 0.0, "no score ends a search, or lets it go on"),
        (lambda best, which: which == 2, "each trial draws a candidate anew"),
    ],
    ids=["good", "bad", "candidate"],
)
def test_a_search_that_ends_by_its_scores_fails(ends, name, monkeypatch):
    last, real = [], searches.mock.patch.object

    class Coins:
        def __init__(self):
            self.coin = tuning.random.Random(3)

        def randrange(self, n):
            return 0 if n == searches.TRIALS and last and ends(*last[-1]) else self.coin.randrange(n)

    def patched(thing, what, how):
        def seen(p, d, which, *rest):
            got = how(p, d, which, *rest)
            last.append((got[0], which))
            return got

        return real(thing, what, seen if what == "_trial" else how)

    monkeypatch.setattr(tuning.secrets, "SystemRandom", Coins)
    monkeypatch.setattr(searches.mock.patch, "object", patched)
    assert name in failing(searches.trials())


def test_the_wrong_trial_that_is_kept_fails(monkeypatch):
    monkeypatch.setattr(tuning, "max", lambda *a, key: a[1], raising=False)
    assert failing(searches.trials()) == ["a search keeps its best trial"]


def test_a_run_that_is_taken_for_another_fails(monkeypatch):
    real = Account.draw
    monkeypatch.setattr(Account, "draw", lambda self, *a, run=None, **k: real(self, *a, run=run and None, **k))
    assert failing(searches.written_down()) == ["what is written down late costs what it did"]


# ---------------------------------------------------------------------- streams


def test_a_stream_that_costs_less_fails(monkeypatch):
    from veilset.continual import plan

    monkeypatch.setattr(plan, "together", lambda tasks, one: [Spent(4.0)])
    assert "a stream is not claimed below its tasks' sum" in failing(streams.costs())


def test_a_task_that_reads_more_or_believes_more_fails(monkeypatch):
    real = private.restricted
    with monkeypatch.context() as m:
        m.setattr(streams, "restricted", lambda data, info, one: real(data, info, False))
        assert failing(streams.parts()) == ["a task reads its own classes alone"]


def test_a_stream_that_is_not_looked_into_fails(monkeypatch):
    monkeypatch.setattr(check, "membership", lambda book, number: None)
    assert failing(streams.altered()) == ["only what was planned and released verifies"]  # not even as it was made
    monkeypatch.undo()
    monkeypatch.setattr(check, "_folder", lambda stream: "fine")
    assert failing(streams.altered()) == ["only what was planned and released verifies"]


def test_a_task_that_is_run_twice_fails(monkeypatch):
    real = stream.TaskStream._begin
    monkeypatch.setattr(
        stream.TaskStream,
        "_begin",
        lambda self, book, number: self._home(number).mkdir(exist_ok=True) or real(self, book, number),
    )
    assert failing(streams.paid()) == ["a stream is paid as a whole, and each task run once"]
