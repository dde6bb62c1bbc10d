"""Every method by name and kind, without importing torch. A test keeps the table true; plug-ins come by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from veilset.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    from veilset.methods.base import Method, Synthesizer, Teacher

M = TypeVar("M", bound="Method")
# Kind -> what it does; its base class says the same. A kind has its own group of entry points.
KINDS = {"synthesizer": "draws images and labels none", "teacher": "labels images and draws none"}
GROUPS = {"veilset.methods": "synthesizer", "veilset.teachers": "teacher"}
MAKERS = {"synthesizer": "veilset.make", "teacher": "veilset.make_teacher"}
OPENERS = {
    "synthesizer": "`veilset sample` (veilset.open_model)",
    "teacher": "`veilset predict` (veilset.open_teacher)",
}
DEFAULT = "taught-moments"  # what `veilset fit` takes without a name: the best benchmarked method


@dataclass(frozen=True)
class Entry:
    """Where a method lies, what it is in one line, and of which kind; for a plug-in, its entry point as written."""

    module: str
    attribute: str
    summary: str
    kind: str = "synthesizer"
    plugin: str = ""


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
    "dp-kip": _in("condensation.dp_kip", "DPKIP", "few synthetic images for kernel regression on scattering features"),
    "private-set": _in(
        "condensation.private_set", "PrivateSet", "few synthetic images that match gradients of networks"
    ),
    "dp-condense": _in(
        "condensation.dp_condense",
        "DPCondense",
        "few synthetic images whose random embeddings match the private ones",
    ),
    "dp-cvae": _in("latent.dp_cvae", "DPCVAE", "one class-conditional variational autoencoder, by DP-SGD"),
    "vae-gm": _in("latent.vae_gm", "VAEGM", "one variational autoencoder per class, by DP-SGD on a partition"),
    "au-gm": _in("latent.au_gm", "AUGM", "one autoencoder by DP-SGD, whose encoder is released too"),
    "dp-gan": _in("gan.dp_gan", "DPGAN", "conditional GAN, critic by DP-SGD, free generator steps"),
    "dp-cgan": _in("gan.dp_cgan", "DPCGAN", "conditional GAN, real and generated parts clipped apart"),
    "gs-wgan": _in("gan.gs_wgan", "GSWGAN", "conditional GAN, hidden critics on shards, noised image gradients"),
    "dp-gan-dpac": _in(
        "gan.dp_gan_dpac", "DPGANDPAC", "gs-wgan with hidden classifiers of generated and of real images"
    ),
    "pate-gan": _in("gan.pate_gan", "PATEGAN", "conditional GAN, a student of the noisy votes of teachers on shards"),
    "g-pate": _in("gan.g_pate", "GPATE", "conditional GAN, teachers on shards vote on directions of images"),
    "datalens": _in("gan.datalens", "DataLens", "conditional GAN, teachers on shards vote with sparse signs"),
    "dp-diffusion": _in(
        "diffusion.dp_diffusion",
        "DPDiffusion",
        "diffusion model by DP-SGD, several noise draws per record (DPDM)",
    ),
    "dp-feta": _in("diffusion.dp_feta", "DPFETA", "noisy class summaries first, then a diffusion model by DP-SGD"),
    "private-evolution": _in(
        "evolution.private_evolution",
        "PrivateEvolution",
        "candidates from public data, chosen by private votes; needs --public",
    ),
    "dpmi": _in(
        "inversion.dpmi",
        "DPMI",
        "codes of private images in a public model, and a private model of them; needs --public",
    ),
}


# Classifiers learned under a budget.
TEACHERS = {
    "dp-scatter": replace(
        _in("teachers.dp_scatter", "DPScatter", "linear classifier on scattering features, by DP-SGD"), kind="teacher"
    ),
}


def registry() -> dict[str, Entry]:
    """Every method of every kind by name: built in, then plugged in. Imports none of them."""
    found = entry_points()
    plugged = {
        p.name: Entry(p.module, p.attr, f"plug-in {p.value}", kind, plugin=p.value)
        for group, kind in GROUPS.items()
        for p in found.select(group=group)
    }
    own = BUILT_IN | TEACHERS
    return own | {name: entry for name, entry in plugged.items() if name not in own}


def methods() -> dict[str, str]:
    """Name -> one-line summary of every synthesizer, built in or plugged in."""
    return {name: e.summary for name, e in registry().items() if e.kind == "synthesizer"}


def teachers() -> dict[str, str]:
    """Name -> one-line summary of every teacher, built in or plugged in."""
    return {name: e.summary for name, e in registry().items() if e.kind == "teacher"}


def any_class(name: str) -> type[Method]:
    """The class of a method of any kind.

    Raises:
        ConfigError: unknown name, or a plug-in that does not load (with its reason).
    """
    found: type[Method] = _load(name)
    return found


def method_class(name: str) -> type[Synthesizer]:
    """The class of a synthesizer.

    Raises:
        ConfigError: unknown name, a teacher's, or a plug-in that does not load (with its reason).
    """
    found: type[Synthesizer] = _load(name, "synthesizer")
    return found


def teacher_class(name: str) -> type[Teacher]:
    """The class of a teacher; errors as those of `method_class`."""
    found: type[Teacher] = _load(name, "teacher")
    return found


def _load(name: str, wanted: str | None = None) -> Any:
    """The class of this name, which must be of the kind that is wanted (None: of any)."""
    known = registry()
    entry = known.get(name)
    if entry is None:
        alike = [n for n, e in known.items() if wanted in (None, e.kind)]
        what = "teacher" if wanted == "teacher" else "method"
        raise ConfigError(f"{what} {name!r} is unknown.{suggest(name, alike)} Known: {', '.join(alike)}")
    if wanted not in (None, entry.kind):
        raise ConfigError(f"{name} is a {entry.kind}, which {KINDS[entry.kind]}; use {MAKERS[entry.kind]}")
    if not entry.plugin:
        return getattr(import_module(entry.module), entry.attribute)
    return _plugged(name, entry)


def _plugged(name: str, entry: Entry) -> type[Method]:
    """The class of a plug-in.

    Raises:
        ConfigError: it does not load, or is no class of its kind and name.
    """
    from veilset.methods.base import Synthesizer, Teacher

    base = {"synthesizer": Synthesizer, "teacher": Teacher}[entry.kind]
    who = f"plug-in {name!r} ({entry.plugin})"
    try:
        found = attrgetter(entry.attribute)(import_module(entry.module))
    except Exception as e:  # a plug-in may fail in any way; say which and why
        raise ConfigError(f"{who} does not load: {type(e).__name__}: {e}") from e
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{who} is not a veilset.{base.__name__} class")
    called = getattr(found, "name", None)
    if called != name:
        raise ConfigError(f"{who} calls itself {called!r}; give both the same name: name = {name!r} in the class")
    return found


def make(name: str = DEFAULT, *, recipe: str | None = None, **params: Any) -> Synthesizer:
    """A synthesizer by name with its parameters, ready to plan and fit.

    Args:
        name: a method; by default the one that did best on the sets that were measured.
        recipe: one of the method's named sets of parameters, such as "paper"; `params` override it.
        params: the method's parameters.

    Raises:
        ConfigError: unknown method, recipe or parameter (with a suggestion), or a value out of range.

    Examples:
        >>> data = vs.load("digits")
        >>> model = vs.make("dp-moments", basis_size=20).fit(data.train, vs.Privacy(epsilon=1.0))
        >>> model.sample(100).x.shape
        torch.Size([100, 1, 8, 8])
        >>> folder = model.write_samples(model.sample(200), "release", format="npz")
    """
    return configured(method_class(name), recipe, params)


def make_teacher(name: str, *, recipe: str | None = None, **params: Any) -> Teacher:
    """A teacher by name with its parameters, ready to plan and fit; as `make` for synthesizers.

    Examples:
        >>> teacher = vs.make_teacher("dp-scatter", steps=5).fit(data.train, vs.Privacy(epsilon=1.0))
        >>> teacher.predict(data.public_test().x[:5]).shape
        torch.Size([5])
    """
    return configured(teacher_class(name), recipe, params)


def configured(cls: type[M], recipe: str | None, params: Mapping[str, Any]) -> M:
    """A method of this class with the parameters of a recipe (None: none), overridden by `params`.

    Raises:
        ConfigError: unknown recipe or parameter, or a value out of range.
    """
    if recipe is not None and recipe not in cls.recipes:
        known = ", ".join(cls.recipes) or "none"
        raise ConfigError(f"{cls.name} has no recipe {recipe!r}.{suggest(recipe, cls.recipes)} It has: {known}")
    chosen = cls.modern(cls.recipes[recipe]) if recipe is not None else {}
    return cls(**chosen | cls.modern(params))


def open_model(folder: str | Path) -> Synthesizer:
    """A fitted synthesizer from a run folder or from what `save` wrote. Opens JSON and safetensors only; runs no code.

    Raises:
        RunError: not a veilset model, or damaged. ConfigError: a teacher, or a method that is not installed.

    Examples:
        >>> folder = model.save("saved")
        >>> vs.open_model(folder).sample(10).classes[:3]
        ('0', '1', '2')
    """
    model: Synthesizer = _read(folder, "synthesizer")
    return model


def open_teacher(folder: str | Path) -> Teacher:
    """A fitted teacher, as `open_model` opens synthesizers.

    Examples:
        >>> folder = teacher.save("taught")
        >>> vs.open_teacher(folder).name
        'dp-scatter'
    """
    model: Teacher = _read(folder, "teacher")
    return model


def open_any(folder: str | Path) -> Method:
    """A fitted method of any kind, as `open_model` opens synthesizers."""
    model: Method = _read(folder)
    return model


def _read(folder: str | Path, wanted: str | None = None) -> Any:
    from veilset.methods.base import model_facts, restore

    facts = model_facts(Path(folder))
    entry = registry().get(facts["method"])
    if entry and wanted not in (None, entry.kind):
        what = f"a run of {facts['method']}, a {entry.kind}, which {KINDS[entry.kind]}"
        raise ConfigError(f"{folder}: {what}; use {OPENERS[entry.kind]}")
    return restore(_load(facts["method"], wanted), Path(folder), facts)
