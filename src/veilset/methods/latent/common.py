"""What dp-cvae, vae-gm and au-gm share as methods: three stages, and images decoded from codes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.learning.cells import draw
from veilset.learning.dp_sgd import dp_sgd
from veilset.methods.base import State, Synthesizer
from veilset.methods.latent import autoencoders, density
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged, learned_by, named
from veilset.networks.vae import VAE, Frame
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

SHARES = {"mean": 0.1, "spread": 0.15, "codes": 0.1, "cells": 0.1, "within": 0.25}  # of 1 / noise_multiplier^2


@dataclass(frozen=True)
class Form:
    """How the networks of a method are made, and what they know of classes.

    Attributes:
        told: one autoencoder, which is told an image's class.
        apart: an autoencoder per class, each trained in its own part of a partition.
        variational: codes are Gaussians, and not points.
    """

    told: bool = False
    apart: bool = False
    variational: bool = True

    def rows(self, info: PublicInfo) -> int:
        """How many mean images decoders start from."""
        return len(info.classes) if self.told or self.apart else 1

    def new(self, c: Any, info: PublicInfo, public: Frame) -> VAE:
        """A network."""
        classes = len(info.classes) if self.told else 1
        return autoencoders.network(c, info, public, classes=classes, variational=self.variational)

    def opened(self, c: Any, info: PublicInfo, state: State) -> VAE:
        """The network of a fitted state, or of a class's part of it."""
        own = {k: v for k, v in state.items() if k not in density.NAMES}
        net = self.new(c, info, Frame.like(own, logits=c.likelihood == "bernoulli"))
        net.load_state_dict(own)
        return net

    def taken_apart(
        self, c: Any, info: PublicInfo, state: State, y: torch.Tensor
    ) -> Iterator[tuple[Any, VAE, torch.Tensor]]:
        """For each network that labels [n] need: (which of the n, the network, the labels that it is told)."""
        if not self.apart:
            yield slice(None), self.opened(c, info, state), y if self.told else y * 0
            return
        for k in y.unique().tolist():
            yield y == k, self.opened(c, info, learned_by(str(k), state)), y[y == k] * 0


class Framing(Stage):
    """Where images are centred, and in which directions they are described; asks nothing if that is public."""

    def __init__(self, config: Any, form: Form):
        self.config, self.form = config, form

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Means and products, if wanted."""
        c = self.config
        mean = Release(name="mean", bound=autoencoders.clip_of(info) * math.hypot(1, autoencoders.COUNT))
        wanted = (mean, c.centre), (Release(name="spread"), c.basis == "principal")
        return Plan(tuple(release for release, asked in wanted if asked))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "centre", "basis" and "scale" of a `Frame`."""
        public = autoencoders.frame(gate, info, self.config, rows=self.form.rows(info), device=self.device)
        return dict(public.state_dict())


class Training(Stage):
    """The networks, by the loop "gradient", which is one loop per class if they are apart.

    Args:
        config, form: parameters.
        sized: the budget that the number of steps follows.
    """

    def __init__(self, config: Any, form: Form, sized: Privacy):
        self.config, self.form, self._sized = config, form, sized

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The loop; its seconds are those of the whole fit.

        Raises:
            ConfigError: parameters that do not fit together, or to the shape.
        """
        c = self.config
        if c.network == "conv" and c.basis != "pixels":
            raise ConfigError(f"basis = {c.basis!r}: convolutions work on pixels; use basis pixels, or network dense")
        if c.network == "conv" and min(info.shape[1:]) < 2:
            raise ConfigError(f"shape = {list(info.shape)}: convolutions need sides of at least 2; use network dense")
        if c.steps is not None and c.epochs is not None:
            raise ConfigError(f"steps and epochs = {c.steps}, {c.epochs:g}: give one of them")
        batch, steps = autoencoders.schedule(c, info, self._sized)
        partition = "class" if self.form.apart else None
        loop = dp_sgd("gradient", info, batch=batch, steps=steps, bound=c.clip_norm, partition=partition)
        wide = (c.basis_size if c.basis != "pixels" else info.pixels) if c.network == "dense" else 20 * c.hidden_dim
        decoded = 100 * info.pixels if c.likelihood == "bernoulli" else 0
        each = getattr(c, "latent_samples", 1) * (6 * c.hidden_dim * (wide + 2 * c.latent_dim) + decoded) + 20_000
        work = each * loop.sample_rate * info.units * loop.steps
        calls = loop.steps * (len(info.classes) if partition else 1)
        seconds = 5 + work / 2e10 + 3e-4 * info.units + 3e-3 * calls
        return Plan((loop,), seconds=seconds, memory_mb=500 + wide * c.hidden_dim / 5e3)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Averaged weights; those of networks apart as CLASS.NAME."""
        c, form = self.config, self.form
        public = Frame.like(earlier["frame"], "", logits=c.likelihood == "bernoulli").to(self.device)
        if not form.apart:
            return autoencoders.train(gate, form.new(c, info, public).to(self.device), c, told=form.told)
        # The gate divides by the expected batch of all classes; with equal shares each has a K-th of it.
        rows = range(len(info.classes))
        return named({
            str(k): autoencoders.train(
                gate, form.new(c, info, public.of(k)).to(self.device), c, part=k, told=False, factor=len(rows)
            )
            for k in rows
        })  # fmt: skip


