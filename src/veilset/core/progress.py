"""A progress bar with the time left, on a terminal only. It counts steps, which are planned and so public."""

from __future__ import annotations

import sys
from collections.abc import Iterator

_quiet = False


def be_quiet(quiet: bool) -> None:
    """Switch bars off (for --json and for benches)."""
    global _quiet
    _quiet = quiet


def progress(steps: range, what: str) -> Iterator[int]:
    """Iterate over `steps` under a bar called `what`.

    Examples:
        >>> sum(step for step in vs.progress(range(4), "steps"))
        6
    """
    if _quiet or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(steps, description=what, console=Console(stderr=True), transient=True)
