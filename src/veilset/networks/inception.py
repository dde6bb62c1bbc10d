"""Inception-v3 as it was exported in December 2015, the network that FID, KID and the Inception Score are defined by.

Szegedy et al. 2016 (arXiv 1512.00567), with the three things in which the exported graph differs from other copies:
average pooling leaves the padding out of the mean, the last block pools by maximum, and there are 1008 outputs. The
names of modules are those of the public weights file, so that it loads as it is. Only for evaluation: no auxiliary
head, and batch normalisation always uses the stored moments.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

SIDE, FEATURES, OUTPUTS = 299, 2048, 1008


class Conv(nn.Module):
    """Convolution without bias, batch normalisation (epsilon 1e-3), ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int | tuple[int, int], stride: int = 1, *, same: bool = True):
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inside, outside, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, H, W] to [B, outside, H', W']."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def mean_pool(x: torch.Tensor) -> torch.Tensor:
    """3x3 mean with stride 1 over the pixels that exist."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class MixedA(nn.Module):
    """35x35: 1x1, 5x5 and double 3x3 beside a pooled branch."""

    def __init__(self, inside: int, pooled: int):
        super().__init__()
        self.branch1x1 = Conv(inside, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inside, 48, 1), Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inside, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.branch_pool = Conv(inside, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, 35, 35] to [B, 224 + pooled, 35, 35]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(mean_pool(x))], 1)


class MixedB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self, inside: int):
        super().__init__()
        self.branch3x3 = Conv(inside, 384, 3, 2, same=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inside, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2, same=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, 35, 35] to [B, inside + 480, 17, 17]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """17x17: 7x7 convolutions split into rows and columns."""

    def __init__(self, inside: int, middle: int):
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = Conv(inside, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(inside, middle, 1), Conv(middle, middle, row)
        self.branch7x7_3 = Conv(middle, 192, column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(inside, middle, 1), Conv(middle, middle, column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(middle, middle, row), Conv(middle, middle, column)
        self.branch7x7dbl_5 = Conv(middle, 192, row)
        self.branch_pool = Conv(inside, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, 17, 17] to [B, 768, 17, 17]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(mean_pool(x))], 1)


class MixedD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, inside: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inside, 192, 1), Conv(192, 320, 3, 2, same=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(inside, 192, 1), Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1)), Conv(192, 192, 3, 2, same=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, 17, 17] to [B, inside + 512, 8, 8]."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """8x8: rows and columns side by side. The last block of the exported graph pools by maximum."""

    def __init__(self, inside: int, *, maximum: bool):
        super().__init__()
        self.maximum = maximum
        self.branch1x1, self.branch3x3_1 = Conv(inside, 320, 1), Conv(inside, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inside, 448, 1), Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inside, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inside, 8, 8] to [B, 2048, 8, 8]."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else mean_pool(x)
        return torch.cat([*parts, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """The whole network; `forward` answers pooled features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, same=False)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Conv(32, 32, 3, same=False), Conv(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3, same=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a, self.Mixed_6b, self.Mixed_6c = MixedB(288), MixedC(768, 128), MixedC(768, 160)
        self.Mixed_6d, self.Mixed_6e = MixedC(768, 160), MixedC(768, 192)
        self.Mixed_7a, self.Mixed_7b = MixedD(768), MixedE(1280, maximum=False)
        self.Mixed_7c = MixedE(2048, maximum=True)
        self.fc = nn.Linear(FEATURES, OUTPUTS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels float32 [B, 3, 299, 299] in [-1, 1] to (features [B, 2048], logits without bias [B, 1008])."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        return x, x @ self.fc.weight.T
