"""No two modules need each other to be loaded, and every verb of the command line keeps to what a verb is."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from veilset.cli._verb import MethodVerb, PlainVerb
from veilset.cli.main import VERBS, verb_parser

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): path
    for home, top in ((ROOT / "src", "veilset"), (ROOT, "benchmarks"))
    for path in (home / top).rglob("*.py")
}


def loaded(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that are imported when this one is: outside of functions, and not for type checkers only."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                whole = f"{node.module}.{a.name}"
                yield whole if whole in FILES else str(node.module)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from loaded(node.body + node.orelse)


def graph() -> dict[str, set[str]]:
    return {name: set(loaded(ast.parse(path.read_text()).body)) & FILES.keys() for name, path in FILES.items()}


def test_no_modules_load_each_other() -> None:
    needs = graph()
    assert needs["veilset.methods.base"] >= {"veilset.privacy.gate", "veilset.core.types"}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as e:
        pytest.fail(f"these modules load each other: {' -> '.join(e.args[1])}")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_one(name: str) -> None:
    verb, _ = verb_parser(name)
    module = import_module(f"veilset.cli.{name}")
    assert module.__doc__ and isinstance(verb, PlainVerb) != isinstance(verb, MethodVerb)
    if isinstance(verb, MethodVerb):
        assert list(inspect.signature(verb.run_with_rest).parameters) == ["args", "rest", "parser"]
        assert isinstance(verb.METHOD_FIRST, bool) and verb.words(("x", "y")) == ["x", "y"]
    else:
        assert list(inspect.signature(verb.run).parameters) == ["args"]
    assert list(inspect.signature(verb.add).parameters) == ["parser"]
