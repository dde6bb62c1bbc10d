"""Public models: what decodes codes to images, learned from public images alone. They cost no privacy.

Codes are in coordinates in which the public prior is N(0, I): those that a GAN's generator draws, and for an
autoencoder those in which the codes of public images have mean 0 and covariance I.

A model is kept in the user's cache under the hash of everything that decides it; one whose training was interrupted
goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from veilset.core.errors import ConfigError, RunError
from veilset.core.io import canonical, sha256, write_bytes
from veilset.core.progress import progress
from veilset.data import public
from veilset.data.public_set import PublicSet
from veilset.methods.base import State
from veilset.networks.classifiers import CNN
from veilset.networks.vae import ConvDecoder, ConvEncoder
from veilset.privacy.run.checkpoint import freeze, pack, thaw, unpack
from veilset.privacy.run.process_group import Team

KINDS = ("wgan", "wgan-gp", "ae", "conv-ae")
VERSION = 1  # of the recipes below: another number where the same facts give another model
EVERY = 500  # steps between two checkpoints
FEWEST = 16  # images that a model is learned from
CRITIC_STEPS, LIMIT, PENALTY = 3, 0.01, 10.0  # of Wasserstein GANs: a generator step, weights, gradient penalty
WIDTH, CRITIC = 32, 256  # channels of the last convolution, units of a critic
FLOOR = 1e-4  # of an autoencoder's code variances, relative to the largest
LABELLED, LABELLING_BATCH = 1000, 128  # steps of the labelling classifier, and images in each


class Decoder(nn.Module):
    """Codes to pixels in [0, 1], through two fully connected layers or through convolutions."""

    def __init__(self, shape: tuple[int, int, int], latent: int, hidden: int, conv: bool):
        super().__init__()
        pixels = math.prod(shape)
        self.conv = conv
        if conv:
            self.layers: Any = ConvDecoder(shape, latent, WIDTH, "relu")
            self.first = self.layers.first
        else:
            self.first, self.last = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[n, latent] to [n, P]."""
        return (self.layers(z) if self.conv else self.last(self.first(z).relu())).sigmoid()

    def slope(self, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The error of one code [latent] for one image [P], |decoded - x|^2 / P, and its gradient [latent].

        By hand where layers are fully connected, which takes half the time.
        """
        if self.conv:
            gradient, error = torch.func.grad_and_value(lambda v: (self(v[None])[0] - x).square().mean())(z)
            return error, gradient
        h = self.first(z)
        s = self.last(h.relu()).sigmoid()
        r = s - x
        back = (r * s * (1 - s)) @ self.last.weight
        return r.square().mean(), (2 / len(x)) * ((back * (h > 0)) @ self.first.weight)


class Encoder(nn.Module):
    """Pixels to codes."""

    def __init__(self, shape: tuple[int, int, int], latent: int, hidden: int, conv: bool):
        super().__init__()
        self.shape, self.conv = shape, conv
        if conv:
            self.layers: Any = ConvEncoder(shape, 0, WIDTH, latent, "leaky-relu")
            self.last = self.layers.last
        else:
            self.first, self.last = nn.Linear(math.prod(shape), hidden), nn.Linear(hidden, latent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, P] to [n, latent]."""
        if self.conv:
            out: torch.Tensor = self.layers(x.unflatten(1, self.shape), x[:, :0])
            return out
        return self.last(F.leaky_relu(self.first(x), 0.2))


class PublicModel(nn.Module):
    """A decoder, and an encoder where there is one.

    Args:
        kind: one of KINDS.
        shape: (C, H, W).
        latent: length of the code.
        hidden: units of fully connected layers.
    """

    def __init__(self, kind: str, shape: tuple[int, int, int], latent: int, hidden: int):
        super().__init__()
        self.kind, self.latent = kind, latent
        self.decoder = Decoder(shape, latent, hidden, kind == "conv-ae")
        self.encoder = None if kind.startswith("wgan") else Encoder(shape, latent, hidden, kind == "conv-ae")

    @torch.no_grad()
    def standardise(self, x: torch.Tensor) -> None:
        """Change an autoencoder's coordinates to those in which codes of the images x [n, P] have moments of N(0, I).

        Both ends are linear in the code, so nothing else changes; directions in which it hardly varies are kept short.
        """
        if self.encoder is None:
            return
        z = torch.cat([self.encoder(part) for part in x.split(1000)])
        mean = z.mean(0)
        values, axes = torch.linalg.eigh(torch.cov((z - mean).T))
        root = values.clamp_min(FLOOR * float(values.max())).sqrt()
        first, last = self.decoder.first, self.encoder.last
        first.bias.add_(first.weight @ mean)
        first.weight.copy_(first.weight @ (axes * root))
        last.bias.copy_((axes / root).T @ (last.bias - mean))
        last.weight.copy_((axes / root).T @ last.weight)


def learned(kind: str, images: PublicSet, shape: tuple[int, int, int], how: Mapping[str, int]) -> PublicModel:
    """A public model of public images; from the cache, if it is there.

    Args:
        kind: one of KINDS.
        images: what it learns from.
        shape: (C, H, W) that they are converted to.
        how: "latent", "hidden", "steps" and "batch".

    Raises:
        ConfigError: too few images. DataError: they cannot be converted.
    """
    model = PublicModel(kind, shape, how["latent"], how["hidden"])

    def learn() -> tuple[Mapping[str, Any], Callable[[int], None], Callable[[], None]]:
        x = _pixels(images, shape)
        game = _adversaries(model, x, how) if kind.startswith("wgan") else _autoencoder(model, x, how)
        return *game, lambda: model.standardise(x)

    facts = {"public": images.declaration.sha256, "kind": kind, "shape": list(shape), **how}
    model.load_state_dict(_kept(facts, f"public {kind}", how["steps"], model, learn))
    return model.eval().requires_grad_(False)


def labeller(images: PublicSet, shape: tuple[int, int, int], classes: tuple[str, ...]) -> nn.Module:
    """A classifier of the classes that learned from a labelled public set; images [n, C, H, W] in [-1, 1] to logits.

    Raises:
        ConfigError: the set has no image of a class.
    """
    x, names = images.images(shape)
    missing = [k for k in classes if k not in names]
    if missing:
        raise ConfigError(
            f"labelling = {images.declaration.name!r}: has no image of class {missing[0]!r}; name another set, or "
            "leave labelling out: private labels are then used, under the same budget"
        )
    number = torch.tensor([classes.index(k) if k in classes else -1 for k in names])
    net = CNN(shape, len(classes))

    def learn() -> tuple[Mapping[str, Any], Callable[[int], None], Callable[[], None]]:
        mine, y = x[number >= 0], number[number >= 0]
        adam = torch.optim.Adam(net.parameters(), 1e-3)

        def step(_: int) -> None:
            at = torch.randint(0, len(y), (LABELLING_BATCH,))
            _descend(adam, F.cross_entropy(net.train()(mine[at].float() / 127.5 - 1), y[at]))

        return {"net": net, "adam": adam}, step, lambda: None

    facts = {"public": images.declaration.sha256, "kind": "labels", "shape": list(shape), "classes": list(classes)}
    net.load_state_dict(_kept(facts, "labelling classifier", LABELLED, net, learn))
    return net.eval().requires_grad_(False)


# ---------------------------------------------------------------------- how they learn


def _pixels(images: PublicSet, shape: tuple[int, int, int]) -> torch.Tensor:
    x, _ = images.images(shape)
    if len(x) < FEWEST:
        raise ConfigError(
            f"public = {images.declaration.name!r}: has {len(x)} images: must be at least {FEWEST} to learn from; "
            "name another set"
        )
    return x.flatten(1).float() / 255


def _autoencoder(
    model: PublicModel, x: torch.Tensor, how: Mapping[str, int]
) -> tuple[dict[str, Any], Callable[[int], None]]:
    adam = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.5, 0.9))

    def step(t: int) -> None:
        adam.param_groups[0]["lr"] = 1e-3 * (1 - t / how["steps"])
        real = x[torch.randint(0, len(x), (how["batch"],))]
        assert model.encoder is not None
        _descend(adam, (model.decoder(model.encoder(real)) - real).square().mean())

    return {"model": model, "adam": adam}, step


