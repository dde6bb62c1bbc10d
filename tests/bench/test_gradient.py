"""The suite of the clipped gradient: what padding costs, and that both ordinary baselines are there."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suites import gradient


@pytest.mark.parametrize("rows", [32, 64, 256, 288])
def test_padding_is_that_of_drawn_batches(rows):
    drawn = np.random.default_rng(0).poisson(256, 200_000)
    assert gradient.padding(256, rows) == pytest.approx(np.mean(np.ceil(drawn / rows) * rows) / 256, rel=3e-3)


@pytest.mark.long
def test_a_step_is_measured_beside_both_ordinary_ones_and_with_its_padding():
    params = {"net": "cvae", "kind": "bfloat16", "rounds": 1, "batch": 8, "threads": 1}
    got = gradient.times(**params)
    assert {"plain", "plain order", "without"} <= set(got["ms"]) <= {"plain", "plain order", "ours", "without"}
    assert set(got["ratios"]) == set(got["ms"]) - {"plain", "plain order"}
    least = min(got["ms"]["plain"], got["ms"]["plain order"])
    assert got["ratios"]["without"] == pytest.approx(got["ms"]["without"] / least)
    best = got["ratios"].get("ours", got["ratios"]["without"])
    assert got["padded"] == pytest.approx(best * gradient.padding(8, gradient.chunk(8)))
    cell = gradient.Cell("cvae.bfloat16.8x1", "times", params)
    page = gradient.render(gradient.summary([(cell, got | {"processor": "one"})], [cell]))
    assert "plain order" in page and f"| {got['padded']:.2f} |" in page
