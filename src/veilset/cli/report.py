"""Write one self-contained page: samples, the claim in plain words, releases, measures, how to verify."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN|DIR", help="what `fit` or `sample` wrote")
    parser.add_argument("--out", metavar="FILE", help="default: beside the folder, NAME-report.html")
    parser.add_argument(
        "--metrics", metavar="FILE", help="JSON written by `evaluate --out`; default: the run's last ones"
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.io import read_json
    from veilset.report.page import write_report

    folder = Path(args.folder)
    kept = folder / "private" / "metrics.json"
    source = Path(args.metrics) if args.metrics else kept if kept.exists() else None
    page = write_report(folder, args.out, scores=read_json(source) if source else None)
    say(args, {"report": str(page)}, f"page written to {page}")
    return 0
