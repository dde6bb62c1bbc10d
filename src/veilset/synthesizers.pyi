# Made from the options of the methods by docs/make_stubs.py; do not edit.
# ruff: noqa: E501
# fmt: off

from typing import Literal

from veilset.methods.condensation.dp_condense import DPCondense as _DPCondense
from veilset.methods.condensation.dp_kip import DPKIP as _DPKIP
from veilset.methods.condensation.private_set import PrivateSet as _PrivateSet
from veilset.methods.diffusion.dp_diffusion import DPDiffusion as _DPDiffusion
from veilset.methods.diffusion.dp_feta import DPFETA as _DPFETA
from veilset.methods.embedding.dp_merf import DPMERF as _DPMERF
from veilset.methods.evolution.private_evolution import PrivateEvolution as _PrivateEvolution
from veilset.methods.gan.datalens import DataLens as _DataLens
from veilset.methods.gan.dp_cgan import DPCGAN as _DPCGAN
from veilset.methods.gan.dp_gan import DPGAN as _DPGAN
from veilset.methods.gan.dp_gan_dpac import DPGANDPAC as _DPGANDPAC
from veilset.methods.gan.g_pate import GPATE as _GPATE
from veilset.methods.gan.gs_wgan import GSWGAN as _GSWGAN
from veilset.methods.gan.pate_gan import PATEGAN as _PATEGAN
from veilset.methods.inversion.dpmi import DPMI as _DPMI
from veilset.methods.latent.au_gm import AUGM as _AUGM
from veilset.methods.latent.dp_cvae import DPCVAE as _DPCVAE
from veilset.methods.latent.vae_gm import VAEGM as _VAEGM
from veilset.methods.moments.dp_moments import DPMoments as _DPMoments
from veilset.methods.moments.taught_moments import TaughtMoments as _TaughtMoments

__all__ = [
    "DPMERF",
    "DPMoments",
    "TaughtMoments",
    "DPKIP",
    "PrivateSet",
    "DPCondense",
    "DPCVAE",
    "VAEGM",
    "AUGM",
    "DPGAN",
    "DPCGAN",
    "GSWGAN",
    "DPGANDPAC",
    "PATEGAN",
    "GPATE",
    "DataLens",
    "DPDiffusion",
    "DPFETA",
    "PrivateEvolution",
    "DPMI",
]

class DPMERF(_DPMERF):
    r"""Random-feature mean embedding, one release, conditional generator.

    Parameters:
        generator (str, cells | conv, default 'cells'): clamped Gaussian cells, or (published) a convolutional network
        frequencies (int, >= 1, default 2000): random frequencies a length scale; each gives a cosine and a sine
        scales (int, >= 1, <= 6, default 2): length scales: sqrt(pixels / 7), and halves of it
        loss (str, unbiased | published, default 'unbiased'): squared distance without, or (published) with, self-pairs
        balanced (bool, default True): equal labels in every batch, instead of labels drawn at random
        lr_schedule (str, cosine | step, default 'cosine'): learning rate: to 0 by a cosine, or 0.9 times in each fifth
        ema_decay (float, >= 0, < 1, default 0.99): decay of the exponential average of the weights; 0: none
        steps (int, >= 1, default 800): generator updates; they cost no privacy
        batch_size (int, >= 2, default 400): generated images per update; at least two per class are used
        lr (float, > 0, default: derived): top learning rate of Adam; default 0.01 for conv, 0.1 for cells
        latent_dim (int, >= 1, default 20): dimension of the latent code
    """

    def __init__(
        self,
        *,
        generator: Literal["cells", "conv"] = "cells",
        frequencies: int = 2000,
        scales: int = 2,
        loss: Literal["unbiased", "published"] = "unbiased",
        balanced: bool = True,
        lr_schedule: Literal["cosine", "step"] = "cosine",
        ema_decay: float = 0.99,
        steps: int = 800,
        batch_size: int = 400,
        lr: float | None = None,
        latent_dim: int = 20,
    ) -> None: ...

class DPMoments(_DPMoments):
    r"""Class means and covariances in a low-frequency basis.

    Parameters:
        basis_size (int, >= 1, default 136): basis size: how many low frequencies (136: those with u + v < 16)
        n_components (int, >= 1, <= 64, default: derived): Gaussians per class; default 0.11 / sqrt(noise_multiplier K / N), from 1 to 16
        rounds (int, >= 1, <= 10, default 2): rounds of private k-means, if there is more than one Gaussian per class
        mc_samples (int, >= 0, default 1000): Monte Carlo samples that correct moments for clamping; 0: no correction
        pooled (bool, default False): instead: one Gaussian per class on an 8 x 8 grid, its covariance common to all classes
    """

    def __init__(
        self,
        *,
        basis_size: int = 136,
        n_components: int | None = None,
        rounds: int = 2,
        mc_samples: int = 1000,
        pooled: bool = False,
    ) -> None: ...

class TaughtMoments(_TaughtMoments):
    r"""Class Gaussians for images, a private linear classifier for their labels.

    Parameters:
        budget_share (float, > 0, < 1, default 0.3): the teacher's part of the budget, in units of 1 / noise_multiplier^2; images get the rest
        steps (int, >= 1, default: derived): gradient steps of the teacher; default as dp-scatter
        batch_size (int, >= 1, default: derived): its expected units per step; default as dp-scatter
        n_components (int, >= 1, <= 64, default: derived): Gaussians per class; default 0.055 / sqrt(noise_multiplier K / N), from 1 to 16
        mc_samples (int, >= 0, default 1000): Monte Carlo samples that correct moments for clamping; as dp-moments
        texture (bool, default True): match histograms of grey levels and fine bands to those of the private images
        selection (bool, default True): choose by noisy counts of private images whether to match them, and to augment
    """

    def __init__(
        self,
        *,
        budget_share: float = 0.3,
        steps: int | None = None,
        batch_size: int | None = None,
        n_components: int | None = None,
        mc_samples: int = 1000,
        texture: bool = True,
        selection: bool = True,
    ) -> None: ...

class DPKIP(_DPKIP):
    r"""Kernel inducing points on scattering features.

    Parameters:
        per_class (int, >= 1, <= 1000, default 10): images per class that are released; a longer sample repeats them
        batch_size (int, >= 1, default: derived): expected units per step; default a seventh of all, at most 8192
        steps (int, >= 1, default 150): gradient steps
        clip_norm (float, > 0, default 0.5): max_grad_norm of one unit, in the space of features
        lr (float, > 0, default 0.02): learning rate of Adam on the images, whose pixels are in [0, 1]
        ridge (float, > 0, default 0.001): ridge, relative to the mean square of the support features
    """

    def __init__(
        self,
        *,
        per_class: int = 10,
        batch_size: int | None = None,
        steps: int = 150,
        clip_norm: float = 0.5,
        lr: float = 0.02,
        ridge: float = 0.001,
    ) -> None: ...

