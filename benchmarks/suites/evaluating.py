"""The suite of `veilset evaluate`: is its arithmetic right, how long does it take, and what do real images score?

The last cell times three computations beside those of other packages, in turn in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.runner.suite import Cell
from veilset.core.errors import ConfigError

COMMAND = "veilset bench evaluate"
PAGE = "evaluate.md"
NEIGHBOURS = ("precision", "recall", "density", "coverage")
METRICS = ("gen2real-logreg", "gen2real-mlp", "gen2real-cnn", "fd-lite0", *(f"{w}-lite0" for w in NEIGHBOURS))
LIMIT, TOLERANCE = 480, 1e-4  # seconds for 10,000 against 10,000 images, relative error: what the project promises


def cells(quick: bool) -> list[Cell]:
    """Arithmetic first; a timed evaluation of private samples and one of real images; steps of the six; the peers."""
    data, n = ("digits", 300) if quick else ("mnist", 10_000)
    sizes = [(200, 64)] if quick else [(3000, 1280), (600, 1280)]
    return [
        *(Cell(f"arithmetic.{n_}x{width}", "arithmetic", {"images": n_, "width": width}) for n_, width in sizes),
        *(
            Cell(f"timed.{source}", "timed", {"source": source, "data": data, "n": n})
            for source in ("dp-moments", "real")
        ),
        Cell("steps", "steps", {"steps": 2 if quick else 4}),
        *([] if quick else [Cell("peers", "peers", {"images": 10_000, "rounds": 3})]),
    ]


# ---------------------------------------------------------------------- arithmetic


def arithmetic(images: int, width: int) -> dict[str, Any]:
    """Relative differences of our figures from torchmetrics, and from distances taken by differences."""
    import torch

    from veilset.evaluation.distances import fit, frechet_between, inception_score, squared_mmd
    from veilset.evaluation.utility import calibration_error

    a, b = (_features(images, width, seed) for seed in (0, 1))
    logits = _features(images, 10, 2) * 2
    true = torch.arange(images) % 10
    theirs = _torchmetrics(a, b, logits, true)
    ours = {
        "frechet": frechet_between(fit(a), fit(b)),
        "kernel": squared_mmd(a, b),
        "inception score": _one_split(inception_score, logits),
        "calibration": calibration_error(logits.softmax(1), true) / 100,
    }
    error = {name: abs(ours[name] / theirs[name] - 1) for name in ours}
    return {"relative_error": error | _neighbours(a, b), "values": ours}


def _features(images: int, width: int, seed: int) -> Any:
    """Features with a spectrum that falls as those of networks do; other means and scales for other seeds."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(images, width, generator=generator, dtype=torch.float64)
    scale = (1 + torch.arange(width, dtype=torch.float64)) ** -0.9 * (1 + 0.05 * seed)
    return raw * scale + 0.005 * seed


def _one_split(score: Any, logits: Any) -> float:
    """Which images share a split is a matter of chance in torchmetrics, so one split is compared."""
    from veilset.evaluation import distances

    before, distances.SPLITS = distances.SPLITS, 1
    try:
        return float(score(logits)[0])
    finally:
        distances.SPLITS = before


def _torchmetrics(a: Any, b: Any, logits: Any, true: Any) -> dict[str, float]:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    try:
        from torchmetrics.classification import MulticlassCalibrationError
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as e:
        raise ConfigError("the suite evaluate compares with torchmetrics: pip install 'veilset[dev]'") from e

    class Given(torch.nn.Module):
        """The features are the pictures; torchmetrics first asks a blank picture for its width."""

        num_features = a.shape[1]

        def forward(self, x: Any) -> Any:
            return x.flatten(1).double()

    fid = FrechetInceptionDistance(feature=Given(), input_img_size=(1, 1, a.shape[1]))
    fid.set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=len(a))
    score = InceptionScore(feature=Given(), splits=1)
    for m in (fid, kid):
        m.update(a[:, None, None], real=True)
        m.update(b[:, None, None], real=False)
    score.update(logits[:, None, None])
    ece = MulticlassCalibrationError(10, n_bins=15)
    ece.set_dtype(torch.float64)
    return {
        "frechet": fid.compute().item(),
        "kernel": kid.compute()[0].item(),
        "inception score": score.compute()[0].item(),
        "calibration": ece(logits.softmax(1), true).item(),
    }


