"""Modules that do what plain ones cannot: be called, and load what they hold when it is first used."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from veilset.core.errors import suggest


def called(module: str, home: str, function: str) -> None:
    """Let a module be called: it then is the function `function` of the module `home`, imported when it is needed.

    Importing a package binds its name in its parent, which would hide a public function of the same name. So the
    package takes calls itself: `veilset.audit(...)` works, and so does `from veilset.audit.ladder import Target`.
    """

    def target() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(home), function)
        return found

    class Called(ModuleType):
        __signature__ = property(lambda self: inspect.signature(target()))

        def __call__(self, *args: Any, **how: Any) -> Any:
            return target()(*args, **how)

    sys.modules[module].__class__ = Called


def lazy(module: str, where: Mapping[str, tuple[str, str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module whose names are loaded when they are first used.

    Args:
        module: its name.
        where: name -> (module that holds it, its name there).
    """

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {module!r} has no attribute {name!r}.{suggest(name, where)}")
        home, attribute = where[name]
        return getattr(import_module(home), attribute)

    return get, lambda: sorted(where)
