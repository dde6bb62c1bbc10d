"""Sign a receipt with an Ed25519 key, or make such a key. A signature defeats a rewrite of the whole chain."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="RUN|DIR", help="what `fit` or `sample` wrote")
    parser.add_argument("--key", metavar="FILE", help="private key (PEM)")
    parser.add_argument("--new-key", metavar="FILE", help="make a key pair: FILE and FILE.pub")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import ConfigError
    from veilset.core.listing import RECEIPT, SIGNATURE
    from veilset.core.signing import new_key, sign
    from veilset.privacy.receipt import verify

    if args.new_key:
        mark = new_key(args.new_key)
        say(args, {"fingerprint": mark}, f"key {args.new_key}, public half {args.new_key}.pub\nfingerprint {mark}")
        return 0
    if not (args.folder and args.key):
        raise ConfigError("sign: give a folder and --key FILE, or --new-key FILE")
    folder = Path(args.folder).resolve()
    before = verify(folder)
    if before.known_fault:
        raise ConfigError(f"{folder}: its claim is not signed: {before.known_fault}")
    if not all(c["ok"] for c in before.checks if c["name"] != "signature"):
        raise ConfigError(f"{folder} does not verify, so it is not signed; run `veilset verify {folder}`")
    mark = sign(folder / RECEIPT, args.key, folder / SIGNATURE)
    say(args, {"fingerprint": mark}, f"signed; fingerprint {mark}")
    return 0
