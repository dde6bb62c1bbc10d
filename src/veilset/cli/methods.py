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
            except Exception as e:  # a method may fail to load in any way; say which and why, and go on
                broken[name] = str(e) if isinstance(e, VeilsetError) else f"{type(e).__name__}: {e}"
    lines = [f"{name:<14} {broken.get(name, words)}" for name, words in table.items()]
    say(args, {"methods": table, "broken": broken}, "\n".join(lines))
    return 1 if broken else 0
