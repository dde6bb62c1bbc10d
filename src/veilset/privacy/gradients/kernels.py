"""The compiled part, where there is one: kernels.cpp by ctypes. Without it the same is computed by torch's operators.

It sees memory, not tensors: images position by position, channels adjacent, and records one after the other.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from veilset.core.errors import Note
from veilset.privacy.gradients.build import DIGEST, LIBRARY, digest

Pair = tuple[int, int]
NAMES = ("convolution", "norm", "norm_back", "mix")
WIDEST = 16  # channels of a group normalisation are a multiple of it
ACROSS = 16  # input channels below which vectors run over output channels
KINDS = {16: "AVX-512", 8: "AVX2", 4: "NEON"}


class _Convolution(ctypes.Structure):
    _sizes = ("images", "H", "W", "C", "high", "wide", "O", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw")
    _fields_ = [(k, ctypes.c_int64) for k in (*_sizes, "half", "across")]


class _Norm(ctypes.Structure):
    _fields_ = [*((k, ctypes.c_int64) for k in ("L", "C", "groups", "half")), ("eps", ctypes.c_double)]


@functools.cache
def library() -> Any:
    """The compiled part, or None: it was not built, is not whole, or is for another processor."""
    try:
        whole = LIBRARY.read_bytes()
        sound = whole[-DIGEST:] == digest(whole[:-DIGEST])
    except FileNotFoundError:
        return None
    except OSError as e:
        return _unused(str(e))
    if not sound:
        return _unused("it is not whole, or was made from another source")
    try:
        found = ctypes.CDLL(str(LIBRARY))
        for name in NAMES:
            getattr(found, f"veilset_{name}").restype = ctypes.c_int
    except (OSError, AttributeError) as e:
        return _unused(str(e))
    return found if found.veilset_width() else None


def _unused(why: str) -> None:
    text = f"{LIBRARY.name} is not used ({why}): gradients take longer; install the package anew"
    warnings.warn(text, Note, stacklevel=3)


def words() -> str:
    """What computes per-record gradients here, for people."""
    found = library()
    return f"compiled, {KINDS[found.veilset_width()]}" if found else "torch's operators"


def can(*tensors: torch.Tensor) -> bool:
    """Whether there is a compiled part for such numbers."""
    kind = tensors[0].dtype
    fits = all(t.device.type == "cpu" and t.dtype == kind for t in tensors)
    return fits and kind in (torch.float32, torch.bfloat16) and library() is not None


def convolution(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Per-record weight gradients of a convolution that takes `large` to `small`, and the squares of their norms.

    Args:
        large: [n m, C, H, W], the m images of a record in a row; summed over.
        small: [n m, O, H', W'].
        n: records.
        kernel, stride, padding, dilation: of the convolution.

    Returns:
        (float32 [n, kh, kw, O, C], or [n, kh, kw, C, O] if the last is true; float64 [n]; whether so).
    """
    (c, high, wide), (o, rows, columns) = large.shape[1:], small.shape[1:]
    for size, out, i in ((high, rows, 0), (wide, columns, 1)):  # else it would read what is not there
        assert (out - 1) * stride[i] + (kernel[i] - 1) * dilation[i] < size + 2 * padding[i]
    assert len(large) == len(small) and large.dtype == small.dtype and n and len(large) % n == 0
    padded = (high + 2 * padding[0]) * (wide + 2 * padding[1])  # no fewer than what goes out
    assert len(large) // n * (max(c, o) + WIDEST) * padded < 2**32  # places have 32 bits
    across = c < ACROSS
    shape = _Convolution(
        len(large) // n, high, wide, c, rows, columns, o, *kernel, *stride, *padding, *dilation, _half(large), across
    )
    grads = torch.empty(n, *kernel, *((c, o) if across else (o, c)))
    squares = torch.empty(n, dtype=torch.float64)
    _call("convolution", ctypes.byref(shape), _last(large), _last(small), grads, squares, n)
    return grads, squares, across


class GroupNorm:
    """Group normalisation of x [images, C, H, W] by scale and shift, float32 [C] each or None.

    Attributes:
        y: like x, in channels_last.
    """

    def __init__(
        self, x: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, groups: int, eps: float
    ):
        images, c, high, wide = x.shape
        assert c % WIDEST == 0 and c % groups == 0
        self._shape = _Norm(high * wide, c, groups, _half(x), eps)
        self._x, self._scale = _last(x), None if scale is None else scale.float().contiguous()
        out = torch.empty_like(self._x)
        self._mean, self._rstd = torch.empty(2, images, groups)
        moved = None if shift is None else shift.float().contiguous()
        _call("norm", ctypes.byref(self._shape), self._x, self._scale, moved, out, self._mean, self._rstd, images)
        self.y = out.permute(0, 3, 1, 2)

    def backward(self, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The gradient of x, and those of scale and shift image by image, float32 [images, C]."""
        back, (scale, shift) = torch.empty_like(self._x), torch.empty(2, len(g), g.shape[1])
        kept = self._x, self._scale, self._mean, self._rstd
        _call("norm_back", ctypes.byref(self._shape), _last(g), *kept, back, scale, shift, len(g))
        return back.permute(0, 3, 1, 2), scale, shift


def mix(share: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """share [n] float64 @ rows [n, d] float32, in float64."""
    n, size = rows.shape
    total = torch.zeros(size, dtype=torch.float64)
    _call("mix", rows.contiguous(), share.contiguous(), total, n, size)
    return total


def _last(x: torch.Tensor) -> torch.Tensor:
    """x [n, C, H, W] as [n, H, W, C] that lies so in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def _half(x: torch.Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the compiled part, which gives up Python's lock meanwhile."""
    plain: Sequence[Any] = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int64(a) if isinstance(a, int) else a
        for a in arguments
    ]
    if getattr(library(), f"veilset_{name}")(*plain, ctypes.c_int64(torch.get_num_threads())):
        raise MemoryError(f"no memory for the temporaries of {name}")
