"""Small charts as inline SVG. Words in them are escaped here; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 360, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 14, 44
LOWEST = 1e-3  # both axes run from here to 1, in powers of ten
TONES = 6  # how many tones `stack` uses before it starts again; the page's CSS has .tone0 to .tone5

ROW, SIDE = 42, 10  # of `bounds`: height of a row, room at both sides

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of `quality`: its name, and (epsilon, value, error) of each run."""

    name: str
    points: list[tuple[float, float, float]]


def attack_curve(curve: Sequence[Point], marks: Sequence[Point]) -> Markup:
    """The best attacker's true-positive rate over the false-positive rate, on log axes, above the line of guessing.

    Args:
        curve: (false-positive rate, true-positive rate) in [0.001, 1], ascending.
        marks: the points that the page's table lists.
    """
    parts = [_grid()]
    line = " ".join(f"{'L' if i else 'M'}{_x(f):.1f} {_y(t):.1f}" for i, (f, t) in enumerate(curve))
    corner = f"L{_x(1):.1f} {_y(1):.1f} L{_x(LOWEST):.1f} {_y(LOWEST):.1f} Z"
    parts.append(f'<path class="gain" d="{line} {corner}"/>')
    parts.append(f'<path class="guess" d="M{_x(LOWEST):.1f} {_y(LOWEST):.1f} L{_x(1):.1f} {_y(1):.1f}"/>')
    parts.append(f'<path class="best" d="{line}"/>')
    parts += [f'<circle class="mark" cx="{_x(f):.1f}" cy="{_y(t):.1f}" r="4"/>' for f, t in marks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">false alarms among outsiders</text>')
    turned = f"translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">members found</text>')
    title = "Best possible attacker against guessing, both axes logarithmic"
    return _svg(f'class="roc" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"', "".join(parts))


def stack(shares: Sequence[float]) -> Markup:
    """One bar cut into shares that add to 1, in tones 0, 1, 2, ... that the table beside it repeats."""
    parts, at = [], 0.0
    for i, share in enumerate(shares):
        width = 100 * max(0.0, min(share, 1.0))
        parts.append(f'<rect class="tone{i % TONES}" x="{at:.3f}" y="0" width="{width:.3f}" height="10"/>')
        at += width
    attributes = 'class="stack" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="shares"'
    return _svg(attributes, "".join(parts))


def bar(share: float) -> Markup:
    """A bar filled to `share` of its width, in [0, 1]; the number stands beside it, so readers of text skip the bar."""
    width = 100 * max(0.0, min(share, 1.0))
    inside = f'<rect class="track" width="100" height="10"/><rect class="fill" width="{width:.2f}" height="10"/>'
    return _svg('class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"', inside)


def bounds(at_most: Sequence[tuple[str, float]], at_least: tuple[str, float] | None) -> Markup:
    """Upper bounds on epsilon, and an attack's lower bound, on one axis: the truth lies between them.

    Args:
        at_most: (words, epsilon) of each accountant; the first one is the claim.
        at_least: (words, epsilon) of the best attack, or None where there was none.
    """
    rows = [(*row, "most") for row in at_most] + ([(*at_least, "least")] if at_least else [])
    top = 1.12 * max(value for _, value, _ in rows)
    ticks = _ticks(top)
    height = TOP + ROW * len(rows) + 34
    foot = height - 34

    def across(value: float) -> float:
        return SIDE + (WIDTH - 2 * SIDE) * value / top

    low = at_least[1] if at_least else 0.0
    high = min(value for _, value in at_most)
    parts = []
    if low <= high:
        wide = across(high) - across(low)
        parts.append(f'<rect class="gain" x="{across(low):.1f}" y="{TOP}" width="{wide:.1f}" height="{foot - TOP}"/>')
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{across(tick):.1f} {TOP} V{foot}"/>')
        parts.append(f'<text x="{across(tick):.1f}" y="{foot + 14}" text-anchor="middle">{tick:g}</text>')
    for i, (words, value, kind) in enumerate(rows):
        y, x = TOP + ROW * i + 34, across(value)
        end = across(0) if kind == "most" else across(top)
        parts.append(f'<text class="ink" x="{SIDE + 4}" y="{y - 13}">{escape(words)}</text>')
        parts.append(f'<path class="{kind}" d="M{x:.1f} {y} H{end:.1f}"/>')
        parts.append(f'<path class="{kind} stop" d="M{x:.1f} {y - 8} V{y + 8}"/>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{height - 4}" text-anchor="middle">epsilon</text>')
    said = "; ".join(words for words, _, _ in rows)
    label = f"Bounds on epsilon. {escape(said)}. The true value lies between."
    return _svg(f'class="roc" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}"', "".join(parts))


def quality(name: str, unit: str, series: Sequence[Series]) -> Markup:
    """A measure over epsilon (logarithmic; the last place is for runs without noise), one line a series.

    Args:
        name, unit: of the measure.
        series: at least one, each with at least one point.
    """
    points = [p for s in series for p in s.points]
    finite = sorted({e for e, _, _ in points if math.isfinite(e)}) or [1.0]
    low, high = math.log10(finite[0]), math.log10(finite[-1])
    room = max(high - low, 0.3)
    low, high = low - 0.12 * room, high + 0.12 * room
    infinite = any(math.isinf(e) for e, _, _ in points)
    right = WIDTH - RIGHT - (46 if infinite else 0)
    bottom = min(v - err for _, v, err in points)
    over = max(v + err for _, v, err in points)
    pad = max(0.08 * (over - bottom), 1e-3 * abs(over), 1e-9)
    bottom, over = bottom - pad, over + pad

    def x(epsilon: float) -> float:
        if math.isinf(epsilon):
            return WIDTH - RIGHT - 16
        return LEFT + (right - LEFT) * (math.log10(epsilon) - low) / (high - low)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (over - bottom)

    parts = []
    for e in _apart([*finite, *([math.inf] if infinite else [])], x):
        label = "no noise" if math.isinf(e) else f"{e:.3g}"
        parts.append(f'<path class="grid" d="M{x(e):.1f} {TOP} V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x(e):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    for tick in _ticks(over - bottom, bottom):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f} H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for i, s in enumerate(series):
        parts.append(_line(s, i % TONES, x, y))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">epsilon, logarithmic</text>')
    turned = f"translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(unit)}</text>')
    label = f"{escape(name)} over epsilon, {len(points)} runs; the table below has the numbers"
    return _svg(f'class="roc" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"', "".join(parts))


def mark(i: int, x: float, y: float) -> str:
    """The i-th marker: series differ by shape as well as by tone, for those who do not see colours."""
    shapes = (
        f"M{x - 4:.1f} {y - 4:.1f} h8 v8 h-8 Z",
        f"M{x:.1f} {y - 5.5:.1f} L{x + 5.5:.1f} {y + 4:.1f} H{x - 5.5:.1f} Z",
        f"M{x:.1f} {y - 6:.1f} L{x + 6:.1f} {y:.1f} L{x:.1f} {y + 6:.1f} L{x - 6:.1f} {y:.1f} Z",
        f"M{x - 5.5:.1f} {y - 4:.1f} H{x + 5.5:.1f} L{x:.1f} {y + 5.5:.1f} Z",
        f"M{x - 5:.1f} {y - 1.7:.1f} h10 v3.4 h-10 Z",
        f"M{x - 1.7:.1f} {y - 5:.1f} h3.4 v10 h-3.4 Z",
    )
    return f'<path class="tone{i % TONES}" d="{shapes[i % len(shapes)]}"/>'


def legend(i: int) -> Markup:
    """The marker of the i-th series, for the words beside the picture."""
    return _svg('class="dot" viewBox="0 0 14 14" aria-hidden="true"', mark(i, 7, 7))


def _line(s: Series, i: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """One series: error bars, the line through finite budgets, markers."""
    ordered = sorted(s.points)
    parts = [
        f'<path class="err stroke{i}" d="M{x(e):.1f} {y(v - err):.1f} V{y(v + err):.1f}"/>'
        for e, v, err in ordered
        if err
    ]
    through = [(x(e), y(v)) for e, v, _ in ordered if math.isfinite(e)]
    line = " ".join(f"{'L' if j else 'M'}{a:.1f} {b:.1f}" for j, (a, b) in enumerate(through))
    if len(through) > 1:
        parts.append(f'<path class="series stroke{i}" d="{line}"/>')
    return "".join([*parts, *(mark(i, x(e), y(v)) for e, v, _ in ordered)])


def _ticks(span: float, start: float = 0.0) -> list[float]:
    """Three to six round numbers from `start` on, over `span`."""
    raw = span / 4
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= raw)
    first = math.ceil(start / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor((start + span) / step + 1e-9) + 1)]


def _apart(values: Sequence[float], x: Callable[[float], float]) -> list[float]:
    """Those whose labels do not run into the one before."""
    kept: list[float] = []
    for v in values:
        if not kept or x(v) - x(kept[-1]) >= 34:
            kept.append(v)
    return kept


def _svg(attributes: str, inside: str) -> Markup:
    from markupsafe import Markup

    return Markup(f"<svg {attributes}>{inside}</svg>")


def _grid() -> str:
    """Lines and labels at 0.1 %, 1 %, 10 % and 100 % on both axes."""
    parts = []
    for exponent in range(-3, 1):
        v, label = 10.0**exponent, f"{10.0 ** (exponent + 2):g}%"
        parts.append(
            f'<path class="grid" d="M{_x(v):.1f} {TOP} V{HEIGHT - BOTTOM} M{LEFT} {_y(v):.1f} H{WIDTH - RIGHT}"/>'
        )
        anchor = "end" if exponent == 0 else "middle"
        parts.append(f'<text x="{_x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{label}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{_y(v) + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(parts)


def _x(rate: float) -> float:
    return LEFT + _along(rate) * (WIDTH - LEFT - RIGHT)


def _y(rate: float) -> float:
    return HEIGHT - BOTTOM - _along(rate) * (HEIGHT - TOP - BOTTOM)


def _along(rate: float) -> float:
    """Place on a log axis: 0 at LOWEST, 1 at 100 %."""
    return 1 - math.log10(min(max(rate, LOWEST), 1.0)) / math.log10(LOWEST)
