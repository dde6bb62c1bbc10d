"""Parameters as Python sees them: signature, docstring, and what scikit-learn asks of an estimator."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal

import pytest
from sklearn.base import clone

import veilset as vs
from veilset.core.config import fields
from veilset.core.errors import ConfigError, ModeError
from veilset.methods.catalogue import BUILT_IN, DEFAULT, TEACHERS, method_class
from veilset.methods.teachers import teacher_class


@dataclass(frozen=True)
class Config:
    width: int = vs.option(8, "how wide", ge=1, le=64)
    rate: float | None = vs.option(None, "how fast; default by the budget", gt=0)
    mode: str = vs.option("plain", "how it draws", choices=("plain", "dither"))


class Wide(vs.Synthesizer):
    """A mean."""

    name = "wide"
    Config = Config

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean"),))

    def _fit(self, gate, info, plan):
        return {"mean": gate.sum("mean", lambda x, y: x).float()}

    def _sample(self, state, info, labels):
        return state["mean"].expand(len(labels), *info.shape)


def any_class(name):
    return teacher_class(name) if name in TEACHERS else method_class(name)


@pytest.mark.parametrize("name", BUILT_IN | TEACHERS)
def test_a_method_shows_its_options(name) -> None:
    cls, seen = any_class(name), inspect.signature(any_class(name)).parameters
    assert [(p.name, p.default) for p in seen.values()] == [(f.name, f.default) for f in fields(cls.Config)]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in seen.values())
    text = inspect.getdoc(cls)
    assert text.count("Parameters:") == 1
    assert all(f"    {f.name} ({f.type.__name__}, " in text and f.doc in text for f in fields(cls.Config))


def test_types_defaults_and_ranges_are_those_of_the_options() -> None:
    seen = {k: (p.annotation, p.default) for k, p in inspect.signature(Wide).parameters.items()}
    assert seen == {
        "width": (int, 8),
        "rate": (float | None, None),
        "mode": (Literal["plain", "dither"], "plain"),
    }
    assert Wide.__doc__ == (
        "A mean.\n\nParameters:\n"
        "    width (int, >= 1, <= 64, default 8): how wide\n"
        "    rate (float, > 0, default: derived): how fast; default by the budget\n"
        "    mode (str, plain | dither, default 'plain'): how it draws\n"
    )


def test_a_method_without_options_takes_none() -> None:
    class Bare(Wide):
        """A mean, as it is."""

        from veilset.methods.parameters import NoConfig as Config

    assert not inspect.signature(Bare).parameters and Bare.__doc__ == "A mean, as it is."
    assert Bare().get_params() == {}
    with pytest.raises(ConfigError, match="bare|wide has no parameter 'width'"):
        Bare(width=3)


def test_an_init_of_its_own_is_what_is_shown() -> None:
    class Own(Wide):
        """A mean."""

        def __init__(self, wide: bool = False):
            super().__init__(width=64 if wide else 8)

    assert list(inspect.signature(Own).parameters) == ["wide"] and Own.__doc__ == "A mean."
    assert Own(wide=True).config.width == 64


@dataclass(frozen=True)
class Bald:
    width: int = 8


@pytest.mark.parametrize("config", [Bald, dict, 3])
def test_a_config_without_options_is_refused_when_the_class_is_made(config) -> None:
    with pytest.raises(ConfigError, match=r"^Bad\.Config: must be a frozen dataclass whose .*veilset\.option") as e:
        type("Bad", (Wide,), {"Config": config})
    assert "\n" not in str(e.value)


def test_make_without_a_name_is_the_default() -> None:
    assert vs.make().name == DEFAULT and vs.make(mc_samples=5).config.mc_samples == 5


# ---------------------------------------------------------------------- as scikit-learn has it


def test_get_params_gives_what_makes_an_equal_model() -> None:
    model = Wide(width="16", rate=1)
    assert model.get_params() == model.get_params(deep=False) == {"width": 16, "rate": 1.0, "mode": "plain"}
    assert Wide(**model.get_params()).config == model.config


@pytest.mark.parametrize("name", BUILT_IN | TEACHERS)
def test_scikit_learn_clones_every_method(name) -> None:
    model = any_class(name)()
    copy = clone(model)
    assert type(copy) is type(model) and copy is not model and copy.get_params() == model.get_params()


def test_a_clone_of_a_fitted_model_is_not_fitted() -> None:
    model = Wide(width=3).fit(vs.load("digits").train, vs.Privacy(1.0))
    copy = clone(model)
    assert copy.config == model.config and copy.receipt_ is None
    with pytest.raises(ModeError, match="not fitted"):
        copy.sample(1)
    assert copy.set_params(width=4).config.width == 4 and model.config.width == 3


def test_set_params_after_fit_is_refused() -> None:
    model = Wide().fit(vs.load("digits").train, vs.Privacy(1.0))
    with pytest.raises(ModeError, match=r"^set_params: this wide model is fitted already") as e:
        model.set_params(width=4)
    assert "\n" not in str(e.value) and model.config.width == 8


def test_set_params_keeps_the_others_and_returns_the_model() -> None:
    model = Wide(rate=2.0)
    assert model.set_params(width=4, mode="dither") is model
    assert model.get_params() == {"width": 4, "rate": 2.0, "mode": "dither"}
    assert model.set_params() is model


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"widht": 4}, "has no parameter 'widht'. Did you mean 'width'"),
        ({"config__width": 4}, "no parameter"),
        ({"width": 0}, "width = 0: must be >= 1"),
        ({"width": None}, "width = None: must be int"),
        ({"width": 4, "mode": "dithr"}, "Did you mean 'dither'"),
    ],
)
def test_set_params_refuses_all_or_nothing(params, word) -> None:
    model = Wide(rate=2.0)
    with pytest.raises(ConfigError) as e:
        model.set_params(**params)
    assert word in str(e.value) and "\n" not in str(e.value)
    assert model.get_params() == {"width": 8, "rate": 2.0, "mode": "plain"}
