"""Activations by name. Each maps every element alone, so they are safe under per-record gradients."""

from __future__ import annotations

import torch
from torch import nn

from veilset.core.errors import ConfigError, suggest

NAMES = ("leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid")


class TemperedSigmoid(nn.Module):
    """scale * sigmoid(temperature * x) - offset (Papernot et al. 2020, arXiv 2007.14191); (2, 2, 1) is tanh.

    Bounded activations keep gradients short, so that clipping costs less.

    Args:
        scale: height of the step between the two ends.
        temperature: how steep it is; the slope at 0 is scale * temperature / 4.
        offset: taken off, so that values lie in [-offset, scale - offset].
    """

    def __init__(self, scale: float = 1.58, temperature: float = 3.0, offset: float = 0.71):
        super().__init__()
        self.scale, self.temperature, self.offset = scale, temperature, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape to the same shape."""
        return self.scale * torch.sigmoid(self.temperature * x) - self.offset


def activation(name: str, slope: float = 0.2) -> nn.Module:
    """A new activation module.

    Args:
        name: "leaky-relu", "relu", "silu", "tanh" or "tempered-sigmoid" (1.58, 3, 0.71, the best published on images).
        slope: of "leaky-relu" below 0.

    Raises:
        ConfigError: another name.
    """
    if name == "leaky-relu":
        return nn.LeakyReLU(slope)
    if name == "relu":
        return nn.ReLU()
    if name == "silu":
        return nn.SiLU()
    if name == "tanh":
        return nn.Tanh()
    if name == "tempered-sigmoid":
        return TemperedSigmoid()
    raise ConfigError(f"activation = {name!r}: must be one of {', '.join(NAMES)}.{suggest(name, NAMES)}")
