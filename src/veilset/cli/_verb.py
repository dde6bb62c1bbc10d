"""What a file of a verb offers to the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Verb(Protocol):
    """Of every verb; the file's docstring is its description."""

    __doc__: str | None

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""


@runtime_checkable
class PlainVerb(Verb, Protocol):
    """A verb whose options are all its own."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit status."""


@runtime_checkable
class MethodVerb(Verb, Protocol):
    """A verb after whose own options a method's parameters may stand.

    Attributes:
        METHOD_FIRST: whether its first word is the method, whose parameters --help lists then.
    """

    METHOD_FIRST: bool

    def words(self, words: Sequence[str]) -> list[str]:
        """The words after the verb, with what may be left out."""

    def run_with_rest(self, args: argparse.Namespace, rest: list[str], parser: argparse.ArgumentParser) -> int:
        """Do it; `rest` holds the words that no option of the verb took."""
