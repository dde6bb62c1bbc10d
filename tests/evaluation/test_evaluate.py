"""The call: seeds, what it refuses, what it says about private records, and how scores show themselves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from veilset.core.errors import ConfigError, DataError, ModeError
from veilset.core.types import Images, PublicInfo
from veilset.evaluation import Entry, Metric, Protocol, Scores, entries, evaluate, groups
from veilset.evaluation.protocols import SIX
from veilset.evaluation.registry import choose
from veilset.privacy.private import from_arrays

DEFAULT = ["gen2real-logreg", "gen2real-mlp", "gen2real-cnn", "gen2real-cnn-per-class", "gen2real-cnn-ece"]
DEFAULT += ["real2gen-cnn", "fd-gabor"]
FILE = ["fid", "kid", "is-inception"]


def test_the_registry_says_unit_direction_and_use_in_one_line() -> None:
    assert groups()["default"] == DEFAULT
    assert set(FILE) < set(groups()["inception"]) and {"fd-lite0", "coverage-lite0"} < set(groups()["lite0"])
    assert {"fd-domain", "is-domain"} < set(groups()["domain"])
    assert [n for n in groups()["six"] if n.count("-") == 1] == [f"gen2real-{c}" for c in SIX]
    assert sorted(e.name for e in choose(["six-real2gen"])) == sorted(f"real2gen-{c}" for c in SIX)
    assert not any(e.default for e in entries().values() if e.group in ("inception", "lite0", "six"))
    for entry in entries().values():
        assert isinstance(entry, Entry) and entry.unit and entry.better in ("higher", "lower")
        assert entry.doc.endswith(".") and "\n" not in entry.doc


def test_a_callable_is_drawn_anew_for_each_seed(train: Images, test: Images) -> None:
    asked: list[int] = []

    def draw(seed: int) -> Images:
        asked.append(seed)
        return train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:200]]

    scores = evaluate(draw, test, seeds=3, metrics=["fd-gabor", "gen2real-logreg"])
    assert asked == [0, 1, 2]
    for m in scores:
        assert m.seeds == 3 and len(set(m.detail["values"])) == 3
        assert m.value == pytest.approx(np.mean(m.detail["values"]))
        assert m.spread == pytest.approx(np.std(m.detail["values"], ddof=1))


def test_fixed_images_spread_over_the_classifier_only_and_repeat(train: Images, test: Images, short: Protocol) -> None:
    def run() -> Scores:
        return evaluate(train[:100], test, seeds=2, metrics=["gen2real-cnn"], protocol=short)

    m = run()["gen2real-cnn"]
    assert m.seeds == 2 and m.spread is not None and m.spread > 0
    assert run().to_json() == Scores((m,)).to_json()
    assert {"protocol": "cnn-1-epoch", "epochs": 1, "train_images": 100}.items() <= m.detail.items()
    assert m.detail["dtype"] in ("float32", "bfloat16")


def test_equal_values_are_not_printed_as_certainty(test: Images) -> None:
    m = evaluate(lambda seed: test[:300], test, seeds=2, metrics=["gen2real-logreg"])["gen2real-logreg"]
    assert m.seeds == 2 and m.spread is None and "±" not in m.shown


def test_private_records_are_named_in_every_metric_that_used_them(train: Images, test: Images) -> None:
    names = ["gen2real-logreg", "fd-gabor"]
    public = evaluate(train, test, seeds=1, metrics=names)
    assert not public.reads_private and "NOT A RELEASE" not in repr(public)
    inspected = dataclasses.replace(test, reads_private=True)
    for images, against in ((train, inspected), (dataclasses.replace(train, reads_private=True), test)):
        scores = evaluate(images, against, seeds=1, metrics=names)
        assert all(m.reads_private for m in scores)
        assert all(m["reads_private"] is True for m in scores.to_json()["metrics"])
        assert "NOT A RELEASE" in repr(scores) and "NOT A RELEASE" in scores._repr_html_()


def test_private_images_are_refused_with_the_way_out(train: Images, test: Images) -> None:
    info = PublicInfo(name="ward", classes=test.classes, shape=(1, 8, 8), units=597)
    private = from_arrays(info, test.x.numpy(), test.y.numpy())
    with pytest.raises(ModeError, match="against = PrivateImages.*public test split.*research mode"):
        evaluate(train, private)  # type: ignore[arg-type]
    with pytest.raises(ModeError, match="images = PrivateImages"):
        evaluate(private, test)  # type: ignore[arg-type]
    with pytest.raises(ModeError, match="no public test split"):
        evaluate(train, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="against is Tensor: must be Images"):
        evaluate(train, test.x)  # type: ignore[arg-type]


def test_bad_arguments_get_one_line(train: Images, test: Images) -> None:
    renamed = dataclasses.replace(test, classes=tuple("abcdefghij"))
    wide = dataclasses.replace(test, x=test.x.repeat(1, 1, 1, 2))
    cases = [
        (train, test, {"metrics": ["fd-gabbor"]}, ConfigError, "Did you mean 'fd-gabor'"),
        (train, test, {"metrics": []}, ConfigError, "metrics is empty"),
        (train, test, {"seeds": 0}, ConfigError, "seeds = 0"),
        (train, test, {"seeds": True}, ConfigError, "seeds = True"),
        (train, renamed, {}, DataError, "classes"),
        (train, wide, {}, DataError, r"shape \[1, 8, 8\].*\[1, 8, 16\]"),
        (train[:0], test, {}, DataError, "images holds no image"),
        (train, test[:0], {}, DataError, "against holds no image"),
        (train[[3] * 50], test, {}, DataError, "images holds 50 copies of one image"),
        (train, test[[3] * 50], {}, DataError, "against holds 50 copies of one image"),
    ]
    for images, against, options, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            evaluate(images, against, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_scores_show_themselves(train: Images, test: Images) -> None:
    said: list[str] = []
    scores = evaluate(train, test, metrics=["gen2real-logreg", "fd-gabor"], seeds=1, progress=said.append)
    assert said == ["seed 1 of 1: gen2real-logreg", "seed 1 of 1: fd-gabor"]
    keys = {"name", "value", "spread", "unit", "better", "reads_private", "seeds", "detail"}
    back = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert all(set(m) == keys for m in back["metrics"]) and len(scores) == 2
    assert repr(scores).splitlines()[0].split()[:2] == ["metric", "value"]
    assert "<td>fd-gabor</td>" in scores._repr_html_()
    with pytest.raises(ConfigError, match="was not measured.*Did you mean 'gen2real-logreg'"):
        scores["gen2real-logre"]


def test_values_are_printed_with_their_spread() -> None:
    percent = Metric("a", 91.234, 0.456, "%", "higher", False, 3)
    small = Metric("c", 9.7123, None, "score", "higher", False, 1)
    assert small.shown == "9.71"
    other = Metric("b", 1234.5, 12.34, "grey levels²", "lower", False, 3)
    assert (percent.shown, other.shown) == ("91.23 ± 0.46", "1234.5 ± 12.3")


def test_pixels_that_are_not_numbers_cannot_be_images(train: Images) -> None:
    nan = torch.full(train.x.shape, float("nan"))
    with pytest.raises(DataError, match="x is torch.float32.*must be uint8"):
        Images(nan, train.y, train.classes)


def test_importing_evaluation_does_not_import_torch() -> None:
    code = "import sys, veilset.evaluation; print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
