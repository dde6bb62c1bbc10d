"""Quiet faults of coins, draws, chunks and sums: tests/faults has one patch for each, and these notice them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sets import facts, gate_for, linear_loss, linear_params, pictures, pixels, private

import veilset as vs
from veilset.methods import base
from veilset.privacy import gate as gates
from veilset.privacy.alone import steady_rows
from veilset.privacy.bounding import grid
from veilset.privacy.draws import Uniform, drawn, shared
from veilset.privacy.gate import Gate
from veilset.privacy.gradients import Clipped
from veilset.privacy.gradients.reference import per_record
from veilset.privacy.gradients.rules import RULES
from veilset.privacy.gradients.taps import tapped
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import InMemory, Opened, from_arrays
from veilset.privacy.reading import Reader
from veilset.privacy.sampling import Units
from veilset.privacy.spec import Privacy

BOUND = 1.5
NO_NOISE = Privacy(math.inf)
DRAWS = {"z": (4,), "u": Uniform((4,))}


def nobody(info):
    return from_arrays(info, *(a[:0] for a in pictures(1, info)))


def exact(data, release: Release, **options) -> Gate:
    """A gate whose answers are the sums themselves."""
    return Gate(data, Plan((release,)).price(NO_NOISE, data.info), **options)


def drawing(net, x, y, own):
    return (net(x.flatten()[None])[0] * own["z"].sum() * own["u"].sum()).sum()


def few(monkeypatch, rows: int) -> None:
    """So few rows a chunk that small sets have several."""
    monkeypatch.setattr(gates, "MANY", rows)
    monkeypatch.setattr(Clipped, "most", lambda self, memory: rows)


# ---------------------------------------------------------------------- coins, keys, noise


def test_small_rates_are_not_rounded():
    """3 x 10^7 coins at a rate just above a multiple of 2^-16, of which the next is a seventh larger."""
    units = Units(Opened(InMemory(np.zeros((1, 1, 1, 1), np.uint8)), np.zeros(10**6, np.int64), None), 1)
    for rate in (9.3e-5, 1.6e-5):
        taken = sum(len(units.sample(rate, Stream(bytes([k] * 32)))) for k in range(30))
        assert binomtest(taken, 30 * 10**6, rate).pvalue > 1e-6


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_each_part_has_all_of_the_noise(verb):
    info = facts(shape=(1, 100, 100))
    gate = gate_for(nobody(info), Release(name="r", verb=verb, bound=BOUND, partition="class"))
    for part in range(3):
        if verb == "sum":
            got = gate.sum("r", pixels, part=part)
        else:
            got = gate.grad("r", linear_loss, linear_params(info), part=part)["w"] * info.units
        assert float(got.double().std()) == pytest.approx(gate.plan["r"].noise_multiplier * BOUND, rel=0.05)


def test_keys_are_secret_on_every_device():
    """Whatever torch is seeded with. The device is not used until something is asked."""
    seen = set()
    for device in ("cpu", "cuda", "cuda:1", "mps", "meta"):
        for _ in range(2):
            torch.manual_seed(0)
            seen.add(
                gate_for(private(), Release(name="a"), seed=None, device=device)._keys.stream("x").uint64(4).tobytes()
            )
    assert len(seen) == 10


def test_no_two_streams_are_alike(monkeypatch):
    """Those of coins, noise and draws, of steps, parts, releases with long names and chunks."""
    first, purposes, real = [], [], Keys.stream

    def stream(self, purpose):
        purposes.append(purpose)
        first.append(real(self, purpose).uint64(2).tobytes())
        return real(self, purpose)

    monkeypatch.setattr(Keys, "stream", stream)
    few(monkeypatch, 8)
    names = ["gradient-of-the-generator", "gradient-of-the-generators-twin"]
    releases = [Release(name=n, verb="grad", steps=2, partition="class", sample_rate=0.9) for n in names]
    net = torch.nn.Linear(16, 2)
    gate = gate_for(private(), *releases, seed=None)
    for name in names:
        for part in range(3):
            for _ in range(2):
                gate.grad(name, drawing, net, part=part, draws=DRAWS)
    assert len(set(first)) == len(first) >= 12 * 2 + 12 * 2 * 2
    assert len({p for p in purposes if p.startswith("draw/")}) == sum(p.startswith("draw/") for p in purposes)


@pytest.mark.parametrize("n", [0, 1, 400])
def test_noisy_gradients_lie_on_the_declared_grid(n):
    """They say neither how many there are nor, in bits below the grid, what the sum was."""
    info = facts(shape=(1, 32, 32))
    gate = gate_for(from_arrays(info, *pictures(n, info)), Release(name="r", verb="grad", bound=BOUND))
    params = {k: v.double() for k, v in linear_params(info).items()}

    def loss(p, x, y):
        return linear_loss(p, x.double(), y)

    got = torch.cat([g.flatten() for g in gate.grad("r", loss, params).values()])
    factor = grid(BOUND, gate.plan["r"].noise_multiplier * BOUND, info.units) / info.units
    whole = (got / factor).round()
    assert torch.equal(whole * factor, got)
    assert abs(float(whole.remainder(2).mean()) - 0.5) < 5 * 0.5 / math.sqrt(len(got))


# ---------------------------------------------------------------------- what losses draw


@pytest.mark.parametrize("how", [(3,), (4, 2), (), Uniform((3,)), Uniform()], ids=str)
def test_no_bit_is_in_the_draws_of_two_records(how):
    """What the proof takes for granted when it hands draws out in another order."""

    def draws(word: int, bit: int) -> torch.Tensor:
        stream, at, real = Stream(bytes(32)), [0], Stream.uint64

        def flipped(n):
            got = real(stream, n).copy()
            if at[0] <= word < at[0] + n:
                got[word - at[0]] ^= np.uint64(1 << bit)
            at[0] += n
            return got

        stream.uint64 = flipped
        return drawn(how, 5, stream).reshape(5, -1)

    plain, moved = draws(10**6, 0), set()
    for word in range(40):
        for bit in (22, 54):  # one in each half of a word, high enough to show
            rows = (draws(word, bit) != plain).any(1).nonzero()[:, 0].tolist()
            assert len(rows) <= 1
            moved |= set(rows)
    assert moved == set(range(5))


class Drawing(vs.Synthesizer):
    """A method whose loss has draws of each record's own."""

    name = "drawing"

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="step", verb="grad", sample_rate=0.9, steps=2),))

    def _fit(self, gate, info, plan):
        w = torch.nn.Linear(info.pixels, 2)
        for _ in range(2):
            gate.grad("step", drawing, w, draws=DRAWS)
        return {"w": w.weight}

    def _sample(self, state, info, labels):
        return torch.zeros(len(labels), *info.shape)


