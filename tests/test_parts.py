"""Tests are short or long, and the long ones are cut into parts, of which CI runs one: together they are all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[1]
SUITE = """
import pytest

@pytest.mark.parametrize("i", range(7))
@pytest.mark.long
def test_long(i): pass

def test_short(): pass
"""


@pytest.fixture
def chosen(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Which of the tests of SUITE run with these arguments, under this project's settings."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds to import
    shutil.copy(ROOT / "pyproject.toml", pytester.path)
    (pytester.path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", pytester.path / "tests")
    (pytester.path / "tests" / "test_of_parts.py").write_text(SUITE)

    def run(*args: str) -> list[str]:
        done = pytester.runpytest_inprocess("--collect-only", "-p", "no:cacheprovider", *args)
        return [line.split("::")[1] for line in done.outlines if "::" in line]

    return run


def test_long_tests_run_where_they_are_asked_for(chosen) -> None:
    assert chosen() == ["test_short"]
    assert chosen("-m", "long") == [f"test_long[{i}]" for i in range(7)]
    assert len(chosen("-m", "")) == 8


def test_the_parts_are_the_whole(chosen) -> None:
    parts = [chosen("-m", "long", "--part", f"{i}/3") for i in (1, 2, 3)]
    assert sorted(sum(parts, [])) == chosen("-m", "long") and [len(p) for p in parts] == [3, 2, 2]


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/x", "-1/3", "1/0"])
def test_a_part_that_does_not_exist_is_refused(part: str, pytester: pytest.Pytester, chosen) -> None:
    done = pytester.runpytest_inprocess(f"--part={part}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--part = '{part}': must be I/N" in str(done.stderr)


def ci(place: Path, targets: str, **more: str) -> list[str]:
    """What .ci/run asks of make, in a repository whose Makefile has these targets."""
    tools = place / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "make").write_text(
        f'#!/bin/sh\nif [ "$1" = -n ]; then case " {targets} " in *" $2 "*) exit 0;; esac; exit 2; fi\n'
        f'echo "$@" >> {place}/asked\n'
    )
    (tools / "make").chmod(0o755)
    (place / "asked").write_text("")
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **more}
    subprocess.run([place / ".ci" / "run"], env=env, check=True, capture_output=True)
    return (place / "asked").read_text().splitlines()


def test_ci_runs_all_short_tests_and_the_part_that_the_commit_chooses(tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    seen = set()
    for number in range(100):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", str(number)], check=True)
        first = ci(tmp_path, "")
        assert first[0] == "test" and len(first) == 2
        seen.add(first[1])
        if len(seen) == 6:
            break
    assert seen == {f"test-long PART={i}/6" for i in range(1, 7)}
    assert ci(tmp_path, "") == first
    assert ci(tmp_path, "site notebooks", PART="2/5") == [
        "test", "test-long PART=2/5", "site PART=2/5", "notebooks PART=2/5"
    ]  # fmt: skip
    assert ci(tmp_path, "site") == [*first, first[1].replace("test-long", "site")]
