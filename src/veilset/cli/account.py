"""The privacy account of a set: a cap on what all runs on it may cost together, however they are chosen.

`create` makes the file, `fit --account FILE` and other verbs draw from it, `charge` writes down what was released
without it, `show` prints what is left.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.cli.main import number

    what = parser.add_subparsers(dest="what", metavar="show | create | charge", required=True)
    show = what.add_parser("show", help="print cap, charges and what is left")
    show.add_argument("file", metavar="FILE", help="the account")
    show.add_argument("--expect", metavar="HEAD", help="a head kept elsewhere: fail if the file was set back")
    create = what.add_parser("create", help="make the account of a set")
    create.add_argument("file", metavar="FILE", help="file to make; keep it beside the set, not in a run")
    create.add_argument("--data", required=True, metavar="D", help="the set it is for")
    create.add_argument("--epsilon", required=True, type=number, metavar="E", help="cap on all runs together")
    create.add_argument("--delta", type=number, default=1e-5, help="default 1e-5; must be below 1/N")
    create.add_argument("--allow-large-delta", action="store_true", help="accept delta >= 1/N")
    charge = what.add_parser("charge", help="pay for a Gaussian release made elsewhere, or write down a run")
    charge.add_argument("file", metavar="FILE", help="the account")
    charge.add_argument("--run", metavar="RUN", help="a run, release or stream folder that was made without it")
    charge.add_argument("--noise-multiplier", type=number, metavar="S", help="or: Gaussian noise / L2 sensitivity")
    charge.add_argument("--sample-rate", type=number, default=1.0, metavar="Q", help="of Poisson sampling (default 1)")
    charge.add_argument("--steps", type=int, default=1, metavar="T", help="number of releases (default 1)")
    charge.add_argument("--released", action="store_true", help="it is out already: write it down, covered or not")
    charge.add_argument("--purpose", metavar="WORDS", help="what it was for")
    for verb in (show, create, charge):
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.continual.check import draw_stream, is_stream
    from veilset.core.errors import ConfigError
    from veilset.data.load import load
    from veilset.privacy.account import Account
    from veilset.privacy.plan import Release
    from veilset.privacy.spec import Privacy
    from veilset.runs import draw_run

    account = Account(Path(args.file))
    if args.what == "create":
        account.create(load(args.data).info, Privacy(args.epsilon, args.delta, args.allow_large_delta))
    elif args.what == "show" and args.expect:
        account.check_holds(args.expect)
    elif args.what == "charge":
        if (args.run is None) == (args.noise_multiplier is None):
            raise ConfigError("charge: give either --run RUN or --noise-multiplier S")
        if args.run is not None:
            kind, draw = ("stream", draw_stream) if is_stream(args.run) else ("run", draw_run)
            draw(account, args.run, args.purpose or f"{kind} {Path(args.run).name}")
        else:  # a Release checks the ranges
            facts = {"sample_rate": args.sample_rate, "steps": args.steps}
            one = Release(name="by-hand", noise_multiplier=args.noise_multiplier, **facts)
            spent = one.spent(args.noise_multiplier, 1)
            account.draw(None, spent, args.purpose or "by hand", released=args.released)
    balance = account.balance()
    say(args, balance.to_json(), str(balance))
    return 0
