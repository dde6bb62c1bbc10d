"""Plant one privacy fault at a time in a copy of the package, and see who notices: `python tests/faults/run.py`.

A fault is a patch file in this folder. Its header says what is wrong, and names the tests that should fail:

    Fault: The noise has half the planned deviation.
    Test: tests/privacy/test_gate.py::test_the_noise_has_the_planned_scale_and_shape
    Theme: noise

For each fault the named tests run first and stop at the first failure; then the checks of `veilset selftest`, until one
fails; then the mechanism audit of every verb, until one shows a fault. These two cannot notice a fault in functions
that they never call on the sound code, so they are not run for one. A patch that no longer applies is an error, and so
is a named test that does not exist, or that fails without any fault.

With --quick the theme of the self-test that a fault names is asked first, the audit is asked only where the self-test
sees nothing, and the sound code, which the tests run on anyway, is not run before.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = 3600  # seconds
DRAWS = 400  # of the mechanism audit, in each world
KEYS = ("caught_by_tests", "caught_by_selftest", "caught_by_audit")


@dataclass(frozen=True)
class Fault:
    """A patch file."""

    name: str
    words: str
    tests: tuple[str, ...]
    theme: str | None  # of the self-test
    path: Path
    file: str  # that it changes, such as src/veilset/tune.py


class Broken(Exception):
    """A fault file, or the sound code, is not in order; nothing can be said."""


def faults() -> list[Fault]:
    """All faults, by name."""
    return [read(path) for path in sorted(HERE.glob("*.patch"))]


def read(path: Path) -> Fault:
    """A fault from its file."""
    head, _, body = path.read_text().partition("\n--- ")
    words, tests = re.findall(r"^Fault: (.+)$", head, re.M), re.findall(r"^Test: (\S+)$", head, re.M)
    theme = re.search(r"^Theme: (\S+)$", head, re.M)
    files = re.findall(r"^\+\+\+ b/(\S+)$", body, re.M)
    if len(words) != 1 or not tests:
        raise Broken(f"{path.name}: its header must have one line `Fault: ...` and one or more `Test: ...`")
    if len(files) != 1:
        raise Broken(f"{path.name}: must change one file, changes {len(files)}")
    return Fault(path.stem, words[0], tuple(tests), theme[1] if theme else None, path, files[0])


def sound_copy(place: Path) -> Path:
    """A copy of the package with its tests."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def plant(fault: Fault, place: Path) -> None:
    """Apply a fault to a copy.

    Raises:
        Broken: it does not apply.
    """
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(place.parent), "GIT_DIR": str(place / "none")}
    command = ["git", "apply", "-p1", str(fault.path.resolve())]
    done = subprocess.run(command, cwd=place, env=outside, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{fault.path.name} no longer applies: {' '.join(done.stderr.split())[:300]}")


def apart(place: Path, job: Callable[[], Any]) -> Any:
    """What a job returns in a process of its own that imports the copy. Imported libraries are inherited: it is quick.

    Raises:
        Broken: it does not end well, or within PATIENCE.
    """
    assert not any(name.split(".")[0] == "veilset" for name in sys.modules), "the copy would not be imported"
    out = place / "told.json"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)
            os.chdir(place)
            os.environ["XDG_CACHE_HOME"] = str(place)
            sys.path[:0] = [str(place / "src")]
            with open(place / "log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            import veilset

            assert Path(veilset.__file__).is_relative_to(place), "not the copy"
            out.write_text(json.dumps(job()))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise Broken(f"a job ended badly: {(place / 'log').read_text().strip().splitlines()[-3:]}")
    return json.loads(out.read_text())


def warm() -> None:
    """Import what every copy needs, and start the engines, once."""
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    x = torch.ones(2, 3)
    torch.func.vmap(torch.func.grad(lambda w, x: (w * x).sum()), in_dims=(None, 0))(x[0], x)


def caught_by_tests(place: Path, tests: tuple[str, ...]) -> bool:
    """Whether a named test fails.

    Raises:
        Broken: they cannot be run.
    """

    def job() -> int:
        import pytest

        # -m "": long ones as well, which pyproject.toml leaves out
        return int(pytest.main(["-x", "-q", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))

    status = apart(place, job)
    if status not in (0, 1):
        raise Broken(f"pytest ended with {status}: {' '.join((place / 'log').read_text().split())[-400:]}")
    return bool(status)


def by_selftest(theme: str | None = None) -> str | None:
    """The first check of the self-test that fails, if any; those of a theme first."""
    from veilset.audit.selftest import run

    run.THEMES = tuple(sorted(run.THEMES, key=lambda name: name != theme))
    return next((c.name for c in run.measured() if not c.ok), None)


def by_audit() -> str | None:
    """The first verb whose audit shows a fault, if any. An error in place of an answer shows one too."""
    import logging

    logging.getLogger("absl").setLevel(logging.ERROR)
    from veilset.audit.mechanism.audit import audit, verbs

    for verb in verbs():
        try:
            if audit(verb, draws=DRAWS, checks=len(verbs())).ok is False:
                return verb
        except Exception as e:
            return f"{verb}: {type(e).__name__}: {e}"
    return None


LOOKERS = (by_selftest, by_audit)


Spots = frozenset[tuple[str, str]]  # (file, qualified name) of functions; "<module>" is all that is in none


def called(place: Path, look: Callable[[], str | None]) -> tuple[str | None, Spots]:
    """What one of the LOOKERS says of a copy, and the copy's functions that it calls."""

    def job() -> tuple[str | None, list[tuple[str, str]]]:
        codes: set[types.CodeType] = set()
        sys.settrace(lambda frame, event, arg: codes.add(frame.f_code))
        said = look()
        sys.settrace(None)
        own = {(Path(c.co_filename), c.co_qualname) for c in codes}
        return said, [(p.relative_to(place).as_posix(), name) for p, name in own if p.is_relative_to(place)]

    said, spots = apart(place, job)
    return said, frozenset((file, name) for file, name in spots)


def touched(fault: Fault, base: Path) -> Spots:
    """The functions that a fault changes: those of lines that it takes away, and of lines that it puts in.

    None that a trace could see, if it is not Python.
    """
    if not fault.file.endswith(".py"):
        return frozenset()
    before = (base / fault.file).read_text()
    after = planted(fault, base, lambda place: (place / fault.file).read_text())  # a patch may apply at other lines
    old, new, out = functions(before), functions(after), set[str]()
    changes = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    for tag, i, j, k, m in changes.get_opcodes():
        if tag != "equal":
            out |= {old.get(n + 1, "<module>") for n in range(i, j)} | {new.get(n + 1, "<module>") for n in range(k, m)}
    return frozenset((fault.file, name) for name in out)


def functions(source: str) -> dict[int, str]:
    """Line -> qualified name of the innermost function whose body it is in."""
    out: dict[int, str] = {}

    def walk(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = path + child.name
                out.update(dict.fromkeys(range(child.body[0].lineno, (child.end_lineno or 0) + 1), name))
                walk(child, f"{name}.<locals>.")
            else:
                walk(child, f"{path}{child.name}." if isinstance(child, ast.ClassDef) else path)

    walk(ast.parse(source), "")
    return out


def planted(fault: Fault, base: Path, look: Callable[[Path], Any]) -> Any:
    """What is seen of a fault in a copy of its own."""
    with tempfile.TemporaryDirectory() as tmp:
        place = Path(shutil.copytree(base, Path(tmp) / "copy"))
        plant(fault, place)
        if not fault.file.endswith(".py"):  # or what was compiled would belong to another source, and not be used
            script = place / Path(fault.file).with_name("build.py")
            subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
        return look(place)


def measure(fault: Fault, base: Path, calls: list[Spots]) -> dict[str, object]:
    """One row of the table.

    Args:
        fault: to be planted.
        base: the sound copy.
        calls: what each of the LOOKERS calls in it.
    """
    spots = touched(fault, base)
    asked = [who if spots & names or not spots else None for who, names in zip(LOOKERS, calls, strict=True)]
    found = planted(
        fault, base, lambda p: [caught_by_tests(p, fault.tests), *(apart(p, who) if who else None for who in asked)]
    )
    told = [repr(said) if who else "not asked" for who, said in zip(asked, found[1:], strict=True)]
    print(f"{fault.name}: tests {found[0]}, selftest {told[0]}, audit {told[1]}", flush=True)
    return {"fault": fault.name, **dict(zip(KEYS, [found[0], *(said is not None for said in found[1:])], strict=True))}


def measure_quickly(fault: Fault, base: Path, before: dict[str, object]) -> dict[str, object]:
    """One row of the table; None for the audit where it was not needed. Tests that saw it before are not run again."""

    def seen(place: Path) -> tuple[bool, str | None, str | None]:
        tests = before.get(KEYS[0]) is True or caught_by_tests(place, fault.tests)
        said = apart(place, lambda: by_selftest(fault.theme))
        return tests, said, None if said else apart(place, by_audit)

    tests, said, audit = planted(fault, base, seen)
    print(f"{fault.name}: tests {tests}, selftest {said!r}, audit {'not asked' if said else repr(audit)}", flush=True)
    return {
        "fault": fault.name,
        **dict(zip(KEYS, (tests, said is not None, None if said else audit is not None), strict=True)),
    }


def check_sound(base: Path, chosen: list[Fault]) -> list[Spots]:
    """Without a fault nobody may notice one.

    Returns:
        What each of the LOOKERS calls.

    Raises:
        Broken: somebody does.
    """
    tests = tuple(dict.fromkeys(t for f in chosen for t in f.tests))
    if caught_by_tests(base, tests):
        raise Broken("a named test fails without any fault")
    answers = [called(base, who) for who in LOOKERS]
    for said, _ in answers:
        if said:
            raise Broken(f"false alarm on the sound code: {said}")
    return [spots for _, spots in answers]


def table(rows: list[dict[str, object]]) -> str:
    """The rows for people."""
    width = max(len(str(r["fault"])) for r in rows)
    lines = [f"{'fault':<{width}}  tests  selftest  audit"]
    for r in rows:
        marks = [{True: "yes", False: "-", None: "?"}[r[k]] for k in KEYS]  # ?: not measured since it was planted
        lines.append(f"{r['fault']:<{width}}  {marks[0]:<5}  {marks[1]:<8}  {marks[2]}")
    count = [sum(bool(r[k]) for r in rows) for k in KEYS]
    either = sum(bool(r[KEYS[1]] or r[KEYS[2]]) for r in rows)
    nobody = [r["fault"] for r in rows if not any(r[k] for k in KEYS)]
    lines.append(
        f"{len(rows)} faults: {count[0]} caught by tests, {count[1]} by selftest, {count[2]} by audit, "
        f"{either} by selftest or audit, unnoticed: {', '.join(map(str, nobody)) or 'none'}"
    )
    return "\n".join(lines)


def settled(row: dict[str, object]) -> bool:
    """Whether a row lacks nothing: the audit is not needed where the self-test sees a fault."""
    return row[KEYS[0]] is not None and row[KEYS[1]] is not None and (bool(row[KEYS[1]]) or row[KEYS[2]] is not None)


def main() -> int:
    """Measure all faults, or those that are named, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FAULT", help="default all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    parser.add_argument("--tests", action="store_true", help="only look whether the named tests fail")
    parser.add_argument("--missing", action="store_true", help="only faults that are not in the table yet")
    parser.add_argument(
        "--quick", action="store_true", help="ask who is likely to see a fault first, and then nobody else"
    )
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only the I-th of N parts")
    args = parser.parse_args()
    known = {f.name: f for f in faults()}
    part, parts = map(int, args.part.split("/"))
    kept = json.loads(args.out.read_text()) if args.out.exists() else []
    whole = {r["fault"]: r for r in kept if r["fault"] in known}
    chosen = [known[n] for n in args.names] if args.names else list(known.values())[part - 1 :: parts]
    missing = {n for n in known if n not in whole or not settled(whole[n])}
    chosen = [f for f in chosen if not args.missing or f.name in missing]
    if not chosen:
        print(table(list(whole.values())) if whole else "no faults")
        return 0
    begun = time.monotonic()
    warm()
    with tempfile.TemporaryDirectory() as tmp:
        base = sound_copy(Path(tmp) / "sound")
        if args.tests:
            unnoticed = []
            for fault in chosen:
                caught = planted(fault, base, lambda place, f=fault: caught_by_tests(place, f.tests))
                print(f"{fault.name}: {'caught' if caught else 'NOT CAUGHT'}", flush=True)
                unnoticed += [] if caught else [fault.name]
                if fault.name not in whole:  # what else notices it is measured another day
                    whole[fault.name] = {"fault": fault.name, **dict(zip(KEYS, (caught, None, None), strict=True))}
                    args.out.write_text(json.dumps([whole[n] for n in sorted(whole)], indent=1) + "\n")
            print(f"{len(chosen)} faults; no named test fails: {', '.join(unnoticed) or 'none'}")
            return 1 if unnoticed else 0
        calls = [] if args.quick else check_sound(base, chosen)
        for fault in chosen:  # kept one by one: an interrupted run goes on with --missing
            whole[fault.name] = (
                measure_quickly(fault, base, whole.get(fault.name, {})) if args.quick else measure(fault, base, calls)
            )
            args.out.write_text(json.dumps([whole[n] for n in sorted(whole)], indent=1) + "\n")
    print(table(list(whole.values())))
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if all(whole[f.name]["caught_by_tests"] for f in chosen) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as e:
        sys.exit(f"faults: {e}")
