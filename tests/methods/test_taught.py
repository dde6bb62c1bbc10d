"""taught-moments: the split of the budget, and labels that the teacher gave."""

from __future__ import annotations

import pytest
import torch

import veilset as vs
from veilset.methods.moments import taught_moments
from veilset.methods.moments.dp_moments import DPMoments
from veilset.methods.moments.taught_moments import blurred, even_out
from veilset.methods.stages import learned_by
from veilset.methods.teachers import dp_scatter


@pytest.mark.parametrize(("share", "epsilon", "cells"), [(0.3, 1.0, 2), (0.1, 10.0, 6)])
def test_the_plan_states_the_split_that_was_asked_for(share: float, epsilon: float, cells: int) -> None:
    info = vs.PublicInfo(name="x", classes=tuple("0123456789"), shape=(1, 28, 28), units=60_000)
    plan = vs.make("taught-moments", budget_share=share).plan(info, vs.Privacy(epsilon))
    rows = {r["name"]: r["epsilon_share"] for r in plan.to_json()["releases"]}
    assert rows["linear"] == pytest.approx(share, abs=0.06)
    assert sum(rows.values()) == pytest.approx(1)
    moments = vs.make("dp-moments", n_components=cells).plan(info, vs.Privacy(epsilon))
    assert rows["detail"] < 0.03
    sums = [r for r in plan.releases if r.name not in ("linear", "detail", "choice")]
    among = {r.name: r.noise_multiplier / plan["mean"].noise_multiplier for r in sums}
    alone = {r.name: r.noise_multiplier / moments["mean"].noise_multiplier for r in moments.releases}
    assert among == pytest.approx(alone), "the images' part is split as dp-moments splits all"


@pytest.fixture(scope="module")
def fitted():
    return vs.make("taught-moments", recipe="plain").fit(vs.load("digits").train, vs.Privacy(10.0), seed=0)


@pytest.mark.long
def test_images_carry_the_label_that_the_teacher_gives(fitted) -> None:
    images = fitted.sample(500, seed=0)
    teacher = learned_by("teacher", fitted._state)
    given = dp_scatter.scores(teacher, images.x.float() / 255, blurred).argmax(1)
    assert float((given == images.y).float().mean()) > 0.97  # all, but for what was never found and for rounding
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moments = learned_by("images", fitted._state)
        plain = DPMoments(basis_size=taught_moments.FREQUENCIES)._sample(moments, fitted.info_, images.y)
    drawn_for = dp_scatter.scores(teacher, plain, blurred).argmax(1)
    assert float((drawn_for == images.y).float().mean()) < 0.97, "nothing was left for the teacher to do"


@pytest.mark.long
def test_a_single_class_can_be_drawn(fitted) -> None:
    images = fitted.sample(40, classes=["3"], seed=1)
    assert set(images.y.tolist()) == {3}
    given = dp_scatter.scores(learned_by("teacher", fitted._state), images.x.float() / 255, blurred).argmax(1)
    assert float((given == 3).float().mean()) > 0.9


def test_offsets_even_out_the_labels() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(3000, 4) + torch.tensor([0.0, 4.0, -2.0, 1.0])
    before, after = (x.softmax(1).mean(0) for x in (logits, logits + even_out(logits)))
    assert float(before.max()) > 0.5
    assert torch.allclose(after, torch.full((4,), 0.25), atol=1e-3)
    assert bool(torch.isfinite(even_out(torch.tensor([[1e4, -1e4, 0.0]]))).all())


def test_the_teacher_sees_low_frequencies_only() -> None:
    x = torch.rand(2, 1, 28, 28)
    basis = taught_moments._basis((1, 28, 28))
    low = (x.flatten(1) @ basis.T @ basis).clamp(0, 1).view_as(x)
    assert torch.allclose(blurred(x), dp_scatter.seen(low)) and not torch.allclose(blurred(x), dp_scatter.seen(x))
    assert torch.allclose(torch.func.vmap(blurred)(x).float(), blurred(x).float(), atol=0.05)
