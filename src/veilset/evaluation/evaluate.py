"""Measure an image set against a real one, over several seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from veilset.core.errors import ConfigError, DataError, ModeError
from veilset.core.types import Images
from veilset.evaluation.extractors import Tools, network
from veilset.evaluation.registry import Answer, Entry, Trial, choose, entries
from veilset.evaluation.scores import Metric, Scores
from veilset.privacy.private import PrivateImages

if TYPE_CHECKING:
    from veilset.evaluation.protocols import Protocol
    from veilset.evaluation.selection import Selection


def evaluate(
    images: Images | Callable[[int], Images],
    against: Images,
    *,
    seeds: int = 3,
    metrics: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    tools: Tools | None = None,
    select: Selection | None = None,
    members: Images | None = None,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Measure how well `images` stand in for real ones.

    Args:
        images: the set to judge, or a function from a seed to a set. With a function the images are drawn anew for
            each seed, so that the spread covers sampling and classifier together; with a set the classifier only.
        against: real images with the same classes and shape: a public test split, or what `gate.inspect` returned in
            research mode (then every metric that used them says that it reads private records).
        seeds: how many seeds (0, 1, ...), at least 1.
        metrics: names or groups to compute, in this order (`veilset.evaluation.entries()` and `groups()` list them);
            None computes the group "default". A Frechet distance of few images brings its kernel distance with it.
        protocol: schedule of every network; None trains each by its own (`protocols.CLASSIFIERS`).
        tools: weights and images that some metrics need.
        select: also choose one classifier by this rule, once for all seeds, and report it.
        members: the images that the synthetic ones were learned from; exact copies of them in `against` are refused,
            near copies counted in a note. Research mode only, where they are private.
        progress: called with one line of text before each step of work.

    Raises:
        ModeError: private images were passed, or there is no real set.
        ConfigError: an unknown metric, or seeds below 1, or a file or package that a metric needs is missing.
        DataError: the two sets are empty or do not match, or are too small for a metric, or hold copies of one image.

    Examples:
        >>> vs.evaluate(model.sample(99), data.public_test(), metrics=["gen2real-logreg"])["gen2real-logreg"].value > 50
        True
    """
    _check_arguments(seeds, against, select)
    tell = progress or (lambda _: None)
    chosen, tools, notes = choose(metrics), tools or Tools(), _copies(members, against)
    kept: dict[Hashable, Any] = {}
    for extractor in {entry.extractor for entry in chosen} - {"", "domain"}:  # a missing file is told before the work
        kept["network", extractor] = network(extractor, tools, None)
    trials: list[Trial] = []
    answers: dict[str, list[Answer]] = defaultdict(list)
    private: dict[str, bool] = defaultdict(lambda: members is not None and members.reads_private)
    for seed in range(seeds):
        drawn: Any = images(seed) if callable(images) else images
        _check_pair(drawn, against)
        chosen = chosen if seed else _with_companions(chosen, drawn, against)
        trial = Trial(drawn, against, seed, protocol, tools, kept)
        trials += [trial] if select else []
        for entry in chosen:
            if callable(images) or entry.seeded or not seed:
                tell(f"seed {seed + 1} of {seeds}: {entry.name}")
                answers[entry.name].append(entry.run(trial))
                private[entry.name] |= entry.reads_private(drawn, against, tools)
    found = [_summary(entry, answers[entry.name], private[entry.name]) for entry in chosen]
    return Scores((*found, *_selected(select, trials, tell)), notes)


def _check_arguments(seeds: int, against: Images, select: Selection | None) -> None:
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds = {seeds!r}: must be a whole number of at least 1")
    _check_open("against", against)
    if select:
        select.check()


def _selected(select: Selection | None, trials: list[Trial], tell: Callable[[str], None]) -> tuple[Metric, ...]:
    """The figure of the chosen classifier, if a rule was given."""
    if select is None:
        return ()
    from veilset.evaluation.selection import choose_classifier

    tell(f"choosing among {', '.join(select.candidates)}: {select.rule}")
    chosen = choose_classifier(select, trials)
    answers = [chosen.answer(trial) for trial in trials]
    entry = entries()[f"gen2real-{chosen.classifier}"]
    private = select.seed is not None or any(entry.reads_private(t.images, t.against, t.tools) for t in trials)
    return (_summary(replace(entry, name=select.name), answers, private),)


def _with_companions(chosen: list[Entry], images: Images, against: Images) -> list[Entry]:
    """Behind a metric that is biased for few images, the one that is not; unless it was chosen anyway."""
    from veilset.evaluation.likeness import FEW

    names, known = {entry.name for entry in chosen}, entries()
    few = min(len(images), len(against)) < FEW
    out: list[Entry] = []
    for entry in chosen:
        out.append(entry)
        if few and entry.beside and entry.beside not in names:
            out.append(known[entry.beside])
    return out


def _copies(members: Images | None, against: Images) -> tuple[str, ...]:
    """A note about near copies of training images in the real set; exact ones are refused."""
    if members is None:
        return ()
    from veilset.data.overlap import overlap

    _check_open("members", members)
    note = overlap(members, against).check().note
    return (note,) if note else ()


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
    for name, value in (("images", images), ("against", against)):
        if len(value) > 1 and bool((value.x == value.x[:1]).all()):
            raise DataError(f"{name} holds {len(value)} copies of one image: nothing can be measured; look at the set")
    if images.x.shape[1:] != against.x.shape[1:]:
        a, b = list(images.x.shape[1:]), list(against.x.shape[1:])
        raise DataError(f"images have shape {a}, against has {b}: must be equal; see veilset data prepare")
