"""Check that this installation samples, clips, noises and pays as it accounts. Receipts show the last result."""

from __future__ import annotations

import argparse
import sys


def add(parser: argparse.ArgumentParser) -> None:
    """--theme; what is checked, and the limits, are fixed in advance."""
    from veilset.audit.selftest.run import THEMES

    width = max(map(len, THEMES))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "themes:\n" + "\n".join(f"  {name:{width}}  {what}" for name, what in THEMES.items())
    parser.add_argument(
        "--theme", action="append", default=[], metavar="NAME",
        help="only this theme, for a quick look that receipts will not show; may be repeated",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from veilset.audit.selftest.run import selftest
    from veilset.cli.main import say

    tell = (lambda line: None) if args.json else (lambda line: print(f"{line} ...", file=sys.stderr))
    result = selftest(tell, args.theme)
    say(args, result.to_json(), str(result))
    return 0 if result.ok else 1
