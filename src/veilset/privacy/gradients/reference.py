"""Per-record gradients by `vmap(grad)`: slow, general, and the reference that the fast path is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from veilset.core.errors import ConfigError

Parameters = nn.Module | Mapping[str, torch.Tensor]
Loss = Callable[..., torch.Tensor]


def named(params: Parameters) -> dict[str, torch.Tensor]:
    """What is clipped together: the parameters of a module that require a gradient, or a mapping's tensors."""
    if isinstance(params, nn.Module):
        return {k: p.detach() for k, p in params.named_parameters() if p.requires_grad}
    return {k: p.detach() for k, p in params.items()}


def call(
    loss: Loss,
    params: Parameters,
    values: dict[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    names: Sequence[str] = (),
) -> Any:
    """The loss of one record with these values in place of the parameters."""
    x, y, *own = inputs
    rest = (dict(zip(names, own, strict=True)),) if names else ()
    if not isinstance(params, nn.Module):
        return loss(values, x, y, *rest)

    def net(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(params, values, args, kwargs)

    return loss(net, x, y, *rest)


def per_record(
    loss: Loss, params: Parameters, inputs: Sequence[torch.Tensor], names: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Gradient of each record's loss. What it draws from torch's generator is the same for all records.

    Args:
        loss: (params, one image, its label) -> scalar; with `names` also name -> what the record draws of its own.
        params: module or mapping.
        inputs: x [n, C, H, W], y [n], and for each name what is drawn [n, ...].
        names: of what is drawn.

    Returns:
        name -> [n, *shape].
    """

    def one(values: dict[str, torch.Tensor], *record: torch.Tensor) -> Any:
        return call(loss, params, values, record, names)

    grads: dict[str, torch.Tensor] = torch.func.vmap(
        torch.func.grad(one), in_dims=(None, *[0] * len(inputs)), randomness="same"
    )(named(params), *inputs)
    return grads


def refuse_mixing(params: Parameters) -> None:
    """Refuse layers through which one record reaches another.

    Raises:
        ConfigError: batch normalisation, or an instance normalisation that keeps running statistics.
    """
    if not isinstance(params, nn.Module):
        return
    for name, layer in params.named_modules():
        where = f"layer {name or 'the network itself'!r} = {type(layer).__name__}"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 the base of all
            raise ConfigError(f"{where}: it mixes the records of a batch; use nn.GroupNorm, which looks at one record")
        if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats:  # noqa: SLF001 likewise
            raise ConfigError(f"{where}: running statistics mix records; set track_running_stats=False")
