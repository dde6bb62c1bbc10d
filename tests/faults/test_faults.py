"""Every fault still applies, names tests that exist, and was noticed; some faults a day are planted again."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import run

FAULTS = run.faults()
TABLE = {row["fault"]: row for row in json.loads((run.ROOT / "benchmarks" / "results" / "faults.json").read_text())}
A_DAY = 2


def todays() -> list[run.Fault]:
    """The next few of all faults; each gets its turn every few weeks."""
    first = int(time.time() // 86400) * A_DAY
    return [FAULTS[(first + i) % len(FAULTS)] for i in range(A_DAY)]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A copy of the package alone."""
    place = tmp_path_factory.mktemp("sound")
    shutil.copytree(run.ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return place


def test_every_fault_applies_alone(package):
    for fault in FAULTS:
        before = (package / fault.file).read_bytes()
        run.plant(fault, package)
        assert (package / fault.file).read_bytes() != before, fault.name
        if fault.file.endswith(".py"):  # a fault is wrong code, not broken code; what is compiled tells by itself
            ast.parse((package / fault.file).read_text())
        (package / fault.file).write_bytes(before)


def test_a_fault_that_no_longer_applies_is_an_error(package, tmp_path):
    path = tmp_path / "old.patch"
    path.write_text(FAULTS[0].path.read_text().replace("\n-   ", "\n-gone   "))
    with pytest.raises(run.Broken, match="no longer applies"):
        run.plant(run.read(path), package)
    path.write_text("no header")
    with pytest.raises(run.Broken, match="header"):
        run.read(path)
    path.write_text(FAULTS[0].path.read_text() + "--- a/other.py\n+++ b/other.py\n")
    with pytest.raises(run.Broken, match="must change one file, changes 2"):
        run.read(path)


def test_the_functions_that_a_fault_changes_are_known(package, tmp_path):
    """By what it does to the file: a patch still applies where lines before it were added."""
    spots = {
        name: run.touched(run.read(run.HERE / f"{name}.patch"), package) for name in ("noise-halved", "noise-seeded")
    }
    assert spots["noise-halved"] == {("src/veilset/privacy/gate.py", "Gate._noised")}, spots
    place = Path(shutil.copytree(package, tmp_path / "p"))
    for spot in spots.values():
        ((file, _),) = spot
        (place / file).write_text("# one line more\n" + (place / file).read_text())
    assert {name: run.touched(run.read(run.HERE / f"{name}.patch"), place) for name in spots} == spots
    source = "A = 1\nclass B:\n    C = 2\n    def d(self):\n        def e():\n            return 3\n        return e\n"
    names = {6: "B.d.<locals>.e", 5: "B.d", 7: "B.d"}
    assert run.functions(source) == names


def test_faults_name_tests_that_exist():
    named = {tuple(t.split("[")[0].split("::")) for f in FAULTS for t in f.tests}
    for path in {path for path, _ in named}:
        tree = ast.parse((run.ROOT / path).read_text())
        there = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert {function for p, function in named if p == path} <= there, path


def test_long_tests_are_run_where_a_fault_names_them(package, tmp_path):
    place = Path(shutil.copytree(package, tmp_path / "copy"))
    shutil.copy(run.ROOT / "pyproject.toml", place)
    (place / "tests").mkdir()
    (place / "tests" / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.long\ndef test_it():\n    assert False\n"
    )
    code = (
        f"import pathlib, run; print(run.caught_by_tests(pathlib.Path({str(place)!r}), ('tests/test_it.py::test_it',)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=run.HERE, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_the_committed_table_holds_every_fault_and_reaches_its_figures():
    assert set(TABLE) == {f.name for f in FAULTS} and len(TABLE) >= 40
    assert all(row["caught_by_tests"] for row in TABLE.values())
    waiting = [name for name, row in TABLE.items() if not run.settled(row)]
    assert not waiting, f"{waiting}: run `tests/faults/run.py --quick --missing`"
    assert sum(bool(row["caught_by_selftest"] or row["caught_by_audit"]) for row in TABLE.values()) >= 0.9 * len(TABLE)


@pytest.mark.long
def test_todays_faults_are_caught():
    names = [f.name for f in todays()]
    done = subprocess.run([sys.executable, run.__file__, "--tests", *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
