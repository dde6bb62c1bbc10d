"""A suite is a folder of independent cells: each one JSON file, made once, committed, and skipped the next time.

A cell holds the hash of the code that made it. Tables mark cells that the present code did not make (`provenance`).

The module of a suite offers

* `cells(quick, **options)`: the cells that the options ask for, the most wanted first; without options, the table's;
* the functions that cells name by their `kind`: they run in a process of their own and return JSON facts;
* `words(result)`: one line about a finished cell;
* `summary(done, wanted)` and `render(summary)`: the suite's JSON, and its section of README.md as Markdown;
* perhaps OPTIONS (names of the options of `cells`), ELSEWHERE (suites whose cells of the same name count as
  finished, if no parameter that both have differs) and `pages(summary)` (file name -> text of further files beside
  README.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.runner.closure import Manifest, closure
from benchmarks.runner.provenance import SIGN, Doubt, below, counted, doubt, sealed
from veilset.core.errors import ConfigError, Note, RunError, suggest
from veilset.core.facts import cores
from veilset.core.io import canonical, read_json, sha256, write_bytes, write_json

if TYPE_CHECKING:
    import torch

SUITES = {
    "spine": "benchmarks.suites.spine",
    "gradient": "benchmarks.suites.gradient",
    "leaderboard": "benchmarks.suites.leaderboard",
    "headline": "benchmarks.suites.headline",
    "three-families": "benchmarks.suites.three_families",
    "private-set-paper": "benchmarks.suites.private_set_paper",
    "dual-purpose-classifier": "benchmarks.suites.dual_purpose_classifier",
    "continual": "benchmarks.suites.continual",
    "audit": "benchmarks.suites.audit",
    "units": "benchmarks.suites.units",
    "membership": "benchmarks.suites.membership",
    "evaluate": "benchmarks.suites.evaluating",
    "model-inversion": "benchmarks.suites.model_inversion",
    "field": "benchmarks.suites.field",
}
# What suites were called before they had names of what they show; the old names go in the next release. Those after
# the first two are kept for suites to come.
RENAMED = {
    "source-000": "three-families",
    "source-003": "private-set-paper",
    "source-001": "model-inversion",
    "source-002": "dual-purpose-classifier",
    "source-004": "dp2-vae-paper",
}
APART = {"faults": "benchmarks.runner.faults"}  # a section of README.md, of a table that `make faults` makes
ROOT = Path(__file__).parents[2]
SHOWN = 12  # missing cells that are named one by one
SHARED = "VEILSET_BENCH_SHARED"  # environment variable of a cell: a folder of its run, see `once`


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        name: file name, without .json.
        kind: a function of the suite's module, called with `params`; returns JSON facts.
        params: JSON values (infinity is "inf").
        alone: run with nothing beside it, and with all cores (for times and memory).
    """

    name: str
    kind: str
    params: Mapping[str, Any]
    alone: bool = False


def suite_name(asked: str) -> str:
    """The name of a suite, with a note where the old one was asked for."""
    if asked not in RENAMED:
        return asked
    warnings.warn(f"suite {asked} is now {RENAMED[asked]}; the old name goes in the next release", Note, stacklevel=2)
    return RENAMED[asked]


