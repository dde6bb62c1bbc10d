"""What results say about the machine that made them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from veilset.core import facts

INFO = "processor\t: {n}\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 {flags}\n\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [("avx2 avx512f avx512vl", "AMD EPYC, AVX-512"), ("avx avx2 fma", "AMD EPYC, AVX2"), ("avx512", "AMD EPYC")],
)
def test_processors_of_one_name_are_told_apart(
    flags: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("".join(INFO.format(n=n, flags=flags) for n in range(2)))
    monkeypatch.setattr(facts, "CPUINFO", tmp_path / "cpuinfo")
    assert facts.processor() == said


def test_a_system_that_says_less_has_a_name_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "CPUINFO", tmp_path / "none")
    assert facts.processor() == (platform.processor() or platform.machine()) != ""
    (tmp_path / "none").write_text("Processor : ARMv8\n")
    assert facts.processor() == (platform.processor() or platform.machine())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no process to cores")
def test_cores_are_those_that_the_process_may_use() -> None:
    may = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(may)})
        assert facts.cores() == 1
    finally:
        os.sched_setaffinity(0, may)
    assert facts.cores() == len(may)
