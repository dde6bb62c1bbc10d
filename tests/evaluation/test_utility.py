"""Classifiers: they learn what is there, nothing where nothing is, and repeat under a seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.evaluation import CNN_PROTOCOL, Protocol, evaluate
from veilset.evaluation.training import logreg_images, predict, train_logreg
from veilset.evaluation.training import train as train_network
from veilset.evaluation.utility import accuracy, calibration_error, recalls
from veilset.networks.precision import fast_dtype


def shuffled(images: Images) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(images, y=images.y[order])


def test_the_protocol_is_the_documented_one() -> None:
    p = CNN_PROTOCOL
    assert (p.epochs, p.batch, p.rate) == (10, 256, 1e-3)
    assert (p.steps(60_000), p.batch_of(60_000)) == (2343, 256)
    assert (p.steps(1000), p.batch_of(1000)) == (400, 25)
    assert (p.steps(3), p.batch_of(3)) == (10, 3)


@pytest.mark.long
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


@pytest.mark.long
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
    first, again, other = (train_network("cnn", train[:200], seed, short).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize(
    ("known", "dtype"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_for_processors_that_are_quicker_in_it(
    known: dict[str, object], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert fast_dtype() == dtype


def test_where_torch_cannot_tell_everything_runs_in_float32(
    train: Images, test: Images, short: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    m = evaluate(train[:200], test, seeds=1, metrics=["gen2real-cnn"], protocol=short)["gen2real-cnn"]
    assert m.detail["dtype"] == "float32" and 0 <= m.value <= 100


def test_training_restores_gradients_and_mode(train: Images, test: Images, short: Protocol) -> None:
    with torch.no_grad():
        net = train_network("cnn", train[:64], 0, short)
    assert not net.training
    assert torch.equal(predict(net, test.x), predict(net, test.x))
    assert predict(net, test.x).dtype == torch.int64


def test_logreg_repeats_and_bounds_its_memory(train: Images, test: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [predict(train_logreg(train, seed), test.x) for seed in (0, 1)]
    assert torch.equal(*labels) and labels[0].dtype == torch.int64
    monkeypatch.setattr("veilset.evaluation.training.LOGREG_NUMBERS", 64 * 500)
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

    def counted(network: str, images: Images, seed: int, protocol: Protocol) -> torch.nn.Module:
        calls.append(seed)
        return train_network(network, images, seed, protocol)

    monkeypatch.setattr("veilset.evaluation.training.train", counted)
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


def test_calibration_error_by_hand() -> None:
    said = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]], dtype=torch.float64)
    true = torch.tensor([0, 1, 1, 1])
    # two bins of two images: |0.5 - 0.9| and |1.0 - 0.65|
    assert calibration_error(said, true) == pytest.approx(100 * (0.4 + 0.35) / 2)
    sure = torch.eye(4, dtype=torch.float64)
    assert calibration_error(sure, torch.arange(4)) == 0
    assert calibration_error(sure, torch.tensor([1, 0, 3, 2])) == pytest.approx(100)


def test_a_class_missing_from_the_images_is_named_and_never_recalled(train: Images, test: Images) -> None:
    scores = evaluate(train[train.y != 4], test, seeds=1, metrics=["gen2real-logreg", "gen2real-logreg-per-class"])
    assert scores.warnings() == ["no image to learn these classes from, so none is ever recalled: 4"]
    by_class = scores["gen2real-logreg-per-class"].detail["by_class"]
    assert by_class[4]["value"] == 0 and by_class[3]["value"] > 50
    assert "note: no image to learn" in repr(scores)


def test_each_classifier_has_all_four_figures(train: Images, test: Images, short: Protocol) -> None:
    names = ["gen2real-mlp", "gen2real-mlp-ece", "gen2real-mlp-per-class", "real2gen-mlp", "gen2real-lenet"]
    scores = evaluate(train[:200], test[:200], seeds=1, metrics=names, protocol=short)
    assert all(0 <= m.value <= 100 and m.unit == "%" for m in scores)
    assert scores["gen2real-mlp-ece"].better == "lower" and scores["gen2real-mlp-ece"].detail["bins"] == 15
    assert scores["real2gen-mlp"].detail["train_images"] == 200
