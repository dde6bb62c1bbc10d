"""How `prepare` writes its pictures: shared out to processes, gone on with after a kill, and counted."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import ConfigError, DataError, RunError
from veilset.core.io import canonical, lock, sync_folder
from veilset.data.records import key

Tally = Counter[str]  # what was done -> to how many pictures
TABLE = "labels.csv"
LOCK, STATE, ORDER = ".lock", ".state", ".order"  # in an unfinished folder: who writes it, by which rules, what so far
MOST_JOBS = 64
FLUSH = 256  # pictures after which it is written down that they were begun
FORK = get_context("fork")  # a fork starts at once, and needs no guard in the caller's script
BLOCK = 32  # neighbouring pictures that one process makes: they may share a file
KEPT = "made before it was interrupted"


@dataclass(frozen=True)
class Task:
    """One picture to be made.

    Attributes:
        where: the source, for messages.
        name: of the new picture, relative to the new folder.
        make: makes it as a PIL image, and counts what it does.
        row: its row of labels.csv; empty without such a table.
    """

    where: str
    name: str
    make: Callable[[Tally], Any]
    row: Sequence[str] = ()


Tasks = Callable[[], Iterator[Task]]  # each process makes its own, from files that it opens itself


def check_jobs(jobs: int) -> int:
    """How many processes, or ConfigError."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MOST_JOBS:
        raise ConfigError(f"jobs = {jobs!r}: must be 1 to {MOST_JOBS} processes")
    return jobs


@contextlib.contextmanager
def unfinished(out: Path, facts: dict[str, Any]) -> Iterator[Path]:
    """Yield a hidden folder that becomes `out`; one that a killed process left is gone on with if `facts` are the same.

    Raises:
        RunError: `out` exists, cannot be written, or another process makes it. After any error nothing is left.
    """
    if out.exists():
        raise RunError(f"{out} exists; choose another folder or remove it")
    tmp = out.parent / f".{out.name}.partial"
    try:
        tmp.mkdir(parents=True, exist_ok=True)
        with lock(tmp / LOCK, str(out)):
            try:
                _begin(tmp, canonical(facts))
                yield tmp
                for name in (STATE, ORDER, LOCK):
                    (tmp / name).unlink(missing_ok=True)
                os.rename(tmp, out)
                sync_folder(out.parent)
            except Exception:
                shutil.rmtree(tmp, ignore_errors=True)
                raise
    except OSError as e:
        raise RunError(f"cannot write {out}: {e.strerror}; nothing was left behind") from e


def _begin(folder: Path, facts: bytes) -> None:
    """Empty a folder that was begun otherwise, and write down how it is begun."""
    state = folder / STATE
    if state.is_file() and state.read_bytes() == facts:
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    state.write_bytes(facts)


def write_pictures(out: Path, tasks: Tasks, header: Sequence[str], jobs: int) -> Tally:
    """Make all pictures on `jobs` processes; with a header also labels.csv.

    Raises:
        DataError: what a task raises; sizes or channels that differ. RunError: a process was ended.
    """
    order = out / ORDER
    done = np.fromfile(order, np.uint64).tolist() if order.is_file() else []
    with _Others(jobs, lambda rank, alive: _share(out, tasks, (), done, rank, jobs, alive)) as others:
        tally, first = _share(out, tasks, header, done, 0, jobs, others.look)
        for more, theirs in others.results():
            tally += more
            _alike(first, theirs)
    return tally


class _Others:
    """Further processes, each of which does a share and sends what came of it: a result, or the error that it met."""

    def __init__(self, jobs: int, share: Callable[[int, Callable[[], None]], Any]):
        self._jobs, self._work, self._parent = jobs, share, os.getpid()
        self._running: dict[Connection, Any] = {}  # pipe -> process
        self._found: list[Any] = []

    def __enter__(self) -> _Others:
        for rank in range(1, self._jobs):
            here, there = FORK.Pipe(duplex=False)
            process = FORK.Process(target=self._serve, args=(there, rank))
            process.start()
            there.close()
            self._running[here] = process
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._running.items():
            process.terminate()
            process.join()
            pipe.close()

    def _serve(self, pipe: Any, rank: int) -> None:
        try:
            pipe.send(self._work(rank, self._alive))
        except (DataError, RunError) as e:
            pipe.send(e)
        except Exception as e:
            pipe.send(RunError(f"{type(e).__name__}: {' '.join(str(e).split())[:200]}; repair it, or use --jobs 1"))

    def _alive(self) -> None:
        """End this process if the first one was killed."""
        if os.getppid() != self._parent:
            os._exit(1)

    def look(self, timeout: float | None = 0) -> None:
        """Take what others sent meanwhile; raises the error of one."""
        for pipe in [p for p in wait(list(self._running), timeout) if isinstance(p, Connection)]:
            try:
                found = pipe.recv()
            except EOFError:
                found = RunError("a process of `prepare` was ended, perhaps for memory; run the command again")
            self._running.pop(pipe).join()
            if isinstance(found, Exception):
                raise found
            self._found.append(found)

    def results(self) -> list[Any]:
        """What all of them sent; waits for it."""
        while self._running:
            self.look(None)
        return self._found


First = tuple[str, str, tuple[int, int]]  # where, mode, size


def _share(
    out: Path, tasks: Tasks, header: Sequence[str], done: list[int], rank: int, jobs: int, between: Callable[[], None]
) -> tuple[Tally, First | None]:
    """Make the pictures of one process; the first of them also writes the table and what comes in which order."""
    tally, first = Tally(), None
    with contextlib.ExitStack() as stack:
        order = stack.enter_context(open(out / ORDER, "ab")) if not rank else None
        table = None
        if header:
            table = csv.writer(stack.enter_context(open(out / TABLE, "w", newline="", encoding="utf-8")))
            table.writerow(header)
        for i, task in enumerate(tasks()):
            mark, known = key(task.where), i < len(done)
            if known and done[i] != mark:
                raise DataError(f"{task.where}: the set was changed after `prepare` was interrupted; run it again")
            if order and not known:
                order.write(mark.to_bytes(8, "little"))
                if i % FLUSH == 0:
                    order.flush()
            if table:
                table.writerow(task.row)
            if i // BLOCK % jobs != rank:
                continue
            between()
            own = _made(task, out / task.name, known, tally)
            first = first or own
            _alike(first, own)
    return +tally, first


def _made(task: Task, path: Path, known: bool, tally: Tally) -> First:
    """Write one picture, whole or not at all, unless it is there from an interrupted call."""
    from PIL import Image

    if known and path.is_file():
        tally[KEPT] += 1
        with Image.open(path) as image:
            return task.where, image.mode, image.size
    image = task.make(tally)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    image.save(partial, "PNG", compress_level=1)
    os.replace(partial, path)
    return task.where, image.mode, image.size


def _alike(first: First | None, other: First | None) -> None:
    """Refuse sizes or channels that are mixed."""
    if not first or not other or first[1:] == other[1:]:
        return
    mixed = "sizes are mixed ({} has another); give a size (--size)"
    if first[1] != other[1]:
        mixed = "grey and colour are mixed ({} is the other); use grey=True (--grey)"
    raise DataError(f"{other[0]}: {mixed.format(first[0])}")
