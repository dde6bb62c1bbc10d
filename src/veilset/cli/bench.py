"""Run a suite of measurements. Finished results are kept and skipped the next time.

Suites and results lie in the repository, in `benchmarks/`; they are not part of the installed package.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.core.facts import cores

    parser.add_argument("name", metavar="NAME", help="such as leaderboard; a wrong name lists all")
    parser.add_argument("--quick", action="store_true", help="a small form, on digits, in a temporary folder")
    parser.add_argument("--out", metavar="DIR", help="default benchmarks/results of the repository")
    parser.add_argument("--jobs", type=int, default=cores(), help="results made at a time (default: cores)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only results whose name holds TEXT")
    parser.add_argument("--dry", action="store_true", help="run nothing; write the tables and say what is missing")
    parser.add_argument(
        "--stale", action="store_true", help="make again the results that the present code is not known to have made"
    )
    parser.add_argument("--list", action="store_true", help="with --stale: run nothing; name them, and what differs")
    some = parser.add_argument_group("which results to make, for suites that take them (default: all)")
    some.add_argument("--methods", type=_list, metavar="A,B", help="names from `veilset methods`")
    some.add_argument("--data", type=_list, metavar="A,B", help="digits, mnist, fashion-mnist")
    some.add_argument("--epsilon", type=_list, metavar="E,E", help="budgets; inf is one")
    some.add_argument("--network", metavar="NAME", help="classifier that judges, such as convnet or cnn")
    some.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1")


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _checkout() -> Path:
    """The repository that the working folder, or else this package, lies in."""
    from veilset.core.errors import ConfigError

    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[3]):
        if (folder / "benchmarks" / "runner" / "suite.py").exists():
            return folder
    raise ConfigError(
        "bench: suites are not part of the installed package; clone the repository (see `pip show -v veilset`) and "
        "run `veilset bench` in it"
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import ConfigError

    root = _checkout()
    sys.path.insert(0, str(root))
    from benchmarks.runner.suite import run_suite, section, stale_cells, suite_name

    name = suite_name(args.name)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    asked: dict[str, Any] = {k: getattr(args, k) for k in ("methods", "data", "epsilon", "seeds", "network")}
    options = {k: v for k, v in asked.items() if v is not None}
    how: dict[str, Any] = {"quick": args.quick, "jobs": args.jobs, "only": args.only, "dry": args.dry}
    if args.list and not args.stale:
        raise ConfigError("--list: lists what --stale would make; write --stale --list")
    if args.stale and (args.quick or args.dry):
        raise ConfigError("--stale: makes finished cells again; leave out --quick and --dry, or use --stale --list")
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp) if args.quick else Path(args.out or root / "benchmarks" / "results")
        if args.list:
            found = stale_cells(name, folder, only=args.only, options=options)
            facts = [{"cell": cell} | asdict(why) for cell, why in found]
            lines = [f"{cell}: {why}" for cell, why in found]
            say(args, {"stale": facts}, "\n".join(lines) or "the present code made every finished result")
            return 0
        result = run_suite(name, folder, **how, stale=args.stale, options=options, tell=tell)
        print(json.dumps(result) if args.json else section(name, folder))
    return 0
