"""Noisy accuracies: the bound holds, the noise is what it says, one purchase pays for all, and public sets are free."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from veilset.core.errors import ConfigError, DataError, ModeError, RunError
from veilset.core.io import read_json
from veilset.core.types import Images, PublicInfo
from veilset.evaluation import Protocol
from veilset.evaluation.paid_accuracy import accuracy_plan, buy_accuracy, weights
from veilset.evaluation.training import predict, train_any
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy


def private(images: Images) -> PrivateImages:
    info = PublicInfo(name="digits", classes=images.classes, shape=(1, 8, 8), units=1400)
    return from_arrays(info, images.x.numpy(), images.y.numpy().astype(np.uint8))


@pytest.mark.parametrize("count", [1, 2, 6, 50])
def test_a_record_of_any_kind_has_norm_at_most_1(count: int) -> None:
    a, b = weights(count)
    assert count * a**2 + b**2 == pytest.approx(1.0, abs=1e-12)
    nearby = [(a2, math.sqrt(1 - count * a2**2)) for a2 in (a * 0.98, a * 1.02)]
    best, *others = (1 / u**2 + 1 / v**2 for u, v in [(a, b), *nearby])
    assert best < min(others)  # the least noise at an accuracy of 100 %


def test_hardly_noisy_figures_are_the_accuracies(digits: Images, tmp_path: Path, short: Protocol) -> None:
    train, test = digits[:900], digits[900:]
    names = ("logreg", "cnn")
    scores = buy_accuracy(
        train, private(test), Privacy(1000.0), tmp_path / "p", classifiers=names, seeds=1, protocol=short, seed=0
    )
    for m, name in zip(scores, names, strict=True):
        right = predict(train_any(name, train, 0, short if name == "cnn" else None), test.x) == test.y
        assert m.name == f"gen2real-{name}" and m.value == pytest.approx(100 * float(right.double().mean()), abs=0.5)
        assert m.detail["noise_sd"] < 0.1 and m.reads_private  # of research mode


def test_the_noise_is_what_it_says_and_the_folder_verifies(digits: Images, tmp_path: Path) -> None:
    train, test = digits[:300], private(digits[300:])
    values, said = [], []
    for i in range(12):
        out = tmp_path / str(i)
        m = buy_accuracy(train, test, Privacy(0.5), out, classifiers=("logreg",), seeds=1)["gen2real-logreg"]
        values.append(m.value)
        said.append(m.detail["noise_sd"])
        assert not m.reads_private and m.spread is None
    # Twelve draws: a ratio of variances below 0.1 or above 3.5 has a chance below 1e-4.
    assert 0.1 < np.var(values, ddof=1) / np.mean(said) ** 2 < 3.5
    sigma = accuracy_plan(test.info, Privacy(0.5))["accuracy"].noise_multiplier
    accuracy = np.mean(values) / 100
    assert np.mean(said) == pytest.approx(
        50 * sigma / 1497 * math.hypot(math.sqrt(2), (2 * accuracy - 1) * math.sqrt(2)), rel=0.05
    )
    checked = verify(out)
    assert checked.ok and checked.release and checked.epsilon <= 0.5 * (1 + 1e-9)
    assert read_json(out / "metrics.json")["metrics"][0]["value"] == pytest.approx(values[-1])


def test_many_classifiers_cost_little_more_noise_than_one() -> None:
    noise = {f: math.hypot(1 / a, 1 / b) for f in (1, 6) for a, b in [weights(f)]}
    assert noise[1] == pytest.approx(2.0) and noise[6] / noise[1] < 1.8  # separate purchases would need sqrt(6) each


def test_too_few_test_records_are_told(digits: Images, tmp_path: Path) -> None:
    scores = buy_accuracy(
        digits[:200], private(digits[:20]), Privacy(0.2), tmp_path / "p", classifiers=("logreg",), seeds=1, seed=1
    )
    assert "says little" in " ".join(scores.warnings())
    assert 0 <= scores["gen2real-logreg"].value <= 100 and scores["gen2real-logreg"].detail["noise_sd"] > 10


def test_refuses_before_anything_is_trained_or_paid(digits: Images, tmp_path: Path) -> None:
    test, out = private(digits), tmp_path / "p"

    def never(seed: int) -> Images:
        raise AssertionError("drawn")

    with pytest.raises(ModeError, match="public, so exact figures cost nothing"):
        buy_accuracy(never, digits, Privacy(1.0), out)  # type: ignore[arg-type]
    with pytest.raises(ModeError, match="no test split"):
        buy_accuracy(never, None, Privacy(1.0), out)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean 'cnn'"):
        buy_accuracy(never, test, Privacy(1.0), out, classifiers=("cnnn",))
    with pytest.raises(ConfigError, match="different"):
        buy_accuracy(never, test, Privacy(1.0), out, classifiers=("cnn", "cnn"))
    with pytest.raises(ConfigError, match="seeds"):
        buy_accuracy(never, test, Privacy(1.0), out, seeds=0)
    with pytest.raises(RunError, match="exists"):
        buy_accuracy(never, test, Privacy(1.0), tmp_path)
    with pytest.raises(DataError, match="must be equal"):
        buy_accuracy(
            Images(torch.zeros(9, 1, 9, 9, dtype=torch.uint8), digits.y[:9], digits.classes), test, Privacy(1.0), out
        )
    assert not out.exists()
