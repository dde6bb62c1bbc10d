"""VAE-GM: one variational autoencoder per class, each trained by DP-SGD on its own part of a partition.

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
from typing import ClassVar

from veilset.core.config import option
from veilset.methods.latent import autoencoders
from veilset.methods.latent.common import Autoencoder, Form


@dataclass(frozen=True, kw_only=True)
class Config(autoencoders.Variational):
    hidden_dim: int = option(32, "width of the dense hidden layer, or channels of the last convolution", ge=1, le=65536)


class VAEGM(Autoencoder):
    """One variational autoencoder per class under DP-SGD; classes are a partition."""

    name = "vae-gm"
    Config = Config
    recipes: ClassVar = {"paper": autoencoders.PLAIN_VAE | {"latent_dim": 20, "activation": "tanh", "epochs": 20.0}}

    @property
    def _form(self) -> Form:
        return Form(apart=True)
