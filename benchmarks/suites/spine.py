"""The suite of the spine: quality of the first two methods, their time and memory, memory growth, start-up."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runner.quality import cell, machine, machine_words, quality, spread
from benchmarks.runner.suite import Cell
from veilset.core.facts import peak_mb
from veilset.core.rendering import plus_minus

__all__ = ["cells", "memory", "quality", "render", "speed", "startup", "summary", "words"]
PROTOCOL = """Delta 1e-5; unit: one image, add or remove; 60,000 balanced images per cell; last epoch, no selection;
a seed reseeds synthesizer and classifier. Accuracy in % on the public test split, mean and sample standard deviation
over seeds. MNIST and Fashion-MNIST are development sets: hyper-parameters were chosen on a validation part of their
training splits, and the claim covers a run, not that search. fd-gabor is a Frechet distance on fixed Gabor features,
not FID. Fit seconds are of one core beside another busy one; the rows `speed` below ran alone on both."""
COMMAND = "veilset bench spine --jobs 2"
SEEDS = (0, 1, 2)
SETS = ("mnist", "fashion-mnist")
EPSILONS = (1.0, 10.0)
FLOOR_AIM = {
    ("dp-merf", "mnist"): ((86, 88), (92, 93)),
    ("dp-merf", "fashion-mnist"): ((72, 72), (76, 77)),
    ("dp-moments", "mnist"): ((91.5, 94.5), (93, 95.5)),
    ("dp-moments", "fashion-mnist"): ((76.5, 77), (78, 79)),
}
# DP-MERF as published, and each change to it alone (the last rows: on MNIST at epsilon 1, 20,000 images per cell).
PUBLISHED: dict[str, Any] = {
    "generator": "conv",
    "loss": "published",
    "balanced": False,
    "scales": 1,
    "frequencies": 5000,
    "lr_schedule": "step",
    "ema_decay": 0.0,
    "steps": 3000,
    "batch_size": 100,
    "latent_dim": 5,
}
CHANGES: dict[str, dict[str, Any]] = {
    "published, unbiased loss": {"loss": "unbiased"},
    "published, balanced labels": {"balanced": True},
    "published, second length scale": {"scales": 2, "frequencies": 2500},
    "published, cosine decay": {"lr_schedule": "cosine"},
    "published, averaged weights": {"ema_decay": 0.99},
    "published, cells": {"generator": "cells", "latent_dim": 20},
}


def cells(quick: bool) -> list[Cell]:
    """All cells, the most wanted first."""
    if quick:
        tiny = [("dp-moments", {}), ("dp-merf", {"steps": 200})]
        return [cell(m, "digits", 1.0, s, p, n=1000) for m, p in tiny for s in SEEDS]
    out = [cell("dp-moments", d, e, s) for d in SETS for e in EPSILONS for s in SEEDS]
    out += [cell("dp-merf", d, e, s) for d in SETS for e in EPSILONS for s in SEEDS]
    out += [cell("dp-merf", d, 1.0, s, PUBLISHED, "published") for d in SETS for s in SEEDS]
    short: dict[str, dict[str, Any]] = {"published, short": {}, **CHANGES}
    out += [cell("dp-merf", "mnist", 1.0, s, PUBLISHED | p, tag, 20_000) for s in SEEDS for tag, p in short.items()]
    out += [cell("dp-merf", d, 10.0, s, PUBLISHED, "published") for d in SETS for s in SEEDS]
    out += [
        Cell(f"speed.{m}", "speed", {"method": m, "data": "fashion-mnist"}, alone=True)
        for m in ("dp-merf", "dp-moments")
    ]
    sizes = [Cell(f"memory.{n}", "memory", {"records": n}, alone=True) for n in (60_000, 1_000_000)]
    return [*out, *sizes, Cell("startup", "startup", {}, alone=True)]


# ---------------------------------------------------------------------- what a cell does


def speed(method: str, data: str) -> dict[str, Any]:
    """fit + 10,000 samples at epsilon 1 with all cores, and the peak memory of the whole process."""
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    start = time.perf_counter()
    model = make(method).fit(bundle.train, Privacy(1.0), seed=0)
    model.sample(10_000, seed=0)
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def memory(records: int) -> dict[str, Any]:
    """Peak memory of `dp-moments` on a generated IDX set of this many 28x28 records on disk."""
    import numpy as np

    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rng = np.random.default_rng(0)
        with open(home / "train-images-idx3-ubyte", "wb") as f:
            f.write(bytes([0, 0, 8, 3]) + np.array([records, 28, 28], ">i4").tobytes())
            for i in range(0, records, 10_000):
                f.write(rng.integers(0, 256, (min(10_000, records - i), 28, 28), np.uint8).tobytes())
        with open(home / "train-labels-idx1-ubyte", "wb") as f:
            f.write(bytes([0, 0, 8, 1]) + np.array([records], ">i4").tobytes())
            f.write(rng.integers(0, 10, records, np.uint8).tobytes())
        classes = ", ".join(f'"{k}"' for k in range(10))
        (home / "veilset.toml").write_text(
            f'name = "generated"\nclasses = [{classes}]\nshape = [1, 28, 28]\nvalue_range = [0, 255]\n'
            f'units = {records}\nunit = "one image"\nmax_images_per_unit = 1\naccess = "private"\nconfirmed = true\n'
        )
        start = time.perf_counter()
        make("dp-moments").fit(load(home).train, Privacy(1.0, delta=1e-7), seed=0)
        return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def startup() -> dict[str, Any]:
    """Seconds of two commands, and of `import veilset` beside `import torch`; the median of five, interleaved."""
    commands = {
        "help": [sys.executable, "-m", "veilset.cli.main", "--help"],
        "methods": [sys.executable, "-m", "veilset.cli.main", "methods"],
        "import_torch": [sys.executable, "-c", "import torch"],
        "import_both": [
            sys.executable,
            "-c",
            "import torch, veilset; veilset.Privacy, veilset.make, veilset.load, veilset.Synthesizer",
        ],
    }
    took: dict[str, list[float]] = {k: [] for k in commands}
    for _ in range(5):
        for k, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took[k].append(time.perf_counter() - start)
    return {"seconds": {k: statistics.median(v) for k, v in took.items()}}


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    if "figures" in result:
        return ", ".join(f"{k} {v:.2f}" for k, v in result["figures"].items()) + f", fit {result['fit_seconds']:.0f} s"
    return ", ".join(f"{k} {v}" for k, v in result.items() if k in ("seconds", "peak_mb"))


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each method, variant, set and epsilon, and the single measurements."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in wanted:
        if one.kind == "quality":
            p = one.params
            key = (p["method"], p["tag"], p["data"], p["epsilon"])
            rows.setdefault(key, {"cells": [], "wanted": 0})["wanted"] += 1
    for one, result in done:
        if one.kind == "quality":
            p = one.params
            rows[p["method"], p["tag"], p["data"], p["epsilon"]]["cells"].append(result)
    table = []
    for (method, tag, data, epsilon), row in rows.items():
        got = row["cells"]
        figures = {}
        for name in got[0]["figures"] if got else []:
            figures[name] = spread([r["figures"][name] for r in got])
        limits = FLOOR_AIM.get((method, data)) if not tag else None
        which = EPSILONS.index(epsilon) if epsilon in EPSILONS else 0
        table.append(
            {
                "method": method,
                "variant": tag,
                "data": data,
                "epsilon": epsilon,
                "seeds": len(got),
                "wanted": row["wanted"],
                "figures": figures,
                "fit_seconds": statistics.fmean(r["fit_seconds"] for r in got) if got else None,
                "floor": limits[0][which] if limits else None,
                "aim": limits[1][which] if limits else None,
                "mark": max((r.get("mark", "") for r in got), default=""),
            }
        )
    single = {
        one.name: {k: v for k, v in r.items() if k in ("seconds", "peak_mb", "mark")}
        for one, r in done
        if one.kind != "quality"
    }
    return {"command": COMMAND, "rows": table, "single": single} | machine(done)


def render(result: dict[str, Any]) -> str:
    """The suite as Markdown."""
    lines = [
        f"## spine\n\n`{result['command']}` {machine_words(result)}. {PROTOCOL}\n",
        "| method | variant | set | epsilon | CNN | required / goal | logistic regression | fd-gabor | fit s | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        f = r["figures"]
        limits = f"{r['floor']} / {r['aim']}" if r["floor"] else ""
        fit = f"{r['fit_seconds']:.0f}" if r["fit_seconds"] is not None else ""
        lines.append(
            f"| {r['method']} | {r['variant'] or 'default'} | {r['data']} | {r['epsilon']:g} "
            f"| {plus_minus(f.get('gen2real-cnn'))} | {limits} | {plus_minus(f.get('gen2real-logreg'))} "
            f"| {plus_minus(f.get('fd-gabor'))} | {fit} | {r['seeds']} of {r['wanted']}{r['mark']} |"
        )
    lines += ["", "| measurement | result |", "|---|---|"]
    for name, r in result["single"].items():
        seconds = r.get("seconds")
        if isinstance(seconds, dict):
            text = ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items())
        else:
            text = f"{seconds:.1f} s, peak {r['peak_mb']:.0f} MB"
        lines.append(f"| {name} | {text}{r.get('mark', '')} |")
    return "\n".join(lines) + "\n"
