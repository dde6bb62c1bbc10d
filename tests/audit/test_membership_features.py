"""What can be measured of a candidate, from images and from models of each family."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import veilset as vs
from veilset.audit.membership.features import Candidates, image_features
from veilset.audit.membership.models import model_features
from veilset.core.errors import RunError
from veilset.core.types import Images
from veilset.learning.densities import RIDGE, log_density
from veilset.methods.catalogue import BUILT_IN
from veilset.privacy.noise import Stream

SHORT: dict[str, dict[str, Any]] = {
    "dp-merf": {"steps": 5, "frequencies": 20, "batch_size": 40},
    "dp-moments": {"n_components": 1, "mc_samples": 0},
    "dp-cvae": {"steps": 3},
    "vae-gm": {"steps": 2},
    "au-gm": {"steps": 3},
    "dp-gan": {"steps": 3, "snapshots": 1},
    "dp-cgan": {"steps": 3, "snapshots": 1},
    "dp-diffusion": {"steps": 2, "batch_size": 32, "noise_multiplicity": 1},
    "dp-feta": {"steps": 2, "batch_size": 32, "noise_multiplicity": 1, "warm_steps": 2},
    "taught-moments": {"steps": 2, "selection": False},
    "gs-wgan": {"steps": 3, "warm_steps": 2, "snapshots": 1},
    **dict.fromkeys(("pate-gan", "g-pate", "datalens"), {"steps": 3, "warm_steps": 2, "snapshots": 1, "basis": 16}),
    "dp-gan-dpac": {"steps": 3, "warm_steps": 2, "snapshots": 1, "classifier_steps": 2},
    "dp-kip": {"steps": 2, "per_class": 2},
    "private-set": {"networks": 1, "stages": 2, "per_class": 2, "width": 4, "start": "noise"},
    "dp-condense": {"steps": 2, "per_class": 2, "networks": 2, "width": 4},
    "private-evolution": {"public": "dead-leaves", "votes": 2, "candidates": 4, "features": "pixels"},
    "dpmi": {"public": "dead-leaves", "public_steps": 2, "iterations": 2, "steps": 2, "code_dim": 4, "latent_dim": 6},
}


@pytest.fixture(scope="module")
def test_split() -> Images:
    test = vs.load("digits").test
    assert isinstance(test, Images)
    return test


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A method by name, fitted for a moment into a folder; each once."""
    known: dict[str, tuple[Any, Path]] = {}

    def fit(name: str) -> tuple[Any, Path]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            model = vs.make(name, **SHORT[name])
            known[name] = model.fit(vs.load("digits").train, vs.Privacy(math.inf), seed=0, folder=folder), folder
        return known[name]

    return fit


# ---------------------------------------------------------------------- images only


def test_nearest_images_are_found_in_the_candidates_class(test_split: Images) -> None:
    them, released = Candidates.of(test_split[:50]), test_split[50:]
    got = image_features(released, them)
    a, b = test_split.x.flatten(1).double() / 255, test_split.y
    for i in (0, 7, 31):
        own = (a[50:][b[50:] == b[i]] - a[i]).norm(dim=1).sort().values
        assert got["nearest"][i] == pytest.approx(-float(own[0]), rel=1e-4)
        assert got["nearest-10"][i] == pytest.approx(-float(own[:10].mean()), rel=1e-4)
        kernel = (-own.square() / (2 * 64 / 112)).logsumexp(0)
        assert got["density-narrow"][i] == pytest.approx(float(kernel), rel=1e-4, abs=1e-4)


def test_every_feature_is_larger_for_what_was_released(test_split: Images) -> None:
    them = Candidates.of(test_split[:200])
    without = image_features(test_split[200:], them)
    released = Images(
        torch.cat([test_split.x[200:], test_split.x[:100]]), torch.cat([test_split.y[200:], test_split.y[:100]]),
        test_split.classes,
    )  # fmt: skip
    gain = {k: v - without[k] for k, v in image_features(released, them).items()}
    assert without.keys() == gain.keys() and len(gain) == 7
    for name, more in gain.items():
        assert more[:100].mean() > max(0.0, float(more[100:].mean())), name
    assert image_features(released, them)["nearest"][:100].abs().max() < 1e-2


def test_a_class_that_was_not_released_is_compared_with_all(test_split: Images) -> None:
    them = Candidates.of(test_split[:100])
    got = image_features(test_split[test_split.y < 5], them)
    assert all(bool(v.isfinite().all()) for v in got.values())
    assert float(got["classifier"][them.y >= 5].max()) == -30.0 < float(got["classifier"][them.y < 5].min())


def test_features_do_not_depend_on_who_else_is_asked_in_what_order(test_split: Images) -> None:
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    a = image_features(test_split[100:], Candidates.of(test_split[:80]))
    b = image_features(test_split[100:], Candidates.of(test_split[:80][order]))
    for name in a:
        assert torch.allclose(a[name][order], b[name], rtol=1e-2, atol=1e-3), name


# ---------------------------------------------------------------------- models


def test_every_built_in_method_is_tried() -> None:
    assert set(WANTED) == set(BUILT_IN) == set(SHORT)


