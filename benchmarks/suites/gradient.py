"""The suite of the clipped gradient: a private training step beside an ordinary one and beside Opacus, in one run.

A step is: gradient of a batch, optimiser. Ours is `gate.grad` (reading, clipping, noise) and the same optimiser.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from benchmarks.runner.suite import ROOT, Cell

COMMAND = "veilset bench gradient"
ABOUT = """Milliseconds of processor time of a training step on records of 1x28x28, medians of interleaved rounds in one
process. Ratio: the median over rounds of ours / the quicker ordinary step; without: the same where the compiled part is
left out. Padded: the ratio a record that counts, if batches are Poisson draws around the batch that are filled up to
whole chunks. First: the first step of ours, with what is looked at before any record is read, in steps. Ordinary:
forward, backward and SGD step of the same network in the same type, in channels_last as ours; plain order: contiguous.
Peak: what two steps add to the memory of a process of its own, in MB. Networks and images are
channels_last; bfloat16 is autocast. Opacus runs in float32; a mode that does not run on a network says why."""
BATCH, THREADS = 256, 1
MODES = ("hooks", "functorch", "ew", "ghost")
ORDINARY = ("plain", "plain order")
NETS = ("classifier", "critic", "cvae", "unet")
OURS = ("ours", "without")
RATIO, FASTER, SMALLER = 1.5, 1.3, 0.5  # what the project promises, see the column names


def cells(quick: bool) -> list[Cell]:
    """Times and peaks of each network; float32 first."""
    rounds = 3 if quick else 9
    wanted = [(kind, BATCH, threads) for threads in (1, 2) for kind in ("float32", "bfloat16")]
    wanted += [("float32", batch, 1) for batch in (64, 1024)]
    out = [
        Cell(
            ".".join([net, kind, f"{batch}x{threads}"]),
            "times",
            {"net": net, "kind": kind, "rounds": rounds, "batch": batch, "threads": threads},
            alone=True,
        )
        for kind, batch, threads in (wanted[:1] if quick else wanted)
        for net in (NETS[:1] if quick else NETS)
    ]
    modes = {"float32": ("plain", "ours", *MODES), "bfloat16": ("plain", "ours")}
    if quick:
        modes = {"float32": ("plain", "ours", "hooks")}
    out += (
        []
        if quick
        else [
            Cell(f"processes.{batch}", "processes", {"batch": batch, "steps": 15, "rounds": 3}, alone=True)
            for batch in (256, 1024)
        ]
    )
    return out + [
        Cell(f"peak.{net}.{kind}", "peaks", {"net": net, "kind": kind, "modes": list(modes[kind])}, alone=True)
        for kind in modes
        for net in (NETS[:1] if quick else NETS)
    ]


# ---------------------------------------------------------------------- networks: (images, labels) -> loss of each


def network(name: str) -> Any:
    """A module whose forward takes x [n, 1, 28, 28] and y [n] to the losses [n]."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from veilset.networks.critics import ConvCritic, score
    from veilset.networks.unet import UNet

    class Losses(nn.Module):
        net: nn.Module
        told: nn.Module
        encoder: nn.Module
        decoder: nn.Module

        def __init__(self, **parts: nn.Module):
            super().__init__()
            for key, part in parts.items():
                setattr(self, key, part)

    class Classifier(Losses):
        def forward(self, x: Any, y: Any) -> Any:
            return F.cross_entropy(self.net(x).float(), y, reduction="none")

    class Critic(Losses):
        def forward(self, x: Any, y: Any) -> Any:
            return F.softplus(-score(self.net(x, y).float(), y))

    class Autoencoder(Losses):
        def forward(self, x: Any, y: Any) -> Any:
            told, flat = self.told(y), x.flatten(1)
            mean, log = self.encoder(torch.cat([flat, told], 1)).float().chunk(2, 1)
            z = mean + (log / 2).exp() * torch.randn_like(mean)
            logits = self.decoder(torch.cat([z, told], 1)).float()
            return (F.softplus(logits) - logits * flat).sum(1) - 0.5 * (1 + log - mean.square() - log.exp()).sum(1)

    class Denoiser(Losses):
        def forward(self, x: Any, y: Any) -> Any:
            level = (1.2 * torch.randn(len(x), 1, 1, 1) - 1.2).exp()
            noise = torch.randn_like(x)
            return (self.net(x + level * noise, level.flatten().log() / 4, y).float() - noise).square().mean((1, 2, 3))

    if name == "classifier":
        block = lambda i, o: (nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(8, o), nn.ReLU(), nn.MaxPool2d(2))  # noqa: E731
        return Classifier(net=nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 49, 10)))
    if name == "critic":
        return Critic(net=ConvCritic((1, 28, 28), 10, 64))
    if name == "cvae":
        dense = lambda a, b, c: nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))  # noqa: E731
        return Autoencoder(told=nn.Embedding(10, 10), encoder=dense(794, 256, 32), decoder=dense(26, 256, 784))
    return Denoiser(net=UNet((1, 28, 28), 10, width=32, attention=(1,), kind="group"))


