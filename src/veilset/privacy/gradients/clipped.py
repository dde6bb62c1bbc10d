"""What the gate calls: the clipped sum of a loss and network, by the fast path or, failing that, the reference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from veilset.core.errors import ConfigError, Note, VeilsetError
from veilset.core.memory import keep_pages
from veilset.privacy.alone import KNOWN, alone, twins
from veilset.privacy.bounding import clip
from veilset.privacy.draws import Draws, shared
from veilset.privacy.gradients import kernels
from veilset.privacy.gradients.program import Program
from veilset.privacy.gradients.reference import Loss, Parameters, named, per_record, refuse_mixing
from veilset.privacy.gradients.sheet import MARGIN, ROWS, Sheet, shares, squares
from veilset.privacy.gradients.taps import tapped

Inputs = Sequence[torch.Tensor]  # images [n, C, H, W], labels [n], and what each record draws of its own [n, ...]
Wanted = tuple[torch.Tensor, dict[str, torch.Tensor]]  # some rows, and the gradients that they ought to have
PROBE = 3  # random public images on which the fast path must equal the reference
PART = 16  # records at a time of the reference, which needs much memory
DISTINCT = 32  # images of a whole chunk on which they are compared
FEW = 64
TOLERANCE = 1e-3  # of a record's norm; a wrong rule is wrong by far more
SUM = 1e-5  # of the bound times the rows: products in the reference are float32
OVERFLOW = 1e37  # of a squared norm, beyond which float32 may not hold it
# Where layers are rounded to bfloat16, in the reference otherwise than on the fast path: of the median row's norm, and
# of any row's. A unit near the bend of its activation may be on in one and off in the other.
BFLOAT16 = 0.05, 0.5


class Total:
    """The sum of clipped units so far.

    Args:
        size: parameters, counted one by one.
        bound: max_grad_norm.
        several: units may hold several images, which may lie in several chunks.
        seed: of what the loss draws for all records alike.

    Attributes:
        sum: float64 [size].
    """

    def __init__(self, size: int, bound: float, several: bool, seed: int = 0):
        self.bound, self.several, self.seed = bound, several, seed
        self.sum = torch.zeros(size, dtype=torch.float64)
        self._unit, self._seen, self._open = -1, 0, torch.zeros(size, dtype=torch.float64)

    def add_means(self, rows: torch.Tensor, unit: torch.Tensor, images: torch.Tensor) -> None:
        """Add the clipped mean of each unit whose last image is among these rows [n, size]; keep the sum of the last.

        Images are added one after the other, so that it makes no difference where a chunk ends.
        """
        place = unit - unit[0]
        units = int(place[-1]) + 1
        sums, count = torch.zeros(units, rows.shape[1], dtype=torch.float64), torch.zeros(units)
        count[place] = images.float()
        seen = int((unit == unit[-1]).sum())
        if self._unit == unit[0]:
            sums[0] = self._open
            seen += self._seen if unit[-1] == unit[0] else 0
        sums.index_add_(0, place, rows.to(torch.float64))
        self._unit, self._seen, self._open = int(unit[-1]), seen, sums[-1]
        whole = len(sums) - (seen < int(images[-1]))
        self.sum += clip(sums[:whole] / count[:whole, None], self.bound).sum(0)


class Clipped:
    """How the clipped sum is computed, decided once on random public images before any record is read.

    Args:
        loss: (params, one image, its label) -> scalar, or with a fourth argument: what the record draws of its own.
        params: module or mapping.
        like: one record's inputs, for their shapes and types.
        draws: what each record draws of its own, in the order of the inputs behind image and label.

    Raises:
        ConfigError: a layer mixes records, or a buffer changes; the loss draws from what depends on the record.
    """

    def __init__(self, loss: Loss, params: Parameters, like: Inputs, draws: Draws | None = None):
        refuse_mixing(params)
        keep_pages()
        self.like, self._draws, self._names = like, dict(draws or {}), tuple(draws or {})
        self._code, self._net = code_of(loss), params if isinstance(params, nn.Module) else None
        self.shapes = {k: p.shape for k, p in named(params).items()}
        self.size = sum(math.prod(s) for s in self.shapes.values())
        self.memory = 16 * self.size  # bytes a record
        self._agreed: bool | None = None
        with torch.random.fork_rng(devices=[]), torch.autocast(like[0].device.type, enabled=False):
            torch.default_generator.manual_seed(0)
            self._probed = Program()
            self.fast = self._probe(loss, params)
            self._program = self._probed.digest()

    def fits(self, loss: Loss, params: Parameters, draws: Draws | None = None) -> bool:
        """Whether this was made for the same loss, network and draws."""
        net = params if isinstance(params, nn.Module) else None
        same = net is self._net and code_of(loss) is self._code and dict(draws or {}) == self._draws
        return same and {k: p.shape for k, p in named(params).items()} == self.shapes

    def known(self, several: bool) -> Hashable:
        """All that decides which operations run on given rows, and how: the same for networks of one kind. Or None."""
        cast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        here = torch.get_num_threads(), torch.get_float32_matmul_precision(), kernels.words()
        return self._program and (self._program, self.fast, several, cast, here)

    def _probe(self, loss: Loss, params: Parameters) -> bool:
        """Whether the fast path gives the reference's gradients on random images."""
        x, y, *own = self.like
        inputs = [torch.rand(PROBE, *v.shape, dtype=v.dtype).to(v.device) for v in (x, *own)]
        inputs.insert(1, y.expand(PROBE))
        before = {k: v.clone() for k, v in params.named_buffers()} if isinstance(params, nn.Module) else {}
        try:
            with shared(1, x.device), self._probed:
                wanted = per_record(loss, params, inputs, self._names)
        except RuntimeError as e:
            if "same randomness" in str(e):
                raise ConfigError(
                    "the loss draws from a distribution that depends on the record (bernoulli(x)): "
                    "declare the draw, gate.grad(..., draws={'name': shape}), and use that"
                ) from e
            if before and "mutate" in str(e):
                raise _changing(", ".join(before)) from e
            raise
        for k, v in before.items():
            if not torch.equal(v, params.get_buffer(k)):  # type: ignore[union-attr]
                raise _changing(k)
        saved = [0]

        def count(t: torch.Tensor) -> torch.Tensor:
            saved[0] += t.numel() * t.element_size()
            return t

        try:
            hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda t: t)
            with shared(1, x.device), hooks, self._probed:
                got = tapped(loss, params, inputs, self._names)
            held = _held(got)
        except VeilsetError:
            raise
        except Exception as e:  # any layer or transform may be unsupported in its own way; the reference is general
            return self._slow(f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no message'}")
        wrong = self._wrong(got, [(torch.arange(PROBE), wanted)], (TOLERANCE, TOLERANCE))
        if wrong:
            return self._slow(wrong)
        self.memory = (3 * saved[0] + held) // PROBE + 1  # a layer's temporaries are some times what it saves
        return True

    def confirmed(self, loss: Loss, params: Parameters, rows: int, classes: int, several: bool) -> bool:
        """Whether the fast path, if taken, gives the reference's gradients in chunks of so many rows as they will be.

        Looked at once, on DISTINCT random images of several brightnesses, which are spread over all rows: each row's
        gradient, that no norm is too small, and the sum. If not, the general path is taken from here on.
        `alone.steady_rows` sees that rows do not mix.

        Args:
            loss, params: as before.
            rows: of a chunk.
            classes: labels are drawn below it.
            several: units may hold several images.
        """
        key = "equal", self.known(several), rows, classes
        if self._agreed is None and self.fast and self.like[0].device.type == "cpu" and key not in KNOWN:
            x, _, *own = self.like
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(1)
                few = min(rows, DISTINCT)
                inputs = [torch.rand(few, *v.shape).to(v.dtype) for v in (x, *own)]
                inputs[0] *= torch.rand(few, *[1] * x.dim()).to(x.dtype)
                inputs.insert(1, torch.randint(classes, (few,)))
                which, wrong = torch.randperm(rows) % few, None
                for half in (False, True) if torch.is_autocast_enabled("cpu") else (False,):
                    with shared(1, x.device), _cast(half):
                        sheet = self._sheet(loss, params, [v[which] for v in inputs], several)
                    with _cast(False):
                        wanted = self._reference(loss, params, inputs, which, half)
                        wrong = wrong or self._wrong(sheet, wanted, BFLOAT16 if half else (TOLERANCE, TOLERANCE))
            self._agreed = wrong is None or self._slow(f"{wrong} in chunks of {rows}")
            if wrong:
                self.fast, self.memory = False, 16 * self.size
            else:
                KNOWN[key] = rows
        return self._agreed is not False

    def _reference(self, loss: Loss, params: Parameters, inputs: Inputs, which: Any, half: bool) -> Iterator[Wanted]:
        """The rows that hold an image, and its gradients [1, ...]; for each image. `which` it is says each row."""
        for some in torch.arange(len(inputs[0])).split(PART):
            images = [v[some] for v in inputs]
            with shared(1, inputs[0].device):
                try:
                    with _cast(half):
                        grads = per_record(loss, params, images, self._names)
                except RuntimeError:  # torch maps some layers in float32 alone
                    if not half:
                        raise
                    with _cast(False):
                        grads = per_record(loss, params, images, self._names)
            for place, image in enumerate(some):
                yield (which == image).nonzero()[:, 0], {k: g[place, None] for k, g in grads.items()}

    def _wrong(self, sheet: Sheet, wanted: Iterable[Wanted], tolerances: tuple[float, float]) -> str | None:
        """In what a sheet's rows, norms or sum are not as they have to be, if in anything.

        Args:
            sheet: of all rows.
            wanted: (some rows, their gradients by name, or that of all of them), until all rows are dealt with.
            tolerances: of a row's norm, for the median row and for any.
        """
        norms = sheet.norms()
        finite = torch.isfinite(norms)
        bound = max(float(norms[finite].median()), 1e-30) if bool(finite.any()) else 1.0
        share = shares(norms, bound).masked_fill(~finite, 0)
        off, length, own = torch.zeros(3, sheet.n, dtype=torch.float64)
        expected = {k: torch.zeros(math.prod(s), dtype=torch.float64) for k, s in self.shapes.items()}
        for some, grads in wanted:
            for name in self.shapes:
                mine, other = sheet.part(name, some), grads[name].reshape(len(grads[name]), -1).cpu()
                for sums, v in ((off, mine - other), (length, other), (own, mine)):
                    sums[some] += squares(v)
                mine = mine.masked_fill(~finite[some, None], 0)
                expected[name] += share[some].to(mine.dtype) @ mine
        judged = torch.isfinite(length) & (length < OVERFLOW)
        usual, most = tolerances
        least = length[judged].max().sqrt() * usual if bool(judged.any()) else 0.0
        far = (off.sqrt() / length.sqrt().clamp_min(least).clamp_min(1e-30))[judged]
        if not bool((far < most).all()) or (len(far) and not float(far.median()) < usual):
            return f"its gradients differ from the reference by {float(far.max()):.1e}"
        if not bool((own.sqrt() <= norms * (1 + MARGIN))[judged].all()):
            return "it takes a gradient for shorter than it is"
        if not sheet.several and bool(finite.all()):
            total = torch.zeros(self.size, dtype=torch.float64)
            sheet.add_clipped(total, torch.ones(sheet.n, dtype=torch.bool), bound)
            if not bool((total - torch.cat([*expected.values()])).norm() <= SUM * bound * sheet.n):
                return "its sum is not that of its gradients"
        return None

    @staticmethod
    def _slow(why: str) -> bool:
        warnings.warn(f"gradients are computed by the slower general path: {why}", Note, stacklevel=2)
        return False

    def most(self, memory: int) -> int:
        """Records at a time for about `memory` bytes of temporaries; up to four times that for FEW records, since fewer
        than those cost more in calls than in arithmetic.
        """
        return max(1, min(ROWS, max(memory // self.memory, min(FEW, 4 * memory // self.memory))))

    def look(self, loss: Loss, params: Parameters, several: bool) -> Callable[..., list[torch.Tensor]]:
        """All that inputs give record by record, [n, ...] each."""

        def seen(*inputs: torch.Tensor) -> list[torch.Tensor]:
            sheet = self._sheet(loss, params, inputs, several)
            return [sheet.rows()] if several else sheet.pieces()

        return seen

    def add(
        self, total: Total, loss: Loss, params: Parameters, inputs: Inputs, unit: torch.Tensor, images: torch.Tensor
    ) -> None:
        """Add the sum over units of the clipped mean gradient of each unit's images.

        Args:
            total: changed in place.
            loss, params: as before.
            inputs: of m records, of which the last m - n are padding.
            unit: [n] which unit each record belongs to, ascending; a unit may go on in the next call.
            images: [n] how many images that unit has in all.
        """
        plain = torch.autocast(inputs[0].device.type, enabled=False)  # norms stay float32, sums are float64
        if total.several:
            rows = alone(self.look(loss, params, True), total.seed, *inputs)[0]
            with plain:
                total.add_means(rows[: len(unit)], unit, images)
            return
        n, device = len(inputs[0]), inputs[0].device
        with shared(total.seed, device):
            sheet = self._sheet(loss, params, inputs, False)
        with plain:
            bad = sheet.add_clipped(total.sum, torch.arange(n) < len(unit), total.bound)
        for order, part in twins(bad, n):  # what spoilt them may have been a neighbour
            with shared(total.seed, device):
                sheet = self._sheet(loss, params, [v[order] for v in inputs], False)
            first = torch.arange(n)
            with plain:
                sheet.add_clipped(total.sum, (first % 2 == 0) & (first < 2 * len(part)), total.bound)

    def _sheet(self, loss: Loss, params: Parameters, inputs: Inputs, several: bool) -> Sheet:
        if self.fast:
            return tapped(loss, params, inputs, self._names, several)
        sheet = Sheet(len(inputs[0]), self.shapes, several)
        for name, grads in per_record(loss, params, inputs, self._names).items():
            sheet.add(name, grads)
        return sheet

    def split(self, flat: torch.Tensor, params: Parameters) -> dict[str, torch.Tensor]:
        """A flat sum as name -> tensor in the parameter's shape and type."""
        pieces = torch.split(flat, [math.prod(s) for s in self.shapes.values()])
        now = named(params)
        return {k: v.reshape(now[k].shape).to(now[k]) for k, v in zip(self.shapes, pieces, strict=True)}


def code_of(f: Callable[..., object]) -> object:
    """What stays the same when a function is made anew in every step of a loop."""
    return getattr(f, "__code__", type(f))


def _changing(names: str) -> ConfigError:
    return ConfigError(
        f"a buffer ({names}) changes when the loss is computed; one record would reach another: keep it constant"
    )


def _cast(half: bool) -> torch.autocast:
    """The autocast that is on, or none."""
    return torch.autocast("cpu", torch.get_autocast_dtype("cpu"), enabled=half)


def _held(sheet: Sheet) -> int:
    """Bytes of per-record gradients, with the temporaries of the layer that has the largest.

    There are none where norms came with the gradients.
    """
    explicit = {k: sum(p.numel() * 4 for p in pieces) for k, (pieces, _) in sheet.explicit.items()}
    factored = sum(4 * (a.numel() + g.numel()) for a, g in sheet.factored.values())
    largest = max((v for k, v in explicit.items() if k not in sheet.squares), default=0)
    return sum(explicit.values()) + 4 * largest + factored
