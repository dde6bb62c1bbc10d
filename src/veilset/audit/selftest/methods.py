"""Whole fits of every built-in method and teacher: they ask what moves by its bound, and learn from answers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from veilset.audit.selftest.base import Check, with_user_seeds, wrong
from veilset.audit.selftest.coupled import World, coupled, moved, remembered, shapes, strangers, worlds
from veilset.methods import base
from veilset.methods.base import Method, Synthesizer
from veilset.methods.catalogue import BUILT_IN, TEACHERS, make_teacher, method_class
from veilset.methods.moments import selection, taught_moments, texture
from veilset.privacy.gate import Gate
from veilset.privacy.gradients import Clipped
from veilset.privacy.spec import Privacy

BUDGET = Privacy(2.0, 1e-5)
WHITE = np.ones(64, np.float32)
OFTEN = 45  # units per step, of 60: in two steps the one that is looked at takes part
MOST = 1.0 + 1e-12  # of the sensitivity: the gradient's margin and the truncation of sums leave more room than that
Params = dict[str, Any]

OWN = tuple(name for name, e in BUILT_IN.items() if e.module.startswith("veilset."))  # none that somebody added
# Small parameters, so that a fit takes well under a second.
DENOISING: Params = {
    "width": 8,
    "embedding_dim": 8,
    "steps": 2,
    "noise_multiplicity": 2,
    "sampling_steps": 2,
    "batch_size": 10,
}
POLLED: Params = {"shards": 3, "images": 5, "steps": 3, "width": 4, "generator_width": 4, "warm_steps": 2, "basis": 12}
POLLED = POLLED | {"teacher_steps": 1, "batch_size": 4, "latent_dim": 3, "start_steps": 5}
SMALL: dict[str, Params] = {
    "dp-merf": {"frequencies": 50, "scales": 1, "steps": 2, "batch_size": 10},
    "dp-moments": {"basis_size": 10, "mc_samples": 20},
    "dp-kip": {"per_class": 2, "steps": 2, "batch_size": 10},
    "private-set": {
        "per_class": 2,
        "width": 4,
        "networks": 1,
        "stages": 2,
        "epochs": 1,
        "batch_size": 10,
        "start": "noise",
    },
    "dp-condense": {"per_class": 2, "networks": 2, "width": 4, "steps": 2},
    "taught-moments": {"steps": 2, "batch_size": 10, "mc_samples": 20, "texture": False, "selection": False},
    "dp-cvae": {"latent_dim": 3, "basis_size": 6, "hidden_dim": 4, "steps": 2},
    "vae-gm": {"latent_dim": 3, "basis_size": 6, "hidden_dim": 4, "steps": 2},
    "au-gm": {"latent_dim": 3, "basis_size": 6, "hidden_dim": 4, "steps": 2},
    "dp-gan": {
        "width": 8,
        "generator_width": 4,
        "steps": 2,
        "batch_size": 10,
        "generator_batch_size": 10,
        "critic_steps": 1,
        "latent_dim": 3,
    },
    "dp-cgan": {"width": 8, "generator_width": 4, "steps": 2, "batch_size": 10, "latent_dim": 3},
    "dp-diffusion": DENOISING,
    "dp-feta": DENOISING | {"warm_steps": 2, "warm_batch_size": 4},
    "gs-wgan": {
        "shards": 2,
        "rows": 2,
        "steps": 4,
        "width": 4,
        "generator_width": 4,
        "warm_steps": 2,
        "critic_steps": 1,
        "batch_size": 4,
        "latent_dim": 3,
    },
    "dp-gan-dpac": {
        "shards": 2,
        "rows": 2,
        "steps": 4,
        "width": 4,
        "warm_steps": 2,
        "critic_steps": 1,
        "classifier_steps": 2,
        "batch_size": 4,
    },
    **dict.fromkeys(("g-pate", "datalens"), POLLED),
    "pate-gan": POLLED | {"student_width": 4, "student_steps": 2, "generator_steps": 1},
    "private-evolution": {"public": "dead-leaves", "votes": 2, "candidates": 4, "features": "pixels"},
    "dpmi": {
        "public": "dead-leaves",
        "public_steps": 2,
        "public_hidden_dim": 4,
        "latent_dim": 6,
        "code_dim": 4,
        "iterations": 3,
        "hidden_dim": 4,
        "private_latent_dim": 2,
        "steps": 2,
        "batch_size": 10,
    },
}
# Ways that these leave out, in which a method asks, or computes, something else.
OTHERWISE: dict[str, tuple[Params, ...]] = {
    "dp-merf": ({"balanced": False, "loss": "published"},),
    "private-set": ({"start": "moments"}, {"prior": True, "distance": "mse"}),
    "dp-condense": ({"start": "noise", "sums": 2, "group_size": 5},),
    "dp-cvae": ({"basis": "cosine", "centre": False, "linear": False, "latent_prior": "normal"},),
    "dp-gan": ({"fakes": "public", "adaptive": True},),
    "dp-cgan": ({"fakes": "paired"},),
    "dp-feta": ({"warm_start": "central"}, {"warm_start": "mode"}),
    "gs-wgan": (
        {"mechanism": "round-robin", "basis": 0},
        {"critic": "conv", "generator": "deconv", "start_share": 0.0},
        {"critic": "published", "generator": "published", "start_share": 0.0, "basis": 0},
    ),
    "dp-gan-dpac": (
        {"mechanism": "round-robin", "fresh": False},
        {"sequential": False, "start_share": 0.0, "latent_dim": 3, "generator_width": 4},
        {"g2r": False, "classifier_from": 0.5},
        {"r2g": False},
    ),
    "pate-gan": ({"votes": "hard", "start": "none", "critic": "conv", "generator": "deconv", "basis": 0},),
    "g-pate": ({"decode": "largest", "bins": 4, "threshold": 0.3, "start": "none"},),
    "datalens": ({"threshold": 0.2, "start": "none", "critic": "conv", "basis": 0},),
    "private-evolution": ({"features": "scattering"}, {"features": "network", "network_steps": 2}),
    "dpmi": (
        {"public_model": "wgan-gp", "private_model": "gan"},
        {"private_model": "moments", "latents": "encoder", "public_model": "conv-ae"},
    ),
}
ALL = SMALL["taught-moments"] | {"texture": True, "selection": True}
Make = Callable[[], Method]


@contextmanager
def worth_all() -> Iterator[None]:
    """Sets of a few units buy all releases of `taught-moments`, which would leave some of them out, quickly."""
    with ExitStack() as stack:
        for thing, name, value in (
            (texture, "COARSE", float("inf")),
            (texture, "VALUES", 2000),
            (selection, "COARSE", float("inf")),
            (selection, "IMAGES", 20),
            (selection, "EPOCHS", 1),
            (taught_moments, "TRIED", 20),
        ):
            stack.enter_context(mock.patch.object(thing, name, value))
        yield


def kinds() -> dict[str, list[Make]]:
    """Name -> the ways in which this method or teacher is fitted."""

    def made(cls: type[Method], params: Params) -> Make:
        return lambda: cls(**params)

    out = dict[str, list[Make]]()
    for name in OWN:
        ways = [ALL] if name == "taught-moments" else [SMALL[name] | o for o in ({}, *OTHERWISE.get(name, ()))]
        often = [way | ({"batch_size": OFTEN} if "batch_size" in way else {}) for way in ways]
        out[name] = [made(method_class(name), way) for way in often]
    for name in TEACHERS:
        out[name] = [made(type(make_teacher(name)), {"steps": 2, "batch_size": OFTEN})]
    return out


def _of(name: str) -> Callable[[], Iterator[Check]]:
    """The checks of one method, so that an error in one leaves those of the others."""

    def measure() -> Iterator[Check]:
        most, learned = 0.0, dict[str, bool]()
        with remembered(), worth_all():
            for number, make in enumerate(kinds()[name]):
                ratio, same = looked_at(make, spoilt=number == 0)
                most, learned = max(most, ratio), learned | {f"way {number}, {k}": v for k, v in same.items()}
        about = "largest change of an exact sum, over its sensitivity; infinite if other questions are asked"
        yield Check(f"one unit moves what {name} asks by its bound at most", most, MOST, about)
        yield wrong(f"{name} learns from its answers alone", "worlds that change what is learned", of=learned)

    measure.__name__ = name
    return measure


def looked_at(make: Make, spoilt: bool) -> tuple[float, dict[str, bool]]:
    """Fits in D, in D with one unit more, and among strangers, all of which get the answers that were given in D.

    The unit is a white image, which all sums take for what it is; or, if so asked, one that is NaN, which spoils what
    it touches and so shows what touches it.

    Returns:
        The largest change that the unit makes of an exact sum, over its sensitivity; and in which worlds all that was
        learned is that of D.
    """
    most, of = 0.0, dict[str, bool]()
    d, others = worlds(1, WHITE, 0)
    beside = {"a white unit": others["front"]}
    beside |= {"a spoilt unit": worlds(1, WHITE * np.nan, 1)[1]["middle"]} if spoilt else {}
    with coupled(d) as first:
        kept = _learned(make(), d)
    for what, other in (beside | {"strangers": strangers()}).items():
        with coupled(other, first) as tape:
            of[what] = _same(kept, _learned(make(), other)) and tape.asked() == first.asked()
        if what in beside:
            most = max(most, moved(first, tape))
    return most, of


def _learned(model: Method, world: World) -> dict[str, Any]:
    """All that a fit gives away: its state, its ledger and notes, and what is drawn or predicted from it."""
    model.fit(world.data.hide(), BUDGET)
    state, info = model.fitted()
    out: dict[str, Any] = {f"state {k}": v for k, v in state.items()}
    if isinstance(model, Synthesizer):
        out["drawn"] = model.sample(20, seed=0).x
    return out | {"ledger": model.ledger, "notes": model.notes(), "info": info}


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether all of it is equal, to the bit; NaN is equal to itself."""
    return a.keys() == b.keys() and all(
        v.shape == b[k].shape and v.dtype == b[k].dtype and v.numpy().tobytes() == b[k].numpy().tobytes()
        if isinstance(v, torch.Tensor)
        else v == b[k]
        for k, v in a.items()
    )


