"""A record's gradient and norm, bit for bit, whoever lies beside it in a chunk and whichever row it has.

The chunk's shape is fixed: that is the condition. Layers keep this for every shape. Functions of single elements in a
loss keep it where each thread gets a multiple of 32 rows: the library computes the last elements of a thread's share,
if they fill no vector, with other instructions.
"""

from __future__ import annotations

import pytest
import torch
from test_shipped import SHIPPED, asked
from torch import nn

from veilset.privacy.gradients import Clipped, Total, convolution, taps
from veilset.privacy.gradients.sheet import Sheet

KINDS = ("float32", "bfloat16", "float64")
CHUNKS = [(8, 1), (64, 2)]
FULL = ("first", "wide", "up", "group", "layer", "inputs")  # tried with as many rows as a chunk has, too
WHOLE = [(32, 1), (64, 2), (96, 1)]  # every thread has a multiple of 32 rows
CONVOLUTIONS = {
    "first": (nn.Conv2d(1, 32, 3, padding=1), 28),
    "first of stride 2": (nn.Conv2d(1, 64, 4, 2, 1), 28),
    "colour 5x5": (nn.Conv2d(3, 6, 5, padding=2), 11),
    "wide": (nn.Conv2d(32, 64, 3, padding=1), 14),
    "stride 2": (nn.Conv2d(64, 128, 4, 2, 1), 14),
    "stride 3": (nn.Conv2d(20, 7, 4, (3, 2), (0, 1)), 11),
    "to few": (nn.Conv2d(32, 4, 3, padding=1), 14),
    "odd": (nn.Conv2d(17, 5, 3), 7),
    "dilated": (nn.Conv2d(18, 9, 3, dilation=(2, 1)), 9),
    "1x1": (nn.Conv2d(64, 192, 1), 7),
    "1x1 of stride 2": (nn.Conv2d(5, 9, 1, 2, bias=False), 9),
    "up": (nn.ConvTranspose2d(32, 16, 4, 2, 1), 7),
    "up to one": (nn.ConvTranspose2d(16, 1, 3, 2, 1, 1), 14),
}
NORMS = {
    "group": (nn.GroupNorm(8, 32), (32, 14, 14)),
    "odd group": (nn.GroupNorm(3, 6), (6, 7, 7)),
    "instance": (nn.InstanceNorm2d(6, affine=True), (6, 9, 9)),
    "group of vectors": (nn.GroupNorm(2, 10), (10,)),
    "layer": (nn.LayerNorm(17), (5, 17)),
    "layer of an image": (nn.LayerNorm((3, 9, 9)), (3, 9, 9)),
}
LINEARS = {
    "inputs": (nn.Linear(784, 256), (784,)),
    "one output": (nn.Linear(3136, 1), (3136,)),
    "odd": (nn.Linear(33, 7), (33,)),
    "positions": (nn.Linear(64, 64), (49, 64)),
    "many positions": (nn.Linear(12, 5), (196, 12)),
}


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def handed_over(sheet: Sheet) -> dict[str, torch.Tensor]:
    """Everything that a sheet holds of each record: [n, ...] by name, its norms among them."""
    held = {f"{k} {i}": p for k, (pieces, _) in sheet.explicit.items() for i, p in enumerate(pieces)}
    held |= {f"{k} {i}": p for k, pair in sheet.factored.items() for i, p in enumerate(pair)}
    held = {k: v.clone() for k, v in held.items()}
    return held | {"norm": sheet.norms()}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def strangers(x: torch.Tensor, y: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same chunk with other records in all places but those to keep: ordinary, huge, empty and broken ones."""
    others = torch.rand_like(x)
    for i, value in enumerate((1e4, 1e30, 0.0, torch.nan, torch.inf)):
        others[i::7] = others[i::7] * 0 + value
    kept, told = (keep.view(-1, *[1] * (v.dim() - 1)) for v in (x, y))
    return torch.where(kept, x, others), torch.where(told, y, y.flip(0))


def check(loss, net, inputs, kind: str, threads: int, several: bool = False, names=()) -> None:
    """Run a chunk as it is, in another order, and twice among strangers."""
    torch.set_num_threads(threads)

    def run(*inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
            return handed_over(taps.tapped(loss, net, inputs, names, several))

    x, y, *own = inputs
    alone, n, g = run(x, y, *own), len(x), torch.Generator().manual_seed(1)
    order = torch.randperm(n, generator=g)
    moved = run(*(v[order] for v in inputs))
    assert any(v.any() for v in alone.values())
    assert [k for k in alone if not same(alone[k][order], moved[k])] == []
    some = torch.rand(n, generator=g) < 0.5
    for keep in (some, ~some):
        among = run(*strangers(x, y, keep), *own)
        assert [k for k in alone if not same(alone[k][keep], among[k][keep])] == []


def made(layer: nn.Module, kind: str, last: bool) -> nn.Module:
    """A copy with weights of its own, in the type and memory layout that is asked for."""
    torch.manual_seed(0)
    net = nn.Sequential(type(layer).__new__(type(layer)))
    net[0].__dict__.update({k: v for k, v in layer.__dict__.items() if k != "_parameters"})
    net[0]._parameters = {
        k: None if p is None else nn.Parameter(p.data + 0.1 * torch.randn_like(p)) for k, p in layer._parameters.items()
    }
    net = net.double() if kind == "float64" else net
    return net.to(memory_format=torch.channels_last) if last else net


def weighed(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss of the layer's outputs, for two images if asked, whose only functions of single elements are exact."""
    out = net(torch.stack([x, x.flip(-1)]) if y.dim() else x[None]).float()
    return (out.square() / 2 + out * torch.arange(out.numel()).mul(0.7).cos().view(out.shape)).sum()


@pytest.mark.parametrize(
    ("n", "threads"), [pytest.param(*c, marks=pytest.mark.long if c[0] > 8 else ()) for c in CHUNKS]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*CONVOLUTIONS, *NORMS, *LINEARS])
