"""What `evaluate` returns: metrics with their spread, as a table, as HTML and as JSON."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from veilset.core.errors import ConfigError, suggest


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: of the metric.
        value: mean over seeds.
        spread: sample standard deviation over seeds; None for one seed, or when all values are equal.
        unit: of value and spread.
        better: which way is better.
        reads_private: True when private records were read other than through a release; such a figure is not a release.
        seeds: how many seeds the value is the mean of.
        detail: how it was measured, "values" of each seed, and parts (such as "by_class") where it has any.
    """

    name: str
    value: float
    spread: float | None
    unit: str
    better: Literal["higher", "lower"]
    reads_private: bool
    seeds: int
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Value and spread for people: "91.23 ± 0.40", or "91.23" where the spread is not known."""
        digits = 2 if self.unit == "%" else 1
        tail = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{self.value:.{digits}f}{tail}"


@dataclass(frozen=True, repr=False)
class Scores:
    """The metrics of one evaluation, in order; `scores["gen2real-cnn"]` finds one by name."""

    metrics: tuple[Metric, ...]

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __getitem__(self, name: str) -> Metric:
        for m in self.metrics:
            if m.name == name:
                return m
        names = [m.name for m in self.metrics]
        raise ConfigError(f"{name!r} was not measured.{suggest(name, names)} Measured: {', '.join(names)}")

    @property
    def reads_private(self) -> bool:
        """True when any of the metrics read private records."""
        return any(m.reads_private for m in self.metrics)

    def to_json(self) -> dict[str, Any]:
        """{"metrics": [...]}: plain values only, no NaN."""
        return {"metrics": [asdict(m) for m in self.metrics]}

    def rows(self) -> list[tuple[str, ...]]:
        """Header and one row a metric, as text."""
        head = ("metric", "value", "unit", "better", "seeds", "reads private")
        body = [(m.name, m.shown, m.unit, m.better, str(m.seeds), "yes" if m.reads_private else "no") for m in self]
        return [head, *body]

    def __repr__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._stamp()])

    def _repr_html_(self) -> str:
        head, *body = self.rows()

        def line(tag: str, row: tuple[str, ...]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

        table = line("th", head) + "".join(line("td", row) for row in body)
        return f"<table>{table}</table>" + "".join(f"<p>{html.escape(s)}</p>" for s in self._stamp())

    def _stamp(self) -> list[str]:
        return ["NOT A RELEASE: figures marked yes were computed from private records"] if self.reads_private else []
