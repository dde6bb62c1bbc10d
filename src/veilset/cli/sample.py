"""Draw a synthetic labelled set from a run into a new folder, with ledger and receipt. Costs no privacy."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a finished run folder")
    parser.add_argument("-n", type=int, required=True, metavar="N", help="how many images")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--format", default="folder", choices=("folder", "npz", "parquet"), help="default folder: PNGs")
    parser.add_argument(
        "--class", dest="classes", action="append", metavar="NAME", help="only this class; may be repeated"
    )
    parser.add_argument("--mix", metavar="A=2,B=1", help="class weights that you declare; default: equal shares")
    parser.add_argument("--seed", type=int, help="repeat a draw")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import ConfigError
    from veilset.methods.catalogue import open_model

    mix = None
    if args.mix is not None:
        try:
            mix = {k.strip(): float(w) for k, w in (pair.rsplit("=", 1) for pair in args.mix.split(","))}
        except ValueError:
            raise ConfigError(f"mix = {args.mix!r}: must look like CLASS=WEIGHT,CLASS=WEIGHT") from None
    model = open_model(args.run)
    images = model.sample(args.n, classes=args.classes, mix=mix, seed=args.seed)
    model.write_samples(images, args.out, args.format)
    say(args, {"out": args.out, "n": args.n, "label": images.label}, f"{images}\nwritten to {args.out}")
    return 0
