"""The field suite: halves apart, sets like any other, judges that know balance, and a default held to its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import veilset as vs
from benchmarks.runner import field_judges, field_sets
from benchmarks.runner.suite import SUITES, Cell
from benchmarks.suites import field
from veilset.core.errors import ConfigError


def test_the_halves_are_apart_and_every_set_is_in_one() -> None:
    assert SUITES["field"] == field.__name__
    assert not set(field_sets.TUNED) & set(field_sets.UNSEEN)
    assert {*field_sets.TUNED, *field_sets.UNSEEN} == set(field_sets.FIELD) and len(field_sets.UNSEEN) == 5


@pytest.mark.parametrize("name", ["digits", "weave"])
def test_a_set_is_like_others_and_the_same_again(name: str, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    path, again = field_sets.build(name, tmp_path), field_sets.build(name, tmp_path / "again")
    first, second = np.load(path), np.load(again)
    assert all(np.array_equal(first[k], second[k]) for k in first.files)
    data = vs.load(path)
    assert data.info.units == field_sets.FIELD[name].units == len(first["x"])
    assert isinstance(data.test, vs.Images) and len(data.test.y.unique()) == len(data.info.classes)


def test_an_unknown_set_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"data = 'nonsense': unknown set of the field; known: digits"):
        field_sets.build("nonsense", Path())


def test_judges_learn_what_is_there_and_count_each_class_alike() -> None:
    y = torch.arange(60) % 2
    x = torch.randint(0, 60, (60, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[y == 1, :, :, 6:] += 150
    images = vs.Images(x, y, ("a", "b"))
    assert all(field_judges.judge(name, images[:40], images[40:], 0) == 100 for name in field_judges.CHEAP)
    assert field_judges.balanced(torch.zeros(10), torch.tensor([0] * 9 + [1])) == 50
    assert field_judges.even(images, 20, 0).y.bincount().tolist() == [10, 10]


def _done(method: str, figure: float, seed: int) -> tuple[Cell, dict[str, Any]]:
    cells = field.cells(False, [method], ["digits"], ["1"], 2)
    cell = next(c for c in cells if c.kind == "judged" and c.params["seed"] == seed)
    cost = {"fit_seconds": 1.0, "fit_processor_seconds": 2.0, "sample_seconds": 0.0, "peak_mb": 90.0, "epsilon": 1.0}
    cost |= {"planned_seconds": 4.0, "planned_mb": 100.0, "saturated": 0.1, "config": {}}
    return cell, {"figures": {"logreg": figure}} | cost


def test_the_default_is_held_to_its_rivals_and_to_its_plan() -> None:
    done = [_done(m, f + s, s) for m, f in ((field.DEFAULT, 50.0), ("dp-moments", 60.0)) for s in (0, 1)]
    done.append((Cell("real.digits", "real", {"data": "digits", "judges": []}), {"figures": {"logreg": 90.0}}))
    found = field.summary(done, [c for c, _ in done])
    (line,) = found["behind"]
    assert line["points"] == 10 and line["errors"] == pytest.approx(10 / 0.5**0.5)
    own = next(r for r in found["rows"] if r["method"] == field.DEFAULT)
    assert own["way"]["logreg"] == pytest.approx(40.5 / 80) and own["planned"] == {"seconds": 0.5, "memory": 0.9}
    assert "1 behind by more than 2 pooled standard errors" in "\n".join(field._behind_words(found))
    with pytest.raises(ConfigError, match="only network is cnn"):
        field.cells(False, network="resnet8")
