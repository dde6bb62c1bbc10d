"""Buy a private reference of a set once, then compare any number of synthetic sets with it for free.

`plan` prices it before any record is read, `make` buys it, `show` prints it, and `veilset evaluate RUN --reference REF`
compares. `accuracy` buys noisy accuracies on a private test split instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="plan | make | show | accuracy", required=True)
    plan = what.add_parser("plan", help="the price, before any record is read")
    make = what.add_parser("make", help="buy a reference into a new folder")
    show = what.add_parser("show", help="verify a reference and print what it knows")
    accuracy = what.add_parser("accuracy", help="buy the accuracy on a private test split")
    show.add_argument("folder", metavar="REF", help="what `reference make` wrote")
    accuracy.add_argument("folder", metavar="RUN|DIR", help="a run or a sampled folder")
    for verb in (plan, make):
        verb.add_argument("data", metavar="D", help="a built-in name, or a path with a declaration")
        verb.add_argument("--split", default="train", choices=("train", "test"), help="which records (default train)")
    accuracy.add_argument("--against", required=True, metavar="D", help="the set whose private test split is used")
    accuracy.add_argument("--classifiers", default="logreg,cnn", metavar="A,B", help="default logreg,cnn")
    accuracy.add_argument("-n", type=int, default=60_000, help="images to draw from a run for each seed")
    accuracy.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3); their mean is released")
    for verb in (plan, make, accuracy):
        _budget(verb)
    for verb in (make, accuracy):
        verb.add_argument("--out", required=True, metavar="DIR", help="folder to make")
        verb.add_argument("--account", metavar="FILE", help="the set's privacy account, which pays")
        verb.add_argument(
            "--seed" if verb is make else "--noise-seed", dest="seed", type=int, help="research mode: repeatable noise"
        )
    make.add_argument("--resume", action="store_true", help="go on with an interrupted purchase")
    for verb in (plan, make, show, accuracy):
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def _budget(parser: argparse.ArgumentParser) -> None:
    from veilset.cli.main import number

    parser.add_argument("--epsilon", required=True, type=number, metavar="E", help="what it may cost")
    parser.add_argument("--delta", type=number, default=1e-5, help="default 1e-5; must be below 1/N")
    parser.add_argument("--allow-large-delta", action="store_true", help="accept delta >= 1/N; the receipt shows it")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say

    if args.what == "show":
        from veilset.evaluation.reference import open_reference

        found = open_reference(args.folder)
        say(args, found.to_json(), str(found))
    elif args.what == "accuracy":
        scores = _accuracy(args)
        say(args, scores.to_json(), str(scores))
    else:
        return _make(args)
    return 0


def _make(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.data.load import load
    from veilset.evaluation.buying import check_place
    from veilset.evaluation.reference import make_reference, reference_plan

    bundle = load(args.data)
    plan = reference_plan(bundle.info, _privacy(args))
    if args.what == "plan":
        say(args, plan.to_json(), str(plan))
        return 0
    records = bundle.train if args.split == "train" else _private_test(bundle, args.data)
    check_place(plan, Path(args.out), args.resume)
    if not args.json:
        print(plan, file=sys.stderr)
    made = make_reference(
        records,
        _privacy(args),
        args.out,
        split=args.split,
        seed=args.seed,
        resume=args.resume,
        account=_account(args),
    )
    say(args, made.to_json(), f"{made}\nreference {args.out}")
    return 0


def _accuracy(args: argparse.Namespace) -> Any:
    from veilset.cli.evaluate import _images
    from veilset.cli.main import tell
    from veilset.data.load import load
    from veilset.evaluation.paid_accuracy import buy_accuracy

    return buy_accuracy(
        _images(Path(args.folder), args.n),
        load(args.against).test,  # type: ignore[arg-type]
        _privacy(args),
        args.out,
        classifiers=args.classifiers.split(","),
        seeds=args.seeds,
        seed=args.seed,
        account=_account(args),
        progress=None if args.json else tell,
    )


def _privacy(args: argparse.Namespace) -> Any:
    from veilset.privacy.spec import Privacy

    return Privacy(args.epsilon, args.delta, args.allow_large_delta)


def _account(args: argparse.Namespace) -> Any:
    from veilset.privacy.account import Account

    return Account(Path(args.account)) if args.account else None


def _private_test(bundle: Any, source: str) -> Any:
    from veilset.core.errors import ModeError
    from veilset.privacy.private import PrivateImages

    test = bundle.test
    if isinstance(test, PrivateImages):
        return test
    why = "is public, so exact figures of it cost nothing" if test is not None else "is not there"
    raise ModeError(f"the test split of {source} {why}; leave out --split test")
