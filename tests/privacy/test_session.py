"""A session closes its gate and makes the claim, whoever asks; an error leaves neither."""

from __future__ import annotations

import pytest
import torch
from sets import facts, pixels, priced, private

from veilset.core.errors import PlanError
from veilset.core.types import PublicInfo
from veilset.methods.base import Synthesizer
from veilset.privacy.plan import Plan, Release
from veilset.privacy.receipt import verify
from veilset.privacy.session import Session
from veilset.privacy.spec import Privacy

RELEASE = Release(name="a")


class Public(Synthesizer):
    """Keeps what torch's generator, which protects nothing, gives it."""

    name = "public"

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return Plan((RELEASE,))

    def _fit(self, gate, info: PublicInfo, plan: Plan) -> dict[str, torch.Tensor]:
        gate.sum("a", pixels)
        return {"public": torch.rand(3)}

    def _sample(self, state, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(labels), *info.shape)


def opened(**changes) -> Session:
    return Session(private(), priced((RELEASE,), 1.0, facts()), **{"what": "tester", "config": {"width": 3}} | changes)


def test_leaving_the_block_closes_the_gate_with_the_claim(tmp_path):
    with opened() as session:
        session.gate.sum("a", pixels)
        assert session.receipt is None
    assert session.receipt is not None and session.receipt.epsilon <= 1 + 1e-9
    assert (session.receipt.method, session.receipt.config) == ("tester", {"width": 3})
    with pytest.raises(PlanError, match="the gate is closed"):
        session.gate.sum("a", pixels)
    run = session.receipt.run
    assert session.close().run == run, "one run has one claim"
    session.write(tmp_path)
    assert verify(tmp_path).ok


def test_an_error_leaves_no_claim_and_the_ledger_open():
    with pytest.raises(ZeroDivisionError), opened() as session:
        session.gate.sum("a", pixels)
        _ = 1 / 0
    assert session.receipt is None and not any(session.gate.ledger.bodies("close"))


def test_a_fit_in_a_session_takes_its_seed_and_its_claim_from_it():
    plan = Public().plan(facts(), Privacy(1.0))
    states = []
    for seed in (5, 5, 6, None):
        model = Public()
        session = model.session(private(), plan, seed=seed)
        model.fit_planned(session)
        assert model.receipt_ is session.receipt and model.ledger == session.ledger
        states.append(model.fitted()[0]["public"])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(states[0], torch.rand(3)), "the session's seed is that of the public randomness"
    assert torch.equal(states[0], states[1]) and len({tuple(s.tolist()) for s in states}) == 3
