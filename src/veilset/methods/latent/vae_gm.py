"""VAE-GM: one variational autoencoder a class, each trained by DP-SGD on its own part of a partition.

Paper: Chen, Xiang, Xue, Li, Borisov, Kaafar, Zhu 2018, arXiv 1812.02274 (DP-VaeGM).
Idea: an image lies in one class, so the networks of different classes never share an image, and training all of them
costs what training one costs, however many classes there are. Images of a class are decoded from random codes.

Private access, noise shared out by `plan`:
  mean      sum by class of each image's lowest frequencies, and a constant that counts: where each decoder starts
  spread    sum of r r' / |r|^2 over all classes, r = image - class mean: principal directions that all networks share
  gradient  in each part of the partition by class: clipped gradients of Poisson batches
  codes, cells, within   as in dp-cvae: sums by class that describe its codes by a few Gaussians

Differs from the paper and its code:
  * The number of images of a class is private. Every class has the sampling rate and the number of steps of the others,
    and its gradient is divided by the expected batch of equal classes, which is public.
  * Every unit is counted in one part by construction; moving an image to another class is a removal and an addition.
  * Principal directions, linear start and Gaussians of codes, as in dp-cvae. With a K-th of the images, a network
    has K times the noise of a shared one, so that most of what it learns at small epsilon is in the sums.
  * Widths and schedule of the paper are not published; recipe "paper" is its plain form: pixels and gradients only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.methods.latent import autoencoders, density
from veilset.networks.vae import Frame
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config(autoencoders.Variational):
    hidden: int = option(32, "width of the dense hidden layer, or channels of the last convolution", ge=1, le=65536)


class VAEGM(Synthesizer):
    """One variational autoencoder a class under DP-SGD; classes are a partition."""

    name = "vae-gm"
    Config = Config
    recipes: ClassVar = {"paper": autoencoders.PLAIN_VAE | {"latent": 20, "activation": "tanh", "epochs": 20.0}}

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return autoencoders.plan(self.config, info, privacy, partition="class")

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        c, classes = self.config, len(info.classes)
        public = autoencoders.frame(gate, info, c, rows=classes, device=self.device)
        nets = []
        for k in range(classes):
            net = autoencoders.network(c, info, public.of(k), classes=1).to(self.device)
            # The gate divides by the expected batch of all classes; with equal shares each has a K-th of it.
            nets.append(autoencoders.train(gate, net, c, part=k, told=False, factor=classes))
        state = {f"{k}.{name}": v for k, net in enumerate(nets) for name, v in net.state_dict().items()}
        if c.codes == "released":

            def encode(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
                all = [net.encode(x, y * 0) for net in nets]
                return [torch.cat([both[i] for both in all])[y] for i in (0, 1)]

            state |= density.fit(gate, nets[0], density.cells_of(c.cells, info, plan.budget), encode)
        return state

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> State:
        """elbo and reconstruction by the network of the class, see `autoencoders.lower_bound`."""
        state, info = self.fitted()
        out = {"elbo": torch.zeros(len(y)), "reconstruction": torch.zeros(len(y))}
        for k in y.unique().tolist():
            own = {name.split(".", 1)[1]: v for name, v in state.items() if name.startswith(f"{k}.")}
            net, here = autoencoders.opened(self.config, info, own, classes=1), y == k
            for name, v in autoencoders.lower_bound(self.config, net, x[here], y[here] * 0).items():
                out[name][here] = v
        return out

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        c, out = self.config, torch.empty(len(labels), *info.shape)
        z = density.draw(state, labels) if c.codes == "released" else torch.randn(len(labels), c.latent)
        for k in labels.unique().tolist():
            own = {name.split(".", 1)[1]: v for name, v in state.items() if name.startswith(f"{k}.")}
            here = labels == k
            net = autoencoders.network(c, info, Frame.like(own, logits=c.pixels == "bernoulli"), classes=1)
            net.load_state_dict(own)
            out[here] = net.decode(z[here], labels[here] * 0)
        return autoencoders.seen(out, c)
