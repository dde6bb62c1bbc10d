"""What methods trained by DP-SGD share: the planned release, one optimiser step, averaged weights, precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from veilset.privacy.accounting import gaussian_epsilon, gaussian_noise_multiplier
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    from veilset.core.types import PublicInfo


def dp_sgd(
    name: str, info: PublicInfo, *, batch: float, steps: int, bound: float, partition: str | None = None
) -> Release:
    """The release of a DP-SGD loop (Abadi et al. 2016, arXiv 1607.00133, Algorithm 1): Poisson batches, clipped sums.

    Args:
        name: what the loop calls it at the gate.
        info: declared facts; the sampling rate is batch / N, at most 1.
        batch: expected units per step, over all classes.
        steps: how many gradients are taken.
        bound: max_grad_norm, the L2 bound of one unit's gradient over all parameters together.
        partition: None, or "class": one loop per class, each at the same rate.
    """
    rate = min(1.0, batch / info.units)
    return Release(name=name, verb="grad", bound=bound, sample_rate=rate, steps=steps, partition=partition)


def loop_multiplier(mu: float, rate: float, steps: int) -> float:
    """The noise multiplier at which `steps` Gaussian releases of sampling rate `rate` are about mu-Gaussian private.

    The central limit of Bu, Dong, Long and Su 2020 (arXiv 1911.11607). For sharing a budget between a loop and other
    releases, and for nothing else: what is spent is priced exactly.
    """
    if rate == 1:
        return math.sqrt(steps) / mu
    return 1 / math.sqrt(math.log1p((mu / rate) ** 2 / steps))


def part_of(privacy: Privacy, share: float) -> Privacy:
    """The budget that a part of a plan would have on its own: `share` of squared mu, where shares add up."""
    if not privacy.private:
        return privacy
    mu = math.sqrt(share) / gaussian_noise_multiplier(privacy.epsilon, privacy.delta)
    return Privacy(max(1e-3, gaussian_epsilon(mu, privacy.delta)), privacy.delta, privacy.allow_large_delta)


def descend(optimiser: torch.optim.Optimizer, net: nn.Module, grads: dict[str, torch.Tensor]) -> None:
    """One optimiser step of a network along the noisy gradient that `gate.grad` returned."""
    for name, p in net.named_parameters():
        p.grad = grads.get(name)
    optimiser.step()


def cosine(t: int, steps: int, warm: int = 20) -> float:
    """Factor of the learning rate at step t: up to 1 over the first steps, then down to 0 by half a cosine."""
    return min(1.0, (t + 1) / warm) * 0.5 * (1 + math.cos(math.pi * t / steps))


def average(net: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's weights, min(decay, (1 + t) / (10 + t)) of the old kept at step t.

    Call `update_parameters(net)` after each step; `.module` is the averaged network. Costs no privacy.
    """

    def mix(old: torch.Tensor, new: torch.Tensor, t: torch.Tensor | int) -> torch.Tensor:
        keep = min(decay, (1 + float(t)) / (10 + float(t)))
        return keep * old + (1 - keep) * new

    return AveragedModel(net, avg_fn=mix, use_buffers=True)
