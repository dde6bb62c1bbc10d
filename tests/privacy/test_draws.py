"""Random numbers inside a loss: the same for all records, or declared and each record's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from sets import facts, gate_for, linear_loss, linear_params, private

from veilset import Uniform
from veilset.core.errors import ConfigError
from veilset.privacy.draws import drawn, shared
from veilset.privacy.noise import Stream
from veilset.privacy.plan import Release

STEP = Release(name="step", verb="grad", steps=3)
CPU = torch.device("cpu")


def test_draws_have_the_declared_shapes_and_ranges():
    normal, uniform = drawn((2, 3), 500, Stream(bytes(32))), drawn(Uniform((4,)), 500, Stream(bytes(32)))
    assert normal.shape == (500, 2, 3) and uniform.shape == (500, 4)
    assert normal.dtype == uniform.dtype == torch.float32
    assert 0 <= float(uniform.min()) < 0.01 and 0.99 < float(uniform.max()) < 1 and float(normal.min()) < -2
    assert drawn((), 3, Stream(bytes(32))).shape == drawn(Uniform(), 3, Stream(bytes(32))).shape == (3,)


@pytest.mark.parametrize("bad", ["normal", 3, (2.0,), (-1,), (True,), Uniform(3), Uniform("x"), None])
def test_what_is_no_declaration_is_refused_before_any_record_is_read(bad):
    gate = gate_for(private(), STEP)
    with pytest.raises(ConfigError, match="draws 'code' = .*: must be a shape") as e:
        gate.grad("step", lambda p, x, y, own: linear_loss(p, x, y), linear_params(facts()), draws={"code": bad})
    assert "\n" not in str(e.value) and list(gate.ledger.bodies("charge")) == []


def everything() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def test_shared_draws_are_the_same_from_every_generator_and_leave_them_as_they_were():
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    kept = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    seen = []
    for seed in (5, 5, 6):
        with shared(seed, CPU):
            seen.append(everything())
    assert seen[0] == seen[1] and all(a != b for a, b in zip(seen[0], seen[2], strict=True))
    assert torch.equal(torch.get_rng_state(), kept[0]) and random.getstate() == kept[2]
    assert np.array_equal(np.random.get_state()[1], kept[1])
    with pytest.raises(ZeroDivisionError), shared(5, CPU):
        everything()
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), kept[0])


def test_a_step_takes_one_number_of_the_users_generator_whatever_was_sampled():
    after = []
    for n in (0, 50):
        torch.manual_seed(1)
        gate_for(private(n), STEP).grad("step", linear_loss, linear_params(facts()))
        after.append(torch.get_rng_state())
    assert torch.equal(*after)


def test_a_loss_whose_distribution_depends_on_the_record_is_refused_and_the_way_out_named():
    """Under one generator such draws would still differ by record, and by what stands beside it."""
    gate = gate_for(private(), STEP)
    with pytest.raises(ConfigError, match="declare the draw"):
        gate.grad("step", lambda p, x, y: (p["b"] * torch.bernoulli(x.clamp(0, 1)).sum()).sum(), linear_params(facts()))
    assert list(gate.ledger.bodies("charge")) == []


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_a_loss_that_keeps_a_state_or_a_generator_is_refused_and_the_way_out_named(verb):
    own = torch.Generator().manual_seed(0)
    gate = gate_for(private(), Release(name="step", verb=verb))
    with pytest.raises(ConfigError, match="asked twice about one record.*draws=") as e:
        if verb == "sum":
            gate.sum("step", lambda x, y: x.flatten() * np.random.default_rng(None).random())
        else:
            scale = lambda: torch.rand((), generator=own)  # noqa: E731
            gate.grad("step", lambda p, x, y: linear_loss(p, x, y) * float(scale()), linear_params(facts()))
    assert "\n" not in str(e.value) and list(gate.ledger.bodies("charge")) == []


def test_other_draws_are_another_loss():
    """What was decided for one declaration does not serve another."""
    gate = gate_for(private(), STEP)
    loss = lambda p, x, y, own: linear_loss(p, x, y) * own["level"].sum()  # noqa: E731
    for draws in ({"level": (2,)}, {"level": Uniform((5,))}, {"level": (2,), "more": ()}):
        got = gate.grad("step", loss, linear_params(facts()), draws=draws)
        assert bool(torch.isfinite(got["w"]).all())
    assert len({id(what) for _, (_, what, _) in gate._rows}) == 3
