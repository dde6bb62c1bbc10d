"""Sums of clipped per-unit gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from veilset.privacy.bounding import clip

Parameters = nn.Module | Mapping[str, torch.Tensor]
Loss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


def named(params: Parameters) -> dict[str, torch.Tensor]:
    """The parameters that are clipped together: those of a module that require a gradient, or a mapping's tensors."""
    if isinstance(params, nn.Module):
        return {k: p for k, p in params.named_parameters() if p.requires_grad}
    return dict(params)


class Clipped:
    """How the clipped sum of one loss and network is computed."""

    def __init__(self, loss: Loss, params: Parameters, blank: tuple[torch.Tensor, torch.Tensor]):
        self.shapes = {k: p.shape for k, p in named(params).items()}
        self.size = sum(math.prod(s) for s in self.shapes.values())

    def rows(self, memory: int) -> int:
        """Records mapped at a time."""
        return max(1, memory // (16 * self.size))

    def sum(
        self,
        loss: Loss,
        params: Parameters,
        x: torch.Tensor,
        y: torch.Tensor,
        unit: torch.Tensor,
        bound: float,
        seed: int,
        several: bool,
    ) -> torch.Tensor:
        """float64 [size]: sum over units of the clipped mean gradient of the unit's images."""
        frozen = {k: p.detach() for k, p in named(params).items()}

        def value(p: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if isinstance(params, nn.Module):
                return loss(lambda *a, **k: torch.func.functional_call(params, p, a, k), x, y)
            return loss(p, x, y)

        one = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0), randomness="different")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            grads = one(frozen, x, y)
        flat = torch.cat([grads[k].reshape(len(x), -1) for k in self.shapes], 1)[: len(unit)].cpu().to(torch.float64)
        if several:  # a unit's images are averaged first, then clipped once
            count = torch.bincount(unit)
            flat = torch.zeros(len(count), self.size, dtype=torch.float64).index_add_(0, unit, flat) / count[:, None]
        return clip(flat, bound).sum(0)

    def split(self, flat: torch.Tensor, params: Parameters) -> dict[str, torch.Tensor]:
        """The flat sum as name -> tensor in the parameter's shape and type."""
        pieces = torch.split(flat, [math.prod(s) for s in self.shapes.values()])
        now = named(params)
        return {k: v.reshape(now[k].shape).to(now[k]) for k, v in zip(self.shapes, pieces, strict=True)}