def _neighbours(real: Any, fake: Any) -> dict[str, float]:
    """Relative differences of the four from distances that scipy takes by differences, in float64."""
    import numpy as np
    from scipy.spatial.distance import cdist

    from veilset.evaluation.neighbours import neighbours, radii

    ours = neighbours(real, fake, radii(real), radii(fake))

    def radius(x: Any, k: int) -> Any:
        return np.partition(cdist(x, x), k, axis=1)[:, k]  # the nearest of all is the point itself

    r, f = real.numpy(), fake.numpy()
    d, r3, f3, r5 = cdist(r, f), radius(r, 3), radius(f, 3), radius(r, 5)
    expected = {
        "precision": (d <= r3[:, None]).any(0).mean(),
        "recall": (d <= f3).any(1).mean(),
        "density": (d <= r5[:, None]).sum() / (5 * len(f)),
        "coverage": (d <= r5[:, None]).any(1).mean(),
    }
    return {name: abs(getattr(ours, name) - value) / (value or 1.0) for name, value in expected.items()}


# ---------------------------------------------------------------------- time


def timed(source: str, data: str, n: int) -> dict[str, Any]:
    """One evaluation of n images against at most as many real test images: seconds of each metric, and the values.

    Processor seconds of all threads are what a machine that does nothing else would need on one core.

    Args:
        source: a method, fitted at epsilon 10 (not timed), or "real" for images of the training split.
        data: set.
        n: images on each side.
    """
    import os

    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.evaluation import evaluate
    from veilset.methods.catalogue import make
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    assert isinstance(bundle.test, Images)
    if source == "real":
        empty = Plan(()).price(Privacy(1.0, allow_large_delta=True), bundle.train.info)
        images = Gate(bundle.train, empty, seed=0).inspect("what real images score")[:n]
    else:
        images = make(source).fit(bundle.train, Privacy(10.0), seed=0).sample(n, seed=0)
    test, marks = bundle.test[:n], []

    def mark(_: str) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    before = os.getloadavg()[0]
    scores = evaluate(images, test, seeds=1, metrics=METRICS, progress=mark)
    mark("end")
    names = [m.name for m in scores]
    cpu = {name: round(marks[i + 1][1] - marks[i][1], 2) for i, name in enumerate(names)}
    return {
        "cpu_seconds": cpu,
        "total_cpu": round(marks[-1][1] - marks[0][1], 1),
        "total": round(marks[-1][0] - marks[0][0], 1),
        "values": {m.label: round(m.value, 3) for m in scores},
        "images": [len(images), len(test)],
        "load": {"before": round(before, 1), "after": round(os.getloadavg()[0], 1)},
    }


