"""The committed page of every built-in method equals what docs/make_methods.py makes from its docstrings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from veilset.methods.catalogue import BUILT_IN, TEACHERS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", BUILT_IN | TEACHERS)
def test_committed_page_equals_the_generated_one(script: ModuleType, name: str) -> None:
    path = DOCS / "methods" / f"{name}.md"
    assert path.exists(), "run: python docs/make_methods.py"
    assert path.read_text() == script.page(name), "out of date; run: python docs/make_methods.py"


def test_no_page_without_a_method() -> None:
    assert {p.stem for p in (DOCS / "methods").glob("*.md")} <= set(BUILT_IN | TEACHERS)


def test_page_names_every_parameter_with_its_range(script: ModuleType) -> None:
    from veilset.core.config import fields
    from veilset.methods.catalogue import method_class
    from veilset.methods.teachers import teacher_class

    for name in script.present():
        text = script.page(name)
        for f in fields((teacher_class if name in TEACHERS else method_class)(name).Config):
            assert f"`--{f.name.replace('_', '-')}`" in text


@pytest.mark.parametrize("name", BUILT_IN | TEACHERS)
def test_lists_of_docstrings_are_lists(script: ModuleType, name: str) -> None:
    text = script.page(name)
    assert "\n* " not in text and "\n- " in text.split("## Parameters")[0]
