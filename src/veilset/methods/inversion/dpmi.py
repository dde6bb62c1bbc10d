"""DPMI: a public model of public images, private images as its codes, and a small private model of the codes.

Paper: D. Chen, Cheung, Chuah, Ozonoff 2021, arXiv 2201.03139 (DPMI, here `wgan-gan`); five variants of it, with
autoencoders and with VaeGM (Q. Chen et al. 2018, arXiv 1812.02274), are recipes too, and a seventh, by moments.
Idea: a code has far fewer numbers than an image and a simpler distribution, so that a model of codes needs fewer
weights and steps, and noise does less harm. Drawn codes are decoded by the public model, which costs nothing.

Three choices:
  public_model   wgan, wgan-gp: a generator, with limited critic weights or a gradient penalty; ae, conv-ae: an
                 autoencoder
  latents        encoder: the public encoder's code; gradient: the code whose image is nearest, found by projected
                 gradients in the public decoder
  private_model  gan: the critic and generator of `dp-gan`; vae: the autoencoder of `dp-cvae`; moments: a few Gaussians
                 a class, by noisy sums

Private access: that of `dp-gan`, `dp-cvae`, or the sums "codes", "cells" and "within" of codes. Each code follows from
its own image and from public data alone: so many iterations for all, each record stopping by itself, all starting from
one public constant; then whitened by moments of public codes and clipped to a public radius. So one image more or less
is one code more or less. The public model learns before records are opened.

Public data: needed. With `labelling`, a labelled public set, private labels are not used: a classifier that learned
from that set names the classes of drawn images, as in the published experiments.

Differs from the papers and their code:
  * The published code inverts 400 images with one loss, one step size and one rule when to stop: one image then moves
    the codes of 399 others, and its epsilon is none. Starts are random there.
  * Whitening, the clipping of codes, and private models that also buy a few sums (those of `dp-cvae`): without these
    most variants collapse at epsilon 10. Recipe "paper" is the published private model: gradients alone.
  * Private models may use private labels, whose classes they are told; then no image needs a classifier's label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.data.public_set import NAMES, PublicSet, open_public
from veilset.learning.cells import draw
from veilset.methods.base import State, Synthesizer
from veilset.methods.gan.dp_gan import DPGAN
from veilset.methods.inversion.codes import SHOWN, SPAN, Code, Coded, coded
from veilset.methods.inversion.public_models import KINDS, LABELLED, PublicModel, labeller, learned
from veilset.methods.latent import density
from veilset.methods.latent.common import SHARES
from veilset.methods.latent.dp_cvae import DPCVAE
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged, learned_by, named
from veilset.networks.activations import NAMES as ACTIVATIONS
from veilset.networks.classifiers import CNN
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

POOL = 4  # images drawn for each that is wanted, where a classifier chooses by class
PUBLIC, LABELS = "public", "labels"  # of the parts that ask nothing


@dataclass(frozen=True, kw_only=True)
class Config:
    public: str | None = option(None, "public set, by name (mnist-odd, glyphs, ...) or path; needed")
    labelling: str | None = option(
        None, "labelled public set, whose classifier names classes; without it private labels are used"
    )
    public_model: str = option("ae", "what learns from the public set", choices=KINDS)
    latents: str = option("gradient", "how an image becomes a code", choices=("encoder", "gradient"))
    private_model: str = option("vae", "what learns the codes under the budget", choices=("gan", "vae", "moments"))
    latent_dim: int = option(100, "dimension of the public model's code", ge=1, le=4096)
    code_dim: int = option(50, "directions of the code that private models see, at most latent_dim", ge=1, le=4096)
    public_hidden_dim: int = option(128, "units of the public model's fully connected layers", ge=1, le=65536)
    public_steps: int = option(3000, "steps in which the public model learns", ge=1)
    public_batch_size: int = option(128, "public images a step", ge=1)
    iterations: int = option(100, "of the inversion, the same for all records", ge=1, le=100_000)
    inversion_lr: float = option(
        0.1, "first step size of the inversion, in deviations of the public prior", gt=0, le=10
    )
    reach: float = option(2.0, "radius of codes, in units of the root of their dimension", gt=0, le=10)
    activation: str = option("tanh", "of the private networks that see codes", choices=ACTIVATIONS)
    hidden_dim: int = option(64, "units of the private networks' hidden layers", ge=1, le=65536)
    private_latent_dim: int = option(32, "dimension of the private model's own code", ge=1, le=4096)
    prior: str = option(
        "released", "vae: its codes are drawn from paid Gaussians, or from N(0, I)", choices=("released", "normal")
    )
    plain: bool = option(False, "vae: nothing but gradients, without sums for where it starts")
    clip_norm: float = option(1.0, "L2 bound of a unit's gradient", gt=0)
    batch_size: int | None = option(None, "expected units a step; default that of the private model's method", ge=1)
    steps: int | None = option(None, "private steps; default those of the private model's method", ge=1)
    lr: float | None = option(None, "learning rate of the private model; default that of its method", gt=0, le=1)
    n_components: int | None = option(
        None, "Gaussians a class; default 0.1 / sqrt(noise_multiplier K / N), from 1 to 16", ge=1, le=64
    )


def _variant(public: str, latents: str, private: str) -> dict[str, str]:
    return {"public_model": public, "latents": latents, "private_model": private}


class DPMI(Staged, Synthesizer):
    """Private models of codes in a public model."""

    name = "dpmi"
    public_data = "needed"
    Config = Config
    recipes: ClassVar = {
        "wgan-gan": _variant("wgan-gp", "gradient", "gan"),
        "wgan-vae": _variant("wgan-gp", "gradient", "vae"),
        "ae-enc-gan": _variant("ae", "encoder", "gan"),
        "ae-enc-vae": _variant("ae", "encoder", "vae"),
        "ae-grad-gan": _variant("ae", "gradient", "gan"),
        "ae-grad-vae": _variant("ae", "gradient", "vae"),
        "ae-grad-moments": _variant("ae", "gradient", "moments"),
        "paper": _variant("ae", "gradient", "vae")
        | {"prior": "normal", "plain": True, "clip_norm": 0.1, "batch_size": 64, "steps": 48000, "lr": 0.005},
    }

    # ------------------------------------------------------------------ what is public

    def opened(self, field: str) -> PublicSet:
        source = getattr(self.config, field)
        if source is None:
            raise ConfigError(
                f"{field}: {self.name} starts from a model of public images; give --{field} NAME or PATH "
                f"({', '.join(NAMES)}, or a set that is declared public)"
            )
        return open_public(str(source))

    def _prepare(self, info: PublicInfo) -> None:
        self.code(info)
        if self.config.labelling:
            labeller(self.opened("labelling"), info.shape, info.classes)

    def code(self, info: PublicInfo) -> Code:
        """The map of one image, of public data alone."""
        c = self.config
        how = {"latent": c.latent_dim, "hidden": c.public_hidden_dim, "steps": c.public_steps}
        return made(self.opened("public"), info.shape, c.public_model, (*how.items(), ("batch", c.public_batch_size)),
                    tuple(self._inversion().items()))  # fmt: skip

    def _inversion(self) -> dict[str, Any]:
        c = self.config
        return {
            "latents": c.latents, "iterations": c.iterations, "rate": c.inversion_lr, "reach": c.reach,
            "size": c.code_dim
        }  # fmt: skip

    def _restored_code(self, info: PublicInfo, state: State) -> Code:
        c = self.config
        code = Code(PublicModel(c.public_model, info.shape, c.latent_dim, c.public_hidden_dim), self._inversion())
        code.load_state_dict(learned_by(PUBLIC, state))
        return code.eval()

    # ------------------------------------------------------------------ what is private

    def _inner(self) -> Staged | None:
        """The method that learns codes as if they were images; None: moments."""
        c = self.config
        own = {"clip_norm": c.clip_norm, "activation": c.activation, "latent_dim": c.private_latent_dim}
        own |= {k: v for k in ("batch_size", "steps", "lr") if (v := getattr(c, k)) is not None}
        if c.private_model == "gan":
            return DPGAN(width=c.hidden_dim, basis=0, **own)
        if c.private_model == "vae":
            own |= {"hidden_dim": c.hidden_dim, "latent_prior": c.prior, "n_components": c.n_components}
            own |= {"basis": "principal", "basis_size": min(64, c.code_dim)}
            plain = {"basis": "pixels", "centre": False, "linear": False, "ema_decay": 0.0}
            return DPCVAE(**own | (plain if c.plain else {}))
        return None

    def _coded(self, info: PublicInfo) -> PublicInfo:
        return coded(info, self.config.code_dim, told=self.config.labelling is None)

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        c = self.config
        self._check()
        of_codes, inner = self._coded(info), self._inner()
        if inner is None:
            parts = {"moments": Part(Moments(density.cells_of(c.n_components, of_codes, privacy)))}
        else:
            parts = inner._stages(of_codes, privacy).parts  # noqa: SLF001 of its own kind
        first = {PUBLIC: Part(Public(self), {})} | ({LABELS: Part(Labels(self), {})} if c.labelling else {})
        return Compose(
            first | {k: Part(Over(p.stage, self, of_codes), p.share) for k, p in parts.items()}, prefixed=False
        )

    def _check(self) -> None:
        c = self.config
        if c.latents == "encoder" and c.public_model.startswith("wgan"):
            raise ConfigError(
                f"latents = 'encoder': {c.public_model} has no encoder; use latents gradient, or public_model ae"
            )
        if c.code_dim > c.latent_dim:
            raise ConfigError(f"code_dim = {c.code_dim}: must be at most latent_dim = {c.latent_dim}; lower it")

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        asked = {k: v for k, v in learned.items() if k not in (PUBLIC, LABELS)}
        inner = self._inner()
        mine = asked["moments"] if inner is None else inner._kept(asked, self._coded(info))  # noqa: SLF001
        return named({PUBLIC: learned[PUBLIC], LABELS: learned.get(LABELS, {}), "private": mine})

    # ------------------------------------------------------------------ what is drawn

    def drawn(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] as the private model draws them: of the labels [n], or of all classes at once."""
        inner, of_codes, mine = self._inner(), self._coded(info), learned_by("private", state)
        told = labels if self.config.labelling is None else labels * 0
        if inner is None:
            codes = draw(mine["mean"], mine["root"], mine["part"], told)[:, None, None]
        else:
            codes = inner._sample(mine, of_codes, told)  # type: ignore[attr-defined] # noqa: SLF001
        return self._restored_code(info, state).images(codes, info.shape)

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        if self.config.labelling is None:
            return self.drawn(state, info, labels)
        x = torch.cat([self.drawn(state, info, labels) for _ in range(POOL)])
        return x[chosen(self.labels(state, info, x), labels)]

    def labels(self, state: State, info: PublicInfo, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, K] of images [n, C, H, W] in [0, 1], by the labelling classifier."""
        net = CNN(info.shape, len(info.classes)).eval()
        net.load_state_dict(learned_by(LABELS, state))
        return torch.cat([net(2 * part - 1) for part in x.split(1000)])


@cache
def made(
    images: PublicSet, shape: tuple[int, int, int], kind: str, how: tuple[Any, ...], inversion: tuple[Any, ...]
) -> Code:
    """The map that follows from public data: made once in a process."""
    with torch.random.fork_rng(devices=[]):
        code = Code(learned(kind, images, shape, dict(how)), dict(inversion))
    x, _ = images.images(shape)
    few = x[torch.linspace(0, len(x) - 1, min(len(x), SHOWN)).long()]
    code.settle(few.float() / 255)
    return code.frozen()


def chosen(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which image of a pool [m, K] stands for each of the labels [n]: those that are called so, then the likeliest."""
    out, called = torch.empty_like(labels), logits.argmax(1)
    sure = logits.log_softmax(1)
    for k in labels.unique().tolist():
        wanted = (labels == k).nonzero()[:, 0]
        mine = (called == k).nonzero()[:, 0][: len(wanted)]
        rest = len(wanted) - len(mine)
        others = sure[:, k].masked_fill(called == k, -torch.inf).topk(rest).indices
        out[wanted] = torch.cat([mine, others])
    return out


