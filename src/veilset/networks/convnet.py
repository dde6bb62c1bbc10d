"""The ConvNet of Private Set Generation for any width and shape, made to be matched: it meets the gate."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from veilset.core.errors import ConfigError

SMALLEST, LARGEST = 8, 128
UNIT = 0.3  # a pixel's rough deviation: the network reads pixels in this unit


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, instance normalisation, ReLU and 2x2 average pooling; then one linear layer.

    Chen, Kerkouche and Fritz 2022 (arXiv 2211.04446) use 3 blocks of 128 channels. Here blocks halve the shorter side
    to about 4 (28, 32: 3 blocks; 64: 4), and the first convolution pads so that no halving leaves a rest, as theirs
    does for 28x28. Convolutions have no bias: normalisation takes it out again. Gains and shifts stand apart from the
    layers' weights, because only weights are matched; see `weights`.

    Args:
        shape: (C, H, W) of the images, sides from 8 to 128.
        classes: number of classes K.
        width: channels of every block.

    Raises:
        ConfigError: a side out of range.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 128):
        super().__init__()
        channels, *sides = shape
        if not all(SMALLEST <= s <= LARGEST for s in sides):
            raise ConfigError(
                f"shape = {list(shape)}: the network takes sides from {SMALLEST} to {LARGEST}; prepare the set at "
                "such a size"
            )
        blocks = max(2, round(math.log2(min(sides) / 4)))
        self.padding = [(1 + (-sides[0]) % 2**blocks // 2, 1 + (-sides[1]) % 2**blocks // 2), *[(1, 1)] * (blocks - 1)]
        inputs = [channels, *[width] * (blocks - 1)]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, width, 3, bias=False) for i in inputs)
        self.gain = nn.ParameterList(torch.ones(width) for _ in inputs)
        self.shift = nn.ParameterList(torch.zeros(width) for _ in inputs)
        ends = [(s + 2 * p - 2) >> blocks for s, p in zip(sides, self.padding[0], strict=True)]
        self.linear = nn.Linear(width * math.prod(ends), classes, bias=False)
        edge = 1 / math.sqrt(self.linear.in_features)
        self.offset = nn.Parameter(torch.empty(classes).uniform_(-edge, edge))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels float [B, C, H, W] in [0, 1] to logits [B, K]."""
        x = x / UNIT
        for layer, gain, shift, padding in zip(self.convolutions, self.gain, self.shift, self.padding, strict=True):
            assert isinstance(layer.weight, torch.Tensor)
            x = F.conv2d(x, layer.weight, padding=padding)
            x = F.group_norm(x, len(gain))
            x = torch.addcmul(shift.to(x.dtype)[:, None, None], x, gain.to(x.dtype)[:, None, None])
            x = F.avg_pool2d(F.relu(x), 2)
        x = self.linear(x.flatten(1))
        return x + self.offset.to(x.dtype)

    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that are matched: of rank 4 (convolutions) and 2 (linear), by name."""
        return {name: p for name, p in self.named_parameters() if p.dim() > 1}
