"""Run a per-record loss over n records so that its layers hand over what their parameters' gradients are made of.

The loss is run under `torch.vmap`, so a record cannot see another one. Each parameter is replaced by n copies of itself
(a view, no memory), one a record: whatever the loss does with it, autograd gives its gradient record by record. A
function that has a rule (linear, convolution, ...) is taken over before that: it computes with the shared weight, keeps
its input, and in the backward pass hands input and output gradient to its rule instead of computing a weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from veilset.core.errors import ConfigError
from veilset.privacy.gradients.reference import Loss, Parameters, call, named
from veilset.privacy.gradients.rules import RULES, Rule, layout
from veilset.privacy.gradients.sheet import Sheet


def tapped(loss: Loss, params: Parameters, x: torch.Tensor, y: torch.Tensor, several: bool = False) -> Sheet:
    """Per-record gradients of a loss, by one forward and one backward pass.

    Args:
        loss: (params, one image, its label) -> scalar.
        params: module or mapping.
        x: [n, C, H, W]. y: [n].
        several: keep all gradients explicit.
    """
    shared = named(params)
    n, x = len(x), x.contiguous(memory_format=layout(shared)) if x.dim() == 4 else x
    sheet = Sheet(n, {k: p.shape for k, p in shared.items()}, several)
    copies = {k: p.expand(n, *p.shape).requires_grad_() for k, p in shared.items()}
    spark = torch.zeros((), device=x.device, requires_grad=True)  # makes every layer's output part of the graph

    def one(values: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> Any:
        with _Takeover(values, shared, sheet, spark, torch.zeros_like(y)):
            return call(loss, params, values, x, y)

    with torch.enable_grad():
        losses = torch.vmap(one, in_dims=(0, 0, 0), randomness="different")(copies, x, y)
        with torch.autocast(x.device.type, enabled=False):  # what was cast going forward has its types already
            losses.sum().backward()
    for name, leaf in copies.items():
        if leaf.grad is not None:
            sheet.add(name, leaf.grad)
    return sheet


class _Takeover(TorchFunctionMode):
    """While it is on, functions with a rule and a replaced parameter as their weight go through that rule."""

    def __init__(
        self,
        values: dict[str, torch.Tensor],
        shared: dict[str, torch.Tensor],
        sheet: Sheet,
        spark: torch.Tensor,
        mark: torch.Tensor,
    ):
        super().__init__()
        self._names = {id(v): k for k, v in values.items()}
        self._shared, self._sheet, self._spark, self._mark = shared, sheet, spark, mark

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.batch_norm:
            raise ConfigError("batch_norm in the loss: it mixes the records of a batch; use group_norm")
        make = RULES.get(function)
        made = make(args, kwargs, self._name) if make else None
        if made is None:
            return function(*args, **kwargs)
        rule, x = made
        rule.join(self._sheet, self._shared)
        return _Tap.apply(rule, x, self._mark, self._spark)

    def _name(self, weight: Any) -> str | None:
        return self._names.get(id(weight))


class _Tap(torch.autograd.Function):
    """The way down from one record's view to the physical batch: only its `vmap` is ever used."""

    @staticmethod
    def forward(rule: Rule, x: torch.Tensor, mark: torch.Tensor, spark: torch.Tensor) -> torch.Tensor:
        """Not reached: `mark` is always batched."""
        raise ConfigError("a layer is used under a nested transform")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: there is no gradient at this level."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, rule: Rule, x: torch.Tensor, mark: torch.Tensor, spark: torch.Tensor) -> Any:
        """The physical batch, records first."""
        x = x.expand(info.batch_size, *x.shape) if in_dims[1] is None else x.movedim(in_dims[1], 0)
        return _Layer.apply(x, spark, rule), 0


class _Layer(torch.autograd.Function):
    """One layer on the physical batch; its backward pass feeds the rule."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spark: torch.Tensor, rule: Rule) -> torch.Tensor:
        """x [n, ...] to the layer's output [n, ...]."""
        ctx.rule = rule
        return rule.forward(x.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        """Hands the output gradient over; returns the input's."""
        rule, ctx.rule = ctx.rule, None
        return rule.backward(g, ctx.needs_input_grad[0]), None, None
