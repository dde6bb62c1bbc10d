"""Write down what a build computes for the same arguments and seeds: `record.py OUT RUNS [OTHERS]`.

The build is the `veilset` that Python imports. Everything goes through its command line, spelt as 0.2.0 does, so
that old command lines are held to as well. RUNS keeps the run folders; with OTHERS, those of another build are opened
and drawn from. `same.py` compares what two builds write.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA, BUDGET = ("--data", "digits"), ("--epsilon", "3", "--delta", "1e-4")
# Every method twice where it has two ways to begin; small, so that all take a minute or two.
AUTOENCODER = "--latent 3 --size 6 --hidden 8 --steps 4"
DENOISER = "--width 8 --embedding 8 --steps 4 --copies 2 --sampling-steps 3 --batch 40"
WARM = f"{DENOISER} --warm-steps 3 --warm-batch 8"
FEW = "--per-class 2 --width 4 --networks 1 --stages 2 --epochs 1 --batch 20"
GAN = "--width 8 --generator-width 8 --steps 6 --batch 40 --generator-batch 20"
FITS = {
    "dp-moments": "dp-moments",
    "dp-moments 2": "dp-moments --size 12 --cells 2 --draws 50",
    "dp-merf": "dp-merf --frequencies 60 --scales 2 --steps 5 --batch 20",
    "dp-kip": "dp-kip --per-class 2 --steps 3 --batch 20",
    "private-set": f"private-set {FEW} --start noise",
    "private-set 2": f"private-set {FEW} --start moments --prior",
    "dp-condense": "dp-condense --per-class 2 --networks 2 --width 4 --steps 3",
    "dp-condense 2": "dp-condense --per-class 2 --networks 2 --width 4 --steps 3 --start noise --sums 2 --group 5",
    "taught-moments": "taught-moments",
    "taught-moments 2": "taught-moments --recipe plain --steps 4 --batch 50 --draws 50",
    "dp-cvae": f"dp-cvae {AUTOENCODER}",
    "vae-gm": f"vae-gm {AUTOENCODER}",
    "au-gm": f"au-gm {AUTOENCODER}",
    "dp-gan": f"dp-gan {GAN} --ratio 2 --code 5",
    "dp-gan 2": f"dp-gan {GAN} --fakes paired --ratio 1",
    "dp-cgan": "dp-cgan --width 8 --generator-width 8 --steps 6 --batch 40 --code 5",
    "dp-diffusion": f"dp-diffusion {DENOISER}",
    "dp-feta": f"dp-feta {WARM}",
    "dp-feta central": f"dp-feta {WARM} --warm-start central",
    "dp-feta mode": f"dp-feta {WARM} --warm-start mode",
}
TUNE = "dp-merf --frequencies 30,60 --scales 1 --steps 2 --batch 10 --trials 2"
TASKS = ("--classes", "0,1", "--classes", "2,3,4", "--units", "300,450")


def main(out: Path, runs: Path, others: Path) -> None:
    """Record all; what fails is recorded as its last line."""
    import torch

    import veilset
    from veilset.core.facts import processor

    torch.set_num_threads(1)
    seen: dict[str, Any] = {"version": veilset.__version__, "processor": processor(), "torch": torch.__version__}
    for name, job in jobs():
        place = runs / name.replace(" ", "-")
        place.mkdir(parents=True)
        try:
            seen[name] = job(place)
            if name in FITS:
                seen[name]["drawn by the other"] = drawn(others / place.name / "run", place / "again")
        except BaseException as e:
            seen[name] = {"error": traceback.format_exception_only(e)[-1].strip()}
        print(name, seen[name].get("error", ""), file=sys.stderr, flush=True)
    out.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")


def jobs() -> Iterator[tuple[str, Any]]:
    """(name, what to do in an empty folder)."""
    for name, line in FITS.items():
        yield name, lambda tmp, line=line: fit(line.split(), tmp)
    yield "teacher", teacher
    yield "tune", tune
    yield "stream", stream


def veilset_says(*words: str | Path) -> str:
    """What a command prints."""
    from veilset.cli.main import main as command

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = command([str(w) for w in words])
    if status:
        raise RuntimeError(f"{words}: {status}: {err.getvalue()}")
    return out.getvalue()


def fit(words: list[str], tmp: Path) -> dict[str, Any]:
    """Plan, fit with a seed, draw."""
    seen: dict[str, Any] = {"plan": json.loads(veilset_says("plan", *words, *DATA, *BUDGET, "--json"))}
    veilset_says("fit", *words, *DATA, *BUDGET, "--seed", "5", "--out", tmp / "run")
    return seen | learned(tmp / "run") | {"images": drawn(tmp / "run", tmp / "out")}


def drawn(run: Path, out: Path) -> str:
    """A digest of images and labels that a run draws."""
    veilset_says("sample", run, "-n", "60", "--seed", "2", "--out", out)
    files = [out / "labels.csv", *sorted(out.rglob("*.png"))]
    return digest(b"".join(p.name.encode() + p.read_bytes() for p in files))


def teacher(tmp: Path) -> dict[str, Any]:
    """A teacher, and what it says of public images."""
    import veilset as vs

    data = vs.load("digits")
    made = vs.make_teacher("dp-scatter", steps=4, batch=60).fit(data.train, vs.Privacy(3.0, 1e-4), seed=5)
    made.save(tmp / "run")
    return learned(tmp / "run")


def tune(tmp: Path) -> dict[str, Any]:
    """A search; its price and its best trial."""
    price = json.loads(veilset_says("tune", *TUNE.split(), *DATA, *BUDGET, "--dry", "--json"))
    veilset_says("tune", *TUNE.split(), *DATA, *BUDGET, "--seed", "5", "--out", tmp / "run")
    return {"plan": price} | learned(tmp / "run")


def stream(tmp: Path) -> dict[str, Any]:
    """A stream of two tasks."""
    veilset_says("continual", "plan", "dp-moments", *DATA, *BUDGET, *TASKS, "--seed", "5", "--out", tmp / "s")
    for _ in range(2):
        veilset_says("continual", "fit", tmp / "s", *DATA)
    runs = sorted(p.parent for p in (tmp / "s").rglob("model.safetensors"))
    first = json.loads((tmp / "s" / "stream.jsonl").read_text().splitlines()[0])["body"]
    tasks = [{k: task[k] for k in ("method", "config", "classes")} for task in first["tasks"]]
    return {p.relative_to(tmp).as_posix(): learned(p) for p in runs} | {"tasks": tasks}


def learned(run: Path) -> dict[str, Any]:
    """Ledger, claim, and every tensor of a run folder."""
    from safetensors.torch import load_file

    tensors = {k: [list(v.shape), digest(v.numpy().tobytes())] for k, v in load_file(run / "model.safetensors").items()}
    receipt = json.loads(next(p for n in ("receipt.json", "NON-PRIVATE.json") if (p := run / n).exists()).read_text())
    keep = ("epsilon", "delta", "epsilon_rdp", "accountant", "relation", "unit", "ledger_lines", "stamp")
    ledger = (run / "ledger.jsonl").read_bytes()
    return {
        "ledger": [json.loads(line)["body"] for line in ledger.splitlines()],
        "ledger's bytes": digest(ledger),
        "claim": {k: receipt[k] for k in keep if k in receipt},
        "tensors": tensors,
    }


def digest(b: bytes) -> str:
    """Sixteen digits of SHA-256."""
    return hashlib.sha256(b).hexdigest()[:16]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[-1]))