def test_a_layer_gives_each_record_the_same_bits_everywhere(case, kind, n, threads):
    if kind == "float64" and n > 8:
        pytest.skip("float64 is tested in small chunks")
    n = 256 if n > 8 and case in FULL else n
    if case in CONVOLUTIONS:
        layer, side = CONVOLUTIONS[case]
        shape = (layer.in_channels, side, side)
    else:
        layer, shape = (NORMS | LINEARS)[case]
    x = normals(n, *shape).to(torch.float64 if kind == "float64" else torch.float32)
    for last in (False, True) if case not in LINEARS else (False,):
        check(weighed, made(layer, kind, last), (x, torch.zeros(n)), kind, threads)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize(("n", "threads"), [(32, 2)])
@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in ("dilated", "stride 3") else pytest.mark.long) for c in CONVOLUTIONS]
)
def test_both_ways_to_a_convolutions_gradient_and_several_images_of_a_record(case, n, threads, products, monkeypatch):
    """Whatever the processor at hand chooses; two images per record, and gradients that are kept for a unit's mean."""
    monkeypatch.setattr(convolution, "vendor_products", lambda: products)
    layer, side = CONVOLUTIONS[case]
    x = normals(n, layer.in_channels, side, side)
    for last in (False, True):
        check(weighed, made(layer, "float32", last), (x, torch.zeros(n, 1)), "float32", threads, several=True)


_ASKED: dict[str, tuple] = {}


def shipped(case: str, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """A method's loss, network, images and labels, found once; every weight differs from zero."""
    if case not in _ASKED:
        _ASKED[case] = asked(case, monkeypatch)
        torch.manual_seed(1)
        for p in _ASKED[case][1].parameters():  # layers that start at zero would hide what is in front of them
            p.data += 0.1 * torch.randn_like(p)
    return _ASKED[case]


def slow(case: str, _: int, threads: int) -> bool:
    return threads == 2 and case in ("dp-diffusion:unet", "dp-diffusion:everything")


@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("case", "n", "threads"),
    [pytest.param(c, *w, marks=pytest.mark.long if slow(c, *w) else ()) for c in SHIPPED for w in WHOLE],
)
def test_a_shipped_network_gives_each_record_the_same_bits_everywhere(case, kind, n, threads, monkeypatch):
    loss, net, inputs, names = shipped(case, monkeypatch)
    again = torch.arange(n) % len(inputs[0])
    x, *rest = (v[again] for v in inputs)
    check(loss, net, (x + 0.01 * normals(n, *x.shape[1:]).to(x), *rest), kind, threads, names=names)


@pytest.mark.parametrize("case", SHIPPED)
def test_a_record_among_broken_ones_gives_what_it_gives_alone(case, monkeypatch):
    """As the gate asks: in bfloat16, with NaN and infinity in front, behind and all around."""
    loss, net, inputs, names = shipped(case, monkeypatch)
    n = 32
    clipped = Clipped(loss, net, [v[0] for v in inputs], dict.fromkeys(names))

    def summed(place: int, other: float) -> torch.Tensor:
        x, *rest = [v[:1].expand(n, *v.shape[1:]).clone() for v in inputs]
        x[torch.arange(n) != place] *= other
        total = Total(clipped.size, 1.0, several=False)
        with torch.autocast("cpu", torch.bfloat16):
            clipped.add(total, loss, net, (x, *rest), torch.arange(n), torch.ones(n))
        return total.sum

    alone = summed(0, torch.nan)
    assert alone.norm() > 0.01
    for place, other in ((5, torch.nan), (n - 1, torch.nan), (17, torch.inf)):
        assert torch.equal(summed(place, other), alone)
