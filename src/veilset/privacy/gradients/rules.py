"""One rule a layer: its forward pass on the physical batch, and what its parameters' per-record gradients are.

A rule's `forward` gets x [n, ...], records first, and its `backward` the output's gradient in the same layout. It hands
per-record gradients to the sheet and returns the input's gradient. Under autocast the arithmetic is in its type.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from veilset.privacy.gradients import kernels
from veilset.privacy.gradients.convolution import points, weight_gradients
from veilset.privacy.gradients.sheet import Sheet

Find = Callable[[Any], str | None]
Names = tuple[str | None, str | None]
TILE = 32  # bfloat16 values in a row of a matrix tile


def layout(shared: dict[str, torch.Tensor]) -> torch.memory_format:
    """How images lie in memory: as the network's convolution weights do, but channels last for bfloat16."""
    if torch.is_autocast_enabled("cpu"):
        return torch.channels_last
    four = [p for p in shared.values() if p.dim() == 4 and not p.is_contiguous()]
    last = any(p.is_contiguous(memory_format=torch.channels_last) for p in four)
    return torch.channels_last if last else torch.contiguous_format


class Rule(ABC):
    """A layer with a weight and perhaps a bias, both by name."""

    def __init__(self, weight: str | None, bias: str | None):
        self.weight, self.bias = weight, bias

    def join(self, sheet: Sheet, shared: dict[str, torch.Tensor], layout: torch.memory_format) -> None:
        """Learn where gradients go, what the shared parameters are, and how images lie in memory."""
        self.sheet, self.layout = sheet, layout
        self.w = shared[self.weight] if self.weight else None
        self.b = shared[self.bias] if self.bias else None

    def cast(self, x: torch.Tensor) -> torch.Tensor:
        """x in the type of the arithmetic; the shared parameters follow."""
        self.kind = x.dtype
        if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        self.w = self.w.to(x.dtype) if self.w is not None else None
        self.b = self.b.to(x.dtype) if self.b is not None else None
        return x

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, and keep what `backward` needs."""

    @abstractmethod
    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Hand over the parameters' gradients; the input's gradient if `wanted`."""


