"""The list of metrics: each says its unit, which way is better, what it reads, and what it does in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from veilset.core.errors import ConfigError, suggest
from veilset.evaluation.extractors import Described, Tools, describe, network, reference
from veilset.evaluation.protocols import CLASSIFIERS, Protocol

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images


@dataclass
class Trial:
    """What the metrics of one seed share: a classifier or a set of features that several need is made once.

    Attributes:
        images: the set to judge.
        against: real images.
        seed: of this trial.
        protocol: how every network is trained; None trains each by its own protocol (`protocols.CLASSIFIERS`).
        tools: weights and images that some metrics need.
        kept: what does not depend on `images` or `seed`; the trials of one evaluation share it.
    """

    images: Images
    against: Images
    seed: int
    protocol: Protocol | None = None
    tools: Tools = field(default_factory=Tools)
    kept: dict[Hashable, Any] = field(default_factory=dict)
    _own: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, computed at most once in this trial."""
        if name not in self._own:
            self._own[name] = make()
        return self._own[name]

    def keep(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, computed at most once in all trials of an evaluation; it must not look at images or seed."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def protocol_of(self, classifier: str) -> Protocol | None:
        """How a classifier is trained here; None for logistic regression, whose schedule is fixed."""
        return CLASSIFIERS[classifier] and (self.protocol or CLASSIFIERS[classifier])

    def classifier(self, name: str) -> Any:
        """This classifier, trained on `images`."""
        from veilset.evaluation.training import train_any

        return self.once((name, "model"), lambda: train_any(name, self.images, self.seed, self.protocol_of(name)))

    def said(self, name: str) -> torch.Tensor:
        """What that classifier says about `against`: probabilities float64 [N, K]."""
        from veilset.evaluation.training import probabilities

        classes = len(self.against.classes)
        return self.once((name, "said"), lambda: probabilities(self.classifier(name), self.against.x, classes))

    def described(self, extractor: str, which: Literal["images", "against"]) -> Described:
        """Features of one of the two sets; of the part of `against` that the extractor was not trained on."""
        real, train_on = self.keep(("split", extractor), lambda: reference(extractor, self.against, self.tools))
        net = self.keep(("network", extractor), lambda: network(extractor, self.tools, train_on))
        if which == "against":
            return self.keep(("described", extractor), lambda: describe(extractor, net, real.x))
        return self.once(("described", extractor), lambda: describe(extractor, net, self.images.x))


@dataclass(frozen=True)
class Answer:
    """One metric of one trial: its value, parts by name that vary with the seed, and facts that do not.

    Two facts have a meaning: `label` is the name to print, `note` a line that every reader must see.
    """

    value: float
    parts: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A metric of the registry.

    Attributes:
        name: what users type.
        unit: of the value, in words or a sign.
        better: which way is better.
        doc: what it does, in one line.
        run: computes it.
        uses_against: True when it reads the real set; then it reads private records if that set does.
        seeded: False when the same images always give the same value (it is then computed once for fixed images).
        group: also typed by users, for all metrics of one kind.
        default: measured when no metric is named.
        extractor: whose features it uses, "" for none.
        beside: another metric that is measured too when images are few.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    doc: str
    run: Callable[[Trial], Answer]
    uses_against: bool = True
    seeded: bool = True
    group: str
    default: bool = False
    extractor: str = ""
    beside: str = ""

    def reads_private(self, images: Images, against: Images, tools: Tools | None = None) -> bool:
        """Whether the value depends on private records other than through a release."""
        if images.reads_private or (self.uses_against and against.reads_private):
            return True
        if self.extractor != "domain":
            return False
        trained_on = tools.domain if tools and tools.domain is not None else against
        return trained_on.reads_private


MODULES = ("utility", "fidelity", "likeness")
_METRICS: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a metric to the list."""
    _METRICS[entry.name] = entry


def entries() -> dict[str, Entry]:
    """All metrics by name, in the order they are run and printed."""
    for module in MODULES:
        importlib.import_module(f"veilset.evaluation.{module}")
    return dict(sorted(_METRICS.items(), key=lambda item: _rank(item[1])))  # whichever was imported first


def _rank(entry: Entry) -> int:
    home = getattr(entry.run, "func", entry.run).__module__.rpartition(".")[2]
    return MODULES.index(home) if home in MODULES else len(MODULES)


def groups() -> dict[str, list[str]]:
    """Names that stand for several metrics: "default", and one a kind."""
    out: dict[str, list[str]] = {"default": []}
    for entry in entries().values():
        out.setdefault(entry.group, []).append(entry.name)
        if entry.default:
            out["default"].append(entry.name)
    return out


def choose(names: Sequence[str] | None) -> list[Entry]:
    """The entries of these metrics or groups (None: the default ones), each once.

    Raises:
        ConfigError: an unknown name (with a suggestion), or no name at all.
    """
    known, kinds = entries(), groups()
    names = ["default"] if names is None else [names] if isinstance(names, str) else names
    for name in names:
        if name not in known and name not in kinds:
            hint = suggest(name, [*known, *kinds])
            raise ConfigError(
                f"metrics = {name!r}: unknown metric.{hint} Groups: {', '.join(kinds)}; "
                "`veilset evaluate --list` names all"
            )
    if not names:
        raise ConfigError(f"metrics is empty: name a metric or one of the groups {', '.join(kinds)}")
    flat = [each for name in names for each in kinds.get(name, [name])]
    return [known[name] for name in dict.fromkeys(flat)]
