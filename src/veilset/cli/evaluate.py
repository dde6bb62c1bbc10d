"""Measure a synthetic set against real images, over several seeds. What reads private records says so."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN|DIR", help="a run (images are drawn anew for each seed) or a sampled folder"
    )
    parser.add_argument("--against", required=True, metavar="D", help="the real set: its public test split is used")
    parser.add_argument("-n", type=int, default=60_000, help="images to draw from a run for each seed (default 60000)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--metrics", metavar="A,B", help="comma-separated; default all")
    parser.add_argument(
        "--research", action="store_true", help="read a private test split exactly; the figures are stamped"
    )
    parser.add_argument("--out", metavar="FILE", help="write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import RunError
    from veilset.core.io import write_json
    from veilset.evaluation.evaluate import evaluate

    folder = Path(args.folder)
    if args.out and Path(args.out).exists():
        raise RunError(f"{args.out} exists; choose another file")
    tell = None if args.json else lambda line: print(line, file=sys.stderr)
    names = args.metrics.split(",") if args.metrics else None
    scores = evaluate(
        _images(folder, args.n), _real(args.against, args.research), seeds=args.seeds, metrics=names, progress=tell
    )
    if args.out:
        write_json(Path(args.out), scores.to_json())
    if (folder / "private").is_dir():  # the report of a run shows its last measures
        write_json(folder / "private" / "metrics.json", scores.to_json(), mode=0o600)
    say(args, scores.to_json(), str(scores))
    return 0


def _images(folder: Path, n: int) -> Any:
    """A sampler for a run; the images themselves for a sampled folder."""
    from veilset.core.pictures import read_images
    from veilset.methods.catalogue import open_model
    from veilset.privacy.receipt import read_receipt

    if (folder / "model.json").exists():
        model = open_model(folder)
        return lambda seed: model.sample(n, seed=seed)
    facts = read_receipt(folder).facts
    return read_images(folder, tuple(facts["data"]["classes"]), facts["stamp"] or "SYNTHETIC")


def _real(source: str, research: bool) -> Any:
    from veilset.core.errors import ModeError
    from veilset.data.load import load
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import PrivateImages
    from veilset.privacy.spec import Privacy

    test = load(source).test
    if test is None:
        raise ModeError(f"{source} has no test split; add one (a `test` folder or a split column) or use another set")
    if not isinstance(test, PrivateImages):
        return test
    if not research:
        raise ModeError(
            f"the test split of {source} is private, so no exact measure of it may be released; "
            "declare it public if it is, or pass --research to get figures stamped private"
        )
    empty = Plan(()).price(Privacy(1.0, allow_large_delta=True), test.info)
    return Gate(test, empty, seed=0).inspect("evaluate")