WANTED = {
    "dp-merf": {"likelihood"}, "dp-moments": {"likelihood"}, "dp-cvae": {"elbo", "reconstruction"},
    "vae-gm": {"elbo", "reconstruction"}, "au-gm": {"reconstruction"}, "dp-gan": {"critic"}, "dp-cgan": {"critic"},
    "dp-diffusion": {"denoising"}, "dp-feta": {"denoising", "likelihood"}, "taught-moments": {"likelihood"},
    "gs-wgan": {"likelihood"}, "dp-gan-dpac": {"likelihood"}, "pate-gan": set(), "g-pate": set(), "datalens": set(),
    "dp-kip": set(), "private-set": set(), "dp-condense": set(),
    "private-evolution": set(), "dpmi": set(),
}  # fmt: skip
SLOW = ("taught-moments", "vae-gm", "dp-feta")  # what each looks at, another one does too


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long if n in SLOW else ()) for n in SHORT])
def test_a_family_has_its_features(name: str, fitted: Any, test_split: Images) -> None:
    model, folder = fitted(name)
    before = torch.get_rng_state()
    first = model_features(model, folder, Candidates.of(test_split[:40]))
    assert set(first) == WANTED[name]
    assert all(v.shape == (40,) and v.dtype == torch.float64 and bool(v.isfinite().all()) for v in first.values())
    assert all(float(v.std()) > 0 for v in first.values())
    again = model_features(model, folder, Candidates.of(test_split[:40]))
    assert all(torch.equal(first[k], again[k]) for k in first), "random draws are common to all calls"
    assert torch.equal(before, torch.get_rng_state()), "the caller's random state is put back"


def test_the_lower_bound_is_the_training_loss(fitted: Any, test_split: Images) -> None:
    from veilset.methods.latent import autoencoders
    from veilset.methods.latent.common import Form

    model, folder = fitted("dp-cvae")
    state, info = model.fitted()
    net, weight = Form(told=True).opened(model.config, info, state), autoencoders.Weight(1.0, 0.0)
    weight.at(0)
    loss = autoencoders.loss_of(model.config, weight, draws=400)
    them = Candidates.of(test_split[:8])
    code = Stream(bytes(32)).normal(8 * 400 * model.config.latent_dim).view(8, 400, -1)
    with torch.no_grad():
        trained = torch.stack([loss(net, x, y, {"code": e}) for x, y, e in zip(them.x, them.y, code, strict=True)])
        # The loss leaves out what the frame's directions cannot show; pixels count it.
        left = them.x.flatten(1) - net.frame.centre[them.y]
        left = left - (left @ net.frame.basis.T) @ net.frame.basis
    wanted = -(trained + left.square().sum(1) / (2 * model.config.pixel_std**2))
    got = model_features(model, folder, them)["elbo"]
    assert torch.allclose(got.float(), wanted, rtol=0.15) and float(got.std()) > 0


def test_gaussian_cells_have_their_log_density() -> None:
    lot = torch.Generator().manual_seed(0)
    mean, root = torch.randn(2, 2, 3, generator=lot), torch.randn(2, 2, 3, 2, generator=lot)
    z, y, part = torch.randn(5, 3, generator=lot), torch.tensor([0, 1, 1, 0, 1]), torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    got = log_density(mean, root, part, z, y)
    for i in range(5):
        k = int(y[i])
        density = sum(
            float(part[k, j])
            * multivariate_normal(mean[k, j], (root[k, j] @ root[k, j].T).numpy() + RIDGE**2 * np.eye(3)).pdf(z[i])
            for j in range(2)
        )
        assert float(got[i]) == pytest.approx(math.log(density), rel=1e-4, abs=1e-4)


def test_a_new_denoiser_errs_by_about_one(fitted: Any, test_split: Images) -> None:
    from veilset.methods.diffusion.dp_diffusion import Denoiser, size_of

    model, folder = fitted("dp-diffusion")
    state, info = model.fitted()
    fresh = vs.make("dp-diffusion", **SHORT["dp-diffusion"])
    fresh.info_, fresh._state = (
        info,
        {k: torch.zeros_like(v) for k, v in Denoiser(model.config).network(info, *size_of(state)).state_dict().items()},
    )
    got = model_features(fresh, folder, Candidates.of(test_split[:60]))["denoising"]
    assert -2 < float(got.mean()) < -0.5


def test_a_gan_without_its_critic_is_refused(fitted: Any, test_split: Images, tmp_path: Path) -> None:
    model, _ = fitted("dp-gan")
    with pytest.raises(RunError, match=r"critic is not there.*fit again") as e:
        model_features(model, tmp_path, Candidates.of(test_split[:5]))
    assert "\n" not in str(e.value)


def test_a_gan_is_scored_by_its_trained_critic(fitted: Any, test_split: Images) -> None:
    from veilset.networks.critics import score
    from veilset.privacy.run.run_store import RunStore

    model, folder = fitted("dp-gan")
    kept = RunStore(folder).checkpoint("critic")
    assert kept is not None and kept["step"] == 3, "the state after the last step"
    critic = model.critic(model.info_)
    critic.load_state_dict(kept["state"]["critic"])
    x, y = test_split.x[:6].float() / 255, test_split.y[:6]
    wanted = score(critic(x, y), y).detach().double()
    assert torch.allclose(model_features(model, folder, Candidates.of(test_split[:6]))["critic"], wanted, atol=1e-6)
