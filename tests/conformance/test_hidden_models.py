"""The kit over a method that learns from answers of hidden models, and over those that keep what they must not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import veilset as vs
from veilset import testing as kit


@dataclass(frozen=True)
class Config:
    mechanism: str = vs.option("secret-shards", "how a shard is chosen", choices=("secret-shards", "round-robin"))


class Pulls(vs.Synthesizer):
    """One image a class: the noisy mean of what shards say of theirs."""

    name = "pulls"
    Config = Config

    def _plan(self, info, privacy):
        facts = {"shards": 4, "rows": len(info.classes), "columns": info.pixels}
        how = {"mechanism": self.config.mechanism, "sample_rate": 0.25, "facts": facts}
        return vs.Plan((vs.Release(name="mean", verb="pull", steps=8, bound=2.0, **how),))

    def _fit(self, gate, info, plan):
        gate.train_hidden("mean", lambda h: {"w": h.batch(6)[0].mean(0).flatten()})
        images = torch.nn.Parameter(torch.rand(len(info.classes), info.pixels))
        best = torch.optim.SGD([images], 0.1, momentum=0.5)
        kept = []
        for _ in gate.loop("mean", {"best": best, "images": Images(images)}):
            images.grad = gate.pull("mean", lambda h: self._answer(h, images.detach(), kept)).float() / 8
            best.step()
        return {"images": images.detach()}

    def _answer(self, h, images, kept):
        return images - h.state["w"] + 0.1 * torch.rand(images.shape)

    def _sample(self, state, info, labels):
        return state["images"][labels].unflatten(1, info.shape) + 0.1 * torch.rand(len(labels), *info.shape)


class Images:
    def __init__(self, images):
        self.images = images

    def state_dict(self):
        return {"images": self.images.data}

    def load_state_dict(self, state):
        self.images.data.copy_(state["images"])


class KeepsAModel(Pulls):
    """From the fourth call on what was drawn before goes on learning: the first calls look sound."""

    def _answer(self, h, images, kept):
        kept.append(h.state["w"])
        mean = torch.stack(kept).mean(0) if len(kept) > 3 else h.state["w"]
        return images - mean


class LooksIntoTheShard(Pulls):
    """What a shard holds moves the public images, past the noise."""

    def _answer(self, h, images, kept):
        images += 1e-6 * h.x.sum()
        return images - h.state["w"]


@pytest.mark.parametrize("mechanism", ["secret-shards", "round-robin"])
@pytest.mark.parametrize("holds", kit.PROPERTIES, ids=lambda p: p.__name__)
def test_a_sound_method(holds, mechanism):
    holds(lambda: Pulls(mechanism=mechanism))


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (KeepsAModel, "the method keeps something of it"),
        (LooksIntoTheShard, "it keeps a state, or a generator, of its own"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_keeps_a_hidden_model_is_found(bad, word):
    with pytest.raises((AssertionError, vs.VeilsetError), match=word):
        kit.check_synthesizer(bad)