# ---------------------------------------------------------------------- stages


class Public(Stage):
    """The public model and the moments of its codes; asks nothing."""

    def __init__(self, method: DPMI):
        self.method = method

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """No release; the set that it rests on, and its time with that of the inversion."""
        c, pixels = self.method.config, info.pixels
        weights = (pixels + c.latent_dim) * c.public_hidden_dim
        each = 6e-10 * weights * c.public_batch_size * (4 if c.public_model.startswith("wgan") else 2)
        codes = c.iterations * info.units * (4e-10 * weights + 5e-6) if c.latents == "gradient" else 0.0
        declared = (self.method.opened("public").declaration,)
        return Plan((), seconds=5 + c.public_steps * (2e-3 + each) + codes, memory_mb=500, public=declared)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Weights and moments."""
        return dict(self.method.code(info).state_dict())


class Labels(Stage):
    """The labelling classifier; asks nothing."""

    def __init__(self, method: DPMI):
        self.method = method

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """No release."""
        declared = (self.method.opened("labelling").declaration,)
        return Plan((), seconds=5 + LABELLED * 5e-5 * info.pixels, memory_mb=500, public=declared)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Weights."""
        return dict(labeller(self.method.opened("labelling"), info.shape, info.classes).state_dict())


class Over(Stage):
    """A stage that was made for images, on codes.

    Args:
        stage: which.
        method: whose codes they are.
        info: of the codes.
    """

    def __init__(self, stage: Stage, method: DPMI, info: PublicInfo):
        self.stage, self.method, self.info = stage, method, info

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The stage's own, about codes."""
        return self.stage.plan(self.info, budget)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """What it learns of codes."""
        code = self.method.code(info)
        told = self.method.config.labelling is None
        return self.stage.on(self.device).fit(Coded(gate, code, self.info, told), self.info, budget, earlier)


