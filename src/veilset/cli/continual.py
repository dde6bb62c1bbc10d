"""A stream of tasks on one private set, each on some of its classes: sets that are released stay as they are.

`plan METHOD` prices all tasks and, with --out, makes the stream; no record is read. `fit STREAM` runs the next task
when its data is there, or goes on with an interrupted one. `show STREAM` says what is released. `veilset verify STREAM`
recomputes the claim of all tasks together.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from veilset.cli import _spec

WHAT = ("plan", "fit", "show")
METHOD_FIRST, words = False, list[str]


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar=" | ".join(WHAT), required=True)
    plan = what.add_parser("plan", help="price all tasks before any record is read, and make the stream")
    _spec.add(plan)
    plan.usage = (
        f"{plan.prog} METHOD --data D --epsilon E --classes A,B --classes C,D ... [options] [--FIELD VALUE ...]"
    )
    plan.epilog = "`veilset plan METHOD --help` lists the method's own parameters (the --FIELD options)."
    plan.add_argument(
        "--classes", required=True, action="append", metavar="A,B", help="classes of one task; once per task, in order"
    )
    plan.add_argument("--units", metavar="N,N", help="declared units of each task (default: N x its share of classes)")
    plan.add_argument("--per-class", type=int, default=10, metavar="N", help="images per class to release (default 10)")
    plan.add_argument(
        "--one-class-per-unit",
        action=argparse.BooleanOptionalAction,
        help="all images of a unit are of one class (default: yes if a unit is one image)",
    )
    plan.add_argument("--format", default="folder", choices=("folder", "npz", "parquet"), help="default folder: PNGs")
    plan.add_argument("--out", metavar="STREAM", help="folder to make; without it the plan is only shown")
    plan.add_argument("--account", metavar="FILE", help="the set's privacy account, which pays for all tasks now")
    plan.add_argument("--seed", type=int, help="research mode: repeatable, and stamped NOT A RELEASE")
    fit = what.add_parser("fit", help="run the next task, or go on with an interrupted one")
    fit.add_argument("stream", metavar="STREAM", help="a folder that `plan --out` made")
    fit.add_argument("--data", required=True, metavar="D", help="the set that the stream was planned for")
    fit.add_argument("--task", type=int, metavar="T", help="which task (default: the first one not released)")
    fit.add_argument("--device", default="cpu", help="where torch computes (default cpu)")
    show = what.add_parser("show", help="print tasks, what is released, and the claim")
    show.add_argument("stream", metavar="STREAM", help="a folder that `plan --out` made")
    for verb in (plan, fit, show):
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")


def run_with_rest(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.cli.main import say
    from veilset.continual.stream import TaskStream
    from veilset.core.errors import ConfigError
    from veilset.data.load import load

    if args.what == "plan":
        return _plan(args, rest, parser)
    if rest:
        raise ConfigError(f"argument {rest[0]!r} is not understood; see `veilset continual {args.what} --help`")
    stream = TaskStream(args.stream)
    if args.what == "show":
        say(args, stream.to_json(), str(stream))
        return 0
    receipt = stream.fit(load(args.data).train, args.task, device=args.device)
    say(args, {"receipt": receipt.facts, "stream": stream.to_json()}, f"{receipt}\n\n{stream}")
    return 0


def _plan(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.cli.main import say
    from veilset.continual.plan import Task, plan
    from veilset.continual.stream import TaskStream
    from veilset.core.errors import ConfigError
    from veilset.data.load import load

    spec = _spec.spec(args, rest, parser)
    tasks = [tuple(name.strip() for name in text.split(",") if name.strip()) for text in args.classes]
    units: list[Any] = [None] * len(tasks)
    if args.units is not None:
        words = args.units.split(",")
        if len(words) != len(tasks) or not all(w.strip().isdigit() for w in words):
            raise ConfigError(f"units = {args.units!r}: must be {len(tasks)} whole numbers with commas, one per task")
        units = [int(w) for w in words]
    facts: dict[str, Any] = {
        "method": spec.method,
        "epsilon": spec.epsilon,
        "params": spec.params,
        "recipe": spec.recipe,
    }
    priced = plan(
        load(spec.data).info,
        [Task(classes=names, units=n, **facts) for names, n in zip(tasks, units, strict=True)],
        delta=spec.delta,
        allow_large_delta=spec.allow_large_delta,
        one_class=args.one_class_per_unit,
        per_class=args.per_class,
        format=args.format,
    )
    done: dict[str, Any] = {}
    if args.out:
        account = Path(args.account) if args.account else None
        done["stream"] = TaskStream.create(priced, args.out, seed=args.seed, account=account).to_json()
    elif args.account or args.seed is not None:
        raise ConfigError("--account and --seed are of a stream that is made: give --out STREAM too")
    say(args, priced.to_json() | done, f"{priced}" + (f"\nstream    {args.out}" if args.out else ""))
    return 0
