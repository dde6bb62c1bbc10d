"""`veilset VERB ...`. One verb per file; a verb's file, and what it needs, is imported only when the verb is used."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from veilset.cli._verb import MethodVerb, PlainVerb

GROUPS = {
    "prepare": {
        "data": "declare, check, convert, fetch or clean image sets",
        "methods": "list the methods",
        "recommend": "say which method to take for a set and a budget, and why",
        "plan": "show every release and its price before any record is read",
    },
    "release": {
        "fit": "learn from private images under a budget",
        "tune": "search hyper-parameters at a price that is printed first",
        "continual": "release classes task by task, under one claim that is known from the start",
        "sample": "draw a synthetic labelled set with its receipt",
        "predict": "label images with a teacher that was fitted",
        "report": "write one page to show",
    },
    "prove": {
        "verify": "recompute the claim and every hash",
        "account": "what all runs on a set may cost together",
        "claim": "recompute the epsilon of a published run from its constants",
        "sign": "sign a receipt (optional)",
        "selftest": "check that this installation samples, clips, noises and pays as it accounts",
        "audit": "attack the claim of a method, run or the gate: the largest epsilon that can be disproved",
    },
    "measure": {
        "evaluate": "measure a synthetic set against real images",
        "reference": "buy a noisy reference of a private set once, to compare with for free",
        "attack": "attack the people in a research run: who can be told to have been in it?",
        "bench": "run a suite of measurements, in the repository",
    },
}
VERBS = {name: words for group in GROUPS.values() for name, words in group.items()}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are veilset's: one line, then exit."""

    def error(self, message: str) -> Any:
        from veilset.core.errors import ConfigError

        raise ConfigError(f"{message}; see `{self.prog} --help`")


def parser() -> Parser:
    """The top-level parser: verbs and their one-line help."""
    import veilset

    lines = ["verbs, by what you do:"]
    for group, verbs in GROUPS.items():
        lines += ["", f"  {group}", *(f"    {name:<10} {words}" for name, words in verbs.items())]
    lines += ["", "`veilset VERB --help` shows the options of one."]
    top = Parser(
        prog="veilset", usage="veilset [-h] [--version] VERB ...", description=veilset.__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog="\n".join(lines),
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"veilset {veilset.__version__}")
    return top


def verb_parser(name: str) -> tuple[PlainVerb | MethodVerb, Parser]:
    """A verb, and the parser of what follows it."""
    module: Any = import_module(f"veilset.cli.{name}")
    verb = Parser(prog=f"veilset {name}", description=module.__doc__, allow_abbrev=False)
    verb.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    module.add(verb)
    return module, verb


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 only on success."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        from veilset.core.errors import ConfigError, VeilsetError
        from veilset.privacy.run.process_group import Team
    except KeyboardInterrupt:
        return 130
    try:
        if not argv or argv[0] not in VERBS:
            return _no_verb(argv)
        if argv[0] != "fit" and Team().size > 1:
            raise ConfigError(f"verb {argv[0]!r} runs in one process; only fit can share its work: leave out torchrun")
        module, verb = verb_parser(argv[0])
        if isinstance(module, MethodVerb):
            named = module.METHOD_FIRST and len(argv) > 2 and not argv[1].startswith("-")
            if {"-h", "--help"} & set(argv) and named:
                from veilset.cli._spec import help_fields

                verb.formatter_class, verb.epilog = argparse.RawDescriptionHelpFormatter, help_fields(argv[1])
            args, rest = verb.parse_known_args(module.words(argv[1:]))
            _quiet(args)
            return int(module.run_with_rest(args, rest, verb) or 0)
        args = verb.parse_args(argv[1:])
        _quiet(args)
        return int(module.run(args) or 0)
    except VeilsetError as e:
        complain(e)
        return 2
    except KeyboardInterrupt:
        ways = {"fit": " Go on with the same command and --resume.", "continual": " Go on with the same command."}
        again = ways.get(argv[0], "")
        if Team().first:
            print(f"\nveilset: interrupted.{again}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as e:  # a full disk, a folder without permission
        complain(f"{e.filename or 'a file'}: {e.strerror or e}; check the path and the disk")
        return 2
    except RecursionError:
        complain("a file is nested too deeply; nothing was written, and veilset wrote no such file")
        return 2


def _no_verb(argv: list[str]) -> int:
    from veilset.core.errors import ConfigError, suggest

    if argv and not argv[0].startswith("-"):
        raise ConfigError(f"verb {argv[0]!r} is unknown.{suggest(argv[0], VERBS)} Verbs: {', '.join(VERBS)}")
    parser().parse_args(argv)
    parser().print_help()
    return 0 if argv else 2


def _quiet(args: argparse.Namespace) -> None:
    import warnings

    from veilset.core.errors import Note
    from veilset.core.progress import be_quiet
    from veilset.privacy.run.process_group import Team

    def told(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        """In one line, without the place in the code, which means nothing to a user; libraries' own are left out."""
        if issubclass(category, Note):
            complain(f"note: {message}")

    warnings.showwarning = told
    be_quiet(args.json or not Team().first)


def _who() -> str:
    """Who speaks: of several processes all tell their errors, each under its number."""
    from veilset.privacy.run.process_group import Team

    return "veilset" if Team().first else f"veilset (process {Team().rank})"


def complain(words: object) -> None:
    """Print an error in one line, whatever is in the names that it holds."""
    from veilset.core.rendering import one_line

    print(f"{_who()}: {one_line(words)}", file=sys.stderr)


def tell(line: str) -> None:
    """Print a line of progress on stderr."""
    from veilset.core.rendering import legible

    print(legible(line), file=sys.stderr)


def say(args: argparse.Namespace, facts: dict[str, Any], text: str, *, colour: int | None = None) -> None:
    """Print `facts` as JSON under --json, else `text`; of several processes only the first one does.

    Args:
        args: of the verb.
        facts: plain values.
        text: for people.
        colour: of the last line of `text`, as terminals number them.
    """
    from veilset.core.rendering import legible
    from veilset.privacy.run.process_group import Team

    if not Team().first:
        return
    if args.json:
        print(legible(json.dumps(facts, allow_nan=False, ensure_ascii=False)))
        return
    *rows, last = legible(text, lines=True).split("\n")
    print("\n".join([*rows, last if colour is None else f"\033[1;{colour}m{last}\033[0m"]))


def number(text: str) -> float:
    """A float argument; inf and nan are let through to the check that names the field."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def finite(x: float) -> float | None:
    """None for infinity: JSON has no infinity."""
    return x if math.isfinite(x) else None


if __name__ == "__main__":
    sys.exit(main())
