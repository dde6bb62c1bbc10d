"""A method's parameters as Python sees them: a signature and a section of the docstring, made from its options, and
`get_params` and `set_params` as scikit-learn has them, so that `sklearn.base.clone(model)` works.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, final

from veilset.core.config import FieldSpec, build, fields
from veilset.core.errors import ConfigError
from veilset.core.renamed import modern

P = TypeVar("P", bound="Configured")
HEADING = "Parameters:"


@dataclass(frozen=True)
class NoConfig:
    """For methods without parameters."""


class Configured:
    """An object whose parameters are the options of its `Config`.

    Attributes:
        name: what users type.
        Config: frozen dataclass of parameters (fields made by `veilset.option`).
        recipes: named sets of parameters, such as "paper", the published configuration.
        config: the values.
    """

    name: ClassVar[str]
    Config: ClassVar[type] = NoConfig
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, **params: Any):
        self.config: Any = build(self.Config, params, self.name)

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        kinds = [p.kind for p in inspect.signature(cls.__init__).parameters.values()]
        passes_on = kinds[1:] == [inspect.Parameter.VAR_KEYWORD]  # a method may have an __init__ of its own
        specs = _specs(cls)
        cls.__signature__ = signature(specs) if passes_on else None  # type: ignore[attr-defined]
        if passes_on and specs and cls.__doc__ and HEADING not in cls.__doc__:
            cls.__doc__ = f"{inspect.cleandoc(cls.__doc__)}\n\n{section(specs)}\n"

    @final
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameter -> value; None where it is derived from declared facts.

        Args:
            deep: ignored, since no parameter has parameters of its own; scikit-learn passes it.
        """
        return {f.name: getattr(self.config, f.name) for f in fields(self.Config)}

    @final
    def set_params(self: P, **params: Any) -> P:
        """Change parameters of a model that is not fitted yet; all of them, or none if one is refused.

        Returns:
            The model itself.

        Raises:
            ConfigError: unknown parameter (with a suggestion), or a value out of range.
            ModeError: fitted already.
        """
        self._check_changeable()
        self.config = build(self.Config, self.get_params() | self.modern(params), self.name)
        return self

    @final
    @classmethod
    def modern(cls, params: Mapping[str, Any], *, tell: bool = True) -> dict[str, Any]:
        """Parameters by their present names.

        Args:
            params: name -> value, as a user gives them, or as a file keeps them that an earlier version wrote.
            tell: note each old name; not for a file's.

        Raises:
            ConfigError: a parameter is given by its old and its new name.
        """
        return modern(params, [f.name for f in fields(cls.Config)], cls.name, tell=tell)

    def _check_changeable(self) -> None:
        """Raise if the parameters are settled."""


def _specs(cls: type[Configured]) -> list[FieldSpec]:
    try:
        return fields(cls.Config)
    except (KeyError, TypeError) as e:
        raise ConfigError(
            f"{cls.__name__}.Config: must be a frozen dataclass whose fields are made by veilset.option(default, doc) "
            f"({type(e).__name__}: {e})"
        ) from e


def annotation(spec: FieldSpec) -> Any:
    """The type of one parameter: what it is declared as, its choices, and None if None is its default."""
    kind: Any = Literal[spec.rules["choices"]] if spec.rules["choices"] else spec.type
    return kind | None if spec.default is None else kind


def signature(specs: list[FieldSpec]) -> inspect.Signature:
    """Keyword-only parameters with types and defaults."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [inspect.Parameter(f.name, kind, default=f.default, annotation=annotation(f)) for f in specs]
    )


def section(specs: list[FieldSpec]) -> str:
    """The part of a docstring that says what each parameter is: type, range, default and meaning."""
    lines = [HEADING]
    for f in specs:
        facts = [f.type.__name__, f.range, "default: derived" if f.default is None else f"default {f.default!r}"]
        lines.append(f"    {f.name} ({', '.join(filter(None, facts))}): {f.doc}")
    return "\n".join(lines)
