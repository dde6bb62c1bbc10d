"""What several suites share: one fit judged by fixed measures, choices from the command line, and rows over seeds."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.runner.suite import Cell, by_present_names
from veilset.core.errors import ConfigError, suggest
from veilset.evaluation.protocols import CNN_PROTOCOL, Protocol

if TYPE_CHECKING:
    from veilset.core.types import Images
    from veilset.privacy.private import PrivateImages

SEEDS = 3
MEASURES = ("gen2real-cnn", "gen2real-logreg", "fd-gabor")
# For --quick, where a method has it.
SMALL = {"steps": 20, "warm_steps": 20, "noise_multiplicity": 2, "sampling_steps": 5, "networks": 5}


# ---------------------------------------------------------------------- cells


def cell(
    method: str,
    data: str,
    epsilon: float,
    seed: int,
    params: dict[str, Any] | None = None,
    tag: str = "",
    n: int = 60_000,
) -> Cell:
    """A cell of kind "quality": one fit, n balanced images, all measures."""
    words = [method, tag.replace(",", "").replace(" ", "-"), data, f"eps{epsilon:g}", f"seed{seed}"]
    facts = {"method": method, "data": data, "epsilon": plain(epsilon), "seed": seed}
    name = ".".join(filter(None, words)).replace(":", "-")
    return Cell(name, "quality", facts | {"params": params or {}, "n": n, "tag": tag})


def quality(
    method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any], n: int, tag: str
) -> dict[str, Any]:
    """Fit in research mode, draw n balanced images, and judge them on the public test split."""
    images, test, facts = fit_and_draw(method, data, float(epsilon), seed, params, n)
    return {"figures": judge(images, test, seed, MEASURES)} | facts


def fit_and_draw(
    method: str,
    data: str,
    epsilon: float,
    seed: int,
    params: dict[str, Any],
    n: int,
    train: PrivateImages | None = None,
) -> tuple[Images, Images, dict[str, Any]]:
    """n balanced images of a fit in research mode, the public test split, and what it cost (peak memory in MB).

    `method` is a name, or NAME:RECIPE. `train` takes the place of the set's own training split.
    """
    from veilset.core.facts import peak_mb
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    name, _, recipe = method.partition(":")
    times = [(time.perf_counter(), time.process_time())]
    model = make(name, recipe=recipe or None, **params).fit(
        bundle.train if train is None else train, Privacy(epsilon), seed=seed
    )
    times.append((time.perf_counter(), time.process_time()))
    images = model.sample(n, seed=seed)
    times.append((time.perf_counter(), time.process_time()))
    peak = peak_mb()
    test = bundle.test
    assert isinstance(test, Images) and model.receipt_ is not None
    receipt = model.receipt_.facts
    (fit, fit_cpu), (draw, draw_cpu) = ((b[0] - a[0], b[1] - a[1]) for a, b in zip(times, times[1:], strict=False))
    cost = {"fit_seconds": fit, "sample_seconds": draw, "peak_mb": peak}
    cost |= {"fit_processor_seconds": fit_cpu, "sample_processor_seconds": draw_cpu}
    return images, test, {"epsilon": receipt["epsilon"], "config": receipt["config"]} | cost


def judge(
    images: Images, test: Images, seed: int, measures: Sequence[str], protocol: Protocol | None = CNN_PROTOCOL
) -> dict[str, float]:
    """The value of each measure. `protocol` trains every network; None: each is trained by its own."""
    from veilset.evaluation.registry import Trial, choose

    trial = Trial(images, test, seed, protocol)
    return {m.name: m.run(trial).value for m in choose(measures)}


def small(method: str) -> dict[str, Any]:
    """Parameters with which a method runs in seconds, for --quick."""
    from veilset.core.config import fields
    from veilset.methods.catalogue import method_class

    names = {f.name for f in fields(method_class(method.partition(":")[0]).Config)}
    return {k: v for k, v in SMALL.items() if k in names}


def plain(epsilon: float) -> float | str:
    """Epsilon as a JSON value; JSON has no infinity."""
    return epsilon if epsilon < float("inf") else "inf"


# ---------------------------------------------------------------------- choices


def some_methods(names: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """Names or NAME:RECIPE, each once. Raises ConfigError for a method that is not in the catalogue."""
    from veilset.methods.catalogue import methods

    return _known("methods", names, default, methods())


def some_data(names: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """Names of built-in sets or of the suite's own, each once: their test splits are public. Raises ConfigError for
    another."""
    from veilset.data.public import NAMES

    default = list(default)
    return _known("data", names, default, dict.fromkeys((*NAMES, *default)))


def _known(what: str, names: Iterable[str] | None, default: Iterable[str], known: Iterable[str]) -> list[str]:
    if names is None:
        return list(default)
    out = list(dict.fromkeys(n for n in names))
    for name in out:
        if name.partition(":")[0] not in known:
            raise ConfigError(f"{what} = {name!r}: unknown.{suggest(name, known)} Known: {', '.join(known)}")
    if not out:
        raise ConfigError(f"{what}: name at least one of {', '.join(known)}")
    return out


def some_epsilons(values: Iterable[Any] | None, default: Iterable[float]) -> list[float]:
    """Budgets, each once; infinity is one. Raises ConfigError for what is not a number above 0."""
    out = []
    for value in default if values is None else values:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not number > 0:
            raise ConfigError(f"epsilon = {value!r}: must be numbers above 0 with commas between, for example 1,10,inf")
        out.append(number)
    return list(dict.fromkeys(out))


def some_seeds(count: int | None, default: int = SEEDS) -> range:
    """Seeds 0, 1, ... Raises ConfigError for a count below 1."""
    if count is not None and count < 1:
        raise ConfigError(f"seeds = {count}: must be at least 1")
    return range(default if count is None else count)


def sets_budgets_seeds(
    quick: bool,
    data: Iterable[str] | None,
    epsilon: Iterable[Any] | None,
    seeds: int | None,
    sets: Sequence[str],
    epsilons: Sequence[float],
) -> tuple[list[str], list[float], range]:
    """What is asked for on the command line, else the suite's own; the quick form has digits, one budget, one seed."""
    return (
        some_data(data, ("digits",) if quick else sets),
        some_epsilons(epsilon, epsilons[:1] if quick else epsilons),
        some_seeds(seeds, 1 if quick else SEEDS),
    )


