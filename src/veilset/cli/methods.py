"""List the methods, built in and plugged in, and apart from them the teachers, which predict."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="load every one, and fail loudly if a plug-in does not load"
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.methods.catalogue import method_class, methods
    from veilset.methods.teachers import teacher_class, teachers

    table, apart, broken = methods(), teachers(), {}
    if args.check:
        from veilset.core.errors import VeilsetError

        for name in (*table, *apart):
            try:
                (teacher_class if name in apart else method_class)(name)
            except Exception as e:  # a method may fail to load in any way; say which and why, and go on
                broken[name] = str(e) if isinstance(e, VeilsetError) else f"{type(e).__name__}: {e}"
    lines = [f"{name:<14} {broken.get(name, words)}" for name, words in (table | apart).items()]
    lines.insert(len(table), "\nteachers (they predict and draw no images; see veilset.make_teacher):")
    say(args, {"methods": table, "teachers": apart, "broken": broken}, "\n".join(lines))
    return 1 if broken else 0
