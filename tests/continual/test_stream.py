"""Tasks run when their data is there: earlier sets stay, an interruption costs nothing twice, an account pays once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streams import INFO, blobs, priced

from veilset.continual.check import verify_stream
from veilset.continual.stream import TaskStream
from veilset.core.errors import BudgetExceeded, ConfigError, DataError, LedgerError, ModeError, RunError
from veilset.core.io import sha256_file
from veilset.privacy.account import Account
from veilset.privacy.ledger import Ledger
from veilset.privacy.spec import Privacy

Make = Callable[..., TaskStream]


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_later_tasks_leave_earlier_sets_as_they_are(stream: Make) -> None:
    made = stream("ab", "cd")
    made.fit(blobs("ab"))  # the images of c and d are not there yet
    before, line = hashes(made.folder / "task-1"), made.book.lines[0]
    made.fit(blobs("abcd", seed=9))
    assert hashes(made.folder / "task-1") == before and made.book.lines[0] == line
    assert made.states == ["released", "released"]
    assert torch.equal(made.images(1).x, made.images().x[:6])


def test_images_have_labels_of_the_whole_set(stream: Make) -> None:
    made = stream("db", "c", "a")
    made.fit(blobs())
    made.fit(blobs(), 3)
    got = made.images()
    assert sorted(got.y.tolist()) == [0, 0, 0, 1, 1, 1, 3, 3, 3] and got.classes == INFO.classes
    assert [made.state(n) for n in (1, 2, 3)] == ["released", "planned", "released"]


def test_a_task_reads_the_records_of_its_classes_and_no_others(stream: Make, tiny: Any, monkeypatch: Any) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    real = tiny._fit

    def fit(self: Any, gate: Any, info: Any, plan: Any) -> Any:
        chunk = next(gate._reader.chunks(np.arange(40), 64))
        seen.append((chunk.x, chunk.y, chunk.unit))
        return real(self, gate, info, plan)

    monkeypatch.setattr(tiny, "_fit", fit)
    stream("db", "ac").fit(blobs())
    x, y, unit = seen[0]
    wanted = blobs()._open()
    chosen = np.flatnonzero(np.isin(wanted.labels, [1, 3]))
    raw = np.empty((40, *INFO.shape), np.uint8)
    wanted.records.read(chosen, raw)
    assert torch.equal((x[:40] * 255).round().to(torch.uint8), torch.from_numpy(raw)) and len(unit) == 40
    assert y[:40].tolist() == [1] * 20 + [0] * 20, "labels count the task's classes: d is 0, b is 1"


def test_the_receipt_says_what_all_tasks_cost(stream: Make) -> None:
    made = stream("ab", "bc", "d")
    receipt = made.fit(blobs(), 2)
    said = receipt.facts["stream"]
    assert said["task"] == 2 and said["epsilon"] == priced("ab", "bc", "d").claim().epsilon > receipt.epsilon
    assert "b in tasks 1, 2" in said["composition"] and "b in tasks 1, 2" in str(receipt)
    ledger = Ledger(made.folder / "task-2" / "ledger.jsonl")
    assert ledger.lines[0]["body"]["plan"]["stream"] == said
    assert "b in tasks 1, 2" in str(made)


def test_a_released_task_is_not_asked_again(stream: Make) -> None:
    made = stream("ab", "cd")
    made.fit(blobs(), 1)
    with pytest.raises(RunError, match="task 1 is released"):
        made.fit(blobs(), 1)
    for wrong in (0, 3):
        with pytest.raises(ConfigError, match="tasks 1 to 2"):
            made.fit(blobs(), wrong)
    made.fit(blobs())
    with pytest.raises(RunError, match="all tasks are released"):
        made.fit(blobs())


def test_another_set_or_one_that_is_not_there_yet_is_refused_before_a_task_begins(stream: Make) -> None:
    made = stream("ab", "cd")
    with pytest.raises(DataError, match="units = 81"):
        made.fit(blobs(info=replace(INFO, units=81)))
    with pytest.raises(DataError, match="no image of them yet"):
        made.fit(blobs("ab"), 2)
    assert made.states == ["planned", "planned"] and len(TaskStream(made.folder).book.lines) == 1


def test_a_unit_of_several_classes_is_refused_where_one_was_declared(stream: Make) -> None:
    info = replace(INFO, unit="one patient", units=40, max_images_per_unit=2)
    together, mixed = np.arange(80) // 2, np.arange(80) % 40  # neighbours have one class; twenty apart they differ
    made = stream("ab", "cd", info=info, one_class=True)
    with pytest.raises(DataError, match="several classes"):
        made.fit(blobs(info=info, units=mixed))
    made.fit(blobs(info=info, units=together))
    open_to_all = stream("ab", "cd", info=info, name="t")
    open_to_all.fit(blobs(info=info, units=mixed))
    assert verify_stream(open_to_all.folder).ok


# ---------------------------------------------------------------------- interruption


@pytest.fixture
def cut(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The first fit is stopped by ctrl-c after its answer; the states of all fits are kept."""
    answers: list[Any] = []
    real = tiny._fit

    def fit(self: Any, gate: Any, info: Any, plan: Any) -> Any:
        answers.append(real(self, gate, info, plan))
        if len(answers) == 1:
            raise KeyboardInterrupt
        return answers[-1]

    monkeypatch.setattr(tiny, "_fit", fit)
    return answers


