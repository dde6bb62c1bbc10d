"""RunSpec -> run folder: the unit of work. A killed run goes on where it was; a finished one is never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import RunError
from veilset.core.facts import check_tested
from veilset.core.io import lock, no_links, read_json, write_json
from veilset.privacy.account import Account, check_mode
from veilset.privacy.run.process_group import Team

if TYPE_CHECKING:
    from veilset.methods.base import Method
    from veilset.privacy.plan import Plan

RECEIPTS = ("receipt.json", "NON-PRIVATE.json")
LEFT = ("private/lock", "private/.run.json.partial")  # of a run that was killed before it wrote its arguments


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides a fit.

    Attributes:
        method: a synthesizer or teacher; a name that `veilset methods` lists.
        data: a built-in name or a path.
        epsilon, delta, allow_large_delta: the budget.
        seed: None for release mode.
        params: method parameters.
        recipe: the method's named set of parameters that `params` override, or None.
        device: where torch computes; may change when a run goes on.
        account: file of the set's privacy account, or None.

    Examples:
        >>> spec = vs.RunSpec(method="dp-moments", data="digits", epsilon=1.0, params={"basis_size": 20})
        >>> spec.plan().claim().epsilon <= 1.0
        True
    """

    method: str
    data: str
    epsilon: float
    delta: float = 1e-5
    allow_large_delta: bool = False
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    device: str = "cpu"
    account: str | None = None

    def plan(self) -> Plan:
        """The priced plan; reads the declaration, no record."""
        return self.prepare()[2]

    def prepare(self) -> tuple[Any, Method, Plan, Any]:
        """(Data, model, priced plan, budget); reads the declaration, no record."""
        from veilset.data.load import load
        from veilset.methods.catalogue import any_class, configured
        from veilset.privacy.spec import Privacy

        privacy = Privacy(self.epsilon, self.delta, self.allow_large_delta)
        model = configured(any_class(self.method), self.recipe, self.params)
        data = load(self.data)
        return data, model, model.plan(data.info, privacy), privacy


def execute(spec: RunSpec, out: str | Path, *, resume: bool = False) -> Method:
    """Fit into a new run folder, or go on with an interrupted one.

    Folder: model.safetensors, model.json, ledger.jsonl, receipt.json, SHA256SUMS, and private/ (mode 0700: the
    arguments, paid answers, an HMAC of the data). All checks come before the folder is made. Started by `torchrun`, all
    processes fit together, and the first of them makes the folder; an interrupted run may go on with another number.

    Args:
        spec: what to run.
        out: run folder.
        resume: go on with an interrupted run of the same arguments; a finished one is opened.

    Raises:
        RunError: the folder exists (without `resume`), is in use, or was started with other arguments; or another
            process of this run ended; or the self-test of this installation failed.
        BudgetExceeded: the account does not cover the plan. ModeError: an account for a run that gives no privacy.

    Examples:
        >>> spec = vs.RunSpec(method="dp-moments", data="digits", epsilon=1.0, seed=0, params={"basis_size": 20})
        >>> vs.execute(spec, "research").receipt_.facts["stamp"]
        'NOT A RELEASE: research mode, the noise can be regenerated from the seed'
    """
    from veilset.methods.catalogue import open_any

    out, team = Path(out), Team()
    team.share(lambda: _check_folder(out, resume))
    data, model, plan, privacy = spec.prepare()
    check_tested(spec.seed)  # as `fit` does, which would be after the folder is made
    data.train.check()
    account = Account(Path(spec.account)) if spec.account else None
    if account:
        check_mode(spec.seed, privacy)
        if not resume:  # refused before a folder is made; drawn when the gate opens
            team.share(lambda: _covered(account, plan))
    with ExitStack() as held:
        if team.share(lambda: _take(out, spec, resume, held)):
            return open_any(out)
        model.fit(data.train, privacy, seed=spec.seed, folder=out, device=spec.device, account=account)
        team.share(lambda: model.write(out))
    return model


def _covered(account: Account, plan: Plan) -> None:
    balance = account.balance()
    assert plan.info is not None
    balance.check_set(plan.info)
    balance.check(plan.cost())


