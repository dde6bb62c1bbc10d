"""What the base class does for every method: labels, refusals, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError, ModeError, RunError
from veilset.methods.base import _labels, model_facts, restore
from veilset.methods.catalogue import BUILT_IN
from veilset.privacy.private import from_arrays

INFO = vs.PublicInfo(name="set", classes=("a", "b", "c"), shape=(1, 4, 4), units=30)


class Means(vs.Synthesizer):
    """Noisy class means."""

    name = "means"

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean"),))

    def _fit(self, gate, info, plan):
        return {"mean": gate.sum("mean", lambda x, y: x, by_class=True).float() + torch.randn(1)}

    def _sample(self, state, info, labels):
        return state["mean"][labels] * torch.tensor([1.0, float("nan"), float("inf")])[labels][:, None, None, None]


def data():
    g = np.random.default_rng(0)
    return from_arrays(INFO, g.integers(0, 256, (30, 1, 4, 4), dtype=np.uint8), g.integers(0, 3, 30))


def fitted(**how):
    return Means().fit(data(), vs.Privacy(1.0), **how)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_labels_are_even_and_interleaved(n):
    y = _labels(n, INFO.classes, None, None)
    counts = y.bincount(minlength=3)
    assert len(y) == n and int(counts.max() - counts.min()) <= 1
    if n == 100:
        assert all(set(y[i : i + 4].tolist()) == {0, 1, 2} for i in range(0, 96, 4))


def test_labels_follow_a_mix_or_a_choice():
    assert _labels(10, INFO.classes, None, {"a": 1, "c": 4}).bincount().tolist() == [2, 0, 8]
    assert set(_labels(9, INFO.classes, ["b"], None).tolist()) == {1}


@pytest.mark.parametrize(
    ("n", "classes", "mix", "word"),
    [
        (0, None, None, "n = 0"),
        (2.0, None, None, "n = 2.0"),
        (True, None, None, "n = True"),
        (3, ["d"], None, "not declared"),
        (3, ["a"], {"a": 1}, "not both"),
        (3, None, {"a": -1}, "finite weight"),
        (3, None, {"a": float("nan")}, "finite weight"),
        (3, None, {"a": 0}, "above 0"),
        (3, None, {}, "above 0"),
        (3, [], None, "above 0"),
    ],
)
def test_labels_out_of_range(n, classes, mix, word):
    with pytest.raises(ConfigError, match=word):
        _labels(n, INFO.classes, classes, mix)


def test_a_model_is_fitted_once_and_on_private_images_only():
    model = fitted(seed=0)
    with pytest.raises(ModeError, match="fitted already"):
        model.fit(data(), vs.Privacy(1.0))
    with pytest.raises(ConfigError, match="veilset.load"):
        Means().fit(np.zeros((3, 1, 4, 4)), vs.Privacy(1.0))
    for early in (lambda m: m.sample(3), lambda m: m.save("x")):
        with pytest.raises(ModeError, match="not fitted"):
            early(Means())


def test_fit_and_sample_leave_torchs_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fitted(seed=1).sample(5, seed=2)
    fitted().sample(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_that_are_not_finite_become_pixels():
    x = fitted(seed=0).sample(9, seed=0)
    assert x.x.dtype == torch.uint8 and bool((x.x[x.y == 1] == 0).all())


def test_a_failed_fit_leaves_an_unfitted_model():
    class Broken(Means):
        """Fails after its only question."""

        def _fit(self, gate, info, plan):
            super()._fit(gate, info, plan)
            raise ValueError("late")

    model = Broken()
    with pytest.raises(ValueError, match="late"):
        model.fit(data(), vs.Privacy(1.0))
    assert model.receipt_ is None
    with pytest.raises(ModeError):
        model.sample(1)


def test_saving_refuses_an_existing_folder(tmp_path):
    model = fitted(seed=0)
    model.save(tmp_path / "m")
    with pytest.raises(RunError, match="exists"):
        model.save(tmp_path / "m")
    with pytest.raises(RunError, match="exists"):
        model.write_samples(model.sample(3), tmp_path / "m")


class Bomb:
    """A pickle that would leave a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


def test_row_30_a_pickle_in_place_of_a_model_is_refused_without_running(tmp_path):
    import pickle  # noqa: TID251  the attack under test

    folder = fitted(seed=0).save(tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    bomb = pickle.dumps(Bomb(tmp_path / "mark"))
    for raw in (bomb, whole[:-7], whole[:5], b"", b"PK\x03\x04" + bomb):
        (folder / "model.safetensors").write_bytes(raw)
        with pytest.raises(RunError, match="not a whole safetensors"):
            restore(Means, folder, model_facts(folder))
        assert not vs.verify(folder).ok
    assert not (tmp_path / "mark").exists()
    for raw in (bomb, b"{}", b'{"format": "other"}', b"[]"):
        (folder / "model.json").write_bytes(raw)
        with pytest.raises(RunError):
            vs.open_model(folder)
    assert not (tmp_path / "mark").exists()


def test_a_saved_model_says_nothing_about_the_machine(tmp_path):
    folder = fitted().save(tmp_path / "m")
    import socket

    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl"):
            text = path.read_text()
            assert str(tmp_path) not in text and socket.gethostname() not in json.dumps(text)


def test_a_recipe_is_a_named_set_of_parameters_that_can_be_overridden():
    model = vs.make("dp-merf", recipe="paper", steps=7)
    assert (model.config.generator, model.config.steps) == ("conv", 7)
    with pytest.raises(ConfigError, match="has no recipe 'papr'. Did you mean 'paper'"):
        vs.make("dp-merf", recipe="papr")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_recipe_builds(name):
    for recipe in vs.make(name).recipes:
        vs.make(name, recipe=recipe)
