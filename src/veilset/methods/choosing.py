"""Choosing: the private images say which last change of the released images a network learns from best.

Idea: ours. Drawn images that are turned and shifted a little after they got their labels teach a network more where a
class is a shape in any pose (digits, letters), and less where the pose tells the class (clothes), and no declared fact
tells which. So a small network is trained on images of each kind, and the gate counts how many private images each one
gets right: one noisy sum of a few numbers, which costs almost nothing where units are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.methods.base import BATCH
from veilset.methods.training import cosine, fast
from veilset.networks.classifiers import CNN
from veilset.networks.moves import moved_apart
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

# Of one step, the largest shift (part of a side), stretch (relative), slant (slope) and turn (degrees).
STEP = 0.054, 0.1, 0.1, 10.0
STEPS = (0.0, 0.5, 1.0, 2.0)  # what is chosen from
IMAGES, EPOCHS, FEW, RATE = 15_000, 6, 128, 1e-3  # of the networks: images, passes, images a step, learning rate
COARSE, MOST = 0.005, 0.05  # wanted noise of a count, relative to the units; the largest part of a budget for it
SECONDS = 180.0


def release() -> Release:
    """The noisy counts: an image adds 0 or 1 to each."""
    return Release(name="choice", bound=math.sqrt(len(STEPS)))


def share(info: PublicInfo, privacy: Privacy) -> float:
    """The part of the budget, in units of 1 / noise_multiplier^2, at which a count's noise is COARSE of the units."""
    return max(1e-6, (_alone(privacy) / (COARSE * info.units)) ** 2)


def least(privacy: Privacy) -> float:
    """How many units must be declared so that this part is at most MOST."""
    return _alone(privacy) / (COARSE * math.sqrt(MOST))


def _alone(privacy: Privacy) -> float:
    """Noise of a count that has all of the budget."""
    return gaussian_noise_multiplier(privacy.epsilon, privacy.delta) * release().bound if privacy.private else 0.0


def choose(gate: Gate, info: PublicInfo, drawn: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """The step of STEPS that the private images prefer.

    Args:
        gate: answers "choice".
        info: declared facts.
        drawn: labels -> images [n, C, H, W] in [0, 1] as they are released before they are moved.
    """
    y = torch.arange(len(info.classes)).repeat(math.ceil(IMAGES / len(info.classes)))
    x = torch.cat([drawn(part) for part in y.split(BATCH)])
    first = CNN(info.shape, len(info.classes))
    nets = [_taught(deepcopy(first), moved(x, STEPS[i]), y) for i in progress(range(len(STEPS)), "choice")]

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.stack([(net(2 * x[None] - 1)[0].argmax() == y).float() for net in nets])

    return STEPS[int(gate.sum("choice", f).argmax())]


def moved(x: torch.Tensor, step: float) -> torch.Tensor:
    """Images [n, C, H, W], each moved on its own by up to so many steps."""
    return moved_apart(x, *(most * step for most in STEP)) if step else x


def _taught(net: CNN, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """The network after training on images [n, C, H, W] in [0, 1]; free."""
    net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = (2 * x - 1).contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    orders = [part for _ in range(EPOCHS) for part in torch.randperm(len(x)).split(FEW)]
    for at, chosen in enumerate(orders):
        optimiser.param_groups[0]["lr"] = RATE * cosine(at, len(orders))
        optimiser.zero_grad()
        with fast():
            logits = net(x[chosen])
        F.cross_entropy(logits.float(), y[chosen]).backward()
        optimiser.step()
    return net.eval().requires_grad_(False)