class Linear(Rule):
    """y = x W' + b at every position."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, ..., i] -> [n, ..., o]."""
        self.x = self.cast(x)
        assert self.w is not None
        return F.linear(_filled(self.x), _filled(self.w), self.b)

    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Outer products, summed over positions."""
        n = len(g)
        assert self.weight is not None and self.w is not None
        self.sheet.product(self.weight, self.x.reshape(n, -1, self.x.shape[-1]), g.reshape(n, -1, g.shape[-1]))
        if self.bias:
            self.sheet.add(self.bias, g.reshape(n, -1, g.shape[-1]).sum(1))
        return F.linear(_filled(g), _filled(self.w.T)).to(self.kind) if wanted else None


class Convolution(Rule):
    """Two-dimensional convolution, or its transpose."""

    def __init__(self, weight: str | None, bias: str | None, transposed: bool, **how: tuple[int, int]):
        super().__init__(weight, bias)
        self.transposed, self.how = transposed, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, (m,) C, H, W] -> [n, (m,) O, H', W']."""
        self.lead = x.shape[:-3]
        self.x = self.cast(x).reshape(-1, *x.shape[-3:]).contiguous(memory_format=self.layout)
        h = self.how
        assert self.w is not None
        y = torch.convolution(
            self.x, self.w, self.b, h["stride"], h["padding"], h["dilation"], self.transposed, h["output_padding"], 1
        )  # fmt: skip
        return y.unflatten(0, self.lead)

    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Per-record correlations of input and output gradient."""
        n, h = self.lead[0], self.how
        assert self.weight is not None and self.w is not None
        flat = g.reshape(-1, *g.shape[-3:]).to(self.x.dtype).contiguous(memory_format=self.layout)
        if self.bias:
            level = flat.sum((2, 3), dtype=torch.promote_types(g.dtype, torch.float32))
            self.sheet.add(self.bias, level.unflatten(0, (n, -1)).sum(1))
        small, large = (self.x, flat) if self.transposed else (flat, self.x)
        kernel = (self.w.shape[2], self.w.shape[3])
        if kernel == (1, 1) and h["padding"] == (0, 0):
            self.sheet.product(self.weight, *points(large, small, n, h["stride"]))
        else:
            grads = weight_gradients(large, small, n, kernel, h["stride"], h["padding"], h["dilation"])
            self.sheet.add(self.weight, *grads)
        if not wanted:
            return None
        back: torch.Tensor = torch.ops.aten.convolution_backward(
            flat, self.x, self.w, None, h["stride"], h["padding"], h["dilation"], self.transposed, h["output_padding"],
            1, [True, False, False],
        )[0]  # fmt: skip
        return back.unflatten(0, self.lead).to(self.kind)


class GroupNorm(Rule):
    """(x - mean) / deviation over the channels of a group and all positions, scaled and shifted by channel.

    The compiled part does whole vectors of channels in channels_last. The library's kernel is quick for images in plain
    order. It is shown one image with the channels of all: then its sums for scale and shift, which it makes anyway, are
    those of single images. In channels_last it is slow; there float32 is written out, and bfloat16, whose many small
    steps cost more, gains even by reordering twice. Statistics are float32.
    """

    def __init__(self, weight: str | None, bias: str | None, groups: int, eps: float):
        super().__init__(weight, bias)
        self.groups, self.eps = groups, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, m, C, ...] -> the same shape."""
        self.kind, self.shape = x.dtype, x.shape
        last = self.layout == torch.channels_last and x.dim() == 5
        self.compiled = last and x.shape[2] % kernels.WIDEST == 0 and kernels.can(x)
        if self.compiled:
            self.kernel = kernels.GroupNorm(x.flatten(0, 1), self.w, self.b, self.groups, self.eps)
            return self.kernel.y.view(x.shape)
        self.plain = not last or x.dtype == torch.bfloat16
        return self._forward_plain(x) if self.plain else self._forward_last(x)

    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Sums over positions give the parameters' gradients."""
        if self.compiled:
            back, *sums = self.kernel.backward(g.flatten(0, 1).to(self.kind))
            self._hand_over(*sums)
            return back.view(self.shape) if wanted else None
        return self._backward_plain(g, wanted) if self.plain else self._backward_last(g, wanted)

    def _forward_plain(self, x: torch.Tensor) -> torch.Tensor:
        images, channels = x.shape[0] * x.shape[1], x.shape[2]
        self.sizes = (1, images * channels, math.prod(x.shape[3:]), images * self.groups)
        self.x = x.reshape(self.sizes[:3]).contiguous()
        wide = torch.promote_types(x.dtype, torch.float32)
        self.w, b = (None if p is None else p.to(wide).repeat(images) for p in (self.w, self.b))
        y, self.mean, self.rstd = torch.native_group_norm(self.x, self.w, b, *self.sizes, self.eps)
        return self._ordered(y)

    def _backward_plain(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        asked = [wanted, self.weight is not None, self.bias is not None]
        back, scale, shift = torch.ops.aten.native_group_norm_backward(
            g.reshape(self.sizes[:3]).contiguous(), self.x, self.mean, self.rstd, self.w, *self.sizes, asked
        )
        self._hand_over(scale, shift)
        return self._ordered(back) if wanted else None

    def _hand_over(self, *sums: torch.Tensor) -> None:
        """Sums of single images for scale and shift."""
        for name, v in zip((self.weight, self.bias), sums, strict=True):
            if name:
                self.sheet.add(name, v.view(self.shape[:3]).sum(1))

    def _ordered(self, v: torch.Tensor) -> torch.Tensor:
        """[1, n m C, positions] in the input's shape, and in the memory layout that its neighbours have."""
        v = v.view(self.shape)
        return v.flatten(0, 1).contiguous(memory_format=self.layout).view(self.shape) if v.dim() == 5 else v

    def _forward_last(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(0, 1).contiguous(memory_format=self.layout)
        space = tuple(range(2, x.dim()))
        size = math.prod(x.shape[2:]) * (x.shape[1] // self.groups)
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = self._over_group(x.sum(space, dtype=wide)) / size
        self.x = x - self._fit(mean).to(x.dtype)
        # what rounding left of the mean is taken out of the variance again
        rest = self._over_group(self.x.sum(space, dtype=wide)) / size
        square = self._over_group((self.x * self.x).sum(space, dtype=wide)) / size
        self.rstd = (square - rest.square() + self.eps).rsqrt()
        gain = torch.ones_like(mean) if self.w is None else self.w.to(wide).expand_as(mean)
        self.gain = gain * self.rstd
        self.size, self.rest = size, rest
        shift = -rest * self.gain if self.b is None else self.b.to(wide) - rest * self.gain
        y = torch.addcmul(self._fit(shift).to(x.dtype), self.x, self._fit(self.gain).to(x.dtype))
        return y.view(self.shape)

    def _backward_last(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        n, g = self.shape[0], g.flatten(0, 1)
        space, wide = tuple(range(2, g.dim())), self.rstd.dtype
        plain = g.sum(space, dtype=wide)
        along = (g * self.x).sum(space, dtype=wide) - plain * self.rest
        if self.weight:
            self.sheet.add(self.weight, (along * self.rstd).unflatten(0, (n, -1)).sum(1))
        if self.bias:
            self.sheet.add(self.bias, plain.unflatten(0, (n, -1)).sum(1))
        if not wanted:
            return None
        slope = -self._over_group(along * self.gain) * self.rstd.square() / self.size
        level = -self._over_group(plain * self.gain) / self.size - slope * self.rest
        back = torch.addcmul(self._fit(level).to(g.dtype), self.x, self._fit(slope).to(g.dtype))
        return back.addcmul_(g, self._fit(self.gain).to(g.dtype)).view(self.shape).to(self.kind)

    def _over_group(self, v: torch.Tensor) -> torch.Tensor:
        """[r, C] -> [r, C], each channel holding the sum of its group."""
        sums = v.unflatten(1, (self.groups, -1)).sum(2, keepdim=True)
        return sums.expand(-1, -1, v.shape[1] // self.groups).flatten(1)

    def _fit(self, v: torch.Tensor) -> torch.Tensor:
        return v.reshape(*v.shape, *([1] * (len(self.shape) - 3)))


class LayerNorm(Rule):
    """Normalisation over the last axes, scaled and shifted element by element."""

    def __init__(self, weight: str | None, bias: str | None, shape: tuple[int, ...], eps: float):
        super().__init__(weight, bias)
        self.over, self.eps = shape, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, ..., *shape] -> the same shape."""
        self.kind = x.dtype
        x = x.contiguous()
        self.x, self.mean, self.rstd = torch.native_layer_norm(x, self.over, None, None, self.eps)
        self.input = x
        y = self.x if self.w is None else self.x * self.w
        return y if self.b is None else y + self.b

    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Sums over positions."""
        n, wide = len(g), torch.promote_types(g.dtype, torch.float32)
        if self.weight:
            self.sheet.add(self.weight, (g * self.x).reshape(n, -1, *self.over).sum(1, dtype=wide))
        if self.bias:
            self.sheet.add(self.bias, g.reshape(n, -1, *self.over).sum(1, dtype=wide))
        if not wanted:
            return None
        g = (g if self.w is None else g * self.w).to(self.kind)
        back: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            g.contiguous(), self.input, self.over, self.mean, self.rstd, None, None, [True, False, False]
        )[0]
        return back


class Embedding(Rule):
    """Rows of a table by number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x int64 [n, ...] -> [n, ..., width]."""
        self.x = x
        assert self.w is not None
        return self.w[x]

    def backward(self, g: torch.Tensor, wanted: bool) -> torch.Tensor | None:
        """Each record's gradients are put into the rows that it used."""
        n = len(g)
        assert self.weight is not None and self.w is not None
        rows, width = self.w.shape
        place = self.x.reshape(n, -1) + rows * torch.arange(n, device=g.device)[:, None]
        table = torch.zeros(n * rows, width, dtype=torch.promote_types(g.dtype, torch.float32), device=g.device)
        table.index_add_(0, place.flatten(), g.reshape(-1, width).to(table.dtype))
        self.sheet.add(self.weight, table.view(n, rows, width))
        return None


# ---------------------------------------------------------------------- which call is which layer


def _linear(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    x, weight, bias = _arguments(args, kwargs, "input", "weight", "bias")
    found = _found(name, weight, bias)
    return (Linear(*found), x) if found and x.dim() >= 1 else None


def _convolution(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    x, weight, bias, stride, padding, dilation, groups = _arguments(args, kwargs, *names)
    found = _found(name, weight, bias)
    if not found or groups not in (None, 1) or isinstance(padding, str) or x.dim() not in (3, 4):
        return None
    how = {"stride": _pair(stride, 1), "padding": _pair(padding, 0), "dilation": _pair(dilation, 1)}
    return Convolution(found[0], found[1], False, **how, output_padding=(0, 0)), x


def _transposed(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    x, weight, bias, stride, padding, extra, groups, dilation = _arguments(args, kwargs, *names)
    found = _found(name, weight, bias)
    if not found or groups not in (None, 1) or x.dim() not in (3, 4):
        return None
    how = {"stride": _pair(stride, 1), "padding": _pair(padding, 0), "dilation": _pair(dilation, 1)}
    return Convolution(found[0], found[1], True, **how, output_padding=_pair(extra, 0)), x


def _group_norm(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    x, groups, weight, bias, eps = _arguments(args, kwargs, "input", "num_groups", "weight", "bias", "eps")
    found = _norm_found(name, weight, bias)
    return (GroupNorm(found[0], found[1], groups, 1e-5 if eps is None else eps), x) if found and x.dim() >= 3 else None


def _instance_norm(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    x, mean, variance, weight, bias, batch, _, eps = _arguments(args, kwargs, *names)
    found = _norm_found(name, weight, bias)
    if not found or mean is not None or variance is not None or batch is False or x.dim() < 3:
        return None
    return GroupNorm(found[0], found[1], x.shape[1], 1e-5 if eps is None else eps), x


def _layer_norm(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    x, shape, weight, bias, eps = _arguments(args, kwargs, "input", "normalized_shape", "weight", "bias", "eps")
    found = _found(name, weight, bias)
    return (LayerNorm(found[0], found[1], tuple(shape), 1e-5 if eps is None else eps), x) if found else None


def _embedding(args: Any, kwargs: Any, name: Find) -> tuple[Rule, torch.Tensor] | None:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    x, weight, *rest = _arguments(args, kwargs, *names)
    found = _found(name, weight, None)
    plain = rest[0] is None and rest[1] is None and not rest[3] and not rest[4]
    return (Embedding(*found), x) if found and plain else None


def _filled(v: torch.Tensor) -> torch.Tensor:
    """v, the last axis of bfloat16 filled with zeros to whole tiles.

    On processors with matrix tiles a product's last tile reads on into the next row, which is another record's, and
    multiplies it by zero: that leaves NaN of NaN and of infinity.
    """
    return F.pad(v, (0, -v.shape[-1] % TILE)) if v.dtype == torch.bfloat16 else v


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any], *names: str) -> list[Any]:
    """Arguments by position or name; None where absent."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def _found(name: Find, weight: Any, bias: Any) -> Names | None:
    """(weight's name, bias's name or None) if the layer's weight, and bias if any, are replaced parameters."""
    found, second = name(weight), name(bias)
    return (found, second) if found and (bias is None or second) else None


def _norm_found(name: Find, weight: Any, bias: Any) -> Names | None:
    """As `_found`; a normalisation may also have neither: its rule is then only the faster way through it."""
    return (None, None) if weight is None and bias is None else _found(name, weight, bias)


def _pair(value: Any, default: int) -> tuple[int, int]:
    if value is None:
        return (default, default)
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


RULES: dict[Callable[..., Any], Callable[[Any, Any, Find], tuple[Rule, torch.Tensor] | None]] = {
    F.linear: _linear,
    F.conv2d: _convolution,
    F.conv_transpose2d: _transposed,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
}
