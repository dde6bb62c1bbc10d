"""Run a suite of measurements. Finished cells are kept and skipped the next time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.bench.suite import SUITES

    parser.add_argument("name", metavar="NAME", help=" | ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help="a small form, on digits, in a temporary folder")
    parser.add_argument("--out", default="benchmarks", metavar="DIR", help="default ./benchmarks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time (default: cores)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells whose name holds TEXT")


def run(args: argparse.Namespace) -> int:
    from veilset.bench.suite import run_suite

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp) if args.quick else Path(args.out)
        result = run_suite(args.name, folder, quick=args.quick, jobs=args.jobs, only=args.only, tell=tell)
        print(json.dumps(result) if args.json else (folder / "README.md").read_text())
    return 0
