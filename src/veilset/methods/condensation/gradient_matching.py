"""Gradient matching (Zhao, Mopuri and Bilen 2021, arXiv 2006.05929): what of it needs no private image.

How far gradients on a synthetic set are from given ones, networks trained on that set, and the answers of the gate that
are kept to be matched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from veilset.networks.convnet import ConvNet

DISTANCES = ("gm", "mse", "cos")
MOST_KEPT = 500  # answers
BATCH = 256  # images per step of inner training
Tensors = Mapping[str, torch.Tensor]


# ---------------------------------------------------------------------- distances


def distance(kind: str, got: Tensors, wanted: Tensors, noise: float | None = None) -> torch.Tensor:
    """How far two gradients of a network are apart. Tensors of rank below 2 (biases, gains) do not count.

    Args:
        kind: "gm": 1 - cosine for every output unit of every layer, summed (0 to 2 per unit), as Private Set
            Generation does; "mse": squared L2 norm of the difference; "cos": 1 - cosine of the whole.
        got: name -> gradient [units, ...], differentiable.
        wanted: the same names and shapes.
        noise: standard deviation of known Gaussian noise in each number of `wanted`. For "gm", a unit then counts by
            the estimated share of its squared norm that is not noise, from 0 to 1. None: every unit counts 1.
    """
    pairs = [(got[k].flatten(1), b.flatten(1)) for k, b in wanted.items() if b.dim() > 1]
    if kind == "gm":
        return torch.stack([
            (_trust(b, noise) * (1 - F.cosine_similarity(a, b))).sum() for a, b in pairs
        ]).sum()  # fmt: skip
    a, b = (torch.cat([v.flatten() for v in side]) for side in zip(*pairs, strict=True))
    return (a - b).square().sum() if kind == "mse" else 1 - F.cosine_similarity(a, b, 0)


def _trust(b: torch.Tensor, noise: float | None) -> torch.Tensor | float:
    """[units] max(0, 1 - expected squared norm of the noise / squared norm)."""
    if not noise:
        return 1.0
    return (1 - b.shape[1] * noise**2 / b.square().sum(1).clamp_min(1e-30)).clamp_min(0)


def gradients(net: ConvNet, x: torch.Tensor, y: torch.Tensor, at: Tensors | None = None) -> dict[str, torch.Tensor]:
    """Gradients of the mean cross-entropy over a set in the network's weights, which can be differentiated again.

    Args:
        net: the network.
        x: pixels [n, C, H, W] in [0, 1]. y: labels [n].
        at: all parameters by name, where not the network's own.
    """
    values = {k: v.detach() for k, v in (at or dict(net.named_parameters())).items()}
    matched = {k: values[k].requires_grad_() for k in net.weights()}
    loss = F.cross_entropy(torch.func.functional_call(net, values, (x,)), y)
    return dict(zip(matched, torch.autograd.grad(loss, list(matched.values()), create_graph=True), strict=True))


# ---------------------------------------------------------------------- networks


def renew(net: ConvNet, fresh: ConvNet) -> None:
    """Give a network the weights of a fresh one; it stays the same object, which the gate has looked at already."""
    net.load_state_dict(fresh.state_dict())
    _expose(net)


def _expose(net: ConvNet) -> None:
    """Only weights that are matched require a gradient: clipping is not spent on others."""
    for p in net.parameters():
        p.requires_grad_(p.dim() > 1)


def train_on(net: ConvNet, x: torch.Tensor, y: torch.Tensor, epochs: int, rate: float) -> None:
    """Train all of a network's parameters on a synthetic set, by plain SGD."""
    net.requires_grad_(True)
    sgd = torch.optim.SGD(net.parameters(), rate)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).to(x.device).split(BATCH):
            sgd.zero_grad()
            F.cross_entropy(net(x[chosen]), y[chosen]).backward()
            sgd.step()
    _expose(net)


# ---------------------------------------------------------------------- answers


class Answer(NamedTuple):
    """A noisy gradient, and where it was asked."""

    grads: dict[str, torch.Tensor]
    parameters: dict[str, torch.Tensor]
    move: torch.Tensor | None


class Answers:
    """The last answers of the gate. To match one again costs no privacy: it stays true of its network."""

    def __init__(self, most: int = MOST_KEPT):
        self.most, self.kept = most, list[Answer]()

    def add(self, grads: dict[str, torch.Tensor], net: ConvNet, move: torch.Tensor | None) -> Answer:
        """Keep the answer about the network as it is, in place of the oldest one if there are too many."""
        plain = torch.contiguous_format  # a resumed run then computes with the same strides, so the same bits
        now = {k: p.detach().clone(memory_format=plain) for k, p in net.named_parameters()}
        self.kept = [*self.kept, Answer(grads, now, move)][-self.most :]
        return self.kept[-1]

    def draw(self) -> Answer:
        """One of those kept, at random."""
        return self.kept[int(torch.randint(len(self.kept), ()))]

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"kept": [tuple(a) for a in self.kept]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.kept = [Answer(*a) for a in state["kept"]]
