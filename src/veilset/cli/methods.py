"""List the methods, built in and plugged in."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="load every one, and fail loudly if a plug-in does not load"
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.methods.catalogue import method_class, methods

    table, broken = methods(), {}
    if args.check:
        from veilset.core.errors import VeilsetError

        for name in table:
            try:
                method_class(name)
            except VeilsetError as e:
                broken[name] = str(e)
    lines = [f"{name:<14} {broken.get(name, words)}" for name, words in table.items()]
    say(args, {"methods": table, "broken": broken}, "\n".join(lines))
    return 1 if broken else 0
