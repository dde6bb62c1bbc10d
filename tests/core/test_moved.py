"""Old names of modules are found, each with one note that names the new one."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import veilset
from veilset.core.errors import Note
from veilset.core.moved import MOVED


def test_no_old_name_is_a_module_and_every_new_one_is() -> None:
    home = Path(veilset.__file__).parents[1]
    for old, new in MOVED.items():
        place = home / old.replace(".", "/")
        assert not place.with_suffix(".py").exists() and not place.exists(), old
        assert find_spec(new) is not None, new


@pytest.mark.parametrize("old", ["veilset.methods.training", "veilset.methods.dp_moments", "veilset.core.vault"])
def test_an_old_name_is_the_new_module(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    new = import_module(MOVED[old])
    with pytest.warns(Note, match=f"{old} is now {MOVED[old]}") as told:
        assert import_module(old) is new
    assert len(told) == 1 and new.__spec__ is not None and new.__spec__.name == MOVED[old] == new.__name__
    assert import_module(old) is new  # without another note


def test_a_plugin_of_before_still_loads() -> None:
    lines = ("from veilset.methods.training import dp_sgd as a", "from veilset.learning.dp_sgd import dp_sgd as b")
    program = "\n".join([*lines, "assert a is b"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("is now") == 1


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("veilset.methods.nonsense")