def _adversaries(
    model: PublicModel, x: torch.Tensor, how: Mapping[str, int]
) -> tuple[dict[str, Any], Callable[[int], None]]:
    """A Wasserstein GAN: weights of the critic limited (Arjovsky et al. 2017), or its gradient (Gulrajani et al. 2017,
    equation 5 of the document)."""
    critic = nn.Sequential(nn.Linear(x.shape[1], CRITIC), nn.LeakyReLU(0.2), nn.Linear(CRITIC, 1))
    penalised, decoder = model.kind == "wgan-gp", model.decoder
    if penalised:
        ours, theirs = (torch.optim.Adam(net.parameters(), 5e-4, betas=(0.5, 0.9)) for net in (critic, decoder))
    else:
        ours, theirs = (torch.optim.RMSprop(net.parameters(), 5e-4) for net in (critic, decoder))  # type: ignore[assignment]

    def made() -> torch.Tensor:
        return decoder(torch.randn(how["batch"], model.latent))

    def step(_: int) -> None:
        for _ in range(CRITIC_STEPS):
            real, fake = x[torch.randint(0, len(x), (how["batch"],))], made().detach()
            loss = critic(fake).mean() - critic(real).mean()
            if penalised:
                between = torch.lerp(fake, real, torch.rand(len(real), 1)).requires_grad_()
                (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
                loss = loss + PENALTY * (slope.norm(dim=1) - 1).square().mean()
            _descend(ours, loss)
            if not penalised:
                with torch.no_grad():
                    for p in critic.parameters():
                        p.clamp_(-LIMIT, LIMIT)
        _descend(theirs, -critic(made()).mean())

    return {"model": model, "critic": critic, "ours": ours, "theirs": theirs}, step


def _descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


# ---------------------------------------------------------------------- the cache


def _kept(facts: Mapping[str, Any], what: str, steps: int, net: nn.Module, learn: Callable[[], Any]) -> State:
    """The weights of a net that is learned in so many steps: from the cache, or learned and kept there.

    Always the same ones for the same facts, whatever torch's random state is, which is left as it was. Of several
    processes the first one does the work.
    """
    key = sha256(canonical({"version": VERSION, "torch": torch.__version__, **facts}))
    path = public.cache("public-models") / f"{what.replace(' ', '-')}-{key[:32]}"

    def make() -> State:
        found = _read(path)
        if found is not None and found["step"] == steps:
            return dict(found["state"]["net"])
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(VERSION)
            _again(net)
            things, step, end = learn()
            begin = thaw(found, things, what) if found is not None else 0
            for t in progress(range(begin, steps), what):
                step(t)
                if (t + 1) % EVERY == 0 and t + 1 < steps:
                    _write(path, freeze(things, t + 1))
            end()
            _write(path, freeze({"net": net}, steps))
        return dict(net.state_dict())

    return Team().share(make)


def _again(net: nn.Module) -> None:
    """Initial weights by torch's generator as it is now."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()


def _read(path: Any) -> dict[str, Any] | None:
    """What is kept, or None: nothing, or a file that was cut short or changed."""
    try:
        return unpack(path.read_bytes())
    except (OSError, RunError):
        return None


def _write(path: Any, state: Mapping[str, Any]) -> None:
    """Keep it; where the cache cannot be written, it is learned anew next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, pack(state))
    except (OSError, RunError):
        pass
