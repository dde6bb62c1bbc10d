"""The suite of the clipped gradient: a private training step beside an ordinary one and beside Opacus, in one run.

A step is: gradient of 256 records, optimiser. Ours is `gate.grad` (reading, clipping, noise) and the same optimiser.
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

from benchmarks.runner.suite import ROOT, Cell

COMMAND = "veilset bench gradient"
ABOUT = """Milliseconds of one training step on 256 records of 1x28x28, medians of interleaved rounds in one process on
both cores; ratio: the median over rounds of ours / ordinary, in processor time. Padded: that ratio a record that
counts, if batches are Poisson draws around 256 that are filled up to whole chunks of {rows} rows. Ordinary: forward,
backward and SGD step of the same network in the same type and memory layout; plain order: the same with everything
contiguous. Peak: what two steps add to the memory of a process of its own, in MB. Networks and images are
channels_last; bfloat16 is autocast. Opacus runs in float32; a mode that does not run on a network says why."""
BATCH = 256
MODES = ("hooks", "functorch", "ew", "ghost")
ORDINARY = ("plain", "plain order")
NETS = ("classifier", "critic", "cvae", "unet")
RATIO, FASTER, SMALLER = 1.5, 1.3, 0.5  # what the project promises, see the column names


def cells(quick: bool) -> list[Cell]:
    """Times and peaks of each network; float32 first."""
    rounds = 3 if quick else 15
    out = [Cell(f"{net}.{kind}", "times", {"net": net, "kind": kind, "rounds": rounds}, alone=True)
           for kind in ("float32", "bfloat16") for net in (NETS[:1] if quick else NETS)]  # fmt: skip
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


def step(mode: str, name: str, kind: str) -> Callable[[], None]:
    """A function that takes one training step."""
    import torch

    torch.manual_seed(0)
    last = torch.contiguous_format if mode == "plain order" else torch.channels_last
    net = network(name).to(memory_format=last)
    x = torch.rand(BATCH, 1, 28, 28).contiguous(memory_format=last)
    y = torch.randint(0, 10, (BATCH,))
    if mode == "ours":
        return _ours(net, x, y, kind)
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


def _ours(net: Any, x: Any, y: Any, kind: str) -> Callable[[], None]:
    """`gate.grad` on a set of these 256 records, all of them in every step."""
    import torch

    from veilset.core.types import PublicInfo
    from veilset.learning.dp_sgd import descend, dp_sgd
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.private import from_arrays
    from veilset.privacy.spec import Privacy

    info = PublicInfo(name="random", classes=tuple("0123456789"), shape=(1, 28, 28), units=BATCH)
    plan = Plan((dp_sgd("step", info, batch=BATCH, steps=10**6, bound=1.0),)).price(Privacy(float("inf")), info)
    gate = Gate(from_arrays(info, (x.contiguous() * 255).byte().numpy(), y.numpy()), plan, seed=0)
    sgd = torch.optim.SGD(net.parameters(), 1e-3)

    def loss(f: Any, x: Any, y: Any) -> Any:
        return f(x[None], y[None]).sum()

    def ours() -> None:
        with _precision(kind):
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
    loader = torch.utils.data.DataLoader(public, batch_size=BATCH)  # noqa: TID251  Opacus asks for one
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


def times(net: str, kind: str, rounds: int) -> dict[str, Any]:
    """Median milliseconds of every way, measured in turn, and the median ratio of ours to an ordinary step."""
    warnings.simplefilter("ignore")
    from veilset.core.memory import keep_pages

    keep_pages()  # for every way alike
    ways, failed = {}, {}
    for mode in (*ORDINARY, "ours", *(MODES if kind == "float32" else ())):
        try:
            ways[mode] = step(mode, net, kind)
            ways[mode]()
        except Exception as e:  # Opacus has no rule for some layers in some modes
            if mode in (*ORDINARY, "ours"):
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
            work[mode].append(time.process_time() - spent)
    ratio = statistics.median(a / b for a, b in zip(work["ours"], work["plain"], strict=True))
    return {"ms": {m: statistics.median(v) for m, v in took.items()}, "ratio": ratio,
            "padded": ratio * padding(BATCH, chunk()), "failed": failed}  # fmt: skip


def chunk() -> int:
    """Rows of a chunk that the gate takes for such batches."""
    from veilset.privacy.gradients.sheet import ROWS
    from veilset.privacy.reading import chunk_rows

    return chunk_rows(BATCH, 0.005, ROWS)


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
        return ", ".join(f"{m} {v:.1f} ms" for m, v in result["ms"].items()) + f", ratio {result['ratio']:.2f}"
    return ", ".join(f"{m} {v:.0f} MB" for m, v in result["peak_mb"].items() if v is not None)


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """nets -> plain_ms, ours_ms, ratio, opacus_ms by mode, peak_mb by way."""
    nets: dict[str, dict[str, Any]] = {}
    teams = [result["processes"] for cell, result in done if cell.kind == "processes"]
    for cell, result in done:
        if cell.kind == "processes":
            continue
        net, kind = cell.params["net"], cell.params["kind"]
        row = nets.setdefault(
            net if kind == "float32" else f"{net}-bfloat16", {"opacus_ms": {}, "peak_mb": {}, "mark": ""}
        )
        row["mark"] = max(row["mark"], result.get("mark", ""))
        if cell.kind == "times":
            ms = result["ms"]
            row |= {"plain_ms": ms["plain"], "order_ms": ms.get("plain order"), "ours_ms": ms["ours"]}
            row |= {"ratio": result["ratio"], "padded": result.get("padded")}
            row["opacus_ms"] = {m: result["ms"].get(m) for m in MODES if kind == "float32"}
            row["failed"] = result["failed"]
        else:
            row["peak_mb"] = result["peak_mb"]
    return {"nets": nets, "processes": teams, "missing": len(wanted) - len(done)}


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    lines = ["## Clipped gradient\n", f"`{COMMAND}`\n", ABOUT.format(rows=chunk()), ""]
    lines.append(
        "| network | ordinary | plain order | ours | ratio | padded | "
        + " | ".join(f"Opacus {m}" for m in MODES)
        + " | fastest Opacus / ours | peak MB: ordinary | ours | hooks | ours / hooks |"
    )
    lines.append("|---|" + "---|" * (len(MODES) + 10))
    for name, row in result["nets"].items():
        base = result["nets"].get(name.removesuffix("-bfloat16"), {})
        opacus = [v for v in (base.get("opacus_ms") or {}).values() if v]
        peak, ours = row["peak_mb"], row.get("ours_ms")
        hooks = base.get("peak_mb", {}).get("hooks")
        cells_ = [name + row["mark"], _n(row.get("plain_ms")), _n(row.get("order_ms")), _n(ours)]
        cells_ += [_n(row.get("ratio"), 2), _n(row.get("padded"), 2)]
        cells_ += [_n(row["opacus_ms"].get(m)) if row["opacus_ms"].get(m) else "-" for m in MODES]
        cells_ += [_n(min(opacus) / ours, 1) if opacus and ours else "", _n(peak.get("plain"), 0)]
        cells_ += [_n(peak.get("ours"), 0), _n(hooks, 0)]
        cells_ += [_n(peak["ours"] / hooks, 2) if hooks and peak.get("ours") else ""]
        lines.append("| " + " | ".join(cells_) + " |")
    failed = [f"{n}, {m}: {why}" for n, row in result["nets"].items() for m, why in row.get("failed", {}).items()]
    lines += ["", f"Promised: ratio at most {RATIO}, Opacus' fastest mode at least {FASTER} times slower, peak at most "
              f"{SMALLER} of hooks. Limits, and what was tried: [log](../logs/search-gradient.md)."]  # fmt: skip
    for t in result["processes"]:
        words_ = "{one_ms:.0f} ms on one process, {two_ms:.0f} ms on two (gain {gain:.2f})".format(**t)
        lines += [f"\nOne thread a process, logical batch {t['batch']}, the classifier: {words_}."]
    lines += ["Modes that do not run: " + "; ".join(failed) + "."] if failed else []
    return "\n".join(lines) + "\n"


def _n(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    print(json.dumps(_peak(*sys.argv[1:4])))
