"""Where random numbers come from: every use has its own stream, noise its exact deviation, a record its own bits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from veilset.audit.selftest.base import (
    Array,
    Check,
    chi_square,
    facts,
    flat,
    gate_for,
    hidden,
    pictures,
    random_check,
    two_sided,
    uncorrelated,
    wrong,
)
from veilset.privacy.draws import Uniform, drawn, shared
from veilset.privacy.gate import Gate
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

OWN: dict[str, Any] = {"normal": (3,), "even": (2, 2), "uniform": Uniform((3,)), "one": ()}
NAMES = ("gradient-of-a-generator", "gradient-of-a-generators-twin")
BUDGET = Privacy(1.0, 1e-5)
LARGEST = 5.9  # what 24 bits reach: sqrt(2 log 2^24) deviations


def purposes() -> Iterator[Check]:
    """Coins, noise and draws of steps, parts, releases and chunks: no two have a stream in common, or one word."""
    first: list[bytes] = []
    asked: list[str] = []
    real = Keys.stream

    def stream(self: Keys, purpose: str) -> Stream:
        asked.append(purpose)
        first.append(real(self, purpose).uint64(2).tobytes())
        return real(self, purpose)

    with patch.object(Keys, "stream", stream):
        count = _ask_everything(BUDGET)
    again = (len(asked) - len(set(asked))) + (len(first) - len(set(first)))
    fewer = max(0, count - len(asked))
    yield Check(
        "every use of random numbers has its own stream",
        float(again + fewer),
        0.0,
        f"of {len(asked)} streams those that are not",
    )


def deviations() -> Iterator[Check]:
    """What the gate asks the sampler for: noise multiplier times enforced bound, in the grid's units, never less."""
    asked: list[tuple[int, float]] = []
    real = Stream.noise

    def noise(self: Stream, n: int, std: float) -> Array:
        asked.append((n, std))
        return real(self, n, std)

    info, off, count = facts(), 0, 0
    data = hidden(info, *pictures(20, info))
    for verb in ("sum", "grad"):
        for bound in (0.1, 1.0, 3.7e-5, 2.5e4):
            how = Release(name="r", verb=verb, bound=bound, steps=2, weight=1.3)
            for release in (how, Release(**vars(how) | {"partition": "class"})):
                gate = gate_for(data, release, privacy=BUDGET)
                planned = gate.plan["r"]
                largest = max(8 * info.units * bound, 64 * planned.noise_multiplier * bound)
                step = Fraction(2) ** (math.frexp(largest)[1] - 53)  # of declared facts alone
                least = Fraction(planned.noise_multiplier) * Fraction(bound) / step
                with patch.object(Stream, "noise", noise):
                    asked.clear()
                    for part in range(len(info.classes)) if release.partition else (None,):
                        for _ in range(2):
                            _ask(gate, "r", verb, part)
                count += len(asked)
                off += sum(not least <= Fraction(std) <= least * (1 + Fraction(1, 2**50)) for _, std in asked)
                off += sum(n != 16 for n, _ in asked) + (len(asked) != (6 if release.partition else 2))
    yield Check("noise is asked for in its exact deviation", float(off), 0.0, f"of {count} answers those with another")


def own_bits() -> Iterator[Check]:
    """No bit of the stream is in the draws of two records, nor in two numbers but for a pair of normals."""
    bad: dict[str, bool] = {}
    for name, how in OWN.items():
        plain, moved, apart = _flipped(how, 10**6, 0), set(), True
        for word in range(24):
            for bit in (22, 54):  # one in each half of a word, high enough to show
                differ = (_flipped(how, word, bit) != plain).reshape(5, -1)
                rows = differ.any(1).nonzero()[:, 0].tolist()
                most = 1 if isinstance(how, Uniform) else 2
                apart &= len(rows) <= 1 and int(differ.sum()) <= most
                moved |= set(rows)
        bad[name] = apart and moved == set(range(5))
    yield wrong("no bit is in the draws of two records", "kinds of draws in which one is", of=bad)


