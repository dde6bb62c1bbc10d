"""Say which method and split of the budget to take for a set's declared facts, and why. No record is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veilset.recommend.recommend import Candidate

REFERENCE = "mnist"  # whose declared facts stand in when no set is named


def add(parser: argparse.ArgumentParser) -> None:
    from veilset.cli.main import number
    from veilset.recommend.recommend import GOALS

    parser.add_argument("--data", metavar="D", help=f"a built-in name or a path (default: the facts of {REFERENCE})")
    parser.add_argument("--epsilon", type=number, default=1.0, metavar="E", help="privacy budget (default 1)")
    parser.add_argument("--delta", type=number, default=1e-5, help="default 1e-5; must be below 1/N")
    parser.add_argument("--minutes", type=number, metavar="M", help="the longest fit, on two cores (default: no limit)")
    parser.add_argument("--for", dest="goal", choices=GOALS, default=GOALS[0], help="what matters more")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from veilset.cli.main import say
    from veilset.data.load import load
    from veilset.recommend.recommend import recommend

    data = args.data or REFERENCE
    info = load(data).info
    advice = recommend(info, args.epsilon, delta=args.delta, minutes=args.minutes, goal=args.goal)
    delta = "" if args.delta == 1e-5 else f" --delta {args.delta:g}"
    command = f"veilset fit {advice.method} --data {data} --epsilon {args.epsilon:g}{delta} --out runs/{advice.method}"
    facts = {
        "method": advice.method,
        "reason": advice.reason,
        "data": info.to_json(),
        "epsilon": args.epsilon,
        "delta": args.delta,
        "measured_epsilon": advice.like[0],
        "comparable_epsilon": advice.like[1],
        "candidates": [asdict(c) for c in advice.candidates],
        "cautions": list(advice.cautions),
        "plan": advice.plan.to_json(),
        "command": command,
    }
    shape = "x".join(map(str, info.shape))
    head = f"{info.name}: {info.units} units in {len(info.classes)} classes, {shape}, epsilon {args.epsilon:g}"
    like = f"noise in a class mean as at epsilon {advice.like[1]:.3g} on the measured sets"
    lines = [f"take {advice.method} for {head}", f"why: {advice.reason}", ""]
    lines += [f"measured at epsilon {advice.like[0]:g} (here: {like})", *_table(advice.candidates), ""]
    lines += [str(advice.plan), *(f"caution: {c}" for c in advice.cautions), f"run: {command}"]
    say(args, facts, "\n".join(lines))
    return 0


def _table(found: Sequence[Candidate]) -> list[str]:
    from veilset.core.rendering import plus_minus

    sets = list(dict.fromkeys(r.data for c in found for r in c.rows))
    titles = [f"{what} {s}" for what in ("%", "FD") for s in sets]
    wide = [max(15, len(t)) + 2 for t in titles]
    first = max(15, *(len(c.method) for c in found))
    head = f"{'method':<{first}}" + "".join(f"{t:>{w}}" for t, w in zip(titles, wide, strict=True))
    head += f"{'seeds':>7}{'min here':>10}"
    lines = [head, "-" * len(head)]
    for c in found:
        of = {r.data: r for r in c.rows}
        texts = [plus_minus({"mean": of[s].accuracy, "sd": of[s].sd}, 1) if s in of else "" for s in sets]
        told = {s: {"mean": r.distance, "sd": r.distance_sd} for s, r in of.items() if r.distance is not None}
        texts += [plus_minus(told.get(s), 1) for s in sets]
        seeds = "-".join(map(str, sorted({r.seeds for r in c.rows})))
        minutes = "" if c.minutes is None else f"{c.minutes:.1f}"
        line = f"{c.method:<{first}}" + "".join(f"{t:>{w}}" for t, w in zip(texts, wide, strict=True))
        line += f"{seeds:>7}{minutes:>10}"
        lines.append(line + (f"  {c.why_not}" if c.why_not else ""))
    words = "%: accuracy of a CNN trained on the images; FD: Frechet distance on features of a public network (lite0), "
    return [*lines, f"{words}which is not FID"]
