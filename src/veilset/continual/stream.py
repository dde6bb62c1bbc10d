"""A stream's folder: its ledger, what its tasks released, and the runs of the tasks, which stay private.

    STREAM/stream.jsonl   chained lines: the plan of all tasks with its claim, then which task began, what it released
    STREAM/task-1/ ...    what task 1 released: images, its own ledger, receipt, hashes; written once, never again
    STREAM/private/       seed, account, and the run folders of the tasks; never handed over

A task begins once. Interrupted, it goes on in its run folder as any run does; without that folder it is refused.
"""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.continual.plan import StreamPlan
from veilset.core.errors import ConfigError, DataError, RunError
from veilset.core.facts import check_tested
from veilset.core.io import lock, new_folder, no_links, read_capped, read_json, write_json
from veilset.core.rendering import one_line
from veilset.core.types import Images, PublicInfo
from veilset.privacy.account import Account, Payment, check_mode
from veilset.privacy.known_faults import known_fault
from veilset.privacy.ledger import FORMATS, MOST_LEDGER, Ledger, parse
from veilset.privacy.plan import Plan
from veilset.privacy.private import PrivateImages, restricted
from veilset.privacy.receipt import RESEARCH, Receipt, read_receipt
from veilset.privacy.run.run_store import drop_torn_line
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    from veilset.methods.base import Synthesizer

BOOK = "stream.jsonl"
SEEDS = 100_003  # task t of research seed s is run with seed SEEDS * s + t, so that no two tasks share their noise


