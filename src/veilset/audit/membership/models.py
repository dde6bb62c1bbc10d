"""What anyone who holds a trained model can measure of a candidate, by family. Larger means more like a member.

Random draws are the same for every model (common random numbers), so that models can be compared record by record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from veilset.audit.membership.features import Candidates
from veilset.core.errors import RunError

if TYPE_CHECKING:
    from veilset.methods.base import State, Synthesizer

CODES = 10  # codes drawn a record, for the evidence lower bound
LEVELS, DRAWS = 10, 2  # noise levels and draws at each, for the denoising loss
BATCH = 1000
RIDGE = 0.05  # deviation of a pixel that is added to Gaussians

Feature = dict[str, torch.Tensor]


def model_features(model: Synthesizer, folder: Path, them: Candidates) -> Feature:
    """Features of a fitted model beyond its images, float64 [n] each; none for a family that is not known.

    dp-cvae, vae-gm: elbo (evidence lower bound, mean of 10 codes) and reconstruction (from the mean code); au-gm:
    reconstruction. dp-gan, dp-cgan: critic (score of the critic, which a release does not contain: it is read from the
    run's private folder, the stronger attacker). dp-diffusion, dp-feta: denoising (minus the weighted loss, mean of 10
    levels and 2 draws). dp-moments, taught-moments, dp-merf with cells, dp-feta: likelihood (log density of the
    Gaussian cells).

    Args:
        model: fitted.
        folder: its run folder.
        them: the candidates.

    Raises:
        RunError: a GAN whose critic is not in the folder.
    """
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        state, info = model.fitted()
        features: Feature = {}
        for measure in FAMILIES.get(model.name, ()):
            parts = []
            for i in range(0, len(them.y), BATCH):
                torch.manual_seed(i)
                parts.append(measure(model, state, info, folder, them.x[i : i + BATCH], them.y[i : i + BATCH]))
            features |= {k: torch.cat([p[k] for p in parts]).double() for k in (parts[0] if parts else {})}
    return features


# ---------------------------------------------------------------------- autoencoders


def _conditional(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """dp-cvae: one network that is told the class."""
    return _bounds(model.config, _network(model.config, info, state, len(info.classes), True), x, y)


def _by_class(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """vae-gm: one network a class."""
    out: Feature = {"elbo": torch.zeros(len(y)), "reconstruction": torch.zeros(len(y))}
    for k in y.unique().tolist():
        own = {name.split(".", 1)[1]: v for name, v in state.items() if name.startswith(f"{k}.")}
        here = y == k
        for name, v in _bounds(model.config, _network(model.config, info, own, 1, True), x[here], y[here] * 0).items():
            out[name][here] = v
    return out


def _plain(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """au-gm: a point code."""
    net = _network(model.config, info, state, 1, False)
    return {"reconstruction": -_error(model.config, net.decode(net.encode(x, y * 0)[0], y * 0), x)}


def _network(c: Any, info: Any, state: State, classes: int, variational: bool) -> Any:
    from veilset.methods.latent import autoencoders, density
    from veilset.networks.vae import Frame

    own = {k: v for k, v in state.items() if k not in density.NAMES}
    frame = Frame.like(own, logits=c.pixels == "bernoulli")
    net = autoencoders.network(c, info, frame, classes=classes, variational=variational)
    net.load_state_dict(own)
    return net


def _bounds(c: Any, net: Any, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """The evidence lower bound and the reconstruction error of images [n, C, H, W]: each [n]."""
    mean, log_variance = net.encode(x, y)
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
    loss = torch.zeros(len(x))
    for _ in range(CODES):
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape)
        loss += _error(c, net.decode(z, y), x) / CODES
    return {"elbo": -(loss + divergence), "reconstruction": -_error(c, net.decode(mean, y), x)}


def _error(c: Any, decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Minus the log likelihood of pixels, up to a constant: [n]."""
    if c.pixels == "bernoulli":
        each = F.binary_cross_entropy(decoded.clamp(1e-5, 1 - 1e-5), x, reduction="none")
    else:
        each = (decoded - x).square() / (2 * c.deviation**2)
    return each.flatten(1).sum(1)


