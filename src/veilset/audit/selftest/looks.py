"""What is looked at before any record is read: wrong layers, records that see each other, losses that keep a state.

Each check makes something go wrong on purpose, and sees whether it is noticed.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from veilset.audit.selftest.base import Check, facts, gate_for, hidden, pictures, refused, wrong
from veilset.core.errors import ConfigError, DataError
from veilset.privacy.alone import EVEN, KNOWN, steady_rows
from veilset.privacy.gradients import Clipped, kernels
from veilset.privacy.gradients.rules import RULES
from veilset.privacy.plan import Release
from veilset.privacy.private import PrivateImages

LIKE = torch.zeros(1, 4, 4), torch.zeros((), dtype=torch.int64)
ROWS, HALF = 64, 1 - 1e-3 / 2


def rows() -> Iterator[Check]:
    """Records that see their neighbours, their row, or who is there at all, are mapped in ever smaller chunks."""
    w = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    of = {}
    for name, (look, wanted) in _looks(w).items():
        of[name] = steady_rows("r", look, LIKE, 3, ROWS) == wanted
    yield wrong("records that see others are mapped alone", "ways to see others that are not noticed", of=of)
    asked: list[int] = []

    def counting(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        asked.append(len(asked))
        return [x + len(asked)]

    of = {"a map with a state": refused(lambda: steady_rows("r", counting, LIKE, 3, ROWS), ConfigError)}
    for words, verb in (("a sum", "sum"), ("a gradient", "grad")):
        of[f"{words} with a state"] = refused(functools.partial(_stateful, verb), ConfigError)
    yield wrong("what gives two answers about a record is refused", "what is accepted", of=of)


def used() -> Iterator[Check]:
    """A gate whose records are alone only in small chunks reads small chunks, and then the bound holds."""
    real, (x, y) = Clipped._sheet, pictures(40, facts())

    def leaky(self: Clipped, loss: Any, params: Any, inputs: Any, several: bool) -> Any:
        sheet = real(self, loss, params, inputs, several)
        if len(inputs[0]) > 10:  # as a library would that rounds, only worse
            sheet.explicit = {k: ([p + p.mean(0)[None] for p in v], j) for k, (v, j) in sheet.explicit.items()}
        return sheet

    with patch.object(Clipped, "_sheet", leaky), patch.dict(KNOWN, clear=True):
        first, second = (_gradient(hidden(facts(), x[k:], y[k:])) for k in (0, 1))
    moved = float((first - second).norm())
    yield Check("chunks are as small as records need to be alone", moved, HALF, "movement by one record / bound")


def layers() -> Iterator[Check]:
    """A layer whose gradients are said to be others than they are is left to the general path, and the bound holds."""
    of = {}
    for function, (net, loss) in _networks().items():
        of[f"{function.__name__}, sound"] = _fast(net, loss)
        for factor in (0.5, 0.0, 1.02, -1.0):
            with patch.dict(RULES, {function: _scaled(RULES[function], factor)}):
                of[f"{function.__name__}, times {factor:g}"] = not _fast(net, loss)
    yield wrong(
        "layers that are computed wrongly are not trusted", "layers that are, or sound ones that are not", of=of
    )


def rules() -> Iterator[Check]:
    """Gradients, norms and their sum in whole chunks, as they are computed here; wrong ones are not trusted."""
    of = {"sound": _confirmed()}
    with torch.autocast("cpu", torch.bfloat16):
        of["sound, bfloat16"] = _confirmed()
    real, mix = kernels.convolution, kernels.mix
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = {
        "a row that is left out": lambda e, q: (e.index_fill(0, torch.tensor([5]), 0), q),
        "the norm of the next row": lambda e, q: (e, q.roll(1)),
        "a trace of another row": lambda e, q: (e + 1e-6 * e[7], q),
    }
    for name, way in ways.items() if kernels.library() else ():

        def planted(*arguments: Any, way: Any = way) -> Any:
            e, q, across = real(*arguments)
            return (*(way(e, q) if len(q) == ROWS else (e, q)), across)

        with patch.object(kernels, "convolution", planted):
            of[name] = not _confirmed()
    if kernels.library():
        with patch.object(kernels, "mix", lambda share, rows: mix(share[:-1], rows[:-1])):
            of["a row that is not added"] = not _confirmed()
    yield wrong(f"whole chunks of gradients are right: {kernels.words()}", "wrong ones, or sound ones refused", of=of)


def refusals() -> Iterator[Check]:
    """Networks, losses and declarations through which one record reaches another; sets that sums cannot hold."""
    net, info = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), facts()

    class Counted(nn.Module):
        """Counts in a buffer how often it is asked."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(16, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x [n, 1, 4, 4] -> [n, 3]."""
            self.count += 1  # type: ignore[assignment, operator]
            return self.inner(x.flatten(1))

    def mixed(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return net(F.batch_norm(x[None], None, None, training=True))[0].sum()

    def tossed(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return net(torch.bernoulli(x)[None])[0].sum()

    def many(units: int) -> PrivateImages:
        n = 8 * info.units + units
        return hidden(info, np.zeros((n, *info.shape), np.float32), np.zeros(n, np.int64))

    def gradient(net: Any, loss: Any = _outputs, **how: Any) -> Callable[[], Any]:
        gate = gate_for(hidden(info, *pictures(4, info)), Release(name="r", verb="grad"))
        return lambda: gate.grad("r", loss, net, **how)

    normed = nn.Sequential(nn.BatchNorm2d(1), net)
    running = nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), net)
    of = {
        "a normalisation over the batch": refused(gradient(normed), ConfigError),
        "the same, at rest": refused(gradient(normed.eval()), ConfigError),
        "running statistics": refused(gradient(running), ConfigError),
        "a normalisation over the batch in the loss": refused(gradient(net, mixed), ConfigError),
        "a buffer that changes": refused(gradient(Counted()), ConfigError),
        "a toss that depends on the record": refused(gradient(net, tossed), ConfigError),
        "draws of no shape": refused(gradient(net, draws={"z": "many"}), ConfigError),
        "far more units than declared": refused(lambda: gate_for(many(1), Release(name="r")), DataError),
        "eight times as many are not refused": not refused(lambda: gate_for(many(0), Release(name="r")), Exception),
        "sound ones are not refused": not refused(gradient(net), Exception),
    }
    yield wrong("ways from one record to another are refused", "ways that are open", of=of)


