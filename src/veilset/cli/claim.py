"""Recompute the epsilon of a published run from its constants, by two accountants, with the reason if it differs.

PRESET is a published run (`--list`); or give --mechanism and all of its constants. This is arithmetic about other
people's numbers and never a claim of this package.
"""

from __future__ import annotations

import argparse

CONSTANTS = {
    "noise_multiplier": ("S", "noise / sensitivity; of a row for shards, in votes for count, votes, signs and laplace"),
    "rows": ("B", "rows, or answers, per step"),
    "shards": ("K", "hidden models"),
    "sample_rate": ("Q", "batch / records"),
    "steps": ("T", "steps"),
    "nonzeros": ("N", "non-zero signs of one model's answer"),
}


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.cli.main import number
    from veilset.published.mechanisms import MECHANISMS

    parser.add_argument("preset", nargs="?", metavar="PRESET", help="a published run")
    parser.add_argument("--list", action="store_true", help="list presets and mechanisms")
    parser.add_argument("--mechanism", metavar="M", help=", ".join(MECHANISMS))
    for name, (letter, words) in CONSTANTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=number, metavar=letter, help=words)
    parser.add_argument("--delta", type=number, metavar="D", help="default 1e-5")
    parser.add_argument("--printed", type=number, metavar="E", help="the epsilon that was printed")


def run(args: argparse.Namespace) -> int:
    from veilset.cli.main import say
    from veilset.published.mechanisms import MECHANISMS
    from veilset.published.recompute import claim
    from veilset.published.runs import RUNS

    if args.list:
        titles = {name: r.title for name, r in RUNS.items()}
        forms = {name: " ".join(f"--{c.replace('_', '-')}" for c in m.constants) for name, m in MECHANISMS.items()}
        lines = [f"{name:<20} {title}" for name, title in titles.items()]
        lines += [
            "",
            "mechanisms:",
            *(f"{n:<20} {MECHANISMS[n].words}\n{'':<20} {f}".rstrip() for n, f in forms.items()),
        ]
        say(
            args,
            {"presets": titles, "mechanisms": {n: list(m.constants) for n, m in MECHANISMS.items()}},
            "\n".join(lines),
        )
        return 0
    given = {name: _whole(getattr(args, name)) for name in CONSTANTS}
    found = claim(args.preset, mechanism=args.mechanism, delta=args.delta, printed=args.printed, **given)
    say(args, found.to_json(), str(found))
    return 0


def _whole(x: float | None) -> float | None:
    """A whole number as an int: 32.0 rows are 32."""
    return int(x) if x is not None and x == x and abs(x) < 2**53 and x == int(x) else x