# ---------------------------------------------------------------------- rows


def over_seeds(cells: Sequence[tuple[Cell, dict[str, Any]]], wanted: int) -> dict[str, Any]:
    """What a row says about the finished cells of its seeds.

    Returns:
        seeds and wanted (counts); figures: name -> mean and sd (sample standard deviation, None for one seed) of those
        that all cells have; means of fit_minutes, sample_minutes and epsilon_spent, the largest peak_mb and threads
        (None where no cell has it); mixed: True if the cells were made with different settings of the method; older:
        True if the method's defaults have changed since one of them was made; mark: a sign, if one of them is not known
        to be what the present code makes.
    """
    results = [r for _, r in cells]
    names = [n for n in results[0]["figures"] if all(n in r["figures"] for r in results)] if results else []
    fit, draw = (_mean([_seconds(r, k) / 60 for r in results if f"{k}_seconds" in r]) for k in ("fit", "sample"))
    return {
        "seeds": len(results),
        "wanted": wanted,
        "figures": {n: spread([r["figures"][n] for r in results]) for n in names},
        "fit_minutes": fit,
        "sample_minutes": draw,
        "peak_mb": max((r["peak_mb"] for r in results if "peak_mb" in r), default=None),
        "threads": max((r["threads"] for r in results if "threads" in r), default=None),
        "epsilon_spent": _mean([r["epsilon"] for r in results if r.get("epsilon") is not None]),
        "mixed": len({json.dumps(_config(c, r), sort_keys=True) for c, r in cells}) > 1,
        "older": any(_older(c, r) for c, r in cells),
        "mark": max((r.get("mark", "") for r in results), default=""),
    }


def _older(cell: Cell, result: dict[str, Any]) -> bool:
    """Whether the method would now run with other settings than the cell did; parameters that are new do not count."""
    now, then = _settings(cell.params["method"], json.dumps(cell.params["params"])), _config(cell, result)
    return now is not None and any(now.get(k, "gone") != v for k, v in then.items())


def _config(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """The settings that a cell was made with, by their present names."""
    made = by_present_names({"method": cell.params["method"], "params": result.get("config")})["params"]
    return made or {}


@cache
def _settings(method: str, params: str) -> dict[str, Any] | None:
    """The settings of a method with these parameters (JSON); None if it is not there, or does not take them."""
    from veilset.methods.catalogue import TEACHERS, make, make_teacher

    try:
        model = (make_teacher if method in TEACHERS else make)(method, **json.loads(params))
        config: dict[str, Any] = json.loads(json.dumps(asdict(model.config)))
    except ConfigError:
        return None
    return config


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation (None for one value)."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def _seconds(result: dict[str, Any], stage: str) -> float:
    """Processor seconds, which other work on the machine does not lengthen; of older cells, those of the clock."""
    seconds: float = result.get(f"{stage}_processor_seconds", result[f"{stage}_seconds"])
    return seconds


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def machine(done: Sequence[tuple[Cell, dict[str, Any]]]) -> dict[str, Any]:
    """Versions of the first finished cell, and how many cells were made on which processor, the most first."""
    made = [r for _, r in done if "processor" in r]  # cells of other suites may count and not say
    several = Counter(r["processor"] for r in made)
    return {"versions": made[0]["versions"] if made else None, "processors": dict(several.most_common())}


def machine_words(result: dict[str, Any]) -> str:
    """The machine of a summary as words after a command."""
    made = result["processors"]
    if not made:
        return "(no result is there yet)"
    several = "; ".join(f"{count} results on {name}" for name, count in made.items())
    names = next(iter(made)) if len(made) == 1 else f"{several}; their minutes compare only roughly"
    return f"on two cores ({names}), torch {result['versions'].get('torch')}"


def fixed(value: float | None, digits: int) -> str:
    """A number as text, empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def minutes(row: dict[str, Any], key: str) -> str:
    """Minutes as text, with the number of threads where it is not one."""
    many = f" ({row['threads']} threads)" if row[key] is not None and (row["threads"] or 1) > 1 else ""
    return fixed(row[key], 2) + many


def seeds_of(row: dict[str, Any]) -> str:
    """How many seeds a row holds, with warnings: settings that differ or are no longer the defaults, other code."""
    doubt = ", settings differ" if row["mixed"] else ", older settings" if row["older"] else ""
    return f"{row['seeds']} of {row['wanted']}{doubt}{row['mark']}"
