"""AU-GM: an autoencoder trained by DP-SGD, whose encoder is given away.

Paper: Chen, Xiang, Xue, Li, Borisov, Kaafar, Zhu 2018, arXiv 1812.02274 (DP-AuGM).
Idea: users push images of their own through the released encoder and train on the codes (`encode`). Reconstruction of
one image is a loss of that image alone; no label is used, so the networks know nothing of classes.

Private access, noise shared out by `plan`:
  mean      sum of all images' lowest frequencies, and a constant that counts: where the decoder starts
  spread    sum of r r' / |r|^2, r = image - mean: principal directions, in which networks are small
  gradient  clipped gradients of Poisson batches
  codes, cells, within   sums by class that describe its codes by a few Gaussians; only with codes "released"

Differs from the paper:
  * The paper's method does not generate. Here labelled images are decoded from Gaussians of each class's codes,
    whose moments are bought ("released", the default), or are those of a public labelled set ("public"), which
    costs nothing; then no private label is used at all.
  * Codes lie in (-1, 1), so that their moments are bounded by construction.
  * Widths of the paper are not published; recipe "paper" is its plain form: pixels, gradients, public codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.types import Images, PublicInfo
from veilset.data.load import load
from veilset.data.public_set import declared
from veilset.methods.base import State
from veilset.methods.latent import autoencoders, density
from veilset.methods.latent.common import Autoencoder, Form
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config(autoencoders.Options):
    latent_prior: str = option(
        "released", "class Gaussians of codes: a paid sum, or codes of a public set", choices=("released", "public")
    )
    public: str = option(
        "digits", "built-in set or path, declared public and with all classes, for latent_prior public"
    )


class AUGM(Autoencoder):
    """Autoencoder under DP-SGD: `encode` turns images into codes; samples are decoded from class Gaussians of codes."""

    public_data = "optional"

    name = "au-gm"
    Config = Config
    recipes: ClassVar = {"paper": autoencoders.PLAIN | {"latent_dim": 32, "epochs": 20.0, "latent_prior": "public"}}

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of images that are the caller's own: uint8 [n, C, H, W] to float32 [n, latent] in (-1, 1).

        Costs no privacy of the training set. The codes are as private as the images that were given.

        Raises:
            ModeError: not fitted. ConfigError: images of another shape or type.
        """
        state, info = self.fitted()
        if x.dtype != torch.uint8 or x.shape[1:] != torch.Size(info.shape):
            raise ConfigError(f"x is {x.dtype} {list(x.shape)}: must be uint8 [n, {', '.join(map(str, info.shape))}]")
        with torch.no_grad():
            net = self._form.opened(self.config, info, state)
            return net.encode(x.float() / 255, torch.zeros(len(x), dtype=torch.int64))[0]

    @property
    def _form(self) -> Form:
        return Form(variational=False)

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        made, c = super()._stages(info, privacy), self.config
        public = {"codes": Part(PublicCodes(c, self._form), {})} if c.latent_prior == "public" else {}
        return Compose(made.parts | public, prefixed=False)

    def _codes(self, state: State, labels: torch.Tensor) -> torch.Tensor:
        return super()._codes(state, labels).clamp(-1, 1)


class PublicCodes(Stage):
    """One Gaussian a class of the codes of a public set; asks nothing."""

    def __init__(self, config: Config, form: Form):
        self.config, self.form = config, form

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Nothing.

        Raises:
            ConfigError: the set is not declared public, has no test split, or lacks a class.
            DataError: its declaration names no licence, or nobody who declares it.
        """
        name = self.config.public
        _public(name, info)
        return Plan((), public=(declared(name, load(name).public_test()),))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "part", "mean" and "root", as if they were released."""
        x, y = _public(self.config.public, info)
        with torch.random.fork_rng(), torch.no_grad():
            net = self.form.opened(self.config, info, earlier["networks"]).to(self.device)
            codes = net.encode(x.to(self.device), y.to(self.device) * 0)[0].cpu()
        return density.public(codes, y, len(info.classes))


def _public(name: str, info: PublicInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, C, H, W] in [0, 1] and labels of a public set's test split, in the declared shape and classes.

    Raises:
        ConfigError: the set is not declared public, has no test split, or lacks a class.
    """
    test = load(name).test
    if not isinstance(test, Images):
        raise ConfigError(f"public = {name!r}: must have a test split that is declared public (access = public)")
    there = {test.classes[k] for k in test.y.unique().tolist()}
    missing = [k for k in info.classes if k not in there]
    if missing:
        raise ConfigError(
            f"public = {name!r}: has no image of class {missing[0]!r}; name another set, or latent_prior released"
        )
    number = torch.tensor([info.classes.index(k) if k in info.classes else -1 for k in test.classes])[test.y]
    x = test.x[number >= 0].float() / 255
    if x.shape[1] != info.shape[0]:
        x = x.mean(1, keepdim=True).expand(-1, info.shape[0], -1, -1)
    x = F.interpolate(x, info.shape[1:], mode="bilinear", antialias=True)
    return x, number[number >= 0]
