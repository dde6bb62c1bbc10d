"""DP-CVAE: one class-conditional variational autoencoder, trained by DP-SGD.

Papers: Sohn, Lee, Yan 2015 (conditional autoencoders); Abadi et al. 2016, arXiv 1607.00133 (DP-SGD); compared with a
conditional GAN and a diffusion model by Gandhi and Viradiya, "Privacy-Preserving Generative Models".
Idea: the evidence lower bound of one image given its class is a loss of that image alone, so each image's gradient can
be clipped. Encoder and decoder see the class as one-hot; images are decoded from random codes and chosen classes.

Private access, noise shared out by `plan`:
  mean      sum by class of each image's lowest frequencies, and a constant that counts: where decoders start
  spread    sum of r r' / |r|^2, r = image - class mean: principal directions, in which networks are small
  gradient  clipped gradients of Poisson batches; the draw of each record's code is its own
  codes     sum by class of the first two moments of the trained encoder's codes, clipped
  cells     sums of offsets from the nearest of a few centres per class: private k-means of codes, two rounds
  within    sums of their products: covariances of the cells that codes are drawn from
The last two are asked if the noise can carry more than one cell per class. Each is asked if its option says so.

Differs from the published code (recipe "paper" is its network and schedule):
  * Codes are drawn with Gaussian noise; the published code's draws are uniform.
  * The loss is clipped record by record and batches are Poisson samples, which is what its accountant assumes.
  * Images are described by 64 principal directions instead of 784 pixels, about noisy class means, and the networks are
    what is added to the linear autoencoder of those directions. Noise grows with the number of weights; of 408,000
    there are 31,000 left.
  * Codes are drawn from a few Gaussians per class instead of N(0, I), to which noisy training never brings them.
  * Large batches, a cosine of the rate, averaged weights.
At epsilon 10 and below the sums carry the result: on validation images of MNIST, 20 steps gave classifiers as much as
300 did. Gradients alone are `centre=False basis=cosine linear=False codes=normal`.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from veilset.methods.base import State
from veilset.methods.latent import autoencoders
from veilset.methods.latent.common import Autoencoder, Form


class DPCVAE(Autoencoder):
    """Class-conditional variational autoencoder under DP-SGD."""

    name = "dp-cvae"
    Config = autoencoders.Variational
    recipes: ClassVar = {
        "paper": autoencoders.PLAIN_VAE | {"latent_dim": 2, "epochs": 300.0, "lr": 0.01},
        "gradients": {
            "basis": "cosine",
            "basis_size": 136,
            "centre": False,
            "linear": False,
            "latent_prior": "normal",
            "latent_dim": 8,
        },
    }

    @property
    def _form(self) -> Form:
        return Form(told=True)

    def _codes(self, state: State, labels: torch.Tensor) -> torch.Tensor:
        if self.config.latent_prior == "released":
            torch.randn(
                len(labels), self.config.latent_dim
            )  # not used, but a seed draws the images that it always drew
        return super()._codes(state, labels)
