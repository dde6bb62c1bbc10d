"""How classifiers are trained, fixed once and one a paper, so that two figures with the same protocol can be compared.

A protocol is a schedule; which network it trains is said by the metric's name. Nothing is ever chosen by looking at
the set that a figure is tested on: protocols that keep the best epoch look at images held out of the training set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from veilset.core.errors import ConfigError, suggest

SMALLEST_BATCH, STEPS_AN_EPOCH = 16, 40


@dataclass(frozen=True)
class Protocol:
    """How a network is trained.

    Attributes:
        name: stands beside every figure made with it; another schedule needs another name.
        epochs: passes over the training images, however many there are.
        batch: most images per step. Sets below forty batches use a fortieth of the set (at least 16), so that few
            images still get enough steps in the same number of epochs; see `small_batches`.
        rate: first learning rate.
        optimizer: "adam", or "sgd" with momentum 0.9.
        weight_decay: L2 penalty that the optimiser adds to the gradient.
        schedule: the rate is "constant", falls as a "cosine" to zero, or "drop"s to a tenth once, see `drop`.
        drop: the share of the epochs after which the rate drops.
        augment: "none"; "crop-scale-rotate", one of the three per image; or "crop-flip". See `training.augmented`.
        standardise: give the network pixels with mean 0 and deviation 1 per channel over the training images, not
            pixels in [-1, 1]. The constants are then kept with the network.
        holdout: share of the training images that is kept apart; the weights of the epoch that is best on it are kept.
        patience: stop when the held-out accuracy has not risen for this many epochs; 0 never stops.
        most_steps: end after this many optimiser steps, with the schedule shortened to fit; 0 is no limit.
        small_batches: use smaller batches for small sets, see `batch`.
    """

    name: str = "cnn-10-epochs"
    epochs: int = 10
    batch: int = 256
    rate: float = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "drop"] = "cosine"
    drop: float = 0.5
    augment: Literal["none", "crop-scale-rotate", "crop-flip"] = "none"
    standardise: bool = False
    holdout: float = 0.0
    patience: int = 0
    most_steps: int = 0
    small_batches: bool = True

    def batch_of(self, images: int) -> int:
        """Images per step for a training set of this size: 256 for 60,000 images by default, 25 for 1,000."""
        if not self.small_batches:
            return min(images, self.batch)
        return min(images, self.batch, max(SMALLEST_BATCH, images // STEPS_AN_EPOCH))

    def steps(self, images: int) -> int:
        """Optimiser steps for a training set of this size: 2,343 for 60,000 images by default, 400 for 1,000."""
        whole = self.epochs * images // self.batch_of(images)
        return min(whole, self.most_steps) if self.most_steps else whole


# Ours: Adam with cosine decay to zero, last epoch, no selection.
CNN_PROTOCOL = Protocol()

# The same for networks that need fewer passes and take longer over each.
BRIEF = Protocol(name="net-5-epochs", epochs=5)

# Chen, Kerkouche and Fritz 2022 (Private Set Generation), made for sets of 10 to 500 images, which get its full 1,000
# epochs. Larger sets stop at 2,000 steps: 1,000 epochs of 60,000 images would be 234,000.
PSG = Protocol(
    name="psg",
    epochs=1000,
    rate=0.01,
    optimizer="sgd",
    weight_decay=5e-4,
    schedule="drop",
    augment="crop-scale-rotate",
    standardise=True,
    most_steps=2000,
    small_batches=False,
)

# Dockhorn et al. 2023 (DPDM): 50 epochs, the best one on a tenth of the synthetic images.
DPDM = Protocol(name="dpdm", epochs=50, batch=128, rate=3e-4, schedule="constant", holdout=0.1, small_batches=False)

# Cao et al. 2021 (DP-Sinkhorn): up to 300 epochs, stopped and chosen on a tenth of the synthetic images.
DP_SINKHORN = Protocol(
    name="dp-sinkhorn",
    epochs=300,
    batch=512,
    rate=1e-4,
    weight_decay=1e-6,
    schedule="constant",
    holdout=0.1,
    patience=10,
    small_batches=False,
)

# Chen, Orekondy and Fritz 2020 (GS-WGAN): the VGG11 on real digits that their Inception Score is computed with.
GS_WGAN = Protocol(
    name="gs-wgan",
    epochs=50,
    batch=128,
    rate=0.1,
    optimizer="sgd",
    weight_decay=1e-4,
    schedule="drop",
    drop=0.8,
    augment="crop-flip",
    standardise=True,
    small_batches=False,
)

PROTOCOLS = {p.name: p for p in (CNN_PROTOCOL, BRIEF, PSG, DPDM, DP_SINKHORN, GS_WGAN)}

# Classifier -> the protocol it is trained by unless the caller names another one. Logistic regression has its own.
CLASSIFIERS: dict[str, Protocol | None] = {
    "logreg": None,
    "mlp": CNN_PROTOCOL,
    "cnn": CNN_PROTOCOL,
    "convnet32": BRIEF,
    "resnet8": BRIEF,
    "convnet": PSG,
    "lenet": PSG,
    "alexnet": PSG,
    "vgg11": PSG,
    "resnet18": PSG,
    "mlp128": PSG,
}
THREE = ("cnn", "convnet32", "resnet8")  # of different kinds, on which a large set should do well alike
SIX = ("convnet", "lenet", "alexnet", "vgg11", "resnet18", "mlp128")


def protocol_named(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol = {name!r}: unknown.{suggest(name, PROTOCOLS)} Known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
