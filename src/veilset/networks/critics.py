"""Conditional critics. They see private records, so no layer mixes records: no batch normalisation anywhere."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.activations import activation
from veilset.networks.dct import low_frequencies

LOSSES = ("logistic", "wasserstein", "hinge")


def real_loss(kind: str, score: torch.Tensor) -> torch.Tensor:
    """What a critic pays for its scores of real images, elementwise; its derivative lies in [-1, 0]."""
    if kind == "logistic":
        return F.softplus(-score)
    return -score if kind == "wasserstein" else F.relu(1 - score)


def fake_loss(kind: str, score: torch.Tensor) -> torch.Tensor:
    """What a critic pays for its scores of generated images, elementwise; its derivative lies in [0, 1]."""
    return real_loss(kind, -score)


def generator_loss(kind: str, score: torch.Tensor) -> torch.Tensor:
    """What a generator pays: the non-saturating logistic loss, or minus the score."""
    return F.softplus(-score) if kind == "logistic" else -score


def one_hot(y: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels [...] to float32 [..., classes]; unlike torch's own it never looks at a value, so it can be mapped."""
    return (y[..., None] == torch.arange(classes, device=y.device)).to(torch.float32)


def score(heads: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Scores [n] of images for labels y [n] from a critic's output: [n, 1], or [n, 1 + K] with a head per class."""
    if heads.shape[1] == 1:
        return heads[:, 0]
    return heads[:, 0] + (heads[:, 1:] * one_hot(y, heads.shape[1] - 1).to(heads.dtype)).sum(1)


def class_loss(heads: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [n] of the class heads, from a critic's output [n, 1 + K] and labels [n]."""
    return -(F.log_softmax(heads[:, 1:].float(), 1) * one_hot(y, heads.shape[1] - 1)).sum(1)


class MLPCritic(nn.Module):
    """Image through fully connected layers to scores.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        widths: of the hidden layers.
        act: name of the activation.
        labels: "heads": one output for all images and one per class, the score is the sum of the first and the label's;
            "input": the label is part of the input, one-hot, and there is one output.
        basis: how many of the lowest frequencies it sees of an image, in place of its pixels; 0: pixels. Fewer inputs
            mean fewer weights that noise is added to.
    """

    basis: torch.Tensor | None

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...],
        act: str = "leaky-relu",
        labels: str = "heads",
        basis: int = 0,
    ):
        super().__init__()
        self.classes, self.labels = classes, labels
        self.register_buffer("basis", low_frequencies(shape, basis).T if basis else None, persistent=False)
        inputs = math.prod(shape) if self.basis is None else self.basis.shape[1]
        sizes = (inputs + (classes if labels == "input" else 0), *widths)
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(a, b), activation(act)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1 if labels == "input" else 1 + classes))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [0, 1] and labels [n] to what `score` reads: [n, 1 + K], or [n, 1]."""
        x = x.flatten(1)
        if self.basis is not None:
            x = x @ self.basis
        if self.labels == "input":
            x = torch.cat([x, one_hot(y, self.classes).to(x.dtype)], 1)
        out: torch.Tensor = self.layers(x)
        return out

    def widths(self) -> list[int]:
        """m_0 ... m_H: inputs, hidden units, outputs."""
        dense = [m for m in self.layers if isinstance(m, nn.Linear)]
        return [dense[0].in_features, *(m.out_features for m in dense)]


class ConvCritic(nn.Module):
    """4x4 convolutions of stride 2 down to a side of at most 8, then a linear head for all images and one per class.

    The score is (w + v_y) . features: what every class shares has weights that all records teach, since noise is the
    same on every weight and a weight that only one class uses sees a K-th of the records.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        width: channels of the first convolution; doubled at each further one.
        act: name of the activation.
        norm: "none", or "group": group normalisation (of one image alone) after the convolutions but the first.
        hidden: units of a fully connected layer before the score; 0: none.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        width: int,
        act: str = "leaky-relu",
        norm: str = "none",
        hidden: int = 0,
    ):
        super().__init__()
        self.classes = classes
        channels, *sides = shape
        layers: list[nn.Module] = []
        for i in range(halvings(sides)):
            layers += [nn.Conv2d(channels, width << i, 4, stride=2, padding=1)]
            if norm == "group" and i:
                layers += [nn.GroupNorm(math.gcd(width << i, 8), width << i)]
            layers += [activation(act)]
            channels, sides = width << i, [max(1, s // 2) for s in sides]
        layers += [nn.Flatten()]
        size = channels * math.prod(sides)
        if hidden:
            layers += [nn.Linear(size, hidden), activation(act)]
            size = hidden
        self.features = nn.Sequential(*layers)
        self.heads = nn.Linear(size, 1 + classes)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [0, 1] to what `score` reads: [n, 1 + K]. It does not need the labels."""
        out: torch.Tensor = self.heads(self.features(2 * x - 1))
        return out


def halvings(sides: list[int] | tuple[int, ...]) -> int:
    """How often a picture is halved to come down to a side of at most 8: 2 for 28 and 32, 3 for 64."""
    return max(1, math.ceil(math.log2(max(sides) / 8)))


def weight_clip_bound(widths: list[int], limit: float, act: str) -> float:
    """A bound on the L2 norm of one image's gradient of the score, from a limit on the critic's weights. It holds.

    For fully connected layers with a linear output: inputs in [0, 1], every weight and bias in [-limit, limit]. A_k
    bounds the activations of layer k and d_k the size of the back-propagated signal at it; the gradient of layer k's
    weights and biases is at most d_k sqrt(m_k (m_(k-1) A_(k-1)^2 + 1)). All losses here have a slope of at most 1.

    Args:
        widths: m_0 ... m_H, inputs first.
        limit: of weights and biases.
        act: name of the activation.
    """
    largest, slope = {
        "leaky-relu": (None, 1.0), "relu": (None, 1.0), "silu": (None, 1.1), "tanh": (1.0, 1.0),
        "tempered-sigmoid": (0.87, 1.185),
    }[act]  # fmt: skip
    a = [1.0]
    for m in widths[:-2]:
        a.append(largest if largest is not None else limit * (m * a[-1] + 1))
    total, d = 0.0, 1.0
    for k in reversed(range(1, len(widths))):
        total += d * d * widths[k] * (widths[k - 1] * a[k - 1] ** 2 + 1)
        d *= limit * widths[k] * slope
    return math.sqrt(total)


def unverified_paper_bound(widths: list[int], limit: float, largest: float, slope: float) -> float:
    """The bound c_g as printed by Xie et al. 2018. It is NOT a bound: a test shows a larger gradient. Nothing uses it.

    2 limit largest slope^2 sum_(k=1)^(H-1) m_k m_(k+1) leaves out the first layer, and gives the last one a factor
    `limit` that its gradient does not have.
    """
    return 2 * limit * largest * slope**2 * sum(a * b for a, b in zip(widths[1:], widths[2:], strict=False))
