"""Every public name has an example in its docstring, and all examples run, in one folder and with one fit."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import veilset as vs

FIRST = ("load", "make", "make_teacher")  # make what the others use: `data`, `model`, `teacher` and the folder release/


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What examples may use, in a folder of their own."""
    known: dict[str, Any] = {"vs": vs, "torch": torch, "Path": Path}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("examples")
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in FIRST:
            known.update(run(name, known))
        yield known


def run(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """Run the example of a public name, whose names are its own, and return those."""
    text = inspect.getdoc(getattr(vs, name)) or ""
    assert "Examples:\n" in text, f"veilset.{name} shows no example"
    test = doctest.DocTestParser().get_doctest(text, known, f"veilset.{name}", None, 0)
    told: list[str] = []
    ran = doctest.DocTestRunner().run(test, out=told.append, clear_globs=False)
    assert ran.attempted and not ran.failed, "".join(told)
    return test.globs


def test_the_first_examples_run(names: dict[str, Any]) -> None:
    assert {"data", "model", "teacher"} <= names.keys() and vs.verify("release").ok


@pytest.mark.parametrize("name", sorted(set(vs.__all__) - set(FIRST)))
def test_the_example_runs(name: str, names: dict[str, Any]) -> None:
    run(name, names)
