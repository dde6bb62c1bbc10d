#!/usr/bin/env bash
# POT 0.9.7: the Frechet distance of Gaussians is NaN, without a word, with fewer images than features.
#
# Guess: `bures_wasserstein_distance` is the square root of what papers call FID, so that of 200 images in 512 features is
# a number, as torch-fidelity and the eigenvalues of the product of both covariances say, and that of a set to itself 0.
# Seen: NaN for both, no warning asked for; eigenvalues of a covariance of too low a rank are rounded below 0 and their
# roots taken. `empirical_bures_wasserstein_distance` of the same two sets gives a number that is near, since it adds
# 1e-6 to the diagonal and divides by n. Small classes are the rule in medicine: a table of distances by class loses them.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check POT==0.9.7.post1 numpy==2.4.6 scipy==1.17.1
cat > "$work/look.py" <<'PY'
import numpy as np
import ot

a, b = np.random.default_rng(0).normal(size=(2, 200, 512))
means, spread = (a.mean(0), b.mean(0)), (np.cov(a.T), np.cov(b.T))
product = np.linalg.eigvals(spread[0] @ spread[1]).real
squared = ((means[0] - means[1]) ** 2).sum() + np.trace(spread[0] + spread[1]) - 2 * np.sqrt(product.clip(0)).sum()
with np.errstate(all="ignore"):
    itself = float(ot.gaussian.bures_wasserstein_distance(means[0], means[0], spread[0], spread[0]))
    other = float(ot.gaussian.bures_wasserstein_distance(*means, *spread))
near = float(ot.gaussian.empirical_bures_wasserstein_distance(a, b))
print(f"POT {ot.__version__}, 200 images, 512 features: to itself {itself}, to others {other}")
print(f"by eigenvalues {np.sqrt(squared):.2f}, from the images themselves {near:.2f}")
assert np.isnan(itself) and np.isnan(other), "it is a number now"
assert abs(near - np.sqrt(squared)) < 0.1
PY
"$work/env/bin/python" "$work/look.py"
