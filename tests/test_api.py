"""The top level: classes by name, and modules that can be called."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

import veilset as vs
from test_house import CALLED
from veilset.core.modules import called
from veilset.methods.catalogue import BUILT_IN, TEACHERS, method_class
from veilset.methods.teachers import teacher_class


@pytest.mark.parametrize("name", BUILT_IN)
def test_synthesizers_are_the_classes_of_the_catalogue(name) -> None:
    attribute = BUILT_IN[name].attribute
    assert getattr(vs.synthesizers, attribute) is method_class(name)
    assert attribute in dir(vs.synthesizers) and attribute in vs.synthesizers.__all__


def test_teachers_are_the_classes_of_their_registry() -> None:
    assert dir(vs.teachers) == sorted(vs.teachers.__all__)
    for name, entry in TEACHERS.items():
        assert getattr(vs.teachers, entry.attribute) is teacher_class(name)


@pytest.mark.parametrize(
    ("module", "name", "word"),
    [("synthesizers", "DPMoment", "Did you mean 'DPMoments'"), ("teachers", "xyz", "no attribute 'xyz'")],
)
def test_an_unknown_class_is_an_attribute_error_in_one_line(module, name, word) -> None:
    with pytest.raises(AttributeError) as e:
        getattr(getattr(vs, module), name)
    assert word in str(e.value) and f"veilset.{module}" in str(e.value) and "\n" not in str(e.value)


def test_naming_the_classes_imports_no_torch() -> None:
    look = "dir(vs.synthesizers), vs.synthesizers.__all__, vs.teachers"
    code = f"import sys, veilset as vs; {look}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- modules that can be called


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize("first", ["module", "name"])
def test_a_module_that_is_called_is_its_main_function(name, first) -> None:
    """However it is reached, and whether or not it was imported before."""
    home, function = CALLED[name]
    reach = f"import veilset.{name}" if first == "module" else "pass"
    code = f"""{reach}
import inspect, sys
from unittest import mock
import veilset as vs
thing = vs.{name}
assert thing is sys.modules["veilset.{name}"]
import {home} as home
assert inspect.signature(thing) == inspect.signature(sys.modules["{home}"].{function})
with mock.patch.object(sys.modules["{home}"], "{function}", lambda *a, **k: (a, k)):
    assert thing(1, two=2) == ((1,), {{"two": 2}})
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_they_are_modules_still() -> None:
    assert inspect.ismodule(vs.audit) and import_module("veilset.audit.ladder").climb and vs.tune.SCORES
    assert import_module("veilset.recommend.recommend").GOALS


def test_functions_without_a_module_of_their_name_are_there() -> None:
    assert vs.attack is import_module("veilset.audit.membership.attack").attack
    assert vs.selftest is import_module("veilset.audit.selftest.run").selftest


def test_wrong_arguments_are_refused_by_the_function_itself() -> None:
    with pytest.raises(TypeError, match=r"recommend\(\) missing 1 required positional argument: 'epsilon'"):
        vs.recommend(vs.load("digits").info)
    assert vs.recommend(vs.load("digits").info, 1.0).method in vs.methods()


def test_a_module_can_be_called_only_by_what_is_there() -> None:
    module = type(sys)("veilset_made_up")
    sys.modules["veilset_made_up"] = module
    try:
        called("veilset_made_up", "veilset.core.errors", "nonsense")
        with pytest.raises(AttributeError, match="nonsense"):
            module()
    finally:
        del sys.modules["veilset_made_up"]
