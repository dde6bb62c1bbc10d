"""The protecting noise: its scale, its shape, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from veilset.privacy.noise import _BLOCK, Keys, Stream


def test_normals_are_standard_normals():
    from scipy.stats import kstest

    z = Stream(bytes(32)).normal(200_000)
    assert kstest(z, "norm").pvalue > 1e-3
    assert abs(z.std() - 1) < 0.01
    assert abs(z.mean()) < 0.01
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.01
    assert np.isfinite(z).all()


def test_tails_are_those_of_a_normal():
    """An answer that can lie only so far from the truth proves that somebody is there, or is not."""
    from scipy.stats import binomtest, norm

    z = np.abs(Stream(bytes(32)).normal(1_000_000))
    for far in (2.0, 3.0, 4.0):
        assert binomtest(int((z > far).sum()), len(z), 2 * norm.sf(far)).pvalue > 1e-4


def test_halves_of_box_and_muller_are_independent():
    n = 2 * (_BLOCK // 2)
    z = Stream(bytes(32)).normal(n)
    a, b = z[: n // 2], z[n // 2 :]
    for f in (lambda v: v, np.square, np.abs):
        assert abs(np.corrcoef(f(a), f(b))[0, 1]) < 0.02


@pytest.mark.parametrize("n", [0, 1, 2, 3, _BLOCK - 1, _BLOCK, _BLOCK + 1])
def test_any_number_of_normals(n):
    assert Stream(bytes(32)).normal(n).shape == (n,)


def test_a_stream_goes_on_and_does_not_repeat():
    stream = Stream(bytes(32))
    bits = np.concatenate([stream.uint64(1000) for _ in range(5)])
    assert len(np.unique(bits)) == 5000
    assert not np.array_equal(stream.normal(10), stream.normal(10))


def test_bits_are_even():
    bits = np.unpackbits(Stream(bytes(32)).uint64(20_000).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.002


def test_each_purpose_has_a_stream_of_its_own():
    keys = Keys(0)
    names = ["noise/a/None/0", "noise/a/None/1", "noise/a/0/0", "noise/b/None/0", "sample/a/None/0"]
    draws = [keys.stream(n).normal(2000) for n in names]
    for i in range(len(draws)):
        for j in range(i):
            assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 0.1


def test_research_repeats_and_seeds_differ():
    draw = lambda seed: Keys(seed).stream("noise/x").normal(100)  # noqa: E731
    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(1), draw(-1))


def test_row_15_release_noise_differs_and_ignores_user_seeds():
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        draws.append(Keys(None).stream("noise/x").normal(100))
    assert not np.array_equal(*draws)


def test_research_noise_ignores_and_leaves_the_global_generators():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = Keys(5).stream("noise/x").normal(100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(Keys(5).stream("noise/x").normal(100), a)


def test_row_17_release_keys_are_256_bits_of_the_operating_system(monkeypatch):
    import secrets

    asked = []
    real = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda n: asked.append(n) or real(n))
    Keys(None)
    assert asked == [32]
    from veilset.privacy import noise

    assert noise.GENERATOR == "AES-256-CTR"