class PrivateSet(_PrivateSet):
    r"""Gradient matching at the gate.

    Parameters:
        per_class (int, >= 1, default: derived): images per class that are released; default 10, or N / K if less; a longer sample repeats them
        width (int, >= 1, <= 1024, default 16): channels of the matched network
        networks (int, >= 1, default 50): fresh networks, one after the other
        stages (int, >= 1, default 4): how often a network is asked about, trained on the images between
        queries (int, >= 1, default 1): questions at a stage, all about the same weights
        epochs (int, >= 0, default 20): inner training: passes over the images between two stages
        inner_lr (float, > 0, default 0.01): learning rate of inner training
        batch_size (int, >= 1, default: derived): expected units per query; default all, at most 2048
        clip_norm (float, > 0, default 0.1): max_grad_norm of one unit, over all matched weights
        distance (str, gm | mse | cos, default 'gm'): between gradients: gm by output unit, mse, cos of the whole
        augment (bool, default False): shift, scale or turn all images, private and not, alike in each question
        prior (bool, default False): change the weights of a generator in place of pixels
        start (str, noise | moments, default: derived): first images; default moments, which a prior learns to draw first
        budget_share (float, > 0, < 1, default 0.2): part of the budget for start moments
        optimizer (str, adam | sgd, default 'adam'): of the images or prior
        lr (float, > 0, default: derived): learning rate; default 0.02 for pixels (in units of 0.3 of their range), for a prior 0.001, from noise 0.01
        momentum (float, >= 0, < 1, default 0.5): of sgd; adam has its own
        replay (int, >= 0, default 4): further steps after each question, against answers drawn from all; they cost no privacy
        trust (bool, default True): gm: let a unit count by the estimated part of its gradient that is not noise
        lr_decay (bool, default True): let the learning rate of the images fall to zero along a half cosine
    """

    def __init__(
        self,
        *,
        per_class: int | None = None,
        width: int = 16,
        networks: int = 50,
        stages: int = 4,
        queries: int = 1,
        epochs: int = 20,
        inner_lr: float = 0.01,
        batch_size: int | None = None,
        clip_norm: float = 0.1,
        distance: Literal["gm", "mse", "cos"] = "gm",
        augment: bool = False,
        prior: bool = False,
        start: Literal["noise", "moments"] | None = None,
        budget_share: float = 0.2,
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float | None = None,
        momentum: float = 0.5,
        replay: int = 4,
        trust: bool = True,
        lr_decay: bool = True,
    ) -> None: ...

class DPCondense(_DPCondense):
    r"""Few images whose random embeddings have the private means.

    Parameters:
        per_class (int, >= 1, <= 10000, default: derived): images per class; a longer sample repeats them; default 50, or a declared class if smaller
        start (str, moments | noise, default 'moments'): what the images are at first
        budget_share (float, > 0, < 1, default 0.5): part of the budget, in units of 1 / noise_multiplier^2, that moments get
        networks (int, >= 1, <= 1000, default 50): random networks in one sum
        width (int, >= 1, <= 512, default 32): channels of a network
        augment (bool, default True): each network sees images shifted, scaled or turned in its own way
        sums (int, >= 1, <= 100000, default 1): noisy sums, each by networks of its own
        group_size (int, >= 1, default: derived): expected images per class in one sum; default all
        steps (int, >= 1, default 800): steps by which the images are changed; they cost no privacy
        networks_per_step (int, >= 1, default 2): networks that are used in one step
        lr (float, > 0, default 0.02): initial learning rate of Adam on the images' frequencies, in pixel values
        cutoff (float, > 0, default 0.3): frequencies above this part of the highest are changed less, by its square; large: all alike
    """

    def __init__(
        self,
        *,
        per_class: int | None = None,
        start: Literal["moments", "noise"] = "moments",
        budget_share: float = 0.5,
        networks: int = 50,
        width: int = 32,
        augment: bool = True,
        sums: int = 1,
        group_size: int | None = None,
        steps: int = 800,
        networks_per_step: int = 2,
        lr: float = 0.02,
        cutoff: float = 0.3,
    ) -> None: ...

class DPCVAE(_DPCVAE):
    r"""Class-conditional variational autoencoder under DP-SGD.

    Parameters:
        network (str, dense | conv, default 'dense'): dense layers, or convolutions (needs basis pixels)
        hidden_dim (int, >= 1, <= 65536, default 128): width of the dense hidden layer, or channels of the last convolution
        latent_dim (int, >= 1, <= 4096, default 32): dimension of the latent code
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'tanh'): between layers; tempered-sigmoid has scale 1.58, temperature 3
        basis (str, principal | cosine | pixels, default 'principal'): what images are described by: principal directions (a paid sum), lowest frequencies, or pixels
        basis_size (int, >= 1, <= 100000, default 64): how many principal directions or frequencies
        centre (bool, default True): start the decoder from noisy means (a paid sum) instead of from grey
        linear (bool, default True): start from the linear autoencoder of principal directions, if that is the basis
        likelihood (str, bernoulli | gaussian, default 'gaussian'): likelihood of a pixel given its code
        pixel_std (float, > 0, <= 10, default 0.2): standard deviation of the gaussian likelihood, in units of the pixel range
        batch_size (int, >= 1, default: derived): expected units per step; default N / 25, from 256 to 4096, at most N
        steps (int, >= 1, default: derived): steps; default 100 epsilon, from 300 to 1500
        epochs (float, > 0, default: derived): instead of steps: how often a unit is used on average
        lr (float, > 0, <= 1, default 0.003): top learning rate of Adam
        lr_schedule (str, cosine | constant, default 'cosine'): learning rate: to 0 by a cosine, or constant
        clip_norm (float, > 0, default 1.0): L2 bound of a unit's gradient over all weights
        ema_decay (float, >= 0, < 1, default 0.98): decay of the exponential average of the weights; 0: none
        n_components (int, >= 1, <= 64, default: derived): Gaussians of codes per class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16
        sample_pixels (bool, default False): draw every pixel from its likelihood instead of giving its mean
        kl_weight (float, >= 0, <= 1000, default 1.0): weight of the divergence of codes from N(0, I)
        kl_warmup (float, >= 0, <= 1, default 0.2): part of the steps in which kl_weight rises from 0
        latent_samples (int, >= 1, <= 1000, default 1): codes drawn per record and step, averaged before clipping
        latent_prior (str, released | normal, default 'released'): images are decoded from a paid Gaussian a class, or from N(0, I)
    """

    def __init__(
        self,
        *,
        network: Literal["dense", "conv"] = "dense",
        hidden_dim: int = 128,
        latent_dim: int = 32,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "tanh",
        basis: Literal["principal", "cosine", "pixels"] = "principal",
        basis_size: int = 64,
        centre: bool = True,
        linear: bool = True,
        likelihood: Literal["bernoulli", "gaussian"] = "gaussian",
        pixel_std: float = 0.2,
        batch_size: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        lr: float = 0.003,
        lr_schedule: Literal["cosine", "constant"] = "cosine",
        clip_norm: float = 1.0,
        ema_decay: float = 0.98,
        n_components: int | None = None,
        sample_pixels: bool = False,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.2,
        latent_samples: int = 1,
        latent_prior: Literal["released", "normal"] = "released",
    ) -> None: ...

