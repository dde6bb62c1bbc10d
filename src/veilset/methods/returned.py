"""What functions that an author wrote return is looked at once, so that a mistake is named where it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from veilset.core.errors import ConfigError

T = TypeVar("T")


def handed(value: Any, kind: type[T], by: str) -> T:
    """What a method's own function returned, if it is what it must return.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, kind):
        module = "torch." if kind is torch.Tensor else "veilset."
        raise ConfigError(f"{by} returned a {type(value).__name__}: must return a {module}{kind.__name__}")
    return value


def tensors(value: Any, by: str) -> dict[str, torch.Tensor]:
    """What a method or stage returned as learned: name -> tensor.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{by} returned a {type(value).__name__}: must return a dict, name -> tensor")
    odd = [k for k, v in value.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]
    if odd:
        raise ConfigError(f"{by} returned {odd[0]!r} as a {type(value[odd[0]]).__name__}: must be a tensor by its name")
    return dict(value)
