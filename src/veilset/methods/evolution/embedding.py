"""Embeddings in which private images are nearest to a candidate. All are public: no private image is looked at.

A fixed one is a function of the image, made smaller. The network's is learned from the simulator, which makes as many
images as one likes and knows what it made: a network that tells those apart sees what matters, and not the pen.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from veilset.core.progress import progress
from veilset.methods.base import BATCH
from veilset.methods.evolution.simulators import Embedding, Simulator
from veilset.networks import scattering

SIDE, SEEN = 16, 32  # pixels of a side that fixed embeddings and the network see, at most
AXES, SHOWN = 64, 2000  # of an embedding, and candidates by which they are chosen
CHANNELS, FEATURES = (16, 32, 64), 128
EACH, RATE = 128, 2e-3  # images a step, and largest learning rate, of the network's training


def _shrunk(x: torch.Tensor, side: int) -> torch.Tensor:
    """Images [n, C, H, W], averaged to at most `side` pixels per side."""
    cell = max(1, math.ceil(min(x.shape[2:]) / side))
    return F.avg_pool2d(x, cell) if cell > 1 else x


def pixels(x: torch.Tensor) -> torch.Tensor:
    """The image itself, made smaller: [n, E]."""
    return _shrunk(x, SIDE).flatten(1)


def edges(x: torch.Tensor) -> torch.Tensor:
    """Strengths of edges in eight directions, and of ink, in cells of three pixels: [n, E] of norm 1.

    Roots of strengths: their distances are those of Hellinger.
    """
    x = _shrunk(x, SIDE)
    right, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    angles = [k * math.pi / 4 for k in range(8)]
    strengths = [F.relu(right * math.cos(a) + down * math.sin(a)) for a in angles]
    maps = torch.cat([*strengths, x[..., 1:-1, 1:-1]], 1)
    z = F.avg_pool2d(F.pad(maps, (1, 1, 1, 1)), 3, 2).flatten(1).clamp_min(0).sqrt()
    return z / z.norm(dim=1, keepdim=True).clamp_min(1e-6)


def scattered(x: torch.Tensor) -> torch.Tensor:
    """Scattering of the image, made smaller: [n, E]."""
    return scattering.features(_shrunk(x, SIDE))


FIXED: dict[str, Embedding] = {"pixels": pixels, "edges": edges, "scattering": scattered}


def of(name: str, made: Simulator, steps: int) -> Embedding:
    """An embedding by name, along the directions in which candidates differ most: images [n, C, H, W] -> [n, AXES]."""
    seen = learned(made, steps) if name == "network" else FIXED[name]
    rows = made.random(torch.arange(SHOWN) % len(made.info.classes))
    e = torch.cat([seen(made.images(part)) for part in rows.split(BATCH)])
    centre = e.mean(0)
    axes = torch.linalg.svd(e - centre, full_matrices=False)[2][:AXES]
    return lambda x: (seen(x) - centre) @ axes.T


class Network(nn.Module):
    """Three convolutions with pooling, and a layer of features of norm 1."""

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((shape[0], *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2, 2, 0)]
        body = nn.Sequential(*layers)
        with torch.no_grad():
            size = body(_padded(_shrunk(torch.zeros(1, *shape), SEEN))).numel()
        self.layers = nn.Sequential(body, nn.Flatten(), nn.Linear(size, FEATURES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [0, 1] -> [n, FEATURES]."""
        return F.normalize(self.layers(_padded(_shrunk(x, SEEN)) - 0.5), dim=1)


def _padded(x: torch.Tensor) -> torch.Tensor:
    """To at least eight pixels per side, for three halvings."""
    missing = [max(0, 8 - s) for s in (x.shape[3], x.shape[2])]
    return F.pad(x, (0, missing[0], 0, missing[1])) if any(missing) else x


def learned(made: Simulator, steps: int) -> Embedding:
    """Features of a network that has learned which kind of thing the simulator made, after strong variations."""
    kinds = made.kinds
    net = Network(made.info.shape)
    heads = nn.Parameter(torch.randn(kinds, FEATURES) / math.sqrt(FEATURES))
    adam = torch.optim.AdamW([*net.parameters(), heads], RATE, weight_decay=1e-2)
    rise = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps)
    for _ in progress(range(steps), "public network"):
        rows = made.random(torch.randint(len(made.info.classes), (EACH,)))
        logits = net(made.images(made.varied(rows, 0.3))) @ F.normalize(heads, dim=1).T
        loss = F.cross_entropy(10 * logits, made.kind(rows))
        adam.zero_grad()
        loss.backward()
        adam.step()
        rise.step()
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def seen(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = functional_call(net, weights, (x,))
        return out

    return seen
