"""Write one self-contained page about a run: samples, claim, audit, risk sheet, releases, measures, how to verify.

Several runs make one page that compares them: claims, quality against epsilon, figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="RUN|DIR", nargs="+", help="what `fit` or `sample` wrote; several compare")
    parser.add_argument("--out", metavar="FILE", help="default for one: beside the folder, NAME-report.html")
    parser.add_argument(
        "--metrics", metavar="FILE", help="JSON written by `evaluate --out`; default: the run's last ones"
    )
    parser.add_argument(
        "--audit", metavar="FILE", help="JSON written by `audit`; default: the run's last one, or NAME-audit.json"
    )
    parser.add_argument(
        "--nearest",
        metavar="D",
        help="show each sample beside the nearest training image of D, a research run's set; written to "
        "RUN/private/report.html, for the owner only",
    )


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.core.errors import ConfigError
    from veilset.core.io import read_json
    from veilset.report.page import write_comparison, write_report

    if len(args.folders) > 1:
        if args.metrics or args.audit or args.nearest:
            raise ConfigError("--metrics, --audit and --nearest are for one run; leave them out to compare several")
        if not args.out:
            raise ConfigError("out: a comparison needs --out FILE, for example --out runs.html")
        page = write_comparison(args.folders, args.out)
    else:
        scores = read_json(Path(args.metrics).resolve()) if args.metrics else None
        page = write_report(args.folders[0], args.out, scores=scores, audit=args.audit, nearest=args.nearest)
    say(args, {"report": str(page)}, f"page written to {page}")
    return 0
