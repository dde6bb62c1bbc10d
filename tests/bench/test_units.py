"""The suite of units: patients are shared out within classes, and the table says what protecting them costs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.runner.suite import Cell
from benchmarks.suites import units


def test_patients_have_so_many_images_of_one_class() -> None:
    plain = units.shared_out("digits", 1, 0)._open()
    assert plain.units is not None and len(np.unique(plain.units)) == len(plain.labels)
    data = units.shared_out("digits", 4, 0)
    seen = data._open()
    assert seen.units is not None
    assert (data.info.units, data.info.max_images_per_unit, data.info.unit) == (
        plain.labels.size // 4, 4, "one patient with 4 images"
    )  # fmt: skip
    count = np.bincount(seen.units)
    assert count.max() == 4 and count.min() >= 1 and (count < 4).sum() <= 10, "only the last of a class has fewer"
    assert all(len(np.unique(seen.labels[seen.units == u])) == 1 for u in range(len(count)))
    assert (seen.labels == plain.labels).all() and data.info.units <= len(count) <= data.info.units + 10
    assert (units.shared_out("digits", 4, 1)._open().units != seen.units).any()


def test_the_cells_hold_every_row_for_every_seed() -> None:
    cells = units.cells(False)
    assert len(cells) == len({c.name for c in cells}) == 2 * 2 * 3 * 3
    assert {c.params["images"] for c in cells} == {1, 4, 16}
    assert [c.params["seed"] for c in cells] == sorted(c.params["seed"] for c in cells)
    assert {c.params["data"] for c in units.cells(True)} == {"digits"}


def result(accuracy: float, images: int) -> dict[str, Any]:
    cost = {"fit_seconds": 60.0, "sample_seconds": 6.0, "peak_mb": 500.0, "epsilon": 1.0, "config": {}}
    return {
        "figures": {"gen2real-logreg": accuracy},
        "units": 60_000 // images,
        "versions": {},
        "processor": "p",
    } | cost


def test_the_table_states_the_loss_against_one_image_a_patient() -> None:
    done: list[tuple[Cell, dict[str, Any]]] = []
    for cell in units.cells(False, methods=["dp-merf"], epsilon=[1.0]):
        images = cell.params["images"]
        done.append((cell, result({1: 85.0, 4: 80.0, 16: 60.0}[images] + cell.params["seed"], images)))
    summary = units.summary(done, [c for c, _ in done])
    json.dumps(summary, allow_nan=False)
    rows = {r["images"]: r for r in summary["rows"]}
    assert [rows[k]["loss"] for k in (1, 4, 16)] == [0.0, 5.0, 25.0]
    assert rows[16]["figures"]["gen2real-logreg"]["sd"] == pytest.approx(1.0) and rows[16]["units"] == 3750
    page = units.pages(summary)["units.md"]
    assert "| dp-merf | 1 | 16 | 3750 | 61.00 ± 1.00 | 25.00 |" in page and units.COMMAND in page
    assert "units.md" in units.render(summary | {"missing": []})
    assert "Missing 1" in units.render(summary | {"missing": ["x"]})


def test_what_an_image_level_guarantee_promises_a_patient() -> None:
    """Sixteen images move a Gaussian release sixteen times as far: mu = 16 x 0.26805 at epsilon 1, delta 1e-5."""
    from veilset.privacy.accounting import gaussian_delta

    assert units.group_epsilon(1.0, 1) == pytest.approx(1.0, abs=1e-9)
    assert gaussian_delta(units.group_epsilon(1.0, 16), 16 / 3.730631634816) == pytest.approx(1e-5, rel=1e-6)
    assert units.group_epsilon(1.0, 16) == pytest.approx(26.797, abs=1e-3)
