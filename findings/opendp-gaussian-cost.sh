#!/usr/bin/env bash
# OpenDP 0.14.1: one coordinate of exact discrete Gaussian noise costs thousands of times an ordinary normal, and a float
# vector several times an integer one. The cost hardly depends on the scale.
#
# Guess: an exact sampler costs some ten times a floating-point one, and noise for a gradient of a million coordinates a
# second or less. Seen: 20 to 70 microseconds a coordinate of an integer vector at every scale from 2^10 to 2^60, 100 and more
# of a float vector, beside about 10 nanoseconds of NumPy's generator: a step of DP-SGD on a million parameters would wait
# about a minute for its noise. Right for counts and tables, which the library is made for.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check opendp==0.14.1 numpy==2.3.5
cat > "$work/look.py" <<'PY'
import time
from importlib.metadata import version

import numpy as np
import opendp.prelude as dp

dp.enable_features("contrib")


def cost(kind, scale, n=2000):
    """Nanoseconds of processor time a coordinate, the least of three."""
    atoms = dp.atom_domain(T=int) if kind is int else dp.atom_domain(T=float, nan=False)
    add = dp.m.make_gaussian(dp.vector_domain(atoms), dp.l2_distance(T=float), scale=scale)
    took = []
    for _ in range(3):
        begun = time.process_time()
        add([kind(0)] * n)
        took.append((time.process_time() - begun) / n * 1e9)
    return min(took)


lot = np.random.default_rng(0)
begun = time.process_time()
for _ in range(20):
    lot.standard_normal(100_000)
plain = (time.process_time() - begun) / 2e6 * 1e9
small, large, real = cost(int, 2.0**10), cost(int, 2.0**60), cost(float, 2.0**10)
print(f"OpenDP {version('opendp')}: {small:.0f} ns a coordinate of an integer vector at scale 2^10, {large:.0f} at 2^60, "
      f"{real:.0f} of a float vector; NumPy {version('numpy')}: {plain:.1f} ns")
assert small > 300 * plain, "an integer coordinate costs no longer hundreds of ordinary normals"
assert 0.4 < large / small < 2.5, "the cost depends on the scale"
assert real > 2 * small, "a float coordinate costs no longer several integer ones"
PY
"$work/env/bin/python" "$work/look.py"
