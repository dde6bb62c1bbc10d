"""The second registry: classifiers learned under a budget. They draw no images; they label, filter and set the ceiling.

A teacher plans, fits and is saved like a synthesizer, with a ledger and a receipt of its own; where a synthesizer
samples, it predicts. Its accuracy on real images is what training on released images can hope for at the same budget.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, suggest
from veilset.methods.catalogue import TEACHERS, configured

if TYPE_CHECKING:
    from veilset.methods.base import Teacher


def teachers() -> dict[str, str]:
    """Name -> one-line summary of every teacher."""
    return {name: entry.summary for name, entry in TEACHERS.items()}


def teacher_class(name: str) -> type[Teacher]:
    """The class of a teacher.

    Raises:
        ConfigError: unknown name.
    """
    if name not in TEACHERS:
        known = ", ".join(TEACHERS)
        raise ConfigError(f"teacher {name!r} is unknown.{suggest(name, TEACHERS)} Known: {known}")
    found: Any = getattr(import_module(TEACHERS[name].module), TEACHERS[name].attribute)
    return found


def make_teacher(name: str, *, recipe: str | None = None, **params: Any) -> Teacher:
    """A teacher by name with its parameters, ready to plan and fit; as `make` for synthesizers.

    Raises:
        ConfigError: unknown teacher, recipe or parameter (with a suggestion), or a value out of range.
    """
    return configured(teacher_class(name), recipe, params)


def open_teacher(folder: str | Path) -> Teacher:
    """A fitted teacher from what `save` wrote. Opens JSON and safetensors only; no code is run.

    Raises:
        RunError: not a veilset model, or damaged. ConfigError: it is no teacher.
    """
    from veilset.methods.base import model_facts, restore

    facts = model_facts(Path(folder))
    return restore(teacher_class(facts["method"]), Path(folder), facts)
