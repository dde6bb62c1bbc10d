"""Records that are mapped together, each as if it were alone.

What a record is mapped to must depend neither on the records beside it nor on its row, or one more unit in front would
change what all others contribute. `vmap` sees to it but for what libraries do to the last bits, and for one thing more:
a product may multiply what lies behind a row by 0, and NaN or infinity times 0 is NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch

from veilset.core.errors import ConfigError
from veilset.privacy.draws import shared

Look = Callable[..., Sequence[torch.Tensor]]
KNOWN: dict[Hashable, int] = {}  # what was looked at in this process, and at how many rows -> how many were found good
EVEN = 32  # rows of a thread: whole vectors of the processor, else the last elements are computed by other instructions


def steady_rows(
    what: str, look: Look, like: Sequence[torch.Tensor], classes: int, rows: int, known: Hashable = None
) -> int:
    """The largest number of rows, `rows` or that about halved again and again, at which rows are alone to the last bit.

    Random images are looked at again and again, in other orders, each time with strangers on other rows: for every two
    rows there is a look in which the first holds a stranger and the second does not. Devices other than the processor,
    whose libraries promise no order of additions, are not looked at: see docs/proof.md.

    Args:
        what: the release, for messages.
        look: inputs, [n, ...] each -> what each of the n records gives, [n, ...] each.
        like: one record's inputs; the second is its label, or a unit's labels.
        classes: labels are drawn below it.
        rows: to begin with.
        known: all that says which operations `look` runs and how; what was found out once for it holds for the process.

    Raises:
        ConfigError: one record gives other values when it is asked again.
    """
    if like[0].device.type != "cpu":
        return rows
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        many = [torch.rand(rows, *v.shape).to(v.dtype) for v in like]
        many[1] = torch.randint(classes, many[1].shape)

        def seen(order: torch.Tensor, others: torch.Tensor | None = None) -> list[torch.Tensor]:
            inputs = [v[order] for v in many]
            if others is not None:
                inputs[0][others] = torch.rand(inputs[0][others].shape) * 100
            with shared(0, like[0].device):
                return list(look(*inputs))

        both = torch.arange(min(2, rows))
        once, again = seen(both), seen(both)
        if not all(_same(a, both, b, both) for a, b in zip(once, again, strict=True)):
            raise ConfigError(
                f"release {what!r}: asked twice about one record, the loss or map gives two answers; it keeps a state "
                "or a generator of its own. Declare what it draws: gate.grad(..., draws={'name': shape})"
            )
        if known is not None and (key := (known, rows, classes)) in KNOWN:
            return KNOWN[key]
        while rows > 1:
            rows -= rows % 2  # or the middle one would keep its place
            plain, order = seen(torch.arange(rows)), torch.arange(rows).flip(0)
            for others in strangers(rows):
                other = seen(order, others)
                kept = (~others).nonzero()[:, 0]
                if not all(_same(a, order[kept], b, kept) for a, b in zip(plain, other, strict=True)):
                    break
                order = torch.randperm(rows)
            else:
                break
            rows = rows // 2 // EVEN * EVEN or rows // 2
        if known is not None:
            KNOWN[key] = rows
    return rows


def strangers(rows: int) -> torch.Tensor:
    """Marks [looks, rows], so few looks that no row is marked in all those that another one is (Sperner 1928)."""
    looks = next(m for m in itertools.count(2) if math.comb(m, m // 2) >= rows)
    marks = torch.zeros(rows, looks, dtype=torch.bool)
    marks.scatter_(1, torch.tensor([*itertools.islice(itertools.combinations(range(looks), looks // 2), rows)]), True)
    return marks.T


def _same(a: torch.Tensor, these: torch.Tensor, b: torch.Tensor, those: torch.Tensor) -> bool:
    """Whether these rows of a are equal to those rows of b, NaN to NaN. Row by row, since copies of all take longer."""
    pairs = ((a[i], b[j]) for i, j in zip(these.tolist(), those.tolist(), strict=True))
    return all(equal(x, y) for x, y in pairs)


def equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether all values are equal, NaN to NaN."""
    return torch.equal(x, y) or bool(((x == y) | (x.isnan() & y.isnan())).all())


def alone(look: Look, seed: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What `look` gives; rows that are not finite are looked at once more, each with a copy of itself behind it.

    Args:
        look: inputs, [n, ...] each -> what each of the n records gives, [n, ...] each.
        seed: of what it draws for all of them alike.
        inputs: of n records.
    """

    def seen(*inputs: torch.Tensor) -> list[torch.Tensor]:
        with shared(seed, inputs[0].device):
            return list(look(*inputs))

    out, rows = seen(*inputs), len(inputs[0])
    bad = torch.zeros(rows, dtype=torch.bool)
    for v in out:
        bad |= ~torch.isfinite(v.reshape(rows, -1).sum(1)).cpu()  # also where only the sum is too large: no harm
    if bool(bad.any()):
        out = [v.clone() for v in out]
        for order, part in twins(bad.nonzero()[:, 0], rows):
            for v, again in zip(out, seen(*(x[order] for x in inputs)), strict=True):
                v[part] = again[::2][: len(part)]
    return out


def twins(records: torch.Tensor, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (which records fill the rows [rows], which of them stand on the even rows): each record, then its copy."""
    for part in records.split(max(1, rows // 2)) if rows > 1 and len(records) else ():
        order = part.repeat_interleave(2)
        yield torch.cat([order, order[-1:].expand(rows - len(order))]), part
