#!/usr/bin/env bash
# torchmetrics 1.9.0: the AUROC of an attack falls to 0.5 when the same constant is added to all its scores.
#
# Guess: AUROC depends on the order of scores only, so scores of a membership attack (log-likelihoods, negative losses,
# distances) may be given as they are. Seen: one score outside [0, 1] and all go through a sigmoid in float32 first, which
# is 1 for all above 17: scores near 25 are all equal, and AUROC is 0.5, which reads as "no attack works". scikit-learn,
# torcheval and MONAI say 0.766 for the same numbers. An audit that shows 0.5 shows safety that was never measured.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.9.1 scipy==1.17.1 \
  numpy==2.4.6
cat > "$work/look.py" <<'PY'
import numpy as np
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc

rng = np.random.default_rng(0)
member = rng.integers(0, 2, 2000)
score = rng.normal(size=2000) + member
print(f"torchmetrics {torchmetrics.__version__}: added to each score, AUROC by torchmetrics, by scikit-learn")
for added, expected in ((0, 0.766), (10, 0.766), (25, 0.5)):
    theirs = float(binary_auroc(torch.tensor(score + added, dtype=torch.float32), torch.tensor(member)))
    right = roc_auc_score(member, score + added)
    print(f"{added}: {theirs:.3f} {right:.3f}")
    assert abs(right - 0.766) < 1e-3 and abs(theirs - expected) < 2e-3, "it is computed otherwise now"
PY
"$work/env/bin/python" "$work/look.py"