def test_an_interrupted_task_goes_on_without_a_larger_charge(stream: Make, cut: list[Any]) -> None:
    made = stream("ab", "cd")
    with pytest.raises(KeyboardInterrupt):
        made.fit(blobs("ab"))
    assert made.states == ["begun", "planned"] and not (made.folder / "task-1").exists()
    assert verify_stream(made.folder).ok, "what has been begun is covered by the plan"
    again = TaskStream(made.folder)
    again.fit(blobs("ab"))
    ledger = Ledger(made.folder / "task-1" / "ledger.jsonl")
    assert sum(1 for _ in ledger.bodies("charge")) == 1 and torch.equal(cut[0]["mean"], cut[1]["mean"])
    kinds = [line["body"]["kind"] for line in again.book.lines]
    assert kinds == ["open", "begin", "release"] and verify_stream(made.folder).ok


def test_a_begun_task_without_its_run_folder_is_refused(stream: Make, cut: list[Any]) -> None:
    made = stream("ab", "cd")
    with pytest.raises(KeyboardInterrupt):
        made.fit(blobs())
    shutil.rmtree(made.folder / "private" / "task-1")
    with pytest.raises(RunError, match="its run folder .* is gone"):
        made.fit(blobs())
    assert len(cut) == 1 and made.states[0] == "begun"
    made.fit(blobs(), 2)  # the others go on
    assert verify_stream(made.folder).epsilon == pytest.approx(1.0)


def test_a_task_interrupted_while_it_writes_its_images_writes_the_same_ledger(stream: Make, monkeypatch: Any) -> None:
    made = stream("ab")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Ledger, "append", _full_at("release", Ledger.append))
        made.fit(blobs())
    images = hashes(made.folder / "task-1")
    left = made.folder / f".task-1.partial-{os.getpid()}"
    left.mkdir()
    TaskStream(made.folder).fit(blobs())
    assert hashes(made.folder / "task-1") == images and not left.exists()
    assert verify_stream(made.folder).release


def _full_at(kind: str, real: Any) -> Any:
    def append(self: Ledger, what: str, **body: Any) -> None:
        if what == kind:
            raise OSError("full")
        real(self, what, **body)

    return append


def test_a_changed_method_is_refused(stream: Make, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream("ab")
    real = tiny._plan

    def other(self: Any, info: Any, privacy: Any) -> Any:
        old = real(self, info, privacy)
        return replace(old, releases=(replace(old.releases[0], bound=1.0),))

    monkeypatch.setattr(tiny, "_plan", other)
    with pytest.raises(RunError, match="plans other releases"):
        made.fit(blobs())
    assert made.states == ["planned"]


# ---------------------------------------------------------------------- modes and accounts


def test_a_stream_with_a_seed_repeats_and_is_stamped(stream: Make) -> None:
    one, two = (stream("ab", "cd", name=name, seed=3) for name in "st")
    for made in (one, two):
        made.fit(blobs())
        made.fit(blobs())
    assert torch.equal(one.images().x, two.images().x) and "NOT A RELEASE" in one.images().label
    checked = verify_stream(one.folder)
    assert checked.ok and not checked.release and "NOT A RELEASE" in str(checked)
    noise = [Ledger(one.folder / f"task-{n}" / "ledger.jsonl").head for n in (1, 2)]
    assert noise[0] != noise[1]


def test_an_account_pays_for_all_tasks_once(stream: Make, tmp_path: Path) -> None:
    account, alone = (Account(tmp_path / name) for name in ("a", "b"))
    for each in (account, alone):
        each.create(INFO, Privacy(3.0))
    made = stream("ab", "cd", account=account.path)
    stream("ab", name="t", account=alone.path)
    share = account.balance().share
    assert 0 < share == alone.balance().share < 1, "different classes cost as much as one task"
    made.fit(blobs())
    made.fit(blobs())
    assert account.balance().share == share
    line = account.balance().book.lines[1]
    assert made.facts["account"]["head"] == line["hash"] and "parallel composition" in line["body"]["purpose"]
    assert verify_stream(made.folder).ok
    stream("ab", "ac", name="u", account=alone.path)
    assert alone.balance().share > 2.5 * share, "a repeated class is paid twice"


def test_an_account_that_does_not_pay_leaves_nothing_behind(stream: Make, tmp_path: Path) -> None:
    account = Account(tmp_path / "a")
    account.create(INFO, Privacy(1.1))
    copy = account.path.read_bytes()
    with pytest.raises(BudgetExceeded):
        stream("ab", "ac", account=account.path)
    with pytest.raises(ModeError):
        stream("ab", "cd", account=account.path, seed=1)
    assert not (tmp_path / "s").exists() and account.path.read_bytes() == copy
    account.path.unlink()
    account.create(INFO, Privacy(1.3))
    copy = account.path.read_bytes()
    made = stream("ab", "cd", account=account.path)
    account.path.write_bytes(copy)
    with pytest.raises(LedgerError, match="set back"):
        made.fit(blobs())


def test_a_folder_in_the_way_is_refused(stream: Make, tmp_path: Path) -> None:
    stream("ab")
    with pytest.raises(RunError, match="exists"):
        stream("ab")
    with pytest.raises(RunError, match="no stream here"):
        TaskStream(tmp_path / "elsewhere")
