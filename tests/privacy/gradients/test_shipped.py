"""Every network and loss that a method ships: its fast gradients are those of vmap(grad), record by record."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.types import PublicInfo
from veilset.privacy.draws import drawn
from veilset.privacy.gate import Gate
from veilset.privacy.gradients.reference import named, per_record
from veilset.privacy.gradients.taps import tapped
from veilset.privacy.noise import Stream
from veilset.privacy.private import from_arrays

INFO = PublicInfo(name="noise", classes=("a", "b", "c"), shape=(1, 16, 16), value_range=(0, 1), units=24)
GAN = {"steps": 1, "batch_size": 8, "width": 8, "latent_dim": 3, "generator_width": 4}
AUTOENCODER = {"latent_dim": 3, "basis_size": 6, "hidden_dim": 4, "steps": 1}
DIFFUSION = {"width": 8, "embedding_dim": 8, "steps": 1, "noise_multiplicity": 3, "batch_size": 8}
UNET = DIFFUSION | {"network": "unet"}
SHIPPED = {
    "dp-gan": GAN | {"generator_batch_size": 8, "critic_steps": 1},
    "dp-cgan": GAN,
    "dp-cvae": AUTOENCODER,
    "dp-cvae:paper": {"epochs": 1, "batch_size": 8},
    "dp-cvae:gradients": {"steps": 1, "batch_size": 8},
    "dp-cvae:conv": AUTOENCODER | {"network": "conv", "basis": "pixels"},
    "vae-gm": AUTOENCODER,
    "au-gm": AUTOENCODER,
    "dp-diffusion": DIFFUSION,
    "dp-diffusion:unet": UNET,
    "dp-diffusion:everything": UNET | {"norm": "group", "attention": True, "blocks": 2, "parameterisation": "v"},
    "dp-feta": DIFFUSION | {"warm_steps": 1, "warm_batch_size": 4},
    "dp-kip": {"per_class": 2, "steps": 1, "batch_size": 8},
    "private-set": {"per_class": 2, "width": 6, "networks": 1, "stages": 1, "batch_size": 8, "start": "noise"},
    "dpmi": {
        "public": "dead-leaves",
        "public_steps": 1,
        "public_hidden_dim": 4,
        "latent_dim": 6,
        "code_dim": 4,
        "iterations": 2,
        "hidden_dim": 4,
        "private_latent_dim": 2,
        "steps": 1,
        "batch_size": 8,
    },  # fmt: skip
    "taught-moments": {"steps": 1, "batch_size": 8, "mc_samples": 20},
}


class Caught(Exception):
    """The loss, the network, the map and the draws that a method first gave to the gate."""


def asked(case: str, monkeypatch: pytest.MonkeyPatch) -> tuple:
    name, _, recipe = case.partition(":")
    model = vs.make(name, **({"recipe": recipe} if recipe in ("paper", "gradients") else {}), **SHIPPED[case])
    rng = np.random.default_rng(0)
    x, y = rng.random((24, *INFO.shape), np.float32), np.arange(24) % 3

    def catch(self, name, loss, params, *, features=None, part=None, draws=None):
        raise Caught(loss, params, features, draws or {})

    def once(self, name, state, *, part=None) -> Iterator[int]:
        yield 0

    monkeypatch.setattr(Gate, "grad", catch)
    monkeypatch.setattr(Gate, "loop", once)
    with pytest.raises(Caught) as caught:
        model.fit(from_arrays(INFO, x, y), vs.Privacy(math.inf), seed=0)
    loss, net, features, draws = caught.value.args
    seen = torch.from_numpy(x)
    seen = seen if features is None else torch.func.vmap(features)(seen).float()
    own = [drawn(how, len(x), Stream(bytes(32))) for how in draws.values()]
    return loss, net, (seen, torch.from_numpy(y), *own), tuple(draws)


@pytest.mark.parametrize("case", SHIPPED)
def test_fast_gradients_of_a_method_are_those_of_single_records(case, monkeypatch):
    loss, net, inputs, names = asked(case, monkeypatch)
    torch.manual_seed(1)
    for p in net.parameters():  # layers that start at zero would hide what is in front of them
        p.data += 0.1 * torch.randn_like(p)
    torch.manual_seed(2)
    wanted = per_record(loss, net, inputs, names)
    wanted = torch.cat([wanted[k].reshape(len(inputs[0]), -1) for k in named(net)], 1)
    torch.manual_seed(2)
    got = tapped(loss, net, inputs, names).rows()
    assert wanted.norm(dim=1).min() > 0
    assert float((got - wanted).norm(dim=1).div(wanted.norm(dim=1)).max()) < 1e-4
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        rough = tapped(loss, net, inputs, names).rows()
    assert float((rough - wanted).norm() / wanted.norm()) < 0.05  # bfloat16 keeps eight bits


def test_every_method_that_asks_for_gradients_is_here():
    from veilset.methods.catalogue import BUILT_IN, method_class

    def made(cls):
        return cls(public="dead-leaves") if cls.public_data == "needed" else cls()

    ask = {
        name
        for name in BUILT_IN
        if any(r.verb == "grad" for r in made(method_class(name))._plan(INFO, vs.Privacy(1.0)).releases)
    }
    assert ask == {case.partition(":")[0] for case in SHIPPED}
