"""The classifiers that papers on private synthetic images report: small ones, and the six of Private Set Generation.

The six are those of the code of Chen, Kerkouche and Fritz 2022 (arXiv 2211.04446): instance normalisation as a group
of one channel, and for grey images a wider padding in front, so that 28x28 works like 32x32. Two smaller ones of the
same parts train on large sets in minutes. None of them meets the gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.classifiers import CNN

GREY, COLOUR = 28, 32  # the side that the six networks are made for
VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)  # channels; 0 halves the sides


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation, float [B, channels, H, W] to the same shape.

    The input is brought into plain order first: backwards through channels_last, `nn.GroupNorm` takes ten times as
    long on a CPU, which is more than half of a training step.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each channel of each image to mean 0 and deviation 1, scaled and moved."""
        return super().forward(x.contiguous())


class AvgPool(nn.Module):
    """Means over 2 x 2 places, as `nn.AvgPool2d(2)`, in a quarter of its time in plain order on a CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [B, C, H, W] to [B, C, H // 2, W // 2]; an odd last row or column is left out."""
        high, wide = (s - s % 2 for s in x.shape[2:])
        x = x[:, :, 0:high:2] + x[:, :, 1:high:2]
        return (x[..., 0:wide:2] + x[..., 1:wide:2]) / 4


def _linear(channels: int, classes: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(channels, classes)]


def convnet(channels: int, classes: int, width: int = 128) -> nn.Sequential:
    """Three blocks of `width` channels with instance normalisation and average pooling."""
    layers: list[nn.Module] = []
    for i, inside in enumerate((channels, width, width)):
        padding = 3 if channels == 1 and i == 0 else 1
        layers += [nn.Conv2d(inside, width, 3, padding=padding), InstanceNorm(width), nn.ReLU(), AvgPool()]
    return nn.Sequential(*layers, *_linear(width * 4 * 4, classes))


def convnet32(channels: int, classes: int) -> nn.Sequential:
    """The ConvNet with 32 channels."""
    return convnet(channels, classes, 32)


def lenet(channels: int, classes: int) -> nn.Sequential:
    """Two 5x5 convolutions and three linear layers."""
    convolutions = [nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)]
    return nn.Sequential(*convolutions, *head)


def alexnet(channels: int, classes: int) -> nn.Sequential:
    """Five convolutions without normalisation."""
    first = [nn.Conv2d(channels, 128, 5, padding=4 if channels == 1 else 2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    rest: list[nn.Module] = []
    for inside, outside in ((192, 256), (256, 192), (192, 192)):
        rest += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*first, *second, *rest, nn.MaxPool2d(2), *_linear(192 * 4 * 4, classes))


def vgg11(channels: int, classes: int) -> nn.Sequential:
    """Eight 3x3 convolutions with instance normalisation."""
    layers: list[nn.Module] = []
    inside = channels
    for width in VGG11:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        padding = 3 if channels == 1 and not layers else 1
        layers += [nn.Conv2d(inside, width, 3, padding=padding), InstanceNorm(width), nn.ReLU()]
        inside = width
    return nn.Sequential(*layers, *_linear(512, classes))


class Residual(nn.Module):
    """Two 3x3 convolutions with instance normalisation, added to the input."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), InstanceNorm(outside), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, 1, 1, bias=False), InstanceNorm(outside))
        same = stride == 1 and inside == outside
        bridge = [] if same else [nn.Conv2d(inside, outside, 1, stride, bias=False), InstanceNorm(outside)]
        self.shortcut = nn.Sequential(*bridge)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, H, W] to [B, outside, H / stride, W / stride]."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet18(channels: int, classes: int) -> nn.Sequential:
    """Four stages of two residual blocks."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, 1, 1, bias=False), InstanceNorm(64), nn.ReLU()]
    inside = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(inside, outside, stride), Residual(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), *_linear(512, classes))


def resnet8(channels: int, classes: int) -> nn.Sequential:
    """Three stages of one residual block, with 16, 32 and 64 channels."""
    first = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), InstanceNorm(16), nn.ReLU()]
    stages = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    return nn.Sequential(*first, *stages, nn.AdaptiveAvgPool2d(1), *_linear(64, classes))


def mlp128(channels: int, classes: int) -> nn.Sequential:
    """Two hidden layers of 128 units."""
    pixels = channels * (GREY if channels == 1 else COLOUR) ** 2
    hidden = [nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, classes))


SIX: dict[str, Callable[[int, int], nn.Sequential]] = {
    "convnet": convnet,
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "resnet18": resnet18,
    "mlp128": mlp128,
}
SMALL: dict[str, Callable[[int, int], nn.Sequential]] = {"convnet32": convnet32, "resnet8": resnet8}


class Resized(nn.Module):
    """A network behind a resize to its side (bilinear, antialiased when shrinking); none at 28 or 32."""

    def __init__(self, layers: nn.Sequential, side: int):
        super().__init__()
        self.layers, self.side = layers, side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels float [B, C, H, W] to logits [B, classes]."""
        if tuple(x.shape[2:]) != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        return self.layers(x)


class Standardised(nn.Module):
    """A network behind a fixed map that gives the training pixels mean 0 and deviation 1 in each channel.

    Args:
        net: the network.
        x: training pixels, uint8 [N, C, H, W]; only their two moments are kept.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, net: nn.Module, x: torch.Tensor):
        super().__init__()
        deviation, mean = torch.std_mean(x.transpose(0, 1).flatten(1).float() / 127.5 - 1, 1, correction=0)
        self.net = net
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("deviation", deviation.clamp(min=1e-3).view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels float [B, C, H, W] in [-1, 1] to what the network answers."""
        return self.net((x - self.mean) / self.deviation)


def make_network(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A fresh network by name: "cnn", "mlp" (one hidden layer of 100), or one of `SIX` or `SMALL`.

    Args:
        name: the network.
        shape: (channels, height, width) of the images.
        classes: number of classes.
    """
    channels, high, wide = shape
    if name == "cnn":
        return CNN(shape, classes)
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * high * wide, 100), nn.ReLU(), nn.Linear(100, classes))
    return Resized((SIX | SMALL)[name](channels, classes), GREY if channels == 1 else COLOUR)


class Linear(nn.Module):
    """A logistic regression of scikit-learn as a network that reads pixels in [-1, 1].

    Args:
        model: a fitted `LogisticRegression` on pixels in [0, 1].
        classes: number of classes; those it never saw get the lowest logit.
    """

    def __init__(self, model: Any, classes: int):
        super().__init__()
        weight, bias = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
        if len(weight) == 1:  # two classes: one row, for the second of them
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        seen = torch.from_numpy(model.classes_)
        self.weight = torch.zeros(classes, weight.shape[1]).index_copy_(0, seen, weight)
        self.bias = torch.full((classes,), -1e9).index_copy_(0, seen, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels float [B, C, H, W] in [-1, 1] to logits [B, classes]."""
        return (x.flatten(1) + 1) / 2 @ self.weight.T + self.bias


def as_module(model: Any, classes: int) -> nn.Module:
    """A trained classifier as a network that reads float pixels in [-1, 1]."""
    return model.float() if isinstance(model, nn.Module) else Linear(model, classes)


def penultimate(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the last linear layer reads [B, D], its logits [B, classes]) for pixels x [B, C, H, W]."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        logits = net(x)
    finally:
        handle.remove()
    return seen[0], logits
