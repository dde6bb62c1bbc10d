"""Method parameters: one frozen dataclass per method. Command-line help, docs table and range checks derive from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from veilset.core.errors import ConfigError, suggest
from veilset.core.renamed import modern

T = TypeVar("T")


def option(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one field of a config: its default, what it means, and the values it may take.

    A default of None means "derived from declared facts"; the doc says by which rule.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     steps: int = vs.option(100, "gradient steps", ge=1)
        >>> Config().steps
        100
    """
    rules = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    return dataclasses.field(default=default, metadata={"doc": doc, "rules": rules})


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """What the command line, the docs and the checks know about one field."""

    name: str
    type: type
    default: Any
    doc: str
    rules: Mapping[str, Any]

    @property
    def range(self) -> str:
        """The allowed values in words, for help and docs."""
        if self.rules["choices"]:
            return " | ".join(self.rules["choices"])
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        return ", ".join(f"{sign} {self.rules[k]:g}" for k, sign in signs.items() if self.rules[k] is not None)


def fields(config: type) -> list[FieldSpec]:
    """The fields of a config class, in order."""
    hints = get_type_hints(config)
    out = []
    for f in dataclasses.fields(config):
        kinds = [a for a in getattr(hints[f.name], "__args__", (hints[f.name],)) if a is not type(None)]
        out.append(FieldSpec(f.name, kinds[0], f.default, f.metadata["doc"], f.metadata["rules"]))
    return out


def _check(spec: FieldSpec, value: Any) -> Any:
    """Return the value in its declared type, or raise ConfigError."""
    if value is None and spec.default is None:
        return None
    fail, kind = f"{spec.name} = {value!r}: must be", "true or false" if spec.type is bool else spec.type.__name__
    if isinstance(value, str) and spec.type is not str:
        try:
            if spec.type is bool:
                value = {"true": True, "false": False, "1": True, "0": False}[value.lower()]
            else:
                value = spec.type(value)
        except (ValueError, KeyError):
            raise ConfigError(f"{fail} {kind}") from None
    if spec.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not spec.type:
        raise ConfigError(f"{fail} {kind}")
    r = spec.rules
    if r["choices"] and value not in r["choices"]:
        raise ConfigError(f"{fail} one of {', '.join(r['choices'])}.{suggest(str(value), r['choices'])}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{fail} finite")
    bad = (
        (r["ge"] is not None and value < r["ge"])
        or (r["gt"] is not None and value <= r["gt"])
        or (r["le"] is not None and value > r["le"])
        or (r["lt"] is not None and value >= r["lt"])
    )
    if bad:
        raise ConfigError(f"{fail} {spec.range}")
    return value


def build(config: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Make a config from names and values (strings are converted), checking names, types and ranges.

    Names of earlier versions are taken, with a note.

    Args:
        config: the frozen dataclass.
        values: field name -> value.
        owner: what the parameters belong to, for the message (a method name).

    Raises:
        ConfigError: unknown name (with a suggestion), old and new name of one parameter, wrong type, or out of range.
    """
    specs = {s.name: s for s in fields(config)}
    values = modern(values, specs, owner)
    for name in values:
        if name not in specs:
            known = ", ".join(specs) or "none"
            raise ConfigError(f"{owner} has no parameter {name!r}.{suggest(name, specs)} It takes: {known}")
    return config(**{name: _check(specs[name], value) for name, value in values.items()})
