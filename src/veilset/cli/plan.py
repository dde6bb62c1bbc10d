"""Show every release of a method with its noise and share of the budget. No record is read.

Without METHOD, of the default method of `veilset fit`.
"""

from __future__ import annotations

import argparse

from veilset.cli import _spec

add, words, METHOD_FIRST = _spec.add, _spec.with_method, True


def run_with_rest(args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
    from veilset.cli.main import say

    plan = _spec.spec(args, rest, parser).plan()
    say(args, plan.to_json(), str(plan))
    return 0
