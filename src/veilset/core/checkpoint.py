"""Training state as bytes and back: safetensors and JSON, no pickle, with a hash that tells a file cut short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from veilset.core.errors import RunError
from veilset.core.io import sha256


def pack(state: Mapping[str, Any]) -> bytes:
    """Bytes of nested dicts, lists and tuples of tensors, numbers, texts, booleans and None.

    Args:
        state: for example `{"net": net.state_dict(), "adam": adam.state_dict(), "step": 7}`; keys are texts or numbers.
    """
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    shape = json.dumps(_take_apart(dict(state), tensors))
    body = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"state": shape})
    return sha256(body).encode() + b"\n" + body


def unpack(data: bytes) -> dict[str, Any]:
    """The state that `pack` was given (tuples come back as lists).

    Raises:
        RunError: the bytes are cut short or changed.
    """
    from safetensors.torch import load

    head, _, body = data.partition(b"\n")
    if sha256(body).encode() != head:
        raise RunError("checkpoint: cut short or changed")
    size = int.from_bytes(body[:8], "little")
    shape = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["state"])
    whole: dict[str, Any] = _put_together(shape, load(body))
    return whole


def _take_apart(value: Any, tensors: dict[str, Any]) -> Any:
    """JSON of a state, in which tensors are replaced by their numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value
        return {"tensor": str(len(tensors) - 1)}
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
        return tensors[shape["tensor"]]
    if isinstance(shape, dict):
        return {k: _put_together(v, tensors) for k, v in shape["pairs"]}
    return shape
