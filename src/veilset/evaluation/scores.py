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
    def label(self) -> str:
        """The name to print: "fid@1000" where a figure of few images must not be read as "fid"."""
        return str(self.detail.get("label", self.name))

    @property
    def shown(self) -> str:
        """Value and spread for people: "91.23 ± 0.40", or "91.23" where the spread is not known.

        A figure that was released with noise says its standard deviation too: "91.23 (noise ± 0.31)".
        """
        digits = 2 if self.unit == "%" or abs(self.value) < 100 else 1
        tail = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        noise = self.detail.get("noise_sd")
        return f"{self.value:.{digits}f}{tail}" + (f" (noise ± {noise:.2g})" if noise is not None else "")


@dataclass(frozen=True, repr=False)
class Scores:
    """The metrics of one evaluation, in order; `scores["gen2real-cnn"]` finds one by name.

    Attributes:
        metrics: the figures.
        notes: what must be known about the images whatever was measured.
    """

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()

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
        """{"metrics": [...], "notes": [...]}: plain values only, no NaN."""
        return {"metrics": [asdict(m) for m in self.metrics], "notes": self.warnings()}

    def warnings(self) -> list[str]:
        """Lines that every reader must see: about the images, and about single figures; each once."""
        own = [str(m.detail["note"]) for m in self.metrics if m.detail.get("note")]
        return list(dict.fromkeys([*self.notes, *own]))

    def rows(self) -> list[tuple[str, ...]]:
        """Header and one row a metric, as text."""
        head = ("metric", "value", "unit", "better", "seeds", "reads private")
        body = [(m.label, m.shown, m.unit, m.better, str(m.seeds), "yes" if m.reads_private else "no") for m in self]
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
        stamp = ["NOT A RELEASE: figures marked yes were computed from private records"] if self.reads_private else []
        return [*(f"note: {line}" for line in self.warnings()), *stamp]
