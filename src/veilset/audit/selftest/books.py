"""What is paid and when: refusals, the ledger before the answer, resuming, receipts that do not follow."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from veilset.audit.selftest.base import Check, along, facts, flat, gate_for, hidden, pictures, refused, wrong
from veilset.core.errors import BudgetExceeded, DataError, LedgerError, ModeError, PlanError, RunError, VeilsetError
from veilset.core.io import canonical, sha256
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Release
from veilset.privacy.private import PrivateImages
from veilset.privacy.receipt import make_receipt, verify, write_release
from veilset.privacy.spec import Privacy

BUDGET = Privacy(1.0, 1e-5)
W = {"w": torch.zeros(1, 4, 4)}


def refusals() -> Iterator[Check]:
    """What was not planned, or is spent, is refused; each refusal reads nothing and charges nothing."""
    releases = (Release(name="s"), Release(name="g", verb="grad", steps=2), Release(name="c", partition="class"))
    gate = gate_for(_people(), *releases, privacy=BUDGET)
    other = gate_for(_people(), *releases, privacy=BUDGET)
    of = {
        "not planned": refused(lambda: gate.sum("t", flat), PlanError),
        "another verb": refused(lambda: gate.sum("g", flat), PlanError),
        "a part of what has none": refused(lambda: gate.sum("s", flat, part=0), PlanError),
        "no part of a partition": refused(lambda: gate.sum("c", flat), PlanError),
        "a part that is not there": refused(lambda: gate.sum("c", flat, part=3), PlanError),
        "raw records in a release": refused(lambda: gate.inspect("look"), ModeError),
    }
    of["refusals cost nothing"] = not gate.ledger.spent()
    gate.sum("s", flat)
    gate.sum("c", flat, part=1)
    for _ in range(2):
        gate.grad("g", along, W)
    of["a sum asked again"] = refused(lambda: gate.sum("s", flat), BudgetExceeded)
    of["a part asked again"] = refused(lambda: gate.sum("c", flat, part=1), BudgetExceeded)
    of["one step too many"] = refused(lambda: gate.grad("g", along, W), BudgetExceeded)
    charged = {(b["release"], b["part"]): b["steps"] for b in gate.ledger.bodies("charge")}
    of["each answer is charged once"] = gate.ledger.steps("g", None) == 2 and set(charged) == {
        ("s", None), ("c", 1), ("g", None)
    }  # fmt: skip
    of["charges say the noise that was drawn"] = all(
        (b["noise_multiplier"], b["sensitivity"], b["sample_rate"]) == (p.noise_multiplier, p.bound, p.sample_rate)
        for b in gate.ledger.bodies("charge")
        for p in [gate.plan[b["release"]]]
    )
    next(other.loop("g", {}))
    of["a loop begun again"] = refused(lambda: next(other.loop("g", {})), PlanError)
    other.close()
    of["a question after the end"] = refused(lambda: other.sum("s", flat), PlanError)
    crowd = hidden(facts(), *pictures(8 * 50 + 1, facts()))
    of["far more records than declared"] = refused(lambda: gate_for(crowd, *releases, privacy=BUDGET), DataError)
    of["private images are counted"] = refused(lambda: len(_people()), ModeError)
    of["private images are iterated"] = refused(lambda: list(_people()), ModeError)
    yield wrong("what was not planned or paid is refused", "questions that are answered", of=of)
    looked = gate_for(_people(), Release(name="s"), privacy=BUDGET, seed=1)
    looked.inspect("panel")
    receipt = make_receipt(looked.close(), looked.plan, "selftest", {})
    stamped = {
        "raw reads are logged": any(True for _ in looked.ledger.bodies("inspect")),
        "research is stamped": "NOT A RELEASE" in receipt.stamp and not receipt.release and receipt.inspected,
    }
    yield wrong("research mode is stamped", "marks that are missing", of=stamped)


def charged_first() -> Iterator[Check]:
    """No answer is given, or kept, when its charge cannot be written."""
    of = {}
    for verb in ("sum", "grad"):
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home)
            gate = gate_for(_people(), Release(name="r", verb=verb), privacy=BUDGET, folder=folder)
            (folder / "ledger.jsonl").unlink()
            (folder / "ledger.jsonl").mkdir()  # lines cannot be added any more
            ask = _asker(gate, verb)
            of[f"{verb} is not answered"] = refused(ask, VeilsetError, OSError)
            of[f"{verb} is not kept"] = not any((folder / "private" / "answers").iterdir())
    yield wrong("the ledger is written before an answer leaves", "answers without a charge", of=of)


def resumed() -> Iterator[Check]:
    """An interrupted release goes on behind what was charged; kept answers and checkpoints need their charge."""
    of: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as home:
        of |= _sums_resumed(Path(home) / "sums") | _loops_resumed(Path(home) / "loops")
    yield wrong("an interrupted run is never charged less", "ways to have steps unpaid", of=of)


def receipts() -> Iterator[Check]:
    """A receipt holds for its own ledger and files only; a forged or altered one does not verify."""
    with tempfile.TemporaryDirectory() as home:
        made = _release(Path(home) / "made")
        got = verify(made)
        of = {"an honest one verifies": got.ok and got.release and abs((got.epsilon or 0) - 1) < 1e-6}
        of["it names its relation"] = _read(made)["relation"] == "add or remove one unit"
        for what, forge in FORGERIES.items():
            copy = shutil.copytree(made, Path(home) / what)
            forge(copy)
            of[what] = not verify(copy).ok
        of["an edited ledger is not opened"] = refused(
            lambda: Ledger(Path(home) / EDITED / "ledger.jsonl"), LedgerError
        )
        no_noise = gate_for(_people(), Release(name="s"))
        no_noise.sum("s", flat)
        bare = make_receipt(no_noise.close(), no_noise.plan, "selftest", {})
        of["no noise, no receipt"] = bare.file_name == "NON-PRIVATE.json" and not bare.release
        of["a record more does not show"] = len({_public(n) for n in (1, 49, 50)}) == 1
    yield wrong("receipts follow from their ledger", "forgeries that verify, or facts that are missing", of=of)


CHECKS = (refusals, charged_first, resumed, receipts)


def _people(n: int = 20, **changes: Any) -> PrivateImages:
    info = facts(**changes)
    return hidden(info, *pictures(n, info))


def _asker(gate: Gate, verb: str) -> Callable[[], Any]:
    return (lambda: gate.sum("r", flat)) if verb == "sum" else (lambda: gate.grad("r", along, W))


def _sums_resumed(folder: Path) -> dict[str, bool]:
    release, info = Release(name="r", steps=3), facts()
    x, y = pictures(20, info)

    def again(**changes: Any) -> Gate:
        data = hidden(info, changes.get("x", x), y)
        return gate_for(data, release, privacy=changes.get("privacy", BUDGET), folder=folder)

    first = gate_for(_people(), release, privacy=BUDGET, folder=folder)
    paid = [first.sum("r", flat) for _ in range(2)]
    answers = sorted((folder / "private" / "answers").iterdir())
    of = {"kept answers are for the owner only": all(p.stat().st_mode & 0o077 == 0 for p in answers)}
    answers[1].unlink()
    gate = again()
    of["a paid answer is the same"] = torch.equal(gate.sum("r", flat), paid[0])
    of["a lost answer is not drawn again"] = refused(lambda: gate.sum("r", flat), BudgetExceeded)
    of["other data"] = refused(lambda: again(x=x[:, :, ::-1].copy()), RunError)
    of["another budget"] = refused(lambda: again(privacy=Privacy(2.0)), RunError)
    (folder / "ledger.jsonl").unlink()
    of["an answer whose charge is gone"] = refused(lambda: again().sum("r", flat), RunError)
    return of


def _loops_resumed(folder: Path) -> dict[str, bool]:
    release = Release(name="g", verb="grad", steps=200)  # charged in blocks of two
    net, counted = nn.Linear(16, 1), []

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return net(x.flatten()).sum()

    def train(steps: int, seed: int | None, home: Path) -> int:
        """Take so many steps, then stop as if killed; returns the number of the first one."""
        gate, first = gate_for(_people(), release, privacy=BUDGET, seed=seed, folder=home), -1
        loop = gate.loop("g", {"net": net})
        for t in loop:
            first = t if first < 0 else first
            if t - first == steps:
                break
            gate.grad("g", loss, net)
        counted.append(gate.ledger.steps("g", None))
        return first

    train(3, None, folder)
    begun = train(2, None, folder)
    of = {
        "steps are charged in blocks, ahead": counted[0] == 4,
        "a loop goes on behind what was charged": begun == 4,
        "and is charged again": counted[1] == 6,
    }
    train(3, 1, folder / "research")
    path = folder / "research" / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    of["a checkpoint whose charge is gone"] = refused(lambda: train(1, 1, folder / "research"), RunError)
    gate = gate_for(_people(), release, privacy=BUDGET)
    for _ in gate.loop("g", {"net": net}):
        gate.grad("g", loss, net)
    of["all steps are charged"] = gate.ledger.steps("g", None) == 200
    return of


def _release(folder: Path) -> Path:
    """A small release: one file, its ledger, its receipt."""
    releases = Release(name="s", bound=3.0), Release(name="c", partition="class"), Release(name="g", verb="grad")
    gate = gate_for(_people(), *releases, privacy=BUDGET)
    answer = gate.sum("s", flat)
    gate.grad("g", along, W)
    for part in range(3):
        gate.sum("c", flat, part=part)
    ledger = gate.close()
    folder.mkdir()
    (folder / "images.bin").write_bytes(answer.numpy().tobytes())
    (folder / "labels.csv").write_text("file,label\n")  # as every release of pictures has
    write_release(folder, make_receipt(ledger, gate.plan, "selftest", {}), ledger.to_bytes())
    return folder


def _public(n: int) -> bytes:
    """All that a run of n records says in public, but its noise."""
    gate = gate_for(_people(n), Release(name="s"), Release(name="g", verb="grad", steps=3), privacy=BUDGET)
    gate.sum("s", flat)
    for _ in range(3):
        gate.grad("g", along, W)
    return gate.close().to_bytes()


# ---------------------------------------------------------------------- forgeries


def _read(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "receipt.json").read_text())
    return facts


def _say(folder: Path, **changes: Any) -> None:
    """Change the receipt, and its seal with it."""
    said = _read(folder) | changes
    said["seal"] = sha256(canonical({k: v for k, v in said.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(said))


def _reseal(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrite the whole chain with changed bodies, None for a line that is dropped, and make the receipt fit."""
    forged = Ledger()
    for line in Ledger(folder / "ledger.jsonl").lines:
        body = change(json.loads(json.dumps(line["body"])))
        if body is not None:
            forged.append(body.pop("kind"), **body)
    raw = forged.to_bytes()
    (folder / "ledger.jsonl").write_bytes(raw)
    old = next(s for s in (folder / "SHA256SUMS").read_text().splitlines() if s.endswith("ledger.jsonl"))
    sums = (folder / "SHA256SUMS").read_text().replace(old, f"{sha256(raw)}  ledger.jsonl")
    (folder / "SHA256SUMS").write_text(sums)
    _say(
        folder,
        ledger_lines=len(forged.lines),
        ledger_head=forged.head,
        ledger_sha256=sha256(raw),
        files_sha256=sha256(sums.encode()),
    )


