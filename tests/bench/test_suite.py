"""Cells are made once, kept, and resumed; a failing one is told and costs no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.runner import quality, suite
from benchmarks.runner.suite import Table, by_present_names, missing, run_suite
from benchmarks.suites import spine
from veilset.core.errors import ConfigError, Note, RunError

Kind = Callable[[str], None]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


class Told(list[str]):
    """Lines that a run told."""

    def __call__(self, line: str) -> None:
        self.append(line)


def run(folder: Path, **how: Any) -> tuple[dict[str, Any], Told]:
    told = Told()
    return run_suite("fake", folder, **how, tell=told), told


def test_cells_are_made_once(fake: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    result, told = run(folder, jobs=2)
    assert result["rows"] == {"a.seed0": 1, "a.seed1": 2, "z": 0} and result["wanted"] == 3 and result["missing"] == []
    assert sorted(told) == ["a.seed0: sum 1", "a.seed1: sum 2", "z: sum 0"]
    assert json.loads((folder / "fake.json").read_text()) == result
    assert (folder / "fake.md").read_text() == "3 rows\n" and "## fake\n\n3 of 3" in (folder / "README.md").read_text()
    facts = json.loads((folder / "fake" / "a.seed1.json").read_text())
    assert facts["cell"] == {"x": 1} and facts["kind"] == "add" and {"threads", "versions", "processor"} <= set(facts)
    before = {p: p.stat().st_mtime_ns for p in (folder / "fake").iterdir()}
    (folder / "fake" / "a.seed0.json").unlink()
    assert run(folder)[1] == ["a.seed0: sum 1"], "only what is not there is made"
    assert {p for p in before if p.stat().st_mtime_ns != before[p]} == {folder / "fake" / "a.seed0.json"}


@pytest.mark.long
def test_cells_of_one_run_share_what_they_ask_for_once(
    fake: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENS", "yes")

    def tokens() -> set[str]:
        run(tmp_path / "b", jobs=1)
        return {json.loads(p.read_text())["token"] for p in (tmp_path / "b" / "fake").glob("a.*.json")}

    first = tokens()
    assert len(first) == 1, "made in the process of the first cell, and taken by the second"
    for path in (tmp_path / "b" / "fake").glob("a.*.json"):
        path.unlink()
    assert len(tokens() | first) == 2, "another run makes its own"


def test_what_is_shared_is_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"x": torch.arange(6, dtype=torch.uint8).view(2, 3)}, {"epsilon": 0.1, "config": {"a": None}}
    other: suite.Made = {}, {"epsilon": 2.0}
    assert suite.once({"a": 1}, lambda: made) is made
    assert suite.once({"a": 1}, lambda: other) is other, "outside a run nothing is kept"
    monkeypatch.setenv(suite.SHARED, str(tmp_path))
    for make in (lambda: made), (lambda: other):
        tensors, facts = suite.once({"a": 1}, make)
        assert tensors.keys() == {"x"} and torch.equal(tensors["x"], made[0]["x"]) and facts == made[1]
    assert suite.once({"a": 2}, lambda: other) == other


@pytest.mark.parametrize(
    ("kind", "words"),
    [("fail", "no luck today"), ("nan", "not JSON compliant"), ("killed", "signal 9; is there enough")],
)
def test_a_failing_cell_is_told_and_the_others_are_kept(fake: Kind, tmp_path: Path, kind: str, words: str) -> None:
    fake(kind)
    told = Told()
    with pytest.raises(RunError, match=f"1 result.s. failed and the others are kept: cell z: .*{words}") as e:
        run_suite("fake", tmp_path / "b", tell=told)
    assert "\n" not in str(e.value)
    assert told[2].startswith("z: FAILED, ") and told[3] == "Missing 1 results, the most wanted first: z."
    summary = json.loads((tmp_path / "b" / "fake.json").read_text())
    assert summary["missing"] == ["z"] and set(summary["rows"]) == {"a.seed0", "a.seed1"}
    fake("fine")
    assert run(tmp_path / "b")[1] == ["z: sum 0"]


def test_dry_runs_nothing_and_says_what_is_missing(fake: Kind, tmp_path: Path) -> None:
    result, told = run(tmp_path / "b", dry=True)
    assert result["missing"] == ["a.seed0", "a.seed1", "z"] and list((tmp_path / "b" / "fake").iterdir()) == []
    assert told == ["Missing 3 results, the most wanted first: a.seed0, a.seed1, z."]
    assert missing([f"c{i}" for i in range(20)]).endswith("c11 and 8 more.")


def test_only_and_options_choose_what_is_run_and_not_what_is_shown(fake: Kind, tmp_path: Path) -> None:
    result, _ = run(tmp_path / "b", only="seed2", options={"seeds": 3})
    assert result["rows"] == {"a.seed2": 3} and result["missing"] == ["a.seed0", "a.seed1", "z"]
    result, _ = run(tmp_path / "b", dry=True)
    assert result["rows"] == {"a.seed2": 3}, "a finished cell stays in the table without the option that asked for it"


def test_a_cell_of_other_parameters_does_not_count(fake: Kind, tmp_path: Path) -> None:
    home = tmp_path / "b" / "fake"
    home.mkdir(parents=True)
    (home / "a.seed0.json").write_text(json.dumps({"kind": "add", "cell": {"x": 7}, "sum": 8}))
    assert run(tmp_path / "b")[0]["rows"]["a.seed0"] == 1


def test_a_cell_of_another_suite_counts_if_it_is_the_same(fake: Kind, tmp_path: Path) -> None:
    other = tmp_path / "b" / "other"
    other.mkdir(parents=True)
    for s, made in ((0, {"x": 0}), (1, {"x": 5}), (2, {"x": 2, "more": True}), (3, {})):
        (other / f"a.seed{s}.json").write_text(json.dumps({"cell": made, "sum": 100 + s}))
    rows = run(tmp_path / "b", options={"seeds": 4})[0]["rows"]
    assert rows == {"a.seed0": 100, "a.seed1": 2, "a.seed2": 102, "a.seed3": 4, "z": 0}


def test_a_cell_file_cut_short_is_named(fake: Kind, tmp_path: Path) -> None:
    run(tmp_path / "b")
    (tmp_path / "b" / "fake" / "a.seed0.json").write_text('{"cell"')
    with pytest.raises(RunError, match=r"a\.seed0\.json: not valid JSON"):
        run(tmp_path / "b")


def test_bad_input(fake: Kind, tmp_path: Path) -> None:
    for name, how, words in (
        ("fakee", {}, "Did you mean 'fake'"),
        ("fake", {"jobs": 0}, "jobs = 0: must be at least 1"),
        ("fake", {"options": {"methods": ["x"]}}, "suite fake takes no --methods; it takes --seeds"),
        ("spine", {"options": {"seeds": 1}}, "it takes none of these options"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_suite(name, tmp_path / "b", **how, tell=print)
    assert not (tmp_path / "b").exists()


def test_every_suite_offers_what_is_needed() -> None:
    for name in suite.SUITES:
        table = Table(name, Path("nowhere"), False, {})
        assert table.chosen and len({c.name for c in table.chosen}) == len(table.chosen)
        assert all(callable(getattr(table.suite, c.kind)) for c in table.chosen)
        json.dumps([dict(c.params) for c in table.chosen], allow_nan=False)


def test_the_committed_page_is_made_from_the_committed_tables() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results"
    assert (folder / "README.md").read_text() == suite._readme(folder)


def test_a_suite_is_named_by_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    from veilset.cli.main import main

    for old, new in suite.RENAMED.items():
        with pytest.warns(Note, match=f"suite {old} is now {new}; the old name goes in the next release"):
            assert suite.suite_name(old) == new
        assert old not in suite.SUITES and suite.suite_name(new) == new
    assert main(["bench", "source-003", "--stale", "--list", "--only", "no such cell"]) == 0
    assert (
        capsys.readouterr().err == "veilset: note: suite source-003 is now private-set-paper; "
        "the old name goes in the next release\n"
    )
    assert main(["bench", "source-009", "--dry"]) == 2
    assert "source-009" in capsys.readouterr().err
    for name, module in suite.SUITES.items():
        assert module.rpartition(".")[2].startswith(name.replace("-", "_")[:5]), "a module is called as its suite"


def test_a_result_keeps_the_names_that_parameters_had_and_counts() -> None:
    name = "dp-merf.published-averaged-weights.mnist.eps1.seed0"
    made = json.loads((RESULTS / "spine" / f"{name}.json").read_text())
    assert (made["cell"]["params"]["batch"], made["cell"]["params"]["average"]) == (100, 0.99)
    cell = next(c for c in spine.cells(False) if c.name == name)
    assert (cell.params["params"]["batch_size"], cell.params["params"]["ema_decay"]) == (100, 0.99)
    assert Table("spine", RESULTS, False, {}).result(cell) == made
    assert not quality.over_seeds([(cell, made)], 1)["older"]
    unknown = {"method": "gone", "params": {"rate": 1}}
    assert by_present_names(unknown) == unknown