def test_own_draws_follow_no_public_seed(monkeypatch):
    """Neither a seed of the user's nor that of the public randomness, which resumed runs have again."""
    rows, real = [], Clipped.add

    def add(self, total, loss, params, inputs, *rest):
        rows.extend(r.numpy().tobytes() for v in inputs[2:] for r in v)
        return real(self, total, loss, params, inputs, *rest)

    monkeypatch.setattr(Clipped, "add", add)
    monkeypatch.setattr(base, "_public_seed", lambda folder: 11)
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        Drawing().fit(private(), Privacy(1.0))
    assert len(rows) == len(set(rows)) >= 2 * 2 * 2 * 50


@pytest.mark.parametrize("seed", [3, 4])
def test_shared_draws_are_those_of_their_seed(seed):
    """Whatever was drawn before, by every generator; which then go on as if nothing had been."""
    takers = (lambda: float(torch.rand(())), np.random.rand, random.random)
    for take in takers:
        seen = []
        for before in range(2):
            torch.manual_seed(before)
            np.random.seed(before)
            random.seed(before)
            with shared(seed, torch.device("cpu")):
                seen.append(take())
            after = take()
            torch.manual_seed(before)
            np.random.seed(before)
            random.seed(before)
            assert take() == after
        assert seen[0] == seen[1] != after
        with shared(seed + 1, torch.device("cpu")):
            assert take() != seen[0]


@pytest.mark.parametrize("look", [per_record, lambda *a: {"all": tapped(*a).rows()}], ids=["general", "fast"])
def test_equal_records_have_one_gradient_whatever_a_loss_draws(look):
    """On each of the two paths: the gate itself would fall back to the other, or to chunks of one record."""
    w = torch.nn.Linear(16, 8)

    def loss(net, x, y):
        return (net(torch.nn.functional.dropout(x.flatten())[None])[0] * torch.randn(8)).sum()

    with shared(5, torch.device("cpu")):
        got = look(loss, w, [torch.ones(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64)])
    for rows in got.values():
        assert rows.any() and torch.equal(rows, rows[:1].expand_as(rows))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("units", [1, 3])
def test_a_loss_draws_alike_for_all_records(fast, units, monkeypatch):
    """Equal records in several chunks have one gradient: what they add points one way, as long as all of them."""
    if not fast:
        monkeypatch.setattr(Clipped, "_probe", lambda self, loss, params: False)
    few(monkeypatch, 8)
    n = 30
    info = facts(units=n, unit="one person" if units > 1 else "one image", max_images_per_unit=units)
    data = from_arrays(
        info, np.full((n, 1, 4, 4), 255, np.uint8), np.zeros(n, np.int64), np.arange(n) // units if units > 1 else None
    )
    w = torch.nn.Linear(16, 8)

    def loss(net, x, y):
        return 1e3 * (net(x.flatten()[None])[0] * torch.randn(8)).sum()

    got = exact(data, Release(name="r", verb="grad", bound=BOUND)).grad("r", loss, w)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in got.values())) * n
    assert norm == pytest.approx(n / units * BOUND, rel=2e-3)


