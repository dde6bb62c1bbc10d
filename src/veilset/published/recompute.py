"""`veilset.claim`: the epsilon that follows from the constants of a published run."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from veilset.core.errors import ConfigError, suggest
from veilset.published.mechanisms import MECHANISMS, Phase
from veilset.published.price import Price, price
from veilset.published.runs import RUNS, Run

NEAR = 0.02  # of what was printed: no difference to speak of
LEAST_DELTA = 1e-9


@dataclass(frozen=True)
class Recomputed:
    """A published claim, recomputed. `print` it; `to_json` has the keys of `veilset claim --json`.

    Attributes:
        name: of the preset, or None.
        run: its constants, and what was printed (infinite: nothing).
        price: epsilon by two accountants, and from below.
    """

    name: str | None
    run: Run
    price: Price

    @property
    def relation(self) -> str:
        """Which sets it tells apart."""
        return self.run.relation or "; ".join(dict.fromkeys(MECHANISMS[p.mechanism].relation for p in self.run.phases))

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for infinity, and where nothing was printed or is known."""
        p, r = self.price, self.run
        phases = [{"mechanism": f.mechanism} | f.given() for f in r.phases]
        return {
            "preset": self.name,
            "title": r.title,
            "printed": _finite(r.printed),
            "epsilon": _finite(p.epsilon),
            "check": _finite(p.check),
            "lower": _finite(p.lower),
            "delta": r.delta,
            "relation": self.relation,
            "accountant": p.accountant,
            "check_accountant": p.check_accountant,
            "guarantee": r.holds and math.isfinite(p.epsilon),
            "why": r.why,
            "source": r.source,
            "constants": {"phases": phases, "share_of_delta": r.spent, "origin": r.origin},
        }

    def __str__(self) -> str:
        p, r = self.price, self.run
        printed = "nothing" if math.isinf(r.printed) else f"epsilon {r.printed:g}"
        lower = "" if p.lower is None or math.isinf(p.lower) else f"at least {p.lower:.4g} (by an attack), "
        lines = [r.title, f"printed   {printed} at delta {r.delta:g}"]
        lines.append(f"follows   epsilon {_words(p.epsilon)} ({p.accountant})")
        lines.append(f"check     {lower}at most {_words(p.check)} ({p.check_accountant})")
        lines.append(f"relation  {self.relation}")
        for f in r.phases:
            constants = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in f.given().items())
            lines.append(f"phase     {f.mechanism}: {constants or 'no constants'}")
        lines += [f"origin    {k.replace('_', ' ')}: {v}" for k, v in r.origin.items()]
        lines += [f"why       {r.why}", f"source    {r.source}"]
        return "\n".join(lines if r.holds else [*lines, "guarantee none of the run as it was made; see why"])


def claim(
    preset: str | None = None, *, mechanism: str | None = None, delta: float | None = None,
    printed: float | None = None, **constants: float | None,
) -> Recomputed:  # fmt: skip
    """Recompute the epsilon of a published run; it is what follows from constants, never a claim of this package.

    Args:
        preset: a name of `veilset claim --list`, alone.
        mechanism: or a mechanism: gaussian, poisson, without-replacement, shards, round-robin, count, votes, signs,
            laplace or none.
        delta: from 1e-9, below 1; 1e-5 if left out.
        printed: the epsilon that was printed, if any.
        constants: of the mechanism, all of them: noise_multiplier, rows, shards, sample_rate, steps, nonzeros.

    Raises:
        ConfigError: a name is unknown, or a constant missing, foreign or out of range.

    Examples:
        >>> found = vs.claim("gs-wgan")
        >>> found.run.printed, round(found.price.epsilon)  # printed, and what follows from the constants
        (10, 347)
    """
    given = {k: v for k, v in constants.items() if v is not None}
    if preset is not None:
        extra = [
            k for k, v in {"mechanism": mechanism, "delta": delta, "printed": printed, **given}.items() if v is not None
        ]
        if extra:
            raise ConfigError(f"preset {preset!r} has its constants: leave out {', '.join(extra)}, or the preset")
        if preset not in RUNS:
            raise ConfigError(f"preset {preset!r} is unknown.{suggest(preset, RUNS)} Presets: {', '.join(RUNS)}")
        return _recomputed(preset)
    if mechanism is None:
        raise ConfigError(
            f"name a preset or a mechanism; presets: {', '.join(RUNS)}; mechanisms: {', '.join(MECHANISMS)}"
        )
    unknown = set(given) - set(Phase.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"constant {min(unknown)!r} is unknown.{suggest(min(unknown), Phase.__dataclass_fields__)}")
    delta = 1e-5 if delta is None else delta
    if not LEAST_DELTA <= delta < 1:
        raise ConfigError(f"--delta = {delta!r}: must be from {LEAST_DELTA:g}, and below 1")
    if printed is not None and not 0 < printed < math.inf:
        raise ConfigError(f"--printed = {printed!r}: must be a number above 0; leave it out if nothing was printed")
    phase = Phase(mechanism, **given)  # type: ignore[arg-type]
    found = price([phase.part()], delta)
    why = f"{_compared(found.epsilon, printed)}{MECHANISMS[mechanism].reason}"
    title = f"{mechanism}: {MECHANISMS[mechanism].words}"
    whole = Run(title, math.inf if printed is None else printed, (phase,), why, "constants as given", {}, delta)
    return Recomputed(None, whole, found)


@functools.cache
def _recomputed(preset: str) -> Recomputed:
    run = RUNS[preset]
    return Recomputed(preset, run, price([p.part() for p in run.phases], run.delta * run.spent))


def _compared(epsilon: float, printed: float | None) -> str:
    if printed is None:
        return ""
    if abs(epsilon - printed) <= NEAR * printed:
        return "What was printed follows. "
    side = "more" if epsilon > printed else "less"
    return f"{_words(epsilon)} is {side} than the {printed:g} printed. "


def _words(epsilon: float) -> str:
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "infinite"


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
