"""What the autoencoder methods are made of: parameters, paid statistics, and the loop of clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average, descend
from veilset.methods.base import State
from veilset.methods.stages import Asked
from veilset.networks.activations import NAMES
from veilset.networks.dct import half, low_frequencies, whole
from veilset.networks.precision import fast
from veilset.networks.vae import VAE, Frame
from veilset.privacy.spec import Privacy

COUNT = 0.3  # the constant that counts units, relative to the bound beside it
CODES = 10  # codes drawn per record, for the evidence lower bound
RADIUS = 0.6  # images are clipped to this norm in units of sqrt(C H W) when class means are taken
SPREAD = 0.22  # about the norm of an image's offset from its class mean, in the same units
FREQUENCIES = 136  # those with u + v < 16: what principal directions are made of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Parameters of every autoencoder method."""

    network: str = option("dense", "dense layers, or convolutions (needs basis pixels)", choices=("dense", "conv"))
    hidden_dim: int = option(
        128, "width of the dense hidden layer, or channels of the last convolution", ge=1, le=65536
    )
    latent_dim: int = option(32, "dimension of the latent code", ge=1, le=4096)
    activation: str = option("tanh", "between layers; tempered-sigmoid has scale 1.58, temperature 3", choices=NAMES)
    basis: str = option(
        "principal",
        "what images are described by: principal directions (a paid sum), lowest frequencies, or pixels",
        choices=("principal", "cosine", "pixels"),
    )
    basis_size: int = option(64, "how many principal directions or frequencies", ge=1, le=100_000)
    centre: bool = option(True, "start the decoder from noisy means (a paid sum) instead of from grey")
    linear: bool = option(True, "start from the linear autoencoder of principal directions, if that is the basis")
    likelihood: str = option("gaussian", "likelihood of a pixel given its code", choices=("bernoulli", "gaussian"))
    pixel_std: float = option(
        0.2, "standard deviation of the gaussian likelihood, in units of the pixel range", gt=0, le=10
    )
    batch_size: int | None = option(None, "expected units per step; default N / 25, from 256 to 4096, at most N", ge=1)
    steps: int | None = option(None, "steps; default 100 epsilon, from 300 to 1500", ge=1)
    epochs: float | None = option(None, "instead of steps: how often a unit is used on average", gt=0)
    lr: float = option(3e-3, "top learning rate of Adam", gt=0, le=1)
    lr_schedule: str = option("cosine", "learning rate: to 0 by a cosine, or constant", choices=("cosine", "constant"))
    clip_norm: float = option(1.0, "L2 bound of a unit's gradient over all weights", gt=0)
    ema_decay: float = option(0.98, "decay of the exponential average of the weights; 0: none", ge=0, lt=1)
    n_components: int | None = option(
        None, "Gaussians of codes per class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16", ge=1, le=64
    )
    sample_pixels: bool = option(False, "draw every pixel from its likelihood instead of giving its mean")


@dataclass(frozen=True, kw_only=True)
class Variational(Options):
    """Parameters of the variational ones."""

    kl_weight: float = option(1.0, "weight of the divergence of codes from N(0, I)", ge=0, le=1000)
    kl_warmup: float = option(0.2, "part of the steps in which kl_weight rises from 0", ge=0, le=1)
    latent_samples: int = option(1, "codes drawn per record and step, averaged before clipping", ge=1, le=1000)
    latent_prior: str = option(
        "released", "images are decoded from a paid Gaussian a class, or from N(0, I)", choices=("released", "normal")
    )


PLAIN = {  # an autoencoder on pixels as in the literature: no paid sums, nothing but gradients
    "basis": "pixels", "centre": False, "linear": False, "likelihood": "bernoulli", "hidden_dim": 256,
    "activation": "relu", "batch_size": 128, "lr_schedule": "constant", "ema_decay": 0.0,
}  # fmt: skip
PLAIN_VAE = PLAIN | {"kl_warmup": 0.0, "latent_prior": "normal"}


