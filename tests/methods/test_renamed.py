"""Parameters by the names of earlier versions: they mean what they meant, with one note each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import veilset as vs
from veilset.cli.main import main
from veilset.continual import check
from veilset.continual import plan as stream_plan
from veilset.continual.plan import Task
from veilset.continual.stream import TaskStream
from veilset.core.config import fields
from veilset.core.errors import ConfigError, Note
from veilset.core.renamed import RENAMED
from veilset.methods.catalogue import BUILT_IN, TEACHERS, any_class
from veilset.runs import RunSpec, execute

NAMES = {name: {f.name for f in fields(any_class(name).Config)} for name in BUILT_IN | TEACHERS}
OLD, NEW = {"size": 12, "cells": 2, "draws": 50}, {"basis_size": 12, "n_components": 2, "mc_samples": 50}
BUDGET = ("--data", "digits", "--epsilon", "3", "--delta", "1e-4", "--json")


@pytest.fixture(autouse=True)
def _notes() -> Iterator[None]:
    """Notes are what this file is about; elsewhere an old name is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def test_no_method_has_an_old_name_and_none_has_two_new_ones() -> None:
    assert not {old for old in RENAMED for names in NAMES.values() if old in names}
    for old, several in RENAMED.items():
        takers = [sum(new in names for new in several) for names in NAMES.values()]
        assert max(takers) == 1, old
        assert all(any(new in names for names in NAMES.values()) for new in several), old


def test_an_old_name_is_the_new_one_with_a_note() -> None:
    with pytest.warns(Note) as told:
        model = vs.make("dp-moments", **OLD)
    assert [str(w.message) for w in told] == [
        f"parameter {old} of dp-moments is now {new}; the old name goes in the next release"
        for old, new in zip(OLD, NEW, strict=True)
    ]
    assert model.config == vs.make("dp-moments", **NEW).config and model.get_params() | NEW == model.get_params()
    with pytest.warns(Note, match="size of dp-moments is now basis_size"):
        assert model.set_params(size=9).config.basis_size == 9
    with pytest.warns(Note, match="rate of dp-merf is now lr"):
        assert vs.make("dp-merf", recipe="paper", rate=0.5).config.lr == 0.5


def test_one_old_name_may_mean_two_things() -> None:
    with pytest.warns(Note):
        assert vs.make("dp-gan", copies=3).config.snapshots == 3
        assert vs.make("dp-diffusion", copies=3).config.noise_multiplicity == 3
        assert vs.make("dp-cvae", draws=3).config.latent_samples == 3


def test_both_names_at_once_are_an_error_in_one_line() -> None:
    for both in ({"rate": 0.1, "lr": 0.2}, {"lr": 0.2, "rate": 0.1}):
        with pytest.raises(ConfigError, match="dp-merf: rate and lr are one parameter; give lr alone") as e:
            vs.make("dp-merf", **both)
        assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="has no parameter 'copies'"):  # of another method
        vs.make("dp-merf", copies=2)


def test_an_old_command_line_works(capsys: pytest.CaptureFixture[str]) -> None:
    def priced(params: dict[str, int]) -> tuple[str, str]:
        words = [w for k, v in params.items() for w in (f"--{k.replace('_', '-')}", str(v))]
        assert main(["plan", "dp-moments", *words, *BUDGET]) == 0
        seen = capsys.readouterr()
        return seen.out, seen.err

    (old, notes), (new, none) = priced(OLD), priced(NEW)
    assert old == new and not none
    assert len(notes.splitlines()) == 3 and "size of dp-moments is now basis_size" in notes
    assert main(["plan", "dp-condense", "--moved", *BUDGET]) == 0  # a flag then, a flag now
    assert capsys.readouterr().err.count("moved of dp-condense is now augment") == 1


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of new names, whose files are then made those of the version before."""
    spec = RunSpec(method="dp-moments", data="digits", epsilon=3.0, delta=1e-4, seed=5, params=NEW)
    execute(spec, tmp_path / "run")
    for path, key in ((tmp_path / "run" / "model.json", "config"), (tmp_path / "run" / "private/run.json", "params")):
        facts = json.loads(path.read_text())
        facts[key] = _of_before(facts[key])
        path.write_text(json.dumps(facts))
    return tmp_path / "run"


def _of_before(config: dict[str, Any]) -> dict[str, Any]:
    return {next((o for o, n in zip(OLD, NEW, strict=True) if n == k), k): v for k, v in config.items()}


def test_a_model_and_a_run_of_before_open_without_a_note(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = vs.open_model(run)
        spec = RunSpec(method="dp-moments", data="digits", epsilon=3.0, delta=1e-4, seed=5, params=NEW)
        again = execute(spec, run, resume=True)
    assert model.config == again.config and model.config.basis_size == 12
    with pytest.warns(Note):
        execute(RunSpec(**asdict(spec) | {"params": OLD}), run, resume=True)
    with pytest.raises(vs.VeilsetError, match="started with"):
        execute(RunSpec(**asdict(spec) | {"params": NEW | {"mc_samples": 51}}), run, resume=True)


def test_a_stream_of_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = vs.load("digits")
    task = Task(classes=("0", "1"), method="dp-moments", epsilon=3.0, params=NEW)
    priced = stream_plan.plan(data.info, [task], delta=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(stream_plan, "asdict", lambda config: _of_before(asdict(config)))
        stream = TaskStream.create(priced, tmp_path / "s", seed=5)
    assert stream.facts["tasks"][0]["config"]["size"] == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stream.fit(data.train).facts["config"]["basis_size"] == 12
    assert check.verify_stream(tmp_path / "s").ok


def test_a_search_by_old_names_notes_them_once(capsys: pytest.CaptureFixture[str]) -> None:
    search = ("tune", "dp-moments", "--size", "8,9,12", "--trials", "2", "--dry")
    assert main([*search, *BUDGET]) == 0
    seen = capsys.readouterr()
    assert seen.err.count("is now basis_size") == 1 and '"basis_size": "12"' in seen.out
