"""`veilset selftest`: does this installation, on this machine, sample, clip, noise and pay as it accounts?

Thresholds are fixed in advance. Random checks alarm below a probability of 1e-8 each, so sound code fails the whole
test with a probability below 1e-6; the others are exact. The last result is remembered for receipts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, RunError, suggest
from veilset.core.facts import keep_selftest

if TYPE_CHECKING:
    from veilset.audit.selftest.base import Check

THEMES = {  # name -> what is checked; quick ones first
    "bounding": "sensitivity: how far one unit moves a clipped answer",
    "looks": "refusal of losses and layers that mix records or keep a state",
    "rounding": "floating-point rounding stays within the clipping bound",
    "randomness": "random streams: each use has its own, secret ones follow no seed",
    "chunks": "records are mapped in chunks: where one ends, and what pads it, changes nothing",
    "places": "a record's contribution does not depend on its position or its neighbours",
    "gradients": "per-example gradients of the fast path against autograd",
    "books": "ledger and receipt: charged before the answer, refused beyond the budget",
    "answers": "queries to models trained on hidden shards (the gate's verb pull)",
    "votes": "votes of all hidden models, answers about whole samples and whole units",
    "words": "the noise sampler, bit by bit, against exact integer arithmetic",
    "accounts": "the budget that several runs share",
    "folders": "files: permissions, links, and what a resumed run accepts",
    "streams": "releases over time: their common cost",
    "searches": "hyperparameter searches: their cost",
    "processes": "one run on two processes: sampling and noise",
    "sampling": "Poisson sampling of units, at the planned rate",
    "noise": "distribution, scale and independence of the noise",
    "formulas": "accountants against each other and closed forms, at small deltas",
    "methods": "whole fits of every method and teacher on neighbouring sets",
    "accounting": "accountants against published figures",
    "mechanism": "membership attacks on single answers of the gate",
}
HOMES = dict.fromkeys(("streams", "searches"), "veilset.checks")  # of themes that import what lies above this folder
FAMILY_ERROR = 1e-6


@dataclass(frozen=True)
class Selftest:
    """What was measured.

    Attributes:
        checks: every check, in order.
        seconds: how long it took.
        kept: whether receipts of this user will show it.
        themes: that were asked, if not all; that those are sound is not kept.
    """

    checks: Sequence[Check]
    seconds: float
    kept: bool = False
    themes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(c.ok for c in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The keys of `veilset selftest --json`."""
        return {
            "ok": self.ok,
            "family_error": FAMILY_ERROR,
            "seconds": round(self.seconds, 1),
            "kept": self.kept,
            "checks": [c.to_json() for c in self.checks],
        }

    def __str__(self) -> str:
        width = max(len(c.name) for c in self.checks)
        rows = [f"{'':<5} {'check':<{width}} {'statistic':>11} {'limit':>9}  what it is"]
        for c in self.checks:
            rows.append(
                f"{'ok' if c.ok else 'FAIL':<5} {c.name:<{width}} {c.statistic:>11.4g} {c.threshold:>9.4g}  {c.about}"
            )
        failed = sum(not c.ok for c in self.checks)
        sound = f"NO FAULT in {', '.join(self.themes)}, a part of the self-test" if self.themes else "SOUND"
        verdict = (
            f"{sound}: {len(self.checks)} checks hold"
            if self.ok
            else f"NOT SOUND: {failed} of {len(self.checks)} checks fail; release nothing with this installation"
        )
        error = f"sound code fails with a probability below {FAMILY_ERROR:g}"
        why = "of a part is not" if self.themes else "could not be"
        kept = "" if self.kept else f"; the result {why} kept for receipts"
        return "\n".join([*rows, f"{verdict}. {self.seconds:.0f} s; {error}{kept}"])


def selftest(tell: Callable[[str], None] = lambda line: None, themes: Sequence[str] = ()) -> Selftest:
    """Run every check, in two minutes or so, and remember the result.

    Args:
        tell: gets the name of each theme as it begins.
        themes: some of THEMES, for a quick look, of which only a fault is remembered. None are named: all.

    Raises:
        ConfigError: a theme that does not exist.

    Examples:
        >>> vs.selftest(themes=("bounding",)).ok
        True
    """
    for name in themes:
        if name not in THEMES:
            raise ConfigError(f"theme {name!r} is unknown.{suggest(name, THEMES)} Themes: {', '.join(THEMES)}")
    begun, asked = time.monotonic(), tuple(dict.fromkeys(themes))
    checks = list(measured(tell, asked))
    done = Selftest(checks, time.monotonic() - begun, themes=asked)
    if asked and done.ok:
        return done
    try:
        keep_selftest(done.ok, len(checks))
    except RunError:
        return done
    return replace(done, kept=True)


def measured(tell: Callable[[str], None] = lambda line: None, themes: Sequence[str] = ()) -> Iterator[Check]:
    """The checks one by one, on one thread; see `selftest`."""
    import torch

    threads = torch.get_num_threads()
    logger = logging.getLogger("absl")  # the accountants' warnings about orders that they leave out
    level = logger.level
    logger.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    try:
        for theme in themes or THEMES:
            yield from _theme(theme, tell)
    finally:
        torch.set_num_threads(threads)
        logger.setLevel(level)


def _theme(name: str, tell: Callable[[str], None]) -> Iterator[Check]:
    """The checks of one theme. One that ends in an error has failed; the others go on."""
    from veilset.audit.selftest.base import Check

    tell(name)
    try:
        checks = import_module(f"{HOMES.get(name, 'veilset.audit.selftest')}.{name}").CHECKS
    except Exception as e:  # code that cannot even be imported is a finding, not a crash
        yield Check(name, 1.0, 0.0, _words(e))
        return
    for measure in checks:
        try:
            yield from measure()
        except Exception as e:
            yield Check(f"{name}: {measure.__name__.replace('_', ' ')}", 1.0, 0.0, _words(e))


def _words(e: Exception) -> str:
    return f"ended in an error: {type(e).__name__}: {(str(e) or 'no message').splitlines()[0]}"
