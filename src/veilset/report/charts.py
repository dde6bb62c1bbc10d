"""Small charts as inline SVG. They take numbers only, so nothing needs escaping; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 360, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 14, 44
LOWEST = 1e-3  # both axes run from here to 1, in powers of ten
TONES = 6  # how many tones `stack` uses before it starts again; the page's CSS has .tone0 to .tone5

Point = tuple[float, float]


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