def run_suite(
    name: str,
    folder: Path,
    *,
    quick: bool = False,
    jobs: int = 1,
    only: str = "",
    dry: bool = False,
    stale: bool = False,
    options: Mapping[str, Any] | None = None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run the missing cells of a suite. After each, NAME.json, README.md and the suite's pages are written anew.

    Options and `only` choose what is run; the table always holds every cell that is finished or wanted by default.

    Args:
        name: suite.
        folder: of results; cells go to folder/NAME/.
        quick: a small form of the suite, for a look.
        jobs: cells at a time, each with its share of the cores.
        only: run only cells whose name holds this text.
        dry: run nothing; write the tables from the cells that are there.
        stale: run, instead of missing cells, those that are there and that the present code is not known to have made.
        options: what the suite's `cells` takes, such as methods or seeds.
        tell: gets one line per finished cell, and what is missing at the end.

    Returns:
        The suite's summary, with "missing": the names of the cells that are not there, the most wanted first.

    Raises:
        ConfigError: unknown suite or option, or a value out of range.
        RunError: a cell failed (the others are kept).
    """
    table = Table(name, folder, quick, dict(options or {}))
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs}: must be at least 1")
    todo = [] if dry else [c for c in table.candidates(stale) if only in c.name and table.wanted(c, stale)]
    table.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="veilset-bench-") as shared:
        failed = _run(table, todo, stale, jobs, shared, tell)
    summary = table.write()
    if summary["missing"]:
        tell(missing(summary["missing"]))
    if failed:
        raise RunError(f"{len(failed)} result(s) failed and the others are kept: {failed[0]}")
    return summary


def stale_cells(
    name: str, folder: Path, *, only: str = "", options: Mapping[str, Any] | None = None
) -> list[tuple[str, Doubt]]:
    """The cells that `run_suite(..., stale=True)` would run, and why each is in doubt; arguments as there."""
    table = Table(name, folder, False, dict(options or {}))
    found = [(cell.name, table.doubt(cell)) for cell in table.candidates(stale=True) if only in cell.name]
    return [(cell, why) for cell, why in found if why]


def _run(
    table: Table, todo: Sequence[Cell], stale: bool, jobs: int, shared: str, tell: Callable[[str], None]
) -> list[str]:
    """Make these cells, those that run alone at the end; returns what was wrong with those that failed."""
    failed: list[str] = []
    every = cores()

    def one(cell: Cell, threads: int) -> None:
        if not table.wanted(cell, stale):  # another process may have made it meanwhile
            return
        try:
            before = closure(table.suite.__name__, cell.kind, cell.params)
            result = _in_process(table.suite.__name__, cell, threads, shared)
            code = before if before == closure(table.suite.__name__, cell.kind, cell.params) else None
            table.keep(cell, result, code)
        except RunError as e:
            failed.append(str(e))
            tell(f"{cell.name}: FAILED, {e}")
            return
        changed = "" if code else "; the code was changed meanwhile, so it is not recorded"
        tell(f"{cell.name}: {table.suite.words(result)}{changed}")
        table.write()

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda c: one(c, max(1, every // jobs)), [c for c in todo if not c.alone]))
    for cell in [c for c in todo if c.alone]:
        one(cell, every)
    return failed


def missing(names: Sequence[str]) -> str:
    """What is not there yet, in one line."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"Missing {len(names)} results, the most wanted first: {', '.join(names[:SHOWN])}{more}."


class Table:
    """The cells of a suite in a folder of results, finished or not, and the files made from them.

    Attributes:
        suite: its module.
        home: the folder of its cells.
        chosen: the cells that the options ask for.
    """

    def __init__(self, name: str, folder: Path, quick: bool, options: dict[str, Any]):
        if name not in SUITES:
            if name in RENAMED.values():
                raise ConfigError(f"suite {name!r} does not exist yet. Suites: {', '.join(SUITES)}")
            raise ConfigError(f"suite {name!r} is unknown.{suggest(name, SUITES)} Suites: {', '.join(SUITES)}")
        self.suite: Any = import_module(SUITES[name])
        known = getattr(self.suite, "OPTIONS", ())
        for option in options:
            if option not in known:
                takes = ", ".join(f"--{o}" for o in known) or "none of these options"
                raise ConfigError(f"suite {name} takes no --{option}; it takes {takes}")
        self.chosen: Sequence[Cell] = self.suite.cells(quick, **options)
        self._base: Sequence[Cell] = self.chosen if quick else self.suite.cells(False)
        self._name, self._folder, self.home = name, folder, folder / name
        self._asked, self._codes = bool(options), dict[str, Manifest]()
        self._lock = threading.Lock()

    def candidates(self, stale: bool) -> Sequence[Cell]:
        """What a run may make: the cells asked for; of stale ones, if none was asked for, all that are there."""
        return self._cells() if stale and not self._asked else self.chosen

    def wanted(self, cell: Cell, stale: bool) -> bool:
        """Whether a run of missing or of stale cells is to make this one."""
        return self.doubt(cell) is not None if stale else self.result(cell) is None

    def keep(self, cell: Cell, result: Mapping[str, Any], code: Manifest | None) -> None:
        """Write what a cell found, and by which code; other cells may end at the same time."""
        with self._lock:
            write_json(self.home / f"{cell.name}.json", sealed(result, code, self._folder))

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell found, or None. A file made with other parameters does not count."""
        found = self._found(cell)
        return found[1] if found else None

    def doubt(self, cell: Cell) -> Doubt | None:
        """Why a finished cell is not known to be what the present code makes; None if it is, or is not there."""
        found = self._found(cell)
        if found is None:
            return None
        place, facts = found
        code = self._code(SUITES.get(place, self.suite.__name__), facts.get("kind", cell.kind), facts["cell"])
        return doubt(facts, code, self._folder)

    def _code(self, module: str, kind: str, params: Mapping[str, Any]) -> Manifest:
        """The present code of a cell; that of cells which differ in figures only is looked up once."""
        same = canonical([module, kind, {k: v for k, v in params.items() if not isinstance(v, int | float)}]).decode()
        if same not in self._codes:
            self._codes[same] = closure(module, kind, params)
        return self._codes[same]

    def _found(self, cell: Cell) -> tuple[str, dict[str, Any]] | None:
        """The suite that a finished cell lies in, and its facts."""
        for place in (self._name, *getattr(self.suite, "ELSEWHERE", ())):
            path = self._folder / place / f"{cell.name}.json"
            facts = read_json(path) if path.exists() else None
            made = by_present_names(facts["cell"]) if isinstance(facts, dict) and "cell" in facts else None
            if facts and made == cell.params:
                return place, facts
            if facts and made and place != self._name and all(made.get(k, v) == v for k, v in cell.params.items()):
                return place, facts
        return None

    def write(self) -> dict[str, Any]:
        """Write the summary, README.md and the pages; returns the summary."""
        with self._lock:
            self._codes.clear()
            found = [(c, self.result(c)) for c in self._cells()]
            doubts = {c.name: self.doubt(c) for c, r in found if r}
            done = [(c, r | {"mark": f" {SIGN}" if doubts[c.name] else ""}) for c, r in found if r]
            summary: dict[str, Any] = self.suite.summary(done, [c for c, _ in found])
            summary |= {"missing": [c.name for c, r in found if not r], "code": counted(list(doubts.values()))}
            write_json(self._folder / f"{self._name}.json", summary)
            note = below(self._name, summary)
            for file, text in (self.suite.pages(summary) if hasattr(self.suite, "pages") else {}).items():
                write_bytes(self._folder / file, (text + note * file.endswith(".md")).encode())
            write_bytes(self._folder / "README.md", _readme(self._folder).encode())
            return summary

    def _cells(self) -> list[Cell]:
        """The cells of the table: those wanted by default, those asked for now, and those that are there."""
        cells = {c.name: c for c in (*self._base, *self.chosen)}
        for path in sorted(self.home.glob("*.json")):
            if path.stem not in cells and "kind" in (facts := read_json(path)):
                cells[path.stem] = Cell(path.stem, facts["kind"], by_present_names(facts["cell"]))
        return list(cells.values())


def by_present_names(made: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell was made of, the method's parameters by their present names: results keep those of their time."""
    from veilset.core.renamed import modern

    known = own_names(made["method"]) if made.get("params") and "method" in made else ()
    return {**made, **({"params": modern(made["params"], known, made["method"], tell=False)} if known else {})}


@cache
def own_names(method: str) -> tuple[str, ...]:
    """The parameters of a method, given with or without a recipe (`name:recipe`); none if it is not there."""
    from veilset.core.config import fields
    from veilset.methods.catalogue import any_class

    try:
        return tuple(f.name for f in fields(any_class(method.partition(":")[0]).Config))
    except ConfigError:
        return ()


Made = tuple[dict[str, "torch.Tensor"], dict[str, Any]]


def once(what: Mapping[str, Any], make: Callable[[], Made]) -> Made:
    """What `make` returns, tensors and JSON facts; cells of one run that ask for the same `what` make it once.

    It is kept until the run ends and no longer, so that nothing made by other code is ever taken. Cells that run at
    the same time may both make it.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    folder = os.environ.get(SHARED)
    if folder is None:  # called by itself
        return make()
    path = Path(folder) / sha256(canonical(what))
    if not path.exists():
        tensors, facts = make()
        own = path.with_suffix(f".{os.getpid()}")
        write_bytes(own, save(tensors, {"facts": json.dumps(facts)}))
        own.replace(path)
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["facts"])  # noqa: SIM118, no mapping


def _in_process(module: str, cell: Cell, threads: int, shared: str) -> dict[str, Any]:
    """Run a cell in a process of its own: its peak memory and its threads are then its own."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), SHARED: shared}
    command = [sys.executable, "-m", "benchmarks.runner.suite"]
    job = json.dumps({"module": module, "kind": cell.kind, "params": dict(cell.params)})
    done = subprocess.run([*command, job], env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        killed = f"ended by signal {-done.returncode}; is there enough memory?" if done.returncode < 0 else "no message"
        last = done.stderr.strip().splitlines()[-1:] or [killed]
        raise RunError(f"cell {cell.name}: {last[0]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def section(name: str, folder: Path) -> str:
    """The section of a suite in README.md, from its committed summary."""
    summary = read_json(folder / f"{name}.json")
    text: str = import_module((SUITES | APART)[name]).render(summary)
    return text + (below(name, summary) if name in SUITES else "")


def _readme(folder: Path) -> str:
    """README.md of the results: every committed table, as text."""
    intro = "Each result is one JSON file, made by the command above its table. Tables say how many seeds they hold.\n"
    intro += f"{SIGN}: a result in this row is not known to be what the present code makes; the line below says why."
    parts = [section(name, folder) for name in SUITES | APART if (folder / f"{name}.json").exists()]
    return "\n".join([f"# All results\n\n{intro}\n", *parts])


def _cell_main(job: str) -> None:
    from veilset.core.facts import processor, versions
    from veilset.core.progress import be_quiet

    be_quiet(True)
    todo = json.loads(job)
    result = getattr(import_module(todo["module"]), todo["kind"])(**todo["params"])
    facts = {"kind": todo["kind"], "cell": todo["params"], "threads": int(os.environ["OMP_NUM_THREADS"])}
    print(json.dumps(facts | {"versions": versions(), "processor": processor()} | result, allow_nan=False))


if __name__ == "__main__":
    _cell_main(sys.argv[1])
