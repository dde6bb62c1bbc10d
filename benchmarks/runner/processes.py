"""Milliseconds of a DP-SGD step on one and on two processes: the same logical batch, one thread each, taken in turns.

As a script (under torchrun) it measures this process among however many there are, and the first one prints.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.runner.suite import ROOT

UNITS, WARM = 20_000, 3


def compare(batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Best medians of several rounds, and what two processes gain."""
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, all_ in took.items():
            all_.append(_run(count, batch, steps))
    best = {count: min(v) for count, v in took.items()}
    return {"batch": batch, "one_ms": best[1], "two_ms": best[2], "gain": best[1] / best[2]}


def _run(count: int, batch: int, steps: int) -> float:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*start, "-m", "benchmarks.runner.processes", str(batch), str(steps)]
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=single, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def step_ms(batch: int, steps: int) -> float | None:
    """Median milliseconds a step of a 2-conv GroupNorm classifier on random records; None but on the first process."""
    import dataclasses

    import numpy as np
    import torch
    from torch.nn import functional as F

    from benchmarks.suites.gradient import network
    from veilset.core.types import PublicInfo
    from veilset.learning.dp_sgd import descend, dp_sgd
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import from_arrays
    from veilset.privacy.spec import Privacy

    torch.set_num_threads(1)
    info = PublicInfo(name="random", classes=tuple("0123456789"), shape=(1, 28, 28), units=UNITS)
    g = np.random.default_rng(0)
    x, y = g.integers(0, 256, (UNITS, 1, 28, 28), dtype=np.uint8), g.integers(0, 10, UNITS)
    release = dp_sgd("step", info, batch=batch, steps=steps + WARM, bound=1.0)
    plan = dataclasses.replace(
        Plan((dataclasses.replace(release, noise_multiplier=1.0),)), info=info, privacy=Privacy(1e3)
    )  # priced by hand: only time matters here
    torch.manual_seed(0)
    net = network("classifier").net
    sgd, gate, took = torch.optim.SGD(net.parameters(), 1e-3), Gate(from_arrays(info, x, y), plan, seed=0), []
    for _ in range(steps + WARM):
        start = time.perf_counter()
        grads = gate.grad("step", lambda f, x, y: F.cross_entropy(f(x[None]), y[None]), net)
        descend(sgd, net, grads)
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took[WARM:]) if int(os.environ.get("RANK", "0")) == 0 else None


if __name__ == "__main__":
    result = step_ms(int(sys.argv[1]), int(sys.argv[2]))
    if result is not None:
        print(json.dumps(result))
