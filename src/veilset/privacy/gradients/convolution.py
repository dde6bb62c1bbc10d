"""Per-record weight gradients of a convolution: for each record, the correlation of its input and output gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from veilset.privacy.gradients.sheet import Join, whole

Pair = tuple[int, int]


def weight_gradients(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[list[torch.Tensor], Join]:
    """Gradients of a convolution's weight that takes `large` to `small`, record by record.

    For an ordinary convolution `large` is its input and `small` its output's gradient; for a transposed one they change
    places. bfloat16 multiplies fastest as batched matrix products over gathered windows; for float32 the library's own
    weight gradient of a convolution with a group a record is faster on CPUs without a vendor matrix kernel.

    Args:
        large: [n m, C, H, W], the m images of a record in a row; summed over.
        small: [n m, O, H', W'].
        n: records.
        kernel, stride, padding, dilation: of the convolution.

    Returns:
        (pieces [n, ...], how to join them to [..., O, C, kh, kw]).
    """
    if large.dtype == torch.bfloat16 and dilation == (1, 1):
        return _windows(large, small, n, kernel, stride, padding)
    return [_grouped(large, small, n, kernel, stride, padding, dilation)], whole


def _grouped(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    """One convolution with n groups; a record's m images are the batch of its group."""
    c, o = large.shape[1], small.shape[1]
    a = large.unflatten(0, (n, -1)).transpose(0, 1).reshape(-1, n * c, *large.shape[2:])
    g = small.unflatten(0, (n, -1)).transpose(0, 1).reshape(-1, n * o, *small.shape[2:])
    weight = a.new_empty(n * o, c, *kernel)
    back: torch.Tensor = torch.ops.aten.convolution_backward(
        g, a, weight, None, stride, padding, dilation, False, [0, 0], n, [False, True, False]
    )[1]
    return back.view(n, o, c, *kernel)


def _windows(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair
) -> tuple[list[torch.Tensor], Join]:
    """Windows of the input as rows [positions, kh kw C], times the output's gradient [positions, O]."""
    (kh, kw), (sh, sw) = kernel, stride
    c, (o, high, wide) = large.shape[1], small.shape[1:]
    x = F.pad(large.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
    g = small.permute(0, 2, 3, 1).reshape(n, -1, o).transpose(1, 2)
    s = x.stride()
    if sh == 1 and len(x) == n:  # gather neighbours along a row only; the rows of a window are shifted views
        u = x.as_strided((n, x.shape[1], wide, kw * c), (s[0], s[1], s[2] * sw, 1)).reshape(n, -1, kw * c)
        pieces = [torch.bmm(g, u[:, i * wide : (i + high) * wide]) for i in range(kh)]
    else:
        u = x.as_strided((len(x), high, wide, kh, kw, c), (s[0], s[1] * sh, s[2] * sw, s[1], s[2], s[3]))
        pieces = [torch.bmm(g, u.reshape(n, -1, kh * kw * c))]
    return pieces, partial(_join, kernel=kernel, channels=c)


def _join(pieces: list[torch.Tensor], kernel: Pair, channels: int) -> torch.Tensor:
    """Pieces [..., O, rows kw C], the rows of a kernel in order, to [..., O, C, kh, kw]."""
    return torch.cat(pieces, -1).unflatten(-1, (*kernel, channels)).movedim(-1, -3)