def draw_run(account: Account, folder: str | Path, purpose: str) -> dict[str, Any]:
    """Write a run that was made without the account down in it, covered or not: it is released already.

    Args:
        account: of the set that the run was on.
        folder: its run or release folder.
        purpose: words for the account's reader.

    Returns:
        The line of the account.

    Raises:
        RunError: the folder does not verify as a release, or stands in the account already.
        BudgetExceeded: it is written down, and the account is overdrawn now. DataError: the run was on another set.
    """
    from veilset.core.types import PublicInfo
    from veilset.privacy.accounting import Search
    from veilset.privacy.ledger import Ledger
    from veilset.privacy.receipt import LEDGER, read_receipt, verify

    seen = verify(folder)
    if not (seen.ok and seen.release):
        raise RunError(
            f"{folder}: does not verify as a release ({seen.known_fault or seen.stamp or 'see veilset verify'}); "
            "nothing charged"
        )
    ledger = Ledger(Path(folder) / LEDGER)
    start = ledger.lines[0]["body"]
    if start.get("account"):
        raise RunError(f"{folder}: this run was paid for by an account; nothing charged")
    plan = start["plan"]
    if "stream" in plan:
        raise RunError(f"{folder}: a task of a stream; charge the stream's folder, for all tasks; nothing charged")
    cost = Search.from_json(plan["search"]) if "search" in plan else ledger.spent()
    info = PublicInfo.from_json(plan["info"])
    receipt = read_receipt(folder)
    own = receipt.facts.get("run") or receipt.files_sha256  # older receipts: what this very folder holds
    return account.draw(info, cost, purpose, released=True, run=own)


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is in the way. One in which nothing was begun yet is as good as none."""
    if out.is_dir():
        no_links(out)
    private = out / "private"
    begun = (private / "run.json").exists()
    if resume and not begun:
        raise RunError(f"{out}: there is no interrupted run here; drop --resume to start one")
    hollow = private.is_dir() and {p.relative_to(out).as_posix() for p in out.rglob("*")} <= {"private", *LEFT}
    if out.exists() and not resume and (begun or not hollow):
        raise RunError(f"{out} exists; choose another folder, or go on with an interrupted run by --resume")


def _take(out: Path, spec: RunSpec, resume: bool, held: ExitStack) -> bool:
    """Make the run folder and lock it until `held` is closed; whether the run has ended already."""
    try:
        (out / "private").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise RunError(f"cannot make {out}: {e.strerror}; choose another folder") from e
    try:
        held.enter_context(lock(out / "private" / "lock", str(out)))
    except RunError:
        with suppress(OSError):  # what was made for it; folders that hold something stay
            (out / "private").rmdir()
            out.rmdir()
        raise
    _check_folder(out, resume)  # another process may have been here since the first look
    if resume:
        _same(spec, read_json(out / "private" / "run.json"))
    else:
        _start(out, _identity(spec))
    return any((out / name).exists() for name in RECEIPTS)


def _start(out: Path, identity: dict[str, Any]) -> None:
    """Write the arguments; a folder without them could be neither started nor gone on with, so none is left."""
    try:
        write_json(out / "private" / "run.json", identity, mode=0o600)
    except RunError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _identity(spec: RunSpec) -> dict[str, Any]:
    facts = asdict(spec)
    facts.pop("device")
    facts["epsilon"] = str(float(spec.epsilon))  # infinity is not JSON
    facts["data"] = str(Path(spec.data).resolve()) if Path(spec.data).exists() else spec.data
    facts["account"] = str(Path(spec.account).resolve()) if spec.account else None
    facts["params"] = _params(spec.method, spec.params)
    return facts


def _params(method: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as a run keeps them, by their present names."""
    from veilset.methods.catalogue import any_class

    return {k: str(v) for k, v in sorted(any_class(method).modern(params, tell=False).items())}


def _same(spec: RunSpec, stored: dict[str, Any]) -> None:
    if isinstance(stored.get("params"), dict):  # an earlier version may have begun it
        stored = stored | {"params": _params(spec.method, stored["params"])}
    for key, value in _identity(spec).items():
        if stored.get(key) != value:
            raise RunError(
                f"{key} = {value!r}, but this run was started with {stored.get(key)!r}; "
                "an interrupted run goes on with its own arguments only, or start a new one in a new folder"
            )