CHECKS = (rows, used, layers, rules, refusals)


def _looks(w: torch.Tensor) -> dict[str, tuple[Callable[..., Sequence[torch.Tensor]], int]]:
    """name -> (what is looked at, how many rows it may have)."""
    place = lambda x: torch.arange(len(x)).view(-1, 1, 1, 1)  # noqa: E731
    return {
        "alone": (lambda x, y: [x.flatten(1) * y[:, None], x * w[0, 0]], ROWS),
        "the mean of all": (lambda x, y: [x - x.mean(0)], 1),
        "its row": (lambda x, y: [x + 1e-6 * place(x)], 1),
        "whether it is the first": (lambda x, y: [x * (1 + 1e-6 * (place(x) == 0))], 1),
        "who is there, in whatever order": (lambda x, y: [x * (1.0 + (x.amax() > 1))], 1),
        "the row before": (lambda x, y: [x + 1e-5 * x.roll(1, 0)], 1),
        "the second of two answers": (lambda x, y: [x, x.flatten(1)[:, 0] + x.sum() * 1e-6], 1),
        "others, in large chunks": (lambda x, y: [x - (x.mean(0) if len(x) > EVEN else 0)], EVEN),
        "its row, in large chunks": (lambda x, y: [x + (1e-6 * place(x) if len(x) > 20 else 0)], 16),
    }


def _stateful(verb: str) -> None:
    asked: list[int] = []
    gate = gate_for(hidden(facts(), *pictures(4, facts())), Release(name="r", verb=verb))

    def counted() -> float:
        asked.append(1)
        return float(len(asked))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if verb == "sum":
            gate.sum("r", lambda x, y: x.flatten() * counted())
        else:
            gate.grad("r", lambda p, x, y: (p["w"] * x).sum() * counted(), {"w": torch.zeros(facts().shape)})


def _gradient(data: PrivateImages) -> torch.Tensor:
    """The exact sum, in bounds, of gradients far beyond the bound."""
    gate = gate_for(data, Release(name="r", verb="grad"))

    def loss(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1e3 * (p["w"] * (x - 0.5)).sum() + 1e3 * p["b"] * x.sum()

    w = {"w": torch.zeros(data.info.shape, dtype=torch.float64), "b": torch.zeros((), dtype=torch.float64)}
    return torch.cat([v.flatten() for v in gate.grad("r", loss, w).values()]) * data.info.units


def _outputs(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return net(x[None])[0].square().sum()


def _networks() -> dict[Callable[..., Any], tuple[nn.Module, Callable[..., torch.Tensor]]]:
    """function with a rule -> a network whose gradients rest on it, and a loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        last = lambda i: [nn.Flatten(), nn.Linear(i, 3)]  # noqa: E731
        nets: dict[Callable[..., Any], nn.Module] = {
            F.linear: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
            F.conv2d: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), *last(32)),
            F.conv_transpose2d: nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Tanh(), *last(50)),
            F.group_norm: nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Tanh(), *last(64)),
            F.instance_norm: nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, affine=True), nn.Tanh(), *last(32)),
            F.layer_norm: nn.Sequential(nn.LayerNorm((1, 4, 4)), nn.Tanh(), *last(16)),
            F.embedding: nn.Sequential(nn.Embedding(3, 8), nn.Tanh(), nn.Linear(8, 3)),
        }
    of_label = lambda net, x, y: (net(y[None])[0] * (1 + x.sum())).square().sum()  # noqa: E731
    return {f: (net, of_label if f is F.embedding else _outputs) for f, net in nets.items()}


def _scaled(make: Any, factor: float) -> Any:
    """A rule for the same layer, whose parameters' gradients are so many times too large."""

    def other(args: Any, kwargs: Any, find: Any) -> Any:
        made = make(args, kwargs, find)
        if made is None:
            return None
        rule, backward = made[0], made[0].backward
        rule.backward = lambda g, wanted: backward(factor * g, wanted)
        return made

    return other


def _confirmed() -> bool:
    """Whether a network with all kinds of layers that are computed in one piece keeps the fast path and its rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Tanh(), nn.Conv2d(32, 21, 2, 2), nn.Tanh()]
        net = nn.Sequential(*first, nn.ConvTranspose2d(21, 3, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(75, 3))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with warnings.catch_warnings(), patch.dict(KNOWN, clear=True):
        warnings.simplefilter("ignore")
        clipped = Clipped(_outputs, net, LIKE)
        alone = steady_rows("r", clipped.look(_outputs, net, False), LIKE, 3, ROWS) == ROWS
        return clipped.confirmed(_outputs, net, ROWS, 3, False) and clipped.fast and alone


def _fast(net: nn.Module, loss: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Clipped(loss, net, LIKE).fast