def _less_noise(body: dict[str, Any]) -> dict[str, Any]:
    if body["kind"] == "charge":
        body["noise_multiplier"] /= 2
    return body


def _less_noise_planned(body: dict[str, Any]) -> dict[str, Any]:
    for r in body["plan"]["releases"] if body["kind"] == "open" else []:
        r["noise_multiplier"] /= 2
    return _less_noise(body)


def _again(body: dict[str, Any]) -> dict[str, Any]:
    if body["kind"] == "charge":
        body["steps"] = 2
    return body


def _never_ended(body: dict[str, Any]) -> dict[str, Any] | None:
    return None if body["kind"] == "close" else body


def _edit_line(folder: Path) -> None:
    path = folder / "ledger.jsonl"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"sample_rate":1.0', b'"sample_rate":0.1'))
    digest = sha256(path.read_bytes())
    sums = (folder / "SHA256SUMS").read_text().replace(sha256(raw), digest)
    (folder / "SHA256SUMS").write_text(sums)
    _say(folder, ledger_sha256=digest, files_sha256=sha256(sums.encode()))


def _elsewhere(folder: Path, name: str) -> None:
    """Put a link in a file's place."""
    away = folder.parent / f"{folder.name} {name}"
    (folder / name).rename(away)
    (folder / name).symlink_to(away)