def steps(steps: int) -> dict[str, Any]:
    """Processor milliseconds of one training step of each of the six, batch 256 of 1x28x28, without augmentation."""
    import os
    import statistics

    import torch

    from veilset.evaluation.protocols import SIX
    from veilset.evaluation.training import to_network
    from veilset.networks.architectures import make_network
    from veilset.networks.precision import fast

    x = to_network(torch.randint(0, 256, (256, 1, 28, 28), dtype=torch.uint8))
    y, out = torch.arange(256) % 10, {}
    for name in SIX:
        net = make_network(name, (1, 28, 28), 10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        sgd, times = torch.optim.SGD(net.parameters(), 0.01), []
        for _ in range(steps + 1):
            begin = time.process_time()
            with fast():
                logits = net(x)
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(logits.float(), y).backward()
            sgd.step()
            times.append(1000 * (time.process_time() - begin))
        out[name] = round(statistics.median(times[1:]), 1)
    return {"ms": out, "load": round(os.getloadavg()[0], 1)}


# ---------------------------------------------------------------------- beside other packages


def peers(images: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of ours and of another package's, medians of rounds in turn, and what both found.

    The Frechet distance as torch-fidelity 0.4.0 computes it (numpy's covariances, eigenvalues of their product); prdc
    with k = 5; the noise of a budget by dp-accounting's search on its default grid, to the same relative 1e-4.
    """
    import os
    import statistics

    out: dict[str, Any] = {"load": round(os.getloadavg()[0], 1), "rounds": rounds}
    for name, ours, theirs in _pairs(images):
        seconds: list[tuple[float, float]] = []
        for _ in range(rounds):
            mine, theirs_too = _processor(ours), _processor(theirs)
            seconds.append((mine[0], theirs_too[0]))
        medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
        out[name] = {
            "ours": round(medians[0], 2),
            "theirs": round(medians[1], 2),
            "ratio": round(statistics.median(a / b for a, b in seconds), 2),
            "values": [mine[1], theirs_too[1]],
        }
    return out


def _processor(run: Callable[[], float]) -> tuple[float, float]:
    begin = time.process_time()
    value = run()
    return time.process_time() - begin, value


def _pairs(images: int) -> Iterator[tuple[str, Callable[[], float], Callable[[], float]]]:
    """(name, ours, theirs), each computing one figure."""
    import contextlib
    import io

    import numpy as np

    from veilset.evaluation.distances import fit, frechet_between
    from veilset.evaluation.neighbours import neighbours, radii

    a, b = (_features(images, 2048, seed) for seed in (0, 1))

    def frechet() -> float:
        (m, s), (n, t) = ((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (a, b))
        root = np.sqrt(np.linalg.eigvals(s.dot(t)).astype("complex128")).real.sum()
        return float((m - n).dot(m - n) + np.trace(s) + np.trace(t) - 2 * root)

    yield f"Frechet distance, {images:,} x 2,048", lambda: frechet_between(fit(a), fit(b)), frechet

    try:
        from prdc import compute_prdc
    except ImportError as e:
        raise ConfigError("the cell peers compares with prdc: pip install prdc==0.2") from e
    c, d = (_features(images, 512, seed) for seed in (0, 1))

    def density() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            return float(compute_prdc(c.numpy(), d.numpy(), 5)["density"])

    yield f"the four of neighbours, {images:,} x 512", lambda: neighbours(c, d, radii(c), radii(d)).density, density
    for rate, steps, epsilon in ((0.01, 10_000, 1.0), (0.01, 500_000, 10.0)):
        ours, theirs = (partial(how, rate, steps, epsilon) for how in (_our_noise, _their_noise))
        yield f"noise for epsilon {epsilon:g}, rate {rate:g}, {steps:,} steps", ours, theirs


def _our_noise(rate: float, steps: int, epsilon: float) -> float:
    from veilset.privacy import pld
    from veilset.privacy.accounting import Spent
    from veilset.privacy.calibration import calibrate

    pld.at.cache_clear()
    return calibrate(lambda noise: [Spent(noise, rate, steps)], epsilon, 1e-5)


def _their_noise(rate: float, steps: int, epsilon: float) -> float:
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    def event(noise: float) -> Any:
        return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps)

    bracket = dp.ExplicitBracketInterval(0.3, 50)
    return float(dp.calibrate_dp_mechanism(PLDAccountant, event, epsilon, 1e-5, bracket, tol=1e-4))


# ---------------------------------------------------------------------- tables


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    if "relative_error" in result:
        return f"largest relative error {max(result['relative_error'].values()):.1e}"
    if "ms" in result:
        return f"{result['ms']} ms"
    if "total" in result:
        return f"{result['total_cpu']:.0f} s of processor time"
    return ", ".join(f"{v['ratio']}" for _, v in _compared(result)) + " of the peers' time"


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """errors by size, evaluations by source, milliseconds a step of the six."""
    errors = {c.name.removeprefix("arithmetic."): r["relative_error"] for c, r in done if c.kind == "arithmetic"}
    keep = ("cpu_seconds", "total_cpu", "total", "values", "images", "load", "threads")
    evaluations = {c.params["source"]: {k: r[k] for k in keep} for c, r in done if c.kind == "timed"}
    step = next(({"ms": r["ms"], "load": r["load"]} for c, r in done if c.kind == "steps"), None)
    beside = next((r for c, r in done if c.kind == "peers"), None)
    return {"errors": errors, "evaluations": evaluations, "steps": step, "peers": beside}


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md: two lines, and the way to its page."""
    worst = max((v for row in result["errors"].values() for v in row.values()), default=None)
    lines = ["## Evaluation\n", f"`{COMMAND}`; tables: [{PAGE}]({PAGE})\n"]
    if worst is not None:
        lines.append(f"Largest relative difference from torchmetrics and slow references: {worst:.1e}.")
    for source, e in result["evaluations"].items():
        lines.append(
            f"{e['images'][0]:,} {source} images against {e['images'][1]:,}: {e['total_cpu']:.0f} s of processor time."
        )
    return "\n".join(lines) + "\n"


def pages(result: dict[str, Any]) -> dict[str, str]:
    """evaluate.md."""
    lines = ["# How good and how fast the evaluation is\n", f"`{COMMAND}`\n", "## Arithmetic\n"]
    lines += [
        "Relative difference of our figures on the same features (images per side x features): Frechet, kernel",
        "distance, Inception Score and calibration error from torchmetrics in float64; nearest-neighbour figures from",
        f"distances that scipy takes by differences. Promised: at most {TOLERANCE:g}.\n",
    ]
    names = list(next(iter(result["errors"].values()), {}))
    lines += ["| size | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {k} | " + " | ".join(f"{row[n]:.0e}" for n in names) + " |" for k, row in result["errors"].items()]
    lines += [
        "",
        "## Time and values\n",
        "MNIST, one seed; `dp-moments` at epsilon 10 (fit not timed), and real images",
    ]
    lines += [f"of the training split as the best there is. Promised: {LIMIT // 60} minutes on two cores.\n"]
    for source, e in result["evaluations"].items():
        a, b = e["images"]
        rows = zip(e["values"].items(), e["cpu_seconds"].values(), strict=True)
        lines += [
            f"**{source}**, {a:,} against {b:,} images: {e['total_cpu']:.0f} s of processor time; by the clock "
            f"{e['total']:.0f} s, with {e['threads']} thread beside other work (load {e['load']['before']} before, "
            f"{e['load']['after']} after, on two cores).\n",
            "| metric | value | processor seconds |",
            "|---|---|---|",
            *(f"| {name} | {value:.2f} | {cpu:.1f} |" for (name, value), cpu in rows),
            "",
        ]
    if result["steps"]:
        ms = result["steps"]["ms"]
        lines += [
            "## The six networks\n",
            "Processor milliseconds of a training step on 256 images of 1x28x28",
            f"(load {result['steps']['load']}), and minutes for the 2,000 steps at which `psg` ends.\n",
            "| " + " | ".join(["", *ms]) + " |",
            "|---|" + "---|" * len(ms),
            "| ms | " + " | ".join(f"{v:.0f}" for v in ms.values()) + " |",
            "| minutes | " + " | ".join(f"{v * 2000 / 60_000:.0f}" for v in ms.values()) + " |",
            "",
        ]
    return {PAGE: "\n".join([*lines, *_beside(result.get("peers"))])}


def _compared(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What was timed beside another package; the rest of a result says how it was made."""
    return [(k, v) for k, v in result.items() if isinstance(v, dict) and "ratio" in v]


def _beside(peers: dict[str, Any] | None) -> list[str]:
    """The table of `peers`."""
    if not peers:
        return []
    rows = [
        f"| {k} | {v['ours']:.2f} | {v['theirs']:.2f} | {v['ratio']:.2f} | "
        + ", ".join(f"{x:.5g}" for x in v["values"])
        for k, v in _compared(peers)
    ]
    return [
        "## Beside other packages\n",
        f"Processor seconds, medians of {peers['rounds']} rounds in turn (load {peers['load']}); theirs:",
        "the formula of torch-fidelity 0.4.0, prdc 0.2, the PLD search of dp-accounting.\n",
        "| what | ours | theirs | ratio | values |",
        "|---|---|---|---|---|",
        *(f"{row} |" for row in rows),
        "",
    ]
