"""Every method by name, without importing torch. A test keeps the table true; plug-ins come by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from veilset.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    from veilset.methods.base import Method, Synthesizer

M = TypeVar("M", bound="Method")
GROUP = "veilset.methods"
DEFAULT = "taught-moments"  # what `veilset fit` takes without a name: the best mean of the committed leaderboard


@dataclass(frozen=True)
class Entry:
    """Where a method lies, and what it is in one line."""

    module: str
    attribute: str
    summary: str


def _in(family: str, attribute: str, summary: str) -> Entry:
    return Entry(f"veilset.methods.{family}", attribute, summary)


BUILT_IN = {
    "dp-merf": _in(
        "embedding.dp_merf",
        "DPMERF",
        "random-feature mean embedding, one release, conditional generator",
    ),
    "dp-moments": _in("moments.dp_moments", "DPMoments", "class means and covariances in a low-frequency basis"),
    "taught-moments": _in(
        "moments.taught_moments", "TaughtMoments", "images of dp-moments, labelled by a private teacher"
    ),
    "dp-kip": _in("condensation.dp_kip", "DPKIP", "few images for kernel regression on scattering features"),
    "private-set": _in("condensation.private_set", "PrivateSet", "few images that match the gradients of networks"),
    "dp-condense": _in(
        "condensation.dp_condense",
        "DPCondense",
        "few images that random networks take for the private ones",
    ),
    "dp-cvae": _in("latent.dp_cvae", "DPCVAE", "one class-conditional variational autoencoder, by DP-SGD"),
    "vae-gm": _in("latent.vae_gm", "VAEGM", "one variational autoencoder a class, by DP-SGD on a partition"),
    "au-gm": _in("latent.au_gm", "AUGM", "an autoencoder by DP-SGD; gives its encoder away, samples too"),
    "dp-gan": _in("gan.dp_gan", "DPGAN", "conditional GAN, critic by DP-SGD, free generator steps"),
    "dp-cgan": _in("gan.dp_cgan", "DPCGAN", "conditional GAN, real and generated parts clipped apart"),
    "dp-diffusion": _in(
        "diffusion.dp_diffusion",
        "DPDiffusion",
        "diffusion model by DP-SGD, several noise draws a record (DPDM)",
    ),
    "dp-feta": _in("diffusion.dp_feta", "DPFETA", "noisy class summaries first, then a diffusion model by DP-SGD"),
}


# Classifiers learned under a budget: they draw no images. What is done with them is in `teachers`.
TEACHERS = {
    "dp-scatter": _in("teachers.dp_scatter", "DPScatter", "linear classifier on scattering features, by DP-SGD"),
}


def _plugins() -> dict[str, EntryPoint]:
    return {p.name: p for p in entry_points(group=GROUP)}


def methods() -> dict[str, str]:
    """Name -> one-line summary of every built-in method and installed plug-in."""
    extra = {name: f"plug-in {p.value}" for name, p in _plugins().items() if name not in BUILT_IN}
    return {name: e.summary for name, e in BUILT_IN.items()} | extra


def homes() -> dict[str, str]:
    """Name -> module of every method, teacher and plug-in; imports none of them."""
    own = {name: entry.module for name, entry in (BUILT_IN | TEACHERS).items()}
    return {name: plugin.module for name, plugin in _plugins().items()} | own


def method_class(name: str) -> type[Synthesizer]:
    """The class of a method.

    Raises:
        ConfigError: unknown name, or a plug-in that does not load (with its reason).
    """
    from veilset.methods.base import Synthesizer

    if name in BUILT_IN:
        entry = BUILT_IN[name]
        found: Any = getattr(import_module(entry.module), entry.attribute)
        return found
    plugins = _plugins()
    if name in TEACHERS:
        raise ConfigError(f"{name} is a teacher, which predicts and draws no images; use veilset.make_teacher")
    if name not in plugins:
        known = methods()
        raise ConfigError(f"method {name!r} is unknown.{suggest(name, known)} Known: {', '.join(known)}")
    try:
        found = plugins[name].load()
    except Exception as e:  # a plug-in may fail in any way; say which and why
        raise ConfigError(f"plug-in {name!r} ({plugins[name].value}) does not load: {type(e).__name__}: {e}") from e
    if not (isinstance(found, type) and issubclass(found, Synthesizer)):
        raise ConfigError(f"plug-in {name!r} ({plugins[name].value}) is not a veilset.Synthesizer class")
    if found.name != name:
        raise ConfigError(
            f"plug-in {name!r} ({plugins[name].value}) calls itself {found.name!r}; give both the same name"
        )
    return found


def make(name: str = DEFAULT, *, recipe: str | None = None, **params: Any) -> Synthesizer:
    """A method by name with its parameters, ready to plan and fit.

    Args:
        name: a method; by default the one that did best on the sets that were measured.
        recipe: one of the method's named sets of parameters, such as "paper"; `params` override it.
        params: the method's parameters.

    Raises:
        ConfigError: unknown method, recipe or parameter (with a suggestion), or a value out of range.
    """
    return configured(method_class(name), recipe, params)


def configured(cls: type[M], recipe: str | None, params: Mapping[str, Any]) -> M:
    """A method of this class with the parameters of a recipe (None: none), overridden by `params`.

    Raises:
        ConfigError: unknown recipe or parameter, or a value out of range.
    """
    if recipe is not None and recipe not in cls.recipes:
        known = ", ".join(cls.recipes) or "none"
        raise ConfigError(f"{cls.name} has no recipe {recipe!r}.{suggest(recipe, cls.recipes)} It has: {known}")
    return cls(**{**(cls.recipes[recipe] if recipe is not None else {}), **params})


def open_model(folder: str | Path) -> Synthesizer:
    """A fitted model from a run folder or from what `save` wrote. Opens JSON and safetensors only; no code is run.

    Raises:
        RunError: not a veilset model, or damaged.
    """
    from veilset.methods.base import model_facts, restore

    facts = model_facts(Path(folder))
    return restore(method_class(facts["method"]), Path(folder), facts)
