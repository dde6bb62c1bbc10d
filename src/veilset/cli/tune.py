"""Search hyper-parameters at a price that is printed first: a random number of private trials, the best one is kept.

--epsilon is the budget of the whole search. Give several values to a parameter, with commas: --FIELD A,B,C.
"""

from __future__ import annotations

import argparse
import sys

from veilset.cli import _spec

METHOD_FIRST, words = True, list[str]


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.tune import SCORES

    _spec.add(parser)
    parser.usage = f"{parser.prog} METHOD --data D --epsilon E --out RUN --FIELD A,B [--FIELD A,B ...] [options]"
    parser.add_argument("--out", metavar="RUN", help="run folder to make, with the best trial's model")
    parser.add_argument("--dry", action="store_true", help="print the price, read nothing")
    parser.add_argument("--trials", type=int, default=8, metavar="N", help="mean number of trials (default 8)")
    parser.add_argument(
        "--score", default=SCORES[0], choices=SCORES,
        help="what is best: noisy accuracy on private training images, paid for (default), or on synthetic ones, free",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="research mode: repeatable, and stamped NOT A RELEASE")
    parser.add_argument("--device", default="cpu", help="where torch computes (default cpu)")
    parser.add_argument("--account", metavar="FILE", help="the set's privacy account, which pays for the search")


def run_with_rest(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import ConfigError
    from veilset.core.progress import be_quiet
    from veilset.tune import Tuning, facts, price, tune

    if not args.dry and not args.out:
        raise ConfigError("--out RUN is missing; or give --dry to see the price only")
    spec = _spec.spec(args, rest, parser)
    grid = {name: [v.strip() for v in values.split(",")] for name, values in spec.params.items()}
    tuning = Tuning(
        method=spec.method, data=spec.data, epsilon=spec.epsilon, delta=spec.delta,
        allow_large_delta=spec.allow_large_delta, grid=grid, trials=args.trials, score=args.score, seed=spec.seed,
        recipe=spec.recipe, device=spec.device, account=spec.account,
    )  # fmt: skip
    priced = price(tuning)
    if args.dry:
        say(args, priced.to_json(), str(priced))
        return 0
    if not args.json:
        print(priced, file=sys.stderr)
    be_quiet(True)  # progress would tell how many trials there are
    model, score = tune(priced, args.out)
    chosen = ", ".join(f"{k} = {getattr(model.config, k)}" for k in priced.tuning.grid) or "the defaults"
    words = f"{model.receipt_}\nbest      {chosen}; score {score:.3f} ({args.score})\nrun       {args.out}"
    say(args, facts(priced, model, score), words)
    return 0
