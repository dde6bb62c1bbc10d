"""Hand over a synthetic labelled image set instead of a private one, with a privacy claim that anyone can check."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from veilset.core import moved

__version__ = "0.2.0"
moved.install()

# Name -> module. Loaded when first used: torch alone takes seconds to import.
_WHERE = {
    "Account": "veilset.privacy.account",
    "Privacy": "veilset.privacy.spec",
    "Plan": "veilset.privacy.plan",
    "Release": "veilset.privacy.plan",
    "Uniform": "veilset.privacy.draws",
    "Gate": "veilset.privacy.gate",
    "Ledger": "veilset.privacy.ledger",
    "Receipt": "veilset.privacy.receipt",
    "PrivateImages": "veilset.privacy.private",
    "verify": "veilset.privacy.receipt",
    "claim": "veilset.published.recompute",
    "load": "veilset.data.load",
    "make": "veilset.methods.catalogue",
    "open_release": "veilset.releases",
    "ReleaseFolder": "veilset.releases",
    "open_model": "veilset.methods.catalogue",
    "make_teacher": "veilset.methods.catalogue",
    "open_teacher": "veilset.methods.catalogue",
    "Synthesizer": "veilset.methods.base",
    "Teacher": "veilset.methods.base",
    "option": "veilset.core.config",
    "progress": "veilset.core.progress",
    "Images": "veilset.core.types",
    "PublicInfo": "veilset.core.types",
    "evaluate": "veilset.evaluation.evaluate",
    "write_report": "veilset.report.page",
    "RunSpec": "veilset.runs",
    "execute": "veilset.runs",
    "VeilsetError": "veilset.core.errors",
    "attack": "veilset.audit.membership.attack",
    "selftest": "veilset.audit.selftest.run",
}
# Modules of this package. Those of the first line can be called: each then is its own main function.
_MODULES = (
    "audit", "continual", "methods", "recommend", "tune",
    "synthesizers", "teachers", "testing",
)  # fmt: skip

if TYPE_CHECKING:
    from veilset import synthesizers, teachers, testing
    from veilset.audit.ladder import climb as audit
    from veilset.audit.membership.attack import attack
    from veilset.audit.selftest.run import selftest
    from veilset.continual.plan import plan as continual
    from veilset.core.config import option
    from veilset.core.errors import VeilsetError
    from veilset.core.progress import progress
    from veilset.core.types import Images, PublicInfo
    from veilset.data.load import load
    from veilset.evaluation.evaluate import evaluate
    from veilset.methods.base import Synthesizer, Teacher
    from veilset.methods.catalogue import make, make_teacher, methods, open_model, open_teacher
    from veilset.privacy.account import Account
    from veilset.privacy.draws import Uniform
    from veilset.privacy.gate import Gate
    from veilset.privacy.ledger import Ledger
    from veilset.privacy.plan import Plan, Release
    from veilset.privacy.private import PrivateImages
    from veilset.privacy.receipt import Receipt, verify
    from veilset.privacy.spec import Privacy
    from veilset.published.recompute import claim
    from veilset.recommend.recommend import recommend
    from veilset.releases import ReleaseFolder, open_release
    from veilset.report.page import write_report
    from veilset.runs import RunSpec, execute
    from veilset.tune import tune

__all__ = [
    "Account", "Gate", "Images", "Ledger", "Plan", "Privacy", "PrivateImages", "PublicInfo", "Receipt", "Release",
    "ReleaseFolder", "RunSpec", "Synthesizer", "Teacher", "Uniform", "VeilsetError", "attack", "audit", "claim",
    "continual", "evaluate", "execute", "load", "make", "make_teacher", "methods", "open_model", "open_release",
    "open_teacher", "option", "progress", "recommend", "selftest", "synthesizers", "teachers", "testing", "tune",
    "verify", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"veilset.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'veilset' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
