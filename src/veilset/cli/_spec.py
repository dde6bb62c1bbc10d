"""Arguments that `plan`, `fit` and `tune` share: METHOD, --data, the budget, --recipe, and one --FIELD a parameter."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veilset.runs import RunSpec


def add(parser: argparse.ArgumentParser) -> None:
    """Add METHOD, --data, --epsilon, --delta, --allow-large-delta."""
    from veilset.cli.main import number

    parser.usage = f"{parser.prog} [METHOD] --data D --epsilon E [options] [--FIELD VALUE ...]"
    parser.epilog = f"`{parser.prog} METHOD --help` lists the method's own parameters; --FIELD alone sets one to true."
    parser.add_argument("method", metavar="METHOD", help="a name from `veilset methods`; see `veilset recommend`")
    parser.add_argument(
        "--data", required=True, metavar="D", help="digits, mnist, fashion-mnist, or a path with a declaration"
    )
    parser.add_argument(
        "--epsilon", required=True, type=number, metavar="E", help="privacy budget, above 0; inf: no privacy"
    )
    parser.add_argument("--delta", type=number, default=1e-5, help="default 1e-5; must be below 1/N")
    parser.add_argument("--recipe", metavar="NAME", help="a named set of the method's parameters, such as paper")
    parser.add_argument("--allow-large-delta", action="store_true", help="accept delta >= 1/N; the receipt shows it")


def with_method(words: Sequence[str]) -> list[str]:
    """The words after a verb, with the default method in front where the user names none."""
    from veilset.methods.catalogue import DEFAULT, registry

    none = bool(words) and words[0].startswith("-") and not set(words) & set(registry())
    return [DEFAULT, *words] if none else list(words)


def help_fields(method: str) -> str:
    """The parameters of a method, one line each, from its config."""
    from veilset.core.config import fields
    from veilset.methods.catalogue import any_class

    cls = any_class(method)
    lines = [f"parameters of {method}:"]
    for f in fields(cls.Config):
        default = "derived" if f.default is None else f.default
        lines.append(f"  --{f.name.replace('_', '-'):<18} {f.doc} [{f.range or f.type.__name__}; default {default}]")
    for name, values in cls.recipes.items():
        lines.append(f"recipe {name}: " + ", ".join(f"{k}={v}" for k, v in values.items()))
    return "\n".join(lines)


def spec(args: argparse.Namespace, rest: Sequence[str], parser: argparse.ArgumentParser) -> RunSpec:
    """The RunSpec of parsed arguments; `rest` holds the method's parameters."""
    from veilset.methods.catalogue import any_class
    from veilset.runs import RunSpec

    return RunSpec(
        method=args.method,
        data=args.data,
        epsilon=args.epsilon,
        delta=args.delta,
        allow_large_delta=args.allow_large_delta,
        seed=getattr(args, "seed", None),
        device=getattr(args, "device", "cpu"),
        account=getattr(args, "account", None),
        params=any_class(args.method).modern(_params(rest, parser, own(args.method))),
        recipe=args.recipe,
    )


def own(method: str) -> dict[str, bool]:
    """The parameters of a method, by present and by old names, and whether each is a flag."""
    from veilset.core.config import fields
    from veilset.core.renamed import RENAMED
    from veilset.methods.catalogue import any_class

    now = {f.name: f.type is bool for f in fields(any_class(method).Config)}
    return {old: now[new] for old, several in RENAMED.items() for new in several if new in now} | now


def _params(rest: Sequence[str], parser: argparse.ArgumentParser, known: Mapping[str, bool]) -> dict[str, Any]:
    """--steps 200 or --steps=200 -> {"steps": "200"}; of flags, --prior -> {"prior": "true"}; `known` as from own()."""
    from veilset.core.errors import ConfigError, suggest

    options = [s for a in parser._actions for s in a.option_strings]  # noqa: SLF001 no other way
    out: dict[str, Any] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"argument {word!r} is not understood; parameters look like --NAME VALUE")
        name, eq, value = word.partition("=")
        if name == "--method":
            raise ConfigError("--method: the method is named without it, as in `veilset fit dp-moments`")
        key = name[2:].replace("-", "_")
        if not eq and words and not words[0].startswith("--"):
            value = words.pop(0)
        elif not eq and known.get(key):
            value = "true"
        elif not eq:
            meant = "" if key in known else suggest(name, options)
            raise ConfigError(f"{name}: a value is missing; write {name} VALUE.{meant}")
        if key in out:
            raise ConfigError(f"{name} is given twice")
        out[key] = value
    return out
