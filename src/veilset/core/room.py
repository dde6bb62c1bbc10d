"""A limit on the tensors that a model asks for, where its parameters were written by a stranger."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.eye)


class Room(TorchFunctionMode):
    """Within it, whoever makes a tensor of more than `most` numbers, or a network with more weights, is refused.

    Networks make their weights by `torch.empty`, so those add up; other tensors come and go, and are looked at one by
    one. Values computed from tensors are not looked at: they are as large as what they come from.

    Args:
        most: how many numbers.
    """

    def __init__(self, most: int):
        super().__init__()
        self._most, self._weights = most, 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in MAKERS:
            sizes = args[0] if args and isinstance(args[0], tuple | list | torch.Size) else args
            sizes = (kwargs or {}).get("size", sizes)
            number = math.prod(abs(n) for n in sizes if type(n) is int) ** (2 if func is torch.eye else 1)
            self._weights += number if func is torch.empty else 0
            if max(number, self._weights) > self._most:
                raise RuntimeError(f"it asks for more than {self._most} numbers")
        return func(*args, **(kwargs or {}))
