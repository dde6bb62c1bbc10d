"""Training state as bytes and back: safetensors and JSON, no pickle, with a hash that tells a file cut short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from veilset.core.errors import RunError
from veilset.core.io import sha256


def freeze(things: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The state of a loop after `step` steps: of all things with `state_dict`, and torch's random state."""
    import torch

    state = {name: thing.state_dict() for name, thing in things.items()}
    return {"step": step, "random": torch.get_rng_state(), "state": state}


def thaw(kept: Mapping[str, Any], things: Mapping[str, Any], loop: str) -> int:
    """Put the state that `freeze` took back into the things of the loop of this name; returns its steps.

    Raises:
        RunError: it belongs to other things.
    """
    import torch

    try:
        if kept["state"].keys() != things.keys():
            raise KeyError(f"it holds {', '.join(kept['state'])}")
        for name, thing in things.items():
            thing.load_state_dict(kept["state"][name])
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as e:
        words = " ".join(str(e).split())[:200]
        raise RunError(
            f"release {loop!r}: its checkpoint does not fit what the loop changes now ({words}); "
            "go on with the parameters of the interrupted run, or use a new folder"
        ) from e
    torch.set_rng_state(kept["random"])
    return int(kept["step"])


def pack(state: Mapping[str, Any]) -> bytes:
    """Bytes of a state, behind their hash.

    Args:
        state: as for `encode`, for example what `freeze` returns.
    """
    body = encode(state)
    return sha256(body).encode() + b"\n" + body


def unpack(data: bytes) -> dict[str, Any]:
    """The state that `pack` was given.

    Raises:
        RunError: the bytes are cut short or changed.
    """
    head, _, body = data.partition(b"\n")
    if sha256(body).encode() != head:
        raise RunError("checkpoint: cut short or changed")
    return decode(body)


def encode(state: Mapping[str, Any]) -> bytes:
    """Bytes of nested dicts, lists and tuples of tensors, numbers, texts, booleans and None.

    Args:
        state: its keys are texts or numbers. Tensors may share memory; where their bytes lie in memory is kept.

    Raises:
        RunError: it holds anything else.
    """
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    shape = json.dumps(_take_apart(dict(state), tensors))
    return save(tensors, metadata={"state": shape})


def decode(data: bytes) -> dict[str, Any]:
    """The state that `encode` was given (tuples come back as lists)."""
    from safetensors.torch import load

    size = int.from_bytes(data[:8], "little")
    shape = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["state"])
    whole: dict[str, Any] = _put_together(shape, load(data))
    return whole


def _take_apart(value: Any, tensors: dict[str, Any]) -> Any:
    """JSON of a state, in which tensors are replaced by their numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu()
        # Axes by stride: a channels_last tensor comes back as one; on another layout arithmetic may round otherwise.
        order = sorted(range(flat.ndim), key=flat.stride().__getitem__, reverse=True)
        tensors[str(len(tensors))] = flat.permute(order).clone(memory_format=torch.contiguous_format)
        return {"tensor": str(len(tensors) - 1), "order": order}
    if isinstance(value, Mapping):  # keys may be whole numbers (optimisers use them), which JSON would turn into text
        return {"pairs": [[k, _take_apart(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_apart(v, tensors) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RunError(f"checkpoint: a {type(value).__name__} cannot be kept; use tensors, numbers, texts, lists and dicts")


def _put_together(shape: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(shape, list):
        return [_put_together(v, tensors) for v in shape]
    if isinstance(shape, dict) and "tensor" in shape:
        order = shape["order"]
        return tensors[shape["tensor"]].permute([order.index(axis) for axis in range(len(order))])
    if isinstance(shape, dict):
        return {k: _put_together(v, tensors) for k, v in shape["pairs"]}
    return shape
