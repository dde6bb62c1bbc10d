"""A cell knows the code that made it: a change of that code is seen, other changes are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.runner import provenance, suite
from benchmarks.runner.closure import closure
from benchmarks.runner.provenance import SIGN, doubt, sealed
from benchmarks.runner.suite import SUITES, Table, run_suite, stale_cells
from veilset.methods.catalogue import BUILT_IN

Kind = Callable[[str], None]
ROOT = suite.ROOT
FILES = {
    "__init__.py": "",
    "suite.py": '''
"""A suite."""
from prov.runner import judge
from prov import words as text
HEAD = "| figure |"  # of the table
SIZE = 3

def cell(method): return judge(method, SIZE)
def render(result): return HEAD + text.line(result)
''',
    "runner.py": '''
import importlib
from prov.words import line
FACTOR = 2
OTHER = 5

def judge(method, size):
    """Count."""
    from veilset.evaluation.registry import entries
    return FACTOR * size

def show(): return line(OTHER)
''',
    "words.py": "def line(x): return str(x)\n",
}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Parts of the code of the cell of a small package, after replacing text in its files: file, old, new."""
    home = tmp_path / "prov"
    home.mkdir()
    for name, text in FILES.items():
        (home / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def of(file: str = "", old: str = "", new: str = "", method: str = "dp-merf") -> dict[str, str]:
        if file:
            text = (home / file).read_text()
            assert text.count(old) == 1
            (home / file).write_text(text.replace(old, new))
        return closure("prov.suite", "cell", {"method": method})

    return of


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("runner.py", "FACTOR = 2", "FACTOR = 2  # twice"),
        ("runner.py", '"""Count."""', '"""Count all."""\n'),
        ("suite.py", '"""A suite."""', '"""A suite\nof two lines."""'),
        ("suite.py", "| figure |", "| number |"),
        ("runner.py", "OTHER = 5", "OTHER = 6"),
        ("words.py", "str(x)", "repr(x)"),
    ],
)
def test_what_cannot_change_a_figure_makes_none_old(code: Callable[..., dict[str, str]], file, old, new) -> None:
    assert code() == code(file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new", "part"),
    [
        ("runner.py", "FACTOR = 2", "FACTOR = 3", "prov.runner:FACTOR"),
        ("suite.py", "SIZE = 3", "SIZE = 4", "prov.suite:SIZE"),
        ("suite.py", "judge(method, SIZE)", "judge(method, SIZE + 1)", "prov.suite:cell"),
        ("runner.py", "return FACTOR * size", "return FACTOR * size + 1", "prov.runner:judge"),
    ],
)
def test_what_a_cell_uses_makes_it_old(code: Callable[..., dict[str, str]], file, old, new, part) -> None:
    before, after = code(), code(file, old, new)
    assert {k for k in before if before[k] != after.get(k)} == {part} and before.keys() == after.keys()


def test_a_method_and_the_judge_count_and_report_and_command_line_do_not(code: Callable[..., dict[str, str]]) -> None:
    parts = code()
    for used in ("methods.embedding.dp_merf", "methods.base", "privacy.gate", "core.types", "networks.generators"):
        assert f"veilset.{used}" in parts
    for measure in ("utility", "fidelity", "likeness"):  # loaded by name, as import_module(f"veilset.evaluation.{...}")
        assert f"veilset.evaluation.{measure}" in parts
    assert not [p for p in parts if p.startswith(("veilset.report", "veilset.cli", "veilset.methods.gan"))]
    assert "veilset.methods.catalogue" not in parts and "veilset" not in parts, "lists and versions change no figure"
    assert "veilset.methods.gan.dp_gan" in code(method="dp-gan:paper")


@pytest.mark.parametrize("name", SUITES)
def test_every_committed_kind_of_cell_has_its_code(name: str) -> None:
    table = Table(name, Path("nowhere"), False, {})
    kinds = {c.kind: c for c in table.chosen}
    for kind, cell in kinds.items():
        parts = closure(table.suite.__name__, kind, cell.params)
        assert f"{table.suite.__name__}:{kind}" in parts or any(p.endswith(f":{kind}") for p in parts)
        method = str(cell.params.get("method")).partition(":")[0]
        assert method not in BUILT_IN or BUILT_IN[method].module in parts