# ---------------------------------------------------------------------- neighbours and places


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_chunks_have_the_same_rows_whoever_is_there(verb, monkeypatch):
    seen, real = set(), Reader.chunks

    def chunks(self, chosen, rows, features=None):
        for c in real(self, chosen, rows, features):
            seen.add((rows, len(c.x), len(c.y)))
            yield c

    monkeypatch.setattr(Reader, "chunks", chunks)
    info = facts(units=300)
    for n in (1, 33, 300, 2000):
        release = Release(name="r", verb=verb, sample_rate=0.5, steps=2)
        gate = exact(from_arrays(info, *pictures(n, info)), release, seed=0)
        for _ in range(2):
            gate.sum("r", pixels) if verb == "sum" else gate.grad("r", linear_loss, linear_params(info))
    assert len(seen) == 1 and len(set(seen.pop())) == 1


def test_a_record_that_sees_who_is_there_is_mapped_alone():
    """Not by their order, which a sum over all of them forgets."""
    like = torch.zeros(1, 2, 2), torch.zeros((), dtype=torch.int64)
    assert steady_rows("r", lambda x, y: [x * (1.0 + (x.amax() > 1))], like, 3, 64) == 1


class Leaky(torch.autograd.Function):
    """As matrix products do: what lies behind a record is multiplied by 0, and NaN times 0 is NaN."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g

    @staticmethod
    def vmap(info, in_dims, x):
        return (x + 0.0 * x.roll(-1, 0)) if in_dims[0] == 0 else x.clone(), in_dims[0]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("verb", ["sum", "grad"])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_nan_in_one_record_takes_no_other_along(verb, images, place):
    """The answer is that without its unit, to rounding: everybody else contributes once."""
    info = facts(
        value_range=(0.0, 1.0), units=20, unit="one person" if images > 1 else "one image", max_images_per_unit=images
    )
    x = pictures(20, info)[0].astype(np.float32) / 255
    y, units = np.zeros(20, np.int64), np.arange(20) // images
    kept = units != units[place]

    def answer(x, y, units):
        data = from_arrays(info, x, y, units if images > 1 else None)
        gate = exact(data, Release(name="r", verb=verb, bound=0.5), seed=0)
        if verb == "sum":
            return gate.sum("r", lambda x, y: Leaky.apply(x).flatten())
        w = {"w": torch.zeros(16)}
        return gate.grad("r", lambda p, x, y: (p["w"] * Leaky.apply(x).flatten()).sum(), w)["w"] * info.units

    without = answer(x[kept], y[kept], units[kept])
    x[place] = np.nan
    got = answer(x, y, units)
    if verb == "sum" and images > 1:  # a unit's image that is a number still has its share
        assert float((got - without).norm()) <= 0.25
    else:
        assert float((got - without).norm()) < 1e-5
    assert float(without.norm()) > 0.3 * kept.sum() / images


@pytest.mark.parametrize("n", [1, 2, 31])
def test_blank_rows_add_nothing(n):
    """Though a blank image has a gradient."""
    info = facts()
    x, y = pictures(n, info)
    gate = exact(from_arrays(info, x, np.zeros(n, np.int64)), Release(name="r", verb="grad", bound=0.5))
    got = gate.grad("r", lambda p, x, y: 1e3 * p["w"].sum() + 0 * x.sum(), {"w": torch.zeros(5)})["w"] * info.units
    assert float(got.norm()) == pytest.approx(0.5 * n, rel=2e-3)


@pytest.mark.filterwarnings("ignore:gradients are computed by the slower general path")
def test_a_layer_that_is_computed_wrongly_is_not_trusted(monkeypatch):
    """A rule that says half of a gradient: its norm would be half, and twice the bound be added."""
    f = torch.nn.functional.linear
    make = RULES[f]

    def wrong(args, kwargs, find):
        made = make(args, kwargs, find)
        if made is None:
            return None
        rule, x = made
        backward = rule.backward
        rule.backward = lambda g, needed: backward(0.5 * g, needed)
        return rule, x

    monkeypatch.setitem(RULES, f, wrong)
    like = torch.zeros(1, 4, 4), torch.zeros((), dtype=torch.int64)
    net = torch.nn.Linear(16, 3)
    loss = lambda net, x, y: net(x.flatten()[None])[0].square().sum()  # noqa: E731
    assert not Clipped(loss, net, like).fast
    monkeypatch.setitem(RULES, f, make)
    assert Clipped(loss, net, like).fast
