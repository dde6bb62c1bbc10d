"""The list of metrics: each says its unit, which way is better, what it reads, and what it does in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from veilset.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images
    from veilset.evaluation.protocols import Protocol
    from veilset.networks.classifiers import CNN


@dataclass
class Trial:
    """What the metrics of one seed share. A classifier that several metrics need is trained once."""

    images: Images
    against: Images
    seed: int
    protocol: Protocol

    @cached_property
    def cnn(self) -> CNN:
        """The CNN trained on `images`."""
        from veilset.evaluation.protocols import train_cnn

        return train_cnn(self.images, self.seed, self.protocol)

    @cached_property
    def cnn_labels(self) -> torch.Tensor:
        """What that CNN says about `against`: int64 [N]."""
        from veilset.evaluation.protocols import predict

        return predict(self.cnn, self.against.x)


@dataclass(frozen=True)
class Answer:
    """One metric of one trial: its value, parts by name that vary with the seed, and facts that do not."""

    value: float
    parts: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A metric of the registry.

    Attributes:
        name: what users type.
        unit: of the value, in words or a sign.
        better: which way is better.
        uses_against: True when it reads the real set; then it reads private records if that set does.
        seeded: False when the same images always give the same value (it is then computed once for fixed images).
        doc: what it does, in one line.
        run: computes it.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    uses_against: bool
    seeded: bool
    doc: str
    run: Callable[[Trial], Answer]

    def reads_private(self, images: Images, against: Images) -> bool:
        """Whether the value depends on private records other than through a release."""
        return images.reads_private or (self.uses_against and against.reads_private)


_METRICS: dict[str, Entry] = {}


def metric(
    name: str, *, unit: str, better: Literal["higher", "lower"], uses_against: bool = True, seeded: bool = True
) -> Callable[[Callable[[Trial], Answer]], Callable[[Trial], Answer]]:
    """Register a function as a metric; the first line of its docstring is its description."""

    def add(run: Callable[[Trial], Answer]) -> Callable[[Trial], Answer]:
        doc = (run.__doc__ or "").strip().splitlines()[0]
        _METRICS[name] = Entry(name, unit, better, uses_against, seeded, doc, run)
        return run

    return add


def entries() -> dict[str, Entry]:
    """All metrics by name, in the order they are run and printed."""
    for module in ("utility", "fidelity"):
        importlib.import_module(f"veilset.evaluation.{module}")
    return dict(_METRICS)


def choose(names: Sequence[str] | None) -> list[Entry]:
    """The entries of these metrics (None: all), each once.

    Raises:
        ConfigError: an unknown name (with a suggestion), or no name at all.
    """
    known = entries()
    if names is None:
        return list(known.values())
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in known:
            raise ConfigError(f"metrics = {name!r}: unknown metric.{suggest(name, known)} Known: {', '.join(known)}")
    if not names:
        raise ConfigError(f"metrics is empty: name at least one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]