def schedule(c: Options, info: PublicInfo, privacy: Privacy) -> tuple[int, int]:
    """(expected batch, steps) from the parameters, or else from declared facts."""
    batch = min(info.units, c.batch_size or min(4096, max(256, info.units // 25)))
    if c.steps is not None:
        return batch, c.steps
    if c.epochs is not None:
        return batch, max(1, round(c.epochs * info.units / batch))
    return batch, round(min(1500.0, max(300.0, 100 * privacy.epsilon)))


def clip_of(info: PublicInfo) -> float:
    """The L2 bound of an image when means are taken."""
    return RADIUS * math.sqrt(info.pixels)


# ---------------------------------------------------------------------- paid statistics


def frame(gate: Asked, info: PublicInfo, c: Options, *, rows: int, device: str) -> Frame:
    """Ask for the means and the principal directions, if planned, and build the public frame of the networks.

    Args:
        gate: with the releases "mean" and "spread", as far as the parameters need them.
        info, c: declared facts, parameters.
        rows: K for a mean image per class, 1 for one of all classes.
        device: where it is used.
    """
    low = low_frequencies(info.shape, FREQUENCIES if c.basis == "principal" else c.basis_size).to(device)
    centre = torch.zeros(rows, info.pixels)
    if c.centre:
        fine = low_frequencies(info.shape, FREQUENCIES)
        centre = _means(gate, info, fine, rows)
    basis, scale = None, None
    if c.basis == "cosine":
        basis, scale = low, SPREAD * math.sqrt(info.pixels) * _spectrum(len(low))
    if c.basis == "principal":
        there, inside = centre.to(device), rows > 1

        def products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            r = low @ (x.flatten() - there[y if inside else y * 0])
            return half(r / r.norm().clamp_min(1e-6))

        release = gate.release("spread")
        spread = whole(gate.sum("spread", products).float(), len(low)) / info.units
        basis, scale = _principal(spread, low.cpu(), c.basis_size, release.noise_multiplier / info.units)
        scale *= SPREAD * math.sqrt(info.pixels)
    return Frame(centre, basis, scale, c.likelihood == "bernoulli").to(device)


def _means(gate: Asked, info: PublicInfo, basis: torch.Tensor, rows: int) -> torch.Tensor:
    """Noisy mean images [rows, P], smooth and within [0, 1]: sums of clipped coordinates and of a constant."""
    bound = clip_of(info)

    def clipped(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r = basis.to(x.device) @ x.flatten()
        return torch.cat([r * (bound / r.norm().clamp_min(bound)), r.new_full((1,), COUNT * bound)])

    answer = gate.sum("mean", clipped, by_class=rows > 1).float().reshape(rows, -1)
    expected = info.units / rows
    count = (answer[:, -1] / (COUNT * bound)).clamp(expected / 4, expected * 4)
    return ((answer[:, :-1] / count[:, None]) @ basis).clamp(0, 1)


def _spectrum(size: int) -> torch.Tensor:
    """Public guess of how far images spread along the lowest frequencies, of root mean square 1 / sqrt(size)."""
    fall = 1 / (1 + torch.arange(size).mul(2).sqrt() / 3)
    return fall / fall.norm()


def _principal(spread: torch.Tensor, low: torch.Tensor, size: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The first principal directions [size, P] of a noisy matrix in the basis `low`, and their deviations [size]."""
    values, axes = torch.linalg.eigh(spread)
    kept = values.flip(0)[:size] - noise * math.sqrt(len(spread) / 2)  # half the edge of the noise's semicircle
    floor = max(float(kept.max()), 1e-6) / 1000
    return axes.flip(1)[:, :size].T @ low, kept.clamp_min(floor).sqrt()


# ---------------------------------------------------------------------- networks and training


def network(c: Options, info: PublicInfo, public: Frame, *, classes: int, variational: bool = True) -> VAE:
    """The autoencoder of a set of parameters, told about `classes` classes (1: not told)."""
    linear = c.pixel_std if c.linear and c.basis == "principal" and c.likelihood == "gaussian" else 0.0
    net = VAE(
        info.shape, classes, c.latent_dim, public, hidden=c.hidden_dim, act=c.activation, conv=c.network == "conv",
        linear=linear, variational=variational,
    )  # fmt: skip
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Weight:
    """The weight of the divergence, which rises from 0 in the first part of the steps."""

    def __init__(self, top: float, steps: float):
        self.top, self.steps, self.now = top, steps, 0.0

    def at(self, step: int) -> None:
        """Set it for a step."""
        self.now = self.top * min(1.0, (step + 1) / max(self.steps, 1.0))


def loss_of(c: Options, weight: Weight, *, draws: int = 1, told: bool = True) -> Callable[..., torch.Tensor]:
    """The negative evidence lower bound of one record, summed over pixels and averaged over its draws of the code.

    Args:
        c: parameters.
        weight: of the divergence, at the present step.
        told: the networks are told the record's class; otherwise they get 0.

    Returns:
        A loss whose fourth argument holds the draws "code" [draws, latent]; without it, that of the mean code.
    """
    bernoulli = c.likelihood == "bernoulli"

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor, own: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        e = own["code"] if own else torch.zeros(draws, c.latent_dim, device=x.device)
        got, wanted, mean, log_variance = net(x[None], (y if told else y * 0)[None], e)
        wanted = wanted.expand(draws, -1)
        if bernoulli:
            error = F.binary_cross_entropy_with_logits(got, wanted, reduction="none")
        else:
            error = (got - wanted).square() / (2 * c.pixel_std**2)
        if weight.top == 0:
            return error.sum() / draws
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        return error.sum() / draws + weight.now * divergence

    return loss


def train(
    gate: Asked, net: VAE, c: Options, *, part: int | None = None, told: bool = True, factor: float = 1.0
) -> State:
    """The loop of clipped gradients of release "gradient"; returns the averaged weights.

    Args:
        gate: with that release planned.
        net: what is trained, in place.
        c: parameters.
        part: which class, if the release is partitioned.
        told: the network is told the class.
        factor: on gradients, which `gate.grad` divides by the units of all classes even if only one is trained on.
    """
    steps = gate.release("gradient").steps
    weight = Weight(
        getattr(c, "kl_weight", 0.0), getattr(c, "kl_warmup", 0.0) * steps
    )  # plain autoencoders have neither
    draws = getattr(c, "latent_samples", 1)
    loss, own = loss_of(c, weight, draws=draws, told=told), {"code": (draws, c.latent_dim)} if net.variational else None
    adam = torch.optim.Adam(net.parameters(), c.lr)
    mean = average(net, c.ema_decay)
    for t in gate.loop("gradient", {"net": net, "adam": adam, "mean": mean}, part=part):
        weight.at(t)
        warm = min(1.0, (t + 1) / 20)  # steps of Adam before its averages are worth something
        fall = 0.5 + 0.5 * math.cos(math.pi * t / steps) if c.lr_schedule == "cosine" else 1.0
        adam.param_groups[0]["lr"] = c.lr * warm * fall
        with fast(c.network == "conv"):
            grads = gate.grad("gradient", loss, net, part=part, draws=own)
        descend(adam, net, {k: g * factor for k, g in grads.items()})
        mean.update_parameters(net)
    return dict(mean.module.state_dict())


# ---------------------------------------------------------------------- samples


def seen(image: torch.Tensor, c: Options) -> torch.Tensor:
    """Decoded images as they are given: the mean of every pixel, or a draw from its likelihood."""
    if not c.sample_pixels:
        return image.clamp(0, 1)
    if c.likelihood == "bernoulli":
        return torch.bernoulli(image.clamp(0, 1))
    return (image + c.pixel_std * torch.randn_like(image)).clamp(0, 1)


# ---------------------------------------------------------------------- what attacks measure


def lower_bound(c: Options, net: VAE, x: torch.Tensor, y: torch.Tensor) -> State:
    """elbo, the evidence lower bound (mean of CODES codes), and reconstruction, of the mean code: each [n].

    Codes that are points have a reconstruction only.
    """
    mean, log_variance = net.encode(x, y)
    if not net.variational:
        return {"reconstruction": -error(c, net.decode(mean, y), x)}
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
    loss = torch.zeros(len(x))
    for _ in range(CODES):
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape)
        loss += error(c, net.decode(z, y), x) / CODES
    return {"elbo": -(loss + divergence), "reconstruction": -error(c, net.decode(mean, y), x)}


def error(c: Options, decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Minus the log likelihood of pixels, up to a constant: [n]."""
    if c.likelihood == "bernoulli":
        each = F.binary_cross_entropy(decoded.clamp(1e-5, 1 - 1e-5), x, reduction="none")
    else:
        each = (decoded - x).square() / (2 * c.pixel_std**2)
    return each.flatten(1).sum(1)
