"""Realised sensitivity under the coupling of the proof, for every method and teacher, and for losses of plug-ins."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from test_methods import maker

import veilset as vs
from veilset import testing as kit
from veilset.audit.selftest import coupled
from veilset.audit.selftest.methods import SMALL
from veilset.methods.catalogue import BUILT_IN
from veilset.methods.teachers import TEACHERS
from veilset.privacy import gate as gates
from veilset.privacy.draws import Uniform
from veilset.privacy.gradients import Clipped

WHITE = np.ones(64, np.float32)
MOST = 1.0 + 1e-12  # of the sensitivity


def fitter(make, seed):
    """A fit of a method or teacher in release mode, or with a seed."""
    return lambda world: make().fit(world.data.hide(), kit.BUDGET, seed=seed)


def everybody(name: str) -> dict[str, int]:
    """Parameters with which each step reads all units."""
    small = SMALL.get(name, {})  # a batch of a hidden model is no sample of the units
    return {"batch_size": 60} if "batch_size" in small and "shards" not in small else {}


@pytest.mark.parametrize(
    ("seed", "images"),
    [(None, 3), *(pytest.param(*pair, marks=pytest.mark.long) for pair in ((None, 1), (5, 1), (5, 3)))],
)
@pytest.mark.parametrize("name", BUILT_IN)
def test_one_unit_moves_each_sum_by_at_most_its_sensitivity(name, seed, images):
    d, others = coupled.worlds(images, WHITE, 4)
    got = coupled.realised(fitter(maker(name), seed), d, others)
    assert set(got) == set(coupled.PLACES) and max(got.values()) <= MOST


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in BUILT_IN if everybody(n)])
def test_also_where_each_step_reads_everybody(name):
    d, others = coupled.worlds(1, WHITE, 4)
    made = maker(name)
    got = coupled.realised(fitter(lambda: type(made())(**SMALL[name] | everybody(name)), None), d, others)
    assert 0.5 < max(got.values()) <= MOST  # it is seen that somebody is there


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("images", [1, 3])
def test_teachers(name, images):
    d, others = coupled.worlds(images, WHITE, 4)
    got = coupled.realised(fitter(lambda: vs.make_teacher(name, steps=2, batch_size=20), None), d, others)
    assert max(got.values()) <= MOST


# ---------------------------------------------------------------------- what a loss may draw


class Draws(vs.Synthesizer):
    """A mean by steps, with a loss that draws as `how` says: large beside the image, so that a wrong tie is seen."""

    name = "draws"

    def __init__(self, how):
        super().__init__()
        self.how = how

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="step", verb="grad", sample_rate=0.9, steps=2, bound=0.5),))

    def _fit(self, gate, info, plan):
        w, how = torch.nn.Linear(info.pixels, 8), self.how
        drop = torch.nn.Dropout(0.5)
        declared = {"z": (8,), "u": vs.Uniform((info.pixels,))} if how == "declared" else {}

        def loss(net, x, y, own=None):
            x = x.flatten()
            if how == "torch":
                return (net((x * torch.rand(len(x)))[None])[0] * 5 * torch.randn(8)).sum()
            if how == "dropout":
                return (net(drop(x)[None])[0] * 5).square().sum()
            if how == "numpy":
                return (net(x[None])[0] * torch.from_numpy(np.random.randn(8)).float() * 5).sum()
            return (net((x * own["u"])[None])[0] * 5 * own["z"]).sum()

        for _ in range(2):
            gate.grad("step", loss, w, draws=declared)
        return {"w": w.weight}

    def _sample(self, state, info, labels):
        return torch.zeros(len(labels), *info.shape)


@pytest.mark.parametrize("how", ["torch", "dropout", "numpy", "declared"])
@pytest.mark.parametrize("images", [1, 3])
def test_losses_that_draw(how, images):
    d, others = coupled.worlds(images, WHITE, 4)
    got = coupled.realised(fitter(lambda: Draws(how), 3), d, others)
    assert 0.1 < max(got.values()) <= MOST


def test_draws_that_follow_a_records_place_are_seen(monkeypatch):
    """The measure itself: with the draws of a row, not of a record, the sum moves by far more."""
    d, others = coupled.worlds(1, WHITE, 4)

    def by_row(self, how, rows, purpose):
        made = self._keys.stream(purpose)
        shape = how.shape if isinstance(how, Uniform) else how
        n = rows * int(np.prod(shape))
        return (made.uniform(n) if isinstance(how, Uniform) else made.normal(n)).view(rows, *shape)

    real = coupled.mock.patch.object

    def patched(thing, name, how):
        return real(thing, name, by_row if name == "_own" else how)

    monkeypatch.setattr(coupled.mock.patch, "object", patched)
    got = coupled.realised(fitter(lambda: Draws("declared"), 3), d, others)
    assert got["end"] <= MOST and got["front"] > 3


# ---------------------------------------------------------------------- the streams of production are fresh


def purposes(fit):
    """All purposes that a fit took a stream for, in order."""
    seen, real = [], gates.Keys.stream
    with (
        mock.patch.object(gates.Keys, "stream", lambda self, purpose: seen.append(purpose) or real(self, purpose)),
        mock.patch.object(Clipped, "most", lambda self, memory: coupled.FEW),
    ):
        fit()
    return seen


@pytest.mark.parametrize("name", list(BUILT_IN))
@pytest.mark.parametrize("seed", [None, pytest.param(4, marks=pytest.mark.long)])
def test_no_two_streams_are_for_one_purpose(name, seed):
    data = coupled.worlds(1, WHITE, 4)[0].data.hide()
    seen = purposes(lambda: maker(name)().fit(data, kit.BUDGET, seed=seed))
    assert len(seen) == len(set(seen))


def test_each_record_of_each_step_and_chunk_draws_anew_whatever_torch_is_seeded_with(monkeypatch):
    """Release mode: no row of a draw occurs twice, in a run or in a second one with torch and NumPy seeded alike."""
    rows, real = [], gates.Gate._own

    def kept(self, how, n, purpose):
        drawn = real(self, how, n, purpose)
        rows.extend(r.numpy().tobytes() for r in drawn)
        return drawn

    monkeypatch.setattr(gates.Gate, "_own", kept)
    monkeypatch.setattr(Clipped, "most", lambda self, memory: coupled.FEW)
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        Draws("declared").fit(coupled.worlds(1, WHITE, 4)[0].data.hide(), kit.BUDGET)
    assert len(rows) == len(set(rows)) >= 2 * 2 * 2 * 2 * coupled.FEW  # runs, steps, draws, chunks


def test_research_draws_follow_the_seed_alone(monkeypatch):
    def drawn(seed, torch_seed):
        rows, real = [], gates.Gate._own
        with monkeypatch.context() as m:
            m.setattr(gates.Gate, "_own", lambda self, *a: rows.append(real(self, *a)) or rows[-1])
            torch.manual_seed(torch_seed)
            Draws("declared").fit(coupled.worlds(1, WHITE, 4)[0].data.hide(), kit.BUDGET, seed=seed)
        return torch.cat([r.flatten() for r in rows])

    assert torch.equal(drawn(1, 0), drawn(1, 9)) and not torch.equal(drawn(1, 0), drawn(2, 0))
