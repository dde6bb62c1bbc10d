"""Try to tell the members of a research run from outsiders, with three controls. It reads raw records: no release.

Several models of the same method are fitted on the same records, so it takes about --shadows times as long as the fit.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder made with --seed (research mode)")
    parser.add_argument(
        "--outsiders", metavar="D", help="a set whose training records were not in the run (default: its test split)"
    )
    parser.add_argument("--targets", type=int, default=5000, help="members asked about, and outsiders (default 5000)")
    parser.add_argument("--shadows", type=int, default=8, help="shadow models, an even number (default 8)")
    parser.add_argument("-n", type=int, default=10_000, help="images drawn from each model (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the attack's own choices (default 0)")
    parser.add_argument("--drop-duplicates", action="store_true", help="leave out outsiders that equal a member")


def run(args: argparse.Namespace) -> int:
    from veilset.audit.membership.attack import attack
    from veilset.audit.membership.rendering import picture
    from veilset.cli.main import say, tell
    from veilset.core.io import no_links, write_bytes, write_json

    result = attack(
        args.folder,
        outsiders=args.outsiders,
        targets=args.targets,
        shadows=args.shadows,
        images=args.n,
        seed=args.seed,
        drop_duplicates=args.drop_duplicates,
        tell=None if args.json else tell,
    )
    home = no_links(Path(args.folder)) / "private"  # the figures are about private records
    write_json(home / "membership.json", result.to_json(), mode=0o600)
    write_bytes(home / "membership.svg", picture(result).encode(), mode=0o600)
    say(args, result.to_json(), f"{result}\nwritten   {home}/membership.json and membership.svg")
    return 0 if result.ok else 1
