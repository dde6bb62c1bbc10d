"""Networks of one kind are looked at once in a process; whatever decides what is run makes them another kind."""

from __future__ import annotations

import pytest
import torch
from sets import gate_for, private
from torch import nn

from veilset.core.errors import ConfigError
from veilset.privacy.gradients import Clipped, rules, taps
from veilset.privacy.plan import Release

LIKE = torch.zeros(1, 4, 4), torch.zeros((), dtype=torch.int64)


def network(width: int = 6, stride: int = 1, last: bool = False) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, width, 3, stride, 1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(1, 1, 4, 4))
    return net.to(memory_format=torch.channels_last) if last else net


def loss(net, x, y):
    return nn.functional.cross_entropy(net(x[None]), y[None])


def doubled(net, x, y):
    return 2 * loss(net, x, y)


def known(net: nn.Module, what=loss, several: bool = False):
    return Clipped(what, net, LIKE).known(several)


def test_networks_of_one_kind_run_one_program_and_others_another():
    same = known(network())
    assert same == known(network()) and same is not None
    others = [
        known(network(7)),
        known(network(stride=2)),
        known(network(last=True)),
        known(network(), doubled),
        known(network(), several=True),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        others.append(known(network()))
    torch.set_num_threads(2)
    try:
        others.append(known(network()))
    finally:
        torch.set_num_threads(1)
    assert len({same, *others}) == len(others) + 1


def test_whole_chunks_are_looked_at_once_in_a_process_and_rows_stay(monkeypatch):
    seen, real = [], Clipped._sheet

    def counted(self, params, net, inputs, several):
        seen.append(len(inputs[0]))
        return real(self, params, net, inputs, several)

    monkeypatch.setattr(Clipped, "_sheet", counted)

    def rows(what=loss) -> tuple[int, int]:
        seen.clear()
        asked = gate_for(private(40), Release(name="r", verb="grad"))
        asked.grad("r", what, network())
        return next(iter(asked._rows.values())), sum(n > 2 for n in seen)

    first, many = rows()
    again, few = rows()
    assert first == again == 32 * round(first / 32) and many > 5 and few == -(-40 // first)
    assert rows(doubled)[1] > 5  # another program


def test_a_loss_with_a_state_is_refused_though_its_program_is_known():
    state = [torch.ones(()), torch.zeros(())]

    def moving(net, x, y):
        state[0] = state[0] + state[1]
        return loss(net, x, y) * state[0]

    def ask() -> None:
        gate_for(private(4), Release(name="r", verb="grad")).grad("r", moving, network())

    ask()
    state[1] = torch.tensor(1e-5)  # the same operations, but from now on its answer depends on how often it was asked
    with pytest.raises(ConfigError, match="two answers"):
        ask()


def test_an_images_gradient_lies_in_memory_as_the_image_does(monkeypatch):
    """Else functions of single elements between a convolution and what flattens its output take twice as long."""
    seen, real = [], rules.Convolution.backward

    def watched(self, g, wanted):
        seen.append(g.flatten(0, 1).is_contiguous(memory_format=torch.channels_last))
        return real(self, g, wanted)

    monkeypatch.setattr(rules.Convolution, "backward", watched)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 5, 2, padding=1), nn.Tanh(), nn.Flatten())
    net.append(nn.Linear(45, 3)).to(memory_format=torch.channels_last)
    sheet = taps.tapped(loss, net, (torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64)))
    assert seen == [True, True] and sheet.norms().all()
