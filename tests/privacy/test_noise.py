"""The protecting noise: its scale, its shape, and what it does not depend on."""

from __future__ import annotations

from threading import current_thread

import numpy as np
import pytest
import torch

from veilset.privacy import noise
from veilset.privacy.noise import Keys, Stream


def test_draws_of_records_are_standard_normals_and_uniforms():
    from scipy.stats import kstest

    z, u = Stream(bytes(32)).normal(200_001).double().numpy(), Stream(bytes(32)).uniform(200_001).double().numpy()
    assert kstest(z, "norm").pvalue > 1e-3 and kstest(u, "uniform").pvalue > 1e-3
    assert np.isfinite(z).all() and u.min() >= 0 and u.max() < 1
    for v in (z, u):
        assert abs(np.corrcoef(v[:-1], v[1:])[0, 1]) < 0.01
    half = len(z) // 2
    for f in (lambda v: v, np.square, np.abs):  # both of a pair come from one radius
        assert abs(np.corrcoef(f(z[:half]), f(z[half + 1 :]))[0, 1]) < 0.02


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1001])
def test_any_number_of_draws(n):
    assert Stream(bytes(32)).normal(n).shape == Stream(bytes(32)).uniform(n).shape == (n,)


def test_a_stream_goes_on_and_does_not_repeat():
    stream = Stream(bytes(32))
    bits = np.concatenate([stream.uint64(1000) for _ in range(5)])
    assert len(np.unique(bits)) == 5000
    assert not np.array_equal(stream.noise(10, 1e9), stream.noise(10, 1e9))


def test_bits_are_even():
    bits = np.unpackbits(Stream(bytes(32)).uint64(20_000).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.002


def test_each_purpose_has_a_stream_of_its_own():
    keys = Keys(0)
    names = ["noise/a/None/0", "noise/a/None/1", "noise/a/0/0", "noise/b/None/0", "sample/a/None/0"]
    draws = [keys.stream(n).noise(2000, 1e9) for n in names]
    for i in range(len(draws)):
        for j in range(i):
            assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 0.1


def test_research_repeats_and_seeds_differ():
    draw = lambda seed: Keys(seed).stream("noise/x").noise(100, 1e9)  # noqa: E731
    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(1), draw(-1))


def test_row_15_release_noise_differs_and_ignores_user_seeds():
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        draws.append(Keys(None).stream("noise/x").noise(100, 1e9))
    assert not np.array_equal(*draws)


def test_research_noise_ignores_and_leaves_the_global_generators():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = Keys(5).stream("noise/x").noise(100, 1e9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(Keys(5).stream("noise/x").noise(100, 1e9), a)


def test_row_17_release_keys_are_256_bits_of_the_operating_system(monkeypatch):
    import secrets

    asked = []
    real = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda n: asked.append(n) or real(n))
    Keys(None)
    assert asked == [32]
    from veilset.privacy import noise

    assert noise.GENERATOR == "AES-256-CTR"


@pytest.mark.parametrize("having", [1, 2])
def test_noise_that_was_begun_has_the_same_bits(having, monkeypatch):
    n, threads, real = noise.WORTH, [], Stream.noise
    monkeypatch.setattr(noise, "cores", lambda: having)
    monkeypatch.setattr(Stream, "noise", lambda *a: threads.append(current_thread()) or real(*a))
    keys, plain = Keys(seed=0), Keys(seed=0).stream("noise/a").noise(n, 1e9)
    keys.begin("noise/a", n, 1e9)
    keys.begin("noise/b", n, 1e9)
    assert np.array_equal(keys.noise("noise/a", n, 1e9), plain)
    assert not np.array_equal(keys.noise("noise/b", n, 1e9), plain)
    elsewhere = sum(t is not current_thread() for t in threads)
    assert elsewhere == (2 if having > 1 else 0) and len(threads) == 3  # one for comparison, each of two once


def test_noise_of_another_deviation_than_was_begun_is_drawn_anew(monkeypatch):
    monkeypatch.setattr(noise, "cores", lambda: 2)
    keys = Keys(seed=0)
    keys.begin("noise/a", noise.WORTH, 1e9)
    plain = Keys(seed=0).stream("noise/a").noise(noise.WORTH, 2e9)
    assert np.array_equal(keys.noise("noise/a", noise.WORTH, 2e9), plain)


def test_noise_that_cannot_be_begun_is_an_error_where_it_is_wanted(monkeypatch):
    def failing(*_):
        raise ValueError("no bits")

    monkeypatch.setattr(noise, "cores", lambda: 2)
    monkeypatch.setattr(Stream, "noise", failing)
    keys = Keys(seed=0)
    keys.begin("noise/a", noise.WORTH, 1e9)
    with pytest.raises(ValueError, match="no bits"):
        keys.noise("noise/a", noise.WORTH, 1e9)