# ---------------------------------------------------------------------- critics, denoisers, Gaussians


def _critic(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """dp-gan, dp-cgan: the score of the trained critic."""
    from veilset.networks.critics import score
    from veilset.privacy.run.run_store import RunStore

    kept = RunStore(folder).checkpoint("critic")
    if kept is None:
        raise RunError(
            f"{folder}/private/checkpoints: the critic is not there, and attacks on a GAN score candidates by it; "
            "fit again into a new folder, and attack it before `veilset data clean`"
        )
    net = model.critic(info)
    net.load_state_dict(kept["state"]["critic"])
    return {"critic": score(net(x, y).float(), y)}


def _denoiser(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """dp-diffusion, dp-feta: the loss that was trained on, at the noise levels that were trained at."""
    from veilset.methods.diffusion.dp_diffusion import Denoiser, size_of
    from veilset.methods.diffusion.dp_feta import Warmed
    from veilset.networks.diffusion import errors, spread
    from veilset.networks.precision import fast

    stage = (Warmed if model.name == "dp-feta" else Denoiser)(model.config)
    net = stage.network(info, *size_of(state))
    net.load_state_dict({k: v for k, v in state.items() if k in net.state_dict()})
    loss, image = torch.zeros(len(x)), net.encode(2 * x - 1)
    levels = torch.cat([stage.kind.levels(spread(torch.rand(LEVELS))) for _ in range(DRAWS)]).to(x)
    with fast():
        for level in levels:
            loss += errors(
                net.eval(), stage.kind, image, y, level.expand(len(x)), torch.randn_like(image)
            ).float() / len(levels)
    return {"denoising": -loss}


def _moments(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """dp-moments, and what holds one: log density of the class's Gaussian cells."""
    prefix = next((p for p in ("", "moments.", "images.") if p + "part" in state), None)
    if prefix is None:
        return {}
    own = {k: state[prefix + k] for k in ("mean", "root", "part", "basis")}
    return _cells(own["mean"], own["root"], own["part"], x.flatten(1) @ own["basis"].T, y)


def _generator(model: Any, state: State, info: Any, folder: Path, x: torch.Tensor, y: torch.Tensor) -> Feature:
    """dp-merf with its generator of Gaussian cells."""
    if model.config.generator != "cells":
        return {}
    part = torch.full(state["mean"].shape[:2], 1 / state["mean"].shape[1])
    return _cells(state["mean"], state["factor"], part, x.flatten(1) @ state["basis"].T, y)


def _cells(mean: torch.Tensor, root: torch.Tensor, part: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> Feature:
    """Log density of coordinates z [n, d] under the mixture of Gaussians of their class.

    Args:
        mean: [K, M, d]. root: [K, M, d, r], covariances are root root' + RIDGE^2. part: [K, M] weights.
        z, y: coordinates and labels.
    """
    out = torch.zeros(len(y))
    for k in y.unique().tolist():
        here = y == k
        terms = []
        for j in range(mean.shape[1]):
            r = root[k, j].double()
            covariance = r @ r.T + RIDGE**2 * torch.eye(len(r), dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(mean[k, j].double(), covariance)
            terms.append(normal.log_prob(z[here].double()) + math.log(max(float(part[k, j]), 1e-9)))
        out[here] = torch.stack(terms).logsumexp(0).float()
    return {"likelihood": out}


Measure = Callable[[Any, Any, Any, Path, torch.Tensor, torch.Tensor], Feature]
FAMILIES: dict[str, tuple[Measure, ...]] = {
    "dp-cvae": (_conditional,),
    "vae-gm": (_by_class,),
    "au-gm": (_plain,),
    "dp-gan": (_critic,),
    "dp-cgan": (_critic,),
    "dp-diffusion": (_denoiser,),
    "dp-feta": (_denoiser, _moments),
    "dp-moments": (_moments,),
    "dp-merf": (_generator,),
    "taught-moments": (_moments,),
    "dp-kip": (),  # its images are all there is
    "private-set": (),
    "dp-condense": (),  # so are its
}
