"""Facts about this machine that results carry: versions, processor, last self-test; never paths or host names."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from veilset import __version__
from veilset.core.errors import RunError
from veilset.core.io import canonical, read_json, sha256, write_json

CPUINFO = Path("/proc/cpuinfo")  # of Linux
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # flag -> words, the widest first
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "dp-accounting")


def versions() -> dict[str, str]:
    """Versions of Python, of this very code, and of the packages that decide results."""
    # An installer's note of our own version may be older than the code that runs, and receipts must name that code.
    return {"python": platform.python_version(), "veilset": __version__} | {p: _installed(p) for p in PACKAGES}


@functools.cache  # reading them takes as long as a small fit
def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cores() -> int:
    """Processor cores that this process may use, at least 1: fewer than the machine has if it is pinned to some."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(allowed) or os.cpu_count() or 1


def processor() -> str:
    """The processor's model name, as the system reports it, and the widest vectors it computes with, if known.

    Virtual machines give one name to processors of several generations, which run other code of the same library.
    """
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    widest = next((words for flag, words in VECTORS.items() if flag in told.get("flags", "").split()), None)
    return f"{name}, {widest}" if widest else name


@functools.cache
def code() -> str:
    """Hex SHA-256 of this package's sources: which code was tested, and which one ran."""
    home, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted([*home.rglob("*.py"), *home.rglob("*.cpp")]):
        digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def selftest() -> dict[str, Any] | None:
    """The last result of `veilset selftest` by this user with this very code, libraries and processor, if any."""
    try:
        kept = read_json(_selftest_file())
        return {"ok": bool(kept["ok"]), "checks": int(kept["checks"]), "code": code()}
    except (RunError, OSError, ValueError, KeyError, TypeError):
        return None


def check_tested(seed: int | None) -> None:
    """Refuse a release if the last self-test failed.

    Args:
        seed: None for a release; a run with a seed is none, and is not refused.

    Raises:
        RunError: the last self-test of this installation failed.
    """
    tested = selftest() if seed is None else None
    if tested and not tested["ok"]:
        raise RunError(
            "self-test = FAILED: a release by this installation may not be what it says; see `veilset selftest`, mend "
            "what it names and run it again, or give a seed for a run that is no release"
        )


def keep_selftest(ok: bool, checks: int) -> None:
    """Remember a result for later receipts.

    Raises:
        RunError: the user's cache cannot be written.
    """
    path = _selftest_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RunError(f"cannot make {path.parent}: {e.strerror}; choose another folder by XDG_CACHE_HOME") from e
    write_json(path, {"ok": ok, "checks": checks})


def _selftest_file() -> Path:
    """In the user's cache; another machine that shares it has another file, and so has another compiled part."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    home = (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "veilset"
    compiled = [sha256(path.read_bytes()) for path in sorted(Path(__file__).parents[1].rglob("_kernels.so"))]
    return home / "selftest" / f"{sha256(canonical([code(), versions(), processor(), compiled]))[:32]}.json"


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (2^20 bytes)."""
    try:
        # Not getrusage: its maximum is inherited from the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
