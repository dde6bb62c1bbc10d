"""List the methods of each kind, built in and plugged in: synthesizers draw images, teachers label them."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="load every one, and fail loudly if a plug-in does not load"
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.methods.catalogue import KINDS, any_class, methods, registry, teachers

    table, broken = registry(), {}
    if args.check:
        from veilset.core.errors import VeilsetError

        for name in table:
            try:
                any_class(name)
            except Exception as e:  # a method may fail to load in any way; say which and why, and go on
                broken[name] = str(e) if isinstance(e, VeilsetError) else f"{type(e).__name__}: {e}"
    parts = []
    for kind, does in KINDS.items():
        own = [f"{name:<14} {broken.get(name, e.summary)}" for name, e in table.items() if e.kind == kind]
        parts.append("\n".join([f"{kind}s, each {does}:", *own]))
    say(args, {"methods": methods(), "teachers": teachers(), "broken": broken}, "\n\n".join(parts))
    return 1 if broken else 0
