"""Per-record weight gradients of a convolution: for each record, the correlation of its input and output gradient.

A record's values depend neither on the other records nor on its place: every product is of one record alone, and its
shape, and how records are divided into blocks, follow from public shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from veilset.privacy.gradients import kernels
from veilset.privacy.gradients.processor import vendor_products
from veilset.privacy.gradients.sheet import Join, whole

Pair = tuple[int, int]
BLOCK = 1 << 21  # bytes of windows at a time, so that they are still in the cache when they are multiplied
NARROW = 48  # kh kw C up to which positions, not windows, are adjacent in memory


def weight_gradients(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[list[torch.Tensor], Join, torch.Tensor | None]:
    """Gradients of a convolution's weight that takes `large` to `small`, record by record.

    For an ordinary convolution `large` is its input and `small` its output's gradient; for a transposed one they change
    places. The compiled part is fastest. Of torch's operators, bfloat16 multiplies fastest as batched matrix products
    over gathered windows, and so does float32 where products have a BLAS made for the processor; elsewhere the
    library's own weight gradient of a convolution with a group a record is faster.

    Args:
        large: [n m, C, H, W], the m images of a record in a row; summed over.
        small: [n m, O, H', W'].
        n: records.
        kernel, stride, padding, dilation: of the convolution.

    Returns:
        (pieces [n, ...], how to join them to [..., O, C, kh, kw], squares of the records' norms if they are known).
    """
    if kernels.can(large, small):
        grads, squares, across = kernels.convolution(large, small, n, kernel, stride, padding, dilation)
        return [grads], partial(_kernel_last, across=across), squares
    if large.dtype != torch.bfloat16 and not (large.device.type == "cpu" and vendor_products()):
        return [_grouped(large, small, n, kernel, stride, padding, dilation)], whole, None
    if large.shape[1] * kernel[0] * kernel[1] <= NARROW:
        return *_narrow(large, small, n, kernel, stride, padding, dilation), None
    return *_windows(large, small, n, kernel, stride, padding, dilation), None


def points(large: torch.Tensor, small: torch.Tensor, n: int, stride: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """What a 1x1 convolution without padding multiplies: rows a [n, positions, C] and g [n, positions, O]."""
    seen = large[:, :, :: stride[0], :: stride[1]]
    return _by_position(seen, n).transpose(1, 2), _by_position(small, n).transpose(1, 2)


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
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[list[torch.Tensor], Join]:
    """The output's gradient [O, positions] times windows of the input as rows [positions, kh kw C]."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    c, (o, high, wide), m = large.shape[1], small.shape[1:], len(large) // n
    x = _padded(large.permute(0, 2, 3, 1), padding, -(large.shape[2] + 2 * padding[0]) % sh if m == 1 else 0).unflatten(
        0, (n, m)
    )
    s, g = x.stride()[1:], _by_position(small, n)
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    if m == 1 and dilation == (1, 1):
        # Gather neighbours along a row only, rows of one phase of the stride together: row i of every window is then a
        # part of what was gathered, without a copy.
        rows = x.shape[2] // sh
        shape, strides, parts = (sh, rows, wide, kw * c), (s[1], s[1] * sh, s[2] * sw, 1), kh
    else:
        shape, strides, parts = (m, high, wide, kh, kw, c), (s[0], s[1] * sh, s[2] * sw, s[1] * dh, s[2] * dw, 1), 1
    pieces = [x.new_empty(n, o, kh * kw * c // parts) for _ in range(parts)]
    for some, u in _blocks(x, shape, strides):
        if parts == 1:
            torch.bmm(g[some], u.reshape(len(u), -1, kh * kw * c), out=pieces[0][some])
            continue
        for i, piece in enumerate(pieces):
            seen = u[:, i % sh, i // sh : i // sh + high].reshape(len(u), -1, kw * c)
            torch.bmm(g[some], seen, out=piece[some])
    return pieces, partial(_join, kernel=kernel, channels=c)


def _narrow(
    large: torch.Tensor, small: torch.Tensor, n: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[list[torch.Tensor], Join]:
    """Windows of few values, [C kh kw, positions], times the output's gradient [positions, O].

    With positions adjacent the copy moves long runs, and the long side of the product is the one that is vectorised.
    """
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    c, (o, high, wide) = large.shape[1], small.shape[1:]
    x = _padded(large.permute(0, 2, 3, 1), padding).permute(0, 3, 1, 2).contiguous().unflatten(0, (n, -1))
    s, g = x.stride()[1:], _by_position(small, n).transpose(1, 2)
    shape = (c, kh, kw, x.shape[1], high, wide)
    piece = x.new_empty(n, c * kh * kw, o)
    for some, u in _blocks(x, shape, (s[1], s[2] * dh, s[3] * dw, s[0], s[2] * sh, s[3] * sw)):
        torch.bmm(u.reshape(len(u), c * kh * kw, -1), g[some], out=piece[some])
    return [piece], lambda pieces: pieces[0].unflatten(-2, (c, kh, kw)).movedim(-1, -4)


def _blocks(x: torch.Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Gather [b, *shape] of x [n, ...] for b records at a time, in one buffer that stays in the cache."""
    n, each = len(x), x.element_size()
    for size in shape:
        each *= size
    b = max(1, min(n, BLOCK // each))
    buffer = x.new_empty(b, *shape)
    for i in range(0, n, b):
        part = x[i : i + b]
        seen = part.as_strided((len(part), *shape), (x.stride(0), *strides))
        yield slice(i, i + len(part)), buffer[: len(part)].copy_(seen)


def _padded(x: torch.Tensor, padding: Pair, more: int = 0) -> torch.Tensor:
    """x [n, H, W, C] with zeros around, contiguous, and as many rows below as make H + 2 padding + more."""
    n, h, w, c = x.shape
    (ph, pw) = padding
    if not (ph or pw or more):
        return x.contiguous()
    out = x.new_zeros(n, h + 2 * ph + more, w + 2 * pw, c)
    out[:, ph : ph + h, pw : pw + w] = x
    return out


def _by_position(v: torch.Tensor, n: int) -> torch.Tensor:
    """[n m, O, H, W] to [n, O, m H W]: a view wherever the layout permits it."""
    return v.unflatten(0, (n, -1)).movedim(2, 1).flatten(2)


def _kernel_last(pieces: Sequence[torch.Tensor], across: bool) -> torch.Tensor:
    """[..., kh, kw, O, C], or [..., kh, kw, C, O] if `across`, to [..., O, C, kh, kw]."""
    piece = pieces[0].transpose(-1, -2) if across else pieces[0]
    return piece.movedim((-4, -3), (-2, -1))


def _join(pieces: list[torch.Tensor], kernel: Pair, channels: int) -> torch.Tensor:
    """Pieces [..., O, rows kw C], the rows of a kernel in order, to [..., O, C, kh, kw]."""
    return torch.cat(pieces, -1).unflatten(-1, (*kernel, channels)).movedim(-1, -3)
