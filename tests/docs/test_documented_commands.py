"""Every `veilset ...` line of a shell block in the documentation is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from veilset.cli import _spec
from veilset.cli._verb import MethodVerb
from veilset.cli.main import VERBS, verb_parser
from veilset.methods.catalogue import registry

ROOT = Path(__file__).parents[2]
PLACEHOLDERS = {"...", "METHOD"}
OWN = {"portraits"}  # the plug-in that docs/write-your-own.md makes


def commands() -> Iterator[tuple[str, str]]:
    """(file, command) of every line; one that ends in a backslash goes on in the next."""
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in re.findall(r"^```\w*\n(.*?)^```$", file.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("veilset "):
                    yield file.name, line


LINES = sorted(set(commands()))


def test_there_are_commands() -> None:
    assert len(LINES) > 50 and {line.split()[1] for _, line in LINES} >= {"fit", "tune", "sample", "verify", "audit"}


@pytest.mark.parametrize(("file", "line"), LINES)
def test_the_command_line_takes_it(file: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if PLACEHOLDERS & set(words):
        pytest.skip("a pattern, not a command")
    assert words[0] in VERBS
    module, verb = verb_parser(words[0])
    if not isinstance(module, MethodVerb):
        verb.parse_args(words[1:])
        return
    args, rest = verb.parse_known_args(module.words(words[1:]))
    method = getattr(args, "method", None)
    known = _spec.own(method) if method in registry() else {}
    given = _spec._params(rest, verb, known)
    if method and method not in OWN:
        assert method in registry()
        assert set(given) <= set(known)
