"""Protocols: each does what its fields say, nothing more, and repeats under a seed."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

from veilset.core.errors import ConfigError, DataError
from veilset.core.types import Images
from veilset.evaluation import CNN_PROTOCOL, PROTOCOLS, Protocol
from veilset.evaluation import training as module
from veilset.evaluation.protocols import BRIEF, CLASSIFIERS, DPDM, GS_WGAN, PSG, SIX, THREE, protocol_named
from veilset.evaluation.training import augmented, predict, probabilities, train_any
from veilset.evaluation.training import train as train_network
from veilset.evaluation.utility import accuracy
from veilset.networks import precision
from veilset.networks.architectures import SIX as NETWORKS
from veilset.networks.architectures import as_module

QUICK = Protocol("quick", epochs=3, batch=64)


def test_published_schedules_are_the_documented_ones() -> None:
    assert (PSG.rate, PSG.weight_decay, PSG.batch, PSG.epochs, PSG.optimizer) == (0.01, 5e-4, 256, 1000, "sgd")
    assert PSG.steps(200) == 1000 and PSG.steps(500) == 1953  # 20 and 50 images per class: all 1,000 epochs
    assert PSG.steps(60_000) == 2000
    assert (DPDM.rate, DPDM.batch, DPDM.epochs, DPDM.holdout) == (3e-4, 128, 50, 0.1)
    assert (GS_WGAN.rate, GS_WGAN.drop * GS_WGAN.epochs, GS_WGAN.weight_decay) == (0.1, 40, 1e-4)
    assert protocol_named("psg") is PSG and set(SIX) == set(NETWORKS) < set(CLASSIFIERS)
    assert len(PROTOCOLS) == 6
    assert replace(CNN_PROTOCOL, name="net-5-epochs", epochs=5) == BRIEF
    assert [CLASSIFIERS[net] for net in THREE] == [CNN_PROTOCOL, BRIEF, BRIEF]
    with pytest.raises(ConfigError, match="Did you mean 'dpdm'"):
        protocol_named("dpmd")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long if i else ()) for i, n in enumerate(sorted(PROTOCOLS))]
)
def test_every_protocol_learns_and_repeats(name: str, train: Images, test: Images) -> None:
    """A few epochs of an MLP are enough to see each optimiser, schedule, augmentation and hold-out work."""
    short = replace(PROTOCOLS[name], epochs=6, batch=32, small_batches=False)
    if name == "dp-sinkhorn":
        short = replace(short, rate=1e-3)  # its rate needs its 300 epochs
    least = 75
    if short.augment == "crop-flip":  # made for larger pictures and networks
        least, train, test = (
            35,
            *(replace(v, x=v.x.repeat_interleave(3, 2).repeat_interleave(3, 3)) for v in (train, test)),
        )
        short = replace(short, rate=0.02)
    before = torch.get_rng_state()
    first, again = (train_network("mlp", train[:600], 1, short) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and not first.training
    assert accuracy(predict(first, test.x), test.y) > least
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_rate_follows_its_schedule() -> None:
    net = torch.nn.Linear(1, 1)
    for schedule, expected in (
        ("constant", [1, 1, 1, 1]),
        ("drop", [1, 1, 0.1, 0.1]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
    ):
        p = replace(CNN_PROTOCOL, schedule=schedule, rate=1.0)  # type: ignore[arg-type]
        optimizer, decay = module._optimizer(net, p, 4)
        rates = []
        for _ in range(4):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            decay.step()
        assert rates == pytest.approx(expected, rel=1e-5), schedule


def test_the_best_epoch_on_held_out_images_is_kept(train: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out accuracy is made to peak in epoch 2: its weights come back, and patience ends the run."""
    asked: list[torch.Tensor] = []
    held_y: list[torch.Tensor] = []

    def scripted(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        asked.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
        right = (0.2, 0.9, 0.5, 0.4, 0.3, 0.3)[len(asked) - 1]
        y = held_y[0].clone()
        y[round(right * len(y)) :] = (y[round(right * len(y)) :] + 1) % 10
        return y

    real_split = module._held_out

    def split(*arguments: object) -> tuple[Images, Images | None]:
        kept, held = real_split(*arguments)  # type: ignore[arg-type]
        assert held is not None and len(held) == 30 and len(kept) == 270
        held_y.append(held.y)
        return kept, held

    monkeypatch.setattr(module, "predict", scripted)
    monkeypatch.setattr(module, "_held_out", split)
    p = Protocol("p", epochs=50, batch=30, holdout=0.1, patience=2, small_batches=False)
    net = train_network("mlp", train[:300], 0, p)
    assert len(asked) == 4  # the best in the second, and two that did not rise
    assert torch.equal(torch.cat([v.detach().flatten() for v in net.parameters()]), asked[1])


def test_held_out_images_are_not_trained_on(train: Images) -> None:
    kept, held = module._held_out(train, 3, DPDM)
    assert held is not None and len(held) == 120 and len(kept) == 1080
    seen = {bytes(row) for row in kept.x.flatten(1).numpy()}
    assert not any(bytes(row) in seen for row in held.x.flatten(1).numpy())
    with pytest.raises(DataError, match="holds out 10%.*leaves none of 4"):
        train_network("mlp", train[:4], 0, DPDM)


def test_the_number_of_steps_is_bounded(train: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(module, "augmented", lambda x, how: steps.append(len(x)) or x)
    train_network("mlp", train[:100], 0, replace(QUICK, epochs=1000, most_steps=7, small_batches=False))
    assert len(steps) == 7 and set(steps) == {64}


def test_divergence_is_named(train: Images) -> None:
    with pytest.raises(DataError, match="mlp diverged under protocol hot"):
        train_network("mlp", train[:200], 0, Protocol("hot", epochs=40, rate=1e20, optimizer="sgd"))


def test_standardised_pixels_have_the_moments_of_the_training_set(train: Images) -> None:
    net = train_network("mlp", train[:200], 0, replace(QUICK, standardise=True))
    x = train.x[:200].float() / 127.5 - 1
    assert float(net.mean) == pytest.approx(x.mean().item(), rel=1e-4)  # type: ignore[arg-type]
    assert float(net.deviation) == pytest.approx(x.std(correction=0).item(), rel=1e-4)  # type: ignore[arg-type]
    assert "mean" in net.state_dict()


def test_augmentation_moves_each_image_by_itself_and_stays_in_range() -> None:
    torch.manual_seed(0)
    x = torch.full((600, 1, 28, 28), -1.0)
    x[:, :, 12:16, 10:14] = 1.0
    for how in ("crop-flip", "crop-scale-rotate"):
        moved = augmented(x, how)
        assert moved.shape == x.shape and moved.min() >= -1.001 and moved.max() <= 1.001
        assert len({bytes(row) for row in moved.flatten(1).numpy()}) > 100, how
    mass = (augmented(x, "crop-flip") + 1).sum((1, 2, 3))
    assert torch.allclose(mass, torch.tensor(32.0), atol=1e-2)  # shifts by whole pixels and mirrors lose nothing
    place = (augmented(x, "crop-flip") + 1).sum((1, 2)).argmax(1)
    assert {int(p) for p in place} == {*range(6, 15), *range(10, 19)}  # 10 +- 4, and mirrored 14 +- 4
    mass = (augmented(x, "crop-scale-rotate") - x.mean()).clamp(min=0).sum((1, 2, 3))
    assert mass.std() > 1  # some are scaled
    assert augmented(x, "none") is x


def test_probabilities_agree_with_labels_and_know_absent_classes(train: Images, test: Images) -> None:
    few = train[train.y < 4]
    for name in ("logreg", "mlp"):
        model = train_any(name, few, 0, QUICK)
        said = probabilities(model, test.x, 10)
        assert said.shape == (len(test), 10) and said.dtype == torch.float64
        assert torch.allclose(said.sum(1), torch.ones(len(test), dtype=torch.float64))
        assert torch.equal(said.argmax(1), predict(model, test.x))
    assert probabilities(train_any("logreg", few, 0, None), test.x, 10)[:, 4:].abs().max() == 0


@pytest.mark.parametrize("classes", [2, 7])
def test_logistic_regression_as_a_network_says_the_same(classes: int, train: Images, test: Images) -> None:
    model = train_any("logreg", train[train.y < classes], 0, None)
    with torch.no_grad():
        labels = as_module(model, 10)(test.x.float() / 127.5 - 1).argmax(1)
    assert (labels == predict(model, test.x)).double().mean() > 0.995  # ties in float32


@pytest.mark.parametrize("network", ["convnet32", pytest.param("resnet8", marks=pytest.mark.long)])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(network: str, digits: Images, monkeypatch) -> None:
    """In float32, to rounding; the last part of a batch is smaller than the others, and counts for less."""
    monkeypatch.setattr(precision, "fast", contextlib.nullcontext)
    made = []
    for part, steps in ((100, 2), (8, 2), (100, 1)):
        monkeypatch.setattr(module, "PART", part)
        net = train_network(network, digits[:20], 0, replace(PSG, most_steps=steps, rate=0.1, schedule="constant"))
        made.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    whole, parts, earlier = made
    torch.testing.assert_close(parts, whole, rtol=0, atol=5e-5)
    assert (whole - earlier).abs().max() > 1e-3, "a step moves more than the parts may differ"