# ---------------------------------------------------------------------- steps


def step(mode: str, name: str, kind: str, batch: int = BATCH) -> Callable[[], None]:
    """A function that takes one training step on so many records."""
    import torch

    torch.manual_seed(0)
    last = torch.contiguous_format if mode == "plain order" else torch.channels_last
    net = network(name).to(memory_format=last)
    x = torch.rand(batch, 1, 28, 28).contiguous(memory_format=last)
    y = torch.randint(0, 10, (batch,))
    if mode in OURS:
        return _ours(net, x, y, kind, compiled=mode == "ours")
    if mode not in ORDINARY:
        return _opacus(mode, net, x, y)
    sgd = torch.optim.SGD(net.parameters(), 1e-3)

    def plain() -> None:
        with _precision(kind):
            loss = net(x, y).mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()

    return plain


def _ours(net: Any, x: Any, y: Any, kind: str, compiled: bool = True) -> Callable[[], None]:
    """`gate.grad` on a set of these records, all of them in every step; perhaps as if nothing had been compiled."""
    import torch

    from veilset.core.types import PublicInfo
    from veilset.learning.dp_sgd import descend, dp_sgd
    from veilset.privacy.gate import Gate
    from veilset.privacy.gradients import kernels
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import from_arrays
    from veilset.privacy.spec import Privacy

    info = PublicInfo(name="random", classes=tuple("0123456789"), shape=(1, 28, 28), units=len(x))
    plan = Plan((dp_sgd("step", info, batch=len(x), steps=10**6, bound=1.0),)).price(Privacy(float("inf")), info)
    gate = Gate(from_arrays(info, (x.contiguous() * 255).byte().numpy(), y.numpy()), plan, seed=0)
    sgd = torch.optim.SGD(net.parameters(), 1e-3)

    def loss(f: Any, x: Any, y: Any) -> Any:
        return f(x[None], y[None]).sum()

    def ours() -> None:
        left_out = contextlib.nullcontext() if compiled else mock.patch.object(kernels, "library", lambda: None)
        with _precision(kind), left_out:
            grads = gate.grad("step", loss, net)
        descend(sgd, net, grads)

    return ours


