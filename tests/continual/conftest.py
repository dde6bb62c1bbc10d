"""The tiny method by its name, and streams that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streams import Tiny, priced

from veilset.continual.stream import TaskStream
from veilset.methods import catalogue


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[type[Tiny]]:
    """Register the tiny method as if it were built in."""
    patch, real = pytest.MonkeyPatch(), catalogue._load
    patch.setitem(catalogue.BUILT_IN, "tiny", catalogue.Entry("tiny", "Tiny", "class means, for tests"))
    patch.setattr(catalogue, "_load", lambda name, *kind: Tiny if name == "tiny" else real(name, *kind))
    yield Tiny
    patch.undo()


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., TaskStream]:
    """Make a stream; call it with the classes of its tasks."""

    def make(
        *classes: str, name: str = "s", seed: int | None = None, account: Path | None = None, **options: Any
    ) -> TaskStream:
        return TaskStream.create(priced(*classes, **options), tmp_path / name, seed=seed, account=account)

    return make