def _private(folder: Path) -> None:
    (folder / "private").mkdir()
    (folder / "private" / "raw.bin").write_bytes(b"raw")


def _private_elsewhere(folder: Path) -> None:
    _private(folder)
    _elsewhere(folder, "private")


EDITED = "a line that was edited"
FORGERIES: dict[str, Callable[[Path], Any]] = {
    "a smaller epsilon": lambda f: _say(f, epsilon=0.5),
    "another delta": lambda f: _say(f, delta=1e-3),
    "a larger budget": lambda f: _say(f, epsilon_budget=2.0),
    "another relation": lambda f: _say(f, relation="replace one unit"),
    "a file that was changed": lambda f: (f / "images.bin").write_bytes(b"other"),
    "a file that nobody knows": lambda f: (f / "more.bin").write_bytes(b"more"),
    "a fact without its seal": lambda f: (f / "receipt.json").write_text(json.dumps(_read(f) | {"method": "x"})),
    EDITED: _edit_line,
    "less noise than planned": lambda f: _reseal(f, _less_noise),
    "a plan of less noise": lambda f: _reseal(f, _less_noise_planned),
    "more steps than planned": lambda f: _reseal(f, _again),
    "a ledger that has not ended": lambda f: _reseal(f, _never_ended),
    "a file that is elsewhere": lambda f: _elsewhere(f, "images.bin"),
    "a private folder": _private,
    "a private folder that is elsewhere": _private_elsewhere,
    "a version that had a fault": lambda f: _say(f, versions=_read(f)["versions"] | {"veilset": "0.1.0"}),
    "a version that cannot be read": lambda f: _say(f, versions={}),
}
