#!/usr/bin/env bash
# prdc 0.2: a set whose images occur six times or more has precision, recall, density and coverage of 0 % against itself.
#
# Guess: whatever is compared with a copy of itself scores 100 % precision, recall and coverage, as the papers define them
# (a point within the radius, that is <=, is inside). Seen, with k = 5: 100 % while each image occurs up to four times,
# and 0 % on all four figures from six on. The radius to the k-th neighbour is then 0, and prdc asks for a distance below
# it (<). Condensed sets that are repeated to a common size, and sets with many equal blank images, meet this: the figure
# falls to 0 where copies are most. Density falls already before, to 80 % with four copies.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check prdc==0.2 numpy==2.4.6 scikit-learn==1.9.1 scipy==1.17.1
cat > "$work/look.py" <<'PY'
import contextlib
import io
from importlib.metadata import version

import numpy as np
from prdc import compute_prdc

images = np.random.default_rng(0).normal(size=(50, 16))
print(f"prdc {version('prdc')}, k = 5; copies of each image: precision, recall, density, coverage against itself")
for copies, expected in ((1, (1, 1, 1, 1)), (4, (1, 1, 0.8, 1)), (6, (0, 0, 0, 0)), (8, (0, 0, 0, 0))):
    x = np.repeat(images, copies, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        got = compute_prdc(x, x.copy(), nearest_k=5)
    four = [round(float(got[name]), 3) for name in ("precision", "recall", "density", "coverage")]
    print(copies, four)
    assert np.allclose(four, expected), "it counts repeated images otherwise now"
    nearest = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)
    inside = np.linalg.norm(x[:, None] - x, axis=2) <= nearest[:, 5:6]  # the nearest of all is the point itself
    assert inside.any(0).mean() == inside.any(1).mean() == 1, "the definition gives 100 % whatever is repeated"
PY
"$work/env/bin/python" "$work/look.py"
