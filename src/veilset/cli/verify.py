"""Recompute epsilon from the ledger and the hash of every file. Needs nothing but the folder.

Exit status: 0 everything holds, 1 a check failed, 3 all recomputes, but the version that made it has a known fault.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veilset.privacy.receipt import Verification


FAULTY = 3  # exit status for what recomputes by the rules of a version that was wrong


def _colour(result: Verification) -> int | None:
    """Of the last line, which is the verdict: green, amber or red; on a terminal only."""
    colour = 31 if not result.ok else 32 if result.release else 33
    return colour if sys.stdout.isatty() else None


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN|DIR", help="what `fit`, `sample` or `continual` wrote")
    parser.add_argument("--key", metavar="FILE", help="public key (PEM) of the expected signer; requires its signature")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.continual.check import is_stream, verify_stream
    from veilset.privacy.receipt import verify

    result = (verify_stream if is_stream(args.folder) else verify)(args.folder, args.key)
    say(args, result.to_json(), str(result), colour=_colour(result))
    return 0 if result.ok else FAULTY if result.recomputes else 1
