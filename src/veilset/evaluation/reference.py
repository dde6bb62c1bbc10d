"""The private reference: a few noisy sums of a private set, paid once; then any number of fidelity figures is free.

Three sums, each over all units, make one plan:
  * embedding: random Fourier features of fixed Gabor features, kept apart by class: the mean embedding behind a kernel
    distance (maximum mean discrepancy, the M of KID; Gretton et al. 2012, section 2.2; Rahimi and Recht 2007).
  * moments: a public descriptor of a dozen numbers per image and their products: mean and covariance behind a Frechet
    distance (Heusel et al. 2017, equation 6).
  * labels: how many units a class has.
All features, frequencies and scales are public constants. What follows from the noisy sums costs nothing more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veilset.core.errors import RunError
from veilset.core.types import PublicInfo
from veilset.evaluation.buying import buy
from veilset.privacy.plan import Plan, Release
from veilset.privacy.receipt import LEDGER, Receipt, read_receipt, verify
from veilset.privacy.spec import Privacy

if TYPE_CHECKING:
    import torch

    from veilset.privacy.account import Account
    from veilset.privacy.gate import Gate
    from veilset.privacy.private import PrivateImages

FORMAT, WHAT = "veilset-reference/1", "private-reference"
TENSORS, FACTS = "reference.safetensors", "reference.json"
FREQUENCIES, SCALES = 128, (250.0, 125.0)  # frequencies a length scale; length scales in grey levels of Gabor features
CENTRE, RADIUS = 96.0, 160.0  # grey levels: descriptors are taken from here, and clipped at RADIUS sqrt(channels)
SEED = 20_260_101  # of the public frequencies: part of the format
PLAN = (
    Release(name="embedding"),
    Release(name="moments", weight=1.5),
    Release(name="labels", weight=4.0),  # counts are large numbers: they bear more noise
)


@cache
def frequencies(features: int) -> torch.Tensor:
    """Public frequencies float64 [len(SCALES) * FREQUENCIES, features] of Gaussian kernels."""
    import torch

    w = torch.randn(
        len(SCALES) * FREQUENCIES, features, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64
    )
    return w / torch.tensor(SCALES, dtype=torch.float64).repeat_interleave(FREQUENCIES)[:, None]


def describe(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Describe images twice, record by record.

    Args:
        x: [N, C, H, W], grey levels 0 to 255, any type.

    Returns:
        Random Fourier features [N, 2 F], each row of norm 1; and descriptors [N, 4 C + 12], each row of norm at most 1:
        the brightness of four quarters and the mean energy of twelve Gabor filters, from CENTRE, in units of RADIUS.
    """
    import torch

    from veilset.evaluation.fidelity import features

    f, c = features(x), x.shape[1]
    angle = f @ frequencies(f.shape[1]).T
    embedded = torch.cat([angle.cos(), angle.sin()], 1) / math.sqrt(angle.shape[1])
    light = f[:, : 16 * c].reshape(-1, c, 2, 2, 2, 2).mean((3, 5)).flatten(1) - CENTRE
    energy = f[:, 16 * c :].reshape(len(f), -1, 16).mean(2)
    z = torch.cat([light, energy], 1) / (RADIUS * math.sqrt(c))
    return embedded, z / z.norm(dim=1, keepdim=True).clamp_min(1.0)


def with_products(z: torch.Tensor) -> torch.Tensor:
    """[N, d] of norm at most 1 -> [N, d + d (d + 1) / 2]: itself and its products, of norm at most 1 together."""
    import torch

    i, j = torch.triu_indices(z.shape[1], z.shape[1])
    twice = torch.where(i == j, 1.0, math.sqrt(2)).to(z)  # so that the norm is that of the whole matrix
    return torch.cat([z, z[:, i] * z[:, j] * twice], 1) / math.sqrt(2)