def own_laws() -> Iterator[Check]:
    """Draws of a record's own are what they are called: 400,000 of each."""
    from scipy.stats import kstest, kurtosistest

    n, keys = 400_000, Keys(None)
    u = drawn(Uniform((2,)), n // 2, keys.stream("selftest/uniform")).double().numpy()
    z = drawn((2,), n // 2, keys.stream("selftest/normal")).double().numpy()
    p = [
        float(kstest(u.ravel(), "uniform").pvalue),
        float(kstest(z.ravel(), "norm").pvalue),
        float(kurtosistest(z.ravel()).pvalue),
    ]
    p += [chi_square(float((z**2).sum()), z.size), two_sided(float(z.mean()) * math.sqrt(z.size))]
    for v in (u - 0.5, z):
        p += [uncorrelated(f(v[:, 0]), f(v[:, 1])) for f in (np.asarray, np.square)]
        p += [uncorrelated(f(v[:-1].ravel()), f(v[1:].ravel())) for f in (np.asarray, np.square)]
    yield random_check("draws of a record's own follow their laws", "distribution, moments and correlations", *p)
    inside = float(u.min()) >= 0 and float(u.max()) < 1 and float(np.abs(z).max()) < LARGEST
    yield wrong("draws of a record's own are in range", "ranges that are left", of={"all": bool(inside)})


def shared_draws() -> Iterator[Check]:
    """What a loss draws is that of the step's seed, by every generator; the user's generators go on as before."""
    takers: dict[str, Callable[[], float]] = {
        "torch": lambda: float(torch.rand(())),
        "torch, normal": lambda: float(torch.randn(())),
        "NumPy": lambda: float(np.random.rand()),
        "NumPy, whole numbers": lambda: float(np.random.randint(2**31)),
        "Python": random.random,
        "Python, gauss": lambda: random.gauss(0, 1),
    }
    of = {}
    for name, take in takers.items():
        with _users_generators():
            seen, kept = {}, True
            for before in (3, 4):
                for seed in (5, 6, 2**61 + 7):
                    _seed(before)
                    take()
                    with shared(seed, torch.device("cpu")):
                        seen[before, seed] = tuple(take() for _ in range(2))
                    after = take()
                    _seed(before)
                    take()
                    kept &= take() == after
            one = {seed: seen[3, seed] for _, seed in seen}
            of[name] = kept and all(seen[4, s] == v for s, v in one.items()) and len(set(one.values())) == len(one)
    yield wrong("a loss draws by the seed of its step alone", "generators that do not", of=of)


CHECKS = (purposes, deviations, own_bits, own_laws, shared_draws)


def _ask(gate: Gate, name: str, verb: str, part: int | None = None, draws: Any = None) -> None:
    if verb == "sum":
        gate.sum(name, flat, part=part)
        return

    def loss(p: Any, x: torch.Tensor, y: torch.Tensor, *own: Any) -> torch.Tensor:
        scale = sum((v.sum() for v in own[0].values()), torch.ones(())) if own else 1.0
        return (p["w"] * x * scale).sum()

    gate.grad(name, loss, {"w": torch.zeros(gate.info.shape)}, part=part, draws=draws)


def _ask_everything(privacy: Privacy) -> int:
    """Two steps of all parts of releases with long names; returns how many streams that takes at least."""
    info = facts(units=50)
    data = hidden(info, *pictures(140, info))
    sums = [Release(name=n, steps=2) for n in (NAMES[0] + "-sum", NAMES[1] + "-sum")]
    parts = [Release(name=n, verb="grad", steps=2, partition="class") for n in NAMES]
    gate = gate_for(data, *sums, *parts, privacy=privacy)
    for _ in range(2):
        for r in sums:
            _ask(gate, r.name, "sum")
        for r in parts:
            for part in range(len(info.classes)):
                _ask(gate, r.name, "grad", part, OWN)
    return 2 * 2 * 2 + 2 * 2 * 3 * (2 + len(OWN))


def _flipped(how: Any, word: int, bit: int) -> torch.Tensor:
    """Draws of five records of a stream in which one bit is another."""
    stream, at, real = Stream(bytes(32)), [0], Stream.uint64

    def uint64(n: int) -> Array:
        got = real(stream, n).copy()
        if at[0] <= word < at[0] + n:
            got[word - at[0]] ^= np.uint64(1 << bit)
        at[0] += n
        return got

    stream.uint64 = uint64  # type: ignore[method-assign]
    return drawn(how, 5, stream)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _users_generators() -> Iterator[None]:
    """They are put back."""
    kept, plain = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(kept)
        random.setstate(plain)
