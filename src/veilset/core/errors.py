"""The one error family. Every message is one line: the field, the value, the rule and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VeilsetError(Exception):
    """Base of every error that a user can cause or repair.

    Examples:
        >>> try:
        ...     vs.make("dp-merf", stepps=3)
        ... except vs.VeilsetError as e:
        ...     print(str(e).partition(" It takes")[0])
        dp-merf has no parameter 'stepps'. Did you mean 'steps'?
    """


class ConfigError(VeilsetError, ValueError):
    """A parameter is out of range, misspelt or missing."""


class DataError(VeilsetError, ValueError):
    """An image set does not match its declaration, or a file in it is faulty."""


class PlanError(VeilsetError):
    """A method asked the gate for something that its plan did not name."""


class BudgetExceeded(VeilsetError):
    """A release was planned fewer times than it was asked for, or the budget does not cover it."""


class LedgerError(VeilsetError):
    """A ledger is cut, edited, reordered or of an unknown format."""


class ModeError(VeilsetError):
    """Something was asked that only the other mode (research or release) allows."""


class RunError(VeilsetError):
    """A run or output folder is in the way, in use, incomplete or foreign."""


class Note(UserWarning):
    """What the user should know and need not act upon; the command line prints it in one line."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