class VAEGM(_VAEGM):
    r"""One variational autoencoder per class under DP-SGD; classes are a partition.

    Parameters:
        network (str, dense | conv, default 'dense'): dense layers, or convolutions (needs basis pixels)
        hidden_dim (int, >= 1, <= 65536, default 32): width of the dense hidden layer, or channels of the last convolution
        latent_dim (int, >= 1, <= 4096, default 32): dimension of the latent code
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'tanh'): between layers; tempered-sigmoid has scale 1.58, temperature 3
        basis (str, principal | cosine | pixels, default 'principal'): what images are described by: principal directions (a paid sum), lowest frequencies, or pixels
        basis_size (int, >= 1, <= 100000, default 64): how many principal directions or frequencies
        centre (bool, default True): start the decoder from noisy means (a paid sum) instead of from grey
        linear (bool, default True): start from the linear autoencoder of principal directions, if that is the basis
        likelihood (str, bernoulli | gaussian, default 'gaussian'): likelihood of a pixel given its code
        pixel_std (float, > 0, <= 10, default 0.2): standard deviation of the gaussian likelihood, in units of the pixel range
        batch_size (int, >= 1, default: derived): expected units per step; default N / 25, from 256 to 4096, at most N
        steps (int, >= 1, default: derived): steps; default 100 epsilon, from 300 to 1500
        epochs (float, > 0, default: derived): instead of steps: how often a unit is used on average
        lr (float, > 0, <= 1, default 0.003): top learning rate of Adam
        lr_schedule (str, cosine | constant, default 'cosine'): learning rate: to 0 by a cosine, or constant
        clip_norm (float, > 0, default 1.0): L2 bound of a unit's gradient over all weights
        ema_decay (float, >= 0, < 1, default 0.98): decay of the exponential average of the weights; 0: none
        n_components (int, >= 1, <= 64, default: derived): Gaussians of codes per class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16
        sample_pixels (bool, default False): draw every pixel from its likelihood instead of giving its mean
        kl_weight (float, >= 0, <= 1000, default 1.0): weight of the divergence of codes from N(0, I)
        kl_warmup (float, >= 0, <= 1, default 0.2): part of the steps in which kl_weight rises from 0
        latent_samples (int, >= 1, <= 1000, default 1): codes drawn per record and step, averaged before clipping
        latent_prior (str, released | normal, default 'released'): images are decoded from a paid Gaussian a class, or from N(0, I)
    """

    def __init__(
        self,
        *,
        network: Literal["dense", "conv"] = "dense",
        hidden_dim: int = 32,
        latent_dim: int = 32,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "tanh",
        basis: Literal["principal", "cosine", "pixels"] = "principal",
        basis_size: int = 64,
        centre: bool = True,
        linear: bool = True,
        likelihood: Literal["bernoulli", "gaussian"] = "gaussian",
        pixel_std: float = 0.2,
        batch_size: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        lr: float = 0.003,
        lr_schedule: Literal["cosine", "constant"] = "cosine",
        clip_norm: float = 1.0,
        ema_decay: float = 0.98,
        n_components: int | None = None,
        sample_pixels: bool = False,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.2,
        latent_samples: int = 1,
        latent_prior: Literal["released", "normal"] = "released",
    ) -> None: ...

class AUGM(_AUGM):
    r"""Autoencoder under DP-SGD: `encode` turns images into codes; samples are decoded from class Gaussians of codes.

    Parameters:
        network (str, dense | conv, default 'dense'): dense layers, or convolutions (needs basis pixels)
        hidden_dim (int, >= 1, <= 65536, default 128): width of the dense hidden layer, or channels of the last convolution
        latent_dim (int, >= 1, <= 4096, default 32): dimension of the latent code
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'tanh'): between layers; tempered-sigmoid has scale 1.58, temperature 3
        basis (str, principal | cosine | pixels, default 'principal'): what images are described by: principal directions (a paid sum), lowest frequencies, or pixels
        basis_size (int, >= 1, <= 100000, default 64): how many principal directions or frequencies
        centre (bool, default True): start the decoder from noisy means (a paid sum) instead of from grey
        linear (bool, default True): start from the linear autoencoder of principal directions, if that is the basis
        likelihood (str, bernoulli | gaussian, default 'gaussian'): likelihood of a pixel given its code
        pixel_std (float, > 0, <= 10, default 0.2): standard deviation of the gaussian likelihood, in units of the pixel range
        batch_size (int, >= 1, default: derived): expected units per step; default N / 25, from 256 to 4096, at most N
        steps (int, >= 1, default: derived): steps; default 100 epsilon, from 300 to 1500
        epochs (float, > 0, default: derived): instead of steps: how often a unit is used on average
        lr (float, > 0, <= 1, default 0.003): top learning rate of Adam
        lr_schedule (str, cosine | constant, default 'cosine'): learning rate: to 0 by a cosine, or constant
        clip_norm (float, > 0, default 1.0): L2 bound of a unit's gradient over all weights
        ema_decay (float, >= 0, < 1, default 0.98): decay of the exponential average of the weights; 0: none
        n_components (int, >= 1, <= 64, default: derived): Gaussians of codes per class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16
        sample_pixels (bool, default False): draw every pixel from its likelihood instead of giving its mean
        latent_prior (str, released | public, default 'released'): class Gaussians of codes: a paid sum, or codes of a public set
        public (str, default 'digits'): built-in set or path, declared public and with all classes, for latent_prior public
    """

    def __init__(
        self,
        *,
        network: Literal["dense", "conv"] = "dense",
        hidden_dim: int = 128,
        latent_dim: int = 32,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "tanh",
        basis: Literal["principal", "cosine", "pixels"] = "principal",
        basis_size: int = 64,
        centre: bool = True,
        linear: bool = True,
        likelihood: Literal["bernoulli", "gaussian"] = "gaussian",
        pixel_std: float = 0.2,
        batch_size: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        lr: float = 0.003,
        lr_schedule: Literal["cosine", "constant"] = "cosine",
        clip_norm: float = 1.0,
        ema_decay: float = 0.98,
        n_components: int | None = None,
        sample_pixels: bool = False,
        latent_prior: Literal["released", "public"] = "released",
        public: str = "digits",
    ) -> None: ...

