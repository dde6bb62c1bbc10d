"""Attack a claim: print the largest epsilon that is disproved. A large one shows a fault, a small one nothing.

Levels: `mechanism` asks the gate thousands of times about worst-case neighbours; `canaries` runs a whole plan once,
with a thousand canaries; `images` attacks the images of thousands of tiny trainings; `nearest` attacks the images of a
research run (it reads raw records). Exit status: 0 no fault shown, 1 a fault, 3 too few draws to show one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veilset.audit.ladder import Target

METHOD_FIRST, words = True, list[str]
NOTHING = 3  # exit status of an audit that could not have shown a fault


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.cli.main import number

    parser.usage = f"{parser.prog} RUN|METHOD|gate [options] [--FIELD VALUE ...]"
    parser.add_argument("target", metavar="RUN|METHOD|gate", help="a run, a method's plan, or every verb of the gate")
    parser.add_argument("--level", type=_list, metavar="A,B", help="mechanism, canaries, images, nearest")
    parser.add_argument("--epsilon", type=number, metavar="E", help="the claim (default 4; a run brings its own)")
    parser.add_argument("--delta", type=number, default=1e-5, help="default 1e-5")
    parser.add_argument("--data", default="digits", metavar="D", help="whose declared facts a method's plan is for")
    parser.add_argument("--recipe", metavar="NAME", help="a named set of the method's parameters")
    parser.add_argument("--allow-large-delta", action="store_true", help="accept delta >= 1/N")
    parser.add_argument(
        "--draws", type=int, help="mechanism: questions with and without the record (default: as many as it takes)"
    )
    parser.add_argument("--canaries", type=int, help="canaries: how many (default: as many as it takes)")
    parser.add_argument("--trainings", type=int, default=8000, help="images: how many (default 8000)")
    parser.add_argument("--candidates", type=int, default=2000, help="nearest: records asked about (default 2000)")
    parser.add_argument(
        "--outsiders", metavar="D", help="nearest: a set that was not in the run (default: its test split)"
    )
    parser.add_argument("--seed", type=int, help="repeat an audit; by default the gate runs in release mode")
    parser.add_argument("--out", metavar="FILE", help="write the result as JSON")


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def run_with_rest(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.audit.ladder import Effort, climb
    from veilset.cli.main import say, tell
    from veilset.core.errors import RunError
    from veilset.core.io import private_part, write_json
    from veilset.privacy.receipt import list_hash

    if args.out and Path(args.out).exists():
        raise RunError(f"{args.out} exists; choose another file")
    target = _target(args, rest, parser)
    effort = Effort(
        draws=args.draws, canaries=args.canaries, trainings=args.trainings, candidates=args.candidates,
        outsiders=args.outsiders, seed=args.seed,
    )  # fmt: skip
    result = climb(target, args.level or target.levels, effort, None if args.json else tell)
    facts = {"target": args.target, **result.to_json()}
    if target.folder:
        facts["files_sha256"] = list_hash(target.folder)  # so that a report knows which release the figures are of
    if args.out:
        write_json(Path(args.out), facts)
    home = private_part(target.folder) if target.folder else None
    if home:  # the report of a run shows its last audit
        write_json(home / "audit.json", facts, mode=0o600)
    say(args, facts, str(result))
    return {True: 0, False: 1, None: NOTHING}[result.ok]


def _target(args: argparse.Namespace, rest: Sequence[str], parser: argparse.ArgumentParser) -> Target:
    from veilset.audit.ladder import Target, run_target
    from veilset.cli._spec import spec
    from veilset.core.errors import ConfigError
    from veilset.privacy.spec import Privacy

    folder = Path(args.target)
    if rest and (folder.is_dir() or args.target == "gate"):
        raise ConfigError(f"{rest[0]}: only a method has parameters; see `{parser.prog} --help`")
    if folder.is_dir():
        if args.epsilon is not None:
            raise ConfigError("epsilon: a run brings its own claim; leave out --epsilon")
        return run_target(folder)
    epsilon = 4.0 if args.epsilon is None else args.epsilon
    if not Privacy(epsilon, args.delta, True).private:
        raise ConfigError("epsilon = inf: there is no claim to audit; give a finite one")
    if args.target == "gate":
        return Target(epsilon=epsilon, delta=args.delta)
    args.method, args.epsilon = args.target, epsilon
    return Target(epsilon=epsilon, delta=args.delta, plan=spec(args, rest, parser).plan())
