"""Learn from private images under a budget, into a new run folder. A --seed makes it research, not a release.

Without METHOD, the best benchmarked method (`veilset recommend` says more).
Several processes: torchrun --nproc-per-node 2 -m veilset.cli.main fit ... (set OMP_NUM_THREADS to cores / processes).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from veilset.cli import _spec

METHOD_FIRST, words = True, _spec.with_method


def add(parser: argparse.ArgumentParser) -> None:
    _spec.add(parser)
    parser.add_argument("--out", required=True, metavar="RUN", help="run folder to make")
    parser.add_argument("--seed", type=int, help="research mode: repeatable, and stamped NOT A RELEASE")
    parser.add_argument("--device", default="cpu", help="where torch computes (default cpu)")
    parser.add_argument("--account", metavar="FILE", help="the set's privacy account, which pays for this run")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same arguments")


def run_with_rest(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.cli.main import say
    from veilset.privacy.run.process_group import Team
    from veilset.runs import execute

    spec = _spec.spec(args, rest, parser)
    wanted = Team().first and not args.json
    if wanted and (args.resume or not Path(args.out).exists()):  # else it is refused, in one line
        print(spec.plan(), file=sys.stderr)
    model = execute(spec, args.out, resume=args.resume)
    assert model.receipt_ is not None
    notes = "".join(f"\nnote      {line}" for line in model.notes())
    say(
        args,
        {"receipt": model.receipt_.facts, "notes": model.notes()},
        f"{model.receipt_}{notes}\nrun       {args.out}",
    )
    return 0