def _opacus(mode: str, net: Any, x: Any, y: Any) -> Callable[[], None]:
    """Opacus' own engine with this kind of per-sample gradient, noise included."""
    import torch
    from opacus import PrivacyEngine
    from torch import nn

    class Mean(nn.Module):
        """The network's output is the loss already."""

        reduction = "mean"

        def forward(self, losses: Any, _: Any) -> Any:
            return losses.mean() if self.reduction == "mean" else losses

    class Pair(nn.Module):
        """Opacus hands a module one batch of records."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any, y: Any) -> Any:
            return self.net(x, y)

    sgd = torch.optim.SGD(net.parameters(), 1e-3)
    public = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(public, batch_size=len(x))  # noqa: TID251  Opacus asks for one
    how = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "poisson_sampling": False, "grad_sample_mode": mode}
    criterion: Any = Mean()
    if mode == "ghost":
        module, sgd, criterion, _ = PrivacyEngine().make_private(
            module=Pair(), optimizer=sgd, data_loader=loader, criterion=criterion, **how
        )
    else:
        module, sgd, _ = PrivacyEngine().make_private(module=Pair(), optimizer=sgd, data_loader=loader, **how)

    def opacus() -> None:
        sgd.zero_grad()
        criterion(module(x, y), y).backward()
        sgd.step()

    return opacus


@contextlib.contextmanager
def _precision(kind: str) -> Iterator[None]:
    import torch

    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
        yield


# ---------------------------------------------------------------------- what a cell does


def times(net: str, kind: str, rounds: int, batch: int = BATCH, threads: int = THREADS) -> dict[str, Any]:
    """Median milliseconds of every way, measured in turn, and median ratios of ours to the quicker ordinary step."""
    warnings.simplefilter("ignore")
    import torch

    from veilset.core.memory import keep_pages
    from veilset.privacy.gradients import kernels

    torch.set_num_threads(threads)
    keep_pages()  # for every way alike
    ways, failed, first = {}, {}, {}
    others = MODES if kind == "float32" and (batch, threads) == (BATCH, THREADS) else ()
    for mode in (*ORDINARY, *(OURS if kernels.library() else OURS[1:]), *others):
        try:
            ways[mode] = step(mode, net, kind, batch)
            start = time.process_time()
            ways[mode]()
            first[mode] = time.process_time() - start
        except Exception as e:  # Opacus has no rule for some layers in some modes
            if mode in (*ORDINARY, *OURS):
                raise
            ways.pop(mode, None)
            failed[mode] = f"{type(e).__name__}: {str(e).splitlines()[0][:120] if str(e) else ''}"
    took: dict[str, list[float]] = {mode: [] for mode in ways}
    work: dict[str, list[float]] = {mode: [] for mode in ways}
    for _ in range(rounds):
        for mode, run in ways.items():
            start, spent = time.perf_counter(), time.process_time()
            run()
            took[mode].append(1000 * (time.perf_counter() - start))
            work[mode].append(1000 * (time.process_time() - spent))
    ms = {m: statistics.median(v) for m, v in work.items()}
    least = work[min(ORDINARY, key=ms.__getitem__)]
    ratios = {m: statistics.median(a / b for a, b in zip(work[m], least, strict=True)) for m in OURS if m in work}
    best = min(ratios, key=OURS.index)
    return {"ms": ms, "wall_ms": {m: statistics.median(v) for m, v in took.items()}, "ratios": ratios,
            "padded": ratios[best] * padding(batch, chunk(batch)), "first": 1000 * first[best] / ms[best],
            "rules": kernels.words(), "failed": failed}  # fmt: skip


def chunk(batch: int = BATCH) -> int:
    """Rows of a chunk that the gate takes for such batches, where memory allows them."""
    from veilset.privacy.gradients.sheet import ROWS
    from veilset.privacy.reading import chunk_rows

    return chunk_rows(batch, 0.005, ROWS)


def padding(batch: int, rows: int) -> float:
    """Rows that are computed for each record that counts: Poisson batches, filled up to whole chunks.

    Args:
        batch: expected records of a batch.
        rows: of a chunk.
    """
    total, chance = 0.0, math.exp(-batch)
    for k in range(1, batch + 40 * math.isqrt(batch)):
        chance *= batch / k
        total += chance * -(-k // rows) * rows
    return total / batch


def peaks(net: str, kind: str, modes: list[str]) -> dict[str, Any]:
    """MB that one step adds to the peak memory of a process of its own."""
    out = {}
    for mode in modes:
        command = [sys.executable, "-m", "benchmarks.suites.gradient", mode, net, kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        out[mode] = json.loads(done.stdout) if done.returncode == 0 else None
    return {"peak_mb": out}


def processes(batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """A step on one and on two processes with one thread each."""
    from benchmarks.runner.processes import compare

    return {"processes": compare(batch, steps, rounds)}


def _peak(mode: str, net: str, kind: str) -> float:
    warnings.simplefilter("ignore")
    run = step(mode, net, kind)
    before = _status("VmRSS")
    for _ in range(2):
        run()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    """A figure of this process in MB, as the system counts it."""
    with open("/proc/self/status") as f:
        return next(float(line.split()[1]) / 1024 for line in f if line.startswith(field))


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    if "processes" in result:
        return "one process {one_ms:.0f} ms, two {two_ms:.0f} ms".format(**result["processes"])
    if "ms" in result:
        ratios = ", ".join(f"{m} {v:.2f}" for m, v in result["ratios"].items())
        return ", ".join(f"{m} {v:.1f} ms" for m, v in result["ms"].items()) + f"; ratios {ratios}"
    return ", ".join(f"{m} {v:.0f} MB" for m, v in result["peak_mb"].items() if v is not None)


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """times: a row a cell; peaks: network and type -> MB by way; processes."""
    times_, memory = [], {}
    for cell, result in done:
        facts = {k: v for k, v in cell.params.items() if k in ("net", "kind", "batch", "threads")}
        if cell.kind == "times" and "ratios" in result:  # older cells had another baseline
            times_.append(facts | {k: v for k, v in result.items() if k not in ("kind", "cell", "versions", "threads")})
        elif cell.kind == "peaks":
            memory[f"{facts['net']}, {facts['kind']}"] = result["peak_mb"] | {"mark": result.get("mark", "")}
    teams = [result["processes"] for cell, result in done if cell.kind == "processes"]
    return {"times": times_, "peaks": memory, "processes": teams, "missing": len(wanted) - len(done)}


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    lines = ["## Clipped gradient\n", f"`{COMMAND}`\n", ABOUT, ""]
    names: tuple[str, ...] = (
        "network",
        "type",
        "batch",
        "threads",
        "processor",
        "rules",
        "ordinary",
        "plain order",
        "ours",
        "without",
    )
    names += ("ratio", "without", "padded", "first", *(f"Opacus {m}" for m in MODES), "fastest Opacus / ours")
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in result["times"]:
        ms, ratios = row["ms"], row["ratios"]
        opacus, best = [ms[m] for m in MODES if m in ms], ms.get("ours", ms["without"])
        cells_ = [row["net"] + row.get("mark", ""), row["kind"], str(row["batch"]), str(row["threads"])]
        cells_ += [row["processor"], row["rules"], *(_n(ms.get(m)) for m in (*ORDINARY, *OURS))]
        cells_ += [*(_n(ratios.get(m), 2) for m in OURS), _n(row["padded"], 2), _n(row["first"], 0)]
        cells_ += [*(_n(ms.get(m)) or "-" for m in MODES), _n(min(opacus) / best, 1) if opacus else ""]
        lines.append("| " + " | ".join(cells_) + " |")
    lines += ["", "| peak MB | ordinary | ours | Opacus hooks | ours / hooks |", "|---|---|---|---|---|"]
    for name, mb in result["peaks"].items():
        hooks = (result["peaks"].get(name.split(",")[0] + ", float32") or {}).get("hooks")
        share = mb["ours"] / hooks if hooks and mb.get("ours") else None
        cells_ = [name + mb["mark"], *(_n(v, 0) for v in (mb.get("plain"), mb.get("ours"), hooks)), _n(share, 2)]
        lines.append("| " + " | ".join(cells_) + " |")
    lines += ["", f"Promised: ratio at most {RATIO}, Opacus' fastest mode at least {FASTER} times slower, peak at most "
              f"{SMALLER} of hooks. Limits, and what was tried: [log](../logs/search-gradient.md)."]  # fmt: skip
    for t in result["processes"]:
        words_ = "{one_ms:.0f} ms on one process, {two_ms:.0f} ms on two (gain {gain:.2f})".format(**t)
        lines += [f"\nOne thread a process, logical batch {t['batch']}, the classifier: {words_}."]
    failed = {f"{r['net']}, {m}: {why}" for r in result["times"] for m, why in r["failed"].items()}
    lines += ["Modes that do not run: " + "; ".join(sorted(failed)) + "."] if failed else []
    return "\n".join(lines) + "\n"


def _n(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    print(json.dumps(_peak(*sys.argv[1:4])))
