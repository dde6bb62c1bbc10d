"""A small plot as one SVG file: panels of points with error bars over named places or numbers, joined by lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 400, 320  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 46
LINE = 20  # height of a line of the legend
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by most colour-blind people
INK, PALE = "#222", "#ddd"

Point = tuple[float, float, float | None]  # where on the x axis, mean, standard deviation


@dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes:
        label: in the legend; series of the same label share a colour.
        points: (place or number on the x axis, mean, standard deviation or None), in order.
        dashed: drawn dashed with open marks.
    """

    label: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what the y axis shows.
        series: what is drawn.
        x_title: what the x axis shows.
        places: names of the places 0, 1, ... on the x axis; None: it shows numbers, from 0 on.
        log: logarithmic y axis (all means above 0).
    """

    title: str
    series: Sequence[Series]
    x_title: str
    places: Sequence[str] | None = None
    log: bool = False


def draw(panels: Sequence[Panel], notes: Sequence[str], columns: int | None = None) -> str:
    """The plot as SVG text, with a legend and lines of notes below. Draws empty axes where there are no points.

    Args:
        panels: in rows from left to right.
        notes: lines below the legend.
        columns: panels side by side; None: all of them.
    """
    labels = list(dict.fromkeys(s.label for p in panels for s in p.series))
    columns = columns or max(1, len(panels))
    bottom = HEIGHT * math.ceil(len(panels) / columns)  # of the panels
    width, height = WIDTH * columns, bottom + LINE * (1 + len(notes)) + 8
    parts = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, panel in enumerate(panels):
        x, y = i % columns * WIDTH, i // columns * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, labels)}</g>')
    for i, label in enumerate(labels):
        x, y = LEFT + i * 150, bottom + 10
        parts.append(_mark(x, y, _colour(labels, label), False) + _text(x + 12, y + 4, label))
    parts += [_text(LEFT - 6, bottom + 14 + LINE * (i + 1), note) for i, note in enumerate(notes)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    title = escape("; ".join(p.title for p in panels))
    return f'{head} font-family="sans-serif" font-size="12" role="img"><title>{title}</title>{"".join(parts)}</svg>\n'


def _panel(panel: Panel, labels: list[str]) -> str:
    """Axes, grid, lines, error bars and marks of one panel."""
    across, begin, end = _across(panel)
    ticks = _ticks(panel)
    low, high = (_scale(t, panel.log) for t in (ticks[0], ticks[-1]))

    def at(place: float, value: float) -> tuple[float, float]:
        x = LEFT + (place - begin) * (WIDTH - LEFT - RIGHT) / (end - begin)
        share = (_scale(value, panel.log) - low) / (high - low)
        return x, HEIGHT - BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, TOP - 16, panel.title)]
    for tick in ticks:
        y = at(0, tick)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f} H{WIDTH - RIGHT}" stroke="{PALE}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:,g}", "end"))
    for place, words in across:
        x = at(place, ticks[0])[0]
        if panel.places is None:
            parts.append(f'<path d="M{x:.1f} {TOP} V{HEIGHT - BOTTOM}" stroke="{PALE}"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, words, "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 38, panel.x_title, "middle"))
    for s in panel.series:
        # At a place each label stands a little aside, so that error bars do not cover each other.
        aside = 0.0 if panel.places is None else (labels.index(s.label) - (len(labels) - 1) / 2) * 0.08
        parts.append(
            _series(s, [(at(i + aside, m), at(i, m - (d or 0)), at(i, m + (d or 0))) for i, m, d in s.points], labels)
        )
    return "".join(parts)


def _series(s: Series, at: Sequence[tuple[tuple[float, float], ...]], labels: list[str]) -> str:
    """A line through the means, a bar from below to above each, and its mark; `at` holds (mean, below, above)."""
    colour = _colour(labels, s.label)
    dash = ' stroke-dasharray="4 3"' if s.dashed else ""
    line = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, ((x, y), _, _) in enumerate(at))
    parts = [f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'] if at else []
    for (x, y), (_, low), (_, high) in at:
        parts.append(
            f'<path d="M{x:.1f} {low:.1f} V{high:.1f} M{x - 4:.1f} {low:.1f} h8 M{x - 4:.1f} {high:.1f} h8" '
            f'stroke="{colour}"/>' + _mark(x, y, colour, s.dashed)
        )
    return "".join(parts)


def _across(panel: Panel) -> tuple[list[tuple[float, str]], float, float]:
    """(where there is a name or number below the x axis, and which; where the axis begins; where it ends)."""
    if panel.places is not None:
        return list(enumerate(panel.places)), -0.5, len(panel.places) - 0.5
    ticks = _round(0.0, max((x for s in panel.series for x, _, _ in s.points), default=1.0))
    return [(x, f"{x:,g}") for x in ticks], ticks[0], ticks[-1]


def _ticks(panel: Panel) -> list[float]:
    """Round numbers that enclose all points and their bars."""
    points = [p for s in panel.series for p in s.points]
    if panel.log:
        lows = [m - (d or 0) if m > (d or 0) else m for _, m, d in points] or [1.0]
        highs = [m + (d or 0) for _, m, d in points] or [10.0]
        bottom, top = math.floor(math.log10(max(min(lows), 1e-9))), math.ceil(math.log10(max(*highs, 1e-9)))
        return [10.0**k for k in range(bottom, max(top, bottom + 1) + 1)]
    low = min((m - (d or 0) for _, m, d in points), default=0.0)
    return _round(low, max((m + (d or 0) for _, m, d in points), default=1.0))


def _round(low: float, high: float) -> list[float]:
    """Round numbers at equal steps, the first not above `low`, the last not below `high`."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if (high - low) / s <= 6)
    first = math.floor(low / step)
    return [round(k * step, 12) for k in range(first, max(math.ceil(high / step), first + 1) + 1)]


def _scale(value: float, log: bool) -> float:
    return math.log10(max(value, 1e-9)) if log else value


def _colour(labels: list[str], label: str) -> str:
    return COLOURS[labels.index(label) % len(COLOURS)]


def _mark(x: float, y: float, colour: str, opened: bool) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{"#fff" if opened else colour}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(words)}</text>'