class TaskStream:
    """An existing stream.

    Args:
        folder: what `create` made.

    Raises:
        RunError: there is no stream. LedgerError: its lines were edited.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            data = read_capped(self.folder / BOOK, MOST_LEDGER)
        except (OSError, RunError):
            raise RunError(f"{self.folder}: no stream here; make one with `veilset continual plan ... --out`") from None
        self.book = Ledger(kind="stream")
        self.book.lines = list(parse(data[: data.rfind(b"\n") + 1], "stream"))
        if not self.book.lines:
            raise RunError(f"{self.folder / BOOK} is empty; make the stream anew in another folder")
        try:
            self._whole()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            raise RunError(
                f"{self.folder / BOOK}: its first line plans no stream ({type(e).__name__}: {e}); get another copy"
            ) from e

    @classmethod
    def create(
        cls, plan: StreamPlan, folder: str | Path, *, seed: int | None = None, account: Path | None = None
    ) -> TaskStream:
        """Make the folder; no record is read. An account pays for all tasks now.

        Args:
            plan: all tasks.
            folder: to make.
            seed: None for release mode; an integer for research mode.
            account: file of the set's privacy account.

        Raises:
            RunError: the folder exists, or the last self-test failed. BudgetExceeded: the account does not cover all
                tasks.
            ModeError: an account for a stream with a seed.
        """
        folder, drawn = Path(folder), None
        check_tested(seed)
        # Two streams with the same plan are told apart by their id; a research stream repeats, so it has none.
        facts = plan.facts() | {"mode": "release" if seed is None else "research"}
        facts |= {"id": secrets.token_hex(16) if seed is None else ""}
        with new_folder(folder) as tmp:
            if account:
                check_mode(seed, plan.plans[0].budget)
                purpose = f"continual, {len(plan.tasks)} tasks, {plan.composition}"
                drawn = Account(account).draw(plan.info, plan.spent(), purpose)
            (tmp / "private").mkdir(mode=0o700)
            kept = {"seed": seed, "account": str(account.resolve()) if account else None}
            write_json(tmp / "private" / "stream.json", kept, mode=0o600)
            Ledger(tmp / BOOK, "stream").append("open", format=FORMATS["stream"], **facts, account=drawn)
        return cls(folder)

    # ------------------------------------------------------------------ what it says

    def _whole(self) -> None:
        """Look at everything that is asked of the plan below, since a stranger may have written it."""
        f = self.facts
        numbers = [f["epsilon"], f["epsilon_rdp"], f["delta"]]
        words = [f["composition"], f["mode"], self.info.name]
        for task in f["tasks"]:
            plan = task["plan"]
            numbers += [plan["privacy"]["epsilon"], PublicInfo.from_json(plan["info"]).units]
            words += [task["method"], *task["classes"]]
            planned(plan)
        if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers) or not all(
            isinstance(w, str) for w in words
        ):
            raise TypeError("a number or word is of another type")
        _ = self.states, [f[key] for key in ("per_class", "account", "one_class", "images")]

    @property
    def facts(self) -> dict[str, Any]:
        """The plan of all tasks and its claim."""
        first: dict[str, Any] = self.book.lines[0]["body"]
        return first

    @property
    def info(self) -> PublicInfo:
        """Declared facts of the whole set."""
        return PublicInfo.from_json(self.facts["set"])

    def state(self, number: int) -> str:
        """planned, begun or released."""
        done = {kind for kind in ("begin", "release") for b in self.book.bodies(kind) if b["task"] == number}
        return "released" if "release" in done else "begun" if "begin" in done else "planned"

    @property
    def states(self) -> list[str]:
        """The state of every task."""
        return [self.state(n) for n in range(1, len(self.facts["tasks"]) + 1)]

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset continual show --json`."""
        f = self.facts
        tasks = [
            {"task": n, "classes": t["classes"], "method": t["method"], "units": t["plan"]["info"]["units"]}
            | {"epsilon_budget": t["plan"]["privacy"]["epsilon"], "state": self.state(n)}
            | {"known_fault": self._fault(n)}
            for n, t in enumerate(f["tasks"], 1)
        ]
        keys = ("epsilon", "delta", "composition", "mode", "per_class", "account")
        return {"set": f["set"]["name"], "unit": f["set"]["unit"], "tasks": tasks, "head": self.book.head} | {
            k: f[k] for k in keys
        }

    def _fault(self, number: int) -> str:
        """What is known to be wrong with the claim of a released task, by the version that made it."""
        there = self.state(number) == "released" and self._out(number).is_dir()
        return (
            known_fault(read_receipt(self._out(number)).facts, self.facts["tasks"][number - 1]["plan"]) if there else ""
        )

    def __str__(self) -> str:
        j = self.to_json()
        lines = [
            f"task {t['task']}: {t['state']:<9} {t['method']}, epsilon {t['epsilon_budget']:g}, on "
            + ", ".join(t["classes"])
            + (f"; CLAIM NOT TO BE RELIED ON: {t['known_fault']}" if t["known_fault"] else "")
            for t in j["tasks"]
        ]
        lines.append(f"all tasks: epsilon {j['epsilon']:.4f} at delta {j['delta']:g} on {j['set']}, unit: {j['unit']}")
        return "\n".join([*map(one_line, lines), j["composition"], f"mode {j['mode']}, head {j['head']}"])

    def images(self, upto: int | None = None) -> Images:
        """What the tasks released so far, task by task, with labels of the whole set.

        Args:
            upto: the last task to take; None: all that are released.

        Raises:
            RunError: nothing is released yet, or a folder is gone.
        """
        import torch

        from veilset.core.pictures import read_images

        info, out = self.info, []
        for n, task in enumerate(self.facts["tasks"][:upto], 1):
            if self.state(n) == "released":
                place = torch.tensor([info.classes.index(c) for c in task["classes"]])
                one = read_images(self._out(n), PublicInfo.from_json(task["plan"]["info"]))
                out.append((one.x, place[one.y]))
        if not out:
            raise RunError(f"{self.folder}: no task is released yet; run one with `veilset continual fit`")
        stamp = RESEARCH if self.facts["mode"] == "research" else ""
        x, y = (torch.cat(parts) for parts in zip(*out, strict=True))
        return Images(x, y, info.classes, label=stamp or "SYNTHETIC")

    # ------------------------------------------------------------------ running a task

    def fit(self, data: PrivateImages, number: int | None = None, *, device: str = "cpu") -> Receipt:
        """Run a task, or go on with it, and write what it releases. What earlier tasks released is not touched.

        Args:
            data: the whole private set as it is now: images of other classes may be there or not, they are not read.
            number: which task, from 1; None: the first one that is not released.
            device: where torch computes.

        Returns:
            The task's receipt, which says what all tasks cost together.

        Raises:
            DataError: the set is not the stream's, or holds no image of these classes yet; nothing was asked.
            RunError: the task is released, or was begun and its run folder is gone.
            BudgetExceeded, LedgerError: as for any run that goes on.
        """
        with self._held() as book:
            number = self._next() if number is None else number
            if not 1 <= number <= len(self.facts["tasks"]):
                raise ConfigError(f"task = {number}: the stream has tasks 1 to {len(self.facts['tasks'])}")
            if self.state(number) == "released":
                raise RunError(f"task {number} is released, and a task is asked once; plan a new stream for another")
            _same(self.info, data.info)
            model, plan = self._method(number)
            assert plan.info is not None
            part = restricted(data, plan.info, self.facts["one_class"])
            part.check()
            run = self._begin(book, number)
            fitted = self._run(model, plan, part, run, number, device)
            return self._release(book, fitted, number)

    @contextmanager
    def _held(self) -> Iterator[Ledger]:
        """The stream's ledger on disk, while no other process has it."""
        no_links(self.folder)
        with lock(self.folder / "private" / "lock", str(self.folder)):
            drop_torn_line(self.folder / BOOK)
            self.book = Ledger(self.folder / BOOK, "stream")
            yield self.book

    def _next(self) -> int:
        left = [n for n, state in enumerate(self.states, 1) if state != "released"]
        if not left:
            raise RunError(f"{self.folder}: all tasks are released; plan a new stream for more")
        return left[0]

    def _method(self, number: int) -> tuple[Synthesizer, Plan]:
        """The task's method and its plan as it was priced when the stream was made."""
        from veilset.methods.catalogue import make, method_class

        task = self.facts["tasks"][number - 1]
        budget = task["plan"]["privacy"]
        model = make(task["method"], **method_class(task["method"]).modern(task["config"], tell=False))
        plan = model.plan(PublicInfo.from_json(task["plan"]["info"]), Privacy(**budget))
        if planned(task["plan"]) != planned(plan.facts()):
            raise RunError(
                f"task {number}: this version of {task['method']} plans other releases than the stream's; "
                "use the version that planned it"
            )
        return model, replace(plan, releases=planned(task["plan"]))

    def _begin(self, book: Ledger, number: int) -> Path:
        """The task's run folder, which exists before its line does: a line without a folder means that it was lost."""
        run = self._home(number)
        if self.state(number) == "planned":
            run.mkdir(parents=True, exist_ok=True, mode=0o700)
            book.append("begin", task=number)
        if not run.is_dir():
            raise RunError(
                f"task {number} was begun and its run folder {run} is gone; what it may have spent stays spent, "
                "and it is not begun again. Put the folder back, or plan a new stream"
            )
        return run

    def _run(self, model: Synthesizer, plan: Plan, part: PrivateImages, run: Path, number: int, device: str) -> Any:
        """Fit in the run folder, or open what was fitted there."""
        from veilset.methods.catalogue import open_model

        if (run / "receipt.json").exists():
            return open_model(run)
        kept = read_json(self.folder / "private" / "stream.json")
        f, payment = self.facts, None
        plan = replace(plan, stream=membership(self.book, number))
        if f["account"]:
            payment = Payment(Account(Path(kept["account"])), "")
            payment.make(plan, f["account"])  # paid when the stream was made; the account must still hold the line
        seed = self._seed(kept["seed"], number)
        model.fit_planned(model.session(part, plan, seed=seed, folder=run, device=device, payment=payment))
        model.write(run)
        return model

    def _release(self, book: Ledger, model: Synthesizer, number: int) -> Receipt:
        """Draw and write the task's images once, and enter them in the stream's ledger."""
        out, names = self._out(number), self.facts["tasks"][number - 1]["classes"]
        for cut in self.folder.glob(f".{out.name}.partial-*"):  # a process was killed while it wrote
            shutil.rmtree(cut)
        if not out.exists():
            seed = self._seed(read_json(self.folder / "private" / "stream.json")["seed"], number)
            images = model.sample(self.facts["per_class"] * len(names), seed=seed)
            model.write_samples(images, out, self.facts["images"])
        receipt = read_receipt(out)
        assert model.receipt_ is not None
        if receipt.ledger_head != model.receipt_.ledger_head:
            raise RunError(f"{out} is of another run; move it away, and run the task again to write its own")
        book.append("release", task=number, ledger_head=receipt.ledger_head, files_sha256=receipt.files_sha256)
        return receipt

    def _seed(self, seed: int | None, number: int) -> int | None:
        return None if seed is None else SEEDS * seed + number

    def _home(self, number: int) -> Path:
        return self.folder / "private" / f"task-{number}"

    def _out(self, number: int) -> Path:
        return self.folder / f"task-{number}"


def membership(book: Ledger, number: int) -> dict[str, Any]:
    """What a task's plan, ledger and receipt say about its stream; the head fixes all that happened before it began."""
    f = book.lines[0]["body"]
    head = next(line["hash"] for line in book.lines if line["body"] == {"kind": "begin", "task": number})
    facts = {k: f[k] for k in ("composition", "epsilon", "delta")}
    return {"task": number, "tasks": len(f["tasks"]), "set": f["set"], "head": head} | facts


def planned(facts: dict[str, Any]) -> tuple[Any, ...]:
    """The releases in the facts of a plan."""
    from veilset.privacy.plan import Release

    return tuple(Release(**r) for r in facts["releases"])


def _same(declared: PublicInfo, info: PublicInfo) -> None:
    """Refuse another set than the stream's."""
    for name, value in asdict(declared).items():
        if getattr(info, name) != value:
            raise DataError(
                f"{name} = {getattr(info, name)!r}, but the stream was planned for a set that declares {value!r}; "
                "classes and units of all tasks are declared from the beginning"
            )
