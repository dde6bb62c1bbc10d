"""Pay for a measure of private records: a gate in a folder of its own, with its plan, ledger and receipt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from veilset.core.errors import ConfigError, DataError, ModeError, RunError
from veilset.core.facts import check_tested
from veilset.core.io import lock, no_links, write_bytes
from veilset.core.types import Images, PublicInfo
from veilset.privacy.account import Account, Payment
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan
from veilset.privacy.private import PrivateImages
from veilset.privacy.receipt import Receipt
from veilset.privacy.session import Session


def buy(
    data: PrivateImages,
    plan: Plan,
    out: str | Path,
    ask: Callable[[Gate], Mapping[str, bytes]],
    *,
    what: str,
    config: Mapping[str, Any],
    seed: int | None = None,
    resume: bool = False,
    account: Account | None = None,
) -> Receipt:
    """Ask what was planned, and write the answers with ledger and receipt into a new folder that `verify` accepts.

    The ledger is on disk before an answer is; a folder in which something was charged is never removed.

    Args:
        data: the private images.
        plan: priced for them.
        out: folder to make.
        ask: asks the gate and returns the files to write, by name.
        what: stands in the receipt as the method.
        config: stands in the receipt beside it.
        seed: None for a release; an integer for research, which is stamped NOT A RELEASE.
        resume: go on in a folder whose purchase was interrupted; answers that were paid and kept are not paid again.
        account: the set's privacy account, which pays for the plan before anything is asked.

    Raises:
        ConfigError: the budget is infinite. BudgetExceeded: the account does not cover it.
        RunError: the folder is in the way, in use, or was begun otherwise.
    """
    out = Path(out)
    check_place(plan, out, resume)
    check_tested(seed)
    begun = (out / "ledger.jsonl").exists()
    data.check()
    try:
        (out / "private").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise RunError(f"cannot make {out}: {e.strerror}; choose another folder") from e
    try:
        with lock(out / "private" / "lock", str(out)):
            payment = Payment(account, what) if account else None
            with Session(data, plan, what=what, config=config, seed=seed, folder=out, payment=payment) as session:
                files = ask(session.gate)
            for name, content in files.items():
                write_bytes(out / name, content)
            return session.write(out)
    except BaseException:
        if not begun and not _charged(out):
            shutil.rmtree(out, ignore_errors=True)
        raise


def check_place(plan: Plan, out: Path, resume: bool) -> None:
    """Refuse, before anything is read or shown, what `buy` refuses; arguments and errors as there."""
    if not plan.budget.private:
        raise ConfigError("epsilon = inf: a paid measure needs a finite budget; exact figures come from --research")
    if out.is_dir():
        no_links(out)
    if resume and not (out / "ledger.jsonl").exists():
        raise RunError(f"{out}: nothing was begun here; leave out --resume")
    if (out / "receipt.json").exists():
        raise RunError(f"{out} is finished; its figures may be used freely, another purchase needs another folder")
    if out.exists() and not resume:
        raise RunError(f"{out} exists; choose another folder, or go on with an interrupted purchase by --resume")


def _charged(out: Path) -> bool:
    """Whether anything was spent for this folder, here or on an account; when in doubt, yes."""
    ledger = out / "ledger.jsonl"
    raw = ledger.read_bytes() if ledger.exists() else b""
    return b'"kind":"charge"' in raw or b'"account":' in raw


def check_match(images: object, info: PublicInfo, whose: str) -> None:
    """Refuse images that cannot be held against what was bought, or is being bought, of a set.

    Args:
        images: what was given for images.
        info: the declared facts of the set.
        whose: "the reference is of", say.

    Raises:
        ModeError: they are not open images. DataError: other classes, or another shape.
    """
    if not isinstance(images, Images):
        raise ModeError(
            f"images = {images!r}: must be open images, such as a model's sample; private records have no exact measure"
        )
    if images.classes != info.classes or tuple(images.x.shape[1:]) != tuple(info.shape):
        raise DataError(
            f"images are {list(images.x.shape[1:])} with the classes {list(images.classes)}, {whose} "
            f"{list(info.shape)} with {list(info.classes)}: must be equal; use images of the same set"
        )
