"""Selection: the private images say which variant of the drawn images a network learns from best.

Idea: ours. Drawn images that are turned and shifted a little after they got their labels teach a network more where a
class is a shape in any pose (digits, letters), and less where the pose tells the class (clothes); fine structure that
is pooled over classes helps on some sets and misleads on others. No declared fact tells which. So a CNN is trained
on each variant, and the gate counts the private images that it classifies correctly: one noisy sum of a few numbers,
which costs almost nothing where units are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.learning.augmentation import moved_apart
from veilset.learning.dp_sgd import cosine
from veilset.methods.base import BATCH, State
from veilset.methods.stages import Asked, Earlier, Stage
from veilset.networks.classifiers import CNN
from veilset.networks.precision import fast
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

# The most by which an image is moved: shift (part of a side), stretch (relative), slant (slope), turn (degrees).
MOVES = 0.054, 0.1, 0.1, 10.0
IMAGES, VALUES = 15_000, 36_000_000  # the most that a network learns from: images, and pixels of all of them
EPOCHS, FEW, RATE = 6, 128, 1e-3  # of the networks: passes, images per step, learning rate
# Wanted noise of a count, relative to the units, and the largest part of a budget for it: first what counts must have
# to be of use, then what they get where it is cheap, since on digits forms lie as little as 0.003 apart.
COARSE, MOST = 0.005, 0.05
FINE, CHEAP = 0.001, 0.01
MARGIN = 0.01  # of the units: what a form that is preferred may count less than another one
# Of a kind: to draw and learn, for any size and for each 784 pixels; units of so many that are counted in a second.
FIXED, SECONDS, COUNTED = 40.0, 50.0, 5000
MEMORY = 1000.0  # MB, beside what the teacher holds: the networks see as many pixels at a time, whatever the images

Draw = Callable[[torch.Tensor], torch.Tensor]


def release(kinds: int) -> Release:
    """The noisy counts, two for each kind of images; an image adds 0 or 1 to each."""
    return Release(name="choice", bound=math.sqrt(2 * kinds))


def share(info: PublicInfo, privacy: Privacy, kinds: int) -> float:
    """The part of the budget, in units of 1 / noise_multiplier^2, that the counts get.

    It buys a noise of FINE of the units if that costs at most CHEAP; else it is CHEAP, or what a noise of COARSE costs.
    """
    coarse, fine = ((_alone(privacy, kinds) / (noise * info.units)) ** 2 for noise in (COARSE, FINE))
    return max(1e-6, coarse, min(fine, CHEAP))


def least(privacy: Privacy, kinds: int) -> float:
    """How many units must be declared so that a noise of COARSE costs at most MOST of the budget."""
    return _alone(privacy, kinds) / (COARSE * math.sqrt(MOST))


def seconds(info: PublicInfo, kinds: int) -> float:
    """What it takes, about."""
    size = info.pixels / 784
    return kinds * ((FIXED + SECONDS * size) * _images(info) / IMAGES + size * info.units / COUNTED)


def _images(info: PublicInfo) -> int:
    return max(1, min(IMAGES, VALUES // info.pixels))


def _alone(privacy: Privacy, kinds: int) -> float:
    """Noise of a count that has all of the budget."""
    return gaussian_noise_multiplier(privacy.epsilon, privacy.delta) * release(kinds).bound if privacy.private else 0.0


def choose(gate: Asked, info: PublicInfo, kinds: Sequence[Draw], device: str) -> tuple[int, bool]:
    """(which of the kinds, whether its images are to be augmented): what the private images prefer.

    Args:
        gate: answers "choice".
        info: declared facts.
        kinds: each takes labels and draws images [n, C, H, W] in [0, 1] as they are released before augmentation.
            The first whose better count is at most MARGIN of the units below the best of all is taken.
        device: where the gate runs what it is asked.
    """
    y = torch.arange(len(info.classes)).repeat(math.ceil(_images(info) / len(info.classes)))
    still = [torch.cat([drawn(part) for part in y.split(BATCH)]) for drawn in kinds]
    first = CNN(info.shape, len(info.classes))
    forms = [(x, move) for x in still for move in (False, True)]
    nets = list[nn.Module]()
    for i in progress(range(len(forms)), "choice"):
        x, move = forms[i]
        nets.append(_taught(deepcopy(first), moved(x) if move else x, y).to(device))

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.stack([(net(2 * x[None] - 1)[0].argmax() == y).float() for net in nets])

    counts = gate.sum("choice", f).view(len(kinds), 2)
    enough = counts.amax(1) >= counts.max() - MARGIN * info.units
    which = int(enough.nonzero()[0])
    return which, bool(counts[which, 1] > counts[which, 0])


class Selection(Stage):
    """Noisy counts of private images, by which one of a few kinds of images is chosen, and whether they are augmented.

    Args:
        kinds: how many.
        draws: what earlier stages learned -> for each kind, labels to images as they are released but for being moved.
    """

    def __init__(self, kinds: int, draws: Callable[[Earlier], Sequence[Draw]]):
        self._kinds, self._draws = kinds, draws

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One sum; its memory is beside what drawing takes."""
        return Plan((release(self._kinds),), seconds=seconds(info, self._kinds))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "which" kind, and whether it is "moved"."""
        which, moved = choose(gate, info, self._draws(earlier), self.device)
        return {"which": torch.tensor(which), "moved": torch.tensor(moved)}


def moved(x: torch.Tensor) -> torch.Tensor:
    """Images [n, C, H, W], each moved on its own."""
    return moved_apart(x, *MOVES)


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