def test_a_sealed_cell_is_trusted_until_code_or_facts_change(tmp_path: Path) -> None:
    facts = {"cell": {"x": 1}, "figure": 0.1 + 0.2, "versions": {"veilset": "9.9"}}
    kept = json.loads(json.dumps(sealed(facts, {"a": "1", "b": "2"}, tmp_path)))
    assert doubt(kept, {"b": "2", "a": "1"}, tmp_path) is None
    other = doubt(kept, {"a": "1", "b": "3", "c": "4"}, tmp_path)
    assert other and asdict(other) == {"why": "other code", "version": "9.9", "differs": ("b", "c")}
    assert "veilset 9.9" in str(other) and "differs in b, c" in str(other)
    for edited in (
        kept | {"figure": 0.4},
        kept | {"code": "0" * 16},
        {k: v for k, v in kept.items() if k != "checksum"},
    ):
        found = doubt(edited, {"a": "1", "b": "2"}, tmp_path)
        assert found and found.why == "edited"
    for unknown in (facts, sealed(facts, None, tmp_path)):
        assert str(doubt(unknown, {"a": "1"}, tmp_path)) == "made by 2026-11, code not recorded"


def test_stale_cells_are_marked_listed_and_made_again(fake: Kind, tmp_path: Path) -> None:
    folder, told = tmp_path / "b", []
    run_suite("fake", folder, tell=told.append)
    page = (folder / "README.md").read_text()
    assert page.count(SIGN) == 1 and stale_cells("fake", folder) == [], "only the intro explains the sign"
    module = tmp_path / "code" / "fake_suite.py"
    module.write_text(module.read_text().replace('"sum": x + 1', '"sum": x + 10'))
    assert [(name, why.why, why.differs) for name, why in stale_cells("fake", folder)] == [
        (f"a.seed{s}", "other code", ("fake_suite:add",)) for s in (0, 1)
    ], "z is made by another function"
    run_suite("fake", folder, dry=True, tell=told.append)
    assert "of 3 results: 2 made by other code." in (folder / "README.md").read_text()
    assert "2 made by other code" in (folder / "fake.md").read_text()
    told.clear()
    result = run_suite("fake", folder, stale=True, only="seed1", tell=told.append)
    assert result["rows"] == {"a.seed0": 1, "a.seed1": 11, "z": 0} and told == ["a.seed1: sum 11"]
    path = folder / "fake" / "z.json"
    path.write_text(path.read_text().replace('"sum": 0', '"sum": 7'))
    assert [(name, str(why)) for name, why in stale_cells("fake", folder)][1] == ("z", "edited since it was made")
    result = run_suite("fake", folder, stale=True, tell=told.append)
    assert result["rows"] == {"a.seed0": 10, "a.seed1": 11, "z": 0} and stale_cells("fake", folder) == []
    assert len(list((folder / provenance.FOLDER).iterdir())) == 3, "two codes of add, one of fine"


def test_code_that_changes_while_a_cell_runs_is_not_recorded(
    fake: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "code" / "fake_suite.py"

    def meanwhile(*_: object) -> dict[str, int]:
        module.write_text(module.read_text() + "\ndef fine(): return {'sum': 1}\n")
        return {"sum": 0, "cell": {}}

    monkeypatch.setattr(suite, "_in_process", meanwhile)
    told: list[str] = []
    run_suite("fake", tmp_path / "b", only="z", tell=told.append)
    assert "changed meanwhile" in told[0]
    assert json.loads((tmp_path / "b" / "fake" / "z.json").read_text())["code"] is None


@pytest.mark.parametrize("name", SUITES)
def test_the_committed_tables_mark_what_other_code_made(name: str) -> None:
    folder = ROOT / "benchmarks" / "results"
    table = Table(name, folder, False, {})
    now = provenance.counted([table.doubt(c) for c in table.candidates(stale=True) if table.result(c)])
    written = json.loads((folder / f"{name}.json").read_text())["code"]
    assert written == now, (
        f"run `make tables` (or `veilset bench {name} --dry`), which marks the cells that other code made"
    )