@dataclass(frozen=True)
class Reference:
    """What is known of a private set, with the standard deviation of the noise in each entry.

    Attributes:
        embedding: float64 [K, D], noisy sums of random Fourier features of each class.
        moments: float64 [d + d (d + 1) / 2], noisy sum of `with_products`.
        labels: float64 [K], noisy numbers of units.
        noise: name of a sum -> standard deviation of its noise.
        info: the declared facts.
        receipt: what was paid.
        split: "train" or "test".
    """

    embedding: torch.Tensor
    moments: torch.Tensor
    labels: torch.Tensor
    noise: dict[str, float]
    info: PublicInfo
    receipt: Receipt
    split: str

    def __str__(self) -> str:
        noise = ", ".join(f"{name} {sd:.4g}" for name, sd in self.noise.items())
        counts = ", ".join(f"{c} {n:.0f}" for c, n in zip(self.info.classes, self.labels.tolist(), strict=True))
        return (
            f"{self.receipt}\nsplit     {self.split}\nnoise     standard deviation of one entry of each sum: {noise}\n"
            f"units     {counts} (each ± {self.noise['labels']:.3g})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values: receipt, noise and noisy numbers of units per class."""
        return {
            "receipt": self.receipt.facts,
            "split": self.split,
            "noise_sd": self.noise,
            "labels": dict(zip(self.info.classes, self.labels.tolist(), strict=True)),
        }


def reference_plan(info: PublicInfo, privacy: Privacy) -> Plan:
    """The priced plan of a reference: three unsampled sums."""
    work = info.units * (2e-4 + info.pixels * 1e-8)
    return Plan(PLAN, seconds=3 + work, memory_mb=450.0).price(privacy, info)


def make_reference(
    data: PrivateImages,
    privacy: Privacy,
    out: str | Path,
    *,
    split: str = "train",
    seed: int | None = None,
    resume: bool = False,
    account: Account | None = None,
) -> Reference:
    """Buy a reference of a private set into a new folder.

    Args:
        data: a private split.
        privacy: its budget; it adds to what is spent on the same records elsewhere.
        out: folder to make.
        split: what the receipt calls the split.
        seed, resume, account: as in `buy`.

    Raises:
        ConfigError, DataError, RunError, BudgetExceeded: as `buy` and the gate.
    """
    from safetensors.torch import save

    facts = {"format": FORMAT, "split": split, "frequencies": FREQUENCIES, "scales": list(SCALES), "seed": SEED}

    def ask(gate: Gate) -> dict[str, bytes]:
        sums = {
            "embedding": gate.sum("embedding", lambda x, y: describe(x[None] * 255)[0][0], by_class=True),
            "moments": gate.sum("moments", lambda x, y: with_products(describe(x[None] * 255)[1])[0]),
            "labels": gate.sum("labels", lambda x, y: x.new_ones(1), by_class=True)[:, 0],
        }
        whole = {name: t.contiguous() for name, t in sums.items()}
        return {TENSORS: save(whole), FACTS: json.dumps(facts, indent=2).encode() + b"\n"}

    plan = reference_plan(data.info, privacy)
    buy(data, plan, out, ask, what=WHAT, config=facts, seed=seed, resume=resume, account=account)
    return open_reference(out)


def open_reference(folder: str | Path) -> Reference:
    """Read a reference after verifying it; the noise is read from its ledger.

    Raises:
        RunError: not a reference, of another format, or it does not verify.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from veilset.core.io import MOST_JSON, read_capped, read_json
    from veilset.privacy.ledger import Ledger

    folder = Path(folder).resolve()
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise RunError(f"{folder / FACTS}: not a {FORMAT} file; name what `veilset reference make` wrote")
    checked = verify(folder)
    if not checked.ok:
        bad = next(c for c in checked.checks if not c["ok"])
        raise RunError(f"{folder}: does not verify ({bad['name']}: {bad['detail']}); make it anew or copy it anew")
    ledger = Ledger(folder / LEDGER)
    info = PublicInfo.from_json(ledger.lines[0]["body"]["plan"]["info"])
    noise = {b["release"]: b["noise_multiplier"] * b["sensitivity"] for b in ledger.bodies("charge")}
    try:
        sums = load(read_capped(folder / TENSORS, MOST_JSON))
        d = 4 * info.shape[0] + 12
        shapes = {
            "embedding": (len(info.classes), 2 * len(SCALES) * FREQUENCIES),
            "moments": (d + d * (d + 1) // 2,),
            "labels": (len(info.classes),),
        }
        for name, shape in shapes.items():
            if tuple(sums[name].shape) != shape:
                raise ValueError(f"{name} is {list(sums[name].shape)}, not {list(shape)}")
        found = Reference(sums["embedding"], sums["moments"], sums["labels"], noise, info, read_receipt(folder), "")
        return replace(found, split=str(facts["split"]), noise={r.name: noise[r.name] for r in PLAN})
    except (SafetensorError, OSError, LookupError, ValueError) as e:
        raise RunError(f"{folder}: not a whole reference ({type(e).__name__}: {e}); make it anew") from e
