"""Classifiers: they learn what is there, nothing where nothing is, and repeat under a seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.evaluation import CNN_PROTOCOL, Protocol, evaluate
from veilset.evaluation.protocols import logreg_images, predict, train_cnn, train_logreg
from veilset.evaluation.utility import accuracy, recalls


def shuffled(images: Images) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(images, y=images.y[order])


def test_the_protocol_is_the_documented_one() -> None:
    p = CNN_PROTOCOL
    assert (p.epochs, p.batch, p.rate) == (10, 256, 1e-3)
    assert (p.steps(60_000), p.batch_of(60_000)) == (2343, 256)
    assert (p.steps(1000), p.batch_of(1000)) == (400, 25)
    assert (p.steps(3), p.batch_of(3)) == (10, 3)


def test_real_digits_teach_and_shuffled_labels_do_not(train: Images, test: Images, short: Protocol) -> None:
    names = ["gen2real-logreg", "gen2real-cnn", "real2gen-cnn"]
    four = Protocol("cnn-4-epochs", epochs=4)
    good = evaluate(train, test, seeds=1, metrics=names, protocol=four)
    assert good["gen2real-logreg"].value > 90
    assert good["gen2real-cnn"].value > 75
    assert good["real2gen-cnn"].value > 50
    bad = evaluate(shuffled(train), test, seeds=1, metrics=names, protocol=short)
    for m in bad:
        assert m.value < 25, m  # chance is 10


def test_the_cnn_reaches_97_percent_where_the_classes_are_plain() -> None:
    y = torch.arange(600) % 3
    x = torch.zeros(600, 3, 12, 12, dtype=torch.uint8)
    x[torch.arange(600), y] = 200
    images = Images(x, y, ("red", "green", "blue"))
    score = evaluate(images, images, seeds=1, metrics=["gen2real-cnn"], protocol=Protocol("cnn-2-epochs", 2))
    assert score["gen2real-cnn"].value > 97


def test_a_seed_repeats_bit_for_bit_and_leaves_torch_alone(train: Images, short: Protocol) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (train_cnn(train[:200], seed, short).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_without_native_bfloat16_everything_runs_in_float32(
    train: Images, test: Images, short: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    m = evaluate(train[:200], test, seeds=1, metrics=["gen2real-cnn"], protocol=short)["gen2real-cnn"]
    assert m.detail["dtype"] == "float32" and 0 <= m.value <= 100


def test_training_restores_gradients_and_mode(train: Images, test: Images, short: Protocol) -> None:
    with torch.no_grad():
        net = train_cnn(train[:64], 0, short)
    assert not net.training
    assert torch.equal(predict(net, test.x), predict(net, test.x))
    assert predict(net, test.x).dtype == torch.int64


def test_logreg_repeats_and_bounds_its_memory(train: Images, test: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [predict(train_logreg(train, seed), test.x) for seed in (0, 1)]
    assert torch.equal(*labels) and labels[0].dtype == torch.int64
    monkeypatch.setattr("veilset.evaluation.protocols.LOGREG_NUMBERS", 64 * 500)
    assert logreg_images(train) == 500
    assert accuracy(predict(train_logreg(train, 0), test.x), test.y) > 85


def test_logreg_with_one_class_says_so(train: Images, test: Images) -> None:
    with pytest.raises(DataError, match="classes: 4; logistic regression needs at least two"):
        evaluate(train[train.y == 4], test, metrics=["gen2real-logreg"])


def test_recalls_by_hand() -> None:
    true, predicted = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 0])
    assert accuracy(predicted, true) == pytest.approx(100 * 4 / 6)
    assert recalls(predicted, true, 3) == [75.0, 50.0, None]


def test_per_class_shares_the_classifier_and_names_classes(
    train: Images, test: Images, short: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(images: Images, seed: int, protocol: Protocol) -> torch.nn.Module:
        calls.append(seed)
        return train_cnn(images, seed, protocol)

    monkeypatch.setattr("veilset.evaluation.protocols.train_cnn", counted)
    no_nines = test[test.y < 9]
    scores = evaluate(
        train[:300], no_nines, seeds=2, metrics=["gen2real-cnn", "gen2real-cnn-per-class"], protocol=short
    )
    assert calls == [0, 1]
    by_class = scores["gen2real-cnn-per-class"].detail["by_class"]
    assert [row["class"] for row in by_class] == list("0123456789")
    assert by_class[9]["value"] is None  # no nine to recall
    seen = [row["value"] for row in by_class[:9]]
    assert scores["gen2real-cnn-per-class"].value == pytest.approx(sum(seen) / 9)
    counts = [(no_nines.y == k).sum().item() for k in range(9)]
    total = sum(v * c for v, c in zip(seen, counts, strict=True)) / len(no_nines)
    assert scores["gen2real-cnn"].value == pytest.approx(total)
