"""Compile kernels.cpp into this folder: `python src/veilset/privacy/gradients/build.py`. `pip install` does the same.

The compiler is $CXX, or else the first of c++, g++ and clang++ that there is. The file is made elsewhere and put in its
place whole, so two that build at once do no harm, and a failure leaves what was there. It ends with a digest of itself
and of its source: a file that was cut, changed, or made from another source is not loaded.

Imports nothing of the package, because setup.py reads this file before there is one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
LIBRARY = Path(__file__).with_name("_kernels.so")
# No -ffast-math: NaN, infinity and denormal numbers must count. A product and a sum may become one instruction.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi")
# machine -> (name, values of float32 in a vector, what the compiler may use)
VARIANTS = {
    "x86_64": (("v4", 16, ("-march=x86-64-v4", "-mprefer-vector-width=512")), ("v3", 8, ("-march=x86-64-v3",))),
    "aarch64": (("neon", 4, ()),),
}
DIGEST = 32  # bytes at the end


def supported() -> bool:
    """Whether the source is meant for this system."""
    return sys.platform == "linux" and platform.machine() in VARIANTS


def digest(body: bytes) -> bytes:
    """What ends a library with this body that was made from the source as it is now."""
    return hashlib.sha256(body + SOURCE.read_bytes()).digest()


def build(library: Path = LIBRARY, machine: str = platform.machine()) -> None:
    """Compile.

    Raises:
        OSError: no compiler, or the folder cannot be written.
        subprocess.CalledProcessError: it does not compile; what the compiler said is its `stderr`.
    """
    found = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), "c++")
    compiler = (os.environ.get("CXX") or found).split()
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".kernels-") as tmp:
        objects = []
        for name, width, flags in (*VARIANTS[machine], ("shared", 0, ())):
            variant = (f"-DVARIANT={name}", f"-DWIDTH={width}") if width else ()
            objects.append(f"{tmp}/{name}.o")
            _run(*compiler, *FLAGS, *flags, *variant, "-c", str(SOURCE), "-o", objects[-1])
        made = Path(tmp, library.name)
        _run(*compiler, "-shared", "-s", "-pthread", *objects, "-o", str(made))
        made.write_bytes(made.read_bytes() + digest(made.read_bytes()))
        made.replace(library)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    build()
