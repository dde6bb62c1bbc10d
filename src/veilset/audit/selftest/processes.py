"""One run on two processes: each unit is in one of them, and throws its own coin; noise enters once, all of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from veilset.audit.selftest.base import (
    Array,
    Check,
    along,
    chi_square,
    facts,
    flat,
    gate_for,
    hidden,
    nobody,
    pictures,
    random_check,
    two_sided,
    uncorrelated,
    wrong,
)  # fmt: skip
from veilset.audit.selftest.coupled import remembered
from veilset.audit.selftest.together import together
from veilset.core.errors import RunError
from veilset.privacy import gate as gates
from veilset.privacy.plan import Release
from veilset.privacy.spec import Privacy

SIZE = 2
UNITS, STEPS, RATE = 200, 40, 0.3
SIDE = 80  # of an image without anybody: 6400 coordinates of noise
DRAWN = 8  # normal numbers of each record's own
BUDGET = Privacy(1.0, 1e-5)


def answers() -> Iterator[Check]:
    """Exact and noisy answers of one fit on two processes, all of it in one start of them."""
    with tempfile.TemporaryDirectory() as home, remembered():
        alone = _asked(Path(home) / "alone")  # first: copies of this process then know the prices
        found = together(lambda rank: _asked(Path(home) / f"{rank}"), Path(home), SIZE)
        if any(status for status, _ in found):
            raise RunError(f"the processes ended with {found}")
        mixed = together(_of_other_data, Path(home), SIZE)
        got = [told for _, told in found]
        kept = [(Path(home) / f"{rank}").exists() for rank in range(SIZE)]
    of = {
        "a sum": torch.equal(got[0]["sum"], alone["sum"]),
        "a sum of the units of a class": torch.equal(got[0]["part"], alone["part"]),
        "a gradient": torch.allclose(got[0]["grad"], alone["grad"], rtol=1e-6, atol=1e-9),
        "all have one answer": all(_equal(one, got[0]) for one in got[1:]),
        "all have one ledger, that of one process": all(one["ledger"] == alone["ledger"] for one in got),
        "coins that follow a seed": torch.equal(got[0]["seeded coins"], alone["seeded coins"]),
        "processes with other data do not begin": all(
            status and "data, plan and seed" in told for status, told in mixed
        ),
        "the first alone keeps files": kept == [True] + [False] * (SIZE - 1),
    }
    yield wrong("several processes answer what one does", "answers that differ", of=of)
    yield from _noise(got[0])
    yield from _coins(got[0]["coins"].numpy() > 0.5, got[0]["draws"])


CHECKS = (answers,)


def _asked(folder: Path) -> dict[str, Any]:
    """What one of the processes is told."""
    draws = torch.cat([_drawn(None), _drawn(0)])
    return _exact(folder) | _about_nobody() | {"coins": _thrown(None), "seeded coins": _thrown(0), "draws": draws}


def _of_other_data(rank: int) -> None:
    """A unit that is at another place in another process's copy could be summed twice."""
    x, y = pictures(20, facts())
    gate_for(hidden(facts(), np.roll(x, rank, 0), y), Release(name="s"))


def _exact(folder: Path) -> dict[str, Any]:
    info = facts()
    releases = Release(name="s"), Release(name="c", partition="class"), Release(name="g", verb="grad")
    gate = gate_for(hidden(info, *pictures(49, info)), *releases, folder=folder)
    out = {"sum": gate.sum("s", flat, by_class=True), "part": gate.sum("c", flat, part=1)}
    out["grad"] = gate.grad("g", along, {"w": torch.zeros(1, 4, 4)})["w"]
    return out | {"ledger": gate.close().to_bytes().decode()}


def _about_nobody() -> dict[str, Any]:
    """Answers without anybody are noise alone; in units of the deviation that was planned."""
    info, releases = facts((1, SIDE, SIDE)), (Release(name="s", bound=3.0), Release(name="g", verb="grad", bound=3.0))
    gate = gate_for(nobody(info), *releases, privacy=BUDGET)
    grad = gate.grad("g", along, {"w": torch.zeros(info.shape)})["w"].double().flatten() * info.units
    std = [gate.plan[name].noise_multiplier * 3.0 for name in "sg"]
    return {"noise of a sum": gate.sum("s", flat) / std[0], "noise of a gradient": grad / std[1]}


def _thrown(seed: int | None) -> torch.Tensor:
    """[steps, units] how often each unit took part."""
    info = facts(units=UNITS, classes=tuple(map(str, range(UNITS))))
    data, release = (
        hidden(info, pictures(UNITS, info)[0], np.arange(UNITS)),
        Release(name="s", sample_rate=RATE, steps=STEPS),
    )
    gate = gate_for(data, release, seed=seed)
    taken = [gate.sum("s", lambda x, y: torch.full((1,), 0.5), by_class=True)[:, 0] * 2 for _ in range(STEPS)]
    return torch.stack(taken).round()


def _drawn(seed: int | None) -> torch.Tensor:
    """[steps x units, numbers] what each unit's record drew; all of them in chunks of a few."""
    n = 24
    info = facts(units=n, classes=tuple(map(str, range(n))))
    data, release = hidden(info, pictures(n, info)[0], np.arange(n)), Release(name="g", verb="grad", bound=1e6, steps=2)
    gate = gate_for(data, release, seed=seed)

    def loss(p: Any, x: torch.Tensor, y: torch.Tensor, own: Any) -> torch.Tensor:
        return ((torch.arange(n) == y).float()[:, None] * own["z"] * p["w"]).sum()

    with mock.patch.object(gates, "GRADIENT_BYTES", 8):  # a record at a time
        steps = [gate.grad("g", loss, {"w": torch.zeros(n, DRAWN)}, draws={"z": (DRAWN,)})["w"] for _ in range(2)]
    return torch.cat(steps)


def _noise(got: dict[str, Any]) -> Iterator[Check]:
    for name in ("noise of a sum", "noise of a gradient"):
        z = got[name].numpy()
        p = chi_square(float(z @ z), len(z)), two_sided(float(z.sum()) / math.sqrt(len(z)))
        yield random_check(f"several processes add the {name} once", "scale and mean of 6400 coordinates", *p)


def _coins(taken: Array, drawn: torch.Tensor) -> Iterator[Check]:
    from scipy.stats import binom

    n = taken.size
    hits = int(taken.sum())
    p = min(1.0, 2 * float(min(binom.cdf(hits, n, RATE), binom.sf(hits - 1, n, RATE))))
    about = "how many took part, and whether those of one process follow those of the other"
    both = uncorrelated(taken[:, ::2].ravel().astype(float), taken[:, 1::2].ravel().astype(float))
    yield random_check("several processes throw each unit's coin apart", about, p, both)
    values = drawn.flatten().tolist()
    of = {"draws": len(set(values)) == len(values) and all(values)}
    yield wrong("no two processes draw alike for their records", "numbers that come again", of=of)


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    alike: Callable[[Any, Any], bool] = lambda v, w: torch.equal(v, w) if isinstance(v, torch.Tensor) else v == w  # noqa: E731
    return all(alike(v, b[k]) for k, v in a.items())