class Moments(Stage):
    """A few Gaussians a class, of codes.

    Args:
        cells: how many.
    """

    def __init__(self, cells: int):
        self.cells = cells

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Moments, and those of cells if there is more than one."""
        names = ("codes", "cells", "within") if self.cells > 1 else ("codes",)
        rounds = {"cells": density.ROUNDS}
        return Plan(
            tuple(
                Release(
                    name=n,
                    bound=density.BOUNDS[n],
                    steps=rounds.get(n, 1),
                    weight=(rounds.get(n, 1) / SHARES[n]) ** 0.5,
                )
                for n in names
            ),
            seconds=5.0,
            memory_mb=500,
        )

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "part", "mean" and "root", see `density.fit`."""
        k = info.pixels

        def encode(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (x.flatten(1) - 0.5) * (2 * SPAN), torch.full((1, k), -torch.inf)

        state = density.fit(gate, _Plain(k), self.cells, encode)  # type: ignore[arg-type]
        return state | {"mean": state["mean"] / (2 * SPAN) + 0.5, "root": state["root"] / (2 * SPAN)}


class _Plain(nn.Module):
    """Codes as they are: every coordinate weighs the same."""

    def __init__(self, size: int):
        super().__init__()
        self.latent, self.variational = size, True

    def weights(self) -> torch.Tensor:
        return torch.full((self.latent,), 1.0)
