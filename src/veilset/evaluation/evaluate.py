"""Measure an image set against a real one, over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError, ModeError
from veilset.core.types import Images
from veilset.evaluation.registry import Answer, Entry, Trial, choose
from veilset.evaluation.scores import Metric, Scores
from veilset.privacy.private import PrivateImages

if TYPE_CHECKING:
    from veilset.evaluation.protocols import Protocol


def evaluate(
    images: Images | Callable[[int], Images],
    against: Images,
    *,
    seeds: int = 3,
    metrics: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Measure how well `images` stand in for real ones.

    Args:
        images: the set to judge, or a function from a seed to a set. With a function the images are drawn anew for
            each seed, so that the spread covers sampling and classifier together; with a set the classifier only.
        against: real images with the same classes and shape: a public test split, or what `gate.inspect` returned in
            research mode (then every metric that used them says that it reads private records).
        seeds: how many seeds (0, 1, ...), at least 1.
        metrics: names to compute, in this order; None computes all (`veilset.evaluation.entries()` lists them).
        protocol: schedule of the CNN; None is `CNN_PROTOCOL`. Its name and epochs stand in the detail of the metrics.
        progress: called with one line of text before each step of work.

    Raises:
        ModeError: private images were passed, or there is no real set.
        ConfigError: an unknown metric, or seeds below 1.
        DataError: the two sets are empty or do not match.
    """
    from veilset.evaluation.protocols import CNN_PROTOCOL

    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds = {seeds!r}: must be a whole number of at least 1")
    _check_open("against", against)
    chosen = choose(metrics)
    fixed = not callable(images)
    answers: dict[str, list[Answer]] = {entry.name: [] for entry in chosen}
    private: dict[str, bool] = dict.fromkeys(answers, False)
    for seed in range(seeds):
        drawn: Any = images(seed) if callable(images) else images
        _check_pair(drawn, against)
        trial = Trial(drawn, against, seed, protocol or CNN_PROTOCOL)
        for entry in chosen:
            if fixed and not entry.seeded and seed > 0:
                continue
            if progress:
                progress(f"seed {seed + 1} of {seeds}: {entry.name}")
            answers[entry.name].append(entry.run(trial))
            private[entry.name] |= entry.reads_private(drawn, against)
    return Scores(tuple(_summary(entry, answers[entry.name], private[entry.name]) for entry in chosen))


def _summary(entry: Entry, answers: list[Answer], reads_private: bool) -> Metric:
    """Mean and spread over seeds of the value and of each part."""
    value, spread = _mean([a.value for a in answers])
    detail: dict[str, Any] = {**answers[0].facts, "values": [a.value for a in answers]}
    if answers[0].parts:
        detail["by_class"] = []
        for name in answers[0].parts:
            seen = [v for a in answers if (v := a.parts[name]) is not None]
            mean, deviation = _mean(seen) if seen else (None, None)
            detail["by_class"].append({"class": name, "value": mean, "spread": deviation})
    return Metric(entry.name, value, spread, entry.unit, entry.better, reads_private, len(answers), detail)


def _mean(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None where equal values would print as certainty."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread or None


def _check_open(name: str, value: object) -> None:
    """Refuse anything but Images, with the way out."""
    way_out = "pass a declared public test split, or in research mode what gate.inspect returns"
    if isinstance(value, PrivateImages):
        raise ModeError(f"{name} = {value!r}: private records may not be read for an exact metric; {way_out}")
    if value is None:
        raise ModeError(f"{name} = None: this set has no public test split; {way_out}")
    if not isinstance(value, Images):
        raise ConfigError(f"{name} is {type(value).__name__}: must be Images, such as data.test; {way_out}")


def _check_pair(images: Images, against: Images) -> None:
    """Both sets must be open, hold images, and agree in classes and shape."""
    _check_open("images", images)
    for name, value in (("images", images), ("against", against)):
        if not len(value):
            raise DataError(f"{name} holds no image; sample or load at least one")
    if images.classes != against.classes:
        raise DataError(
            f"images have the classes {list(images.classes)}, against has {list(against.classes)}: must be equal"
        )
    if images.x.shape[1:] != against.x.shape[1:]:
        a, b = list(images.x.shape[1:]), list(against.x.shape[1:])
        raise DataError(f"images have shape {a}, against has {b}: must be equal; see veilset data prepare")
