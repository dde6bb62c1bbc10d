"""ROC curves on two logarithmic axes, in panels side by side, as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

SIDE, LEFT, TOP, BOTTOM, GAP = 300, 62, 34, 50, 18  # of the square of the axes, and around it
LINE = 18  # height of a line of the legend
NARROWEST = 440  # holds the legend and the notes
LOWEST = 1e-3  # both axes run from here to 1
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by most colour-blind people
INK, PALE, SHADE = "#222", "#ddd", "#f3e3d3"

Points = Sequence[Sequence[float]]  # (false-positive rate, true-positive rate), ascending


@dataclass(frozen=True)
class Curve:
    """One ROC: its name in the legend (curves of one name share a colour), its points; controls are dashed."""

    label: str
    points: Points
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above them.
        curves: what is drawn.
        allowed: the largest true-positive rates that a claim allows; what lies above is shaded.
    """

    title: str
    curves: Sequence[Curve]
    allowed: Points = ()


def draw(panels: Sequence[Panel], notes: Sequence[str] = ()) -> str:
    """The picture as SVG text, with a legend and lines of notes below."""
    known = {c.label: c for p in panels for c in p.curves}
    looks = {label: _look(i, c.dashed) for i, (label, c) in enumerate(known.items())}
    each = LEFT + SIDE + GAP
    below = TOP + SIDE + BOTTOM
    width, height = max(NARROWEST, each * len(panels)), below + LINE * (len(known) + len(notes)) + 4
    parts = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({i * each} 0)">{_panel(panel, looks)}</g>')
    for i, (label, look) in enumerate(looks.items()):
        y = below + LINE * i
        parts.append(f'<path d="M{LEFT} {y} h26" {look}/>' + _text(LEFT + 34, y + 4, label))
    for i, note in enumerate(notes):
        parts.append(_text(LEFT, below + LINE * (len(known) + i) + 4, note))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    title = "; ".join(p.title for p in panels)
    words = escape(f"{title}. True-positive over false-positive rate, both axes logarithmic.")
    return f'{head} font-family="sans-serif" font-size="12" role="img"><title>{words}</title>{"".join(parts)}</svg>\n'


def _panel(panel: Panel, looks: dict[str, str]) -> str:
    """Axes, what the claim excludes, grid and curves."""
    parts = [_text(LEFT, TOP - 14, panel.title)]
    inside = [p for p in panel.allowed if p[0] >= LOWEST]
    if inside:
        parts.append(f'<path d="{_path(inside)} V{TOP} H{_x(inside[0][0]):.1f} Z" fill="{SHADE}"/>')
    parts.append(_grid())
    parts += [f'<path d="{_path(c.points)}" fill="none" {looks[c.label]}/>' for c in panel.curves]
    return "".join(parts)


def _grid() -> str:
    """Lines and labels at 0.1 %, 1 %, 10 % and 100 %, and the line of guessing."""
    parts = []
    for exponent in range(-3, 1):
        v, label = 10.0**exponent, f"{10.0 ** (exponent + 2):g} %"
        parts.append(f'<path d="M{_x(v):.1f} {TOP} v{SIDE} M{LEFT} {_y(v):.1f} h{SIDE}" stroke="{PALE}"/>')
        parts.append(_text(_x(v), TOP + SIDE + 16, label, "end" if exponent == 0 else "middle"))
        parts.append(_text(LEFT - 6, _y(v) + 4, label, "end"))
    parts.append(f'<path d="{_path([(LOWEST, LOWEST), (1, 1)])}" stroke="#888" stroke-dasharray="2 3"/>')
    parts.append(_text(LEFT + SIDE / 2, TOP + SIDE + 34, "outsiders called members", "middle"))
    turned = f'transform="translate(13 {TOP + SIDE / 2}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle" fill="{INK}">members found</text>')
    return "".join(parts)


def _look(i: int, dashed: bool) -> str:
    return f'stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.6"' + ' stroke-dasharray="5 4"' * dashed


def _path(points: Points) -> str:
    return " ".join(f"{'L' if i else 'M'}{_x(f):.1f} {_y(t):.1f}" for i, (f, t) in enumerate(points))


def _x(rate: float) -> float:
    return LEFT + SIDE * _along(rate)


def _y(rate: float) -> float:
    return TOP + SIDE * (1 - _along(rate))


def _along(rate: float) -> float:
    """Place on an axis: 0 at LOWEST or below, 1 at 100 %."""
    return 1 - math.log10(min(max(rate, LOWEST), 1.0)) / math.log10(LOWEST)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(words)}</text>'
