"""Recompute epsilon from the ledger and the hash of every file. Needs nothing but the folder."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN|DIR", help="what `fit` or `sample` wrote")
    parser.add_argument("--key", metavar="FILE", help="public key (PEM) of the expected signer; requires its signature")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.privacy.receipt import verify

    result = verify(args.folder, args.key)
    say(args, result.to_json(), str(result))
    return 0 if result.ok else 1