class Codes(Stage):
    """A few Gaussians of each class's codes, by sums over what the trained encoder makes of images.

    Args:
        config, form: parameters.
        cells: Gaussians per class.
    """

    def __init__(self, config: Any, form: Form, cells: int):
        self.config, self.form, self._cells = config, form, cells

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Moments, and those of cells if there is more than one."""
        names = ("codes", "cells", "within") if self._cells > 1 else ("codes",)
        steps = {"cells": density.ROUNDS}
        return Plan(tuple(Release(name=n, bound=density.BOUNDS[n], steps=steps.get(n, 1)) for n in names))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "part", "mean" and "root", see `density.fit`."""
        with torch.random.fork_rng():  # what networks are filled with at first is none of the run's random numbers
            every = torch.arange(len(info.classes))
            found = list(self.form.taken_apart(self.config, info, earlier["networks"], every))
        nets = [net.to(self.device) for _, net, _ in found]

        def encode(x: torch.Tensor, y: torch.Tensor) -> Any:
            all = [net.encode(x, y if self.form.told else y * 0) for net in nets]
            return [torch.cat([both[i] for both in all])[y] for i in (0, 1)] if self.form.apart else all[0]

        return density.fit(gate, nets[0], self._cells, encode)


class Autoencoder(Staged, Synthesizer):
    """Base of the methods that decode images from codes: a frame, networks, and densities of codes by class."""

    @property
    @abstractmethod
    def _form(self) -> Form:
        """How its networks are made."""

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        c, form = self.config, self._form
        cells = density.cells_of(c.n_components, info, privacy)
        shares = _shares(c, cells)
        parts = {
            "frame": Part(Framing(c, form), {k: s for k, s in shares.items() if k not in density.BOUNDS}),
            "networks": Part(Training(c, form, privacy)),
        }
        if c.latent_prior == "released":
            codes = {k: s for k, s in shares.items() if k in density.BOUNDS}
            parts["codes"] = Part(Codes(c, form, cells), codes)
        return Compose(parts, prefixed=False)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return learned["networks"] | learned.get("codes", {})

    def _codes(self, state: State, labels: torch.Tensor) -> torch.Tensor:
        """Codes [n, latent] to decode images of the labels from."""
        if self.config.latent_prior == "normal":
            return torch.randn(len(labels), self.config.latent_dim)
        return draw(state["mean"], state["root"], state["part"], labels)

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        z, out = self._codes(state, labels), torch.empty(len(labels), *info.shape)
        for here, net, y in self._form.taken_apart(self.config, info, state, labels):
            out[here] = net.decode(z[here], y)
        return autoencoders.seen(out, self.config)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> State:
        """elbo and reconstruction by the networks of the classes, see `autoencoders.lower_bound`."""
        out: State = {}
        for here, net, told in self._form.taken_apart(self.config, self.fitted()[1], self.fitted()[0], y):
            for name, v in autoencoders.lower_bound(self.config, net, x[here], told).items():
                out.setdefault(name, torch.zeros(len(y)))[here] = v
        return out


def _shares(c: Any, cells: int) -> dict[str, float]:
    """The part of the budget that each sum gets; the gradients have the rest."""
    released, several = c.latent_prior == "released", c.latent_prior == "released" and cells > 1
    asked = {"mean": c.centre, "spread": c.basis == "principal", "codes": released, "cells": several, "within": several}
    shares = {name: SHARES[name] for name, wanted in asked.items() if wanted}
    if released and not several:
        shares["codes"] = sum(SHARES[name] for name in density.BOUNDS)
    return shares
