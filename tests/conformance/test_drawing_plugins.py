"""Plug-ins whose losses draw at random keep every property of the kit, however they draw."""

from __future__ import annotations

import pytest
import torch
from test_methods import Good
from torch import nn

import veilset as vs
from veilset import testing as kit


class Drawing(Good):
    """The steps of `Good`, by a network and a loss that draws."""

    name = "drawing"
    draws = None

    def _fit(self, gate, info, plan):
        state = super()._fit(_without_steps(gate), info, plan)
        net = nn.Linear(info.pixels, len(info.classes))
        self_loss = self.loss
        for _ in range(self.config.loops):
            grads = gate.grad("step", lambda f, x, y, *own: self_loss(f, x.flatten(), y, *own), net, draws=self.draws)
            for name, p in net.named_parameters():
                p.data -= 0.1 * grads[name]
        return state | {"weight": net.weight.detach(), "bias": net.bias.detach()}


class _without_steps:
    """A gate whose gradients are not asked: `Good` then makes its sums only."""

    def __init__(self, gate):
        self.sum, self.info, self.plan = gate.sum, gate.info, gate.plan

    def grad(self, name, loss, params):
        return {k: torch.zeros_like(v) for k, v in params.items()}


class TorchDraws(Drawing):
    """Noise by torch's generator."""

    @staticmethod
    def loss(f, x, y):
        return nn.functional.cross_entropy(f((x + torch.rand(len(x)))[None]), y[None]) * torch.rand(())


class DropsOut(Drawing):
    """Dropout."""

    @staticmethod
    def loss(f, x, y):
        return nn.functional.cross_entropy(f(nn.functional.dropout(x, 0.5)[None]), y[None])


class OwnDraws(Drawing):
    """Declared draws of each record."""

    draws = {"noise": (64,), "level": vs.Uniform()}  # noqa: RUF012

    @staticmethod
    def loss(f, x, y, own):
        return nn.functional.cross_entropy(f((x + own["level"] * own["noise"])[None]), y[None])


@pytest.mark.parametrize("holds", kit.PROPERTIES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("method", [TorchDraws, DropsOut, OwnDraws])
def test_losses_may_draw(method, holds):
    holds(method)
