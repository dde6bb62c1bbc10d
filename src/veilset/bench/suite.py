"""A suite is a folder of independent cells: each one JSON file, made once, committed, and skipped the next time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from veilset.core.errors import ConfigError, RunError, suggest
from veilset.core.io import read_json, write_bytes, write_json

SUITES = {"spine": "veilset.bench.spine"}


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        name: file name, without .json.
        kind: a function of the suite's module, called with `params`; returns JSON facts.
        params: JSON values.
        alone: run with nothing beside it, and with all cores (for times and memory).
    """

    name: str
    kind: str
    params: Mapping[str, Any]
    alone: bool = False


def run_suite(
    name: str, folder: Path, *, quick: bool, jobs: int, only: str, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Run the missing cells of a suite, then write NAME.json and README.md in `folder`.

    Args:
        name: suite.
        folder: benchmarks folder; cells go to folder/NAME/.
        quick: a small form of the suite, for a look.
        jobs: cells at a time, each with its share of the cores.
        only: run only cells whose name holds this text.
        tell: gets one line a finished cell.

    Raises:
        ConfigError: unknown suite.
        RunError: a cell failed (the others are kept).
    """
    if name not in SUITES:
        raise ConfigError(f"suite {name!r} is unknown.{suggest(name, SUITES)} Suites: {', '.join(SUITES)}")
    suite = import_module(SUITES[name])
    cells: Sequence[Cell] = suite.cells(quick)
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    todo = [c for c in cells if only in c.name and not (home / f"{c.name}.json").exists()]
    cores = os.cpu_count() or 1
    failed: list[str] = []

    def one(cell: Cell, threads: int) -> None:
        try:
            result = _in_process(SUITES[name], cell, threads)
        except RunError as e:
            failed.append(str(e))
            tell(f"{cell.name}: FAILED, {e}")
            return
        write_json(home / f"{cell.name}.json", result)
        tell(f"{cell.name}: {suite.words(result)}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda c: one(c, max(1, cores // jobs)), [c for c in todo if not c.alone]))
    for cell in [c for c in todo if c.alone]:
        one(cell, cores)
    result: dict[str, Any] = suite.summary(
        [(c, read_json(p)) for c in cells if (p := home / f"{c.name}.json").exists()], cells
    )
    write_json(folder / f"{name}.json", result)
    write_bytes(folder / "README.md", _readme(folder).encode())
    if failed:
        raise RunError(f"{len(failed)} cell(s) failed: {failed[0]}")
    return result


def _in_process(module: str, cell: Cell, threads: int) -> dict[str, Any]:
    """Run a cell in a process of its own: its peak memory and its threads are then its own."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    job = json.dumps({"module": module, "kind": cell.kind, "params": dict(cell.params)})
    done = subprocess.run([sys.executable, "-m", "veilset.bench.suite", job], env=env, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RunError(f"cell {cell.name}: {last[0]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _readme(folder: Path) -> str:
    """benchmarks/README.md: every suite's committed table, as text."""
    intro = "Each cell is one JSON file, made by the command above its table. Tables say how many seeds they hold."
    parts = [f"# Benchmarks\n\n{intro}\n"]
    for name, module in SUITES.items():
        if (folder / f"{name}.json").exists():
            parts.append(import_module(module).render(read_json(folder / f"{name}.json")))
    return "\n".join(parts)


def _cell_main(job: str) -> None:
    from veilset.core.facts import processor, versions
    from veilset.core.progress import be_quiet

    be_quiet(True)
    todo = json.loads(job)
    result = getattr(import_module(todo["module"]), todo["kind"])(**todo["params"])
    facts = {"cell": todo["params"], "threads": int(os.environ["OMP_NUM_THREADS"]), "versions": versions()}
    print(json.dumps(facts | {"processor": processor()} | result))


if __name__ == "__main__":
    _cell_main(sys.argv[1])