def secrets_are_fresh() -> Iterator[Check]:
    """Two releases with one seed of their public randomness, as a run that goes on has, and the user's seeds alike."""
    rows, coins, noise = list[bytes](), list[list[bytes]](), list[list[bytes]]()

    def fit() -> None:
        model = method_class("dp-feta")(**SMALL["dp-feta"] | {"warm_start": "central"})
        model.fit(shapes(60).hide(), BUDGET)

    add, chosen, noised = Clipped.add, Gate._chosen, Gate._noised

    def adding(self: Clipped, total: Any, loss: Any, params: Any, inputs: Any, *rest: Any) -> None:
        rows.extend(row.numpy().tobytes() for own in inputs[2:] for row in own)
        add(self, total, loss, params, inputs, *rest)

    def choosing_units(self: Gate, *a: Any) -> Any:
        coins[-1].append((got := chosen(self, *a)).tobytes())
        return got

    def adding_noise(self: Gate, exact: Any, *a: Any) -> torch.Tensor:
        noise[-1].append(((got := noised(self, exact, *a)) - exact.value).numpy().tobytes())
        return got

    with ExitStack() as stack:
        for thing, name, how in (
            (Clipped, "add", adding),
            (Gate, "_chosen", choosing_units),
            (Gate, "_noised", adding_noise),
            (base, "_public_seed", lambda folder: 11),
        ):
            stack.enter_context(mock.patch.object(thing, name, how))
        stack.enter_context(remembered())
        for _ in range(2):
            coins.append([])
            noise.append([])
            with_user_seeds(fit)
    of = {
        "draws of records' own": 0 < len(set(rows)) == len(rows),
        "coins": bool(coins[0]) and coins[0] != coins[1],
        "noise": bool(noise[0]) and not set(noise[0]) & set(noise[1]),
    }
    yield wrong("no secret follows the public seed or the user's", "kinds of random numbers that come again", of=of)


CHECKS = (secrets_are_fresh, *map(_of, (*OWN, *TEACHERS)))
