"""The suite of the audit: how near to the claim bounds come, how often they are wrong, and that they see a fault."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.runner.quality import machine, machine_words
from benchmarks.runner.suite import Cell

COMMAND = "veilset bench audit"
ABOUT = """Lower bounds on epsilon at 95 %, delta 1e-5, one thread. Mechanism: a sound Gaussian release without
sampling, `draws` asks with the record and as many without; repeated with other seeds, the bound is above the claim in
`above` of the repetitions (a sound audit may in 5 %), and the verdict, at a family-wise error of 1e-4, is a fault in
`faults`. Images only: `draws` tiny trainings of a mean-embedding release, of which the attacker sees the images; with
the noise that the claim needs, and with half of it. Seconds of wall clock, and of the processor."""
EPSILONS = (1.0, 4.0, 10.0)
LEAST = {1.0: 0.5, 4.0: 3.2, 10.0: 8.5}  # what the project promises with 8,000 draws a world


def cells(quick: bool) -> list[Cell]:
    """Repeated bounds first, then single calls of the gate, images, and every verb."""
    repetitions, draws, trainings = (5, 1000, 400) if quick else (200, 8000, 8000)
    out = [
        Cell(f"mechanism.eps{e:g}", "mechanism", {"epsilon": e, "draws": draws, "repetitions": repetitions})
        for e in EPSILONS
    ]
    out += [
        Cell(f"images.eps{e:g}.noise{noise:g}", "images", {"epsilon": e, "noise": noise, "trainings": trainings})
        for e in EPSILONS
        for noise in (1.0, 0.5)
    ]
    out += [Cell(f"calls.eps{e:g}", "calls", {"epsilon": e, "draws": draws}) for e in EPSILONS]
    return [*out, Cell("gate.eps4", "gate", {"epsilon": 4.0, "draws": 100 if quick else 1000})]


def mechanism(epsilon: float, draws: int, repetitions: int) -> dict[str, Any]:
    """The bound on a sound Gaussian again and again, a thousand draws per answer."""
    from veilset.audit.mechanism.audit import audit

    _one_thread()
    found, facts = [], _Clock()
    for seed in range(repetitions):
        found.append(audit("sum-many", epsilon=epsilon, draws=draws, seed=seed))
    bounds = sorted(check.lower_bound for check in found)
    return facts.took() | {
        "median": statistics.median(bounds),
        "smallest": bounds[0],
        "largest": bounds[-1],
        "above": sum(b > epsilon for b in bounds),
        "faults": sum(check.ok is False for check in found),
        "least": LEAST[epsilon],
    }


def calls(epsilon: float, draws: int) -> dict[str, Any]:
    """The same bound when every draw is a call of the gate of its own, in release mode."""
    from veilset.audit.mechanism.audit import audit

    _one_thread()
    facts = _Clock()
    found = audit("sum", epsilon=epsilon, draws=draws)
    return facts.took() | {"bound": found.lower_bound, "ok": found.ok}


def gate(epsilon: float, draws: int) -> dict[str, Any]:
    """Every verb once, as `veilset audit gate --level mechanism` does."""
    from veilset.audit.ladder import Effort, Target, climb

    _one_thread()
    facts = _Clock()
    found = climb(Target(epsilon=epsilon, delta=1e-5), ("mechanism",), Effort(draws=draws))
    return facts.took() | {"ok": found.ok, "bounds": {c.name: c.lower_bound for c in found.checks}}


def images(epsilon: float, noise: float, trainings: int) -> dict[str, Any]:
    """The bound of an attacker who sees images only, with this part of the noise that the claim needs."""
    from veilset.audit.images_only import audit

    _one_thread()
    facts = _Clock()
    found = audit(epsilon=epsilon, trainings=trainings, noise=noise)
    embedding = dict(found.details)["lower_bound_of_the_embedding"]
    return facts.took() | {"bound": found.lower_bound, "embedding": embedding, "ok": found.ok}


class _Clock:
    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def took(self) -> dict[str, Any]:
        """Seconds since it was made."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "processor_seconds": time.process_time() - self._processor,
        }


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figure = result.get("median", result.get("bound"))
    return f"{result['seconds']:.0f} s" + (f", bound {figure:.2f}" if figure is not None else "")


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: what each cell found, by its name."""
    own = ("kind", "cell", "versions", "processor", "threads", "code", "checksum")
    found = {
        cell.name: {"kind": cell.kind} | dict(cell.params) | {k: v for k, v in r.items() if k not in own}
        for cell, r in done
    }
    return {"command": COMMAND, "cells": found} | machine(done)


def render(result: dict[str, Any]) -> str:
    """The suite as Markdown."""
    lines = [
        f"## audit\n\n`{result['command']}` {machine_words(result)}. {ABOUT}\n",
        "| what | claim | at least | bound | above | faults | draws | s (processor) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    verdicts = {True: "no", False: "found", None: "too few"}
    for r in result["cells"].values():
        took = f"{r['seconds']:.0f} ({r['processor_seconds']:.0f}){r.get('mark', '')}"
        if r["kind"] == "mechanism":
            bound = f"{r['median']:.2f} ({r['smallest']:.2f} to {r['largest']:.2f})"
            of = f"of {r['repetitions']}"
            lines.append(
                f"| mechanism, repeated | {r['epsilon']:g} | {r['least']:g} | {bound} | {r['above']} {of} "
                f"| {r['faults']} {of} | {r['draws']} | {took} |"
            )
        elif r["kind"] == "gate":
            low, high = min(r["bounds"].values()), max(r["bounds"].values())
            lines.append(
                f"| all {len(r['bounds'])} verbs of the gate | {r['epsilon']:g} | | {low:.2f} to {high:.2f} | "
                f"| {verdicts[r['ok']]} | {r['draws']} | {took} |"
            )
        else:
            name = "a call a draw" if r["kind"] == "calls" else f"images only, {r['noise']:g} of the noise"
            seen = f" (embedding {r['embedding']:.2f})" if "embedding" in r else ""
            lines.append(
                f"| {name} | {r['epsilon']:g} | | {r['bound']:.2f}{seen} | | {verdicts[r['ok']]} "
                f"| {r.get('draws', r.get('trainings'))} | {took} |"
            )
    return "\n".join(lines) + "\n"