class DPGAN(_DPGAN):
    r"""Conditional GAN, critic by DP-SGD.

    Parameters:
        critic (str, mlp | conv, default 'mlp'): network: fully connected (fast) or convolutions
        width (int, >= 1, default: derived): critic: units of both hidden layers (default 128), or channels of the first convolution (16)
        basis (int, >= 0, default: derived): fully connected networks: low frequencies they work in; default a quarter of the pixels; 0: pixels
        snapshots (int, >= 1, default 5): generators kept from the second half of the training; images come from all
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'leaky-relu'): of the critic
        labels (str, heads | input, default 'heads'): how a fully connected critic gets the label
        critic_class_weight (float, >= 0, default 0.5): weight of the cross-entropy of the critic's class heads on records
        generator_class_weight (float, >= 0, default 0.1): weight of the class heads' cross-entropy on generated images, for the generator
        diversity_weight (float, >= 0, default 0.5): weight of a term against collapse: -log distance of two images of a class
        loss (str, logistic | wasserstein | hinge, default 'logistic'): adversarial loss
        fakes (str, paired | public, default 'paired'): generated images: clipped with a record of their class, or apart
        sensitivity (str, clip | weight-clip, default 'clip'): bound by clipping gradients, or by a limit on weights
        clip_norm (float, > 0, default 1.0): largest L2 norm of one unit's gradient; not used with weight-clip
        weight_limit (float, > 0, default 0.01): with weight-clip: largest size of a critic's weight
        batch_size (int, >= 1, default 1024): expected records per critic step, at most N
        steps (int, >= 1, default: derived): critic steps, each paid for; default 2000 (epsilon N / 600,000)^(1/4), from 200 to 2000
        critic_steps (int, >= 1, default 1): critic steps per generator step; where it begins, if adaptive
        adaptive (bool, default False): raise critic_steps when the critic no longer recognises generated images
        threshold (float, > 0, <= 1, default: derived): adaptive: accuracy on generated images to keep; default 0.6, at epsilon below 5 0.7
        grace (int, >= 1, default 200): adaptive: generator steps before critic_steps may rise again
        optimizer (str, adam | rmsprop, default 'adam'): of both networks
        lr (float, > 0, default 0.001): learning rate of the critic
        generator (str, deconv | mlp, default 'mlp'): network: convolutions or fully connected
        generator_width (int, >= 1, default: derived): units of three hidden layers (default 256), or channels before the last convolution (16)
        generator_lr (float, > 0, default 0.002): learning rate of the generator
        generator_batch_size (int, >= 2, default 500): generated images per generator step
        ema_decay (float, >= 0, < 1, default 0.98): decay of the exponential average of the generator's weights; 0: none
        latent_dim (int, >= 1, default 32): dimension of the latent code
    """

    def __init__(
        self,
        *,
        critic: Literal["mlp", "conv"] = "mlp",
        width: int | None = None,
        basis: int | None = None,
        snapshots: int = 5,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "leaky-relu",
        labels: Literal["heads", "input"] = "heads",
        critic_class_weight: float = 0.5,
        generator_class_weight: float = 0.1,
        diversity_weight: float = 0.5,
        loss: Literal["logistic", "wasserstein", "hinge"] = "logistic",
        fakes: Literal["paired", "public"] = "paired",
        sensitivity: Literal["clip", "weight-clip"] = "clip",
        clip_norm: float = 1.0,
        weight_limit: float = 0.01,
        batch_size: int = 1024,
        steps: int | None = None,
        critic_steps: int = 1,
        adaptive: bool = False,
        threshold: float | None = None,
        grace: int = 200,
        optimizer: Literal["adam", "rmsprop"] = "adam",
        lr: float = 0.001,
        generator: Literal["deconv", "mlp"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.002,
        generator_batch_size: int = 500,
        ema_decay: float = 0.98,
        latent_dim: int = 32,
    ) -> None: ...

class DPCGAN(_DPCGAN):
    r"""Conditional GAN, real and generated parts clipped apart.

    Parameters:
        architecture (str, vanilla | advanced, default 'vanilla'): fully connected, or convolutions
        width (int, >= 1, default: derived): critic: hidden units (vanilla, default 128) or first channels (16)
        generator_width (int, >= 1, default: derived): the same of the generator; default as the critic's
        basis (int, >= 0, default: derived): vanilla networks: low frequencies they work in; default a quarter of the pixels; 0: pixels
        snapshots (int, >= 1, default 5): generators kept from the second half of the training; images come from all of them
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'leaky-relu'): of the critic
        norm (str, none | group, default 'none'): advanced critic: group normalisation of one image alone
        labels (str, heads | input, default 'heads'): how a vanilla critic gets the label
        critic_class_weight (float, >= 0, default 0.5): weight of the cross-entropy of the critic's class heads, if any, on records
        diversity_weight (float, >= 0, default 0.5): weight of a term against collapse: -log distance of two images of a class
        loss (str, logistic | wasserstein | hinge, default 'logistic'): adversarial loss
        fakes (str, public | paired, default 'public'): generated images: clipped apart, or with a record
        clip_norm (float, > 0, default 1.1): largest L2 norm of one unit's gradient, of all parameters together
        batch_size (int, >= 1, default 1024): expected records per critic step, at most N
        steps (int, >= 1, default: derived): critic steps, each paid for; default 2000 (epsilon N / 600,000)^(1/4), from 200 to 2000
        critic_steps (int, >= 1, default 1): critic steps per generator step
        optimizer (str, adam | sgd, default 'adam'): of the critic
        lr (float, > 0, default 0.001): first learning rate of the critic
        final_lr (float, > 0, default 0.001): learning rate of the critic at the end; linear between
        momentum (float, >= 0, < 1, default 0.0): momentum of sgd
        generator_lr (float, > 0, default 0.002): learning rate of the generator (Adam)
        generator_norm (bool, default True): vanilla generator: batch normalisation
        ema_decay (float, >= 0, < 1, default 0.98): decay of the exponential average of the generator's weights; 0: none
        latent_dim (int, >= 1, default 100): dimension of the latent code, uniform in (-1, 1)
    """

    def __init__(
        self,
        *,
        architecture: Literal["vanilla", "advanced"] = "vanilla",
        width: int | None = None,
        generator_width: int | None = None,
        basis: int | None = None,
        snapshots: int = 5,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "leaky-relu",
        norm: Literal["none", "group"] = "none",
        labels: Literal["heads", "input"] = "heads",
        critic_class_weight: float = 0.5,
        diversity_weight: float = 0.5,
        loss: Literal["logistic", "wasserstein", "hinge"] = "logistic",
        fakes: Literal["public", "paired"] = "public",
        clip_norm: float = 1.1,
        batch_size: int = 1024,
        steps: int | None = None,
        critic_steps: int = 1,
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float = 0.001,
        final_lr: float = 0.001,
        momentum: float = 0.0,
        generator_lr: float = 0.002,
        generator_norm: bool = True,
        ema_decay: float = 0.98,
        latent_dim: int = 100,
    ) -> None: ...

class GSWGAN(_GSWGAN):
    r"""Hidden critics whose gradients on generated images are noised.

    Parameters:
        start_share (float, >= 0, < 1, default 0.5): part of the budget for class moments, whose images the generator starts from; 0: none
        truncation (float, > 0, default 0.7): deviation of the codes of such images; below 1 they vary less, and show their class more clearly
        mechanism (str, secret-shards | round-robin, default 'secret-shards'): which critic answers: one drawn in secret, made anew; or the next, which keeps what it learned
        shards (int, >= 1, <= 1.04858e+06, default: derived): hidden critics; default one per 60 units, at most 250; 1000 without a start
        rows (int, >= 1, <= 1.04858e+06, default 10): gradients per step, which share its noise
        group_size (int, >= 1, <= 1.04858e+06, default 8): generated images of a class, the mean of whose gradients is a row
        steps (int, >= 1, default: derived): generator steps, each paid for; default 1000, without a start 8000; in turn, whole passes over all critics
        clip_norm (float, > 0, default 0.3): of a row, the mean gradient on a group of images
        critic (str, mlp | conv | published, default 'mlp'): network: fully connected (fast), convolutions, or as published
        width (int, >= 1, default: derived): critic: units of both hidden layers (default 64), or channels of the first convolution (8; 64)
        basis (int, >= 0, default: derived): low frequencies in which rows lie; default a quarter of the pixels, at most 64 with a start; 0: pixels
        warm_steps (int, >= 0, default 30): steps of each critic before the first answer
        critic_steps (int, >= 0, default 1): steps of a critic that was chosen, before it answers
        batch_size (int, >= 1, default 32): records per critic step, drawn from its shard
        lr (float, > 0, default 0.01): learning rate of all that is hidden
        penalty (float, >= 0, default 10.0): weight of the gradient penalty
        generator (str, deconv | mlp | published, default 'mlp'): network without a start: convolutions, fully connected, or as published
        generator_width (int, >= 1, default: derived): units of two hidden layers (default 128), or channels before the last convolution (16; all: 256)
        generator_lr (float, >= 0, default 0.004): learning rate of the generator; 0: it stays as it starts
        ema_decay (float, >= 0, < 1, default 0.995): exponential average of the generator's weights; 0: none
        snapshots (int, >= 1, default 1): generators kept from the second half of the training; images come from all of them
        latent_dim (int, >= 1, default 10): length of the latent code
    """

    def __init__(
        self,
        *,
        start_share: float = 0.5,
        truncation: float = 0.7,
        mechanism: Literal["secret-shards", "round-robin"] = "secret-shards",
        shards: int | None = None,
        rows: int = 10,
        group_size: int = 8,
        steps: int | None = None,
        clip_norm: float = 0.3,
        critic: Literal["mlp", "conv", "published"] = "mlp",
        width: int | None = None,
        basis: int | None = None,
        warm_steps: int = 30,
        critic_steps: int = 1,
        batch_size: int = 32,
        lr: float = 0.01,
        penalty: float = 10.0,
        generator: Literal["deconv", "mlp", "published"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.004,
        ema_decay: float = 0.995,
        snapshots: int = 1,
        latent_dim: int = 10,
    ) -> None: ...

class DPGANDPAC(_DPGANDPAC):
    r"""Hidden critics, and a classifier of generated and real images, whose gradients are noised together.

    Parameters:
        start_share (float, >= 0, < 1, default 0.5): part of the budget for class moments, whose images the generator starts from; 0: none
        truncation (float, > 0, default 0.7): deviation of the codes of such images; below 1 they vary less, and show their class more clearly
        mechanism (str, secret-shards | round-robin, default 'secret-shards'): which critic answers: one drawn in secret, made anew; or the next, which keeps what it learned
        shards (int, >= 1, <= 1.04858e+06, default: derived): hidden critics; default one per 60 units, at most 250; 1000 without a start
        rows (int, >= 1, <= 1.04858e+06, default 10): gradients per step, which share its noise
        group_size (int, >= 1, <= 1.04858e+06, default 8): generated images of a class, the mean of whose gradients is a row
        steps (int, >= 1, default: derived): generator steps, each paid for; default 1000, without a start 8000; in turn, whole passes over all critics
        clip_norm (float, > 0, default 0.3): of a row, the mean gradient on a group of images
        critic (str, mlp | conv | published, default 'mlp'): network: fully connected (fast), convolutions, or as published
        width (int, >= 1, default: derived): critic: units of both hidden layers (default 64), or channels of the first convolution (8; 64)
        basis (int, >= 0, default: derived): low frequencies in which rows lie; default a quarter of the pixels, at most 64 with a start; 0: pixels
        warm_steps (int, >= 0, default 30): steps of each critic before the first answer
        critic_steps (int, >= 0, default 1): steps of a critic that was chosen, before it answers
        batch_size (int, >= 1, default 32): records per critic step, drawn from its shard
        lr (float, > 0, default 0.01): learning rate of all that is hidden
        penalty (float, >= 0, default 10.0): weight of the gradient penalty
        generator (str, deconv | mlp | published, default 'mlp'): network without a start: convolutions, fully connected, or as published
        generator_width (int, >= 1, default: derived): units of two hidden layers (default 128), or channels before the last convolution (16; all: 256)
        generator_lr (float, >= 0, default 0.004): learning rate of the generator; 0: it stays as it starts
        ema_decay (float, >= 0, < 1, default 0.995): exponential average of the generator's weights; 0: none
        snapshots (int, >= 1, default 1): generators kept from the second half of the training; images come from all of them
        latent_dim (int, >= 1, default 10): length of the latent code
        classifier_weight (float, >= 0, <= 1, default 0.8): of the classifier in what the generator pays; the critic has the rest; 0: gs-wgan
        classifier_steps (int, >= 1, default 3): steps of a classifier in each of its two phases
        classifier_from (float, >= 0, < 1, default 0.0): part of the training after which the classifier joins
        g2r (bool, default True): the classifier learns from generated images
        r2g (bool, default True): the classifier learns from the records of the shard
        sequential (bool, default True): from generated images first, then from records; or from both in each step
        fresh (bool, default True): a new classifier at each step; or one a shard that is kept, in turn only
    """

    def __init__(
        self,
        *,
        start_share: float = 0.5,
        truncation: float = 0.7,
        mechanism: Literal["secret-shards", "round-robin"] = "secret-shards",
        shards: int | None = None,
        rows: int = 10,
        group_size: int = 8,
        steps: int | None = None,
        clip_norm: float = 0.3,
        critic: Literal["mlp", "conv", "published"] = "mlp",
        width: int | None = None,
        basis: int | None = None,
        warm_steps: int = 30,
        critic_steps: int = 1,
        batch_size: int = 32,
        lr: float = 0.01,
        penalty: float = 10.0,
        generator: Literal["deconv", "mlp", "published"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.004,
        ema_decay: float = 0.995,
        snapshots: int = 1,
        latent_dim: int = 10,
        classifier_weight: float = 0.8,
        classifier_steps: int = 3,
        classifier_from: float = 0.0,
        g2r: bool = True,
        r2g: bool = True,
        sequential: bool = True,
        fresh: bool = True,
    ) -> None: ...

class PATEGAN(_PATEGAN):
    r"""A student learns noisy votes on generated images, and a generator from it.

    Parameters:
        shards (int, >= 1, <= 1.04858e+06, default: derived): teachers; default one per 200 units, at most 1000
        images (int, >= 1, <= 65536, default 100): generated images per step that are voted on
        steps (int, >= 1, default 60): times that the teachers vote, each paid for
        critic (str, mlp | conv, default 'mlp'): teachers: fully connected (fast) or convolutions
        width (int, >= 1, default: derived): teacher: units of its hidden layer (default 32), or channels of the first convolution (8)
        basis (int, >= 0, default 136): low frequencies in which teachers see images and votes are cast; 0: pixels
        warm_steps (int, >= 0, default 20): steps of each teacher before the first vote
        teacher_steps (int, >= 0, default 4): steps of each teacher before each further vote
        batch_size (int, >= 1, default 16): records per step of a teacher, drawn from its shard
        lr (float, > 0, default 0.003): learning rate of the teachers (Adam)
        start (str, means | none, default 'means'): what the generator starts from: paid class means, or nothing
        start_steps (int, >= 0, default 400): steps that teach the generator the class means
        budget_share (float, > 0, < 1, default 0.1): part of the budget that class means take
        generator (str, mlp | deconv, default 'mlp'): network: fully connected or convolutions
        generator_width (int, >= 1, default: derived): units of two hidden layers (default 128), or channels before the last convolution (16)
        generator_lr (float, > 0, default 0.0002): learning rate of the generator (Adam)
        ema_decay (float, >= 0, < 1, default 0.9): exponential average of the generator's weights; 0: none
        snapshots (int, >= 1, default 3): generators kept from the second half of the training
        latent_dim (int, >= 1, default 30): length of the latent code
        votes (str, soft | hard, default 'soft'): what a teacher says of an image: how sure it is, or yes or no
        jitter (float, >= 0, default 0.5): deviation of the noise on half of the images that are asked about
        kept (int, >= 1, default 3000): answers that the student learns from, the latest ones
        student_width (int, >= 1, default 64): units of the student's hidden layer
        student_steps (int, >= 1, default 60): steps of the student per vote
        student_lr (float, > 0, default 0.002): learning rate of the student (Adam)
        generator_steps (int, >= 1, default 2): steps of the generator per vote
    """

    def __init__(
        self,
        *,
        shards: int | None = None,
        images: int = 100,
        steps: int = 60,
        critic: Literal["mlp", "conv"] = "mlp",
        width: int | None = None,
        basis: int = 136,
        warm_steps: int = 20,
        teacher_steps: int = 4,
        batch_size: int = 16,
        lr: float = 0.003,
        start: Literal["means", "none"] = "means",
        start_steps: int = 400,
        budget_share: float = 0.1,
        generator: Literal["mlp", "deconv"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.0002,
        ema_decay: float = 0.9,
        snapshots: int = 3,
        latent_dim: int = 30,
        votes: Literal["soft", "hard"] = "soft",
        jitter: float = 0.5,
        kept: int = 3000,
        student_width: int = 64,
        student_steps: int = 60,
        student_lr: float = 0.002,
        generator_steps: int = 2,
    ) -> None: ...

class GPATE(_GPATE):
    r"""Teachers vote on directions of generated images.

    Parameters:
        shards (int, >= 1, <= 1.04858e+06, default: derived): teachers; default one per 200 units, at most 1000
        images (int, >= 1, <= 65536, default 50): generated images per step that are voted on
        steps (int, >= 1, default 60): times that the teachers vote, each paid for
        critic (str, mlp | conv, default 'mlp'): teachers: fully connected (fast) or convolutions
        width (int, >= 1, default: derived): teacher: units of its hidden layer (default 32), or channels of the first convolution (8)
        basis (int, >= 0, default 136): low frequencies in which teachers see images and votes are cast; 0: pixels
        warm_steps (int, >= 0, default 20): steps of each teacher before the first vote
        teacher_steps (int, >= 0, default 4): steps of each teacher before each further vote
        batch_size (int, >= 1, default 16): records per step of a teacher, drawn from its shard
        lr (float, > 0, default 0.003): learning rate of the teachers (Adam)
        start (str, means | none, default 'means'): what the generator starts from: paid class means, or nothing
        start_steps (int, >= 0, default 400): steps that teach the generator the class means
        budget_share (float, > 0, < 1, default 0.1): part of the budget that class means take
        generator (str, mlp | deconv, default 'mlp'): network: fully connected or convolutions
        generator_width (int, >= 1, default: derived): units of two hidden layers (default 128), or channels before the last convolution (16)
        generator_lr (float, > 0, default 0.001): learning rate of the generator (Adam)
        ema_decay (float, >= 0, < 1, default 0.9): exponential average of the generator's weights; 0: none
        snapshots (int, >= 1, default 3): generators kept from the second half of the training
        latent_dim (int, >= 1, default 30): length of the latent code
        length (float, > 0, default 3.0): how far an image moves in the first step, mean L2 norm; falls to 0
        inner_steps (int, >= 1, default 3): steps of the generator towards the moved images
        directions (int, >= 1, <= 4096, default 10): random axes per image on which teachers vote
        bins (int, >= 2, <= 256, default 2): bins of a vote, equal parts of two deviations to either side; 2: the sign
        decode (str, mean | largest, default 'mean'): what is read from a noisy histogram: its mean, or its largest bin
        threshold (float, >= 0, <= 1, default 0.0): largest: part of the teachers that must agree, or the image stays
    """

    def __init__(
        self,
        *,
        shards: int | None = None,
        images: int = 50,
        steps: int = 60,
        critic: Literal["mlp", "conv"] = "mlp",
        width: int | None = None,
        basis: int = 136,
        warm_steps: int = 20,
        teacher_steps: int = 4,
        batch_size: int = 16,
        lr: float = 0.003,
        start: Literal["means", "none"] = "means",
        start_steps: int = 400,
        budget_share: float = 0.1,
        generator: Literal["mlp", "deconv"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.001,
        ema_decay: float = 0.9,
        snapshots: int = 3,
        latent_dim: int = 30,
        length: float = 3.0,
        inner_steps: int = 3,
        directions: int = 10,
        bins: int = 2,
        decode: Literal["mean", "largest"] = "mean",
        threshold: float = 0.0,
    ) -> None: ...

class DataLens(_DataLens):
    r"""Teachers vote with sparse signs of gradients.

    Parameters:
        shards (int, >= 1, <= 1.04858e+06, default: derived): teachers; default one per 200 units, at most 1000
        images (int, >= 1, <= 65536, default 50): generated images per step that are voted on
        steps (int, >= 1, default 60): times that the teachers vote, each paid for
        critic (str, mlp | conv, default 'mlp'): teachers: fully connected (fast) or convolutions
        width (int, >= 1, default: derived): teacher: units of its hidden layer (default 32), or channels of the first convolution (8)
        basis (int, >= 0, default 136): low frequencies in which teachers see images and votes are cast; 0: pixels
        warm_steps (int, >= 0, default 20): steps of each teacher before the first vote
        teacher_steps (int, >= 0, default 4): steps of each teacher before each further vote
        batch_size (int, >= 1, default 16): records per step of a teacher, drawn from its shard
        lr (float, > 0, default 0.003): learning rate of the teachers (Adam)
        start (str, means | none, default 'means'): what the generator starts from: paid class means, or nothing
        start_steps (int, >= 0, default 400): steps that teach the generator the class means
        budget_share (float, > 0, < 1, default 0.1): part of the budget that class means take
        generator (str, mlp | deconv, default 'mlp'): network: fully connected or convolutions
        generator_width (int, >= 1, default: derived): units of two hidden layers (default 128), or channels before the last convolution (16)
        generator_lr (float, > 0, default 0.0005): learning rate of the generator (Adam)
        ema_decay (float, >= 0, < 1, default 0.9): exponential average of the generator's weights; 0: none
        snapshots (int, >= 1, default 3): generators kept from the second half of the training
        latent_dim (int, >= 1, default 30): length of the latent code
        length (float, > 0, default 3.0): how far an image moves in the first step, mean L2 norm; falls to 0
        inner_steps (int, >= 1, default 3): steps of the generator towards the moved images
        entries (int, >= 1, <= 1.04858e+06, default 20): entries of an image's direction whose signs a teacher says
        threshold (float, >= 0, <= 1, default 0.0): part of the teachers that must agree on an entry; 0: all are read
    """

    def __init__(
        self,
        *,
        shards: int | None = None,
        images: int = 50,
        steps: int = 60,
        critic: Literal["mlp", "conv"] = "mlp",
        width: int | None = None,
        basis: int = 136,
        warm_steps: int = 20,
        teacher_steps: int = 4,
        batch_size: int = 16,
        lr: float = 0.003,
        start: Literal["means", "none"] = "means",
        start_steps: int = 400,
        budget_share: float = 0.1,
        generator: Literal["mlp", "deconv"] = "mlp",
        generator_width: int | None = None,
        generator_lr: float = 0.0005,
        ema_decay: float = 0.9,
        snapshots: int = 3,
        latent_dim: int = 30,
        length: float = 3.0,
        inner_steps: int = 3,
        entries: int = 20,
        threshold: float = 0.0,
    ) -> None: ...

class DPDiffusion(_DPDiffusion):
    r"""Small diffusion model by DP-SGD, several noise draws per record.

    Parameters:
        network (str, perceptron | unet, default 'perceptron'): layers over low frequencies, or a U-Net
        frequencies (int, >= 1, default 100): perceptron: how many low frequencies an image is made of
        width (int, >= 4, default: derived): of the perceptron's layers, default 128, or 256 where epsilon N reaches 200,000; channels of the U-Net's finest level, default 16
        blocks (int, >= 0, <= 8, default: derived): residual blocks, default 0, or 1 where epsilon N reaches 200,000; of the U-Net: per level, on each side, default 1
        embedding_dim (int, >= 4, default: derived): width of the embedding of the noise level, default 32; U-Net: and of the class, default 64
        levels (int, >= 1, <= 5, default 2): U-Net: levels, each of half the side and, from the second, twice the channels
        attention (bool, default False): U-Net: self-attention on the coarsest level
        patch_size (int, >= 1, <= 16, default: derived): U-Net: side of the square of pixels that is one position; default 2, or 4 for sides above 40
        class_maps (int, >= 0, <= 64, default 8): U-Net: learned pictures of each class that enter the network beside the image
        across (int, >= 0, default 64): U-Net: hidden width of the layer that joins all positions of the coarsest level; 0: none
        norm (str, whole | group, default 'whole'): U-Net: normalisation, one group without parameters, or GroupNorm
        parameterisation (str, edm | v, default 'edm'): what the network predicts, and at which noise levels
        p_mean (float, >= -10, <= 10, default: derived): mean of the log noise level in training, for edm; default 0
        p_std (float, > 0, <= 10, default: derived): standard deviation of the log noise level in training, for edm; default 1.2
        batch_size (int, >= 1, default: derived): expected records per step; default 2048, or N / 8 if that is less
        steps (int, >= 1, default 400): noisy gradients
        noise_multiplicity (int, >= 1, default 16): noise multiplicity K: draws per record, averaged before clipping
        clip_norm (float, > 0, default 0.1): largest L2 norm C of one unit's gradient; nearly all are longer
        lr (float, > 0, default 0.01): top learning rate of Adam
        lr_schedule (str, cosine | none, default 'cosine'): learning rate: to 0 by a cosine, or constant
        ema_decay (float, >= 0, < 1, default 0.97): decay of the exponential average of the weights
        label_dropout (float, >= 0, <= 1, default: derived): probability that a record is trained without its class; default 0.1 with guidance, else 0
        shift (int, >= 0, <= 64, default 0): augmentation: each noise draw is of an image shifted by up to this many pixels
        flip (bool, default False): augmentation: mirrored with probability 1/2
        sampler (str, ddim | stochastic | ancestral | churn, default 'ancestral'): how images are drawn
        sampling_steps (int, >= 1, default 50): noise levels an image is drawn through
        s_churn (float, >= 0, default 10.0): S_churn of the churn sampler
        s_min (float, >= 0, default 0.05): S_min, the lowest noise level that is churned
        s_max (float, >= 0, default 50.0): S_max, the highest noise level that is churned
        guidance_scale (float, >= 0, default 0.0): weight of classifier-free guidance
    """

    def __init__(
        self,
        *,
        network: Literal["perceptron", "unet"] = "perceptron",
        frequencies: int = 100,
        width: int | None = None,
        blocks: int | None = None,
        embedding_dim: int | None = None,
        levels: int = 2,
        attention: bool = False,
        patch_size: int | None = None,
        class_maps: int = 8,
        across: int = 64,
        norm: Literal["whole", "group"] = "whole",
        parameterisation: Literal["edm", "v"] = "edm",
        p_mean: float | None = None,
        p_std: float | None = None,
        batch_size: int | None = None,
        steps: int = 400,
        noise_multiplicity: int = 16,
        clip_norm: float = 0.1,
        lr: float = 0.01,
        lr_schedule: Literal["cosine", "none"] = "cosine",
        ema_decay: float = 0.97,
        label_dropout: float | None = None,
        shift: int = 0,
        flip: bool = False,
        sampler: Literal["ddim", "stochastic", "ancestral", "churn"] = "ancestral",
        sampling_steps: int = 50,
        s_churn: float = 10.0,
        s_min: float = 0.05,
        s_max: float = 50.0,
        guidance_scale: float = 0.0,
    ) -> None: ...

class DPFETA(_DPFETA):
    r"""Noisy class summaries first, then a diffusion model by DP-SGD.

    Parameters:
        network (str, perceptron | unet, default 'perceptron'): layers over low frequencies, or a U-Net
        frequencies (int, >= 1, default 136): perceptron: how many low frequencies an image is made of
        width (int, >= 4, default: derived): of the perceptron's layers, default 128, or 256 where epsilon N reaches 200,000; channels of the U-Net's finest level, default 16
        blocks (int, >= 0, <= 8, default: derived): residual blocks, default 0, or 1 where epsilon N reaches 200,000; of the U-Net: per level, on each side, default 1
        embedding_dim (int, >= 4, default: derived): width of the embedding of the noise level, default 32; U-Net: and of the class, default 64
        levels (int, >= 1, <= 5, default 2): U-Net: levels, each of half the side and, from the second, twice the channels
        attention (bool, default False): U-Net: self-attention on the coarsest level
        patch_size (int, >= 1, <= 16, default: derived): U-Net: side of the square of pixels that is one position; default 2, or 4 for sides above 40
        class_maps (int, >= 0, <= 64, default 8): U-Net: learned pictures of each class that enter the network beside the image
        across (int, >= 0, default 64): U-Net: hidden width of the layer that joins all positions of the coarsest level; 0: none
        norm (str, whole | group, default 'whole'): U-Net: normalisation, one group without parameters, or GroupNorm
        parameterisation (str, edm | v, default 'edm'): what the network predicts, and at which noise levels
        p_mean (float, >= -10, <= 10, default: derived): mean of the log noise level in training, for edm; default 0
        p_std (float, > 0, <= 10, default: derived): standard deviation of the log noise level in training, for edm; default 1.2
        batch_size (int, >= 1, default: derived): expected records per step; default 2048, or N / 8 if that is less
        steps (int, >= 1, default 400): noisy gradients
        noise_multiplicity (int, >= 1, default 16): noise multiplicity K: draws per record, averaged before clipping
        clip_norm (float, > 0, default 0.1): largest L2 norm C of one unit's gradient; nearly all are longer
        lr (float, > 0, default 0.005): top learning rate of Adam
        lr_schedule (str, cosine | none, default 'cosine'): learning rate: to 0 by a cosine, or constant
        ema_decay (float, >= 0, < 1, default 0.97): decay of the exponential average of the weights
        label_dropout (float, >= 0, <= 1, default: derived): probability that a record is trained without its class; default 0.1 with guidance, else 0
        shift (int, >= 0, <= 64, default 0): augmentation: each noise draw is of an image shifted by up to this many pixels
        flip (bool, default False): augmentation: mirrored with probability 1/2
        sampler (str, ddim | stochastic | ancestral | churn, default 'ancestral'): how images are drawn
        sampling_steps (int, >= 1, default 30): noise levels an image is drawn through
        s_churn (float, >= 0, default 10.0): S_churn of the churn sampler
        s_min (float, >= 0, default 0.05): S_min, the lowest noise level that is churned
        s_max (float, >= 0, default 50.0): S_max, the highest noise level that is churned
        guidance_scale (float, >= 0, default 0.0): weight of classifier-free guidance
        warm_start (str, central | mode | moments, default 'moments'): what is bought first
        budget_share (float, > 0, < 1, default: derived): part of the budget for the warm start; default 0.1, or 0.3 for moments
        queries (int, >= 1, <= 10000, default 5): central images per class
        query_sample_rate (float, > 0, <= 1, default 0.1): part of the records in one query for central images
        grey_levels (int, >= 2, <= 256, default 2): grey levels that the mode is chosen from
        entry_sigma (float, > 0.002, <= 80, default 2.0): noise level at which images of moments enter the sampler, and below which it is trained; 80: pure noise
        warm_steps (int, >= 1, default 1000): pre-training steps; they cost no privacy
        warm_batch_size (int, >= 1, default 1024): images per pre-training step
        warm_lr (float, > 0, default 0.005): top learning rate of pre-training
    """

    def __init__(
        self,
        *,
        network: Literal["perceptron", "unet"] = "perceptron",
        frequencies: int = 136,
        width: int | None = None,
        blocks: int | None = None,
        embedding_dim: int | None = None,
        levels: int = 2,
        attention: bool = False,
        patch_size: int | None = None,
        class_maps: int = 8,
        across: int = 64,
        norm: Literal["whole", "group"] = "whole",
        parameterisation: Literal["edm", "v"] = "edm",
        p_mean: float | None = None,
        p_std: float | None = None,
        batch_size: int | None = None,
        steps: int = 400,
        noise_multiplicity: int = 16,
        clip_norm: float = 0.1,
        lr: float = 0.005,
        lr_schedule: Literal["cosine", "none"] = "cosine",
        ema_decay: float = 0.97,
        label_dropout: float | None = None,
        shift: int = 0,
        flip: bool = False,
        sampler: Literal["ddim", "stochastic", "ancestral", "churn"] = "ancestral",
        sampling_steps: int = 30,
        s_churn: float = 10.0,
        s_min: float = 0.05,
        s_max: float = 50.0,
        guidance_scale: float = 0.0,
        warm_start: Literal["central", "mode", "moments"] = "moments",
        budget_share: float | None = None,
        queries: int = 5,
        query_sample_rate: float = 0.1,
        grey_levels: int = 2,
        entry_sigma: float = 2.0,
        warm_steps: int = 1000,
        warm_batch_size: int = 1024,
        warm_lr: float = 0.005,
    ) -> None: ...

class PrivateEvolution(_PrivateEvolution):
    r"""Public candidates, which private images vote for.

    Parameters:
        public (str, default: derived): public set, by name (glyphs, dead-leaves, mnist, ...) or path; needed
        votes (int, >= 1, <= 50, default 4): rounds of voting
        candidates (int, >= 1, <= 10000, default: derived): candidates a class; default N / (2.5 K noise_multiplier), from 8 to 1000
        features (str, network | pixels | edges | scattering, default 'network'): what distances are of: features of a small network that tells apart what the simulator makes, or fixed ones
        network_steps (int, >= 1, default 1500): steps of that network's training, on what the simulator makes
        threshold (float, >= 0, <= 10, default 1.0): what is taken from each count, in standard deviations of its noise
        start (float, > 0, <= 1, default 0.3): degree of the variations after the first vote, from 0 to 1
        end (float, > 0, <= 1, default 0.15): degree of those that are drawn; between, by a geometric rule
    """

    def __init__(
        self,
        *,
        public: str | None = None,
        votes: int = 4,
        candidates: int | None = None,
        features: Literal["network", "pixels", "edges", "scattering"] = "network",
        network_steps: int = 1500,
        threshold: float = 1.0,
        start: float = 0.3,
        end: float = 0.15,
    ) -> None: ...

class DPMI(_DPMI):
    r"""Private models of codes in a public model.

    Parameters:
        public (str, default: derived): public set, by name (mnist-odd, glyphs, ...) or path; needed
        labelling (str, default: derived): labelled public set, whose classifier names classes; without it private labels are used
        public_model (str, wgan | wgan-gp | ae | conv-ae, default 'ae'): what learns from the public set
        latents (str, encoder | gradient, default 'gradient'): how an image becomes a code
        private_model (str, gan | vae | moments, default 'vae'): what learns the codes under the budget
        latent_dim (int, >= 1, <= 4096, default 100): dimension of the public model's code
        code_dim (int, >= 1, <= 4096, default 50): directions of the code that private models see, at most latent_dim
        public_hidden_dim (int, >= 1, <= 65536, default 128): units of the public model's fully connected layers
        public_steps (int, >= 1, default 3000): steps in which the public model learns
        public_batch_size (int, >= 1, default 128): public images a step
        iterations (int, >= 1, <= 100000, default 100): of the inversion, the same for all records
        inversion_lr (float, > 0, <= 10, default 0.1): first step size of the inversion, in deviations of the public prior
        reach (float, > 0, <= 10, default 2.0): radius of codes, in units of the root of their dimension
        activation (str, leaky-relu | relu | silu | tanh | tempered-sigmoid, default 'tanh'): of the private networks that see codes
        hidden_dim (int, >= 1, <= 65536, default 64): units of the private networks' hidden layers
        private_latent_dim (int, >= 1, <= 4096, default 32): dimension of the private model's own code
        prior (str, released | normal, default 'released'): vae: its codes are drawn from paid Gaussians, or from N(0, I)
        plain (bool, default False): vae: nothing but gradients, without sums for where it starts
        clip_norm (float, > 0, default 1.0): L2 bound of a unit's gradient
        batch_size (int, >= 1, default: derived): expected units a step; default that of the private model's method
        steps (int, >= 1, default: derived): private steps; default those of the private model's method
        lr (float, > 0, <= 1, default: derived): learning rate of the private model; default that of its method
        n_components (int, >= 1, <= 64, default: derived): Gaussians a class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16
    """

    def __init__(
        self,
        *,
        public: str | None = None,
        labelling: str | None = None,
        public_model: Literal["wgan", "wgan-gp", "ae", "conv-ae"] = "ae",
        latents: Literal["encoder", "gradient"] = "gradient",
        private_model: Literal["gan", "vae", "moments"] = "vae",
        latent_dim: int = 100,
        code_dim: int = 50,
        public_hidden_dim: int = 128,
        public_steps: int = 3000,
        public_batch_size: int = 128,
        iterations: int = 100,
        inversion_lr: float = 0.1,
        reach: float = 2.0,
        activation: Literal["leaky-relu", "relu", "silu", "tanh", "tempered-sigmoid"] = "tanh",
        hidden_dim: int = 64,
        private_latent_dim: int = 32,
        prior: Literal["released", "normal"] = "released",
        plain: bool = False,
        clip_norm: float = 1.0,
        batch_size: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        n_components: int | None = None,
    ) -> None: ...
