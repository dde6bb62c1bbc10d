"""Released images alone show a halved noise, and stay below the claim when the noise is right."""

from __future__ import annotations

import pytest
import torch

from veilset.audit import images_only
from veilset.core.errors import ConfigError


@pytest.mark.long
def test_halved_noise_is_seen_in_the_images() -> None:
    sound = images_only.audit(epsilon=10.0, trainings=1000, seed=0)
    faulty = images_only.audit(epsilon=10.0, trainings=1000, seed=0, noise=0.5)
    assert sound.ok and 1.0 < sound.lower_bound < 10.0
    assert faulty.ok is False and faulty.lower_bound > 10.0


def test_the_written_gradient_is_autograds() -> None:
    from veilset.methods.embedding.dp_merf import features

    w = images_only._public()[2]
    target = torch.randn(3, 2 * len(w)) / 10
    steps, seen = images_only.STEPS, []
    real = torch.optim.Adam.step
    torch.manual_seed(0)

    def spy(self, closure=None):
        logits = self.param_groups[0]["params"][0]
        copy = logits.detach().clone().requires_grad_()
        waves = features(copy.sigmoid()[:, None, None], w).unflatten(0, (-1, images_only.RELEASED)).mean(1)
        (waves - target).square().sum().backward()
        seen.append(torch.allclose(copy.grad, logits.grad, atol=1e-6))
        return real(self, closure)

    torch.optim.Adam.step = spy
    try:
        images_only._fit(target, w)
    finally:
        torch.optim.Adam.step = real
    assert seen == [True] * steps


def test_few_trainings_say_so_or_are_refused() -> None:
    found = images_only.audit(epsilon=10.0, trainings=40, seed=0)
    assert found.ok is None and "SAYS NOTHING" in found.verdict
    with pytest.raises(ConfigError, match="trainings"):
        images_only.audit(trainings=10)


@pytest.mark.long
def test_a_seed_repeats_it_whatever_was_drawn_before_and_on_however_many_threads() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for ambient in (1, 2):
            torch.manual_seed(ambient)
            torch.set_num_threads(ambient)
            found.append(images_only.audit(trainings=40, seed=0).to_json())
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]
