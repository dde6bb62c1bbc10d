"""Run a per-record loss over n records so that its layers hand over what their parameters' gradients are made of.

The loss is run under `torch.vmap`, so a record cannot see another one. Each parameter is replaced by n copies of itself
(a view, no memory), one a record: whatever the loss does with it, autograd gives its gradient record by record. A
function that has a rule (linear, convolution, ...) is taken over before that: it computes with the shared weight, keeps
its input, and in the backward pass hands input and output gradient to its rule instead of computing a weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from veilset.core.errors import ConfigError
from veilset.privacy.gradients.reference import Loss, Parameters, call, named
from veilset.privacy.gradients.rules import RULES, Rule, layout
from veilset.privacy.gradients.sheet import Sheet

try:  # torch's own names, which a release of it may change; without them every loss takes the general path
    from torch._C import _functorch as functorch
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

    _missing = [n for n in ("maybe_get_bdim", "get_unwrapped", "_add_batch_dim") if not hasattr(functorch, n)]
except ImportError as e:
    _missing = [str(e)]


def tapped(
    loss: Loss, params: Parameters, inputs: Sequence[torch.Tensor], names: Sequence[str] = (), several: bool = False
) -> Sheet:
    """Per-record gradients of a loss, by one forward and one backward pass.

    Args:
        loss, params, inputs, names: as of `reference.per_record`.
        several: keep all gradients explicit.
    """
    if _missing:
        raise NotImplementedError(f"this torch ({torch.__version__}) lacks {', '.join(_missing)}")
    shared = named(params)
    x = inputs[0]
    n, x = len(x), x.contiguous(memory_format=layout(shared)) if x.dim() == 4 else x
    sheet = Sheet(n, {k: p.shape for k, p in shared.items()}, several)
    copies = {k: p.expand(n, *p.shape).requires_grad_() for k, p in shared.items()}
    spark = torch.zeros((), device=x.device, requires_grad=True)  # makes every layer's output part of the graph

    def one(values: dict[str, torch.Tensor], *record: torch.Tensor) -> Any:
        with _Takeover(values, shared, sheet, spark):
            return call(loss, params, values, record, names)

    with torch.enable_grad():
        losses = torch.vmap(one, randomness="same")(copies, x, *inputs[1:])
        with torch.autocast(x.device.type, enabled=False):  # what was cast going forward has its types already
            losses.sum().backward()
    for name, leaf in copies.items():
        if leaf.grad is not None:
            sheet.add(name, leaf.grad)
    return sheet


FLATTENING = (torch.flatten, torch.Tensor.flatten, torch.reshape, torch.Tensor.reshape)


class _Takeover(TorchFunctionMode):
    """While it is on, functions with a rule and a replaced parameter as their weight go through that rule."""

    def __init__(
        self,
        values: dict[str, torch.Tensor],
        shared: dict[str, torch.Tensor],
        sheet: Sheet,
        spark: torch.Tensor,
    ):
        super().__init__()
        self._names = {id(v): k for k, v in values.items()}
        self._shared, self._sheet, self._spark = shared, sheet, spark
        self._layout = layout(shared)
        self._level = retrieve_current_functorch_interpreter().level()

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.batch_norm:
            raise ConfigError("batch_norm in the loss: it mixes the records of a batch; use group_norm")
        if function in FLATTENING and self._layout == torch.channels_last:
            _keep_layout(args[0])
        make = RULES.get(function)
        made = make(args, kwargs, self._name) if make else None
        if made is None:
            return function(*args, **kwargs)
        rule, x = made
        rule.join(self._sheet, self._shared, self._layout)
        return self._physical(rule, x)

    def _physical(self, rule: Rule, x: torch.Tensor) -> torch.Tensor:
        """Run a rule on the whole batch, below vmap, and return its output as one record's view of it.

        An `autograd.Function` with a `vmap` method does the same by public means, but takes a millisecond a call.
        """
        interpreter = retrieve_current_functorch_interpreter()
        if interpreter.level() != self._level:
            raise NotImplementedError("a layer is used under a nested transform")
        place = functorch.maybe_get_bdim(x)
        whole = functorch.get_unwrapped(x) if place >= 0 else x
        whole = whole.movedim(place, 0) if place >= 0 else x.expand(self._sheet.n, *x.shape)
        with interpreter.lower():
            out = _Layer.apply(whole, self._spark, rule)
        return functorch._add_batch_dim(out, 0, self._level)  # noqa: SLF001 guarded above

    def _name(self, weight: Any) -> str | None:
        return self._names.get(id(weight))


def _keep_layout(x: torch.Tensor) -> None:
    """Let the gradient of images lie in memory as they do: functions of single elements are slow where they do not."""
    if functorch.maybe_get_bdim(x) == 0 and (whole := functorch.get_unwrapped(x)).dim() == 5 and whole.requires_grad:
        whole.register_hook(lambda g: g.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(g.shape))


class _Layer(torch.autograd.Function):
    """One layer on the physical batch; its backward pass feeds the rule."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spark: torch.Tensor, rule: Rule) -> torch.Tensor:
        """x [n, ...] to the layer's output [n, ...]."""
        ctx.rule = rule
        y = rule.forward(x.detach())
        # The same memory, but no view, which the loss could not change in place (`ReLU(inplace=True)`, `h += x`). No
        # rule keeps its output, and a change to what it keeps, its input, is an error of the reference.
        return y.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), y.shape, y.stride())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        """Hands the output gradient over; returns the input's."""
        rule, ctx.rule = ctx.rule, None
        return rule.backward(g, ctx.needs_input_grad[0]), None, None
