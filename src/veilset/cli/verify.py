"""Recompute epsilon from the ledger and the hash of every file. Needs nothing but the folder."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veilset.privacy.receipt import Verification


def _coloured(result: Verification) -> str:
    """The last line, which is the verdict, in green, amber or red."""
    colour = 31 if not result.ok else 32 if result.release else 33
    *rows, verdict = str(result).splitlines()
    return "\n".join([*rows, f"\033[1;{colour}m{verdict}\033[0m"])


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN|DIR", help="what `fit`, `sample` or `continual` wrote")
    parser.add_argument("--key", metavar="FILE", help="public key (PEM) of the expected signer; requires its signature")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.continual.check import is_stream, verify_stream
    from veilset.privacy.receipt import verify

    result = (verify_stream if is_stream(args.folder) else verify)(args.folder, args.key)
    say(args, result.to_json(), _coloured(result) if sys.stdout.isatty() else str(result))
    return 0 if result.ok else 1
